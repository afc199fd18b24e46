// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/embargo-registry/embargo/egress"
)

// window is the most that is handed on between two looks at the policy's epoch.
const window = 1 << 20

// Reader hands content of one digest on, in windows. It keeps the file private: bytes leave only through WriteTo.
// A Reader serves one goroutine.
type Reader struct {
	flow    *egress.Flow
	file    *os.File
	content []byte
	size    int64
	closed  bool
}

// Size is the content's length in bytes.
func (r *Reader) Size() int64 { return r.size }

// WriteTo hands n bytes from offset off to w, at most a window at a time; before each the gate is asked whether the policy still
// allows it. Where w is an io.ReaderFrom that ends in a socket, the kernel copies (sendfile). It returns the bytes handed on; a
// policy change on the way ends it with the refusing fault.
func (r *Reader) WriteTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if off < 0 || n < 0 || off > r.size || n > r.size-off {
		return 0, fmt.Errorf("blob: range %d+%d lies outside %d bytes", off, n, r.size)
	}
	if r.file != nil {
		if _, err := r.file.Seek(off, io.SeekStart); err != nil {
			return 0, err
		}
	}
	var sent int64
	for sent < n {
		size := min(window, n-sent)
		if err := r.flow.Begin(ctx); err != nil {
			return sent, err
		}
		done, err := r.hand(w, off+sent, size)
		r.flow.End(done)
		sent += done
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// hand passes one window on.
func (r *Reader) hand(w io.Writer, off, n int64) (int64, error) {
	var src io.Reader
	if r.file == nil {
		src = bytes.NewReader(r.content[off : off+n])
	} else {
		// A LimitedReader over the bare file is the shape in which the kernel's copy is reachable.
		src = &io.LimitedReader{R: r.file, N: n}
	}
	var done int64
	var err error
	if rf, ok := w.(io.ReaderFrom); ok {
		done, err = rf.ReadFrom(src)
	} else {
		done, err = io.Copy(w, src)
	}
	if err == nil && done < n {
		err = errors.New("blob: the object is shorter than its row says")
	}
	return done, err
}

// Close ends the reading. complete says whether all that was asked has been handed on; it goes on record with the bytes sent.
func (r *Reader) Close(complete bool) error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.flow.Close(complete)
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}

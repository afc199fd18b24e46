// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/egress"
)

// window is the most that is handed on between two looks at the policy's epoch.
const window = 1 << 20

// Reader hands content of one digest on, in windows. It keeps the object private: bytes leave only through WriteTo.
// A Reader serves one goroutine.
type Reader struct {
	flow    *egress.Flow
	object  driver.Object
	content []byte
	size    int64
	closed  bool
}

// Size is the content's length in bytes.
func (r *Reader) Size() int64 { return r.size }

// WriteTo hands n bytes from offset off to w, at most a window at a time; before each the gate is asked whether the policy still
// allows it. Where w is an io.ReaderFrom that ends in a socket, the kernel copies (sendfile) from a file; an object storage is asked once for all of it. It returns the bytes handed on; a
// policy change on the way ends it with the refusing fault.
func (r *Reader) WriteTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if off < 0 || n < 0 || off > r.size || n > r.size-off {
		return 0, fmt.Errorf("blob: range %d+%d lies outside %d bytes", off, n, r.size)
	}
	var from io.Reader
	if r.object != nil {
		var err error
		if from, err = r.object.Range(ctx, off, n); err != nil {
			return 0, err
		}
	}
	var sent int64
	for sent < n {
		size := min(window, n-sent)
		if err := r.flow.Begin(ctx); err != nil {
			return sent, err
		}
		done, err := hand(w, r.part(from, off+sent, size), size)
		r.flow.End(done)
		sent += done
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// part is the window of n bytes at off; from stands there, unless the content is in memory.
func (r *Reader) part(from io.Reader, off, n int64) io.Reader {
	if r.object == nil {
		return bytes.NewReader(r.content[off : off+n])
	}
	// A LimitedReader over the bare file is the shape in which the kernel's copy is reachable.
	return &io.LimitedReader{R: from, N: n}
}

// hand passes one window of n bytes on.
func hand(w io.Writer, src io.Reader, n int64) (int64, error) {
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
	if r.object != nil {
		return r.object.Close()
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package blob

import (
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
		var done int64
		var err error
		if r.object == nil {
			done, err = give(w, r.content[off+sent:off+sent+size])
		} else {
			// A LimitedReader over the bare file is the shape in which the kernel's copy is reachable.
			done, err = hand(w, &io.LimitedReader{R: from, N: size}, size)
		}
		r.flow.End(done)
		sent += done
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// give passes on a window that is in memory. Where w gathers what is written it is flushed, so that header and content leave together and nothing of the window is left behind with it.
func give(w io.Writer, part []byte) (int64, error) {
	n, err := w.Write(part)
	if f, ok := w.(interface{ Flush() }); ok && err == nil {
		f.Flush()
	}
	return int64(n), err
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

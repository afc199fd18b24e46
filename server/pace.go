// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/embargo-registry/embargo/fault"
)

// slowest is the least pace of a request's body, in bytes a second of waiting for it, once a stall's time has been waited for.
const slowest = 1 << 10

// pace keeps one exchange moving: each read of the body and each write of the answer must end within the stall time, and a body must not come in drops.
type pace struct {
	out   *http.ResponseController
	stall time.Duration
}

// writing gives the next write its time. A connection without deadlines has none.
func (p pace) writing() {
	if p.stall > 0 {
		_ = p.out.SetWriteDeadline(time.Now().Add(p.stall))
	}
}

// paced is a request's body under a pace.
type paced struct {
	io.ReadCloser
	pace
	read   int64
	waited time.Duration
	ended  bool
}

func (b *paced) Read(into []byte) (int, error) {
	if b.stall <= 0 || b.ended {
		n, err := b.ReadCloser.Read(into)
		b.read += int64(n)
		return n, err
	}
	began := time.Now()
	_ = b.out.SetReadDeadline(began.Add(b.stall))
	n, err := b.ReadCloser.Read(into)
	b.waited += time.Since(began)
	b.read += int64(n)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.ended = true
		return n, fault.New(fault.RequestTimeout, "No more of the request's body came for %v, so it is given up. Nothing of it is lost that was acknowledged: an upload can be resumed.", b.stall).Because(err)
	case err != nil:
		// The deadline must not outlive the body: net/http reads on in the background, to learn of the client's end.
		b.ended = true
		_ = b.out.SetReadDeadline(time.Time{})
	case b.waited > b.stall && float64(b.read) < slowest*b.waited.Seconds():
		b.ended = true
		return n, fault.New(fault.RequestTimeout, "The request's body comes with less than %d bytes a second, so it is given up. Nothing of it is lost that was acknowledged: an upload can be resumed.", slowest)
	}
	return n, err
}

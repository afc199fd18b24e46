// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/embargo-registry/embargo/blob/internal/driver"
)

// object is a finished object being read: each range is one request whose answer streams.
type object struct {
	d    *Driver
	name string
	now  *stream
}

// Size asks for the size.
func (o *object) Size(ctx context.Context) (int64, error) {
	ctx, cancel := within(ctx, 0)
	defer cancel()
	return o.d.b.Size(ctx, o.name)
}

// Range asks for the bytes.
func (o *object) Range(ctx context.Context, off, n int64) (io.Reader, error) {
	if err := o.Close(); err != nil {
		return nil, err
	}
	if n < 0 {
		size, err := o.Size(ctx)
		if err != nil {
			return nil, err
		}
		n = size - off
	}
	if n <= 0 {
		return bytes.NewReader(nil), nil
	}
	ctx, stop := context.WithCancel(ctx)
	s := &stream{o: o, ctx: ctx, stop: stop, off: off, left: n}
	if err := s.begin(); err != nil {
		stop()
		return nil, err
	}
	o.now = s
	return s, nil
}

// Close drops the connection of a range that was not read to its end.
func (o *object) Close() error {
	if o.now == nil {
		return nil
	}
	s := o.now
	o.now = nil
	s.stop()
	_ = s.body.Close() // what was not read is not wanted
	return nil
}

// stream is the answer to one range. Where it breaks off the rest is asked for again.
type stream struct {
	o         *object
	ctx       context.Context
	stop      context.CancelFunc
	body      io.ReadCloser
	off, left int64
	begun     int
}

func (s *stream) begin() (err error) {
	s.begun++
	s.body, err = s.o.d.b.Get(s.ctx, s.o.name, s.off, s.left)
	return err
}

// Read reads on; the error of a storage that breaks off too often matches driver.ErrAway.
func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	for {
		n, err := s.body.Read(b[:min(int64(len(b)), s.left)])
		s.off += int64(n)
		s.left -= int64(n)
		if n > 0 || err == nil {
			return n, nil // an error comes again
		}
		if s.ctx.Err() != nil {
			return 0, s.ctx.Err()
		}
		if s.begun >= attempts {
			return 0, errors.Join(driver.ErrAway, fmt.Errorf("%s broke off with %d bytes to come: %w", s.o.name, s.left, err))
		}
		_ = s.body.Close()
		if err := s.begin(); err != nil {
			s.body = io.NopCloser(bytes.NewReader(nil))
			return 0, err
		}
	}
}

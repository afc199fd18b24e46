// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"hash"
	"io"
	"sync"
)

const (
	// chunk is how much of an upload is written and hashed at a time, chunks how many may wait for the hash.
	chunk  = 128 << 10
	chunks = 4
)

// chunkPool keeps the buffers of uploads for the next ones.
type chunkPool struct{ sync.Pool }

func (p *chunkPool) get() *[chunk]byte {
	if b, ok := p.Get().(*[chunk]byte); ok {
		return b
	}
	return new([chunk]byte)
}

// take writes r to f until it ends and hashes what was written. Long content is hashed beside the writing. The count is of bytes that
// are both written and hashed; the error is the reader's or the file's.
func (s *Store) take(f io.Writer, h hash.Hash, r io.Reader) (int64, error) {
	first := s.chunks.get()
	defer s.chunks.Put(first)
	m, err := fill(r, first[:])
	n, err := put(f, first[:m], err)
	h.Write(first[:n])
	if err == io.EOF {
		return int64(n), nil
	}
	if err != nil {
		return int64(n), err
	}
	more, err := s.takeLong(f, h, r)
	return int64(n) + more, err
}

// takeLong is take with the hash in a goroutine of its own.
func (s *Store) takeLong(f io.Writer, h hash.Hash, r io.Reader) (int64, error) {
	type part struct {
		b *[chunk]byte
		n int
	}
	free, full, hashed := make(chan *[chunk]byte, chunks), make(chan part, chunks), make(chan struct{})
	for range chunks {
		free <- s.chunks.get()
	}
	go func() {
		defer close(hashed)
		for p := range full {
			h.Write(p.b[:p.n])
			free <- p.b
		}
	}()
	var taken int64
	var err error
	for err == nil {
		b := <-free
		var n int
		n, err = fill(r, b[:])
		n, err = put(f, b[:n], err)
		taken += int64(n)
		full <- part{b, n}
	}
	close(full)
	<-hashed
	for range chunks {
		s.chunks.Put(<-free)
	}
	if err == io.EOF {
		err = nil
	}
	return taken, err
}

// fill reads until b is full or r ends; the error is r's own.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// put writes b; an error of the file comes before the reader's. It returns how much is written.
func put(f io.Writer, b []byte, err error) (int, error) {
	if len(b) == 0 {
		return 0, err
	}
	n, broken := f.Write(b)
	if broken != nil {
		err = broken
	}
	return n, err
}

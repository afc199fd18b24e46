// SPDX-License-Identifier: Apache-2.0

// Package drivertest is what every driver must do.
package drivertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/blob/internal/driver"
)

// Run runs the suite. fresh makes an empty storage and gives what opens a driver on it; each driver opened stands for another node.
func Run(t *testing.T, fresh func(t *testing.T) func() driver.Driver) {
	for _, c := range []struct {
		name string
		test func(s *suite)
	}{
		{"object", object}, {"ranges", ranges}, {"resume", resume}, {"cut", cut}, {"tiny", tiny}, {"abort", abort},
		{"finishedBefore", finishedBefore}, {"leftovers", leftovers}, {"check", check},
	} {
		t.Run(c.name, func(t *testing.T) {
			open := fresh(t)
			c.test(&suite{T: t, d: open(), open: open})
		})
	}
}

type suite struct {
	*testing.T
	d    driver.Driver
	open func() driver.Driver
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// Random is content of n bytes.
func Random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its contract
	return b
}

// add writes content at size through a driver of its own, and gives the writer.
func (s *suite) add(key string, size int, state, content []byte) driver.Writer {
	s.Helper()
	w, err := s.open().Write(s.Context(), key, int64(size), state)
	s.must(err)
	n, err := w.Write(content)
	if err != nil || n != len(content) {
		s.Fatalf("%d of %d bytes written: %v", n, len(content), err)
	}
	return w
}

// append is add that is kept.
func (s *suite) append(key string, size int, state, content []byte) []byte {
	s.Helper()
	w := s.add(key, size, state, content)
	state, err := w.Sync()
	s.must(errors.Join(err, w.Close()))
	return state
}

// read is n bytes from off; n < 0 is to the end.
func (s *suite) read(key string, off, n int64) []byte {
	s.Helper()
	o, err := s.d.Open(s.Context(), key)
	s.must(err)
	r, err := o.Range(s.Context(), off, n)
	s.must(err)
	if n >= 0 {
		r = io.LimitReader(r, n) // as a Reader does
	}
	b, err := io.ReadAll(r)
	s.must(errors.Join(err, o.Close()))
	return b
}

// missing asks in every way for an object that is not there.
func (s *suite) missing(what, key string) {
	s.Helper()
	o, err := s.d.Open(s.Context(), key)
	sized, ranged := err, err
	if err == nil {
		_, sized = o.Size(s.Context())
		_, ranged = o.Range(s.Context(), 0, 1)
		s.must(o.Close())
	}
	if !errors.Is(sized, fs.ErrNotExist) || !errors.Is(ranged, fs.ErrNotExist) {
		s.Errorf("%s: %v, %v", what, sized, ranged)
	}
}

func (s *suite) same(what string, got, want []byte) {
	s.Helper()
	if !bytes.Equal(got, want) {
		s.Errorf("%s: %d bytes came back, %d were written, and they differ", what, len(got), len(want))
	}
}

// walk is what lies in the storage under a key: finished bytes, bytes of parts, and how often each was visited.
func (s *suite) walk(key string) (objects, parts int, bytes int64) {
	s.Helper()
	s.must(s.d.Walk(s.Context(), func(i driver.Item) error {
		switch {
		case i.Key != key:
			return nil
		case i.Changed.IsZero() && !i.Part:
			s.Errorf("%s has no time", key)
		}
		if i.Part {
			parts++
		} else {
			objects++
		}
		bytes += i.Size
		return nil
	}))
	return objects, parts, bytes
}

// object: what is put is read, seen, and gone when it is removed; keys that nobody made are refused.
func object(s *suite) {
	for _, content := range [][]byte{nil, []byte("content"), Random(1<<20 + 1)} {
		key := driver.NewKey()
		s.missing("before it is put", key)
		s.must(s.d.Put(s.Context(), key, content))
		s.same("put", s.read(key, 0, -1), content)
		if objects, parts, bytes := s.walk(key); objects != 1 || parts != 0 || bytes != int64(len(content)) {
			s.Errorf("a walk sees %d objects, %d parts, %d bytes of %d", objects, parts, bytes, len(content))
		}
		if err := s.d.Put(s.Context(), key, []byte("other")); err == nil {
			s.Error("another content was put under the same key")
		}
		s.same("put twice", s.read(key, 0, -1), content)
		for range 2 {
			s.must(s.d.Remove(s.Context(), key))
		}
		s.missing("after its removal", key)
	}
	for _, key := range []string{"", "..", "../outside", "ab/../../outside", "/etc/passwd", strings.Repeat("a", 31), strings.Repeat("a", 33), strings.Repeat("A", 32), strings.Repeat("a", 31) + "\n"} {
		_, opened := s.d.Open(s.Context(), key)
		_, begun := s.d.Write(s.Context(), key, 0, nil)
		for what, err := range map[string]error{"put": s.d.Put(s.Context(), key, nil), "opened": opened, "begun": begun, "removed": s.d.Remove(s.Context(), key)} {
			if err == nil || !strings.Contains(err.Error(), "is no object key") {
				s.Errorf("%q is %s: %v", key, what, err)
			}
		}
	}
}

// ranges: long content is the same in every range, also across the bounds of parts.
func ranges(s *suite) {
	content, key := Random(64<<20+1), driver.NewKey()
	w, err := s.d.Write(s.Context(), key, 0, nil)
	s.must(err)
	for rest := content; len(rest) > 0; {
		n, err := w.Write(rest[:min(len(rest), 1<<20+7)])
		s.must(err)
		rest = rest[n:]
	}
	s.must(w.Finish())
	s.same("whole", s.read(key, 0, -1), content)
	size := int64(len(content))
	for _, r := range [][2]int64{{0, 1}, {0, 0}, {8<<20 - 1, 2}, {16<<20 - 5, 8<<20 + 10}, {size - 1, 1}, {size, 0}, {1, size - 1}} {
		s.same("range", s.read(key, r[0], r[1]), content[r[0]:r[0]+r[1]])
	}
	o, err := s.d.Open(s.Context(), key)
	s.must(err)
	for range 3 { // ranges that are left before their end
		r, err := o.Range(s.Context(), 5, 32<<20)
		s.must(err)
		got := make([]byte, 100)
		_, err = io.ReadFull(r, got)
		s.must(err)
		s.same("begun", got, content[5:105])
	}
	s.must(o.Close())
}

// resume: writing goes on through other drivers, after breaks that left more than was recorded.
func resume(s *suite) {
	content, key := Random(30<<20), driver.NewKey()
	var state []byte
	at := 0
	for _, step := range []struct {
		n    int
		lost bool
	}{{100, false}, {9 << 20, true}, {7 << 20, false}, {3 << 20, false}, {9 << 20, true}, {0, false}, {17 << 20, true}, {8<<20 - 3, false}, {3, false}} {
		if step.lost {
			s.must(s.add(key, at, state, Random(step.n)).Close()) // what a process that was killed had written
			continue
		}
		state = s.append(key, at, state, content[at:at+step.n])
		at += step.n
	}
	s.must(s.add(key, at, state, content[at:]).Finish())
	s.same("resumed", s.read(key, 0, -1), content)
	if objects, _, _ := s.walk(key); objects != 1 {
		s.Errorf("%d objects", objects)
	}
}

// cut: what a Sync made durable and nobody recorded is given up.
func cut(s *suite) {
	for _, n := range []int{5, 9 << 20} {
		key, content := driver.NewKey(), Random(2*n)
		first := s.append(key, 0, nil, content[:n])
		s.append(key, n, first, Random(n+1)) // its row was not written
		second := s.append(key, n, first, content[n:])
		w, err := s.d.Write(s.Context(), key, int64(2*n), second)
		s.must(err)
		s.must(w.Finish())
		s.same("cut", s.read(key, 0, -1), content)

		key = driver.NewKey()
		s.append(key, 0, nil, Random(n)) // its row was not written
		s.must(s.add(key, 0, nil, content).Finish())
		s.same("begun anew", s.read(key, 0, -1), content)
	}
	if _, err := s.d.Write(s.Context(), driver.NewKey(), 5, []byte("{}")); err == nil {
		s.Error("writing goes on where nothing was written")
	}
}

// tiny: content may come a byte at a time, or not at all.
func tiny(s *suite) {
	content, key := Random(60), driver.NewKey()
	var state []byte
	for i := range content {
		state = s.append(key, i, state, content[i:i+1])
	}
	s.must(s.add(key, len(content), state, nil).Finish())
	s.same("tiny", s.read(key, 0, -1), content)
	key = driver.NewKey()
	s.append(key, 0, nil, nil)
	s.must(s.add(key, 0, nil, nil).Finish())
	s.same("empty", s.read(key, 0, -1), nil)
	if objects, _, _ := s.walk(key); objects != 1 {
		s.Errorf("the empty object is seen %d times", objects)
	}
}

// abort: what was written since the opening is given up, and what was recorded before is not.
func abort(s *suite) {
	for _, n := range []int{5, 9 << 20} {
		key, content := driver.NewKey(), Random(n)
		s.must(s.add(key, 0, nil, content).Abort())
		if objects, parts, _ := s.walk(key); objects+parts != 0 {
			s.Errorf("%d objects and %d parts stay of what was aborted", objects, parts)
		}
		state := s.append(key, 0, nil, content)
		s.must(s.add(key, n, state, Random(n)).Abort())
		s.must(s.add(key, n, state, nil).Finish())
		s.same("aborted", s.read(key, 0, -1), content)
	}
}

// finishedBefore: a finish whose row was not written can be repeated. Where it may be another content that was finished, it says so.
func finishedBefore(s *suite) {
	for _, n := range []int{5, 9 << 20} {
		key, content := driver.NewKey(), Random(2*n)
		state := s.append(key, 0, nil, content[:n])
		s.must(s.add(key, n, state, nil).Finish())
		if err := s.add(key, n, state, nil).Finish(); err != nil && !errors.Is(err, driver.ErrUnsure) {
			s.Errorf("finished again: %v", err)
		}
		s.same("finished again", s.read(key, 0, -1), content[:n])

		key = driver.NewKey()
		s.must(s.add(key, 0, nil, content).Finish())
		if err := s.add(key, 0, nil, content).Finish(); err != nil && !errors.Is(err, driver.ErrUnsure) {
			s.Errorf("finished again from the start: %v", err)
		}
		s.same("finished again from the start", s.read(key, 0, -1), content)
	}
}

// leftovers: what broken uploads left is seen with its size, and removed alone or with the object.
func leftovers(s *suite) {
	for _, n := range []int{5, 9 << 20} {
		key := driver.NewKey()
		state := s.append(key, 0, nil, Random(n))
		objects, parts, bytes := s.walk(key)
		if objects+parts != 1 || bytes != int64(n) {
			s.Errorf("an upload of %d bytes is seen as %d objects and %d parts of %d bytes", n, objects, parts, bytes)
		}
		if parts > 0 {
			s.must(s.d.RemoveParts(s.Context(), key))
		} else {
			s.must(s.d.Remove(s.Context(), key))
		}
		if objects, parts, _ := s.walk(key); objects+parts != 0 {
			s.Errorf("%d objects and %d parts stay", objects, parts)
		}
		w, err := s.d.Write(s.Context(), key, int64(n), state)
		if err == nil {
			err = w.Finish()
			_ = w.Close() // it has ended, or failed
		}
		if !errors.Is(err, fs.ErrNotExist) {
			s.Errorf("an upload whose parts are gone is finished: %v", err)
		}

		key = driver.NewKey()
		s.must(s.add(key, 0, nil, Random(n)).Finish())
		s.must(s.d.RemoveParts(s.Context(), key))
		if got := s.read(key, 0, -1); len(got) != n {
			s.Errorf("%d bytes stay of a finished object", len(got))
		}
		key = driver.NewKey()
		s.append(key, 0, nil, Random(n))
		s.must(s.d.Remove(s.Context(), key))
		if objects, parts, _ := s.walk(key); objects+parts != 0 {
			s.Errorf("%d objects and %d parts stay of what was removed", objects, parts)
		}
	}
	stopped := errors.New("stopped")
	s.must(s.d.Put(s.Context(), driver.NewKey(), nil))
	if err := s.d.Walk(context.Background(), func(driver.Item) error { return stopped }); !errors.Is(err, stopped) {
		s.Errorf("a walk that is stopped: %v", err)
	}
}

// check: the storage can be used, is found usable, and keeps the mark that it was given first.
func check(s *suite) {
	s.must(s.d.Check(s.Context()))
	if m, err := s.d.Mark(s.Context(), "m", nil); err != nil || m != nil {
		s.Errorf("a fresh storage has the mark %q: %v", m, err)
	}
	first, err := s.d.Mark(s.Context(), "m", []byte("one"))
	s.must(err)
	second, err := s.open().Mark(s.Context(), "m", []byte("two"))
	s.must(err)
	if !bytes.Equal(first, second) || first != nil && string(first) != "one" {
		s.Errorf("the marks %q and %q", first, second)
	}
	n := 0
	s.must(s.d.Walk(s.Context(), func(driver.Item) error { n++; return nil }))
	if n != 0 {
		s.Errorf("a walk sees %d items of the check", n)
	}
}

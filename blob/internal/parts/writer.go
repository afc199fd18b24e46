// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/embargo-registry/embargo/blob/internal/driver"
)

// Parts grow, so that the 10 000 that an object may have hold more than 500 GiB and a small one needs little memory.
const (
	smallPart  = 8 << 20
	smallParts = 1000
	largePart  = 64 << 20
	mostParts  = 10_000
)

// partSize is the size of the part with the number, from 0; all but the last have it.
func partSize(number int) int {
	if number < smallParts {
		return smallPart
	}
	return largePart
}

// state is what a later Write needs: it describes exactly the bytes that were recorded with it, whatever the storage has besides.
type state struct {
	// Session names the writing in parts; "": none was begun.
	Session string   `json:"session,omitempty"`
	Tags    []string `json:"tags,omitempty"`
	// Tail is the name of the object with what follows the parts, and TailSize its size.
	Tail     string `json:"tail,omitempty"`
	TailSize int    `json:"tailSize,omitempty"`
	// Old is the tail before: nothing needs it once this state is recorded.
	Old string `json:"old,omitempty"`
}

// size is the number of bytes that the state describes.
func (s state) size() int64 {
	n := int64(s.TailSize)
	for i := range s.Tags {
		n += int64(partSize(i))
	}
	return n
}

// writer is an object being written. A full part is on its way while the next one fills.
type writer struct {
	d    *Driver
	ctx  context.Context
	stop context.CancelFunc
	key  string
	// recorded is the state at the opening, st what has been reached.
	recorded, st state
	// buf is what follows st's parts, and loaded says that it holds st's tail.
	buf     []byte
	loaded  bool
	changed bool
	spare   []byte
	// total is the number of bytes of the object so far.
	total int64
	// sending is the part on its way.
	sending chan sent
}

// sent is how the sending of a part went.
type sent struct {
	tag string
	buf []byte
	err error
}

// Write takes up an object where its state stands.
func (d *Driver) Write(ctx context.Context, key string, size int64, recorded []byte) (driver.Writer, error) {
	if err := driver.CheckKey(key); err != nil {
		return nil, err
	}
	w := &writer{d: d, key: key}
	if size > 0 {
		if err := json.Unmarshal(recorded, &w.recorded); err != nil {
			return nil, fmt.Errorf("parts: the state of %s: %w", key, err)
		}
		if n := w.recorded.size(); n != size {
			return nil, fmt.Errorf("parts: the state of %s describes %d bytes, %d were recorded", key, n, size)
		}
	}
	w.st, w.total = w.recorded, size
	w.st.Tags = append([]string(nil), w.recorded.Tags...)
	w.loaded = w.st.Tail == ""
	w.ctx, w.stop = context.WithCancel(ctx)
	return w, nil
}

// load fetches the tail, so that it can grow.
func (w *writer) load() error {
	if w.loaded {
		return nil
	}
	content, err := w.d.get(w.ctx, w.st.Tail, w.st.TailSize)
	if err != nil {
		return err
	}
	if len(content) != w.st.TailSize {
		return fmt.Errorf("parts: the tail %s has %d bytes, %d were recorded: %w", w.st.Tail, len(content), w.st.TailSize, fs.ErrNotExist)
	}
	w.buf, w.loaded = content, true
	return nil
}

// Write sends a part whenever one is full and more follows.
func (w *writer) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := w.load(); err != nil {
		return 0, err
	}
	done := 0
	for len(b) > 0 {
		limit := partSize(w.number())
		if len(w.buf) == limit {
			if err := w.send(); err != nil {
				return done, err
			}
			continue
		}
		n := min(len(b), limit-len(w.buf))
		w.buf = append(grown(w.buf, n, limit), b[:n]...)
		w.changed = true
		w.total += int64(n)
		b = b[n:]
		done += n
	}
	return done, nil
}

// grown is b with room for n bytes more, and never for more than limit.
func grown(b []byte, n, limit int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	return append(make([]byte, 0, min(limit, max(2*cap(b), len(b)+n))), b...)
}

// number is that of the part that fills, from 0.
func (w *writer) number() int {
	n := len(w.st.Tags)
	if w.sending != nil {
		n++
	}
	return n
}

// send puts the buffer on its way as the next part.
func (w *writer) send() error {
	if err := w.arrived(); err != nil {
		return err
	}
	number := len(w.st.Tags) + 1
	if number > mostParts {
		return fmt.Errorf("parts: the object %s would have more than %d parts", w.key, mostParts)
	}
	if w.st.Session == "" {
		ctx, cancel := within(w.ctx, 0)
		defer cancel()
		session, err := w.d.b.Begin(ctx, objects+w.key)
		if err != nil {
			return err
		}
		w.st.Session = session
	}
	content := w.buf
	w.buf, w.spare, w.changed = w.spare[:0], nil, true
	w.sending = make(chan sent, 1)
	go func(done chan<- sent, session string) {
		ctx, cancel := within(w.ctx, len(content))
		defer cancel()
		tag, err := w.d.b.PutPart(ctx, objects+w.key, session, number, content)
		done <- sent{tag, content, err}
	}(w.sending, w.st.Session)
	return nil
}

// arrived waits for the part on its way.
func (w *writer) arrived() error {
	if w.sending == nil {
		return nil
	}
	s := <-w.sending
	w.sending = nil
	if s.err != nil {
		return s.err
	}
	w.st.Tags = append(w.st.Tags, s.tag)
	w.spare = s.buf
	return nil
}

// Sync waits for the parts and writes what follows them as a new tail; the tail of the recorded state stays until the new one is recorded.
func (w *writer) Sync() ([]byte, error) {
	if w.loaded && len(w.buf) == partSize(w.number()) {
		if err := w.send(); err != nil {
			return nil, err
		}
	}
	if err := w.arrived(); err != nil {
		return nil, err
	}
	if w.changed {
		w.drop(w.recorded.Old)
		w.st.Old, w.st.Tail, w.st.TailSize = w.recorded.Tail, "", len(w.buf)
		if len(w.buf) > 0 {
			w.st.Tail = tails + w.key + "/" + driver.NewKey()
			if err := w.d.put(w.ctx, w.st.Tail, w.buf); err != nil {
				return nil, err
			}
		}
		w.changed = false
	}
	return json.Marshal(w.st)
}

// Finish completes the parts; content that never filled one is put whole.
func (w *writer) Finish() error {
	err := w.complete()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, driver.ErrTaken) {
		err = w.again(err)
	}
	if err != nil {
		return err
	}
	w.drop(w.st.Tail)
	w.drop(w.recorded.Tail)
	w.drop(w.recorded.Old)
	return w.Close()
}

func (w *writer) complete() error {
	if err := w.load(); err != nil {
		return err
	}
	if err := w.arrived(); err != nil {
		return err
	}
	if w.st.Session == "" {
		return w.d.put(w.ctx, objects+w.key, w.buf)
	}
	if len(w.buf) > 0 {
		if err := w.send(); err != nil {
			return err
		}
		if err := w.arrived(); err != nil {
			return err
		}
	}
	ctx, cancel := within(w.ctx, 0)
	defer cancel()
	return w.d.b.Complete(ctx, objects+w.key, w.st.Session, w.st.Tags)
}

// again finds out whether the object was finished before: by a request whose answer, or whose row, got lost.
func (w *writer) again(why error) error {
	ctx, cancel := within(w.ctx, 0)
	defer cancel()
	size, err := w.d.b.Size(ctx, objects+w.key)
	if errors.Is(err, fs.ErrNotExist) {
		return why
	}
	if err != nil {
		return err
	}
	if size == w.total {
		return driver.ErrUnsure
	}
	return errors.Join(driver.ErrTaken, why)
}

// Abort ends the sessions and removes the tails of an object that began with this opening; else only the parts that nobody recorded stay, until the object is finished or removed.
func (w *writer) Abort() error {
	if err := w.Close(); err != nil {
		return err
	}
	ctx := context.WithoutCancel(w.ctx)
	if w.recorded.size() > 0 || w.st.Session == "" && w.st.Tail == "" {
		return nil
	}
	return w.d.RemoveParts(ctx, w.key)
}

// Close waits for the part on its way, which ends at once.
func (w *writer) Close() error {
	w.stop()
	if w.sending != nil {
		<-w.sending
		w.sending = nil
	}
	return nil
}

// drop removes a tail that nothing needs; the collection finds one that stays.
func (w *writer) drop(name string) {
	if name != "" {
		ctx, cancel := within(context.WithoutCancel(w.ctx), 0)
		defer cancel()
		_ = w.d.b.Delete(ctx, name)
	}
}

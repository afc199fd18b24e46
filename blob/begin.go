// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/meta"
)

const (
	// beginWait is how long an upload that has begun waits for its content before its row is written.
	beginWait = 50 * time.Millisecond
	// beginsLimit is how many uploads may wait so, or for the commit of their row.
	beginsLimit = 256
)

// begins are the uploads whose clients know them, and whose rows are not in the database yet. Where this process alone writes it, a client does not wait for that: it may send the content meanwhile. Most
// do so at once, and then the first row that tells of the upload is the one that tells of its content too. What a crash takes away is an upload of which nothing was acknowledged but its name.
type begins struct {
	mu   sync.Mutex
	of   map[string]*begun
	wait sync.WaitGroup
	// failing: the last row could not be written, so that each is waited for.
	failing atomic.Bool
}

// begun is such an upload.
type begun struct {
	owner, key string
	state      begunState // the lock of begins guards it
	timer      *time.Timer
	done       chan struct{} // closed when the row is there, or there will be none
	err        error         // set before done is closed
}

type begunState int

const (
	waiting begunState = iota
	writing
	withdrawn // by a request that tells of the upload itself
)

func (b *begins) find(id, owner string) *begun {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := b.of[id]; u != nil && u.owner == owner {
		return u
	}
	return nil
}

// names reports whether an object is that of such an upload.
func (b *begins) names(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.of {
		if u.key == key {
			return true
		}
	}
	return false
}

// add takes an upload in; false: there are too many.
func (b *begins) add(id string, u *begun) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.of) >= beginsLimit {
		return false
	}
	b.of[id] = u
	b.wait.Add(1)
	return true
}

// move changes the state of an upload; false: it is another one.
func (b *begins) move(u *begun, from, to begunState) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u.state != from {
		return false
	}
	u.state = to
	return true
}

// end takes an upload out. From then on its row says what there is.
func (b *begins) end(id string, u *begun, err error) {
	b.mu.Lock()
	delete(b.of, id)
	b.mu.Unlock()
	u.err = err
	close(u.done)
	b.wait.Done()
}

// Begin starts an upload. owner is the repository that it belongs to; only it finds the upload again. Errors: StorageFull, Unavailable; where the process alone writes the database, a failure may
// come with what is asked of the upload next.
func (s *Store) Begin(ctx context.Context, owner string) (*Upload, error) {
	b := &begun{owner: owner, key: driver.NewKey(), done: make(chan struct{})}
	u := &Upload{ID: driver.NewKey(), s: s, owner: owner, key: b.key, begun: b}
	if s.db.SoleWriter() && !s.begins.failing.Load() && s.begins.add(u.ID, b) {
		own := *u // the timer's: u is the request's alone
		b.timer = time.AfterFunc(beginWait, own.write)
		return u, nil
	}
	u.begun = nil
	if err := s.begin(ctx, u); err != nil {
		return nil, named(s.disk, err)
	}
	return u, nil
}

// begin writes the row of an upload.
func (s *Store) begin(ctx context.Context, u *Upload) error {
	err := s.db.Write(ctx, func(tx *meta.Tx) error { return u.insert(tx, 0, []byte{}, []byte{}) })
	s.begins.failing.Store(err != nil)
	return err
}

func (u *Upload) insert(tx *meta.Tx, size int64, state, parts []byte) error {
	now := meta.Micros(tx.Now())
	_, err := tx.Exec(`INSERT INTO uploads (id, owner, object_key, size, hash_state, storage_state, created_us, touched_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		u.ID, u.owner, u.key, size, state, parts, now, now)
	return err
}

// write writes the row of an upload that waits.
func (u *Upload) write() {
	if u.s.begins.move(u.begun, waiting, writing) {
		u.s.begins.end(u.ID, u.begun, u.s.begin(context.Background(), u))
	}
}

// there returns when the upload's row is in the database. Errors: StorageFull, Unavailable.
func (u *Upload) there() error {
	if u.begun == nil {
		return nil
	}
	u.write()
	<-u.begun.done
	if u.begun.err != nil {
		return named(u.s.disk, u.begun.err)
	}
	return nil
}

// first calls tell with true if the upload has no row and tell is to do without one, or to write it, and otherwise with false when the row is there. An upload that tell fails of has its row after that.
func (u *Upload) first(tell func(rowless bool) error) error {
	if u.begun == nil || !u.s.begins.move(u.begun, waiting, withdrawn) {
		if err := u.there(); err != nil {
			return err
		}
		return tell(false)
	}
	u.begun.timer.Stop()
	err := tell(true)
	if err == nil {
		u.s.begins.end(u.ID, u.begun, nil)
		u.begun = nil
		return nil
	}
	u.s.begins.move(u.begun, withdrawn, waiting)
	u.write()
	return err
}

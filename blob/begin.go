// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/meta"
)

// beginsLimit is how many uploads may be on their way into the database that their clients know already.
const beginsLimit = 256

// begins are the uploads whose rows are on their way into the database. Where this process alone writes it, a client does not wait for that: it may send the content meanwhile, and only what is
// acknowledged of the content waits for the row. What a crash takes away is an upload of which nothing was acknowledged but its name.
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
	done       chan struct{}
	err        error // set before done is closed
}

func (b *begins) find(id, owner string) *begun {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := b.of[id]; u != nil && u.owner == owner {
		return u
	}
	return nil
}

// add takes an upload in; false: there are too many.
func (b *begins) add(id string, u *begun) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.of) >= beginsLimit {
		return false
	}
	b.of[id] = u
	return true
}

// end tells how the writing of a row ended. From then on the row says what there is.
func (b *begins) end(id string, u *begun, err error) {
	b.failing.Store(err != nil)
	b.mu.Lock()
	delete(b.of, id)
	b.mu.Unlock()
	u.err = err
	close(u.done)
}

// Begin starts an upload. owner is the repository that it belongs to; only it finds the upload again. Errors: StorageFull, Unavailable; where the process alone writes the database, a failure may
// come with what is asked of the upload next.
func (s *Store) Begin(ctx context.Context, owner string) (*Upload, error) {
	b := &begun{owner: owner, key: driver.NewKey(), done: make(chan struct{})}
	u := &Upload{ID: driver.NewKey(), s: s, owner: owner, key: b.key}
	if !s.db.SoleWriter() || s.begins.failing.Load() || !s.begins.add(u.ID, b) {
		err := s.begin(ctx, u)
		s.begins.failing.Store(err != nil)
		if err != nil {
			return nil, named(s.disk, err)
		}
		return u, nil
	}
	u.begun = b
	ctx = context.WithoutCancel(ctx)
	s.begins.wait.Go(func() { s.begins.end(u.ID, b, s.begin(ctx, u)) })
	return u, nil
}

// begin writes the row of an upload.
func (s *Store) begin(ctx context.Context, u *Upload) error {
	return s.db.Write(ctx, func(tx *meta.Tx) error {
		now := meta.Micros(tx.Now())
		_, err := tx.Exec(`INSERT INTO uploads (id, owner, object_key, size, hash_state, storage_state, created_us, touched_us) VALUES ($1, $2, $3, 0, $4, $5, $6, $7)`,
			u.ID, u.owner, u.key, []byte{}, []byte{}, now, now)
		return err
	})
}

// there returns when the upload's row is in the database. Errors: StorageFull, Unavailable.
func (u *Upload) there() error {
	if u.begun == nil {
		return nil
	}
	<-u.begun.done // the writer is never long, and what it has begun it ends
	if u.begun.err != nil {
		return named(u.s.disk, u.begun.err)
	}
	return nil
}

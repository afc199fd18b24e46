// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Collected is what a collection removed, or would remove: content that nothing names, files that belong to no row, and uploads that nobody went on with. Content that nothing names
// and that stays for the rest of its grace is Waiting.
type Collected struct {
	Content      int   `json:"content"`
	ContentBytes int64 `json:"contentBytes"`
	Waiting      int   `json:"waiting"`
	WaitingBytes int64 `json:"waitingBytes"`
	Files        int   `json:"files"`
	FileBytes    int64 `json:"fileBytes"`
	Uploads      int   `json:"uploads"`
}

// Collection says how content is collected.
type Collection struct {
	// Used reports, in a transaction that holds the content's row, whether anything names the content.
	Used func(tx *meta.Tx, d name.Digest) (bool, error)
	// Unused lists content behind a digest that nothing seems to name, in the order of digests.
	Unused func(tx *meta.Tx, after name.Digest, limit int) ([]name.Digest, error)
	// Grace is how long content and files stay after they have become unused, so that whoever is at work with them can end it.
	Grace time.Duration
	// UploadLife is how long an upload waits for its next part.
	UploadLife time.Duration
	// DryRun changes nothing.
	DryRun bool
}

// batch is how much is looked at in one transaction.
const batch = 500

// Collect removes what is not used any more. Content is marked when it is first found unused, and removed by a later collection, when the grace has passed and it still is:
// rows before bytes. It runs beside everything else.
func (s *Store) Collect(ctx context.Context, c Collection) (Collected, error) {
	var done Collected
	if err := s.expire(ctx, c, &done); err != nil {
		return done, err
	}
	if err := s.collectContent(ctx, c, &done); err != nil {
		return done, err
	}
	return done, s.collectFiles(ctx, c, &done)
}

// expire forgets the uploads that nobody goes on with.
func (s *Store) expire(ctx context.Context, c Collection, done *Collected) error {
	type upload struct{ id, key string }
	var old []upload
	before := meta.Micros(s.clock().Add(-c.UploadLife))
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		old = nil
		rows, err := tx.Query(`SELECT id, object_key FROM uploads WHERE touched_us < $1 ORDER BY touched_us`, before)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var u upload
			if err := rows.Scan(&u.id, &u.key); err != nil {
				return err
			}
			old = append(old, u)
		}
		return rows.Err()
	})
	if err != nil || c.DryRun {
		done.Uploads = len(old)
		return err
	}
	for _, u := range old {
		release, err := (&Upload{ID: u.id, s: s}).claim()
		if err != nil {
			continue // somebody goes on with it
		}
		var n int64
		err = s.db.Write(ctx, func(tx *meta.Tx) (err error) {
			n, err = tx.Exec(`DELETE FROM uploads WHERE id = $1 AND touched_us < $2`, u.id, before)
			return err
		})
		if err == nil && n > 0 {
			s.discard(u.key)
			done.Uploads++
		}
		release()
		if err != nil {
			return err
		}
	}
	return nil
}

// gentle is work beside which others are served: a third of the time it works, and the rest it leaves to them.
type gentle struct{ since time.Time }

func (g *gentle) rest(ctx context.Context) {
	worked := time.Since(g.since)
	if worked < 2*time.Millisecond {
		return
	}
	select {
	case <-time.After(2 * worked):
	case <-ctx.Done():
	}
	g.since = time.Now()
}

func (s *Store) collectContent(ctx context.Context, c Collection, done *Collected) error {
	work := gentle{time.Now()}
	for after := name.Digest(""); ; {
		var list []name.Digest
		err := s.db.Read(ctx, func(tx *meta.Tx) (err error) {
			list, err = c.Unused(tx, after, batch)
			return err
		})
		if err != nil || len(list) == 0 {
			return err
		}
		after = list[len(list)-1]
		for _, d := range list {
			if err := s.collectOne(ctx, c, d, done); err != nil {
				return err
			}
			work.rest(ctx)
		}
	}
}

// collectOne marks content that is unused, and removes what has been so for the grace.
func (s *Store) collectOne(ctx context.Context, c Collection, d name.Digest, done *Collected) error {
	now := s.clock()
	var gone, waits bool
	var key string
	var size int64
	look := func(tx *meta.Tx) error {
		gone, waits = false, false
		var state string
		var freed int64
		row := tx.Row
		if !tx.ReadOnly() {
			row = tx.Lock
		}
		err := row(`SELECT object_key, size, freed_us, state FROM blobs WHERE domain = $1 AND digest = $2`, domain, string(d)).Scan(&key, &size, &freed, &state)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		used, err := c.Used(tx, d)
		if err != nil {
			return err
		}
		waits = !used
		due := !used && freed != 0 && freed <= meta.Micros(now.Add(-c.Grace))
		switch {
		case due && tx.ReadOnly():
			gone = true
		case due:
			gone = true
			tx.OnCommit(func() { s.small.Remove(d) })
			_, err = tx.Exec(`DELETE FROM blobs WHERE domain = $1 AND digest = $2`, domain, string(d))
		case tx.ReadOnly():
		case used && freed != 0:
			_, err = tx.Exec(`UPDATE blobs SET freed_us = 0 WHERE domain = $1 AND digest = $2`, domain, string(d))
		case !used && freed == 0:
			_, err = tx.Exec(`UPDATE blobs SET freed_us = $1 WHERE domain = $2 AND digest = $3`, meta.Micros(now), domain, string(d))
		}
		return err
	}
	run := s.db.Write
	if c.DryRun {
		run = s.db.Read
	}
	if err := run(ctx, look); err != nil {
		return err
	}
	switch {
	case gone:
		done.Content++
		done.ContentBytes += size
		if !c.DryRun {
			s.discard(key)
		}
	case waits:
		done.Waiting++
		done.WaitingBytes += size
	}
	return nil
}

// collectFiles removes the files that no row names: what a crash, or a push that was refused, has left.
func (s *Store) collectFiles(ctx context.Context, c Collection, done *Collected) error {
	// Files have the machine's time. By the earlier of both clocks a step of the machine's, to either side, makes none look older than it is.
	now := s.clock()
	if wall := s.wall(); wall.Before(now) {
		now = wall
	}
	before := now.Add(-c.Grace)
	work := gentle{time.Now()}
	return s.disk.Walk(ctx, func(item driver.Item) error {
		work.rest(ctx)
		if item.Changed.After(before) {
			return nil // it may be content whose row is on its way
		}
		query := `SELECT 1 FROM blobs WHERE object_key = $1 UNION ALL SELECT 1 FROM uploads WHERE object_key = $1 LIMIT 1`
		if item.Part {
			query = `SELECT 1 FROM uploads WHERE object_key = $1 LIMIT 1`
		}
		known := s.begins.names(item.Key) // asked first: what has ended by then has its row
		if known {
			return nil
		}
		err := s.db.Read(ctx, func(tx *meta.Tx) error {
			var one int
			err := tx.Row(query, item.Key).Scan(&one)
			known = err == nil
			if errors.Is(err, meta.ErrNotFound) {
				return nil
			}
			return err
		})
		if err != nil || known {
			return err
		}
		done.Files++
		done.FileBytes += item.Size
		switch {
		case c.DryRun:
		case item.Part:
			if err := s.disk.RemoveParts(ctx, item.Key); err != nil {
				s.log.Warn("what an upload left could not be removed", "object", item.Key, "err", err)
			}
		default:
			s.discard(item.Key)
		}
		return nil
	})
}

// Scrubbed is what a scrub found.
type Scrubbed struct {
	Content int   `json:"content"`
	Bytes   int64 `json:"bytes"`
	// Damaged are the digests whose content is gone or changed on the disk. They are not served until they are pushed again.
	Damaged []name.Digest `json:"damaged"`
}

// Scrub reads all content and compares it with its digest. What is damaged is taken out of use; a push of the same content heals it. tell hears of the progress.
func (s *Store) Scrub(ctx context.Context, tell func(Scrubbed)) (Scrubbed, error) {
	found := Scrubbed{Damaged: []name.Digest{}}
	for after := ""; ; {
		type row struct {
			d    name.Digest
			key  string
			size int64
		}
		var list []row
		err := s.db.Read(ctx, func(tx *meta.Tx) error {
			list = nil
			rows, err := tx.Query(`SELECT digest, object_key, size FROM blobs WHERE domain = $1 AND digest > $2 ORDER BY digest LIMIT $3`, domain, after, batch)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var r row
				if err := rows.Scan(&r.d, &r.key, &r.size); err != nil {
					return err
				}
				list = append(list, r)
			}
			return rows.Err()
		})
		if err != nil || len(list) == 0 {
			return found, err
		}
		after = string(list[len(list)-1].d)
		for _, r := range list {
			whole, err := s.whole(ctx, r.d, r.key, r.size)
			if err != nil {
				return found, err
			}
			if !whole {
				if err := s.takeOut(ctx, r.d, r.key, &found); err != nil {
					return found, err
				}
			}
			found.Content++
			found.Bytes += r.size
		}
		tell(found)
	}
}

// whole reads an object and compares it with its digest.
func (s *Store) whole(ctx context.Context, d name.Digest, key string, size int64) (bool, error) {
	o, err := s.disk.Open(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, named(s.disk, err)
	}
	h := d.NewHash()
	var n int64
	r, err := o.Range(ctx, 0, -1)
	gone := errors.Is(err, fs.ErrNotExist)
	for err == nil && ctx.Err() == nil {
		var part int64
		part, err = io.CopyN(h, r, chunks*chunk)
		n += part
	}
	if closed := o.Close(); closed != nil || ctx.Err() != nil {
		return false, errors.Join(closed, ctx.Err())
	}
	if errors.Is(err, driver.ErrAway) {
		return false, named(s.disk, err)
	}
	if gone { // or the whole bucket is, which is no damage
		return false, named(s.disk, s.Healthy(ctx))
	}
	// Any other error of reading is a disk that lost the content.
	return errors.Is(err, io.EOF) && n == size && name.DigestFrom(d.Algorithm(), h) == d, nil
}

// takeOut puts damaged content out of use, unless it was replaced or collected meanwhile.
func (s *Store) takeOut(ctx context.Context, d name.Digest, key string, found *Scrubbed) error {
	var n int64
	err := s.db.Write(ctx, func(tx *meta.Tx) (err error) {
		n, err = tx.Exec(`UPDATE blobs SET state = 'damaged' WHERE domain = $1 AND digest = $2 AND object_key = $3`, domain, string(d), key)
		return err
	})
	if err != nil || n == 0 {
		return err
	}
	s.mu.Lock()
	s.damaged[d] = struct{}{}
	s.mu.Unlock()
	s.small.Remove(d)
	found.Damaged = append(found.Damaged, d)
	s.log.Error("content is damaged on the disk and is not served until it is pushed again", "digest", string(d), "object", key)
	return nil
}

// Damaged reports whether a scrub has put the content out of use.
func (s *Store) Damaged(d name.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, bad := s.damaged[d]
	return bad
}

func (s *Store) healed(d name.Digest) {
	s.mu.Lock()
	delete(s.damaged, d)
	s.mu.Unlock()
}

func (s *Store) loadDamaged() error {
	return s.db.Read(context.Background(), func(tx *meta.Tx) error {
		rows, err := tx.Query(`SELECT digest FROM blobs WHERE domain = $1 AND state = 'damaged'`, domain)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d name.Digest
			if err := rows.Scan(&d); err != nil {
				return err
			}
			s.damaged[d] = struct{}{}
		}
		return rows.Err()
	})
}

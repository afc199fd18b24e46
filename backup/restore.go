// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// teller tells progress, not too often.
type teller struct {
	to   func(Progress)
	p    Progress
	last time.Time
}

func (t *teller) step(bytes int64) {
	t.p.Objects++
	t.p.Bytes += bytes
	if now := time.Now(); now.Sub(t.last) >= told {
		t.last = now
		t.to(t.p)
	}
}

// eachHolding visits all content that a copy holds.
func (f *Folder) eachHolding(ctx context.Context, s Snapshot, visit func(h holding) error) error {
	for _, c := range s.Content {
		err := f.eachLine(c, func(line []byte) error {
			var h holding
			if err := json.Unmarshal(line, &h); err != nil {
				return err
			}
			return errors.Join(ctx.Err(), visit(h))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachRow visits a copy's rows, table by table.
func (f *Folder) eachRow(ctx context.Context, s Snapshot, visit func(t meta.Table, values []any) error) error {
	for _, t := range s.Tables {
		var rows int64
		for _, c := range t.Chunks {
			err := f.eachLine(c, func(line []byte) error {
				values, err := parseRow(t.Table, line)
				if err != nil {
					return err
				}
				rows++
				if err := errors.Join(visit(t.Table, values), ctx.Err()); err != nil {
					return elsewhere{err}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if rows != t.Rows {
			return fmt.Errorf("the table %s has %d rows in the backup and had %d", t.Name, rows, t.Rows)
		}
	}
	return nil
}

// Verify reads all of a copy: every row is decoded, every content hashed. checked holds the objects whose content was found good already, so that several copies
// share the work; it may be nil.
func (f *Folder) Verify(ctx context.Context, s Snapshot, checked map[string]bool, tell func(Progress)) error {
	t := &teller{to: tell, p: Progress{Phase: "database"}}
	tell(t.p)
	if err := f.eachRow(ctx, s, func(meta.Table, []any) error { return nil }); err != nil {
		return err
	}
	t.p = Progress{Phase: "content", Of: s.Objects, OfBytes: s.Bytes}
	err := f.eachHolding(ctx, s, func(h holding) error {
		if !checked[h.Object] {
			if err := f.content(h, func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }); err != nil {
				return err
			}
			if checked != nil {
				checked[h.Object] = true
			}
		}
		t.step(h.Size)
		return nil
	})
	tell(t.p)
	if err == nil && t.p.Objects != s.Objects {
		err = fmt.Errorf("the backup names %d objects and had %d", t.p.Objects, s.Objects)
	}
	return err
}

// content reads content and checks that it is what its digest says.
func (f *Folder) content(h holding, use func(r io.Reader) error) error {
	digest, err := name.ParseDigest(string(h.Digest))
	if err != nil {
		return err
	}
	hash := digest.NewHash()
	if err := f.readObject(h.Object, func(r io.Reader) error { return use(io.TeeReader(r, hash)) }); err != nil {
		return fmt.Errorf("the content %s: %w", h.Digest, err)
	}
	if got := name.DigestFrom(digest.Algorithm(), hash); got != digest {
		return fmt.Errorf("the content %s has the digest %s: the backup is damaged", h.Digest, got)
	}
	return nil
}

// Target is where a copy is restored to: a storage for content, and an empty database.
type Target struct {
	Storage blob.Storage
	DB      meta.Options
}

// source notes that reading failed.
type source struct {
	io.Reader
	failed bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.failed = s.failed || err != nil && !errors.Is(err, io.EOF)
	return n, err
}

// Restore puts a copy in place: content first, then the database in one transaction. Killed on the way, it can be run again. The installation comes up held unless its
// policies' high-water marks show that the copy is as new as what was in force (egress.Gate.Reconcile).
func (f *Folder) Restore(ctx context.Context, s Snapshot, to Target, tell func(Progress)) error {
	if err := meta.Vacant(ctx, to.DB, s.Schema); err != nil { // before much is copied for nothing
		return err
	}
	placer, err := blob.NewPlacer(ctx, to.Storage, s.ID)
	if err != nil {
		return err
	}
	kept := map[name.Digest]bool{}
	t := &teller{to: tell, p: Progress{Phase: "content", Of: s.Objects, OfBytes: s.Bytes}}
	tell(t.p)
	err = f.eachHolding(ctx, s, func(h holding) error {
		kept[h.Digest] = true
		defer t.step(h.Size)
		if placer.Placed(ctx, h.Key, h.Digest) {
			return nil
		}
		return f.content(h, func(r io.Reader) error {
			from := &source{Reader: r}
			err := placer.Place(ctx, h.Key, h.Digest, from)
			var refused *fault.Fault
			if err == nil || from.failed || errors.As(err, &refused) && refused.Kind == fault.DigestInvalid {
				return err
			}
			return elsewhere{err}
		})
	})
	if err != nil {
		return err
	}
	tell(t.p)
	tell(Progress{Phase: "database", Objects: s.Objects, Of: s.Objects, Bytes: s.Bytes, OfBytes: s.Bytes})
	return meta.Restore(ctx, to.DB, s.Schema, func(put func(t meta.Table, values []any) error) error { return f.eachRow(ctx, s, put) }, func(tx *meta.Tx) error {
		return errors.Join(blob.Keep(tx, func(d name.Digest) bool { return kept[d] }), placer.Settle(tx), egress.Restored(tx, s.ID))
	})
}

// Prune removes all copies but the newest keep ones, and the objects that no copy names any more. It returns the ids of the copies removed and the number of objects.
// The folder must have been opened with keys that open every copy: an object that may be in use is not removed.
func (f *Folder) Prune(keep int) (gone []string, objects int, err error) {
	if keep < 1 {
		return nil, 0, errors.New("at least one backup is kept")
	}
	if err := f.hold(syscall.LOCK_EX); err != nil {
		return nil, 0, err
	}
	ids, err := f.Snapshots()
	if err != nil || len(ids) <= keep {
		return nil, 0, err
	}
	gone = ids[:len(ids)-keep]
	used := map[string]bool{}
	for _, id := range ids[len(gone):] {
		s, err := f.Snapshot(id)
		if err != nil {
			return nil, 0, err
		}
		for _, t := range s.Tables {
			for _, c := range t.Chunks {
				used[c.Object] = true
			}
		}
		for _, c := range s.Content {
			used[c.Object] = true
		}
		if err := f.eachHolding(context.Background(), s, func(h holding) error { used[h.Object] = true; return nil }); err != nil {
			return nil, 0, err
		}
	}
	for _, id := range gone { // the copy first, so that none is listed whose objects are gone
		if err := os.Remove(filepath.Join(f.path, "snapshots", id+".age")); err != nil {
			return nil, 0, err
		}
	}
	err = filepath.WalkDir(filepath.Join(f.path, "objects"), func(path string, d fs.DirEntry, err error) error {
		base := filepath.Base(path)
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasPrefix(base, ".writing-") { // of a backup that was killed
			return os.Remove(path)
		}
		if name, ok := strings.CutSuffix(base, ".age"); !ok || used[name] {
			return nil
		}
		objects++
		return os.Remove(path)
	})
	return gone, objects, err
}

// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/registry"
)

// Source is the installation to copy.
type Source struct {
	DB       *meta.DB
	Registry *registry.Service
	Key      *Key
	// Tenant tells installations apart, Version is the program's.
	Tenant, Version string
	Clock           func() time.Time
}

// Wish says what is wanted of a backup.
type Wish struct {
	// To is the folder.
	To string
	// Recipients are age recipients that shall be able to open it besides the installation.
	Recipients []string
	Caller     identity.Caller
}

const (
	// writers is how many objects are written at a time: each waits for the disk.
	writers = 4
	// tries is how often a backup is begun again because a registry went away under it.
	tries = 3
	// told is how often progress is told at the most.
	told = 500 * time.Millisecond
)

// taking is one backup under way.
type taking struct {
	ctx    context.Context // the run's
	from   Source
	run    registry.BackupRun
	folder *Folder
	names  namer
	to     []age.Recipient
	tell   func(Progress)

	mu       sync.Mutex
	progress Progress
	last     time.Time
	bytes    map[string]int64
}

// Take makes a copy and returns its description. tell hears how far it is. Errors: ExportsDisabled when the policy of a registry refuses it; StorageFull. A copy that failed is
// not listed; what it wrote serves the next one.
func Take(ctx context.Context, from Source, w Wish, tell func(Progress)) (s Snapshot, err error) {
	further, err := Recipients(w.Recipients)
	if err != nil {
		return s, fault.New(fault.InvalidParameter, "%s", err)
	}
	names := slices.Clone(w.Recipients)
	slices.Sort(names)
	id := newID(from.Clock())
	t := &taking{ctx: ctx, from: from, tell: tell, names: newNamer(from.Key, names), to: append([]age.Recipient{from.Key.identity.Recipient()}, further...), bytes: map[string]int64{},
		run: registry.BackupRun{ID: "backup:" + id, Where: "backup " + id, Sealed: len(further) == 0, Caller: w.Caller}}
	if err := from.Registry.BeginBackup(ctx, t.run); err != nil {
		return s, err
	}
	defer func() {
		err = errors.Join(err, from.Registry.EndBackup(context.WithoutCancel(ctx), t.run, err == nil, t.bytes))
	}()
	if t.folder, err = openForWriting(w.To, from.Tenant, from.Key); err != nil {
		return s, fault.New(fault.BadRequest, "The backup was not begun: %s.", err).Because(err)
	}
	defer func() { err = errors.Join(err, t.folder.Close()) }()
	s = Snapshot{Format: format, ID: id, Version: from.Version, Tenant: from.Tenant, Sealed: t.run.Sealed}
	for try := range tries {
		err = t.copy(ctx, &s)
		if !fault.Is(err, fault.NameUnknown) || try == tries-1 {
			break // a registry that was deleted meanwhile: the next copy does not name it any more
		}
	}
	if err != nil {
		return s, err
	}
	// The copy is of use to its recipients from here on.
	if err := from.DB.Read(ctx, t.ask); err != nil {
		return s, err
	}
	return s, t.folder.encrypt(filepath.Join("snapshots", id+".age"), t.to, func(w io.Writer) error { return json.NewEncoder(w).Encode(s) })
}

// ask asks the gate anew: the policies may have changed since the backup began.
func (t *taking) ask(tx *meta.Tx) error { return t.from.Registry.AskBackup(tx, t.run) }

// copy takes the database first and then the content that it names.
func (t *taking) copy(ctx context.Context, s *Snapshot) error {
	if err := t.database(ctx, s); err != nil {
		return err
	}
	t.phase("content", s.Objects, s.Bytes)
	for _, c := range s.Content {
		if err := t.from.DB.Read(ctx, t.ask); err != nil {
			return err
		}
		if err := t.content(ctx, c); err != nil {
			return err
		}
	}
	t.tell(t.progress)
	return nil
}

func (t *taking) database(ctx context.Context, s *Snapshot) error {
	s.Tables, s.Content, s.Epochs, s.Objects, s.Bytes = nil, nil, nil, 0, 0
	t.phase("database", 0, 0)
	var rows *chunker
	end := func() error {
		if rows == nil {
			return nil
		}
		err := rows.flush()
		last := &s.Tables[len(s.Tables)-1]
		last.Rows, last.Chunks = rows.total, rows.chunks
		return err
	}
	schema, err := t.from.DB.Snapshot(ctx, t.ask, func(head meta.Table) error {
		err := end()
		s.Tables = append(s.Tables, table{Table: head})
		rows = &chunker{put: t.putChunk("rows of " + head.Name)}
		return err
	}, func(values []any) error { return rows.add(row(values)) }, func(tx *meta.Tx) error {
		s.Taken = tx.Now()
		err := end()
		registries, readErr := tx.Registries()
		for _, r := range registries {
			s.Epochs = append(s.Epochs, epochOf{r.ID, r.Name, r.Epoch, r.Exports})
		}
		return errors.Join(err, readErr, t.holdings(tx, s))
	})
	s.Schema = schema
	return err
}

// holdings lists the content of the copy's instant.
func (t *taking) holdings(tx *meta.Tx, s *Snapshot) error {
	lines := &chunker{put: t.putChunk("content")}
	err := t.from.Registry.Holdings(tx, func(h registry.Holding) error {
		s.Objects++
		s.Bytes += h.Size
		return lines.add(holding{h.Digest, h.Size, h.Object, h.Registry, t.names.of("blob", string(h.Digest))})
	})
	err = errors.Join(err, lines.flush())
	s.Content = lines.chunks
	return err
}

// content copies what a chunk of holdings names and the folder lacks, several objects at a time.
func (t *taking) content(ctx context.Context, c chunk) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work := make(chan holding)
	var busy sync.WaitGroup
	for range writers {
		busy.Go(func() {
			for h := range work {
				if err := t.one(ctx, h); err != nil {
					stop(err)
				}
			}
		})
	}
	err := t.folder.eachLine(c, func(line []byte) error {
		var h holding
		if err := json.Unmarshal(line, &h); err != nil {
			return err
		}
		select {
		case work <- h:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(work)
	busy.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (t *taking) one(ctx context.Context, h holding) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if t.folder.has(h.Object) {
		t.step(h, false)
		return nil
	}
	content, err := t.from.Registry.OpenBackup(ctx, t.run, h.Registry, h.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Internal, "The content %s, which a repository holds, is not on the disk any more: push it again, or delete what names it, and back up then.", h.Digest).Because(err)
	}
	if err != nil {
		return err
	}
	var n int64
	err = t.folder.encrypt(object(h.Object), t.to, func(w io.Writer) error {
		var err error
		n, err = content.WriteTo(ctx, w, 0, content.Size())
		return err
	})
	if err = errors.Join(err, content.Close(err == nil)); err != nil {
		return fmt.Errorf("copying %s: %w", h.Digest, err)
	}
	t.mu.Lock()
	t.bytes[h.Registry] += n
	t.mu.Unlock()
	t.step(h, true)
	return nil
}

func (t *taking) phase(name string, objects, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progress = Progress{Phase: name, Of: objects, OfBytes: bytes, New: t.progress.New, NewBytes: t.progress.NewBytes}
	t.tell(t.progress)
}

// count notes an object of the database that was not in the folder.
func (t *taking) count(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progress.New++
	t.progress.NewBytes += bytes
}

func (t *taking) step(h holding, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progress.Objects++
	t.progress.Bytes += h.Size
	if fresh {
		t.progress.New++
		t.progress.NewBytes += h.Size
	}
	if now := time.Now(); now.Sub(t.last) >= told {
		t.last = now
		t.tell(t.progress)
	}
}

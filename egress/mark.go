// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/durable"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

// marks is the high-water mark of every registry's epoch, in a file outside the database: what tells an older copy of the database from the one that was in
// force. A deleted registry stays in it, so that a copy in which it still lives is known for older.
type marks struct {
	path string
	// there says that the file was there when it was opened.
	there bool
	// lock is held as long as the file is used. It is another file, because each writing of the marks replaces theirs.
	lock *os.File

	mu sync.Mutex
	// tenant is the installation that the marks are of, "" until one takes them.
	tenant string
	seen   map[string]mark
	// unsaved: the file does not have all that was seen, because writing it failed.
	unsaved bool
}

type mark struct {
	Epoch   int64 `json:"epoch"`
	Deleted bool  `json:"deleted,omitempty"`
}

type marksFile struct {
	About      string          `json:"about"`
	Tenant     string          `json:"tenant,omitempty"`
	Registries map[string]mark `json:"registries"`
}

const marksAbout = "The highest policy epoch of each registry. Keep this file: it shows when a database is an older copy, whose registries are then held."

// openMarks locks the file, and reads it if it is there. An empty path keeps none.
func openMarks(path string) (*marks, error) {
	m := &marks{path: path, seen: map[string]mark{}}
	if path == "" {
		return m, nil
	}
	err := m.flock()
	if err == nil {
		err = m.read()
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// flock takes the file for this process.
func (m *marks) flock() (err error) {
	if m.lock, err = os.OpenFile(m.path+".lock", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("the policy epochs (policyEpochs) can't be locked: %w", err)
	}
	err = syscall.Flock(int(m.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return fmt.Errorf("the policy epochs in %s (policyEpochs) are in use by another embargo: stop that one first, or name another file for this installation in policyEpochs", m.path)
	case err != nil:
		return fmt.Errorf("%s, the lock of the policy epochs (policyEpochs), could not be taken: %w", m.lock.Name(), err)
	}
	return nil
}

// close gives the file free. The lock file stays: removing it would let two processes hold two files of one name.
func (m *marks) close() error {
	if m.lock == nil {
		return nil
	}
	return m.lock.Close()
}

func (m *marks) read() error {
	b, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the policy epochs (policyEpochs) can't be read: %w", err)
	}
	m.there = true
	var f marksFile
	err = json.Unmarshal(b, &f)
	if err == nil && f.Registries == nil {
		err = errors.New("they name no registries")
	}
	if err != nil {
		return fmt.Errorf("the policy epochs in %s are damaged: %w. Put the file back from where it is kept; without it the installation can't tell an older copy of its database, and comes up held until an owner confirms it", m.path, err)
	}
	m.tenant, m.seen = f.Tenant, f.Registries
	return nil
}

// own finds out that the marks are this installation's, and takes those that are nobody's. It reports whether it took them; they are not written yet.
func (g *Gate) own(ctx context.Context) (took bool, err error) {
	m := g.marks
	if m.path == "" {
		return false, nil
	}
	var tenant string
	err = g.db.Read(ctx, func(tx *meta.Tx) error {
		var err error
		tenant, err = tx.Installation("tenant")
		return err
	})
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	this, theirs := "this installation, of the tenant "+tenant, "the installation of the tenant "+m.tenant
	if tenant == "" {
		this = "this installation, which is new"
	}
	switch {
	case m.tenant == "" && (tenant != "" || len(m.seen) == 0):
		took = m.tenant != tenant
		m.tenant = tenant
		return took, nil
	case m.tenant == tenant && tenant != "":
		return false, nil
	case m.tenant == "":
		theirs = "an installation that has registries"
	}
	return false, fmt.Errorf("the policy epochs in %s (policyEpochs) belong to %s, and not to %s: nothing was begun. Name another file for this installation in policyEpochs, or move that one away if its installation is no more", m.path, theirs, this)
}

// Own writes down whose the marks are, once an installation has begun.
func (g *Gate) Own(ctx context.Context) error {
	took, err := g.own(ctx)
	if err != nil || !took {
		return err
	}
	g.marks.mu.Lock()
	defer g.marks.mu.Unlock()
	return g.marks.save()
}

// Close gives the marks free for another process.
func (g *Gate) Close() error { return g.marks.close() }

// raise makes an epoch durable; lower ones change nothing, unless an earlier one could not be written.
func (m *marks) raise(registry string, to mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.seen[registry]
	known := was.Epoch >= to.Epoch && was.Deleted == to.Deleted || was.Deleted
	if m.path == "" || known && !m.unsaved {
		return nil
	}
	if !known {
		m.seen[registry] = to
	}
	return m.save()
}

// save writes the file; the caller holds the lock.
func (m *marks) save() error {
	m.unsaved = true
	b, err := json.MarshalIndent(marksFile{marksAbout, m.tenant, m.seen}, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(m.path, append(b, '\n'), 0o600); err != nil {
		return err
	}
	m.unsaved = false
	return nil
}

// Hold is why the installation's registries are held.
type Hold struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
	// Registries are the names of those that are held.
	Registries []string `json:"registries"`
	// Own is what a confirmation puts in force. It is read anew each time.
	Own []meta.OwnPolicy `json:"own,omitempty"`
}

// The facts of the installation that a hold is made of.
const (
	factRestored = "egress/restored"
	factHold     = "egress/hold"
	// factMarked says that marks of this database's policies were written: from then on, none is a sign.
	factMarked = "egress/marked"
)

// Restored says in the transaction that fills a database that it is a copy: it is held at its first start. Marks of the same age prove nothing, for they may have been
// copied with it.
func Restored(tx *meta.Tx, backup string) error { return tx.SetInstallation(factRestored, backup) }

// Reconcile compares the database with the marks before anything is served. A database that is older than they say, one that was restored, or one whose marks are gone, is
// held: each registry lets nothing out, and has neither a public side nor private endpoints, until Confirm. Hold.Why is "" when nothing is held. Marks of another installation are an error.
func (g *Gate) Reconcile(ctx context.Context) (Hold, error) {
	var hold Hold
	var after map[string]int64
	current := false
	if _, err := g.own(ctx); err != nil {
		return hold, err
	}
	err := g.db.Write(ctx, func(tx *meta.Tx) error {
		hold, after, current = Hold{}, map[string]int64{}, false
		rows, err := tx.Registries()
		if err != nil {
			return err
		}
		for _, r := range rows {
			after[r.ID] = r.Epoch
		}
		why, err := g.older(tx, rows)
		if err != nil {
			return err
		}
		if why == "" {
			current = true
			hold, err = held(tx)
			return err
		}
		hold = Hold{Since: tx.Now(), Why: why}
		for _, r := range rows {
			hold.Registries = append(hold.Registries, r.Name)
			if after[r.ID], err = tx.HoldRegistry(r.ID, true, g.marks.seen[r.ID].Epoch); err != nil {
				return err
			}
		}
		return g.putHold(tx, hold)
	})
	if err != nil {
		return hold, fmt.Errorf("comparing the database with its policy epochs: %w", err)
	}
	if current {
		// What the newest database does not have was deleted, although the process may have ended before it could say so here.
		g.marks.mu.Lock()
		for id, seen := range g.marks.seen {
			if _, there := after[id]; !there {
				g.marks.seen[id] = mark{Epoch: seen.Epoch, Deleted: true}
			}
		}
		g.marks.mu.Unlock()
	}
	if err := g.raiseAll(after); err != nil {
		return hold, err
	}
	return hold, g.db.Write(ctx, func(tx *meta.Tx) error {
		if _, err := tx.Installation(factMarked); !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		return tx.SetInstallation(factMarked, "true")
	})
}

func (g *Gate) putHold(tx *meta.Tx, hold Hold) error {
	b, err := json.Marshal(hold)
	if err != nil {
		return err
	}
	if err := tx.SetInstallation(factHold, string(b)); err != nil {
		return err
	}
	return g.audit.Append(tx, audit.Record{Kind: audit.Security, Action: "Embargo.Containment/restore/hold/action", Outcome: audit.Succeeded,
		Route: string(Weakening), Reason: hold.Why, Caller: audit.Caller{ID: "embargo", Name: "embargo", Type: "Local"}, After: b})
}

// older says why the database is not known to be the newest, "" when it is. It takes the note of a restore away.
func (g *Gate) older(tx *meta.Tx, rows []meta.RegistryRow) (string, error) {
	backup, err := tx.Installation(factRestored)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return "", err
	}
	restored := err == nil
	if restored {
		if err := tx.ForgetInstallation(factRestored); err != nil {
			return "", err
		}
	}
	for _, r := range rows {
		seen := g.marks.seen[r.ID]
		switch {
		case seen.Deleted:
			return fmt.Sprintf("the database still has the registry '%s', which was deleted: it is an older copy", r.Name), nil
		case seen.Epoch > r.Epoch:
			return fmt.Sprintf("the policy of the registry '%s' stands at epoch %d in the database, and was at %d: the database is an older copy", r.Name, r.Epoch, seen.Epoch), nil
		}
	}
	if len(rows) == 0 {
		return "", nil
	}
	if restored {
		return fmt.Sprintf("the database was restored from the backup %s, and policies may have been tightened since", backup), nil
	}
	_, err = tx.Installation(factMarked)
	if errors.Is(err, meta.ErrNotFound) { // from before there were marks
		return "", nil
	}
	if err != nil || g.marks.path == "" {
		return "", err
	}
	if !g.marks.there {
		return fmt.Sprintf("the policies' high-water marks (%s) are gone, and nothing else shows that the database is the newest", g.marks.path), nil
	}
	for _, r := range rows {
		// A kill between a registry's creation and its first mark leaves none of its first epoch; no later one is without.
		if g.marks.seen[r.ID].Epoch == 0 && r.Epoch > 1 {
			return fmt.Sprintf("the policies' high-water marks (%s) don't know the registry '%s', whose policy stands at epoch %d: they are older than the database, or of another one", g.marks.path, r.Name, r.Epoch), nil
		}
	}
	return "", nil
}

// held reads the hold there is.
func held(tx *meta.Tx) (Hold, error) {
	var h Hold
	text, err := tx.Installation(factHold)
	if errors.Is(err, meta.ErrNotFound) {
		return h, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &h)
	}
	return h, err
}

// Held is the hold there is; Why is "" when there is none.
func (g *Gate) Held(ctx context.Context) (h Hold, err error) {
	err = g.db.Read(ctx, func(tx *meta.Tx) error {
		if h, err = held(tx); err == nil && h.Why != "" {
			h.Own, err = tx.OwnPolicies()
		}
		return err
	})
	return h, err
}

// Confirm ends a hold: the policies that the registries' documents state are in force again. It is recorded with who confirmed it. That the caller may was
// asked before. Errors: Conflict when nothing is held.
func (g *Gate) Confirm(ctx context.Context, c identity.Caller, source audit.Source) (Hold, error) {
	var hold Hold
	var after map[string]int64
	err := g.db.Write(ctx, func(tx *meta.Tx) error {
		var err error
		after = map[string]int64{}
		if hold, err = held(tx); err != nil {
			return err
		}
		if hold.Why == "" {
			return fault.New(fault.Conflict, "Nothing waits for a confirmation: this installation's database is the newest one known.")
		}
		rows, err := tx.Registries()
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.Held {
				if after[r.ID], err = tx.HoldRegistry(r.ID, false, r.Epoch); err != nil {
					return err
				}
			}
		}
		before, err := json.Marshal(hold)
		if err != nil {
			return err
		}
		if err := tx.ForgetInstallation(factHold); err != nil {
			return err
		}
		return g.audit.Append(tx, audit.Record{Kind: audit.Security, Action: "Embargo.Containment/restore/confirm/action", Outcome: audit.Succeeded,
			Route: string(Weakening), Reason: "The restored copy is confirmed: its registries' own policies are in force again.", Caller: callerOf(c), Source: source, Before: before})
	})
	if err != nil {
		return hold, err
	}
	return hold, g.raiseAll(after)
}

func (g *Gate) raiseAll(epochs map[string]int64) error {
	g.marks.mu.Lock()
	defer g.marks.mu.Unlock()
	if g.marks.path == "" {
		return nil
	}
	for id, epoch := range epochs {
		if was := g.marks.seen[id]; epoch > was.Epoch {
			g.marks.seen[id] = mark{Epoch: epoch}
		}
	}
	return g.marks.save()
}

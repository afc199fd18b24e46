// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// marked is a gate with high-water marks, opened as a start of the server opens it.
type marked struct {
	t     *testing.T
	db    *meta.DB
	marks string
	gate  *egress.Gate
}

func (m *marked) start() egress.Hold {
	m.t.Helper()
	log, err := audit.New(m.t.Context(), audit.Options{DB: m.db, Node: "n"})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = log.Close() }) // nothing waits in it
	m.stop()
	m.write(func(tx *meta.Tx) error { return tx.SetInstallation("tenant", "t1") })
	if m.gate, err = egress.New(egress.Options{DB: m.db, Audit: log, Marks: m.marks}); err != nil {
		m.t.Fatal(err)
	}
	hold, err := m.gate.Reconcile(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return hold
}

// stop gives the marks free, as the end of the server does.
func (m *marked) stop() {
	m.t.Helper()
	if m.gate == nil {
		return
	}
	if err := m.gate.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.gate = nil
}

func (m *marked) write(fn func(tx *meta.Tx) error) {
	m.t.Helper()
	if err := m.db.Write(m.t.Context(), fn); err != nil {
		m.t.Fatal(err)
	}
}

func (m *marked) row(id string) (row meta.RegistryRow) {
	m.t.Helper()
	m.write(func(tx *meta.Tx) (err error) { row, err = tx.RegistryByID(id); return err })
	return row
}

// put changes a registry's row and answers the change, as the resource manager does.
func (m *marked) put(id string) {
	m.t.Helper()
	var epoch int64
	m.write(func(tx *meta.Tx) (err error) {
		epoch, err = tx.PutRegistry(meta.RegistryRow{ID: id, Name: id, ResourceID: "/r/" + id, LoginServer: id + ".x.y", Exports: true, PublicAccess: true})
		return err
	})
	if err := m.gate.Fence(m.t.Context(), id, epoch); err != nil {
		m.t.Fatal(err)
	}
}

// forget loses the file of the marks.
func (m *marked) forget() {
	m.t.Helper()
	if err := os.Remove(m.marks); err != nil {
		m.t.Fatal(err)
	}
}

// hollow leaves marks that know no registry.
func (m *marked) hollow() {
	m.t.Helper()
	if err := os.WriteFile(m.marks, []byte(`{"registries":{}}`), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *marked) remove(id string, answered bool) {
	m.t.Helper()
	epoch := m.row(id).Epoch + 1
	m.write(func(tx *meta.Tx) error { return tx.DeleteRegistry(id) })
	if answered {
		if err := m.gate.Fence(m.t.Context(), id, epoch); err != nil {
			m.t.Fatal(err)
		}
	}
}

// lower sets a registry's row back, as an older copy of the database would have it.
func (m *marked) lower(id string, epoch int64) {
	m.t.Helper()
	m.write(func(tx *meta.Tx) error {
		_, err := tx.Exec(`UPDATE registries SET epoch = $1 WHERE id = $2`, epoch, id)
		return err
	})
}

// A start holds the registries when the database is older than what was in force, or a restored one of which that is not known, and never otherwise.
func TestReconcile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(m *marked)
		why    string
	}{
		"the newest database":        {func(*marked) {}, ""},
		"a registry made since":      {func(m *marked) { m.put("new") }, ""},
		"a registry deleted since":   {func(m *marked) { m.remove("one", true) }, ""},
		"an older policy":            {func(m *marked) { m.put("one"); m.lower("one", 1) }, "stands at epoch 1 in the database, and was at 2"},
		"the epoch that it had":      {func(m *marked) { m.put("one"); m.lower("one", 2) }, ""},
		"a deleted registry":         {func(m *marked) { m.remove("one", true); m.write(put("one", 1)) }, "'one', which was deleted"},
		"a deleted one, far ahead":   {func(m *marked) { m.remove("one", true); m.write(put("one", 99)) }, "'one', which was deleted"},
		"deleted by a killed server": {func(m *marked) { m.remove("one", false); m.start(); m.write(put("one", 1)) }, "'one', which was deleted"},
		"restored, marks as new":     {func(m *marked) { m.write(func(tx *meta.Tx) error { return egress.Restored(tx, "b1") }) }, "restored from the backup b1"},
		"restored, marks gone": {func(m *marked) {
			m.write(func(tx *meta.Tx) error { return egress.Restored(tx, "b1") })
			m.forget()
		}, "restored from the backup b1"},
		"marks gone":                              {func(m *marked) { m.forget() }, "are gone"},
		"marks of another database":               {func(m *marked) { m.put("one"); m.hollow() }, "don't know the registry 'one'"},
		"a first epoch that a kill left unmarked": {func(m *marked) { m.hollow() }, ""},
		"from before there were marks": {func(m *marked) {
			m.write(func(tx *meta.Tx) error { return tx.ForgetInstallation("egress/marked") })
			m.forget()
		}, ""},
		"restored, older": {func(m *marked) {
			m.put("one")
			m.lower("one", 1)
			m.write(func(tx *meta.Tx) error { return egress.Restored(tx, "b1") })
		}, "stands at epoch 1"},
	} {
		t.Run(name, func(t *testing.T) {
			metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
				m := &marked{t: t, db: open(), marks: filepath.Join(t.TempDir(), "policy-epochs.json")}
				m.start()
				m.put("one")
				m.put("two")
				c.before(m)
				for range 2 { // a hold outlives a restart, and a start that found nothing finds nothing again
					hold := m.start()
					if (hold.Why == "") != (c.why == "") || !strings.Contains(hold.Why, c.why) {
						t.Fatalf("why: %q, want %q", hold.Why, c.why)
					}
					if row := m.row("two"); row.Held != (c.why != "") || row.Exports == row.Held || row.PublicAccess == row.Held {
						t.Fatalf("the other registry: %+v", row)
					}
				}
				before := m.row("two").Epoch
				_, err := m.gate.Confirm(t.Context(), puller, audit.Source{})
				if c.why == "" {
					if !fault.Is(err, fault.Conflict) {
						t.Errorf("confirming what is not held: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if row := m.row("two"); row.Held || !row.Exports || !row.PublicAccess || row.Epoch <= before {
					t.Errorf("after the confirmation: %+v", row)
				}
				if hold := m.start(); hold.Why != "" {
					t.Errorf("it is held again: %q", hold.Why)
				}
			})
		})
	}
}

func put(id string, epoch int64) func(tx *meta.Tx) error {
	return func(tx *meta.Tx) error {
		_, err := tx.PutRegistry(meta.RegistryRow{ID: id, Name: id, ResourceID: "/r/" + id, LoginServer: id + ".x.y", Exports: true, PublicAccess: true, Epoch: epoch - 1})
		return err
	}
}

// A change is not answered before its mark is written, and marks that can't be read stop the start.
func TestMarksAreNeeded(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		dir := filepath.Join(t.TempDir(), "marks")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		m := &marked{t: t, db: open(), marks: filepath.Join(dir, "policy-epochs.json")}
		m.start()
		m.put("one")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		m.write(put("one", 7))
		if err := m.gate.Fence(t.Context(), "one", 7); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a change whose mark can't be written: %v", err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"{", "{}", "null", `{"registries":null}`} {
			if err := os.WriteFile(m.marks, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			log, err := audit.New(t.Context(), audit.Options{DB: m.db, Node: "o"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := egress.New(egress.Options{DB: m.db, Audit: log, Marks: m.marks}); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("marks that are %s: %v", text, err)
			}
			_ = log.Close() // nothing waits in it
		}
	})
}

// Marks are one installation's and one process's: another one's are refused and stay as they are, and those from before they said whose they are are taken.
func TestMarksOfAnother(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		m := &marked{t: t, db: open(), marks: filepath.Join(t.TempDir(), "policy-epochs.json")}
		m.start()
		m.put("one")
		attempt := func() error {
			log, err := audit.New(t.Context(), audit.Options{DB: m.db, Node: "o"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = log.Close() }() // nothing waits in it
			gate, err := egress.New(egress.Options{DB: m.db, Audit: log, Marks: m.marks})
			if err != nil {
				return err
			}
			_, err = gate.Reconcile(t.Context())
			return errors.Join(err, gate.Close())
		}
		refused := func(what, says string) {
			t.Helper()
			if err := attempt(); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "policyEpochs") || !strings.Contains(err.Error(), m.marks) {
				t.Errorf("%s: %v, want %q", what, err, says)
			}
		}
		refused("marks that are in use", "in use by another embargo")
		m.stop()
		whole, err := os.ReadFile(m.marks)
		if err != nil {
			t.Fatal(err)
		}
		m.write(func(tx *meta.Tx) error { return tx.SetInstallation("tenant", "t2") })
		refused("marks of another installation", "belong to the installation of the tenant t1, and not to this installation, of the tenant t2")
		m.write(func(tx *meta.Tx) error { return tx.ForgetInstallation("tenant") })
		refused("marks of another installation than one that begins", "of the tenant t1, and not to this installation, which is new")
		older := bytes.Replace(whole, []byte(`"tenant": "t1",`), nil, 1)
		if err := os.WriteFile(m.marks, older, 0o600); err != nil {
			t.Fatal(err)
		}
		refused("older marks, where one begins", "an installation that has registries")
		if now, err := os.ReadFile(m.marks); err != nil || !bytes.Equal(now, older) {
			t.Errorf("refused marks were changed: %v\n%s", err, now)
		}
		if hold := m.start(); hold.Why != "" {
			t.Errorf("with its own marks it is held: %s", hold.Why)
		}
		if now, err := os.ReadFile(m.marks); err != nil || !bytes.Equal(now, whole) {
			t.Errorf("older marks were not taken: %v\n%s", err, now)
		}
	})
}

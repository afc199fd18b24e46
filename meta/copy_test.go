// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// held is a copy in memory.
type held struct {
	schema int64
	lines  []string
	put    []func(put func(t meta.Table, values []any) error) error
}

func snapshot(t *testing.T, db *meta.DB) held {
	t.Helper()
	var h held
	var table meta.Table
	var err error
	h.schema, err = db.Snapshot(t.Context(), nothing, func(t meta.Table) error {
		table = t
		h.lines = append(h.lines, fmt.Sprint(t))
		return nil
	}, func(values []any) error {
		own := append([]any{}, values...)
		for i, v := range own {
			if b, ok := v.([]byte); ok {
				own[i] = append([]byte{}, b...)
			}
		}
		of := table
		h.lines = append(h.lines, fmt.Sprintf("%q", own))
		h.put = append(h.put, func(put func(t meta.Table, values []any) error) error { return put(of, own) })
		return nil
	}, nothing)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h held) source(put func(t meta.Table, values []any) error) error {
	for _, p := range h.put {
		if err := p(put); err != nil {
			return err
		}
	}
	return nil
}

func fillTables(t *testing.T, db *meta.DB) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *meta.Tx) error {
		var errs []error
		for _, r := range []meta.RegistryRow{row("b"), row("a"), row("Ä")} {
			_, err := tx.PutRegistry(r)
			errs = append(errs, err)
		}
		for name, b := range map[string][]byte{"zero": {0, 1, 0xff}, "empty": {}, "Upper": []byte("x")} {
			errs = append(errs, tx.PutSecret(name, b))
		}
		errs = append(errs, tx.SetInstallation("quote", `it's "quoted" \ ünïcode`), tx.SetInstallation("", ""))
		_, err := tx.Exec(`INSERT INTO audit (node, node_seq, time_us, leaf) VALUES ('n', 9007199254740993, -1, $1)`, []byte("leaf"))
		return errors.Join(append(errs, err)...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func options(url string) meta.Options { return meta.Options{URL: url, Dial: metatest.Dial} }

func nothing(*meta.Tx) error { return nil }

// What one database holds is the same on the other after a copy, and the copy of that is the same copy.
func TestCopyBetweenDatabases(t *testing.T) {
	t.Parallel()
	for _, from := range metatest.Kinds {
		for _, to := range metatest.Kinds {
			t.Run(from+" to "+to, func(t *testing.T) {
				db := metatest.Open(t, metatest.URL(t, from))
				fillTables(t, db)
				taken := snapshot(t, db)
				url := metatest.URL(t, to)
				if err := meta.Restore(t.Context(), options(url), taken.schema, taken.source, func(tx *meta.Tx) error { return tx.SetInstallation("also", "this") }); err != nil {
					t.Fatal(err)
				}
				restored := metatest.Open(t, url)
				err := restored.Write(t.Context(), func(tx *meta.Tx) error {
					also, err := tx.Installation("also")
					if also != "this" {
						t.Errorf("what was to be written with the rows reads %q", also)
					}
					_, gone := tx.Exec(`DELETE FROM installation WHERE key = 'also'`)
					return errors.Join(err, gone)
				})
				if err != nil {
					t.Fatal(err)
				}
				if got := snapshot(t, restored); !reflect.DeepEqual(got.lines, taken.lines) {
					t.Errorf("restored\n%s\nfrom\n%s", strings.Join(got.lines, "\n"), strings.Join(taken.lines, "\n"))
				}
			})
		}
	}
}

// Nothing is restored over something, and a restore that fails leaves the database empty, so that it can be tried again.
func TestRestoreIsAllOrNothing(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		source := metatest.Open(t, metatest.URL(t, "sqlite"))
		fillTables(t, source)
		taken := snapshot(t, source)
		db := open()
		var url string
		if db.Postgres() {
			url = metatest.URL(t, "postgres")
		} else {
			url = metatest.URL(t, "sqlite")
		}
		broken := errors.New("the copy ends here")
		err := meta.Restore(t.Context(), options(url), taken.schema, func(put func(t meta.Table, values []any) error) error {
			return errors.Join(taken.source(put), broken)
		}, nothing)
		if !errors.Is(err, broken) {
			t.Fatalf("a broken copy: %v", err)
		}
		for name, bad := range map[string]meta.Table{"a table": {Name: "registries; DROP TABLE audit"}, "a column": {Name: "installation", Columns: []meta.Column{{Name: `key") --`}}},
			"the lease": {Name: "nodes", Columns: []meta.Column{{Name: "id"}}}} {
			err := meta.Restore(t.Context(), options(url), taken.schema, func(put func(t meta.Table, values []any) error) error {
				return put(bad, make([]any, len(bad.Columns)))
			}, nothing)
			if err == nil || !strings.Contains(err.Error(), "the copy") {
				t.Errorf("a copy that names %s: %v", name, err)
			}
		}
		if err := meta.Restore(t.Context(), options(url), taken.schema, taken.source, nothing); err != nil {
			t.Fatalf("after failures: %v", err)
		}
		if err := meta.Restore(t.Context(), options(url), taken.schema, taken.source, nothing); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("over an installation: %v", err)
		}
		if err := meta.Restore(t.Context(), options(url), meta.Schema()+1, taken.source, nothing); err == nil || !strings.Contains(err.Error(), "newer embargo") {
			t.Errorf("of a newer schema: %v", err)
		}
	})
}

// A copy is one instant's although others write, and ends when its reader wants no more.
func TestSnapshotIsOneInstant(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		fillTables(t, db)
		before := snapshot(t, db)
		rows := 0
		_, err := db.Snapshot(t.Context(), nothing, func(meta.Table) error { return nil }, func([]any) error {
			rows++
			return db.Write(context.WithoutCancel(t.Context()), func(tx *meta.Tx) error {
				return tx.SetInstallation(fmt.Sprintf("zzz-%d", rows), "written while the copy was taken")
			})
		}, nothing)
		if err != nil || rows != len(before.put) {
			t.Errorf("%d rows were copied, %v; there were %d when it began", rows, err, len(before.put))
		}
		stop := errors.New("enough")
		if _, err := db.Snapshot(t.Context(), nothing, func(meta.Table) error { return stop }, nil, nothing); !errors.Is(err, stop) {
			t.Errorf("a reader that wants no more: %v", err)
		}
	})
}

// A copy of an older schema is restored as it was and then migrated.
func TestRestoreOfAnOlderSchema(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		fillTables(t, db)
		taken := snapshot(t, db)
		url := metatest.URL(t, map[bool]string{true: "postgres", false: "sqlite"}[db.Postgres()])
		err := meta.Restore(t.Context(), options(url), 1, func(put func(t meta.Table, values []any) error) error {
			return taken.source(func(t meta.Table, values []any) error {
				later := []string{"held", "quarantine", "trust", "retention", "retention_days", "retention_since_us", "soft_delete", "soft_delete_days", "endpoints"} // schema 1 had none of these
				old := meta.Table{Name: t.Name}
				var kept []any
				for i, c := range t.Columns {
					if t.Name != "registries" || !slices.Contains(later, c.Name) {
						old.Columns, kept = append(old.Columns, c), append(kept, values[i])
					}
				}
				return put(old, kept)
			})
		}, nothing)
		if err != nil {
			t.Fatal(err)
		}
		if got := snapshot(t, metatest.Open(t, url)); got.schema != meta.Schema() || !reflect.DeepEqual(got.lines, taken.lines) {
			t.Errorf("schema %d, restored\n%s\nfrom\n%s", got.schema, strings.Join(got.lines, "\n"), strings.Join(taken.lines, "\n"))
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// facts reads all of the table installation in the order of its keys.
func facts(t testing.TB, db *meta.DB) map[string]string {
	t.Helper()
	var all map[string]string
	err := db.Read(context.Background(), func(tx *meta.Tx) error {
		all = map[string]string{}
		rows, err := tx.Query(`SELECT key, value FROM installation`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var k, v string
			if err := rows.Scan(&k, &v); err != nil {
				return err
			}
			all[k] = v
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func put(key, value string) func(tx *meta.Tx) error {
	return func(tx *meta.Tx) error { return tx.SetInstallation(key, value) }
}

var errOwn = errors.New("the closure's own error")

// endings are the ways a closure can end after it has written; wrong reports an answer that Write must not give.
var endings = []struct {
	name  string
	keeps bool
	end   func(tx *meta.Tx) error
	wrong func(err error) bool
}{
	{"nil", true, func(*meta.Tx) error { return nil }, func(err error) bool { return err != nil }},
	{"error", false, func(*meta.Tx) error { return errOwn }, func(err error) bool { return !errors.Is(err, errOwn) }},
	{"panic", false, func(*meta.Tx) error { panic("boom") }, func(err error) bool { return err == nil || !strings.Contains(err.Error(), "boom") }},
	{"refused statement", false, func(tx *meta.Tx) error {
		_, err := tx.Exec(`INSERT INTO installation (key, value) VALUES ('taken', 'again')`)
		return err
	}, func(err error) bool { return err == nil }},
}

// Closures that fail leave nothing and take nobody with them, however many share a commit.
func TestWritesAreIsolated(t *testing.T) {
	t.Parallel()
	const writers, each = 32, 8
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		if err := db.Write(t.Context(), put("taken", "first")); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"taken": "first"}
		var wg sync.WaitGroup
		for w := range writers {
			for n := range each {
				if e := endings[(w+n)%len(endings)]; e.keeps {
					want[fmt.Sprintf("%d/%d", w, n)], want[fmt.Sprintf("%d/%d more", w, n)] = e.name, e.name
				}
			}
			wg.Go(func() {
				for n := range each {
					e := endings[(w+n)%len(endings)]
					key := fmt.Sprintf("%d/%d", w, n)
					err := db.Write(t.Context(), func(tx *meta.Tx) error {
						return errors.Join(tx.SetInstallation(key, e.name), tx.SetInstallation(key+" more", e.name), e.end(tx))
					})
					if e.wrong(err) {
						t.Errorf("%s: Write answers %v", e.name, err)
					}
				}
			})
		}
		wg.Wait()
		got := facts(t, db)
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s is %q, written was %q", k, got[k], v)
			}
		}
		for k, v := range got {
			if want[k] == "" {
				t.Errorf("%s was left behind by a closure that ended with: %s", k, v)
			}
		}
	})
}

// hold keeps the one writer, alone in its commit, busy until the function returns.
func hold(t *testing.T, db *meta.DB, wg *sync.WaitGroup, until func()) {
	t.Helper()
	begun := make(chan struct{})
	wg.Go(func() {
		if err := db.Write(t.Context(), func(*meta.Tx) error { close(begun); until(); return nil }); err != nil {
			t.Error(err)
		}
	})
	<-begun
}

// On SQLite, writes that wait together share one commit: all their closures run before the first of them is told.
func TestWaitingWritesShareACommit(t *testing.T) {
	t.Parallel()
	const writers = 64
	db := metatest.Open(t, metatest.URL(t, "sqlite"))
	var mu sync.Mutex
	var events []string
	note := func(e string) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}
	var wg, about sync.WaitGroup
	about.Add(writers)
	hold(t, db, &wg, about.Wait)
	for n := range writers {
		wg.Go(func() {
			about.Done()
			err := db.Write(t.Context(), func(tx *meta.Tx) error {
				note("run")
				tx.OnCommit(func() { note("commit") })
				return tx.SetInstallation(fmt.Sprint(n), "x")
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	commits := len(slices.Compact(slices.Clone(events))) / 2
	if len(events) != 2*writers || commits > writers/4 {
		t.Errorf("%d writes took %d commits", len(events)/2, commits)
	}
}

// A Read sees one instant: what commits while it runs is not there for it, and is there for the next.
func TestReadSeesOneInstant(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		both := func(v string) error {
			return db.Write(t.Context(), func(tx *meta.Tx) error {
				return errors.Join(tx.SetInstallation("a", v), tx.SetInstallation("b", v))
			})
		}
		if err := both("old"); err != nil {
			t.Fatal(err)
		}
		var a, b string
		err := db.Read(t.Context(), func(tx *meta.Tx) (err error) {
			if a, err = tx.Installation("a"); err != nil {
				return err
			}
			if err = both("new"); err != nil {
				return err
			}
			b, err = tx.Installation("b")
			return err
		})
		if err != nil || a != "old" || b != "old" {
			t.Errorf("one Read saw a=%q and b=%q, %v", a, b, err)
		}
		if got := facts(t, db); got["a"] != "new" || got["b"] != "new" {
			t.Errorf("the next Read sees %v", got)
		}
	})
}

// A Read can't write, and a failed attempt does not spoil its connection.
func TestReadDoesNotWrite(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		for range 20 {
			if err := db.Read(t.Context(), put("stray", "x")); err == nil {
				t.Error("a Read may write")
			}
		}
		if got := facts(t, db); len(got) != 0 {
			t.Errorf("a Read left %v", got)
		}
	})
}

// A text that only one kind of database could keep is refused by both, in writing and in reading.
func TestTextsOfBothDatabases(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		for _, text := range []string{"a\x00b", "\xff", "half \xc3"} {
			if err := db.Write(t.Context(), func(tx *meta.Tx) error { return tx.SetInstallation("odd", text) }); !fault.Is(err, fault.BadRequest) {
				t.Errorf("writing %q: %v", text, err)
			}
			for range 2 { // the second read may be answered from memory
				err := db.Read(t.Context(), func(tx *meta.Tx) error {
					_, err := tx.Installation(text)
					return err
				})
				if !fault.Is(err, fault.BadRequest) {
					t.Errorf("reading by %q: %v", text, err)
				}
			}
		}
		if got := facts(t, db); len(got) != 0 {
			t.Errorf("kept: %v", got)
		}
	})
}

// PostgreSQL has its indexes in byte order after each start, also where somebody took one away.
func TestIndexesInByteOrder(t *testing.T) {
	t.Parallel()
	url := metatest.URL(t, "postgres")
	count := func() (n int) {
		err := metatest.Open(t, url).Read(t.Context(), func(tx *meta.Tx) error {
			return tx.Row(`SELECT COUNT(*) FROM pg_indexes WHERE schemaname = current_schema() AND indexdef LIKE '%COLLATE "C"%'`).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	all := count()
	err := metatest.Open(t, url).Write(t.Context(), func(tx *meta.Tx) error {
		_, err := tx.Exec(`DROP INDEX tags_bytes`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if again := count(); all == 0 || again != all {
		t.Errorf("%d indexes, and %d after one was dropped", all, again)
	}
}

// OnCommit runs when others can see the writes and before Write returns; after a failure it does not run.
func TestOnCommit(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db, other := open(), open()
		for _, e := range endings {
			if err := db.Write(t.Context(), func(tx *meta.Tx) error { return tx.SetInstallation("taken", "x") }); err != nil {
				t.Fatal(err)
			}
			var calls atomic.Int32
			var seen string
			_ = db.Write(t.Context(), func(tx *meta.Tx) error {
				tx.OnCommit(func() {
					calls.Add(1)
					seen = facts(t, other)[e.name]
				})
				return errors.Join(tx.SetInstallation(e.name, "written"), e.end(tx))
			})
			switch n := calls.Load(); {
			case e.keeps && (n != 1 || seen != "written"):
				t.Errorf("%s: OnCommit ran %d times and saw %q", e.name, n, seen)
			case !e.keeps && n != 0:
				t.Errorf("%s: OnCommit ran %d times", e.name, n)
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// until waits for a condition of the database, which tells no one when it comes true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func refusedNode(t *testing.T, err error, when string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "another embargo is running") {
		t.Errorf("%s: %v", when, err)
	}
}

// One node at a time decides on a PostgreSQL database; a released lease goes to the next at once.
func TestSecondNodeIsRefusedUntilTheFirstLeaves(t *testing.T) {
	t.Parallel()
	url := metatest.URL(t, "postgres")
	one, two := metatest.Open(t, url), metatest.Open(t, url)
	first, err := one.Register(t.Context(), "one", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	second, err := two.Register(t.Context(), "two", time.Hour)
	refusedNode(t, err, "while the first lives")
	if !first.Valid() || second.Valid() {
		t.Errorf("valid: first %v, second %v", first.Valid(), second.Valid())
	}
	if err := first.Renew(t.Context()); err != nil {
		t.Errorf("the first can't renew: %v", err)
	}
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first.Valid() {
		t.Error("a released lease is valid")
	}
	if err := second.Renew(t.Context()); err != nil || !second.Valid() {
		t.Errorf("after the release: %v, valid %v", err, second.Valid())
	}
	refusedNode(t, first.Renew(t.Context()), "the first, coming back")
	if first.Valid() {
		t.Error("both nodes hold a valid lease")
	}
}

// The lease of a node that was killed ends by itself; by then that node has stopped deciding.
func TestLeaseOfAKilledNodeEnds(t *testing.T) {
	t.Parallel()
	url := metatest.URL(t, "postgres")
	one, two := metatest.Open(t, url), metatest.Open(t, url)
	first, err := one.Register(t.Context(), "one", 400*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	_, err = two.Register(t.Context(), "two", time.Hour)
	refusedNode(t, err, "within the term")
	until(t, "the second node takes over", func() bool {
		_, err := two.Register(t.Context(), "two", time.Hour)
		return err == nil
	})
	if first.Valid() {
		t.Error("the first node still decides after another took over")
	}
	refusedNode(t, first.Renew(t.Context()), "the first, waking up")
}

// The same node, started again after a kill, need not wait for its own lease.
func TestRestartedNodeTakesItsOwnLease(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		for range 2 {
			if l, err := open().Register(t.Context(), "one", time.Hour); err != nil || !l.Valid() {
				t.Errorf("%v, valid %v", err, l.Valid())
			}
		}
	})
}

// Of nodes that start together one wins, although each looked before any other had written.
func TestNodesThatStartTogether(t *testing.T) {
	t.Parallel()
	const nodes = 6
	url := metatest.URL(t, "postgres")
	gate := metatest.Open(t, url)
	answers := make(chan error, nodes)
	err := gate.Write(t.Context(), func(tx *meta.Tx) error {
		// Lets the nodes read the table and holds up who writes it, until all are there.
		if _, err := tx.Exec(`LOCK TABLE nodes IN SHARE MODE`); err != nil {
			return err
		}
		for n := range nodes {
			db := metatest.Open(t, url)
			go func() {
				_, err := db.Register(context.Background(), string(rune('a'+n)), time.Hour)
				answers <- err
			}()
		}
		until(t, "all nodes wait", func() bool {
			var waiting int
			err := tx.Row(`SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND relation = 'nodes'::regclass`).Scan(&waiting)
			return err == nil && waiting == nodes
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	won := 0
	for range nodes {
		if err := <-answers; err == nil {
			won++
		} else {
			refusedNode(t, err, "a later one")
		}
	}
	if won != 1 {
		t.Errorf("%d nodes hold the lease", won)
	}
}

// On SQLite the data directory is locked by one process, so its node always may decide.
func TestSQLiteNodeAlwaysDecides(t *testing.T) {
	t.Parallel()
	db := metatest.Open(t, metatest.URL(t, "sqlite"))
	l, err := db.Register(t.Context(), "one", time.Microsecond)
	if err != nil || !db.SoleWriter() || !l.Valid() {
		t.Errorf("%v, sole writer %v, valid %v", err, db.SoleWriter(), l.Valid())
	}
}

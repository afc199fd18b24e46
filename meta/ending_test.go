// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// A transaction that has begun goes on to its end although its caller hangs up: "failed" is never said of what was committed.
func TestACallerThatHangsUp(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		ctx, cancel := context.WithCancel(t.Context())
		err := db.Write(ctx, func(tx *meta.Tx) error {
			cancel()
			return tx.SetInstallation("begun", "x")
		})
		if _, there := facts(t, db)["begun"]; err != nil || !there {
			t.Errorf("cancelled within the closure: Write answers %v, row there: %v", err, there)
		}
		err = db.Write(ctx, put("late", "x"))
		if _, there := facts(t, db)["late"]; (err == nil) != there {
			t.Errorf("cancelled before: Write answers %v, row there: %v", err, there)
		}
	})
}

// When the disk is full each writer of the group gets a true answer, nobody's OnCommit lies, and the writer works again once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	const writers = 24
	db := metatest.Open(t, metatest.URL(t, "sqlite"))
	limit := func(pages string) {
		t.Helper()
		err := db.Write(t.Context(), func(tx *meta.Tx) error {
			var got int64
			return tx.Row(`PRAGMA max_page_count = ` + pages).Scan(&got)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit("1") // as many as there are now
	big := strings.Repeat("x", 1<<20)
	var wg, about sync.WaitGroup
	about.Add(writers)
	hold(t, db, &wg, about.Wait)
	answers, told := make([]error, writers), make([]atomic.Bool, writers)
	for n := range writers {
		wg.Go(func() {
			about.Done()
			value := "small"
			if n%3 == 1 {
				value = big
			}
			answers[n] = db.Write(t.Context(), func(tx *meta.Tx) error {
				tx.OnCommit(func() { told[n].Store(true) })
				return tx.SetInstallation(fmt.Sprint(n), value)
			})
		})
	}
	wg.Wait()
	got := facts(t, db)
	for n, err := range answers {
		_, there := got[fmt.Sprint(n)]
		if there != (err == nil) || told[n].Load() != there {
			t.Errorf("writer %d: answer %v, OnCommit %v, row there %v", n, err, told[n].Load(), there)
		}
		if n%3 == 1 && err == nil {
			t.Errorf("writer %d stored 1 MiB on a full disk", n)
		}
	}
	limit("1000000")
	if err := db.Write(t.Context(), put("after", big)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// Transactions that PostgreSQL can't order are run again until each is through; what they asked for happens once.
func TestDeadlockIsRunAgain(t *testing.T) {
	t.Parallel()
	db := metatest.Open(t, metatest.URL(t, "postgres"))
	err := db.Write(t.Context(), func(tx *meta.Tx) error {
		return errors.Join(tx.SetInstallation("a", ""), tx.SetInstallation("b", ""))
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg, holding sync.WaitGroup
	var runs, told atomic.Int32
	holding.Add(2)
	for _, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
		first := true
		wg.Go(func() {
			err := db.Write(t.Context(), func(tx *meta.Tx) error {
				runs.Add(1)
				tx.OnCommit(func() { told.Add(1) })
				if err := tx.SetInstallation(order[0], order[0]); err != nil {
					return err
				}
				if first {
					first = false
					holding.Done()
					holding.Wait()
				}
				return tx.SetInstallation(order[1], order[0])
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if runs.Load() < 3 || told.Load() != 2 {
		t.Errorf("the closures ran %d times and were told %d times that they committed", runs.Load(), told.Load())
	}
	if got := facts(t, db); got["a"] != got["b"] || got["a"] == "" {
		t.Errorf("the transactions are mixed: %v", got)
	}
}

// A closed database says so, and writes that were under way are finished first.
func TestClose(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db, other := open(), open()
		begun, release, answer := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			answer <- db.Write(context.Background(), func(tx *meta.Tx) error {
				close(begun)
				<-release
				return tx.SetInstallation("under way", "x")
			})
		}()
		<-begun
		closed := make(chan error, 1)
		go func() { closed <- db.Close() }()
		select {
		case <-closed:
			t.Error("Close did not wait for the write under way")
			closed <- nil
		case <-time.After(20 * time.Millisecond): // time in which one that does not wait comes back
		}
		close(release)
		if err := errors.Join(<-answer, <-closed); err != nil {
			t.Fatal(err)
		}
		if facts(t, other)["under way"] != "x" {
			t.Error("the write under way is lost")
		}
		if err := db.Write(t.Context(), put("after", "x")); err == nil {
			t.Error("a closed database takes writes")
		}
	})
}

// A closed SQLite database is one file: whoever copies it has everything.
func TestCloseLeavesOneFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "embargo.db")
	db, err := meta.Open(t.Context(), meta.Options{URL: "sqlite:" + path})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *meta.Tx) error { return tx.SetInstallation("k", "v") })
	if err = errors.Join(err, db.Ping(t.Context()), db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 1 {
		t.Errorf("there are %v, %v", files, err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// full is more than the collector's batch and its queue hold together.
const full = 1<<14 + 512 + 100

// within fails the test when done is not closed in time.
func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: still not after 10 s", what)
	}
}

func async(fn func()) <-chan struct{} {
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	return done
}

// With the database held up and the queue full, Note comes back; decisions wait; once the database goes on, all of it is recorded.
func TestFullQueue(t *testing.T) {
	const deciders = 16
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l := unclosed(t, db, "n")
		release := metatest.Hold(t, db)
		defer release()
		within(t, "notes beyond the queue", async(func() {
			for range full {
				l.Note(decision("note"))
			}
		}))
		var wg, about sync.WaitGroup
		about.Add(deciders)
		for range deciders {
			wg.Go(func() {
				about.Done()
				if err := l.Decide(context.Background(), decision("decide")); err != nil {
					t.Error(err)
				}
			})
		}
		about.Wait()
		within(t, "a note beside waiting decisions", async(func() { l.Note(decision("note")) }))
		release()
		within(t, "decisions behind a full queue", async(wg.Wait))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		gapless(t, read(t, l, audit.Query{}), "n", full+1+deciders)
	})
}

// Close waits for what is on its way, and a Note meanwhile, from within a transaction that the collector waits for, is not held up.
func TestCloseWithAFullQueue(t *testing.T) {
	db := metatest.Open(t, metatest.URL(t, "sqlite"))
	l := unclosed(t, db, "n")
	release := metatest.Hold(t, db)
	defer release()
	for range full {
		l.Note(decision("note"))
	}
	decided := make(chan error, 1)
	go func() { decided <- l.Decide(context.Background(), decision("decide")) }()
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }()
	within(t, "a note while the log closes", async(func() { l.Note(decision("late")) }))
	release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	// Whether it came before the end or after is open; that its answer is true is not.
	want := 0
	if err := <-decided; err == nil {
		want = 1
	}
	if got := read(t, l, audit.Query{Action: "decide"}); len(got) != want {
		t.Errorf("the decision is there %d times, its answer says %d", len(got), want)
	}
	if got := read(t, l, audit.Query{Action: "note"}); len(got) != full {
		t.Errorf("%d of %d notes are there", len(got), full)
	}
}

// A decision whose caller is gone is not answered with success, and the log does not wait for that caller.
func TestDecideOfACallerThatHangsUp(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l := newLog(t, db, "n")
		release := metatest.Hold(t, db)
		defer release()
		ctx, cancel := context.WithCancel(t.Context())
		answer := make(chan error, 1)
		go func() { answer <- l.Decide(ctx, decision("pull")) }()
		cancel()
		if err := <-answer; !errors.Is(err, context.Canceled) {
			t.Errorf("the answer is %v", err)
		}
		release()
		if err := l.Decide(t.Context(), decision("next")); err != nil {
			t.Error(err)
		}
	})
}

// rename gives a table another name: without its own no record can be written.
func rename(t *testing.T, db *meta.DB, from, to string) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *meta.Tx) error {
		_, err := tx.Exec(`ALTER TABLE ` + from + ` RENAME TO ` + to)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What can't be recorded is an error for who waits, shows in Healthy and in the log; a later success clears it.
func TestRecordsThatCannotBeWritten(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		var text bytes.Buffer
		l, err := audit.New(t.Context(), audit.Options{DB: db, Node: "n", Log: slog.New(slog.NewTextHandler(&text, nil))})
		if err != nil {
			t.Fatal(err)
		}
		rename(t, db, "audit", "gone")
		if err := l.Decide(t.Context(), decision("pull")); err == nil || l.Healthy() == nil {
			t.Errorf("without a table: Decide %v, Healthy %v", err, l.Healthy())
		}
		rename(t, db, "gone", "audit")
		if err := l.Decide(t.Context(), decision("pull")); err != nil || l.Healthy() != nil {
			t.Errorf("with the table: Decide %v, Healthy %v", err, l.Healthy())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Decide(t.Context(), decision("pull")); err == nil {
			t.Error("a closed log decides")
		}
		l.Note(decision("too late"))
		for _, want := range []string{"could not be written", "too late"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("the log does not tell of %q: %s", want, text.String())
			}
		}
		if got := read(t, l, audit.Query{}); len(got) != 1 {
			t.Errorf("%d records are there, want 1", len(got))
		}
	})
}

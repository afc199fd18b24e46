// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// all is more than any test records.
const all = 1 << 20

func newLog(t testing.TB, db *meta.DB, node string) *audit.Log {
	t.Helper()
	l := unclosed(t, db, node)
	t.Cleanup(func() { _ = l.Close() }) // tests that care about its answer close it themselves
	return l
}

// unclosed is for tests whose failure may be that Close hangs.
func unclosed(t testing.TB, db *meta.DB, node string) *audit.Log {
	t.Helper()
	l, err := audit.New(context.Background(), audit.Options{DB: db, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func read(t testing.TB, l *audit.Log, q audit.Query) []audit.Entry {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = all
	}
	found, err := l.Read(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func decision(action string) audit.Record {
	return audit.Record{Kind: audit.Decision, Action: action, Outcome: audit.Allowed}
}

// gapless expects that the node's numbers are 1 to n, each once.
func gapless(t *testing.T, entries []audit.Entry, node string, n int) {
	t.Helper()
	seen := map[int64]int{}
	for _, e := range entries {
		if e.Node == node {
			seen[e.Seq]++
		}
	}
	for seq := range int64(n) {
		if seen[seq+1] != 1 {
			t.Errorf("%s/%d is there %d times", node, seq+1, seen[seq+1])
		}
	}
	if len(seen) != n {
		t.Errorf("%s has %d records, want %d", node, len(seen), n)
	}
}

// Decide, Note and Append of many at once number without gap or repetition, per node, and over a restart.
func TestNumbersHaveNoGaps(t *testing.T) {
	const writers, each = 16, 12
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		for life := 1; life <= 2; life++ {
			var logs []*audit.Log
			var wg sync.WaitGroup
			for _, node := range []string{"one", "two"} {
				l := newLog(t, db, node)
				logs = append(logs, l)
				for w := range writers {
					wg.Go(func() {
						for n := range each {
							var err error
							switch (w + n) % 3 {
							case 0:
								err = l.Decide(t.Context(), decision("decide"))
							case 1:
								l.Note(decision("note"))
							default:
								err = db.Write(t.Context(), func(tx *meta.Tx) error { return l.Append(tx, decision("append")) })
							}
							if err != nil {
								t.Error(err)
							}
						}
					})
				}
			}
			wg.Wait()
			for _, l := range logs {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			entries := read(t, logs[0], audit.Query{})
			gapless(t, entries, "one", life*writers*each)
			gapless(t, entries, "two", life*writers*each)
		}
	})
}

// Decide waits for the commit; when it returns, another connection sees the record.
func TestDecideIsDurable(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l, reader := newLog(t, db, "n"), newLog(t, open(), "reader")
		release := metatest.Hold(t, db)
		defer release()
		answer := make(chan error, 1)
		go func() { answer <- l.Decide(context.Background(), decision("pull")) }()
		select {
		case err := <-answer:
			t.Fatalf("Decide returned %v while nothing could be committed", err)
		case <-time.After(20 * time.Millisecond): // time in which one that does not wait comes back
		}
		release()
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		if got := read(t, reader, audit.Query{}); len(got) != 1 || got[0].Action != "pull" {
			t.Errorf("after Decide returned another connection sees %+v", got)
		}
	})
}

// A record belongs to its change: it commits with it and goes with it.
func TestAppendGoesWithItsChange(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l := newLog(t, db, "n")
		own := errors.New("refused later")
		for _, end := range []error{own, nil} {
			err := db.Write(t.Context(), func(tx *meta.Tx) error {
				return errors.Join(l.Append(tx, decision(fmt.Sprint("ends with ", end))), end)
			})
			if !errors.Is(err, end) {
				t.Fatal(err)
			}
		}
		if got := read(t, l, audit.Query{}); len(got) != 1 || got[0].Action != "ends with <nil>" {
			t.Errorf("recorded: %+v", got)
		}
	})
}

// ticking is a clock that never shows an instant twice, so that records of one instant are records of one transaction.
func ticking() func() time.Time {
	var ticks atomic.Int64
	start := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	return func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Microsecond) }
}

// Decisions that come while a commit is under way share the next one.
func TestDecisionsShareACommit(t *testing.T) {
	const callers = 200
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			db, err := meta.Open(t.Context(), meta.Options{URL: metatest.URL(t, kind), Dial: metatest.Dial, Clock: ticking()})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			l := newLog(t, db, "n")
			release := metatest.Hold(t, db)
			var wg, about sync.WaitGroup
			about.Add(callers)
			for range callers {
				wg.Go(func() {
					about.Done()
					if err := l.Decide(t.Context(), decision("pull")); err != nil {
						t.Error(err)
					}
				})
			}
			about.Wait()
			release()
			wg.Wait()
			commits := map[time.Time]bool{}
			entries := read(t, l, audit.Query{})
			for _, e := range entries {
				commits[e.Time] = true
			}
			if len(entries) != callers || len(commits) > callers/4 {
				t.Errorf("%d decisions took %d commits", len(entries), len(commits))
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, kind := range metatest.Kinds {
		b.Run(kind, func(b *testing.B) {
			l := newLog(b, metatest.Open(b, metatest.URL(b, kind)), "n")
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := l.Decide(b.Context(), decision("pull")); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

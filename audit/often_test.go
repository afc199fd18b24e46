// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// What is said once is there at once; what is said again is one record with its count and the sum of its bytes, for each key its own; Close writes what was counted.
func TestOften(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		l := newLog(t, open(), "n")
		o := audit.NewOften[string](l)
		say := func(key string, bytes int64) {
			r := decision(key)
			r.Bytes = bytes
			o.Note(key, bytes, func() audit.Record { return r })
		}
		say("a", 1)
		say("b", 100)
		for _, bytes := range []int64{10, 20, 30} {
			say("a", bytes)
		}
		if err := l.Decide(t.Context(), decision("after")); err != nil { // in the queue behind what was noted
			t.Fatal(err)
		}
		if got := read(t, l, audit.Query{}); len(got) != 3 {
			t.Errorf("before the log is closed %d records are there: %+v", len(got), got)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		entries := read(t, l, audit.Query{})
		gapless(t, entries, "n", 4)
		type said struct {
			action       string
			count, bytes int64
		}
		got := map[said]int{}
		for _, e := range entries {
			got[said{e.Action, e.Count, e.Bytes}]++
		}
		for _, want := range []said{{"a", 0, 1}, {"b", 0, 100}, {"after", 0, 0}, {"a", 3, 60}} {
			if got[want] != 1 {
				t.Errorf("%+v is there %d times in %+v", want, got[want], got)
			}
		}
	})
}

// Soon does not wait for the commit and tells when it was; while records can't be written nothing follows from one.
func TestSoon(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l := newLog(t, db, "n")
		durable := make(chan error, 10)
		soon := func() error {
			return l.Soon(t.Context(), decision("pull"), func(err error) { durable <- err })
		}
		written := func() {
			t.Helper()
			select {
			case err := <-durable:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("it was not written")
			}
		}
		release := metatest.Hold(t, db)
		defer release()
		if err := soon(); err != nil { // returns while nothing can be committed
			t.Fatal(err)
		}
		select {
		case <-durable:
			t.Error("it is called durable while nothing can be committed")
		case <-time.After(20 * time.Millisecond): // time in which one that does not wait comes back
		}
		release()
		written()
		rename(t, db, "audit", "gone")
		if err := l.Decide(t.Context(), decision("lost")); err == nil {
			t.Fatal("a record without a table")
		}
		if err := soon(); err == nil {
			t.Error("what can't be recorded was let go")
		}
		rename(t, db, "gone", "audit")
		if len(durable) != 0 {
			t.Error("what was not written is called durable")
		}
		if err := soon(); err != nil {
			t.Errorf("with the table: %v", err)
		}
		written()
		if err := l.Healthy(); err != nil {
			t.Error(err)
		}
		if got := read(t, l, audit.Query{}); len(got) != 2 {
			t.Errorf("%d records are there, want 2", len(got))
		}
	})
}

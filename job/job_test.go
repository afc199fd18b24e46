// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

func newRunner(t *testing.T, db *meta.DB, node string) *job.Runner {
	t.Helper()
	r, err := job.New(job.Options{DB: db, Node: node, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs r until the test ends or stop is called, which waits for it.
func start(t *testing.T, r *job.Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx); close(ended) }()
	stop = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run goes on after its context ended")
		}
	}
	t.Cleanup(stop)
	return stop
}

func write(t *testing.T, db *meta.DB, fn func(tx *meta.Tx) error) {
	t.Helper()
	if err := db.Write(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func enqueue(t *testing.T, db *meta.DB, s job.Spec) string {
	t.Helper()
	var id string
	write(t, db, func(tx *meta.Tx) (err error) { id, err = job.Enqueue(tx, s); return err })
	return id
}

func get(t *testing.T, db *meta.DB, id string) job.State {
	t.Helper()
	var s job.State
	if err := db.Read(context.Background(), func(tx *meta.Tx) (err error) { s, err = job.Get(tx, id); return err }); err != nil {
		t.Fatal(err)
	}
	return s
}

// await waits until the job has the status.
func await(t *testing.T, db *meta.DB, id string, want job.Status) job.State {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		s := get(t, db, id)
		switch {
		case s.Status == want:
			return s
		case s.Status.Final(), time.Now().After(deadline):
			t.Fatalf("the job is %s, not %s: %+v", s.Status, want, s)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// receive waits for what a handler sends.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// A job exists exactly when the transaction that asked for it committed, with all that was said of it.
func TestEnqueue(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		own := errors.New("the caller's own error")
		spec := job.Spec{ID: "op", Kind: "k", Subject: "/s", Registry: "r", Args: map[string]int{"a": 1}, Caller: json.RawMessage(`{"id":"me"}`),
			Correlation: "c", RunAt: time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC), MaxAttempts: 3}
		err := db.Write(t.Context(), func(tx *meta.Tx) error {
			_, err := job.Enqueue(tx, spec)
			return errors.Join(err, own)
		})
		if !errors.Is(err, own) {
			t.Fatal(err)
		}
		err = db.Read(t.Context(), func(tx *meta.Tx) error { _, err := job.Get(tx, "op"); return err })
		if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("after the transaction failed: %v", err)
		}
		before := time.Now().Truncate(time.Microsecond)
		enqueue(t, db, spec)
		got := get(t, db, "op")
		if got.Created.Before(before) || got.Created.After(time.Now()) {
			t.Errorf("created at %v", got.Created)
		}
		want := job.State{ID: "op", Kind: "k", Subject: "/s", Registry: "r", Correlation: "c", Status: job.Accepted, Args: json.RawMessage(`{"a":1}`),
			Caller: spec.Caller, MaxAttempts: 3, RunAt: spec.RunAt, Created: got.Created}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
		// The name is taken; the one who has it keeps it.
		err = db.Write(t.Context(), func(tx *meta.Tx) error { _, err := job.Enqueue(tx, job.Spec{ID: "op", Kind: "other"}); return err })
		if !fault.Is(err, fault.Conflict) || get(t, db, "op").Kind != "k" {
			t.Errorf("a second job of the name: %v", err)
		}
		one, two := enqueue(t, db, job.Spec{Kind: "k", Subject: "/t"}), enqueue(t, db, job.Spec{Kind: "k", Subject: "/t"})
		var list []job.State
		if err := db.Read(t.Context(), func(tx *meta.Tx) (err error) { list, err = job.List(tx, "/t"); return err }); err != nil {
			t.Fatal(err)
		}
		if one == two || len(list) != 2 || list[0].ID != one || list[1].ID != two || list[0].MaxAttempts != 5 || string(list[0].Caller) != "{}" {
			t.Errorf("the jobs of a subject: %+v", list)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

func shut(r *meta.RegistryRow) { r.Exports, r.PublicAccess = false, false }

// Who was let in by a row that is no longer in force is to be asked again, once the fence has begun.
func TestEnteredByAnOldRow(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		var before, after meta.RegistryRow
		read := func(row *meta.RegistryRow) {
			t.Helper()
			if err := w.db.Read(t.Context(), func(tx *meta.Tx) (err error) { *row, err = tx.RegistryByID("id-one"); return err }); err != nil {
				t.Fatal(err)
			}
		}
		read(&before)
		if !w.gate.Entered(before, public) {
			t.Error("the row in force")
		}
		epoch := w.put("one", shut)
		if err := w.gate.Fence(t.Context(), "id-one", epoch); err != nil {
			t.Fatal(err)
		}
		read(&after)
		if w.gate.Entered(before, public) || !w.gate.Entered(after, private) {
			t.Errorf("the epochs are %d and %d", before.Epoch, after.Epoch)
		}
	})
}

// After the fence a reading that the policy refuses gets no further window, one that it allows goes on, and other registries are not touched.
func TestFenceStopsWhatIsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		out, in := w.flow(pull(public)), w.flow(pull(private))
		elsewhere := pull(public)
		elsewhere.Registry = "id-two"
		two := w.flow(elsewhere)
		early := w.grant(pull(public)) // decided before the change, opened after it
		if err := w.gate.Fence(ctx, "id-one", w.put("one", shut)); err != nil {
			t.Fatal(err)
		}
		if err := out.Begin(ctx); !fault.Is(err, fault.FirewallDenied) {
			t.Errorf("the public reading goes on: %v", err)
		}
		if _, err := early.Open(ctx, content); !fault.Is(err, fault.FirewallDenied) {
			t.Errorf("the grant of before the change opens: %v", err)
		}
		if err := in.Begin(ctx); err != nil {
			t.Errorf("the private reading: %v", err)
		}
		in.End(7)
		if err := two.Begin(ctx); err != nil {
			t.Errorf("the other registry's reading: %v", err)
		}
		two.End(7)
		out.Close(false)
		in.Close(true)
		two.Close(true)
		aborted := 0
		for _, e := range w.records() {
			if e.Outcome == audit.Aborted && e.Rule == "publicNetworkAccess" && e.Registry == "id-one" {
				aborted++
			}
		}
		if aborted != 2 { // the reading, and the grant's
			t.Errorf("%d readings are on record as aborted by the rule", aborted)
		}
	})
}

// Opening the policy again does not revive what was stopped.
func TestFenceIsFinal(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		f := w.flow(pull(public))
		for _, change := range []func(r *meta.RegistryRow){shut, nil} {
			if err := w.gate.Fence(ctx, "id-one", w.put("one", change)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Begin(ctx); !fault.Is(err, fault.FirewallDenied) {
			t.Errorf("the stopped reading goes on: %v", err)
		}
		f.Close(false)
		w.flow(pull(public)).Close(true)
	})
}

// What can't be judged any more is stopped: a deleted registry's readings, whoever reads.
func TestFenceOfADeletedRegistry(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		f := w.flow(pull(private))
		early := w.grant(pull(private))
		if err := w.db.Write(ctx, func(tx *meta.Tx) error { return tx.DeleteRegistry("id-one") }); err != nil {
			t.Fatal(err)
		}
		if err := w.gate.Fence(ctx, "id-one", 1<<40); err != nil {
			t.Fatal(err)
		}
		if err := f.Begin(ctx); !fault.Is(err, fault.Denied) {
			t.Errorf("the reading goes on: %v", err)
		}
		f.Close(false)
		if _, err := early.Open(ctx, content); !fault.Is(err, fault.NameUnknown) {
			t.Errorf("the grant opens: %v", err)
		}
	})
}

// A change is not answered as done while a refused reading is still within a window.
func TestFenceWaitsForWindows(t *testing.T) {
	t.Parallel() // it waits most of its time
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		f := w.flow(pull(public))
		if err := f.Begin(ctx); err != nil {
			t.Fatal(err)
		}
		epoch := w.put("one", shut)
		if err := w.gate.Fence(ctx, "id-one", epoch); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a fence beside a window that does not end: %v", err)
		}
		answered := make(chan error, 1)
		go func() { answered <- w.gate.Fence(ctx, "id-one", epoch) }()
		f.End(7)
		if err := <-answered; err != nil {
			t.Errorf("a fence beside a window that ends: %v", err)
		}
		f.Close(false)
	})
}

// Under load: once a fence is back, no reading that it refuses begins a window, is within one, or is granted anew.
func TestFenceUnderLoad(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		const readers, flips = 8, 10
		var fenced, stop atomic.Bool
		var wg sync.WaitGroup
		for range readers {
			wg.Go(func() {
				for !stop.Load() {
					a := pull(public)
					a.Caller = identity.Caller{ID: "reader"}
					d, err := w.decide(a)
					if err != nil {
						continue
					}
					g, err := w.gate.Release(ctx, d)
					if err != nil {
						t.Errorf("release: %v", err)
						return
					}
					f, err := g.Open(ctx, content)
					for err == nil && !stop.Load() {
						if err = f.Begin(ctx); err == nil {
							if fenced.Load() {
								t.Error("a window is open behind the fence")
							}
							f.End(1)
						}
					}
					if f != nil {
						f.Close(false)
					}
				}
			})
		}
		for range flips {
			f := w.flow(pull(public)) // the readers, too, get in now
			f.Close(true)
			if err := w.gate.Fence(ctx, "id-one", w.put("one", shut)); err != nil {
				t.Error(err)
			}
			fenced.Store(true)
			if _, err := w.decide(pull(public)); !fault.Is(err, fault.FirewallDenied) {
				t.Errorf("behind the fence: %v", err)
			}
			fenced.Store(false)
			if err := w.gate.Fence(ctx, "id-one", w.put("one", nil)); err != nil {
				t.Error(err)
			}
		}
		stop.Store(true)
		w.put("one", shut)
		if err := w.gate.Fence(ctx, "id-one", 1<<40); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}

// Every route of the register has one line, with its rule and the place of the rule.
func TestRegisterIsWhole(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, e := range egress.Register {
		if seen[string(e.Route)] || e.Rule == "" || e.Room == "" {
			t.Errorf("%s: twice, or without its rule or its room", e.Route)
		}
		seen[string(e.Route)] = true
	}
	if len(seen) != 30 {
		t.Errorf("%d routes", len(seen))
	}
}

// A fence ends the sending of events that the policy now refuses, at once, and no other; what was cut is on record.
func TestFenceStopsEvents(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		tell := func(a egress.Ask) (context.Context, func(int64, bool)) {
			d, err := w.decide(a)
			if err != nil {
				t.Fatal(err)
			}
			ctx, done, err := w.gate.Tell(context.Background(), d)
			if err != nil {
				t.Fatal(err)
			}
			return ctx, done
		}
		out, outDone := tell(event(false))
		in, inDone := tell(event(true))
		ended := make(chan struct{})
		go func() { // a sender that is stopped by its context alone
			<-out.Done()
			outDone(3, false)
			close(ended)
		}()
		if err := w.gate.Fence(context.Background(), "id-one", w.put("one", shut)); err != nil {
			t.Fatal(err)
		}
		<-ended
		if why := context.Cause(out); !fault.Is(why, fault.ExportsDisabled) {
			t.Errorf("the event ended because of %v", why)
		}
		if in.Err() != nil {
			t.Errorf("the event to the declared destination ended: %v", context.Cause(in))
		}
		inDone(5, true)
		cut, whole := 0, 0
		for _, e := range w.records() {
			switch {
			case e.Route != "R13" || e.Registry != "id-one":
			case e.Outcome == audit.Aborted && e.Rule == "exportPolicy" && e.Bytes == 3:
				cut++
			case e.Outcome == audit.Completed && e.Bytes == 5:
				whole++
			}
		}
		if cut != 1 || whole != 1 {
			t.Errorf("%d events are on record as cut and %d as sent", cut, whole)
		}
	})
}

// A held registry tells nobody of its events, a declared destination neither.
func TestHeldRegistrySendsNoEvent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		err := w.db.Write(context.Background(), func(tx *meta.Tx) error { _, err := tx.HoldRegistry("id-one", true, 0); return err })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.decide(event(true)); !fault.Is(err, fault.ExportsDisabled) {
			t.Errorf("held: %v", err)
		}
	})
}

// A backup that others can open meets the policy of every registry: locking one stops what it reads of another.
func TestR18FenceOfEveryRegistry(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ask := egress.Ask{Route: egress.Backup, Registry: "id-one", Digest: content, Batch: "b", Caller: identity.Caller{ID: "x"}}
		foreign := w.flow(ask)
		ask.Sealed, ask.Batch = true, "c"
		own := w.flow(ask)
		if err := w.gate.Fence(t.Context(), "id-two", w.put("two", shut)); err != nil {
			t.Fatal(err)
		}
		if err := foreign.Begin(t.Context()); !fault.Is(err, fault.ExportsDisabled) {
			t.Errorf("a backup for others goes on: %v", err)
		}
		if err := own.Begin(t.Context()); err != nil {
			t.Errorf("a backup for the installation's own key: %v", err)
		}
		own.End(0)
	})
}

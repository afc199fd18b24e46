// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/network"
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

// Of a proxy's callers more are let in than are kept, by the rows before a change and after it, before its fence is there: the connection stays when the new row lets in whom each of them did.
func TestFenceOfManyCallers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		const kept, a, b, c = "198.51.100.0/24", "192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/26"
		for _, x := range []struct {
			name  string
			rules [][]string // one row after the other; nil: open
			order []int      // by which row the callers are let in
			stays bool
		}{
			{"a rule more", [][]string{{kept, a}, {kept, a, b}}, []int{0, 1}, true},
			{"a rule more, an old row last", [][]string{{kept, a}, {kept, a, b}}, []int{1, 0}, true},
			{"a rule less", [][]string{{kept, a, b}, {kept, a}}, []int{0, 1}, false},
			{"a rule less, an old row last", [][]string{{kept, a, b}, {kept, a}}, []int{1, 0}, false},
			{"another rule", [][]string{{kept, a, b}, {kept, b, c}}, []int{0, 1}, false},
			{"another rule, an old row last", [][]string{{kept, a, b}, {kept, b, c}}, []int{1, 0}, false},
			{"another rule, and one more", [][]string{{kept, a}, {kept, b}, {kept, b, c}}, []int{0, 1, 2}, false},
			{"rules instead of none", [][]string{nil, {kept, a}}, []int{0, 1}, false},
			{"none instead of rules", [][]string{{kept, a}, {kept, b}, nil}, []int{0, 1}, true},
		} {
			p, answered := connected(t)
			var rows []meta.RegistryRow
			for _, rules := range x.rules {
				w.put("one", func(r *meta.RegistryRow) {
					var list []netip.Prefix
					for _, rule := range rules {
						list = append(list, netip.MustParsePrefix(rule))
					}
					r.DefaultDeny, r.IPRules = rules != nil, meta.NewRanges(list...)
				})
				var row meta.RegistryRow
				if err := w.db.Read(t.Context(), func(tx *meta.Tx) (err error) { row, err = tx.RegistryByID("id-one"); return err }); err != nil {
					t.Fatal(err)
				}
				rows = append(rows, row)
			}
			enter := func(row meta.RegistryRow, address netip.Addr) {
				q := *p
				q.Addr = netip.AddrPortFrom(address, 999)
				if !w.gate.Entered(row, &q) {
					t.Fatalf("%s: epoch %d is past", x.name, row.Epoch)
				}
			}
			first := netip.MustParseAddr("198.51.100.0")
			for range 256 {
				enter(rows[0], first)
				first = first.Next()
			}
			for _, at := range x.order {
				address := netip.MustParseAddr("203.0.113.1")
				if len(x.rules[at]) > 0 {
					address = netip.MustParsePrefix(x.rules[at][1]).Addr()
				}
				enter(rows[at], address)
			}
			if err := w.gate.Fence(t.Context(), "id-one", rows[len(rows)-1].Epoch); err != nil {
				t.Fatal(err)
			}
			if stays := answered(); stays != x.stays {
				t.Errorf("%s: it stays: %v", x.name, stays)
			}
		}
	})
}

// connected is a public connection with a request under way, and whether it is answered.
func connected(t *testing.T) (p *network.Peer, answered func() bool) {
	t.Helper()
	doors, err := network.NewDoors(nil)
	if err != nil {
		t.Fatal(err)
	}
	door, err := doors.Listen(t.Context(), "127.0.0.1:0", network.DoorOptions{Zone: public.Zone})
	if err != nil {
		t.Fatal(err)
	}
	peers, answer := make(chan *network.Peer, 1), make(chan struct{})
	go func() {
		_ = door.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peers <- door.Peer(r)
			<-answer
		}))
	}()
	t.Cleanup(door.Stop)
	client, err := net.Dial("tcp", door.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: one\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return <-peers, func() bool {
		close(answer)
		_, err := client.Read(make([]byte, 1))
		return err == nil
	}
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

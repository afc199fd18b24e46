// SPDX-License-Identifier: Apache-2.0

package egress_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
)

var (
	content = name.DigestOf([]byte("content"))
	puller  = identity.Caller{ID: "p1", Name: "puller", Type: identity.ServicePrincipal}
	public  = &network.Peer{Zone: network.Zone{Kind: network.Public, Door: "public"}, Addr: netip.MustParseAddrPort("203.0.113.7:999"), ID: "c1"}
	private = &network.Peer{Zone: network.Zone{Kind: network.Private, Registry: "one"}, Addr: netip.MustParseAddrPort("127.0.0.1:999"), ID: "c2"}
)

// world is a gate with its database, its record and two registries, one and two, that let everything out.
type world struct {
	t     *testing.T
	db    *meta.DB
	log   *audit.Log
	gate  *egress.Gate
	dead  atomic.Bool // the node's lease has ended
	mu    sync.Mutex
	later time.Duration // how far the gate's clock is ahead
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	metatest.EachAlone(t, func(t *testing.T, db *meta.DB) {
		w := &world{t: t, db: db}
		var err error
		if w.log, err = audit.New(context.Background(), audit.Options{DB: w.db, Node: "n"}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.log.Close() }) // closed by records already, where a test reads them
		clock := func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Add(w.later)
		}
		if w.gate, err = egress.New(egress.Options{DB: w.db, Audit: w.log, Clock: clock, Live: func() bool { return !w.dead.Load() }}); err != nil {
			t.Fatal(err)
		}
		w.put("one", nil)
		w.put("two", nil)
		fn(t, w)
	})
}

// put writes a registry's row, open but for what change says, and returns its epoch.
func (w *world) put(registry string, change func(r *meta.RegistryRow)) int64 {
	w.t.Helper()
	r := meta.RegistryRow{ID: "id-" + registry, ResourceID: "/registries/" + registry, Name: registry, LoginServer: registry + ".azurecr.localhost",
		SKU: "Premium", Exports: true, PublicAccess: true, BypassAzureServices: true}
	if change != nil {
		change(&r)
	}
	var epoch int64
	err := w.db.Write(context.Background(), func(tx *meta.Tx) (err error) {
		epoch, err = tx.PutRegistry(r)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return epoch
}

func (w *world) decide(a egress.Ask) (d egress.Decision, err error) {
	err = w.db.Read(context.Background(), func(tx *meta.Tx) error {
		d, err = w.gate.Decide(tx, a)
		return err
	})
	return d, err
}

// grant is the grant of a wish that is allowed.
func (w *world) grant(a egress.Ask) egress.Grant {
	w.t.Helper()
	d, err := w.decide(a)
	if err != nil {
		w.t.Fatal(err)
	}
	g, err := w.gate.Release(context.Background(), d)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// flow opens the grant of a wish that is allowed.
func (w *world) flow(a egress.Ask) *egress.Flow {
	w.t.Helper()
	f, err := w.grant(a).Open(context.Background(), a.Digest)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// records are all that is on record, with what was only noted.
func (w *world) records() []audit.Entry {
	w.t.Helper()
	if err := w.log.Close(); err != nil {
		w.t.Fatal(err)
	}
	return w.stored()
}

func (w *world) stored() []audit.Entry {
	w.t.Helper()
	entries, err := w.log.Read(context.Background(), audit.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	return entries
}

func pull(p *network.Peer) egress.Ask {
	return egress.Ask{Route: egress.Pull, Registry: "id-one", Repository: "app", Digest: content, Size: 7, Caller: puller, Peer: p}
}

func transfer(to string) egress.Ask {
	return egress.Ask{Route: egress.Import, Registry: "id-one", To: "id-" + to, Repository: "app", Digest: content, Caller: puller}
}

func event(declared bool) egress.Ask {
	return egress.Ask{Route: egress.Webhook, Registry: "id-one", Repository: "app", Digest: content, Caller: puller, Destination: "https://hook.example", Declared: declared}
}

// Each rule, on the rows as they are stored: who asks, what stands, what the gate says, and that a refusal is on record with its rule.
func TestRules(t *testing.T) {
	t.Parallel()
	shut := func(r *meta.RegistryRow) { r.PublicAccess, r.Exports = false, false }
	each(t, func(t *testing.T, w *world) {
		for i, c := range []struct {
			what     string
			one, two func(r *meta.RegistryRow)
			ask      egress.Ask
			refused  string // the rule in the record, "" when allowed
			kind     fault.Kind
		}{
			{"a public pull of an open registry", nil, nil, pull(public), "", 0},
			{"a public pull while public access is disabled", func(r *meta.RegistryRow) { r.PublicAccess = false }, nil, pull(public), "publicNetworkAccess", fault.FirewallDenied},
			{"a public pull from an address that no rule names", func(r *meta.RegistryRow) { r.DefaultDeny = true }, nil, pull(public), "networkRuleSet.ipRules", fault.FirewallDenied},
			{"a public pull from an address that a rule names", func(r *meta.RegistryRow) {
				r.DefaultDeny, r.IPRules = true, meta.NewRanges(netip.MustParsePrefix("203.0.113.0/24"))
			}, nil, pull(public), "", 0},
			{"a private pull of a shut registry", shut, nil, pull(private), "", 0},
			{"a private pull through another registry's door", nil, nil, egress.Ask{Route: egress.Pull, Registry: "id-two", Repository: "app", Digest: content, Caller: puller, Peer: private}, "privateEndpointConnections", fault.FirewallDenied},
			{"a pull without a connection", nil, nil, pull(nil), "Denied", fault.Denied},
			{"an import of an open registry", nil, nil, transfer("two"), "", 0},
			{"an import while exports are disabled", shut, nil, transfer("two"), "exportPolicy", fault.ExportsDisabled},
			{"an import into itself while exports are disabled", shut, nil, transfer("one"), "", 0},
			{"an import whose source is restricted without bypass", func(r *meta.RegistryRow) { r.PublicAccess, r.BypassAzureServices = false, false }, nil, transfer("two"), "publicNetworkAccess", fault.FirewallDenied},
			{"an import whose target is restricted without bypass", nil, func(r *meta.RegistryRow) { r.DefaultDeny, r.BypassAzureServices = true, false }, transfer("two"), "publicNetworkAccess", fault.FirewallDenied},
			{"an import whose source is restricted with bypass", func(r *meta.RegistryRow) { r.PublicAccess = false }, nil, transfer("two"), "", 0},
			{"an import into what is gone", nil, nil, transfer("none"), "Denied", fault.Denied},
			{"an event to a declared destination while exports are disabled", shut, nil, event(true), "", 0},
			{"an event to another destination while exports are disabled", shut, nil, event(false), "exportPolicy", fault.ExportsDisabled},
			{"an event of an open registry", nil, nil, event(false), "", 0},
			{"a route that has no rule", nil, nil, egress.Ask{Route: egress.Task, Registry: "id-one", Caller: puller, Peer: private}, "Denied", fault.Denied},
		} {
			w.put("one", c.one)
			w.put("two", c.two)
			c.ask.Correlation = fmt.Sprint("case ", i)
			d, err := w.decide(c.ask)
			if (c.refused == "") != (err == nil) || err != nil && !fault.Is(err, c.kind) {
				t.Errorf("%s: %v", c.what, err)
			}
			_, released := w.gate.Release(context.Background(), d)
			if telling := c.ask.Route == egress.Webhook; (released == nil) != (c.refused == "" && !telling) {
				t.Errorf("%s: its release: %v", c.what, released)
			}
			if _, done, told := w.gate.Tell(context.Background(), d); (told == nil) != (c.refused == "" && c.ask.Route == egress.Webhook) {
				t.Errorf("%s: its telling: %v", c.what, told)
			} else if told == nil {
				done(1, true)
			}
			if c.refused == "" {
				continue
			}
			if e := w.find(c.ask.Correlation); e.Outcome != audit.Refused || e.Kind != audit.Decision || c.refused != "Denied" && e.Rule != c.refused || e.Reason == "" || e.Caller.Name != "puller" {
				t.Errorf("%s: its record: %+v", c.what, e)
			}
		}
	})
}

// find waits for the record of a correlation.
func (w *world) find(correlation string) audit.Entry {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var found audit.Entry
	stop := errors.New("found")
	err := w.log.Follow(ctx, audit.Query{}, func(e audit.Entry) error {
		if e.Correlation == correlation {
			found = e
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		w.t.Fatalf("no record of %s: %v", correlation, err)
	}
	return found
}

// A decision is on record, durably, before there is a grant; a log that can't write gives none.
func TestReleaseIsRecordedFirst(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.grant(pull(public))
		before := w.stored() // a fresh read of the database
		if len(before) != 1 || before[0].Outcome != audit.Allowed || before[0].Digest != string(content) || before[0].Route != "R1" || before[0].Source.Address != "203.0.113.7:999" {
			t.Fatalf("on record after the release: %+v", before)
		}
		d, err := w.decide(pull(private))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
		if g, err := w.gate.Release(context.Background(), d); !fault.Is(err, fault.Unavailable) {
			t.Errorf("released without a record: %v %v", g, err)
		} else if _, err := g.Open(context.Background(), content); !fault.Is(err, fault.Denied) {
			t.Errorf("the grant that came with the error opens: %v", err)
		}
	})
}

// rename gives a table another name: without its own no record can be written.
func (w *world) rename(from, to string) {
	w.t.Helper()
	err := w.db.Write(context.Background(), func(tx *meta.Tx) error {
		_, err := tx.Exec(`ALTER TABLE ` + from + ` RENAME TO ` + to)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// With Soon a pull whose registry lets artifacts go is let go while its record waits; that of a registry with exports disabled waits for its record, and so does every other route.
func TestSoonIsForOpenRegistries(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		gate, err := egress.New(egress.Options{DB: w.db, Audit: w.log, Soon: true})
		if err != nil {
			t.Fatal(err)
		}
		w.gate = gate
		w.put("two", func(r *meta.RegistryRow) { r.Exports, r.PublicAccess = false, false })
		inside := *private
		inside.Zone.Registry = "two"
		shut := pull(&inside)
		shut.Registry = "id-two"
		decided := func(a egress.Ask) egress.Decision {
			t.Helper()
			d, err := w.decide(a)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		soon, strict := decided(pull(public)), []egress.Decision{decided(shut), decided(transfer("one"))}
		release := metatest.Hold(t, w.db)
		defer release()
		if _, err := gate.Release(t.Context(), soon); err != nil {
			t.Errorf("an open registry's pull: %v", err)
		}
		for _, d := range strict {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if _, err := gate.Release(ctx, d); !fault.Is(err, fault.Unavailable) {
				t.Errorf("released before it was on record: %v", err)
			}
			cancel()
		}
		release()
		if _, err := gate.Release(t.Context(), strict[0]); err != nil {
			t.Error(err)
		}
	})
}

// With Soon, once exports are disabled nothing is read before its record is durable, whenever it was decided; a reading under way whose record failed is stopped by the fence.
func TestSoonEndsWithTheFence(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		var err error
		if w.gate, err = egress.New(egress.Options{DB: w.db, Audit: w.log, Soon: true}); err != nil {
			t.Fatal(err)
		}
		decided, err := w.decide(pull(private))
		if err != nil {
			t.Fatal(err)
		}
		w.rename("audit", "gone")
		other := pull(private)
		other.Digest = name.DigestOf([]byte("other"))
		under := w.flow(other) // its record will fail
		for deadline := time.Now().Add(30 * time.Second); w.log.Healthy() == nil; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no failure shows")
			}
		}
		w.rename("gone", "audit")
		if err := w.log.Decide(t.Context(), audit.Record{Kind: audit.Decision, Action: "heal", Outcome: audit.Allowed}); err != nil {
			t.Fatal(err)
		}
		epoch := w.put("one", func(r *meta.RegistryRow) { r.Exports, r.PublicAccess = false, false })
		if err := w.gate.Fence(t.Context(), "id-one", epoch); err != nil {
			t.Fatal(err)
		}
		if err := under.Begin(t.Context()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a reading without a record goes on after exports were disabled: %v", err)
		}
		release := metatest.Hold(t, w.db)
		defer release()
		g, err := w.gate.Release(t.Context(), decided)
		if err != nil {
			t.Fatal(err) // it was decided while exports were enabled; what it opens is what counts
		}
		soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := g.Open(soon, content); err == nil {
			t.Error("read before it was on record, after exports were disabled")
		}
		release()
		if _, err := g.Open(t.Context(), content); err != nil {
			t.Errorf("read once it was on record: %v", err)
		}
	})
}

// With Soon, what could not be recorded is shared with nobody: the connection's next pull is a record of its own.
func TestSoonSharesWhatIsDurable(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		var err error
		if w.gate, err = egress.New(egress.Options{DB: w.db, Audit: w.log, Soon: true}); err != nil {
			t.Fatal(err)
		}
		d, err := w.decide(pull(public))
		if err != nil {
			t.Fatal(err)
		}
		w.rename("audit", "gone")
		if _, err := w.gate.Release(t.Context(), d); err != nil { // nothing has failed yet
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); w.log.Healthy() == nil; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no failure shows")
			}
		}
		if _, err := w.gate.Release(t.Context(), d); !fault.Is(err, fault.Unavailable) {
			t.Errorf("released while records can't be written: %v", err)
		}
		w.rename("gone", "audit")
		for range 3 {
			w.grant(pull(public))
		}
		if got := w.records(); len(got) != 1 {
			t.Errorf("%d records are there, want the one of the pulls after the failure: %+v", len(got), got)
		}
	})
}

// The ranges of one blob that one caller reads on one connection share a record; nothing else shares one.
func TestSharedRecords(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		other := pull(public)
		other.Digest = name.DigestOf([]byte("other"))
		elsewhere := pull(public)
		elsewhere.Repository = "lib"
		stranger := pull(public)
		stranger.Caller = identity.Caller{ID: "p2", Name: "stranger"}
		for i, a := range []egress.Ask{pull(public), pull(private), other, elsewhere, stranger} {
			for range 3 {
				w.grant(a)
			}
			if n := len(w.stored()); n != i+1 {
				t.Errorf("after %d kinds of pull %d records", i+1, n)
			}
		}
		w.put("one", nil) // another epoch
		w.grant(pull(public))
		if n := len(w.stored()); n != 6 {
			t.Errorf("after a change of policy %d records", n)
		}
	})
}

// A grant opens what it was given for, while it lasts, and nothing else.
func TestGrantOpensOnlyItsContent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		g := w.grant(pull(public))
		for _, d := range []name.Digest{"", name.DigestOf([]byte("other"))} {
			if _, err := g.Open(ctx, d); !fault.Is(err, fault.Denied) {
				t.Errorf("opened %q: %v", d, err)
			}
		}
		if _, err := (egress.Grant{}).Open(ctx, content); !fault.Is(err, fault.Denied) {
			t.Errorf("the zero grant opens: %v", err)
		}
		w.mu.Lock()
		w.later = time.Minute + time.Second
		w.mu.Unlock()
		if _, err := g.Open(ctx, content); !fault.Is(err, fault.Denied) {
			t.Errorf("a grant of more than a minute ago opens: %v", err)
		}
		f, err := w.grant(pull(public)).Open(ctx, content)
		if err != nil {
			t.Fatal(err)
		}
		f.End(5)
		f.End(2)
		f.Close(true)
		f.Close(true)
		all := w.records()
		i := slices.IndexFunc(all, func(e audit.Entry) bool { return e.Outcome == audit.Completed })
		if i < 0 || all[i].Bytes != 7 || all[i].Decision == "" || all[i].Decision != all[0].Decision || len(all) != 2 {
			t.Errorf("on record: %+v", all)
		}
	})
}

// A node that has lost its lease decides nothing and ends what it was reading.
func TestNodeWithoutLeaseDecidesNothing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		f := w.flow(pull(public))
		defer f.Close(false)
		w.dead.Store(true)
		if _, err := w.decide(pull(private)); !fault.Is(err, fault.Unavailable) {
			t.Errorf("decided: %v", err)
		}
		if err := f.Begin(context.Background()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("another window: %v", err)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// A tally counts over tallyTerm. Of each kind it keeps tallyMost (or what it is told) things apart at a time, and of what is more tallyOthers, without their addresses.
const (
	tallyTerm   = time.Minute
	tallyMost   = 4096
	tallyOthers = 256
)

// Others is the address in the record of what came from more addresses than a tally keeps apart; and the rule, where they were refused by more rules, or at more registries, than it keeps apart.
const Others = "others"

// Tally records what is refused before anyone is known: the first time at once, and what comes again from the same address by the same rule within a minute as one
// record with its count, when the minute ends. IPv6 addresses of one /64 are one. A flood of addresses costs bounded memory: what is too much is counted by its zone, rule and registry, and a flood of one kind
// (connections) hides none of another (logins). Safe for concurrent use.
type Tally struct {
	note  func(Record)
	clock func() time.Time
	most  int

	mu   sync.Mutex
	open map[tallyKey]*tallied
	kept map[tallyShare]int // how many of open are of the share
}

type tallyShare struct {
	kind   Kind
	others bool
}

func (k tallyKey) share() tallyShare { return tallyShare{k.kind, k.address == Others} }

type tallyKey struct {
	kind                                    Kind
	address, zone, endpoint, rule, registry string
}

type tallied struct {
	record Record // what the further ones have in common
	since  time.Time
	more   int64
}

// NewTally makes one that records by note (Log.Note) and keeps at most as many addresses apart as said (0: 4096).
func NewTally(note func(Record), clock func() time.Time, most int) *Tally {
	if most == 0 {
		most = tallyMost
	}
	return &Tally{note: note, clock: clock, most: most, open: map[tallyKey]*tallied{}, kept: map[tallyShare]int{}}
}

// Refused counts r, and records it when it is the first of its minute. address is the client's, without its port.
func (t *Tally) Refused(address string, r Record) {
	key := tallyKey{r.Kind, origin(address), r.Source.Zone, r.Source.Endpoint, r.Rule, r.Registry}
	t.mu.Lock()
	if t.open[key] == nil && t.kept[key.share()] >= t.most {
		key.address = Others
	}
	if key.address == Others && t.open[key] == nil && t.kept[key.share()] >= tallyOthers {
		key = tallyKey{kind: r.Kind, address: Others, rule: Others}
	}
	if e := t.open[key]; e != nil {
		e.more++
		t.mu.Unlock()
		return
	}
	common := Record{Kind: r.Kind, Action: r.Action, Outcome: r.Outcome, Rule: key.rule, Source: Source{Address: key.address, Zone: key.zone, Endpoint: key.endpoint}}
	if key.rule == r.Rule {
		common.Reason, common.Resource, common.Registry, common.LoginServer, common.Epoch, common.Route = r.Reason, r.Resource, r.Registry, r.LoginServer, r.Epoch, r.Route
	}
	t.kept[key.share()]++
	t.open[key] = &tallied{record: common, since: t.clock()}
	t.mu.Unlock()
	r.Count = 1
	t.note(r)
}

// origin is what an address is counted by: itself, or of IPv6 its /64, which is one host's or one network's.
func origin(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if a = a.Unmap().WithZone(""); a.Is4() {
		return a.String()
	}
	return netip.PrefixFrom(a, 64).Masked().String()
}

// Run records counts as their minutes end, and all that is left when ctx ends.
func (t *Tally) Run(ctx context.Context) {
	tick := time.NewTicker(tallyTerm / 12)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			t.flush(true)
			return
		case <-tick.C:
			t.flush(false)
		}
	}
}

func (t *Tally) flush(all bool) {
	now := t.clock()
	var out []Record
	t.mu.Lock()
	for key, e := range t.open {
		if !all && now.Sub(e.since) < tallyTerm {
			continue
		}
		delete(t.open, key)
		t.kept[key.share()]--
		if e.more > 0 {
			e.record.Count = e.more
			out = append(out, e.record)
		}
	}
	t.mu.Unlock()
	for _, r := range out {
		t.note(r)
	}
}

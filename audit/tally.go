// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"sync"
	"time"
)

// A tally counts over tallyTerm, and keeps tallyMost things apart at a time.
const (
	tallyTerm = time.Minute
	tallyMost = 4096
)

// Others is the address in the record of what came from more addresses than a tally keeps apart.
const Others = "others"

// Tally records what is refused before anyone is known: the first time at once, and what comes again from the same address by the same rule within a minute as one
// record with its count, when the minute ends. A flood of addresses costs bounded memory: what is too much is counted together. Safe for concurrent use.
type Tally struct {
	note  func(Record)
	clock func() time.Time

	mu   sync.Mutex
	open map[tallyKey]*tallied
}

type tallyKey struct {
	kind                          Kind
	address, zone, rule, registry string
}

type tallied struct {
	record Record // what the further ones have in common
	since  time.Time
	more   int64
}

// NewTally makes one that records by note (Log.Note).
func NewTally(note func(Record), clock func() time.Time) *Tally {
	return &Tally{note: note, clock: clock, open: map[tallyKey]*tallied{}}
}

// Refused counts r, and records it when it is the first of its minute. address is the client's, without its port.
func (t *Tally) Refused(address string, r Record) {
	key := tallyKey{r.Kind, address, r.Source.Zone, r.Rule, r.Registry}
	t.mu.Lock()
	if e := t.open[key]; e != nil {
		e.more++
		t.mu.Unlock()
		return
	}
	common := Record{Kind: r.Kind, Action: r.Action, Outcome: r.Outcome, Rule: r.Rule, Reason: r.Reason, Resource: r.Resource, Registry: r.Registry, LoginServer: r.LoginServer,
		Epoch: r.Epoch, Route: r.Route, Source: Source{Address: address, Zone: r.Source.Zone}}
	if len(t.open) >= tallyMost {
		key = tallyKey{address: Others}
		if e := t.open[key]; e != nil {
			e.more++
			t.mu.Unlock()
			return
		}
		common = Record{Kind: Decision, Action: r.Action, Outcome: Refused, Rule: Others, Source: Source{Address: Others}}
		t.open[key] = &tallied{common, t.clock(), 1}
		t.mu.Unlock()
		return
	}
	t.open[key] = &tallied{record: common, since: t.clock()}
	t.mu.Unlock()
	r.Count = 1
	t.note(r)
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

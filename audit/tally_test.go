// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

// The first refusal is on record at once, the others of its minute as a count, and a flood of addresses costs one record more.
func TestTally(t *testing.T) {
	now := time.Unix(1000, 0)
	var got []Record
	tally := NewTally(func(r Record) { got = append(got, r) }, func() time.Time { return now }, 0)
	refuse := func(address, rule string) {
		tally.Refused(address, Record{Kind: Decision, Outcome: Refused, Rule: rule, Source: Source{Address: address + ":1", Zone: "public/public"}})
	}
	for range 5 {
		refuse("192.0.2.1", "client")
	}
	refuse("192.0.2.1", "host")
	refuse("192.0.2.2", "client")
	if len(got) != 3 || got[0].Count != 1 || got[0].Source.Address != "192.0.2.1:1" {
		t.Fatalf("%+v", got)
	}
	tally.flush(false)
	if len(got) != 3 {
		t.Fatal("a minute that is not over was recorded")
	}
	now = now.Add(tallyTerm)
	tally.flush(false)
	if len(got) != 4 || got[3].Count != 4 || got[3].Source.Address != "192.0.2.1" || got[3].Rule != "client" {
		t.Fatalf("%+v", got)
	}
	refuse("192.0.2.1", "client")
	if len(got) != 5 {
		t.Fatal("the first of the next minute is not on record")
	}
	got = nil
	for i := range 3 * tallyMost {
		refuse(fmt.Sprint("a", i), "client")
	}
	if len(tally.open) > tallyMost+1 {
		t.Errorf("%d things are kept", len(tally.open))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tally.Run(ctx)
	last := got[len(got)-1]
	if len(got) != tallyMost+1 || last.Source != (Source{Address: Others, Zone: "public/public"}) || last.Rule != "client" || last.Count != 2*tallyMost {
		t.Errorf("%d records, the last %+v", len(got), last)
	}
}

// A tally keeps as many addresses apart as it is told.
func TestTallyOfFew(t *testing.T) {
	var got []string
	tally := NewTally(func(r Record) { got = append(got, fmt.Sprint(r.Source.Address, " ", r.Count)) }, time.Now, 2)
	for _, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.1"} {
		tally.Refused(address, Record{Kind: Decision, Rule: "dns", Source: Source{Address: address}})
	}
	tally.flush(true)
	slices.Sort(got)
	if want := []string{"192.0.2.1 1", "192.0.2.1 1", "192.0.2.2 1", "192.0.2.3 1", "others 1"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// What one host refuses itself from many addresses does not hide what others do meanwhile: each rule of each zone and registry is still on record, and logins have their own share. An IPv6 network is one
// address.
func TestTallyFlood(t *testing.T) {
	got := map[string]int{} // how many records there are, by kind, zone, rule and registry
	var counted int64
	tally := NewTally(func(r Record) {
		got[fmt.Sprint(r.Kind, " ", r.Source.Zone, " ", r.Rule, " ", r.Registry)]++
		counted += max(r.Count, 1)
	}, time.Now, 0)
	sent := int64(0)
	refuse := func(kind Kind, address, zone, rule, registry string) {
		sent++
		tally.Refused(address, Record{Kind: kind, Outcome: Refused, Rule: rule, Registry: registry, Source: Source{Address: address, Zone: zone}})
	}
	for i := range 3 * tallyMost {
		refuse(Decision, fmt.Sprintf("2001:db8:%x::1", i), "public/public", "host", "")
	}
	for i := range 9 {
		refuse(Decision, fmt.Sprint("192.0.2.", i), "private/pe1", "client", "one")
		refuse(Login, fmt.Sprintf("2001:db8::%x", i), "public/public", "credential", "two")
	}
	for what, want := range map[string]int{"decision public/public host ": tallyMost + 1, "decision private/pe1 client one": 1, "login public/public credential two": 1} {
		if got[what] != want {
			t.Errorf("%s: %d records at once, want %d", what, got[what], want)
		}
	}
	for i := range 3 * tallyOthers {
		refuse(Decision, "192.0.2.1", "public/public", "host", fmt.Sprint("r", i))
	}
	if most := tallyMost + tallyOthers + 1 + 1; len(tally.open) > most {
		t.Errorf("%d things are kept, and it should be %d at most", len(tally.open), most)
	}
	tally.flush(true)
	if got["login public/public credential two"] != 2 || got["decision private/pe1 client one"] != 2 || got["decision  others "] != 1 || counted != sent {
		t.Errorf("%d of %d counted: %v", counted, sent, got)
	}
	if len(tally.open) != 0 || tally.kept[tallyShare{Decision, false}] != 0 || tally.kept[tallyShare{Decision, true}] != 0 {
		t.Errorf("after the minute: %d, %v", len(tally.open), tally.kept)
	}
}

// Endpoints of one name are told apart.
func TestTallyEndpoints(t *testing.T) {
	var got []string
	tally := NewTally(func(r Record) { got = append(got, fmt.Sprint(r.Source.Endpoint, r.Count)) }, time.Now, 0)
	for _, endpoint := range []string{"/g/pe1", "/h/pe1", "", "/h/pe1"} {
		tally.Refused("192.0.2.1", Record{Kind: Decision, Rule: "client", Source: Source{Zone: "private/pe1", Endpoint: endpoint}})
	}
	tally.flush(true)
	if want := []string{"/g/pe11", "/h/pe11", "1", "/h/pe11"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// The first refusal is on record at once, the others of its minute as a count, and a flood of addresses costs one record more.
func TestTally(t *testing.T) {
	now := time.Unix(1000, 0)
	var got []Record
	tally := NewTally(func(r Record) { got = append(got, r) }, func() time.Time { return now })
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
	if len(got) != tallyMost || last.Source.Address != Others || last.Count != 2*tallyMost+1 {
		t.Errorf("%d records, the last %+v", len(got), last)
	}
}

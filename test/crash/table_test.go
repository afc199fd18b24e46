// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package crash

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// trial is a case of the table.
type trial struct {
	step  step
	fault string
	stay  bool
}

// inCI is how many cases of the table a short run takes.
const inCI = 130

// Each system call by which a story writes fails once as the kernel lets it fail, or is the last that the server does: what was acknowledged is kept, a failure is told as one, nothing leads
// nowhere, what failed can be asked for again, and a collection leaves no object that belongs to nothing.
func TestFaultTable(t *testing.T) {
	tb := newTable(t)
	trials := trialsOf(tb.tellWhole(t))
	chosen := trials
	if os.Getenv("EMBARGO_CRASH_KILLS") == "" { // make test-long takes them all
		seed := rand.Uint64()
		if v := os.Getenv("EMBARGO_CRASH_SEED"); v != "" {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			seed = n
		}
		chosen = sample(trials, inCI, seed)
		t.Logf("%d of %d cases, EMBARGO_CRASH_SEED=%d", len(chosen), len(trials), seed)
	}
	hits := 0
	for _, c := range chosen {
		o := tb.try(t, c.step, c.fault, c.stay)
		if o.hit {
			hits++
			t.Logf("%-40s %-7s %-11s %s", o.step, o.fault, o.answer, o.after)
		}
		if t.Failed() {
			t.Fatalf("after %s %s, stay %t", c.step, c.fault, c.stay)
		}
	}
	t.Logf("%d of %d cases met their step", hits, len(chosen))
	if hits < len(chosen)*8/10 {
		t.Errorf("only %d of %d cases met their step: the story is another one each time", hits, len(chosen))
	}
	tb.verify(t, tb.all)
	tb.nothingLeft(t)
}

// tellWhole tells a story without a fault, and gives its steps.
func (tb *table) tellWhole(t *testing.T) []step {
	t.Helper()
	var seen [2]map[string]bool
	var steps []step
	for i := range seen { // the first one also makes what is made once
		tb.stories++
		s := tb.newStory(tb.stories)
		end := tb.attach(t, "", "")
		for _, r := range s.requests() {
			tb.tell(t, r.name)
			if err := r.once(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		tb.tell(t, stopping)
		if err := tb.Stop(); err != nil {
			t.Fatal(err)
		}
		steps = end().steps
		seen[i] = map[string]bool{}
		for _, s := range steps {
			seen[i][s.String()] = true
		}
		tb.Start()
		tb.verify(t, s.ledger)
	}
	steps = slices.DeleteFunc(steps, func(s step) bool { return !seen[0][s.String()] })
	if len(steps) < 100 {
		t.Fatalf("a story has only %d steps", len(steps))
	}
	return steps
}

// trialsOf are all cases of the steps. Of the pages of a commit, which are written by the same loop, the first, the middle and the last are taken.
func trialsOf(steps []step) []trial {
	group := func(s step) string { return s.request + " " + s.name + " " + s.kind }
	last := map[string]int{}
	for _, s := range steps {
		last[group(s)] = max(last[group(s)], s.n)
	}
	var trials []trial
	for _, s := range steps {
		if n := last[group(s)]; s.name == "pwrite64" && s.n != 1 && s.n != (n+1)/2 && s.n != n {
			continue
		}
		for _, fault := range faults(s) {
			trials = append(trials, trial{s, fault, false})
			if fault != "KILL" {
				trials = append(trials, trial{s, fault, true})
			}
		}
	}
	return trials
}

// nothingLeft collects, and checks that the objects on disk are those that rows name, and as large.
func (tb *table) nothingLeft(t *testing.T) {
	t.Helper()
	s := tb.newStory(0)
	for range 2 { // what is found unused the first time goes the second
		if err := s.collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	out, errs, err := tb.Run(t.Context(), "gc", "--data", tb.Data, "--dry-run")
	if err != nil || !strings.HasPrefix(out, "Would remove 0 pieces of content (0 B), 0 files") {
		t.Errorf("after a collection: %v %s%s", err, out, errs)
	}
	if err := tb.Stop(); err != nil {
		t.Error(err)
	}
	tb.dangling(t)
}

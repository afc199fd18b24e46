// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// follower collects what Follow gives.
type follower struct {
	t     *testing.T
	given chan string
	ended chan error
	stop  context.CancelFunc
}

func follow(t *testing.T, l *audit.Log, q audit.Query) *follower {
	ctx, stop := context.WithCancel(context.Background())
	f := &follower{t: t, given: make(chan string, 1000), ended: make(chan error, 1), stop: stop}
	go func() {
		f.ended <- l.Follow(ctx, q, func(e audit.Entry) error { f.given <- e.Action; return nil })
	}()
	t.Cleanup(stop)
	return f
}

// gives expects exactly these actions next.
func (f *follower) gives(want ...string) {
	f.t.Helper()
	for _, action := range want {
		select {
		case got := <-f.given:
			if got != action {
				f.t.Errorf("given %q, want %q", got, action)
			}
		case err := <-f.ended:
			f.t.Fatalf("Follow ended with %v before it gave %q", err, action)
		case <-time.After(10 * time.Second):
			f.t.Fatalf("%q was not given within 10 s", action)
		}
	}
}

// ends stops the follower, and expects that this is no failure and that nothing was given beyond what was expected.
func (f *follower) ends() {
	f.t.Helper()
	f.stop()
	select {
	case err := <-f.ended:
		if err != nil {
			f.t.Errorf("Follow ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		f.t.Fatal("Follow goes on after its context ended")
	}
	for len(f.given) > 0 {
		f.t.Errorf("given beyond: %q", <-f.given)
	}
}

func decide(t *testing.T, l *audit.Log, actions ...string) {
	t.Helper()
	for _, a := range actions {
		if err := l.Decide(t.Context(), decision(a)); err != nil {
			t.Fatal(err)
		}
	}
}

// Follow gives what is there and then what comes, in order, each once, by any of the ways to record, until its context ends.
func TestFollow(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l := newLog(t, db, "n")
		empty := follow(t, l, audit.Query{})
		decide(t, l, "1", "2")
		empty.gives("1", "2")
		later := follow(t, l, audit.Query{})
		later.gives("1", "2")
		decide(t, l, "3")
		appendTo(t, db, l, decision("4"), decision("5"))
		l.Note(decision("6"))
		for _, f := range []*follower{empty, later} {
			f.gives("3", "4", "5", "6")
		}
		for n := range 200 {
			l.Note(decision(fmt.Sprint("note ", n)))
		}
		for _, f := range []*follower{empty, later} {
			for n := range 200 {
				f.gives(fmt.Sprint("note ", n))
			}
			f.ends()
		}
	})
}

// Follow keeps to its filter, ends with its reader's own error, and its limit holds for what was there only.
func TestFollowChooses(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l := newLog(t, db, "n")
		decide(t, l, "other", "pull", "other")
		f := follow(t, l, audit.Query{Action: "pull"})
		f.gives("pull")
		decide(t, l, "other", "PULL")
		f.gives("PULL")
		f.ends()
		own := errors.New("the reader hung up")
		if err := l.Follow(t.Context(), audit.Query{}, func(audit.Entry) error { return own }); !errors.Is(err, own) {
			t.Errorf("Follow ended with %v", err)
		}
		// All of one transaction, so of one instant.
		appendTo(t, db, l, decision("a"), decision("b"), decision("c"), decision("d"))
		f = follow(t, l, audit.Query{Limit: 2})
		f.gives("c", "d")
		decide(t, l, "e", "f", "g")
		f.gives("e", "f", "g")
		f.ends()
		// Behind a position nothing is left out.
		first := read(t, l, audit.Query{})[0].Position
		f = follow(t, l, audit.Query{After: &first, Limit: 2})
		f.gives("pull", "other", "other", "PULL", "a", "b", "c", "d", "e", "f", "g")
		f.ends()
	})
}

// Records of another process reach a follower too.
func TestFollowHearsOthers(t *testing.T) {
	t.Parallel() // it waits for a look at the database that comes every few seconds
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		l, other := newLog(t, open(), "n"), newLog(t, open(), "other")
		decide(t, l, "own")
		f := follow(t, l, audit.Query{})
		f.gives("own")
		decide(t, other, "others")
		f.gives("others")
		f.ends()
	})
}

// On PostgreSQL a change may begin first and commit last: its record is older than ones that were given, and is given all the same.
func TestFollowGivesLateCommits(t *testing.T) {
	for _, given := range []int{0, 2} {
		t.Run(fmt.Sprint(given), func(t *testing.T) {
			db := metatest.Open(t, metatest.URL(t, "postgres"))
			l := newLog(t, db, "n")
			early := slices.Repeat([]string{"early"}, given)
			decide(t, l, early...)
			begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				ended <- db.Write(context.Background(), func(tx *meta.Tx) error {
					close(begun)
					<-end
					return l.Append(tx, decision("late"))
				})
			}()
			<-begun
			decide(t, l, "quick")
			f := follow(t, l, audit.Query{Since: time.Now().Add(-time.Hour)})
			f.gives(append(early, "quick")...)
			chosen := follow(t, l, audit.Query{Until: time.Now().Add(time.Hour), Limit: given + 2})
			chosen.gives(append(early, "quick")...)
			close(end)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			f.gives("late")
			chosen.gives("late")
			f.ends()
			chosen.ends()
		})
	}
}

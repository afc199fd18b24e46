// SPDX-License-Identifier: Apache-2.0

// Package crash kills a real server with SIGKILL at random points under load, starts it again, and checks that everything it had
// acknowledged is there: every digest and every tag, read back and hashed, and no row of the database that leads nowhere.
package crash

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta/metatest"
)

const writers = 16

// kills is how often the server is killed on each kind of database.
func kills(t *testing.T) int {
	if v := os.Getenv("EMBARGO_CRASH_KILLS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("EMBARGO_CRASH_KILLS=%s is no number of kills", v)
		}
		return n
	}
	if testing.Short() {
		return 5
	}
	return 150
}

func TestKillUnderLoad(t *testing.T) {
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			in := install(t, kind)
			all := newLedger()
			rounds := kills(t)
			acknowledged := 0
			for round := range rounds {
				fresh := in.killUnderLoad(t, round)
				acknowledged += fresh.size()
				if t.Failed() {
					return
				}
				// Not each time: it is the server that recovers the database, as a rule.
				if round%5 == 4 {
					in.dangling(t)
				}
				in.Start()
				in.verify(t, fresh)
				all.add(fresh)
				if t.Failed() {
					t.Fatalf("after kill %d", round+1)
				}
			}
			in.verify(t, all)
			if err := in.Stop(); err != nil {
				t.Errorf("SIGTERM: the server ended with %v:\n%s", err, in.Log())
			}
			in.dangling(t)
			t.Logf("%d kills, %d acknowledged writes", rounds, acknowledged)
			if acknowledged < rounds {
				t.Errorf("only %d writes were acknowledged in %d rounds: there was no load", acknowledged, rounds)
			}
		})
	}
}

// killUnderLoad lets the writers write until a random number of their writes is acknowledged, kills the server a random moment later, and
// returns what was acknowledged.
func (in *installation) killUnderLoad(t *testing.T, round int) *ledger {
	l := newLedger()
	in.load(t, l, round, func() {
		// The moment of the kill within a write is what is random here.
		time.Sleep(time.Duration(rand.Int64N(int64(15 * time.Millisecond))))
		in.Kill()
		in.client.CloseIdleConnections()
	})
	return l
}

// load lets the writers write into the ledger until a random number of their writes is acknowledged; then calls end, and ends them.
func (in *installation) load(t *testing.T, l *ledger, round int, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	reached := l.when(1 + rand.IntN(6*writers))
	failed := make(chan struct{}, writers)
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			w := &writer{in: in, ledger: l, repo: "w" + strconv.Itoa(n%5), tag: "w" + strconv.Itoa(n), random: rand.New(rand.NewPCG(uint64(round), uint64(n)))}
			for ctx.Err() == nil {
				if err := w.push(ctx, round); err != nil {
					if refused(err) {
						t.Errorf("writer %d: %v", n, err)
						failed <- struct{}{}
					}
					return
				}
			}
		})
	}
	select {
	case <-reached:
	case <-failed:
	case <-in.Exited():
		t.Error("the server ended by itself")
	case <-time.After(time.Minute):
		t.Errorf("after a minute only %d writes were acknowledged", l.size())
	}
	end()
	cancel()
	wg.Wait()
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// steady is the server's clock: the machine's, but for its steps. When the machine's clock is set, to either side, steady goes on evenly and comes nearer to it by half
// the time that passes: it never goes back, so nothing that has expired is valid again, and it never jumps, so nothing valid expires at once.
type steady struct {
	wall func() time.Time
	// passed is the time since some moment, time asleep included, that nobody sets.
	passed func() time.Duration
	log    *slog.Logger

	mu      sync.Mutex
	last    time.Time
	at      time.Duration
	stepped bool
}

// evenly is how far the machine's clock may be from the steady one before that counts as a step.
const evenly = time.Second

func newSteady(wall func() time.Time, passed func() time.Duration, log *slog.Logger) *steady {
	return &steady{wall: wall, passed: passed, log: log, last: wall(), at: passed()}
}

// now is the time.
func (c *steady) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, wall := c.passed(), c.wall()
	gone := max(0, at-c.at) // sinceBoot may be nanoseconds off
	next := c.last.Add(gone)
	off := wall.Sub(next)
	switch stepped := off > evenly || off < -evenly; {
	case stepped && !c.stepped:
		c.stepped = true
		c.log.Warn("the machine's clock was set; this server's clock comes nearer to it slowly", "ahead", off.Round(time.Millisecond).String())
	case !stepped && c.stepped:
		c.stepped = false
		c.log.Info("this server's clock is the machine's again")
	}
	next = next.Add(max(-gone/2, min(gone/2, off)))
	c.last, c.at = next, c.at+gone
	return next
}

// sample is the time since the machine's start at a moment.
type sample struct {
	at   time.Time
	boot time.Duration
}

var lately atomic.Pointer[sample]

// fresh is for how long a sample is counted on from: the kernel is asked for the time asleep no more often.
const fresh = 10 * time.Millisecond

// sinceBoot is the time since the machine's start, time asleep included: within fresh of waking up it may be missing.
func sinceBoot() time.Duration {
	if s := lately.Load(); s != nil {
		if gone := time.Since(s.at); gone < fresh {
			return s.boot + gone
		}
	}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(loaded) // not reached on a kernel of this century
	}
	s := &sample{time.Now(), time.Duration(t.Nano())}
	lately.Store(s)
	return s.boot
}

var loaded = time.Now()

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"log/slog"
	"testing"
	"time"
)

// A clock that is set, to either side and by any amount, moves the server's clock neither back nor forward at once; it comes nearer by half the time that passes.
func TestSteadyClock(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		step  time.Duration
		after map[time.Duration]time.Duration // real time since the step: what the server's clock has gained on real time
	}{
		"none":           {0, map[time.Duration]time.Duration{time.Second: 0, time.Hour: 0}},
		"a little ahead": {500 * time.Millisecond, map[time.Duration]time.Duration{2 * time.Second: 500 * time.Millisecond, time.Hour: 500 * time.Millisecond}},
		"an hour ahead":  {time.Hour, map[time.Duration]time.Duration{time.Second: 500 * time.Millisecond, time.Hour: 30 * time.Minute, 3 * time.Hour: time.Hour}},
		"a year ahead":   {8760 * time.Hour, map[time.Duration]time.Duration{time.Minute: 30 * time.Second, 24 * time.Hour: 12 * time.Hour}},
		"an hour back":   {-time.Hour, map[time.Duration]time.Duration{time.Second: -500 * time.Millisecond, time.Hour: -30 * time.Minute, 3 * time.Hour: -time.Hour}},
		"a year back":    {-8760 * time.Hour, map[time.Duration]time.Duration{time.Minute: -30 * time.Second, 24 * time.Hour: -12 * time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			for after, gained := range c.after {
				var real time.Duration
				step := time.Duration(0)
				clock := newSteady(func() time.Time { return noon.Add(real + step) }, func() time.Duration { return 5*time.Hour + real }, slog.New(slog.DiscardHandler))
				real = time.Minute
				if got := clock.now(); !got.Equal(noon.Add(time.Minute)) {
					t.Fatalf("before the step it is %v", got)
				}
				step = c.step
				last := clock.now()
				if !last.Equal(noon.Add(time.Minute)) {
					t.Errorf("at the step it is %v", last)
				}
				for end := real + after; real < end; {
					real = min(end, real+max(after/1000, time.Millisecond))
					now := clock.now()
					if now.Before(last) {
						t.Fatalf("it went back from %v to %v", last, now)
					}
					last = now
				}
				if got := last.Sub(noon.Add(real)); (got - gained).Abs() > time.Millisecond {
					t.Errorf("%v after the step it has gained %v, want %v", after, got, gained)
				}
			}
		})
	}
}

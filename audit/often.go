// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"sync"
	"time"
)

const (
	// oftenPause is how long what happens again and again is counted before it is recorded.
	oftenPause = 10 * time.Second
	// oftenLimit is how many different things are counted at a time; more are recorded one by one.
	oftenLimit = 1 << 14
)

// again is something that was recorded, and how often it has happened since.
type again struct {
	Record
	count int64
}

// Often records for callers who say the same thing again and again, under a key of K that tells one thing from another: the first time at once, as Note does; what follows
// within ten seconds is one record, which tells how often it was (Count) and how many Bytes together. Close records what is counted. Make it with NewOften, for a Log.
type Often[K comparable] struct {
	l *Log

	mu    sync.Mutex
	known map[K]*again
}

// NewOften makes an Often of the log.
func NewOften[K comparable](l *Log) *Often[K] {
	o := &Often[K]{l: l, known: map[K]*again{}}
	l.often.Lock()
	defer l.often.Unlock()
	l.flushes = append(l.flushes, o.flush)
	return o
}

// Note counts what was said before, with its bytes, or makes its record.
func (o *Often[K]) Note(k K, bytes int64, record func() Record) {
	o.mu.Lock()
	a := o.known[k]
	if a != nil && !o.l.ending.Load() {
		a.count++
		a.Bytes += bytes
		o.mu.Unlock()
		return
	}
	r := record()
	if len(o.known) < oftenLimit && a == nil {
		o.known[k] = &again{Record: r}
		o.known[k].Bytes = 0
	}
	o.mu.Unlock()
	o.l.Note(r)
}

// flush records what was counted and forgets what did not happen again.
func (o *Often[K]) flush() (counted []Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, a := range o.known {
		if a.count == 0 {
			delete(o.known, k)
			continue
		}
		r := a.Record
		r.Count = a.count
		counted = append(counted, r)
		a.count, a.Bytes = 0, 0
	}
	return counted
}

// SPDX-License-Identifier: Apache-2.0

package meta

import "sync"

// bells wake, within this process, those who wait for a topic's news.
type bells struct {
	mu      sync.Mutex
	waiting map[chan struct{}]string
}

// Listen gives a channel that receives, at least once, after a transaction of this process that rang the topic has committed. leave ends it.
func (db *DB) Listen(topic string) (c <-chan struct{}, leave func()) {
	ch := make(chan struct{}, 1)
	b := &db.bells
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting == nil {
		b.waiting = map[chan struct{}]string{}
	}
	b.waiting[ch] = topic
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.waiting, ch)
	}
}

// Ring wakes the topic's listeners in this process once the transaction is durable.
func (tx *Tx) Ring(topic string) {
	tx.OnCommit(func() {
		b := &tx.db.bells
		b.mu.Lock()
		defer b.mu.Unlock()
		for c, t := range b.waiting {
			if t != topic {
				continue
			}
			select {
			case c <- struct{}{}:
			default: // it has not heard the last ring yet
			}
		}
	})
}

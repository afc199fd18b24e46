// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"sync/atomic"
	"time"
)

// Lease is this process's right to decide by what it knows. A sole writer always has it; with others about it lasts until its
// term, counted by the monotonic clock from before it was asked for, so that no step of the wall clock prolongs it.
type Lease struct {
	db    *DB
	node  string
	term  time.Duration
	until atomic.Pointer[time.Time]
}

// Register enters this node and takes its lease. The table's term is by the database's clock.
func (db *DB) Register(ctx context.Context, node string, term time.Duration) (*Lease, error) {
	l := &Lease{db: db, node: node, term: term}
	return l, l.Renew(ctx)
}

// Renew prolongs the lease. After a failure the lease ends at its old term.
func (l *Lease) Renew(ctx context.Context) error {
	// The process's clock, not Options.Clock: only it has a monotonic reading.
	asked := time.Now()
	err := l.db.Write(ctx, func(tx *Tx) error {
		now := `CAST(unixepoch('subsec') * 1000000 AS BIGINT)`
		if tx.Postgres() {
			now = `CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)`
		}
		_, err := tx.Exec(`INSERT INTO nodes (id, lease_until, epoch_seen) VALUES ($1, `+now+` + $2, 0)
 ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until`, l.node, l.term.Microseconds())
		return err
	})
	if err == nil {
		until := asked.Add(l.term)
		l.until.Store(&until)
	}
	return err
}

// Valid reports whether the node may decide now.
func (l *Lease) Valid() bool {
	if l.db.SoleWriter() {
		return true
	}
	until := l.until.Load()
	return until != nil && time.Now().Before(*until)
}

// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"fmt"
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

// Register enters this node and takes its lease. It fails while another node of the same database has a valid one: a policy change must stop
// the readers of every node before it is answered, and this version tells only its own.
func (db *DB) Register(ctx context.Context, node string, term time.Duration) (*Lease, error) {
	l := &Lease{db: db, node: node, term: term}
	return l, l.Renew(ctx)
}

// Clock is the clock by which processes that share the database compare times, in microseconds, as the parameter $n of a query: an SQL expression, and the parameter's
// value. On PostgreSQL it is the server's; on SQLite there is one process, and it is that one's.
func (tx *Tx) Clock(n int) (expr string, value any) {
	if tx.Postgres() {
		return fmt.Sprintf(`COALESCE(CAST($%d AS BIGINT), CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT))`, n), nil
	}
	return fmt.Sprintf("$%d", n), Micros(tx.now)
}

// Renew prolongs the lease, by the database's clock. After a failure the lease ends at its old term.
func (l *Lease) Renew(ctx context.Context) error {
	// The process's clock, not Options.Clock: only it has a monotonic reading.
	asked := time.Now()
	err := l.db.Write(ctx, func(tx *Tx) error {
		if err := l.alone(tx); err != nil {
			return err
		}
		now, value := tx.Clock(3)
		_, err := tx.Exec(`INSERT INTO nodes (id, lease_until, epoch_seen) VALUES ($1, `+now+` + $2, 0)
 ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until`, l.node, l.term.Microseconds(), value)
		return err
	})
	if err == nil {
		until := asked.Add(l.term)
		l.until.Store(&until)
	}
	return err
}

// alone refuses while another node's lease lasts. SQLite needs no such rule: its file is locked by one process (Options.Sole).
func (l *Lease) alone(tx *Tx) error {
	if !tx.Postgres() {
		return nil
	}
	if _, err := tx.Exec(`LOCK TABLE nodes IN EXCLUSIVE MODE`); err != nil {
		return err
	}
	var others int64
	now, value := tx.Clock(2)
	if err := tx.Row(`SELECT COUNT(*) FROM nodes WHERE id <> $1 AND lease_until > `+now, l.node, value).Scan(&others); err != nil {
		return err
	}
	if others > 0 {
		return fmt.Errorf("another embargo is running on this database: several nodes on one database are not supported. Stop it; if it was killed, its lease ends within %v", l.term)
	}
	return nil
}

// Release gives the lease up, so that another node can start at once.
func (l *Lease) Release(ctx context.Context) error {
	l.until.Store(nil)
	return l.db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`UPDATE nodes SET lease_until = 0 WHERE id = $1`, l.node)
		return err
	})
}

// Valid reports whether the node may decide now.
func (l *Lease) Valid() bool {
	if l.db.SoleWriter() {
		return true
	}
	until := l.until.Load()
	return until != nil && time.Now().Before(*until)
}

// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// tries is how often a transaction that PostgreSQL could not order is run at the most.
const tries = 12

// CheckURL finds out whether a database's URL can be read; nothing is opened.
func CheckURL(url string) error {
	switch scheme, _, _ := strings.Cut(url, ":"); scheme {
	case "postgres", "postgresql":
		if _, err := pgx.ParseConfig(url); err != nil {
			return fmt.Errorf("the database URL %s: %w", redact(url), err)
		}
	}
	return nil
}

func (db *DB) openPostgres(o Options) error {
	if o.Dial == nil {
		return errors.New("meta: PostgreSQL needs Options.Dial")
	}
	cfg, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return fmt.Errorf("the database URL %s: %w", redact(o.URL), err)
	}
	cfg.DialFunc = pgconn.DialFunc(o.Dial)
	// The name is resolved by the dialer, which judges the address that it connects to.
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	db.postgres = true
	db.pool = stdlib.OpenDB(*cfg)
	n := o.Connections
	if n == 0 {
		n = 16
	}
	db.pool.SetMaxOpenConns(n)
	db.pool.SetMaxIdleConns(n)
	return nil
}

func (db *DB) readPostgres(ctx context.Context, fn func(tx *Tx) error) error {
	t, err := db.pool.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return err
	}
	tx := &Tx{ctx: ctx, db: db, pg: t, now: db.now(), readOnly: true}
	err = guard(func() error { return fn(tx) })
	return errors.Join(err, ended(t.Rollback()))
}

// writePostgres runs fn at READ COMMITTED: writers that exclude each other lock the row of their root resource first (Tx.Lock) and so see,
// after the wait, what the other committed; a snapshot taken before the wait would not show it. What PostgreSQL can't order (a
// deadlock) is run again.
func (db *DB) writePostgres(ctx context.Context, fn func(tx *Tx) error) error {
	if !db.writes.TryRLock() {
		return errClosed
	}
	defer db.writes.RUnlock()
	var err error
	for try := range tries {
		if try > 0 {
			pause := time.NewTimer(time.Duration(rand.Int64N(int64(5*time.Millisecond) << min(try, 6))))
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return errors.Join(err, ctx.Err())
			}
		}
		if err = db.oncePostgres(ctx, fn); !disorder(err) {
			return err
		}
		db.log.Debug("the transaction is run again", "err", err)
	}
	return err
}

func (db *DB) oncePostgres(ctx context.Context, fn func(tx *Tx) error) error {
	// As on SQLite, a transaction that has begun goes on to its end although the client hangs up.
	ctx = context.WithoutCancel(ctx)
	t, err := db.pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	tx := &Tx{ctx: ctx, db: db, pg: t, now: db.now()}
	if err := guard(func() error { return fn(tx) }); err != nil {
		return errors.Join(err, ended(t.Rollback()))
	}
	if err := t.Commit(); err != nil {
		return err
	}
	tx.committed()
	return nil
}

// disorder: serialization failure or deadlock; running the transaction again may succeed.
func disorder(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}

// ended passes over what closing an already finished transaction says.
func ended(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

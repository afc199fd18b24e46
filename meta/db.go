// SPDX-License-Identifier: Apache-2.0

// Package meta is the SQL database: transactions, schema, the registry's projection row, and secrets sealed by the installation
// key. It hides whether SQLite or PostgreSQL is below: one SQL text serves both.
//
// It promises that a Write which returned nil survives a power cut, and that a Read sees one instant. It refuses a database of
// a newer schema, and a SQLite file that is not its own.
package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// ErrNotFound is what Scan answers when a query of one row found none.
var ErrNotFound = sql.ErrNoRows

// DialFunc makes an outbound connection; the room dial hands it out.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Options configure a DB.
type Options struct {
	// URL is sqlite:<path> or postgres://user@host:port/database.
	URL string
	// Clock is the time of transactions; nil is time.Now.
	Clock func() time.Time
	// Log gets migrations and retries; nil discards.
	Log *slog.Logger
	// Dial connects to PostgreSQL. It is required there and unused for SQLite.
	Dial DialFunc
	// Connections is the size of PostgreSQL's pool; 0 is 16.
	Connections int
	// Watch hears of each Read ("read") and Write ("write"): how long it took, and whether it failed; nil: nobody listens. It returns at once.
	Watch func(op string, took time.Duration, failed bool)

	// Sole takes a lock on SQLite's file, so that no other DB that is Sole opens it meanwhile, by whatever name. PostgreSQL has leases for that (Register).
	Sole bool
	// Alone says that no other process, and no other DB, writes this database while it is open, and implies Sole: what was read is remembered until it is written. PostgreSQL is
	// never alone.
	Alone bool

	schema int64 // the version to migrate to; 0 is the newest
}

// DB is the database. It is safe for concurrent use.
type DB struct {
	postgres bool
	clock    func() time.Time
	log      *slog.Logger
	pool     *sql.DB
	bells    bells
	watch    func(op string, took time.Duration, failed bool)
	// meanings are what texts of registries' rows mean, by the registry's id.
	meanings *lru.Cache[string, *meaning]

	// PostgreSQL's own: a write holds writes for reading; Close takes it once, for good.
	writes  sync.RWMutex
	closing sync.Once

	// SQLite's own: readers is a stock of connections, group the one writer.
	readers chan *conn
	group   *group
	memory  *memory
	lock    *os.File // the database's file while it is locked
}

// Open connects and migrates. The caller closes the DB.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Watch == nil {
		o.Watch = func(string, time.Duration, bool) {}
	}
	db := &DB{clock: o.Clock, log: o.Log, watch: o.Watch}
	var err error
	if db.meanings, err = lru.New[string, *meaning](meanings); err != nil {
		return nil, err
	}
	switch scheme, rest, _ := strings.Cut(o.URL, ":"); scheme {
	case "sqlite":
		err = db.openSQLite(ctx, strings.TrimPrefix(rest, "//"), o.Sole || o.Alone)
	case "postgres", "postgresql":
		err = db.openPostgres(o)
	default:
		return nil, fmt.Errorf("the database %q is neither sqlite:<path> nor postgres://…", redact(o.URL))
	}
	if err == nil {
		err = db.migrate(ctx, o.schema)
	}
	if err == nil && db.postgres && o.schema == 0 {
		err = db.index(ctx)
	}
	if err == nil && o.Alone && !db.postgres {
		err = db.remember(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// remember begins to remember what is read.
func (db *DB) remember(ctx context.Context) error {
	return db.Read(ctx, func(tx *Tx) error {
		var tables []string
		err := tx.strings(`SELECT name FROM sqlite_master WHERE type = 'table'`, &tables)
		if err == nil {
			db.memory, err = newMemory(tables)
		}
		return err
	})
}

// ShownURL is a database's URL as it may be shown: without user, password and options.
func ShownURL(url string) string { return redact(url) }

// redact keeps what may be a password out of messages: the part before the last @, and the options.
func redact(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	rest, _, _ = strings.Cut(rest, "?")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = "…" + rest[at:]
	}
	return scheme + "://" + rest
}

// Close waits for what is under way and closes the database. On SQLite all is then in the one file: nothing is left in its log.
func (db *DB) Close() (err error) {
	if db.group != nil {
		db.group.close()
	}
	db.closing.Do(func() {
		if db.pool != nil {
			db.writes.Lock()
			err = errors.Join(db.closeConns(), db.pool.Close())
		}
		if db.lock != nil { // last: closing any descriptor of the file takes SQLite's own locks away
			err = errors.Join(err, db.lock.Close())
		}
	})
	return err
}

// Postgres reports whether the database is PostgreSQL.
func (db *DB) Postgres() bool { return db.postgres }

// SoleWriter reports whether no other process can write the database: true for SQLite, whose file is locked (Options.Sole).
func (db *DB) SoleWriter() bool { return !db.postgres }

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	return db.Read(ctx, func(tx *Tx) error {
		var one int
		return tx.Row(`SELECT 1`).Scan(&one)
	})
}

// Read runs fn in a read-only transaction that sees one instant. fn may run twice, so it sets outside state and does not add to it.
func (db *DB) Read(ctx context.Context, fn func(tx *Tx) error) error {
	if db.postgres {
		return db.watched("read", fn, func(fn func(tx *Tx) error) error { return db.readPostgres(ctx, fn) })
	}
	return db.watched("read", fn, func(fn func(tx *Tx) error) error { return db.readSQLite(ctx, fn) })
}

// watched tells how long a transaction took, and whether the database failed: what fn itself refuses is no failure of it.
func (db *DB) watched(op string, fn func(tx *Tx) error, run func(fn func(tx *Tx) error) error) error {
	began := time.Now()
	var own error
	err := run(func(tx *Tx) error {
		own = fn(tx)
		return own
	})
	db.watch(op, time.Since(began), err != nil && own == nil)
	return named(err)
}

// Stats are the figures of the pool of connections.
func (db *DB) Stats() sql.DBStats { return db.pool.Stats() }

// Write runs fn in a transaction and returns nil when it is durable. fn may run more than once, so it sets outside state and does not
// add to it; it does no I/O of its own. An error, or a panic, of fn rolls back what fn did and nothing else. Errors: fn's own; StorageFull when the database's disk is full.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	if db.group != nil {
		return db.watched("write", fn, func(fn func(tx *Tx) error) error { return db.group.write(ctx, fn) })
	}
	return db.watched("write", fn, func(fn func(tx *Tx) error) error { return db.writePostgres(ctx, fn) })
}

// now has the precision that the database keeps.
func (db *DB) now() time.Time { return db.clock().UTC().Truncate(time.Microsecond) }

// guard turns a panic of a closure into an error, so that one request does not take the writer with it.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("meta: panic in a transaction: %v", p)
		}
	}()
	return fn()
}

// Micros is the database's form of a time: microseconds since 1970, UTC; the zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// FromMicros is the time of Micros, in UTC.
func FromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

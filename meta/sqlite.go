// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// applicationID marks a SQLite file as Embargo's ("EMBG"), so that no other program's database is taken for one.
const applicationID = 0x454d4247

// groupLimit is how many writes share one commit at the most.
const groupLimit = 256

// conn is one SQLite connection with its prepared statements.
type conn struct {
	c     *sql.Conn
	texts map[string]*sql.Stmt
}

// statement is the prepared form of query on this connection.
func (c *conn) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := c.texts[query]; ok {
		return s, nil
	}
	s, err := c.c.PrepareContext(context.WithoutCancel(ctx), query)
	if err == nil {
		c.texts[query] = s
	}
	return s, err
}

func (c *conn) run(query string) error {
	s, err := c.statement(context.Background(), query)
	if err == nil {
		_, err = s.ExecContext(context.Background())
	}
	return err
}

// openSQLite opens one writing connection and a stock of reading ones; sole locks the file first.
func (db *DB) openSQLite(ctx context.Context, path string, sole bool) error {
	if path == "" {
		return errors.New("the database sqlite: needs the path of a file")
	}
	dsn := fileDSN(path) + "&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)"
	// The file is the owner's alone; SQLite gives its companions (-wal, -shm) the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("the SQLite database %s can't be opened for writing: %w", path, err)
	}
	if sole {
		db.lock = f
		err = flock(f)
	} else {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	if err := mark(ctx, path); err != nil {
		return err
	}
	pool, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	db.pool = pool
	readers := max(4, 2*runtime.GOMAXPROCS(0))
	pool.SetMaxOpenConns(readers + 2) // the readers, the writer, and one for migrations
	stock := func() (*conn, error) {
		c, err := pool.Conn(ctx)
		if err != nil {
			return nil, fmt.Errorf("opening the SQLite database %s: %w", path, err)
		}
		return &conn{c: c, texts: map[string]*sql.Stmt{}}, nil
	}
	db.readers = make(chan *conn, readers)
	for range readers {
		c, err := stock()
		if err == nil {
			err = c.run(`PRAGMA query_only = 1`) // a Read that writes must fail, as it does on PostgreSQL
		}
		if err != nil {
			return err
		}
		db.readers <- c
	}
	writer, err := stock()
	if err != nil {
		return err
	}
	db.group = newGroup(db, writer)
	return nil
}

// flock takes the database's file for this DB. Its own locks are SQLite's, of another kind; this one lasts until the file is closed.
func flock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return fmt.Errorf("the SQLite database %s is in use by another embargo: stop that one first, or give this one another --database", f.Name())
	case err != nil:
		return fmt.Errorf("the SQLite database %s could not be locked: %w", f.Name(), err)
	}
	return nil
}

// closeConns closes the connections that the pool has lent for good; the last one to go moves SQLite's log into the file.
func (db *DB) closeConns() error {
	if db.group == nil {
		return nil
	}
	errs := []error{db.group.conn.close()}
	for range cap(db.readers) {
		errs = append(errs, (<-db.readers).close())
	}
	close(db.readers) // all are back, so nobody sends
	return errors.Join(errs...)
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.texts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.c.Close())...)
}

func fileDSN(path string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)"
}

// mark checks that the file is Embargo's, or new and then marks it. Its connection is its own: one that sets the journal mode would change a file
// that is refused.
func mark(ctx context.Context, path string) (err error) {
	pool, err := sql.Open("sqlite", fileDSN(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	var id, tables int64
	err = pool.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id)
	if err == nil {
		err = pool.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master`).Scan(&tables)
	}
	switch {
	case err != nil:
		return fmt.Errorf("the SQLite database %s can't be opened for writing: %w", path, err)
	case id == applicationID:
		return nil
	case id != 0 || tables > 0:
		return fmt.Errorf("the file %s is a SQLite database of another program (application id %#x, %d tables): choose another path", path, id, tables)
	}
	if _, err := pool.ExecContext(ctx, `PRAGMA application_id = `+strconv.Itoa(applicationID)); err != nil {
		return fmt.Errorf("the SQLite database %s can't be written: %w", path, err)
	}
	return nil
}

func (db *DB) readSQLite(ctx context.Context, fn func(tx *Tx) error) error {
	tx := &Tx{ctx: ctx, db: db, now: db.now(), readOnly: true}
	if db.memory != nil {
		tx.mind = &session{m: db.memory}
	}
	err := tx.read(fn)
	if tx.moved || tx.mind != nil && tx.sq == nil && !tx.mind.holds() {
		return (&Tx{ctx: ctx, db: db, now: db.now(), readOnly: true}).read(fn)
	}
	return err
}

// read runs fn in a read transaction, which begins with the first statement that isn't answered from memory.
func (tx *Tx) read(fn func(tx *Tx) error) error {
	err := guard(func() error { return fn(tx) })
	if tx.sq == nil {
		return err
	}
	err = errors.Join(err, tx.sq.run(`ROLLBACK`))
	tx.db.readers <- tx.sq
	return err
}

// open begins a read transaction, if it has not begun.
func (tx *Tx) open() error {
	if tx.sq != nil {
		return nil
	}
	var c *conn
	var ok bool
	select {
	case c, ok = <-tx.db.readers:
		if !ok {
			return errClosed
		}
	case <-tx.ctx.Done():
		return tx.ctx.Err()
	}
	if err := c.run(`BEGIN`); err != nil {
		tx.db.readers <- c
		return err
	}
	tx.sq = c
	if tx.mind == nil {
		return nil
	}
	tx.mind.note()
	if len(tx.mind.used) == 0 {
		return nil
	}
	// The first statement takes the snapshot; what was served before must be of it.
	if err := c.run(`SELECT 1 FROM goose_db_version LIMIT 1`); err != nil {
		return err
	}
	if !tx.mind.holds() {
		tx.moved = true
		return errMoved
	}
	return nil
}

// group is the one writer. It takes what waits, runs each closure in a savepoint of its own, commits once, and then answers all.
type group struct {
	db   *DB
	conn *conn
	in   chan *wish
	done chan struct{}

	mu     sync.RWMutex
	closed bool
}

type wish struct {
	ctx context.Context
	fn  func(tx *Tx) error
	tx  *Tx
	err chan error
}

var errClosed = errors.New("meta: the database is closed")

func newGroup(db *DB, c *conn) *group {
	g := &group{db: db, conn: c, in: make(chan *wish, groupLimit), done: make(chan struct{})}
	go g.loop()
	return g
}

func (g *group) write(ctx context.Context, fn func(tx *Tx) error) error {
	w := &wish{ctx: ctx, fn: fn, err: make(chan error, 1)}
	g.mu.RLock()
	if g.closed {
		g.mu.RUnlock()
		return errClosed
	}
	select {
	case g.in <- w:
		g.mu.RUnlock()
	case <-ctx.Done():
		g.mu.RUnlock()
		return ctx.Err()
	}
	// Once the writer has it, only the writer knows how it ends: an answer must not say "failed" of what was committed.
	return <-w.err
}

func (g *group) close() {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		close(g.in)
	}
	g.mu.Unlock()
	<-g.done
}

func (g *group) loop() {
	defer close(g.done)
	for first := range g.in {
		batch := []*wish{first}
	more:
		for len(batch) < groupLimit {
			select {
			case w, ok := <-g.in:
				if !ok {
					break more
				}
				batch = append(batch, w)
			default:
				break more
			}
		}
		g.commit(batch)
	}
}

// commit runs a batch in one transaction. A closure's failure undoes that closure; a failure of the transaction fails them all.
func (g *group) commit(batch []*wish) {
	if err := g.conn.run(`BEGIN IMMEDIATE`); err != nil {
		for _, w := range batch {
			w.err <- err
		}
		return
	}
	var kept []*wish
	var broken error
	for _, w := range batch {
		if broken != nil {
			w.err <- broken
			continue
		}
		own, lost := g.one(w)
		switch {
		case lost != nil:
			broken = lost
			w.err <- errors.Join(own, lost)
		case own != nil:
			w.err <- own
		default:
			kept = append(kept, w)
		}
	}
	if broken == nil {
		g.turn(kept)
		broken = g.conn.run(`COMMIT`)
		g.turn(kept)
	}
	if broken != nil {
		// The transaction may be gone already (a full disk ends it): then there is nothing to roll back.
		_ = g.conn.run(`ROLLBACK`)
	}
	for _, w := range kept {
		if broken == nil {
			w.tx.committed()
		}
		w.err <- broken
	}
}

// turn tells the memory that what the writes have written is being committed, and then that it is no longer.
func (g *group) turn(kept []*wish) {
	if g.db.memory == nil {
		return
	}
	var wrote tableSet
	for _, w := range kept {
		wrote = wrote.or(w.tx.wrote)
	}
	g.db.memory.turn(wrote)
}

// one runs a closure in a savepoint. lost says that the whole transaction can't go on.
func (g *group) one(w *wish) (own, lost error) {
	if err := w.ctx.Err(); err != nil {
		return err, nil
	}
	if err := g.conn.run(`SAVEPOINT w`); err != nil {
		return nil, err
	}
	// A cancelled statement would roll the whole transaction back, others' work included: a closure that has begun goes on to its end.
	w.tx = &Tx{ctx: context.WithoutCancel(w.ctx), db: g.db, sq: g.conn, now: g.db.now()}
	own = guard(func() error { return w.fn(w.tx) })
	if own != nil {
		lost = g.conn.run(`ROLLBACK TO w`)
	}
	if lost == nil {
		lost = g.conn.run(`RELEASE w`)
	}
	return own, lost
}

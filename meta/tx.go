// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"time"
)

// Tx is a transaction. It serves one goroutine and only within the closure that it was given to.
type Tx struct {
	ctx      context.Context
	db       *DB
	sq       *conn   // on SQLite
	pg       *sql.Tx // on PostgreSQL
	now      time.Time
	readOnly bool
	onCommit []func()
	// wrote are the tables that the transaction may have written; mind is its part of the memory, nil where it has none.
	wrote tableSet
	mind  *session
	moved bool // what it was told from memory was not of its snapshot
}

// Now is the transaction's instant, UTC, in whole microseconds.
func (tx *Tx) Now() time.Time { return tx.now }

// Context is the context of the transaction.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Postgres reports whether the database is PostgreSQL.
func (tx *Tx) Postgres() bool { return tx.db.postgres }

// ReadOnly reports whether the transaction only reads.
func (tx *Tx) ReadOnly() bool { return tx.readOnly }

// Exec runs a statement and returns the number of rows it changed. It refuses texts as Row and Query do, that no database of the two kinds keeps. Errors: BadRequest.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	if err := keepable(args); err != nil {
		return 0, err
	}
	return tx.exec(query, args...)
}

// exec is Exec with whatever texts there are.
func (tx *Tx) exec(query string, args ...any) (int64, error) {
	var r sql.Result
	var err error
	if tx.pg != nil {
		r, err = tx.pg.ExecContext(tx.ctx, query, args...)
	} else {
		var s *sql.Stmt
		if s, err = tx.statement(query); err != nil {
			return 0, err
		}
		r, err = s.ExecContext(tx.ctx, args...)
	}
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// statement prepares a statement on the transaction's SQLite connection and notes what it may write.
func (tx *Tx) statement(query string) (*sql.Stmt, error) {
	if m := tx.db.memory; m != nil && !tx.readOnly {
		if t := m.text(query); t.writes {
			tx.wrote = tx.wrote.or(t.tables)
		}
	}
	if err := tx.open(); err != nil {
		return nil, err
	}
	return tx.sq.statement(tx.ctx, query)
}

// Row runs a query of one row.
func (tx *Tx) Row(query string, args ...any) *Row {
	if tx.mind != nil {
		rows, err := tx.Query(query, args...)
		return &Row{rows: rows, err: err}
	}
	if err := keepable(args); err != nil {
		return &Row{err: err}
	}
	if tx.pg != nil {
		return &Row{row: tx.pg.QueryRowContext(tx.ctx, query, args...)}
	}
	s, err := tx.statement(query)
	if err != nil {
		return &Row{err: err}
	}
	return &Row{row: s.QueryRowContext(tx.ctx, args...)}
}

// Query runs a query of many rows.
func (tx *Tx) Query(query string, args ...any) (*Rows, error) {
	if err := keepable(args); err != nil {
		return nil, err
	}
	if tx.pg != nil {
		rows, err := tx.pg.QueryContext(tx.ctx, query, args...)
		return &Rows{rows: rows}, err
	}
	var t *text
	var room [256]byte
	var key []byte
	if tx.mind != nil {
		var ok bool
		if key, ok = appendArgs(room[:0], args); ok {
			if t = tx.mind.m.text(query); len(t.bits) == 0 {
				t = nil // it tells of no table: of the database itself, say
			} else if a := tx.mind.recall(t, key); a != nil {
				return &Rows{rest: a.rows, from: a}, nil
			}
		}
	}
	s, err := tx.statement(query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(tx.ctx, args...)
	if err != nil || t == nil {
		return &Rows{rows: rows}, err
	}
	columns, err := rows.Columns()
	if err != nil {
		return nil, errors.Join(err, rows.Close())
	}
	return &Rows{rows: rows, keep: &keeping{session: tx.mind, text: t, args: bytes.Clone(key), columns: len(columns)}}, nil
}

// Lock reads one row as Row does and, on PostgreSQL, keeps others from changing it until the transaction ends. On SQLite the writer is alone
// anyway. The query is a plain SELECT without a trailing clause of its own.
func (tx *Tx) Lock(query string, args ...any) *Row {
	if tx.db.postgres && !tx.readOnly {
		query += " FOR UPDATE"
	}
	return tx.Row(query, args...)
}

// Keep reads one row as Lock does, but keeps others only from deleting it: they may keep and change it too.
func (tx *Tx) Keep(query string, args ...any) *Row {
	if tx.db.postgres && !tx.readOnly {
		query += " FOR KEY SHARE"
	}
	return tx.Row(query, args...)
}

// OnCommit runs f once the transaction is durable, before Write returns. f does no work of its own length: it wakes somebody.
func (tx *Tx) OnCommit(f func()) { tx.onCommit = append(tx.onCommit, f) }

func (tx *Tx) committed() {
	for _, f := range tx.onCommit {
		f()
	}
}

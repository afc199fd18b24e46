// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"database/sql"
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
}

// Row is the answer of a query of one row.
type Row struct {
	row *sql.Row
	err error
}

// Rows is the answer of a query; close it.
type Rows = sql.Rows

// Now is the transaction's instant, UTC, in whole microseconds.
func (tx *Tx) Now() time.Time { return tx.now }

// Context is the context of the transaction.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Postgres reports whether the database is PostgreSQL.
func (tx *Tx) Postgres() bool { return tx.db.postgres }

// ReadOnly reports whether the transaction only reads.
func (tx *Tx) ReadOnly() bool { return tx.readOnly }

// Exec runs a statement and returns the number of rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	var r sql.Result
	var err error
	if tx.pg != nil {
		r, err = tx.pg.ExecContext(tx.ctx, query, args...)
	} else {
		var s *sql.Stmt
		if s, err = tx.sq.statement(tx.ctx, query); err != nil {
			return 0, err
		}
		r, err = s.ExecContext(tx.ctx, args...)
	}
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Row runs a query of one row.
func (tx *Tx) Row(query string, args ...any) *Row {
	if tx.pg != nil {
		return &Row{row: tx.pg.QueryRowContext(tx.ctx, query, args...)}
	}
	s, err := tx.sq.statement(tx.ctx, query)
	if err != nil {
		return &Row{err: err}
	}
	return &Row{row: s.QueryRowContext(tx.ctx, args...)}
}

// Scan reads the row's columns; ErrNotFound when there is none.
func (r *Row) Scan(into ...any) error {
	if r.err != nil {
		return r.err
	}
	return r.row.Scan(into...)
}

// Query runs a query of many rows.
func (tx *Tx) Query(query string, args ...any) (*Rows, error) {
	if tx.pg != nil {
		return tx.pg.QueryContext(tx.ctx, query, args...)
	}
	s, err := tx.sq.statement(tx.ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(tx.ctx, args...)
}

// Lock reads one row as Row does and, on PostgreSQL, keeps others from changing it until the transaction ends. On SQLite the writer is alone
// anyway. The query is a plain SELECT without a trailing clause of its own.
func (tx *Tx) Lock(query string, args ...any) *Row {
	if tx.db.postgres && !tx.readOnly {
		query += " FOR UPDATE"
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

// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"database/sql"
	"errors"
)

// Row is the answer of a query of one row.
type Row struct {
	row  *sql.Row
	rows *Rows // instead of row, in a transaction with memory
	err  error
}

// Scan reads the row's columns; ErrNotFound when there is none.
func (r *Row) Scan(into ...any) error {
	switch {
	case r.err != nil:
		return r.err
	case r.row != nil:
		return r.row.Scan(into...)
	}
	if !r.rows.Next() {
		if err := errors.Join(r.rows.Err(), r.rows.Close()); err != nil {
			return err
		}
		return ErrNotFound
	}
	err := r.rows.Scan(into...)
	for r.rows.keep != nil && r.rows.Next() { // an answer is remembered when its end was seen
	}
	return errors.Join(err, r.rows.Err(), r.rows.Close())
}

func assignAll(into, values []any) error {
	if len(into) != len(values) {
		return errors.New("meta: as many variables as columns are needed")
	}
	for i := range into {
		if err := assign(into[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

// Rows is the answer of a query; close it.
type Rows struct {
	rows *sql.Rows // nil when the answer is remembered
	at   []any     // the row that Next came to, where rows are read one by one into memory
	rest [][]any   // of a remembered answer
	from *answer   // that one
	keep *keeping
	err  error
}

// keeping gathers the rows of an answer while they are read.
type keeping struct {
	session *session
	text    *text
	args    []byte
	columns int
	rows    [][]any
	weight  int
}

// Next goes to the next row; false is the end, or a failure: see Err.
func (r *Rows) Next() bool {
	if r.rows == nil {
		if len(r.rest) == 0 {
			return false
		}
		r.at, r.rest = r.rest[0], r.rest[1:]
		return true
	}
	more := r.rows.Next()
	r.at = nil
	if r.keep == nil {
		return more
	}
	if !more {
		if r.rows.Err() == nil {
			r.keep.session.learn(r.keep.text, r.keep.args, r.keep.rows, r.keep.weight)
		}
		r.keep = nil
		return false
	}
	r.err = r.take()
	return r.err == nil
}

// take reads the row that Next came to, and gives up gathering when it gets too much.
func (r *Rows) take() error {
	k := r.keep
	row := make([]any, k.columns)
	pointers := make([]any, k.columns)
	for i := range row {
		pointers[i] = &row[i]
	}
	if err := r.rows.Scan(pointers...); err != nil {
		r.keep = nil
		return err
	}
	r.at = row
	k.rows = append(k.rows, row)
	k.weight += weigh(row)
	if len(k.rows) > answerRows || k.weight > answerBytes {
		r.keep = nil
	}
	return nil
}

// Scan reads the columns of the row that Next came to.
func (r *Rows) Scan(into ...any) error {
	if r.at != nil {
		return assignAll(into, r.at)
	}
	if r.rows == nil {
		return errors.New("meta: Scan without Next")
	}
	return r.rows.Scan(into...)
}

// Err is why Next ended early, if it did.
func (r *Rows) Err() error {
	if r.rows == nil || r.err != nil {
		return r.err
	}
	return r.rows.Err()
}

// Close ends the reading. Calling it again is harmless.
func (r *Rows) Close() error {
	if r.rows == nil {
		return nil
	}
	return r.rows.Close()
}

// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A copy of the database is its tables, each with the names and kinds of its columns and its rows in the order of the primary key. It is the same whichever
// database it was taken from, and either takes it.

// Table is the head of a table of a copy.
type Table struct {
	Name    string   `json:"table"`
	Columns []Column `json:"columns"`
}

// Column is a column with its kind: text, integer, boolean or bytes.
type Column struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
}

// notCopied are tables that belong to a running process or to the database itself.
var notCopied = []string{"goose_db_version", "nodes", "uploads"}

// Snapshot hands over a copy: for each table its head, then its rows. A row's values are string, int64, bool or []byte by the kinds of the columns, and are
// valid until the call returns. All is read in one transaction, so it is one instant's; before is asked first whether it may be, also reads what else must be of that
// instant. It returns the schema's version.
func (db *DB) Snapshot(ctx context.Context, before func(tx *Tx) error, head func(t Table) error, row func(values []any) error, also func(tx *Tx) error) (schema int64, err error) {
	err = db.Read(ctx, func(tx *Tx) error {
		tx.mind = nil // all is read once
		if err := before(tx); err != nil {
			return err
		}
		if err := tx.Row(`SELECT MAX(version_id) FROM goose_db_version`).Scan(&schema); err != nil {
			return err
		}
		tables, err := tx.tables()
		if err != nil {
			return err
		}
		for _, name := range tables {
			if err := tx.snapshot(name, head, row); err != nil {
				return fmt.Errorf("copying the table %s: %w", name, err)
			}
		}
		return also(tx)
	})
	return schema, err
}

func (tx *Tx) tables() ([]string, error) {
	query := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
	if tx.Postgres() {
		query = `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`
	}
	var names []string
	err := tx.strings(query, &names)
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(notCopied, n) })
	slices.Sort(names)
	return names, err
}

func (tx *Tx) strings(query string, into *[]string, args ...any) error {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return err
		}
		*into = append(*into, s)
	}
	return rows.Err()
}

// primaryKey are the columns by which a table's rows have one order on both databases.
func (tx *Tx) primaryKey(table string) ([]string, error) {
	var names []string
	if tx.Postgres() {
		return names, tx.strings(`SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
 WHERE i.indrelid = CAST($1 AS regclass) AND i.indisprimary ORDER BY array_position(i.indkey, a.attnum)`, &names, table)
	}
	return names, tx.strings(`SELECT name FROM pragma_table_info($1) WHERE pk > 0 ORDER BY pk`, &names, table)
}

// ordered is a column in byte order, which SQLite has anyway.
func ordered(tx *Tx, c Column) string {
	if tx.Postgres() && c.Kind == "text" {
		return c.Name + ` COLLATE "C"`
	}
	return c.Name
}

func (tx *Tx) snapshot(name string, head func(t Table) error, row func(values []any) error) error {
	t, err := tx.table(name)
	if err != nil {
		return err
	}
	if err := head(t); err != nil {
		return err
	}
	key, err := tx.primaryKey(name)
	if err != nil || len(key) == 0 {
		return errors.Join(err, errors.New("it has no primary key"))
	}
	var by, columns []string
	for _, c := range t.Columns {
		columns = append(columns, c.Name)
	}
	for _, k := range key {
		by = append(by, ordered(tx, t.Columns[slices.Index(columns, k)]))
	}
	rows, err := tx.Query(`SELECT ` + strings.Join(columns, ", ") + ` FROM ` + name + ` ORDER BY ` + strings.Join(by, ", "))
	if err != nil {
		return err
	}
	defer rows.Close()
	into, values := t.cells()
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := row(values()); err != nil {
			return err
		}
	}
	return rows.Err()
}

// table is a table's head: its columns in the order of their names, because a column that a migration added stands elsewhere.
func (tx *Tx) table(name string) (Table, error) {
	t := Table{Name: name}
	rows, err := tx.Query(`SELECT * FROM ` + name + ` LIMIT 0`)
	if err != nil {
		return t, err
	}
	defer rows.Close()
	types, err := rows.rows.ColumnTypes()
	if err != nil {
		return t, err
	}
	for _, c := range types {
		kind := ""
		switch strings.ToUpper(c.DatabaseTypeName()) {
		case "TEXT":
			kind = "text"
		case "BIGINT", "INT8":
			kind = "integer"
		case "BOOLEAN", "BOOL":
			kind = "boolean"
		case "BYTEA":
			kind = "bytes"
		default:
			return t, fmt.Errorf("the column %s has the type %s, which a copy can't hold", c.Name(), c.DatabaseTypeName())
		}
		t.Columns = append(t.Columns, Column{c.Name(), kind})
	}
	slices.SortFunc(t.Columns, func(a, b Column) int { return strings.Compare(a.Name, b.Name) })
	return t, rows.Err()
}

// cells are places to scan a row into, and what they then hold.
func (t Table) cells() (into []any, values func() []any) {
	for _, c := range t.Columns {
		switch c.Kind {
		case "text":
			into = append(into, new(string))
		case "integer":
			into = append(into, new(int64))
		case "boolean":
			into = append(into, new(bool))
		default:
			into = append(into, new([]byte))
		}
	}
	out := make([]any, len(into))
	return into, func() []any {
		for i, p := range into {
			switch p := p.(type) {
			case *string:
				out[i] = *p
			case *int64:
				out[i] = *p
			case *bool:
				out[i] = *p
			case *[]byte:
				out[i] = *p
			}
		}
		return out
	}
}

// Source gives a copy's tables one after another, each with all its rows: next is called until its Table has no name.
type Source func(put func(t Table, values []any) error) error

// Restore fills an empty database with a copy of the schema version given, in one transaction, and then migrates it to this binary's. A database that holds
// anything is refused; after a failure it is as empty as before. also runs in the same transaction, after the rows.
func Restore(ctx context.Context, o Options, schema int64, from Source, also func(tx *Tx) error) (err error) {
	if schema > Schema() {
		return fmt.Errorf("the copy has schema %d, and this embargo knows schemas up to %d only: it was made by a newer embargo. Restore it with that version", schema, Schema())
	}
	o.schema = schema
	db, err := Open(ctx, o)
	if err != nil {
		return err
	}
	err = db.Write(ctx, func(tx *Tx) error {
		if err := tx.empty(); err != nil {
			return err
		}
		if err := from(tx.put); err != nil {
			return err
		}
		return also(tx)
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	o.schema = 0
	if db, err = Open(ctx, o); err != nil {
		return err
	}
	return db.Close()
}

// Vacant finds out whether Restore could fill the database: it answers, holds nothing, and the copy is of no newer schema.
func Vacant(ctx context.Context, o Options, schema int64) error {
	found := errors.New("vacant")
	err := Restore(ctx, o, schema, func(func(t Table, values []any) error) error { return found }, nil)
	if errors.Is(err, found) {
		return nil
	}
	return err
}

// empty refuses a database in which a table has a row.
func (tx *Tx) empty() error {
	tables, err := tx.tables()
	if err != nil {
		return err
	}
	for _, name := range tables {
		var n int
		if err := tx.Row(`SELECT COUNT(*) FROM (SELECT 1 FROM ` + name + ` LIMIT 1) AS one`).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("the database is not empty (its table %s has rows), and nothing is restored over something: name an empty one", name)
		}
	}
	return nil
}

// put inserts a row of a copy, as it was.
func (tx *Tx) put(t Table, values []any) error {
	var names, places []string
	for i, c := range t.Columns {
		if !plain(c.Name) {
			return fmt.Errorf("the copy names a column %q", c.Name)
		}
		names, places = append(names, c.Name), append(places, fmt.Sprintf("$%d", i+1))
	}
	if !plain(t.Name) || slices.Contains(notCopied, t.Name) || len(values) != len(names) {
		return fmt.Errorf("the copy has a damaged row of the table %q", t.Name)
	}
	_, err := tx.exec(`INSERT INTO `+t.Name+` (`+strings.Join(names, ", ")+`) VALUES (`+strings.Join(places, ", ")+`)`, values...)
	if err != nil {
		return fmt.Errorf("restoring the table %s: %w", t.Name, err)
	}
	return nil
}

// plain: a name of the schema, which goes into SQL as it is.
func plain(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_0123456789") == ""
}

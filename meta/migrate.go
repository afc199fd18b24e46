// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is the version of the schema that this binary knows: the number of its newest migration.
func Schema() int64 {
	files, err := migrations.ReadDir("migrations")
	if err != nil || len(files) == 0 {
		return 0 // not reached: they are embedded
	}
	var n int64
	_, _ = fmt.Sscanf(files[len(files)-1].Name(), "%d_", &n) // a test holds the names to this form
	return n
}

// migrate brings the schema up to a version (0: this binary's), each step in a transaction. A newer schema is refused.
func (db *DB) migrate(ctx context.Context, to int64) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	dialect := goose.DialectSQLite3
	options := []goose.ProviderOption{goose.WithSlog(slog.New(slog.DiscardHandler))}
	if db.postgres {
		dialect = goose.DialectPostgres
		// Nodes that start together migrate one after another.
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, db.pool, files, options...)
	if err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if current > target {
		return fmt.Errorf("the database has schema %d, and this embargo knows schemas up to %d only: it was written by a newer embargo. Run that version, or restore a backup made before the upgrade", current, target)
	}
	if to == 0 {
		to = target
	}
	done, err := p.UpTo(ctx, to)
	if err != nil {
		var partial *goose.PartialError
		if errors.As(err, &partial) && partial.Failed != nil {
			return fmt.Errorf("migrating the schema to version %d: %w", partial.Failed.Source.Version, err)
		}
		return fmt.Errorf("migrating the schema: %w", err)
	}
	for _, m := range done {
		db.log.Info("schema migrated", "version", m.Source.Version, "took", m.Duration.String())
	}
	return nil
}

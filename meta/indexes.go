// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"fmt"
)

// byteOrder are indexes of PostgreSQL alone. Names and digests are ordered by their bytes, as SQLite orders them anyway; PostgreSQL reads them in that order from an index of this collation only, and
// would else sort all of a repository for each page of it. They are no step of the schema: a database without them is as right, and slower.
var byteOrder = map[string]string{
	"tags_bytes":              `tags (repository, name COLLATE "C")`,
	"tags_updated_bytes":      `tags (repository, updated_us, name COLLATE "C")`,
	"repositories_bytes":      `repositories (registry, name COLLATE "C")`,
	"manifests_bytes":         `manifests (repository, digest COLLATE "C")`,
	"manifests_updated_bytes": `manifests (repository, updated_us, digest COLLATE "C")`,
	"manifests_subject_bytes": `manifests (repository, subject, digest COLLATE "C")`,
	"deleted_manifests_bytes": `deleted_manifests (repository, digest COLLATE "C")`,
}

// byteOrderLock is the number of the lock under which they are made.
const byteOrderLock = 0x656d6269

// index makes the indexes of byteOrder that are missing. Nodes that start together do so one after another.
func (db *DB) index(ctx context.Context) error {
	return db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`SELECT pg_advisory_xact_lock($1)`, byteOrderLock); err != nil {
			return err
		}
		var there []string
		if err := tx.strings(`SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()`, &there); err != nil {
			return err
		}
		missing := make(map[string]bool, len(byteOrder))
		for name := range byteOrder {
			missing[name] = true
		}
		for _, name := range there {
			delete(missing, name)
		}
		for name := range missing {
			if _, err := tx.Exec(`CREATE INDEX ` + name + ` ON ` + byteOrder[name]); err != nil {
				return fmt.Errorf("making the index %s: %w", name, err)
			}
		}
		return nil
	})
}

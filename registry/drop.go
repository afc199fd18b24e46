// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
)

const dropKind = "registry.drop"

// Drop has what a registry held removed, once the transaction that deletes its row has committed. Nothing of it can be reached from then
// on, because the identity is never used again: the removal itself is a job's.
func Drop(tx *meta.Tx, registryID string) error { return dropAt(tx, registryID, time.Time{}) }

func dropAt(tx *meta.Tx, registryID string, at time.Time) error {
	_, err := job.Enqueue(tx, job.Spec{ID: dropKind + "-" + registryID, Kind: dropKind, Registry: registryID, Args: registryID, RunAt: at, MaxAttempts: 100})
	return err
}

// hideTime is how long who has hidden a repository may take to drop it, before a job does.
const hideTime = 10 * time.Minute

// hide takes a repository out of its registry, into one of its own that nobody reaches and that the caller is to drop: so it is gone at once, however much it holds. It tells which registry that is.
func hide(tx *meta.Tx, repository string) (registry string, err error) {
	registry = "deleted-" + repository
	if _, err := tx.Exec(`UPDATE repositories SET registry = $1 WHERE id = $2`, registry, repository); err != nil {
		return "", err
	}
	return registry, dropAt(tx, registry, tx.Now().Add(hideTime))
}

// runDrop removes a registry's rows.
func (s *Service) runDrop(ctx context.Context, j *job.Job) (any, error) {
	var registry string
	if err := j.Decode(&registry); err != nil {
		return nil, err
	}
	return nil, s.drop(ctx, registry)
}

// drop removes the rows of a registry's repositories, so many at a time that no transaction is long. A repository's own row goes last.
func (s *Service) drop(ctx context.Context, registry string) error {
	for {
		var id string
		err := s.db.Read(ctx, func(tx *meta.Tx) error {
			return tx.Row(`SELECT id FROM repositories WHERE registry = $1 LIMIT 1`, registry).Scan(&id)
		})
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		for _, part := range parts {
			for n := int64(1); err == nil && n > 0; {
				err = s.db.Write(ctx, func(tx *meta.Tx) (err error) {
					n, err = tx.Exec(part, id, dropped)
					return err
				})
			}
		}
		if err == nil {
			err = s.db.Write(ctx, func(tx *meta.Tx) error {
				_, err := tx.Exec(`DELETE FROM repositories WHERE id = $1`, id)
				return err
			})
		}
		if err != nil {
			return err
		}
	}
}

// dropped is about how many rows go in one transaction.
const dropped = 1000

// parts remove some of what a repository ($1) holds each.
var parts = func() (list []string) {
	for _, t := range []struct{ table, column string }{{"tags", "name"}, {"cached_tags", "name"}, {"manifest_refs", "digest"}, {"manifests", "digest"}, {"deleted_tags", "name"}, {"deleted_manifests", "digest"},
		{"blob_links", "digest"}} {
		list = append(list, fmt.Sprintf(`DELETE FROM %[1]s WHERE repository = $1 AND %[2]s IN (SELECT %[2]s FROM %[1]s WHERE repository = $1 LIMIT $2)`, t.table, t.column))
	}
	return list
}()

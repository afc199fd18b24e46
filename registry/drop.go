// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"

	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
)

const dropKind = "registry.drop"

// Drop has what a registry held removed, once the transaction that deletes its row has committed. Nothing of it can be reached from then
// on, because the identity is never used again: the removal itself is a job's.
func Drop(tx *meta.Tx, registryID string) error {
	_, err := job.Enqueue(tx, job.Spec{ID: dropKind + "-" + registryID, Kind: dropKind, Registry: registryID, Args: registryID, MaxAttempts: 100})
	return err
}

// runDrop removes a registry's rows, a repository's table at a time so that no transaction is long. The repository's own row goes last.
func (s *Service) runDrop(ctx context.Context, j *job.Job) (any, error) {
	var registry string
	if err := j.Decode(&registry); err != nil {
		return nil, err
	}
	for {
		var id string
		err := s.db.Read(ctx, func(tx *meta.Tx) error {
			return tx.Row(`SELECT id FROM repositories WHERE registry = $1 LIMIT 1`, registry).Scan(&id)
		})
		if errors.Is(err, meta.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		err = dropRepository(func(query string) error {
			return s.db.Write(ctx, func(tx *meta.Tx) error {
				_, err := tx.Exec(query, id)
				return err
			})
		})
		if err != nil {
			return nil, err
		}
	}
}

// dropRepository has the rows of a repository removed, a table at a time; its own row goes last.
func dropRepository(do func(query string) error) error {
	for _, query := range []string{
		`DELETE FROM tags WHERE repository = $1`,
		`DELETE FROM cached_tags WHERE repository = $1`,
		`DELETE FROM manifest_refs WHERE repository = $1`,
		`DELETE FROM manifests WHERE repository = $1`,
		`DELETE FROM deleted_tags WHERE repository = $1`,
		`DELETE FROM deleted_manifests WHERE repository = $1`,
		`DELETE FROM blob_links WHERE repository = $1`,
		`DELETE FROM repositories WHERE id = $1`,
	} {
		if err := do(query); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

// remove runs a deletion in a repository that is locked, with its record. gone makes the fault of a repository that does not exist.
func (s *Service) remove(ctx context.Context, c oci.Call, repo name.Repository, gone error, do func(tx *meta.Tx, id string) (reference string, d name.Digest, err error)) error {
	return s.db.Write(ctx, func(tx *meta.Tx) error {
		row, err := live(tx, c)
		if err != nil {
			return err
		}
		id, err := lock(tx, row.ID, repo)
		if err != nil {
			return err
		}
		if id == "" {
			return gone
		}
		r := record(row, c, actionDelete, repo)
		var d name.Digest
		if r.Reference, d, err = do(tx, id); err != nil {
			return err
		}
		r.Digest = string(d)
		return s.audit.Append(tx, r)
	})
}

// DeleteBlob takes a blob out of a repository. Errors: see oci.Deleter.
func (s *Service) DeleteBlob(ctx context.Context, c oci.Call, repo name.Repository, d name.Digest) error {
	gone := fault.New(fault.BlobUnknown, "The blob %s is not known to the repository.", d)
	return s.remove(ctx, c, repo, gone, func(tx *meta.Tx, id string) (string, name.Digest, error) {
		return "blob", d, one(gone)(tx.Exec(`DELETE FROM blob_links WHERE repository = $1 AND digest = $2`, id, string(d)))
	})
}

// DeleteManifest takes a manifest and its tags out of a repository. Errors: see oci.Deleter.
func (s *Service) DeleteManifest(ctx context.Context, c oci.Call, repo name.Repository, d name.Digest) error {
	gone := unknownManifest(name.Reference{Repository: repo, Digest: d})
	return s.remove(ctx, c, repo, gone, func(tx *meta.Tx, id string) (string, name.Digest, error) {
		_, err := tx.Exec(`DELETE FROM tags WHERE repository = $1 AND digest = $2`, id, string(d))
		if err == nil {
			_, err = tx.Exec(`DELETE FROM manifest_refs WHERE repository = $1 AND digest = $2`, id, string(d))
		}
		if err == nil {
			err = one(gone)(tx.Exec(`DELETE FROM manifests WHERE repository = $1 AND digest = $2`, id, string(d)))
		}
		return "manifest", d, err
	})
}

// DeleteTag removes a tag. Errors: see oci.Deleter.
func (s *Service) DeleteTag(ctx context.Context, c oci.Call, repo name.Repository, t name.Tag) error {
	gone := unknownManifest(name.Reference{Repository: repo, Tag: t})
	return s.remove(ctx, c, repo, gone, func(tx *meta.Tx, id string) (string, name.Digest, error) {
		var d name.Digest
		err := tx.Row(`DELETE FROM tags WHERE repository = $1 AND name = $2 RETURNING digest`, id, string(t)).Scan(&d)
		if errors.Is(err, meta.ErrNotFound) {
			err = gone
		}
		return string(t), d, err
	})
}

// one turns "no row changed" into gone.
func one(gone error) func(int64, error) error {
	return func(n int64, err error) error {
		if err == nil && n == 0 {
			return gone
		}
		return err
	}
}

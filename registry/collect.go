// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"time"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// uploadLife is how long an upload waits for its next part.
const uploadLife = 7 * 24 * time.Hour

// Collect removes what nothing needs any more: uploads nobody went on with, blobs that no manifest of their repository names, and content that no repository holds, each when it
// has been so for the grace. It never stops a push or a pull.
func (s *Service) Collect(ctx context.Context, grace time.Duration, dryRun bool) (blob.Collected, error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	before := func(tx *meta.Tx) int64 { return meta.Micros(tx.Now().Add(-grace)) }
	past := func(*meta.Tx) int64 { return 0 }
	if dryRun {
		past = before // it takes nothing out of its repository, so it looks past what would be
	} else if err := s.unlink(ctx, before); err != nil {
		return blob.Collected{}, err
	}
	return s.blobs.Collect(ctx, blob.Collection{Used: used(past), Unused: unused(past), Grace: grace, UploadLife: uploadLife, DryRun: dryRun})
}

// Scrub compares all content with its digest. See blob.Store.
func (s *Service) Scrub(ctx context.Context, tell func(blob.Scrubbed)) (blob.Scrubbed, error) {
	return s.blobs.Scrub(ctx, tell)
}

// holdersNamed is how many repositories Holders names.
const holdersNamed = 5

// Holders are repositories that hold the content, as login server and name, a few at the most.
func (s *Service) Holders(ctx context.Context, d name.Digest) ([]string, error) {
	list := []string{}
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		list = list[:0]
		rows, err := tx.Query(`SELECT g.login_server, r.name FROM repositories r JOIN registries g ON g.id = r.registry
 WHERE r.id IN (SELECT repository FROM blob_links WHERE digest = $1 UNION SELECT repository FROM manifests WHERE digest = $1 UNION SELECT repository FROM deleted_manifests WHERE digest = $1) ORDER BY g.login_server, r.name LIMIT $2`, string(d), holdersNamed)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var host, repository string
			if err := rows.Scan(&host, &repository); err != nil {
				return err
			}
			list = append(list, host+"/"+repository)
		}
		return rows.Err()
	})
	return list, err
}

// loose is a blob_links row that was touched before $2 and whose blob no manifest of its repository names.
const loose = `blob_links.touched_us < $2 AND NOT EXISTS (SELECT 1 FROM manifest_refs WHERE repository = blob_links.repository AND child = blob_links.digest)`

// unlink takes the blobs that no manifest names out of their repositories, a repository at a time, each locked meanwhile so that no manifest comes that names them.
func (s *Service) unlink(ctx context.Context, before func(tx *meta.Tx) int64) error {
	for after, more := "", true; more; {
		var todo []string
		err := s.db.Read(ctx, func(tx *meta.Tx) (err error) {
			todo, after, more, err = untidy(tx, after, before(tx))
			return err
		})
		if err != nil {
			return err
		}
		for _, id := range todo {
			err := s.db.Write(ctx, func(tx *meta.Tx) error {
				var one string
				err := tx.Lock(`SELECT id FROM repositories WHERE id = $1`, id).Scan(&one)
				if errors.Is(err, meta.ErrNotFound) {
					return nil
				}
				if err == nil {
					_, err = tx.Exec(`DELETE FROM blob_links WHERE repository = $1 AND `+loose, id, before(tx))
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// untidy are those of the next repositories behind after that hold a loose blob, the last that was looked at, and whether there are more.
func untidy(tx *meta.Tx, after string, before int64) (todo []string, last string, more bool, err error) {
	const few = 500
	rows, err := tx.Query(`SELECT id, EXISTS (SELECT 1 FROM blob_links WHERE repository = repositories.id AND `+loose+`) FROM repositories WHERE id > $1 ORDER BY id LIMIT $3`, after, before, few)
	if err != nil {
		return nil, "", false, err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var untidy bool
		if err := rows.Scan(&last, &untidy); err != nil {
			return nil, "", false, err
		}
		if untidy {
			todo = append(todo, last)
		}
	}
	return todo, last, n == few, rows.Err()
}

// used reports whether a repository holds the content, loose blobs from before past aside.
func used(past func(tx *meta.Tx) int64) func(tx *meta.Tx, d name.Digest) (bool, error) {
	return func(tx *meta.Tx, d name.Digest) (bool, error) {
		var one int
		err := tx.Row(`SELECT 1 FROM blob_links WHERE digest = $1 AND NOT (`+loose+`) UNION ALL SELECT 1 FROM manifests WHERE digest = $1
 UNION ALL SELECT 1 FROM deleted_manifests WHERE digest = $1 LIMIT 1`, string(d), past(tx)).Scan(&one)
		if errors.Is(err, meta.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
}

// unused lists content that no repository holds, loose blobs from before past aside, and content that is marked as such and may be held again.
func unused(past func(tx *meta.Tx) int64) func(tx *meta.Tx, after name.Digest, limit int) ([]name.Digest, error) {
	return func(tx *meta.Tx, after name.Digest, limit int) ([]name.Digest, error) {
		rows, err := tx.Query(`SELECT digest FROM blobs b WHERE digest > $1 AND (freed_us <> 0 OR NOT EXISTS (SELECT 1 FROM blob_links WHERE digest = b.digest AND NOT (`+loose+`))
 AND NOT EXISTS (SELECT 1 FROM manifests WHERE digest = b.digest) AND NOT EXISTS (SELECT 1 FROM deleted_manifests WHERE digest = b.digest)) ORDER BY digest LIMIT $3`, string(after), past(tx), limit)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []name.Digest
		for rows.Next() {
			var d name.Digest
			if err := rows.Scan(&d); err != nil {
				return nil, err
			}
			list = append(list, d)
		}
		return list, rows.Err()
	}
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

// deletedColumns are what is kept of a manifest that was deleted for a while. What it names stays linked meanwhile.
const deletedColumns = `repository, digest, media_type, artifact_type, subject, annotations, config_digest, size, created_us, config_media_type, architecture, os, image_size,
 quarantine, quarantine_details, locks`

// putAside deletes a manifest and its tags so that they can be restored.
func putAside(tx *meta.Tx, repository string, d name.Digest) error {
	return putSomeAside(tx, `repository = $1 AND digest = $2`, repository, string(d))
}

// putAllAside deletes all manifests of a repository so that they can be restored.
func putAllAside(tx *meta.Tx, repository string) error {
	return putSomeAside(tx, `repository = $1`, repository)
}

func putSomeAside(tx *meta.Tx, which string, args ...any) error {
	now := fmt.Sprintf(`CAST($%d AS BIGINT)`, len(args)+1)
	for _, q := range []string{
		`INSERT INTO deleted_manifests (` + deletedColumns + `, deleted_us) SELECT ` + deletedColumns + `, ` + now + ` FROM manifests WHERE ` + which + `
 ON CONFLICT (repository, digest) DO UPDATE SET deleted_us = excluded.deleted_us, locks = excluded.locks`,
		`INSERT INTO deleted_tags (repository, name, digest, deleted_us, locks) SELECT repository, name, digest, ` + now + `, locks FROM tags WHERE ` + which + `
 ON CONFLICT (repository, name, digest) DO UPDATE SET deleted_us = excluded.deleted_us, locks = excluded.locks`,
	} {
		if _, err := tx.Exec(q, append(args, meta.Micros(tx.Now()))...); err != nil {
			return err
		}
	}
	for _, table := range []string{"tags", "manifests"} {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE `+which, args...); err != nil {
			return err
		}
	}
	return nil
}

// notDeleted takes a manifest that is there again out of the deleted ones.
func notDeleted(tx *meta.Tx, repository string, d name.Digest) error {
	_, err := tx.Exec(`DELETE FROM deleted_manifests WHERE repository = $1 AND digest = $2`, repository, string(d))
	return err
}

// dropTag removes a tag, for good or for a while.
func dropTag(tx *meta.Tx, row meta.RegistryRow, repository string, t name.Tag) error {
	if row.SoftDelete {
		_, err := tx.Exec(`INSERT INTO deleted_tags (repository, name, digest, deleted_us, locks) SELECT repository, name, digest, CAST($3 AS BIGINT), locks FROM tags WHERE repository = $1 AND name = $2
 ON CONFLICT (repository, name, digest) DO UPDATE SET deleted_us = excluded.deleted_us, locks = excluded.locks`, repository, string(t), meta.Micros(tx.Now()))
		if err != nil {
			return err
		}
	}
	_, err := tx.Exec(`DELETE FROM tags WHERE repository = $1 AND name = $2`, repository, string(t))
	return err
}

// DeletedRepositories lists the repositories that hold something deleted. Errors: see oci.Bin.
func (s *Service) DeletedRepositories(ctx context.Context, c oci.Call, last string, n int) (list []string, more bool, err error) {
	err = s.releaseNames(ctx, c, "", "_deleted/_catalog", func(tx *meta.Tx, c oci.Call) error {
		visible, err := s.visible(tx, c)
		if err != nil {
			return err
		}
		by := bytewise(tx, "name")
		list, more, err = names(tx, n, `SELECT name FROM repositories WHERE registry = $1 AND `+by+` > $2
 AND EXISTS (SELECT 1 FROM deleted_manifests m WHERE m.repository = repositories.id`+visible+`) ORDER BY `+by+` LIMIT $3`, c.Registry.ID, last)
		return err
	})
	return list, more, err
}

// DeletedManifests lists a repository's deleted manifests by digest. Errors: see oci.Bin.
func (s *Service) DeletedManifests(ctx context.Context, c oci.Call, repo name.Repository, p oci.Page) (list []oci.DeletedManifest, more bool, err error) {
	err = s.releaseNames(ctx, c, repo, "_deleted/_manifests", func(tx *meta.Tx, c oci.Call) error {
		list, more = nil, false
		r, err := find(tx, c.Registry.ID, repo)
		if err != nil {
			return err
		}
		visible, err := s.visible(tx, c)
		if err != nil {
			return err
		}
		by := bytewise(tx, "digest")
		rows, err := tx.Query(`SELECT digest, media_type, size, image_size, architecture, os, created_us, deleted_us FROM deleted_manifests m
 WHERE repository = $1 AND `+by+` > $2`+visible+` ORDER BY `+by+` LIMIT $3`, r.id, p.Last, p.N+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if more = len(list) == p.N; more {
				break
			}
			var m oci.DeletedManifest
			var created, deleted int64
			if err := rows.Scan(&m.Digest, &m.MediaType, &m.Size, &m.ImageSize, &m.Architecture, &m.OS, &created, &deleted); err != nil {
				return err
			}
			m.Created, m.Deleted = meta.FromMicros(created), meta.FromMicros(deleted)
			list = append(list, m)
		}
		return rows.Err()
	})
	return list, more, err
}

// ofDeletedTags is a condition on manifests m as one on deleted tags, whose manifest is there or was deleted too.
func ofDeletedTags(visible string) string {
	if visible == "" {
		return ``
	}
	return ` AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = deleted_tags.repository AND m.digest = deleted_tags.digest` + visible + `
 UNION ALL SELECT 1 FROM deleted_manifests m WHERE m.repository = deleted_tags.repository AND m.digest = deleted_tags.digest` + visible + `)`
}

// DeletedTags lists a repository's deleted tags by name, and those of one name by digest. Errors: see oci.Bin.
func (s *Service) DeletedTags(ctx context.Context, c oci.Call, repo name.Repository, p oci.Page) (list []oci.DeletedTag, more bool, err error) {
	tag, digest, _ := strings.Cut(p.Last, "@")
	err = s.releaseNames(ctx, c, repo, "_deleted/_tags", func(tx *meta.Tx, c oci.Call) error {
		list, more = nil, false
		r, err := find(tx, c.Registry.ID, repo)
		if err != nil {
			return err
		}
		visible, err := s.visible(tx, c)
		if err != nil {
			return err
		}
		byName, byDigest := bytewise(tx, "name"), bytewise(tx, "digest")
		rows, err := tx.Query(`SELECT name, digest, deleted_us FROM deleted_tags WHERE repository = $1 AND (`+byName+` > $2 OR `+byName+` = $2 AND $3 <> '' AND `+byDigest+` > $3)`+ofDeletedTags(visible)+`
 ORDER BY `+byName+`, `+byDigest+` LIMIT $4`, r.id, tag, digest, p.N+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if more = len(list) == p.N; more {
				break
			}
			var t oci.DeletedTag
			var deleted int64
			if err := rows.Scan(&t.Name, &t.Digest, &deleted); err != nil {
				return err
			}
			t.Deleted = meta.FromMicros(deleted)
			list = append(list, t)
		}
		return rows.Err()
	})
	return list, more, err
}

// Restore brings a deleted manifest back, with the manifests of an index that were deleted, and points a tag to it. Errors: see oci.Bin.
func (s *Service) Restore(ctx context.Context, c oci.Call, to name.Reference, force bool) error {
	return s.db.Write(ctx, func(tx *meta.Tx) error {
		row, err := live(tx, c)
		if err != nil {
			return err
		}
		r, err := lock(tx, row.ID, to.Repository)
		if err != nil {
			return err
		}
		if err := r.locks.forbids(noWrite, repositoryCalled(to.Repository)); err != nil {
			return err
		}
		back, err := bringBack(tx, r.id, to.Digest)
		if err != nil {
			return err
		}
		if !back { // it may be there, and only its tag was deleted
			var one int
			err := tx.Row(`SELECT 1 FROM manifests WHERE repository = $1 AND digest = $2`, r.id, string(to.Digest)).Scan(&one)
			if errors.Is(err, meta.ErrNotFound) {
				return fault.New(fault.ManifestUnknown, "There is no deleted manifest %s in the repository '%s': az acr manifest list-deleted shows those there are.", to.Digest, to.Repository)
			}
			if err != nil {
				return err
			}
		}
		note := record(row, c, actionRestore, to.Repository)
		note.Reference, note.Digest = string(to.Tag), string(to.Digest)
		if to.Tag != "" {
			there, err := tagAt(tx, r.id, to.Tag)
			if err != nil {
				return err
			}
			if there.digest != "" && there.digest != to.Digest && !force {
				return fault.New(fault.Conflict, "The tag '%s:%s' points to %s now. Restore with force to point it to %s, or restore the manifest alone.", to.Repository, to.Tag, there.digest, to.Digest)
			}
			if _, err := setTag(tx, r.id, to); err != nil {
				return err
			}
			for _, q := range []string{
				`UPDATE tags SET locks = locks | COALESCE((SELECT locks FROM deleted_tags WHERE repository = $1 AND name = $2 AND digest = $3), 0) WHERE repository = $1 AND name = $2`,
				`DELETE FROM deleted_tags WHERE repository = $1 AND name = $2 AND digest = $3`,
			} {
				if _, err := tx.Exec(q, r.id, string(to.Tag), string(to.Digest)); err != nil {
					return err
				}
			}
		}
		return s.audit.Append(tx, note)
	})
}

// bringBack restores a deleted manifest with those that it names and those that were deleted with it because they refer to it; false when it is not among the deleted.
func bringBack(tx *meta.Tx, repository string, d name.Digest) (bool, error) {
	now := meta.Micros(tx.Now())
	var deleted int64
	err := tx.Row(`SELECT deleted_us FROM deleted_manifests WHERE repository = $1 AND digest = $2`, repository, string(d)).Scan(&deleted)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := tx.Exec(`INSERT INTO manifests (`+deletedColumns+`, updated_us, untagged_us) SELECT `+deletedColumns+`, CAST($3 AS BIGINT), CAST($3 AS BIGINT)
 FROM deleted_manifests WHERE repository = $1 AND digest = $2 ON CONFLICT (repository, digest) DO NOTHING`, repository, string(d), now); err != nil {
		return false, err
	}
	if err := notDeleted(tx, repository, d); err != nil {
		return false, err
	}
	rows, err := tx.Query(`SELECT child FROM manifest_refs WHERE repository = $1 AND digest = $2 AND kind = 'manifest'
 UNION SELECT digest FROM deleted_manifests WHERE repository = $1 AND subject = $2 AND deleted_us = $3`, repository, string(d), deleted)
	if err != nil {
		return false, err
	}
	var more []name.Digest
	for rows.Next() {
		var m name.Digest
		if err := rows.Scan(&m); err != nil {
			return false, errors.Join(err, rows.Close())
		}
		more = append(more, m)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return false, err
	}
	for _, m := range more {
		if _, err := bringBack(tx, repository, m); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Purge deletes what the registries' policies say: manifests that have been without a tag for the days of retentionPolicy, and manifests and tags that were deleted longer ago than
// softDeletePolicy keeps them, but nothing from a repository that is locked. It returns how many manifests went.
func (s *Service) Purge(ctx context.Context) (int, error) {
	var rows []meta.RegistryRow
	err := s.db.Read(ctx, func(tx *meta.Tx) (err error) {
		rows, err = tx.Registries()
		return err
	})
	if err != nil {
		return 0, err
	}
	gone := 0
	for _, r := range rows {
		n, err := s.purge(ctx, r)
		gone += n
		if err != nil {
			return gone, err
		}
	}
	return gone, nil
}

// found is a manifest that a policy deletes, or one of its deleted tags.
type found struct {
	repository string
	repo       name.Repository
	digest     name.Digest
	tag        name.Tag
}

const day = 24 * time.Hour

// pushGrace is how long retentionPolicy spares what was pushed and never had a tag: the index or the tag that it was pushed for may be on its way.
const pushGrace = time.Hour

func (s *Service) purge(ctx context.Context, r meta.RegistryRow) (gone int, err error) {
	if r.Retention {
		// A manifest that an index names, or whose subject is there, is of use without a tag; it takes what refers to it along, and stays where that is locked.
		n, err := s.each(ctx, r, "retentionPolicy", func(tx *meta.Tx) (*meta.Rows, error) {
			return tx.Query(`SELECT p.id, p.name, m.digest, '' FROM manifests m JOIN repositories p ON p.id = m.repository
 WHERE p.registry = $1 AND m.untagged_us > $2 AND m.untagged_us <= $3 AND m.pushed_us <= $4 AND (p.locks & 3) = 0 AND (m.locks & 3) = 0
 AND NOT EXISTS (SELECT 1 FROM manifest_refs f WHERE f.repository = m.repository AND f.child = m.digest AND f.kind = 'manifest')
 AND NOT EXISTS (SELECT 1 FROM manifests o WHERE o.repository = m.repository AND o.digest = m.subject AND m.subject <> '')
 AND NOT EXISTS (WITH RECURSIVE up(digest) AS (SELECT m.digest UNION SELECT o.digest FROM up CROSS JOIN manifests o WHERE o.repository = m.repository AND o.subject = up.digest)
  SELECT 1 FROM up CROSS JOIN manifests o WHERE o.repository = m.repository AND o.digest = up.digest
   AND ((o.locks & 3) <> 0 OR EXISTS (SELECT 1 FROM tags t WHERE t.repository = o.repository AND t.digest = o.digest AND (t.locks & 3) <> 0))) LIMIT 200`,
				r.ID, meta.Micros(r.RetentionSince), meta.Micros(tx.Now().Add(-time.Duration(r.RetentionDays)*day)), meta.Micros(tx.Now().Add(-pushGrace)))
		}, func(tx *meta.Tx, f found) ([]name.Digest, error) {
			all, err := referring(tx, f.repository, f.digest, referrerLimit)
			all = append(all, f.digest)
			for _, d := range all {
				if err == nil {
					err = dropManifest(tx, f.repository, d)
				}
			}
			return all, err
		})
		gone += n
		if err != nil {
			return gone, err
		}
	}
	n, err := s.each(ctx, r, "softDeletePolicy", func(tx *meta.Tx) (*meta.Rows, error) {
		return tx.Query(`SELECT p.id, p.name, m.digest, '' FROM deleted_manifests m JOIN repositories p ON p.id = m.repository WHERE p.registry = $1 AND m.deleted_us <= $2 AND (p.locks & 3) = 0 LIMIT 200`,
			r.ID, meta.Micros(tx.Now().Add(-time.Duration(r.SoftDeleteDays)*day)))
	}, func(tx *meta.Tx, f found) ([]name.Digest, error) {
		for _, q := range []string{
			`DELETE FROM deleted_tags WHERE repository = $1 AND digest = $2`,
			`DELETE FROM manifest_refs WHERE repository = $1 AND digest = $2 AND NOT EXISTS (SELECT 1 FROM manifests WHERE repository = $1 AND digest = $2)`,
			`DELETE FROM deleted_manifests WHERE repository = $1 AND digest = $2`,
		} {
			if _, err := tx.Exec(q, f.repository, string(f.digest)); err != nil {
				return nil, err
			}
		}
		return []name.Digest{f.digest}, nil
	})
	gone += n
	if err != nil {
		return gone, err
	}
	_, err = s.each(ctx, r, "softDeletePolicy", func(tx *meta.Tx) (*meta.Rows, error) {
		return tx.Query(`SELECT p.id, p.name, t.digest, t.name FROM deleted_tags t JOIN repositories p ON p.id = t.repository WHERE p.registry = $1 AND t.deleted_us <= $2 AND (p.locks & 3) = 0 LIMIT 200`,
			r.ID, meta.Micros(tx.Now().Add(-time.Duration(r.SoftDeleteDays)*day)))
	}, func(tx *meta.Tx, f found) ([]name.Digest, error) {
		_, err := tx.Exec(`DELETE FROM deleted_tags WHERE repository = $1 AND name = $2 AND digest = $3`, f.repository, string(f.tag), string(f.digest))
		return []name.Digest{f.digest}, err
	})
	return gone, err
}

// each finds what a policy deletes and deletes it, on record, in transactions: the repository is locked, and what was found must still be so. drop tells all manifests that it has deleted.
func (s *Service) each(ctx context.Context, r meta.RegistryRow, policy string, find func(tx *meta.Tx) (*meta.Rows, error), drop func(tx *meta.Tx, f found) ([]name.Digest, error)) (gone int, err error) {
	look := func(tx *meta.Tx) (list []found, err error) {
		rows, err := find(tx)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var f found
			if err := rows.Scan(&f.repository, &f.repo, &f.digest, &f.tag); err != nil {
				return nil, err
			}
			list = append(list, f)
		}
		return list, rows.Err()
	}
	for ctx.Err() == nil {
		var list []found
		if err := s.db.Read(ctx, func(tx *meta.Tx) (err error) { list, err = look(tx); return err }); err != nil || len(list) == 0 {
			return gone, err
		}
		before := gone
		err := s.db.Write(ctx, func(tx *meta.Tx) error {
			gone = before
			if _, err := tx.LockRegistry(r.ID); errors.Is(err, meta.ErrNotFound) {
				return nil
			} else if err != nil {
				return err
			}
			for _, f := range list {
				if _, err := lock(tx, r.ID, f.repo); err != nil {
					return err
				}
			}
			again, err := look(tx)
			if err != nil {
				return err
			}
			for _, f := range again {
				all, err := drop(tx, f)
				if err != nil {
					return err
				}
				gone += len(all)
				what := "manifest"
				if f.tag != "" {
					what = string(f.tag)
				}
				for _, d := range all {
					if err := s.audit.Append(tx, audit.Record{Kind: audit.Change, Action: actionDelete, Outcome: audit.Succeeded, Rule: policy, Resource: r.ResourceID, Registry: r.ID,
						LoginServer: r.LoginServer, Epoch: r.Epoch, Repository: string(f.repo), Reference: what, Digest: string(d),
						Caller: audit.Caller{ID: "embargo", Name: "embargo", Type: "Local"}}); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil || gone == before {
			return gone, err
		}
	}
	return gone, nil
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

// remove runs a deletion in a repository that is locked, with its record. gone makes the fault of a repository that does not exist.
func (s *Service) remove(ctx context.Context, c oci.Call, repo name.Repository, gone error, do func(tx *meta.Tx, row meta.RegistryRow, id string) (reference string, d name.Digest, err error)) error {
	return s.db.Write(ctx, func(tx *meta.Tx) error {
		row, err := live(tx, c)
		if err != nil {
			return err
		}
		from, err := lock(tx, row.ID, repo)
		if err != nil {
			return err
		}
		if from.id == "" {
			return gone
		}
		if err := from.locks.forbids(noChange, repositoryCalled(repo)); err != nil {
			empty, failed := s.empty(tx, c, row, from.id)
			switch {
			case failed != nil:
				return failed
			case empty:
				return gone
			}
			return err
		}
		r := record(row, c, actionDelete, repo)
		var d name.Digest
		if r.Reference, d, err = do(tx, row, from.id); err != nil {
			return err
		}
		r.Digest = string(d)
		return s.audit.Append(tx, r)
	})
}

// DeleteBlob takes a blob out of a repository. Errors: see oci.Deleter.
func (s *Service) DeleteBlob(ctx context.Context, c oci.Call, repo name.Repository, d name.Digest) error {
	gone := fault.New(fault.BlobUnknown, "The blob %s is not known to the repository.", d)
	return s.remove(ctx, c, repo, gone, func(tx *meta.Tx, row meta.RegistryRow, id string) (string, name.Digest, error) {
		if err := s.unneeded(tx, c, row, id, repo, d); err != nil {
			return "", d, err
		}
		return "blob", d, one(gone)(tx.Exec(`DELETE FROM blob_links WHERE repository = $1 AND digest = $2`, id, string(d)))
	})
}

// referrerLimit is how many manifests that refer to one are deleted with it.
const referrerLimit = 10000

// DeleteManifest takes a manifest and its tags out of a repository, and with it what refers to it, and to that. Errors: see oci.Deleter.
func (s *Service) DeleteManifest(ctx context.Context, c oci.Call, repo name.Repository, d name.Digest) error {
	gone := unknownManifest(name.Reference{Repository: repo, Digest: d})
	return s.remove(ctx, c, repo, gone, func(tx *meta.Tx, row meta.RegistryRow, id string) (string, name.Digest, error) {
		var one int
		err := tx.Row(`SELECT 1 FROM manifests WHERE repository = $1 AND digest = $2`, id, string(d)).Scan(&one)
		if errors.Is(err, meta.ErrNotFound) {
			err = gone
		}
		if err == nil {
			err = s.hidden(tx, c, row, id, name.Reference{Repository: repo, Digest: d}, gone)
		}
		if err == nil {
			err = s.unlocked(tx, c, row, id, repo, d)
		}
		if err != nil {
			return "", d, err
		}
		with, err := referring(tx, id, d, referrerLimit+1)
		if err != nil {
			return "", d, err
		}
		if len(with) > referrerLimit {
			return "", d, fault.New(fault.Unsupported, "More than %d artifacts refer to %s or to each other and would be deleted with it. Delete some of them first: /v2/%s/referrers/%s lists them.",
				referrerLimit, manifestCalled(repo, d), repo, d)
		}
		drop := func(m name.Digest) error {
			if err := tellDelete(tx, id, m, eventOf(c, http.MethodDelete, repo)); err != nil {
				return err
			}
			return dropOrPutAside(tx, row, id, m)
		}
		for _, m := range with {
			if err := drop(m); err != nil {
				return "", d, err
			}
			r := record(row, c, actionDelete, repo)
			r.Reference, r.Digest = "manifest", string(m)
			if err := s.audit.Append(tx, r); err != nil {
				return "", d, err
			}
		}
		return "manifest", d, drop(d)
	})
}

// going is the content $2 of repository $1 with the manifests that refer to it, and to those; holding is that with the manifests that name it, the indexes above them included.
// SQLite joins a CROSS JOIN from its left, as is wanted here.
const (
	going   = `WITH RECURSIVE going(digest) AS (SELECT CAST($2 AS TEXT) UNION SELECT m.digest FROM going CROSS JOIN manifests m WHERE m.repository = $1 AND m.subject = going.digest)`
	holding = `(` + going + `, holding(digest) AS (SELECT digest FROM going
 UNION SELECT f.digest FROM holding CROSS JOIN manifest_refs f WHERE f.repository = $1 AND f.child = holding.digest) SELECT digest FROM holding)`
)

// unlocked refuses to delete content that is locked or that a locked tag points to, and so with what refers to it and what needs it.
func (s *Service) unlocked(tx *meta.Tx, c oci.Call, row meta.RegistryRow, repository string, repo name.Repository, d name.Digest) error {
	for _, q := range []string{
		`SELECT digest, '', locks, quarantine FROM manifests WHERE repository = $1 AND digest IN ` + holding + ` AND (locks & $3) <> 0 LIMIT 1`,
		`SELECT t.digest, t.name, t.locks, m.quarantine FROM tags t JOIN manifests m ON m.repository = t.repository AND m.digest = t.digest
 WHERE t.repository = $1 AND t.digest IN ` + holding + ` AND (t.locks & $3) <> 0 LIMIT 1`,
	} {
		var by name.Digest
		var t name.Tag
		var l locks
		var state string
		err := tx.Row(q, repository, string(d), int64(noChange)).Scan(&by, &t, &l, &state)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		what := manifestCalled(repo, by)
		if t != "" {
			what = tagCalled(repo, t)
		}
		unseen, err := s.unseen(tx, c, row, state)
		if err != nil {
			return err
		}
		if by != d && !unseen {
			what += " (which needs " + string(d) + " or refers to it)"
		}
		return lockOf(l, what, unseen, repo)
	}
	return nil
}

// unseen reports whether content in that state of quarantine is kept from the call's sight.
func (s *Service) unseen(tx *meta.Tx, c oci.Call, row meta.RegistryRow, state string) (bool, error) {
	if !held(state) {
		return false, nil
	}
	c.Registry = row
	seen, err := s.sees(tx, c)
	return !seen, err
}

// empty reports whether all that a repository holds is kept from the call's sight.
func (s *Service) empty(tx *meta.Tx, c oci.Call, row meta.RegistryRow, repository string) (bool, error) {
	c.Registry = row
	visible, err := s.visible(tx, c)
	if err != nil || visible == "" {
		return false, err
	}
	var one int
	err = tx.Row(`SELECT 1 FROM manifests m WHERE m.repository = $1`+visible+` LIMIT 1`, repository).Scan(&one)
	if errors.Is(err, meta.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// unneeded refuses to delete a blob that a locked image needs, or one that can still be restored.
func (s *Service) unneeded(tx *meta.Tx, c oci.Call, row meta.RegistryRow, repository string, repo name.Repository, d name.Digest) error {
	if err := s.unlocked(tx, c, row, repository, repo, d); err != nil {
		return err
	}
	var by name.Digest
	var state string
	err := tx.Row(`SELECT digest, quarantine FROM deleted_manifests WHERE repository = $1 AND digest IN `+holding+` LIMIT 1`, repository, string(d)).Scan(&by, &state)
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	}
	unseen := false
	if err == nil {
		unseen, err = s.unseen(tx, c, row, state)
	}
	if err != nil {
		return err
	}
	what := manifestCalled(repo, by)
	if unseen {
		what = "content in quarantine"
	}
	return fault.New(fault.Unsupported, "The blob %s can't be deleted: %s was deleted and can be restored with it until the days of the registry's softDeletePolicy are over. It goes by itself then.", d, what)
}

// referring are the manifests that refer to one, and to those, as many as limit says.
func referring(tx *meta.Tx, repository string, d name.Digest, limit int) (list []name.Digest, err error) {
	rows, err := tx.Query(`SELECT digest FROM (`+going+` SELECT digest FROM going LIMIT $3) AS g WHERE digest <> $2`, repository, string(d), limit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m name.Digest
		if err := rows.Scan(&m); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	slices.Sort(list)
	return list, rows.Err()
}

// dropOrPutAside removes a manifest and its tags from sight: for good, or, where the registry's softDeletePolicy says so, for a while.
func dropOrPutAside(tx *meta.Tx, row meta.RegistryRow, repository string, d name.Digest) error {
	if row.SoftDelete {
		return putAside(tx, repository, d)
	}
	return dropManifest(tx, repository, d)
}

// dropManifest removes a manifest's rows.
func dropManifest(tx *meta.Tx, repository string, d name.Digest) error {
	// What it named is not collected at once: somebody may be about to name it again.
	if _, err := tx.Exec(`UPDATE blob_links SET touched_us = $1 WHERE repository = $2 AND digest IN (SELECT child FROM manifest_refs WHERE repository = $2 AND digest = $3)`,
		meta.Micros(tx.Now()), repository, string(d)); err != nil {
		return err
	}
	for _, query := range []string{
		`DELETE FROM tags WHERE repository = $1 AND digest = $2`,
		`DELETE FROM cached_tags WHERE repository = $1 AND digest = $2`,
		`DELETE FROM manifest_refs WHERE repository = $1 AND digest = $2`,
		`DELETE FROM manifests WHERE repository = $1 AND digest = $2`,
	} {
		if _, err := tx.Exec(query, repository, string(d)); err != nil {
			return err
		}
	}
	return nil
}

// DeleteTag removes a tag. Errors: see oci.Deleter.
func (s *Service) DeleteTag(ctx context.Context, c oci.Call, repo name.Repository, t name.Tag) error {
	gone := unknownManifest(name.Reference{Repository: repo, Tag: t})
	return s.remove(ctx, c, repo, gone, func(tx *meta.Tx, row meta.RegistryRow, id string) (string, name.Digest, error) {
		was, err := tagAt(tx, id, t)
		if err == nil && was.digest == "" {
			err = gone
		}
		if err == nil {
			err = s.hidden(tx, c, row, id, name.Reference{Repository: repo, Tag: t}, gone)
		}
		if err == nil {
			err = was.locks.forbids(noChange, tagCalled(repo, t))
		}
		if err == nil {
			err = dropTag(tx, row, id, t)
		}
		if err == nil {
			err = untagged(tx, id, was.digest)
		}
		return string(t), was.digest, err
	})
}

// DeleteRepository removes a repository with all it holds, and tells what the caller could see of that. Errors: see oci.Deleter.
func (s *Service) DeleteRepository(ctx context.Context, c oci.Call, repo name.Repository) (seen oci.Deleted, err error) {
	var gone oci.Deleted
	hidden := ""
	err = s.remove(ctx, c, repo, unknownRepository(repo), func(tx *meta.Tx, row meta.RegistryRow, id string) (string, name.Digest, error) {
		gone, seen, hidden = oci.Deleted{}, oci.Deleted{}, ""
		told := c
		told.Registry = row
		all, err := s.sees(tx, told)
		if err != nil {
			return "", "", err
		}
		unseen := map[name.Digest]bool{}
		var locked error
		forbids := func(l locks, what string, of name.Digest) {
			if locked == nil {
				locked = lockOf(l, what, unseen[of], repo)
			}
		}
		rows, err := tx.Query(`SELECT digest, locks, quarantine FROM manifests WHERE repository = $1 ORDER BY digest`, id)
		if err != nil {
			return "", "", err
		}
		for rows.Next() {
			var d name.Digest
			var l locks
			var state string
			if err = rows.Scan(&d, &l, &state); err == nil {
				unseen[d] = held(state) && !all
				forbids(l, manifestCalled(repo, d), d)
			}
			if err != nil {
				return "", "", errors.Join(err, rows.Close())
			}
			gone.Manifests = append(gone.Manifests, d)
			if !unseen[d] {
				seen.Manifests = append(seen.Manifests, d)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return "", "", err
		}
		if rows, err = tx.Query(`SELECT name, locks, digest FROM tags WHERE repository = $1 ORDER BY name`, id); err != nil {
			return "", "", err
		}
		for rows.Next() {
			var t name.Tag
			var l locks
			var d name.Digest
			if err = rows.Scan(&t, &l, &d); err == nil {
				forbids(l, tagCalled(repo, t), d)
			}
			if err != nil {
				return "", "", errors.Join(err, rows.Close())
			}
			gone.Tags = append(gone.Tags, t)
			if !unseen[d] {
				seen.Tags = append(seen.Tags, t)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return "", "", err
		}
		if seen.Manifests == nil { // to the caller it holds nothing
			return "", "", unknownRepository(repo)
		}
		if locked != nil {
			return "", "", locked
		}
		if row.SoftDelete {
			err = putAllAside(tx, id)
		} else {
			hidden, err = hide(tx, id)
		}
		return "repository", "", errors.Join(err, tellRepositoryDelete(tx, c, repo, gone))
	})
	if err == nil && hidden != "" {
		if left := s.drop(ctx, hidden); left != nil {
			s.log.Info("the rest of a deleted repository is left to its job", "repository", string(repo), "err", left)
		}
	}
	return seen, err
}

// lockOf refuses to delete what is locked, without its name to a caller who does not see it.
func lockOf(l locks, what string, unseen bool, repo name.Repository) error {
	if unseen {
		what = "content in quarantine in " + repositoryCalled(repo)
	}
	return l.forbids(noChange, what)
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

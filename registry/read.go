// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

// blobIn describes a blob that a repository holds. Errors: BlobUnknown.
func blobIn(tx *meta.Tx, registry string, repo name.Repository, d name.Digest) (oci.Descriptor, error) {
	found := oci.Descriptor{Digest: d, MediaType: "application/octet-stream"}
	var own locks
	err := tx.Row(`SELECT l.size, r.locks FROM repositories r JOIN blob_links l ON l.repository = r.id
 WHERE r.registry = $1 AND r.name = $2 AND l.digest = $3`, registry, string(repo), string(d)).Scan(&found.Size, &own)
	if errors.Is(err, meta.ErrNotFound) {
		return found, fault.New(fault.BlobUnknown, "The blob %s is not known to the repository.", d).
			Carrying(map[string]string{"digest": string(d)})
	}
	if err == nil {
		err = own.forbids(noRead, repositoryCalled(repo))
	}
	return found, err
}

// manifestIn describes a manifest that a repository holds, by digest if there is one, else by tag. Errors: ManifestUnknown, TagUnknown.
func manifestIn(tx *meta.Tx, registry string, at name.Reference) (oci.Descriptor, error) {
	found, _, err := resolve(tx, registry, at)
	return found, err
}

// resolve is manifestIn that also tells whether it was found by a tag that came from an upstream and is to be asked for again.
func resolve(tx *meta.Tx, registry string, at name.Reference) (found oci.Descriptor, due bool, err error) {
	var row *meta.Row
	var of, own, tagged locks
	var state string
	if at.Digest != "" {
		row = tx.Row(`SELECT m.digest, m.media_type, m.size, m.quarantine, r.locks, m.locks, 0, 0 FROM repositories r JOIN manifests m ON m.repository = r.id
 WHERE r.registry = $1 AND r.name = $2 AND m.digest = $3`, registry, string(at.Repository), string(at.Digest))
	} else {
		row = tx.Row(`SELECT m.digest, m.media_type, m.size, m.quarantine, r.locks, m.locks, t.locks, COALESCE(c.due_us, 0) FROM repositories r JOIN tags t ON t.repository = r.id
 JOIN manifests m ON m.repository = r.id AND m.digest = t.digest LEFT JOIN cached_tags c ON c.repository = r.id AND c.name = t.name AND c.digest = t.digest
 WHERE r.registry = $1 AND r.name = $2 AND t.name = $3`, registry, string(at.Repository), string(at.Tag))
	}
	var when int64
	err = row.Scan(&found.Digest, &found.MediaType, &found.Size, &state, &of, &own, &tagged, &when)
	found.Quarantined = held(state)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return found, false, unknownManifest(at)
	case err == nil && (of|own|tagged)&noRead != 0:
		err = errors.Join(of.forbids(noRead, repositoryCalled(at.Repository)), own.forbids(noRead, manifestCalled(at.Repository, found.Digest)),
			tagged.forbids(noRead, tagCalled(at.Repository, at.Tag)))
	}
	return found, when != 0 && when <= meta.Micros(tx.Now()), err
}

// held reports whether a state of quarantine keeps a manifest from sight.
func held(state string) bool { return state != "" && state != oci.Passed }

// notHeld is the condition that a manifest m is not kept from sight.
const notHeld = ` AND m.quarantine IN ('', 'Passed')`

// sees reports whether a call sees what is in quarantine: all do where the policy is off.
func (s *Service) sees(tx *meta.Tx, c oci.Call) (bool, error) {
	if !c.Registry.Quarantine {
		return true, nil
	}
	return s.identity.CanQuarantine(tx, c.Caller, c.Registry, false)
}

// visible is the condition on manifests m that a call may see.
func (s *Service) visible(tx *meta.Tx, c oci.Call) (string, error) {
	if seen, err := s.sees(tx, c); seen || err != nil {
		return "", err
	}
	return notHeld, nil
}

func unknownRepository(repo name.Repository) error {
	return fault.New(fault.NameUnknown, "repository name not known to registry").Carrying(map[string]string{"name": string(repo)})
}

func unknownManifest(at name.Reference) error {
	if at.Digest != "" {
		return fault.New(fault.ManifestUnknown, "manifest %s is not found", at.Digest).Carrying(map[string]string{"name": string(at.Repository), "digest": string(at.Digest)})
	}
	return fault.New(fault.TagUnknown, "manifest tagged by %q is not found", string(at.Tag)).
		Carrying(map[string]string{"name": string(at.Repository), "tag": string(at.Tag)})
}

// Holding is content that some registry holds: one of those that do, and where the content lies.
type Holding struct {
	Registry, Object string
	Digest           name.Digest
	Size             int64
}

// Holdings visits all content that a repository of a registry that exists holds, each digest once.
func (s *Service) Holdings(tx *meta.Tx, visit func(h Holding) error) error {
	// The one place where another package's table (blobs) is joined: one query, whatever the number of digests.
	rows, err := tx.Query(`SELECT l.digest, MIN(r.registry), b.object_key, b.size FROM (SELECT repository, digest FROM blob_links UNION SELECT repository, digest FROM manifests UNION SELECT repository, digest FROM deleted_manifests) l
 JOIN repositories r ON r.id = l.repository JOIN registries g ON g.id = r.registry JOIN blobs b ON b.digest = l.digest GROUP BY l.digest, b.object_key, b.size`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var h Holding
		if err := rows.Scan(&h.Digest, &h.Registry, &h.Object, &h.Size); err != nil {
			return err
		}
		if err := visit(h); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Blob releases a blob. Errors: see oci.Reader.
func (s *Service) Blob(ctx context.Context, c oci.Call, repo name.Repository, d name.Digest) (oci.Descriptor, oci.Content, error) {
	at := name.Reference{Repository: repo, Digest: d}
	var found oci.Descriptor
	var content oci.Content
	err := s.through(ctx, c, at, true, func(bool) (err error) {
		found, content, err = s.releasePull(ctx, c, visibleBlob(c, repo, d))
		return err
	})
	return found, content, err
}

// visibleBlob is the wish for a blob's content: one that only content in quarantine names is there for those alone who see that.
func visibleBlob(c oci.Call, repo name.Repository, d name.Digest) wish {
	w := blobWish(c, repo, d)
	w.hides = func(tx *meta.Tx, c oci.Call) error {
		var one int
		err := tx.Row(`SELECT 1 FROM repositories r JOIN manifest_refs f ON f.repository = r.id JOIN manifests m ON m.repository = r.id AND m.digest = f.digest
 WHERE r.registry = $1 AND r.name = $2 AND f.child = $3`+notHeld+` LIMIT 1`, c.Registry.ID, string(repo), string(d)).Scan(&one)
		if errors.Is(err, meta.ErrNotFound) { // only what is in quarantine names it, or nothing
			err = fault.New(fault.BlobUnknown, "The blob %s is not known to the repository.", d).Carrying(map[string]string{"digest": string(d)})
		}
		return err
	}
	return w
}

// StatBlob describes a blob. Errors: see oci.Reader.
func (s *Service) StatBlob(ctx context.Context, c oci.Call, repo name.Repository, d name.Digest) (oci.Descriptor, error) {
	var found oci.Descriptor
	err := s.through(ctx, c, name.Reference{Repository: repo, Digest: d}, true, func(bool) (err error) {
		found, err = s.releaseLook(ctx, c, blobWish(c, repo, d))
		return err
	})
	return found, err
}

func blobWish(c oci.Call, repo name.Repository, d name.Digest) wish {
	return wish{repo: repo, find: func(tx *meta.Tx) (oci.Descriptor, error) { return blobIn(tx, c.Registry.ID, repo, d) }}
}

// Manifest releases a manifest. Errors: see oci.Reader.
func (s *Service) Manifest(ctx context.Context, c oci.Call, at name.Reference, accepts func(string) bool) (oci.Descriptor, oci.Content, error) {
	var found oci.Descriptor
	var content oci.Content
	err := s.through(ctx, c, at, false, func(old bool) (err error) {
		found, content, err = s.releasePull(ctx, c, manifestWish(c, at, accepts, old))
		return err
	})
	return found, content, err
}

// StatManifest describes a manifest. Errors: see oci.Reader.
func (s *Service) StatManifest(ctx context.Context, c oci.Call, at name.Reference, accepts func(string) bool) (oci.Descriptor, error) {
	var found oci.Descriptor
	err := s.through(ctx, c, at, false, func(old bool) (err error) {
		found, err = s.releaseLook(ctx, c, manifestWish(c, at, accepts, old))
		return err
	})
	return found, err
}

// manifestWish asks for a manifest; one by a tag that is due at its upstream only if an old one will do.
func manifestWish(c oci.Call, at name.Reference, accepts func(string) bool, old bool) wish {
	return wish{repo: at.Repository, reference: string(at.Tag), find: func(tx *meta.Tx) (oci.Descriptor, error) {
		d, due, err := resolve(tx, c.Registry.ID, at)
		if err == nil && due && !old {
			err = errDue
		}
		if err == nil && accepts != nil && !accepts(d.MediaType) {
			err = fault.New(fault.ManifestUnknown, "The manifest %s is there, but the Accept header does not take its media type %s.", d.Digest, d.MediaType)
		}
		return d, err
	}}
}

const (
	// referrersLimit and referrersBytes bound one page of the referrers API.
	referrersLimit = 2000
	referrersBytes = 3 << 20
)

// Referrers lists what refers to a subject. Errors: see oci.Reader.
func (s *Service) Referrers(ctx context.Context, c oci.Call, repo name.Repository, d name.Digest, artifactType string, after name.Digest) ([]oci.Descriptor, bool, error) {
	var list []oci.Descriptor
	more := false
	err := s.releaseNames(ctx, c, repo, "referrers/"+string(d), func(tx *meta.Tx, c oci.Call) error {
		list, more = nil, false
		r, err := find(tx, c.Registry.ID, repo)
		if err != nil || r.id == "" {
			return err
		}
		visible, err := s.visible(tx, c)
		if err != nil {
			return err
		}
		by := bytewise(tx, "digest")
		rows, err := tx.Query(`SELECT digest, media_type, artifact_type, annotations, size FROM manifests m
 WHERE repository = $1 AND subject = $2 AND `+by+` > $3 AND ($4 = '' OR artifact_type = $5) AND (locks & 12) = 0`+visible+` ORDER BY `+by+` LIMIT $6`,
			r.id, string(d), string(after), artifactType, artifactType, referrersLimit+1)
		if err != nil {
			return err
		}
		defer rows.Close()
		bytes := 0
		for rows.Next() {
			if len(list) == referrersLimit || bytes > referrersBytes {
				more = true
				break
			}
			var r oci.Descriptor
			var annotations string
			if err := rows.Scan(&r.Digest, &r.MediaType, &r.ArtifactType, &annotations, &r.Size); err != nil {
				return err
			}
			if annotations != "" {
				if err := json.Unmarshal([]byte(annotations), &r.Annotations); err != nil {
					return err
				}
			}
			bytes += len(annotations) + len(r.MediaType) + len(r.ArtifactType) + 200
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, more, err
}

// Tags lists tags. Errors: see oci.Lister.
func (s *Service) Tags(ctx context.Context, c oci.Call, repo name.Repository, last string, n int) ([]string, bool, error) {
	var list []string
	more := false
	err := s.releaseNames(ctx, c, repo, "tags/list", func(tx *meta.Tx, c oci.Call) error {
		visible, err := s.visible(tx, c)
		if err != nil {
			return err
		}
		var id string
		err = tx.Row(`SELECT id FROM repositories WHERE registry = $1 AND name = $2
 AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = repositories.id`+visible+`)`, c.Registry.ID, string(repo)).Scan(&id)
		if errors.Is(err, meta.ErrNotFound) {
			return unknownRepository(repo)
		}
		if err != nil {
			return err
		}
		by := bytewise(tx, "name")
		list, more, err = names(tx, n, `SELECT name FROM tags WHERE repository = $1 AND `+by+` > $2 AND (locks & 4) = 0`+ofTags(visible)+` ORDER BY `+by+` LIMIT $3`, id, last)
		return err
	})
	return list, more, err
}

// names reads at most n names; query's last parameter is its limit.
func names(tx *meta.Tx, n int, query string, args ...any) (list []string, more bool, err error) {
	if n <= 0 {
		return nil, false, nil
	}
	rows, err := tx.Query(query, append(args, n+1)...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() {
		if len(list) == n {
			return list, true, nil
		}
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, false, err
		}
		list = append(list, s)
	}
	return list, false, rows.Err()
}

// Repositories lists repositories. Errors: see oci.Lister.
func (s *Service) Repositories(ctx context.Context, c oci.Call, last string, n int, may func(*meta.Tx, name.Repository) (bool, error)) ([]string, bool, error) {
	var list []string
	more := false
	err := s.releaseNames(ctx, c, "", "_catalog", func(tx *meta.Tx, c oci.Call) error {
		list, more = nil, false
		visible, err := s.visible(tx, c)
		if err != nil {
			return err
		}
		by := bytewise(tx, "name")
		// Where the caller may read few of many, each batch is larger than the one before.
		for from, rest, size := last, n > 0, n+1; rest; size = max(size, min(2*size, 1000)) {
			var batch []string
			var err error
			batch, rest, err = names(tx, size, `SELECT name FROM repositories WHERE registry = $1 AND `+by+` > $2 AND (locks & 4) = 0
 AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = repositories.id`+visible+`) ORDER BY `+by+` LIMIT $3`, c.Registry.ID, from)
			if err != nil {
				return err
			}
			for _, repo := range batch {
				from = repo
				ok, err := may(tx, name.Repository(repo))
				if err != nil {
					return err
				}
				if !ok {
					continue
				}
				if len(list) == n {
					more = true
					return nil
				}
				list = append(list, repo)
			}
		}
		return nil
	})
	return list, more, err
}

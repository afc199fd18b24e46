// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

// upload is a blob on its way into a repository.
type upload struct {
	s    *Service
	c    oci.Call
	repo name.Repository
	u    *blob.Upload
}

// owner names the repository to the blob store; the repository itself begins with its first content.
func owner(c oci.Call, repo name.Repository) string { return c.Registry.ID + "/" + string(repo) }

// Begin starts an upload. Errors: see oci.Writer.
func (s *Service) Begin(ctx context.Context, c oci.Call, repo name.Repository) (oci.Upload, error) {
	u, err := s.blobs.Begin(ctx, owner(c, repo))
	if err != nil {
		return nil, err
	}
	return &upload{s, c, repo, u}, nil
}

// Upload finds an upload. Errors: see oci.Writer.
func (s *Service) Upload(ctx context.Context, c oci.Call, repo name.Repository, id string) (oci.Upload, error) {
	u, err := s.blobs.Upload(ctx, owner(c, repo), id)
	if err != nil {
		return nil, err
	}
	return &upload{s, c, repo, u}, nil
}

func (u *upload) ID() string    { return u.u.ID }
func (u *upload) Offset() int64 { return u.u.Offset }

func (u *upload) Append(ctx context.Context, r io.Reader) (int64, error) { return u.u.Append(ctx, r) }
func (u *upload) Cancel(ctx context.Context) error                       { return u.u.Cancel(ctx) }

// Finish makes the upload a blob of the repository: the bytes are durable before the rows are.
func (u *upload) Finish(ctx context.Context, want name.Digest, rest io.Reader) error {
	sealed, err := u.u.Seal(ctx, want, rest)
	if err != nil {
		return err
	}
	return u.s.db.Write(ctx, func(tx *meta.Tx) error {
		row, err := live(tx, u.c)
		if err != nil {
			return err
		}
		id, err := u.s.open(tx, row.ID, u.repo)
		if err != nil {
			return err
		}
		if err := u.s.blobs.Commit(tx, sealed); err != nil {
			return err
		}
		if err := linkBlob(tx, id, sealed.Digest, sealed.Size); err != nil {
			return err
		}
		r := record(row, u.c, actionPush, u.repo)
		r.Digest, r.Bytes = string(sealed.Digest), sealed.Size
		return u.s.audit.Append(tx, r)
	})
}

// linkBlob makes stored content a member of a repository. Doing it again changes nothing.
func linkBlob(tx *meta.Tx, repository string, d name.Digest, size int64) error {
	_, err := tx.Exec(`INSERT INTO blob_links (repository, digest, size, created_us) VALUES ($1, $2, $3, $4) ON CONFLICT (repository, digest) DO NOTHING`,
		repository, string(d), size, meta.Micros(tx.Now()))
	return err
}

// PutManifest stores a manifest. Errors: see oci.Writer.
func (s *Service) PutManifest(ctx context.Context, c oci.Call, at name.Reference, mediaType string, content []byte) (oci.Pushed, error) {
	m, err := parseManifest(mediaType, content)
	if err != nil {
		return oci.Pushed{}, err
	}
	sealed, err := s.blobs.Put(ctx, content, at.Digest)
	if err != nil {
		return oci.Pushed{}, err
	}
	err = s.db.Write(ctx, func(tx *meta.Tx) error { return s.putManifest(tx, c, at, m, sealed) })
	if err != nil {
		// Only a refusal says for certain that nothing was committed; otherwise the bytes stay, and are garbage at worst.
		var refused *fault.Fault
		if errors.As(err, &refused) {
			s.blobs.Discard(sealed)
		}
		return oci.Pushed{}, err
	}
	return oci.Pushed{Digest: sealed.Digest, Subject: m.subject}, nil
}

func (s *Service) putManifest(tx *meta.Tx, c oci.Call, at name.Reference, m manifest, sealed blob.Sealed) error {
	row, err := live(tx, c)
	if err != nil {
		return err
	}
	id, err := s.take(tx, row.ID, at.Repository)
	if err != nil {
		return err
	}
	if err := holds(tx, id, m.refs); err != nil {
		return err
	}
	if err := s.blobs.Commit(tx, sealed); err != nil {
		return err
	}
	if err := insertManifest(tx, id, m, sealed.Digest, sealed.Size); err != nil {
		return err
	}
	r := record(row, c, actionPush, at.Repository)
	r.Reference, r.Digest, r.MediaType, r.Bytes = string(at.Tag), string(sealed.Digest), m.mediaType, sealed.Size
	if at.Tag != "" {
		was, err := setTag(tx, id, at.Tag, sealed.Digest)
		if err != nil {
			return err
		}
		if r.Before, err = tagBefore(was); err != nil {
			return err
		}
	}
	return s.audit.Append(tx, r)
}

// holds checks that a repository has all that a manifest names. Errors: ManifestBlobUnknown, ManifestUnknown.
func holds(tx *meta.Tx, repository string, refs []ref) error {
	var missing []*fault.Fault
	for _, r := range refs {
		ok, err := member(tx, repository, r)
		if err != nil {
			return err
		}
		if ok {
			continue
		}
		detail := map[string]string{"digest": string(r.digest)}
		if r.kind == refManifest {
			missing = append(missing, fault.New(fault.ManifestUnknown, "The index names the manifest %s, which the repository does not hold: push it first.", r.digest).Carrying(detail))
		} else {
			missing = append(missing, fault.New(fault.ManifestBlobUnknown, "The manifest names the %s %s, which the repository does not hold: push it first.", r.kind, r.digest).Carrying(detail))
		}
		if len(missing) == 20 {
			break
		}
	}
	return fault.Join(missing)
}

// member tells whether a repository has what a manifest names. An index may name a blob: caches of builds do.
func member(tx *meta.Tx, repository string, r ref) (bool, error) {
	var one int
	if r.kind == refManifest {
		err := tx.Row(`SELECT 1 FROM manifests WHERE repository = $1 AND digest = $2`, repository, string(r.digest)).Scan(&one)
		if err == nil || !errors.Is(err, meta.ErrNotFound) {
			return err == nil, err
		}
	}
	err := tx.Row(`SELECT 1 FROM blob_links WHERE repository = $1 AND digest = $2`, repository, string(r.digest)).Scan(&one)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// insertManifest adds a manifest's rows. One that is there already stays as it is: its bytes are the same.
func insertManifest(tx *meta.Tx, repository string, m manifest, d name.Digest, size int64) error {
	n, err := tx.Exec(`INSERT INTO manifests (repository, digest, media_type, artifact_type, subject, annotations, config_digest, size, created_us)
 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (repository, digest) DO NOTHING`,
		repository, string(d), m.mediaType, m.artifactType, string(m.subject), m.annotations, string(m.config), size, meta.Micros(tx.Now()))
	if err != nil || n == 0 {
		return err
	}
	for _, r := range m.refs {
		_, err := tx.Exec(`INSERT INTO manifest_refs (repository, digest, child, kind) VALUES ($1, $2, $3, $4) ON CONFLICT (repository, digest, child, kind) DO NOTHING`,
			repository, string(d), string(r.digest), r.kind)
		if err != nil {
			return err
		}
	}
	return nil
}

// setTag points a tag to a manifest and tells where it pointed before, "" when it is new.
func setTag(tx *meta.Tx, repository string, t name.Tag, d name.Digest) (was name.Digest, err error) {
	was, _, err = tagAt(tx, repository, t)
	if err != nil {
		return "", err
	}
	now := meta.Micros(tx.Now())
	_, err = tx.Exec(`INSERT INTO tags (repository, name, digest, created_us, updated_us) VALUES ($1, $2, $3, $4, $5)
 ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest, updated_us = excluded.updated_us`,
		repository, string(t), string(d), now, now)
	return was, err
}

// tagAt is where a tag points and when (µs) it was last set; "" when there is no such tag.
func tagAt(tx *meta.Tx, repository string, t name.Tag) (name.Digest, int64, error) {
	var d name.Digest
	var updated int64
	err := tx.Row(`SELECT digest, updated_us FROM tags WHERE repository = $1 AND name = $2`, repository, string(t)).Scan(&d, &updated)
	if errors.Is(err, meta.ErrNotFound) {
		return "", 0, nil
	}
	return d, updated, err
}

// tagBefore is the state that a record of a moved tag tells.
func tagBefore(was name.Digest) (json.RawMessage, error) {
	if was == "" {
		return nil, nil
	}
	return json.Marshal(map[string]string{"digest": string(was)})
}

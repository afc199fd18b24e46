// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/embargo-registry/embargo/audit"
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

func (u *upload) Append(ctx context.Context, r io.Reader) (int64, error) {
	part, done := u.s.bounded(ctx, u, r, false)
	defer done()
	return u.u.Append(ctx, part)
}

func (u *upload) Cancel(ctx context.Context) error { return u.u.Cancel(ctx) }

// Finish makes the upload a blob of the repository: the bytes are durable before the rows are.
func (u *upload) Finish(ctx context.Context, want name.Digest, rest io.Reader) error {
	rest, done := u.s.bounded(ctx, u, rest, true)
	defer done()
	return u.u.Seal(ctx, want, rest, func(sealed blob.Sealed) error {
		return u.s.db.Write(ctx, func(tx *meta.Tx) error { return u.commit(tx, sealed) })
	})
}

func (u *upload) commit(tx *meta.Tx, sealed blob.Sealed) error {
	row, err := live(tx, u.c)
	if err == nil {
		err = u.s.quota.room(tx, row, oci.Descriptor{Digest: sealed.Digest, Size: sealed.Size})
	}
	if err != nil {
		return err
	}
	r, err := u.s.open(tx, row.ID, u.repo)
	if err != nil {
		return err
	}
	if err := u.s.blobs.Commit(tx, sealed); err != nil {
		return err
	}
	if err := linkBlob(tx, r.id, sealed.Digest, sealed.Size); err != nil {
		return err
	}
	note := record(row, u.c, actionPush, u.repo)
	note.Digest, note.Bytes = string(sealed.Digest), sealed.Size
	return u.s.audit.Append(tx, note)
}

// linkBlob makes stored content a member of a repository. Doing it again keeps it from being collected for a while.
func linkBlob(tx *meta.Tx, repository string, d name.Digest, size int64) error {
	_, err := tx.Exec(`INSERT INTO blob_links (repository, digest, size, created_us, touched_us) VALUES ($1, $2, $3, $4, $5)
 ON CONFLICT (repository, digest) DO UPDATE SET touched_us = excluded.touched_us`,
		repository, string(d), size, meta.Micros(tx.Now()), meta.Micros(tx.Now()))
	return err
}

// PutManifest stores a manifest and points tags to it. Errors: see oci.Writer.
func (s *Service) PutManifest(ctx context.Context, c oci.Call, at name.Reference, tags []name.Tag, mediaType string, content []byte) (oci.Pushed, error) {
	m, err := parseManifest(mediaType, content)
	if err != nil {
		return oci.Pushed{}, err
	}
	s.platform(ctx, &m)
	sealed, err := s.blobs.Put(ctx, content, at.Digest)
	if err != nil {
		return oci.Pushed{}, err
	}
	if at.Tag != "" {
		tags = []name.Tag{at.Tag}
	}
	err = s.db.Write(ctx, func(tx *meta.Tx) error { return s.putManifest(tx, c, at.Repository, tags, m, sealed) })
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

// configLimit is the largest configuration of an image that is read for its platform.
const configLimit = 1 << 20

// platform finds what an image runs on. That its repository holds the configuration is checked when the manifest is stored.
func (s *Service) platform(ctx context.Context, m *manifest) {
	if m.configType != mediaConfig && m.configType != mediaDockerConfig {
		return
	}
	content, err := s.blobs.Inspect(ctx, m.config, configLimit)
	var config struct{ Architecture, OS string }
	if err != nil || json.Unmarshal(content, &config) != nil {
		return // it is shown without a platform, or refused for what it lacks
	}
	m.architecture, m.os = plain(config.Architecture), plain(config.OS)
}

// plain is a short text without control characters: no database keeps a NUL in a text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, clip(s))
}

func (s *Service) putManifest(tx *meta.Tx, c oci.Call, repo name.Repository, tags []name.Tag, m manifest, sealed blob.Sealed) error {
	row, err := live(tx, c)
	if err == nil {
		err = s.quota.room(tx, row, oci.Descriptor{Digest: sealed.Digest, Size: sealed.Size})
	}
	if err != nil {
		return err
	}
	to, err := s.take(tx, row.ID, repo)
	if err != nil {
		return err
	}
	if m.refs, err = holds(tx, to.id, m.refs); err != nil {
		return err
	}
	if err := s.blobs.Commit(tx, sealed); err != nil {
		return err
	}
	if row.Quarantine {
		m.quarantine = oci.Quarantined
	}
	if err := s.insertManifest(tx, c, record(row, c, actionPush, repo), to.id, m, sealed.Digest, sealed.Size); err != nil {
		return err
	}
	if err := tellPush(tx, to.id, sealed.Digest, tags, eventOf(c, http.MethodPut, repo)); err != nil {
		return err
	}
	note := record(row, c, actionPush, repo)
	note.Digest, note.MediaType, note.Bytes = string(sealed.Digest), m.mediaType, sealed.Size
	if len(tags) == 0 {
		return s.audit.Append(tx, note)
	}
	for _, t := range tags {
		was, err := setTag(tx, to.id, name.Reference{Repository: repo, Tag: t, Digest: sealed.Digest})
		if err != nil {
			return err
		}
		tagged := note
		tagged.Reference = string(t)
		if tagged.Before, err = tagBefore(was); err != nil {
			return err
		}
		if err := s.audit.Append(tx, tagged); err != nil {
			return err
		}
	}
	return nil
}

// holds checks that a repository has all that a manifest names. Errors: ManifestBlobUnknown, ManifestUnknown.
func holds(tx *meta.Tx, repository string, refs []ref) (here []ref, err error) {
	var missing []*fault.Fault
	for _, r := range refs {
		size, ok, err := member(tx, repository, r)
		if err != nil {
			return nil, err
		}
		if ok && size == r.size {
			here = append(here, r)
			continue
		}
		if r.elsewhere {
			continue
		}
		if ok {
			return nil, fault.New(fault.ManifestInvalid, "The manifest says that the %s %s has %d bytes, but it has %d.", r.kind, r.digest, r.size, size)
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
	return here, fault.Join(missing)
}

// member tells whether a repository has what a manifest names, and its size. An index may name a blob: caches of builds do.
func member(tx *meta.Tx, repository string, r ref) (size int64, ok bool, err error) {
	if r.kind == refManifest {
		err := tx.Row(`SELECT size FROM manifests WHERE repository = $1 AND digest = $2`, repository, string(r.digest)).Scan(&size)
		if err == nil || !errors.Is(err, meta.ErrNotFound) {
			return size, err == nil, err
		}
	}
	err = tx.Row(`SELECT size FROM blob_links WHERE repository = $1 AND digest = $2`, repository, string(r.digest)).Scan(&size)
	if errors.Is(err, meta.ErrNotFound) {
		return 0, false, nil
	}
	return size, err == nil, err
}

// pushedAgain is for a manifest that is there: what has no tag counts as new.
const pushedAgain = ` ON CONFLICT (repository, digest) DO UPDATE SET untagged_us = excluded.untagged_us, pushed_us = excluded.pushed_us WHERE manifests.untagged_us <> 0`

// insertManifest adds a manifest's rows, without a tag. One that is there already stays as it is, because its bytes are the same, but what it names may have come since.
func (s *Service) insertManifest(tx *meta.Tx, c oci.Call, note audit.Record, repository string, m manifest, d name.Digest, size int64) error {
	now := meta.Micros(tx.Now())
	_, err := tx.Exec(`INSERT INTO manifests (repository, digest, media_type, artifact_type, subject, annotations, config_digest, size, created_us,
  config_media_type, architecture, os, image_size, updated_us, untagged_us, pushed_us, quarantine)
 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16)`+pushedAgain,
		repository, string(d), m.mediaType, m.artifactType, string(m.subject), m.annotations, string(m.config), size, now,
		m.configType, m.architecture, m.os, m.total+size, now, now, m.quarantine)
	if err != nil {
		return err
	}
	if err := notDeleted(tx, repository, d); err != nil {
		return err
	}
	news := int64(0)
	for _, r := range m.refs {
		n, err := tx.Exec(`INSERT INTO manifest_refs (repository, digest, child, kind) VALUES ($1, $2, $3, $4) ON CONFLICT (repository, digest, child, kind) DO NOTHING`,
			repository, string(d), string(r.digest), r.kind)
		if err != nil {
			return err
		}
		news += n
	}
	if news == 0 || m.quarantine == "" {
		return nil
	}
	return s.holdAgain(tx, c, note, repository, d)
}

// holdAgain puts a manifest that names something new back into quarantine, on record: nobody has looked at it with that.
func (s *Service) holdAgain(tx *meta.Tx, c oci.Call, note audit.Record, repository string, d name.Digest) error {
	var was, details string
	err := tx.Row(`SELECT quarantine, quarantine_details FROM manifests WHERE repository = $1 AND digest = $2`, repository, string(d)).Scan(&was, &details)
	if err != nil || was == oci.Quarantined || was == oci.Failed {
		return err
	}
	note.Action, note.Reference = actionQuarantine, "it names what has come since"
	return s.quarantine(tx, c, note, repository, d, was, oci.Quarantined, details)
}

// setTag points a tag to a manifest and tells where it pointed before, "" when it is new. Errors: Unsupported when the tag is locked.
func setTag(tx *meta.Tx, repository string, to name.Reference) (was name.Digest, err error) {
	t, err := tagAt(tx, repository, to.Tag)
	if err != nil {
		return "", err
	}
	if err := t.locks.forbids(noWrite, tagCalled(to.Repository, to.Tag)); err != nil {
		return "", err
	}
	now := meta.Micros(tx.Now())
	_, err = tx.Exec(`INSERT INTO tags (repository, name, digest, created_us, updated_us) VALUES ($1, $2, $3, $4, $5)
 ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest, updated_us = excluded.updated_us`,
		repository, string(to.Tag), string(to.Digest), now, now)
	if err == nil && t.digest != to.Digest {
		if _, err = tx.Exec(`UPDATE manifests SET untagged_us = 0 WHERE repository = $1 AND digest = $2`, repository, string(to.Digest)); err == nil && t.digest != "" {
			err = untagged(tx, repository, t.digest)
		}
	}
	return t.digest, err
}

// untagged notes when a manifest lost its last tag, if it has none.
func untagged(tx *meta.Tx, repository string, d name.Digest) error {
	_, err := tx.Exec(`UPDATE manifests SET untagged_us = $1, pushed_us = 0 WHERE repository = $2 AND digest = $3 AND NOT EXISTS
 (SELECT 1 FROM tags WHERE repository = manifests.repository AND digest = manifests.digest)`, meta.Micros(tx.Now()), repository, string(d))
	return err
}

// tag is a tag as it is; the zero value is one that does not exist.
type tag struct {
	digest  name.Digest
	updated int64 // µs
	locks   locks
}

func tagAt(tx *meta.Tx, repository string, t name.Tag) (tag, error) {
	var found tag
	err := tx.Row(`SELECT digest, updated_us, locks FROM tags WHERE repository = $1 AND name = $2`, repository, string(t)).Scan(&found.digest, &found.updated, &found.locks)
	if errors.Is(err, meta.ErrNotFound) {
		return tag{}, nil
	}
	return found, err
}

// tagBefore is the state that a record of a moved tag tells.
func tagBefore(was name.Digest) (json.RawMessage, error) {
	if was == "" {
		return nil, nil
	}
	return json.Marshal(map[string]string{"digest": string(was)})
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/upstream"
)

// plan is what is to be fetched.
type plan struct {
	needed bool
	origin upstream.Origin
	query  upstream.Query
	// repository is the identity of ours, "" while there is none; held is the digest that a tag which is due has.
	repository string
	held       name.Digest
	damaged    bool // what is held, so that it is fetched whether the upstream's tag has moved or not
	// names is a manifest that names the blob.
	names name.Digest
}

// fetch gets from an upstream what a cache rule maps and the registry lacks. nil: it is there now, or there is nothing to fetch. Errors: upstream.ErrAbsent, and a fault of the
// gate.
func (s *Service) fetch(ctx context.Context, c oci.Call, at name.Reference, isBlob bool) error {
	var p plan
	err := s.db.Read(ctx, func(tx *meta.Tx) (err error) {
		p, err = s.plan(tx, c, at, isBlob)
		return err
	})
	if err != nil || !p.needed {
		return err
	}
	var what ref
	if isBlob {
		if what, err = s.named(ctx, p.names, at.Digest); err != nil {
			return err
		}
	}
	asking, done, err := s.releaseUpstream(ctx, c, p.origin, at)
	if err != nil {
		return err
	}
	if isBlob {
		err = s.fetchBlob(asking, c, at, p, what)
	} else {
		err = s.fetchManifest(asking, c, at, p)
	}
	done(int64(len(p.origin.Repository)+len(at.Tag)+len(at.Digest)), err == nil || errors.Is(err, upstream.ErrAbsent))
	if err != nil {
		s.log.Warn("an upstream did not serve", "upstream", p.origin.Host, "repository", string(p.origin.Repository), "reference", at.String(), "id", c.Correlation, "err", err)
	}
	if err != nil && p.held != "" {
		return errors.Join(err, s.postpone(ctx, p, at.Tag, tagRetry))
	}
	return err
}

// plan finds out what is to be fetched.
func (s *Service) plan(tx *meta.Tx, c oci.Call, at name.Reference, isBlob bool) (p plan, err error) {
	p.origin, err = upstream.OriginOf(tx, c.Registry.ID, at.Repository)
	if errors.Is(err, meta.ErrNotFound) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	r, err := find(tx, c.Registry.ID, at.Repository)
	if err != nil || r.locks&noWrite != 0 {
		return p, err
	}
	p.repository = r.id
	switch {
	case isBlob:
		p.needed, p.names, err = s.lacksBlob(tx, c.Registry.ID, r.id, at)
	case at.Digest != "":
		_, err = manifestIn(tx, c.Registry.ID, at)
		if fault.Is(err, fault.ManifestUnknown) || err == nil && s.blobs.Damaged(at.Digest) {
			p.needed, err = true, nil
		}
	default:
		p.needed, p.held, err = lacksTag(tx, r.id, at)
		p.damaged = p.held != "" && s.blobs.Damaged(p.held)
	}
	if err != nil || !p.needed {
		return p, err
	}
	p.query = upstream.Query{Host: p.origin.Host, Repository: p.origin.Repository}
	p.query.Credentials, err = s.credentials(tx, p.origin)
	return p, err
}

// lacksBlob: a blob is fetched when a manifest that the repository holds names it, also in place of one that is damaged. What nobody names is nobody's to ask for: digests made up by a client stay inside.
func (s *Service) lacksBlob(tx *meta.Tx, registry, repository string, at name.Reference) (bool, name.Digest, error) {
	if _, err := blobIn(tx, registry, at.Repository, at.Digest); !fault.Is(err, fault.BlobUnknown) && (err != nil || !s.blobs.Damaged(at.Digest)) {
		return false, "", err
	}
	var manifest name.Digest
	err := tx.Row(`SELECT digest FROM manifest_refs WHERE repository = $1 AND child = $2 AND kind <> $3 LIMIT 1`, repository, string(at.Digest), refManifest).Scan(&manifest)
	if errors.Is(err, meta.ErrNotFound) {
		return false, "", nil
	}
	return err == nil, manifest, err
}

// lacksTag: a tag is fetched when there is none, or when it came from the upstream and is due. One that was pushed here is left alone.
func lacksTag(tx *meta.Tx, repository string, at name.Reference) (bool, name.Digest, error) {
	t, err := tagAt(tx, repository, at.Tag)
	if err != nil || t.digest == "" {
		return err == nil, "", err
	}
	again, err := due(tx, repository, at.Tag, t.digest)
	return again && t.locks&noWrite == 0, t.digest, err
}

func (s *Service) credentials(tx *meta.Tx, o upstream.Origin) (upstream.Credentials, error) {
	if o.Credentials == "" {
		return upstream.Credentials{}, nil
	}
	id, host, err := upstream.FindCredentials(tx, o.Credentials)
	if err == nil && host != o.Host {
		err = meta.ErrNotFound
	}
	var c upstream.Credentials
	if err == nil {
		c, err = upstream.OpenCredentials(tx, s.cache.ring, id)
	}
	if errors.Is(err, meta.ErrNotFound) {
		err = fmt.Errorf("the credential set %s of the cache rule has no credentials for %s: they were lost with an installation key, or the set is gone", o.Credentials, o.Host)
	}
	return c, err
}

// named is how a stored manifest names a blob.
func (s *Service) named(ctx context.Context, manifest, d name.Digest) (ref, error) {
	content, err := s.blobs.Inspect(ctx, manifest, upstream.ManifestLimit)
	if err != nil {
		return ref{}, err
	}
	m, err := parseManifest("", content)
	if err != nil {
		return ref{}, err
	}
	for _, r := range m.refs {
		if r.digest == d {
			return r, nil
		}
	}
	return ref{}, fmt.Errorf("the manifest %s does not name %s", manifest, d)
}

// fetchManifest gets a manifest, unless the upstream says that the tag is still what it was.
func (s *Service) fetchManifest(ctx context.Context, c oci.Call, at name.Reference, p plan) error {
	reference := string(at.Tag)
	if at.Digest != "" {
		reference = string(at.Digest)
	}
	if p.held != "" && !p.damaged {
		d, err := s.cache.upstream.Resolve(ctx, p.query, at.Tag)
		if err != nil {
			return err
		}
		if d == p.held {
			return s.postpone(ctx, p, at.Tag, tagLife)
		}
	}
	got, err := s.cache.upstream.Manifest(ctx, p.query, reference)
	if err != nil {
		return err
	}
	want := at.Digest
	if want == "" {
		want = got.Said
	}
	media, _, _ := strings.Cut(got.MediaType, ";")
	m, err := parseManifest(strings.TrimSpace(media), got.Content)
	if err != nil {
		return distrust(err)
	}
	sealed, err := s.blobs.Put(ctx, got.Content, want)
	if err != nil {
		return distrust(err)
	}
	s.platform(ctx, &m)
	err = s.db.Write(ctx, func(tx *meta.Tx) error { return s.keepManifest(tx, c, at, p, m, sealed) })
	var refused *fault.Fault
	if errors.As(err, &refused) {
		s.blobs.Discard(sealed)
	}
	return err
}

// distrust makes what is wrong with an upstream's answer no fault of the client's.
func distrust(err error) error {
	return fmt.Errorf("the upstream's answer can't be kept: %s", err.Error())
}

// stillRuled checks, in the transaction that keeps what was fetched, that the registry and the rule are still there.
func stillRuled(tx *meta.Tx, c oci.Call, at name.Reference, p plan) (meta.RegistryRow, error) {
	row, err := live(tx, c)
	if err != nil {
		return row, err
	}
	o, err := upstream.OriginOf(tx, row.ID, at.Repository)
	if errors.Is(err, meta.ErrNotFound) || err == nil && o.ID != p.origin.ID {
		err = fault.New(fault.ManifestUnknown, "The cache rule was deleted or changed while the content was fetched: nothing was kept.")
	}
	return row, err
}

func fetched(row meta.RegistryRow, c oci.Call, at name.Reference, p plan) (audit.Record, error) {
	r := record(row, c, actionFetch, at.Repository)
	r.Route = string(egress.Upstream)
	var err error
	r.After, err = json.Marshal(map[string]string{"source": p.origin.Host + "/" + string(p.origin.Repository), "rule": p.origin.Resource})
	return r, err
}

// keepManifest stores a manifest that came from an upstream. What it names is not there yet, and comes when it is asked for.
func (s *Service) keepManifest(tx *meta.Tx, c oci.Call, at name.Reference, p plan, m manifest, sealed blob.Sealed) error {
	row, err := stillRuled(tx, c, at, p)
	if err == nil {
		err = s.quota.room(tx, row, oci.Descriptor{Digest: sealed.Digest, Size: sealed.Size})
	}
	if err != nil {
		return err
	}
	to, err := s.take(tx, row.ID, at.Repository)
	if err != nil {
		return err
	}
	if err := s.blobs.Commit(tx, sealed); err != nil {
		return err
	}
	if row.Quarantine {
		m.quarantine = oci.Quarantined
	}
	if err := s.insertManifest(tx, c, record(row, c, actionFetch, at.Repository), to.id, m, sealed.Digest, sealed.Size); err != nil {
		return err
	}
	note, err := fetched(row, c, at, p)
	if err != nil {
		return err
	}
	note.Digest, note.MediaType, note.Bytes, note.Reference = string(sealed.Digest), m.mediaType, sealed.Size, string(at.Tag)
	var tags []name.Tag
	if at.Tag != "" {
		was, err := tagAt(tx, to.id, at.Tag)
		if err != nil {
			return err
		}
		if was.digest != p.held {
			return fault.New(fault.Conflict, "The tag was pushed while it was fetched: the pushed one stays.")
		}
		if _, err := setTag(tx, to.id, name.Reference{Repository: at.Repository, Tag: at.Tag, Digest: sealed.Digest}); err != nil {
			return err
		}
		if err := setDue(tx, to.id, at.Tag, sealed.Digest, tagLife); err != nil {
			return err
		}
		if note.Before, err = tagBefore(was.digest); err != nil {
			return err
		}
		tags = append(tags, at.Tag)
	}
	if err := tellPush(tx, to.id, sealed.Digest, tags, eventOf(c, http.MethodPut, at.Repository)); err != nil {
		return err
	}
	return s.audit.Append(tx, note)
}

// fetchBlob gets a blob that a manifest of the repository names, with no more bytes than the manifest says.
func (s *Service) fetchBlob(ctx context.Context, c oci.Call, at name.Reference, p plan, what ref) error {
	body, err := s.cache.upstream.Blob(ctx, p.query, at.Digest, what.size)
	if err != nil {
		return err
	}
	defer body.Close()
	u, err := s.blobs.Begin(ctx, owner(c, at.Repository))
	if err != nil {
		return err
	}
	err = u.Seal(ctx, at.Digest, body, func(sealed blob.Sealed) error {
		return s.db.Write(ctx, func(tx *meta.Tx) error { return s.keepBlob(tx, c, at, p, sealed) })
	})
	if err != nil {
		return fault.Beside(distrust(err), u.Cancel(context.WithoutCancel(ctx)))
	}
	if what.kind == refConfig {
		return s.learnPlatform(ctx, c, at)
	}
	return nil
}

func (s *Service) keepBlob(tx *meta.Tx, c oci.Call, at name.Reference, p plan, sealed blob.Sealed) error {
	row, err := stillRuled(tx, c, at, p)
	if err == nil {
		err = s.quota.room(tx, row, oci.Descriptor{Digest: sealed.Digest, Size: sealed.Size})
	}
	if err != nil {
		return err
	}
	to, err := s.open(tx, row.ID, at.Repository)
	if err != nil {
		return err
	}
	if err := s.blobs.Commit(tx, sealed); err != nil {
		return err
	}
	if err := linkBlob(tx, to.id, sealed.Digest, sealed.Size); err != nil {
		return err
	}
	note, err := fetched(row, c, at, p)
	note.Digest, note.Bytes = string(sealed.Digest), sealed.Size
	if err != nil {
		return err
	}
	return s.audit.Append(tx, note)
}

// learnPlatform completes the manifests whose configuration has come.
func (s *Service) learnPlatform(ctx context.Context, c oci.Call, at name.Reference) error {
	m := manifest{config: at.Digest, configType: mediaConfig}
	s.platform(ctx, &m)
	return s.db.Write(ctx, func(tx *meta.Tx) error {
		r, err := find(tx, c.Registry.ID, at.Repository)
		if err == nil {
			_, err = tx.Exec(`UPDATE manifests SET architecture = $1, os = $2 WHERE repository = $3 AND config_digest = $4 AND config_media_type IN ($5, $6)`,
				m.architecture, m.os, r.id, string(at.Digest), mediaConfig, mediaDockerConfig)
		}
		return err
	})
}

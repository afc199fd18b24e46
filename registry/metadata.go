// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

// The actions under which changes of attributes and restored manifests are recorded.
const (
	actionMark    = "Microsoft.ContainerRegistry/registries/metadata/write"
	actionRestore = "Microsoft.ContainerRegistry/registries/deleted/restore/action"

	actionQuarantine = "Microsoft.ContainerRegistry/registries/quarantine/write"
)

// look has something of a repository described; visible is the condition on manifests m that the call may see. Errors: NameUnknown, and gone (nil: NameUnknown too) when the repository holds no manifest.
func (s *Service) look(ctx context.Context, c oci.Call, repo name.Repository, what string, gone error, fn func(tx *meta.Tx, r repository, visible string) error) error {
	if gone == nil {
		gone = unknownRepository(repo)
	}
	return s.releaseNames(ctx, c, repo, what, func(tx *meta.Tx, c oci.Call) error {
		r, err := find(tx, c.Registry.ID, repo)
		if err != nil {
			return err
		}
		visible, err := s.visible(tx, c)
		if err != nil {
			return err
		}
		var one int
		err = tx.Row(`SELECT 1 FROM manifests m WHERE repository = $1`+visible+` LIMIT 1`, r.id).Scan(&one)
		if errors.Is(err, meta.ErrNotFound) {
			return gone
		}
		if err != nil {
			return err
		}
		return fn(tx, r, visible)
	})
}

// DescribeRepository describes a repository. Errors: see oci.Metadata.
func (s *Service) DescribeRepository(ctx context.Context, c oci.Call, repo name.Repository) (oci.Repository, error) {
	var d oci.Repository
	err := s.look(ctx, c, repo, "metadata", nil, func(tx *meta.Tx, r repository, visible string) error {
		d = oci.Repository{Attributes: r.locks.attributes()}
		var created, updated int64
		err := tx.Row(`SELECT created_us, updated_us, (SELECT COUNT(*) FROM manifests m WHERE repository = r.id`+visible+`), (SELECT COUNT(*) FROM tags WHERE repository = r.id`+ofTags(visible)+`)
 FROM repositories r WHERE r.id = $1`, r.id).Scan(&created, &updated, &d.Manifests, &d.Tags)
		d.Created, d.Updated = meta.FromMicros(created), meta.FromMicros(updated)
		return err
	})
	return d, err
}

const tagColumns = `name, digest, created_us, updated_us, locks`

func scanTag(scan func(...any) error) (oci.Tag, error) {
	var t oci.Tag
	var created, updated int64
	var l locks
	err := scan(&t.Name, &t.Digest, &created, &updated, &l)
	t.Created, t.Updated, t.Attributes = meta.FromMicros(created), meta.FromMicros(updated), l.attributes()
	return t, err
}

// ofTags is a condition on manifests m as one on tags.
func ofTags(visible string) string {
	if visible == "" {
		return ``
	}
	return ` AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = tags.repository AND m.digest = tags.digest` + visible + `)`
}

// DescribeTag describes a tag. Errors: see oci.Metadata.
func (s *Service) DescribeTag(ctx context.Context, c oci.Call, repo name.Repository, t name.Tag) (oci.Tag, error) {
	var d oci.Tag
	gone := unknownManifest(name.Reference{Repository: repo, Tag: t})
	err := s.look(ctx, c, repo, "metadata of "+string(t), gone, func(tx *meta.Tx, r repository, visible string) (err error) {
		d, err = scanTag(tx.Row(`SELECT `+tagColumns+` FROM tags WHERE repository = $1 AND name = $2`+ofTags(visible), r.id, string(t)).Scan)
		if errors.Is(err, meta.ErrNotFound) {
			return gone
		}
		return err
	})
	return d, err
}

// behind is the condition that a row stands behind the last of the page before, and the order of the list. Where the page does not say when last was changed, that is looked
// up, and an unknown last ends a list that is ordered by time.
func behind(tx *meta.Tx, table, column, repository string, p oci.Page) (where, order string, args []any, err error) {
	by := bytewise(tx, column)
	if p.Order == oci.ByName {
		return ` AND ` + by + ` > $2`, by, []any{p.Last}, nil
	}
	direction, than := ` ASC`, `>`
	if p.Order == oci.NewestFirst {
		direction, than = ` DESC`, `<`
	}
	order = `updated_us` + direction + `, ` + by + direction
	if p.Last == "" {
		return ` AND $2 = ''`, order, []any{""}, nil
	}
	updated := meta.Micros(p.At)
	if updated == 0 {
		err = tx.Row(`SELECT updated_us FROM `+table+` WHERE repository = $1 AND `+column+` = $2`, repository, p.Last).Scan(&updated)
	}
	if errors.Is(err, meta.ErrNotFound) {
		return ` AND $2 <> ''`, order, []any{""}, nil
	}
	return ` AND (updated_us, ` + by + `) ` + than + ` ($3, $2)`, order, []any{p.Last, updated}, err
}

// ListTags lists tags. Errors: see oci.Metadata.
func (s *Service) ListTags(ctx context.Context, c oci.Call, repo name.Repository, p oci.Page) ([]oci.Tag, bool, error) {
	var list []oci.Tag
	more := false
	err := s.look(ctx, c, repo, "metadata of tags", nil, func(tx *meta.Tx, r repository, visible string) error {
		list, more = nil, false
		where, order, args, err := behind(tx, "tags", "name", r.id, p)
		if err != nil || p.N <= 0 {
			return err
		}
		args = append([]any{r.id}, args...)
		if p.Digest != "" {
			args = append(args, string(p.Digest))
			where += ` AND digest = $` + digit(len(args))
		}
		args = append(args, p.N+1)
		rows, err := tx.Query(`SELECT `+tagColumns+` FROM tags WHERE repository = $1`+where+` AND (locks & 4) = 0`+ofTags(visible)+` ORDER BY `+order+` LIMIT $`+digit(len(args)), args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if more = len(list) == p.N; more {
				break
			}
			t, err := scanTag(rows.Scan)
			if err != nil {
				return err
			}
			list = append(list, t)
		}
		return rows.Err()
	})
	return list, more, err
}

func digit(n int) string { return string(rune('0' + n)) }

const manifestColumns = `digest, media_type, artifact_type, size, image_size, config_media_type, architecture, os, created_us, updated_us, locks, quarantine, quarantine_details`

func scanManifest(scan func(...any) error) (oci.Manifest, error) {
	var m oci.Manifest
	var created, updated int64
	var l locks
	err := scan(&m.Digest, &m.MediaType, &m.ArtifactType, &m.Size, &m.ImageSize, &m.ConfigMediaType, &m.Architecture, &m.OS, &created, &updated, &l, &m.Quarantine, &m.QuarantineDetails)
	m.Created, m.Updated, m.Attributes = meta.FromMicros(created), meta.FromMicros(updated), l.attributes()
	m.ImageSize = max(m.ImageSize, m.Size) // manifests from before it was kept have none
	if m.ArtifactType == m.ConfigMediaType {
		m.ArtifactType = "" // it stands for the configuration's
	}
	return m, err
}

// tagsOf are the tags of a manifest that may be listed.
func tagsOf(tx *meta.Tx, repository string, d name.Digest) ([]name.Tag, error) {
	rows, err := tx.Query(`SELECT name FROM tags WHERE repository = $1 AND digest = $2 AND (locks & 4) = 0 ORDER BY `+bytewise(tx, "name"), repository, string(d))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []name.Tag
	for rows.Next() {
		var t name.Tag
		if err := rows.Scan(&t); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// ListManifests lists manifests. Errors: see oci.Metadata.
func (s *Service) ListManifests(ctx context.Context, c oci.Call, repo name.Repository, p oci.Page) ([]oci.Manifest, bool, error) {
	var list []oci.Manifest
	more := false
	err := s.look(ctx, c, repo, "metadata of manifests", nil, func(tx *meta.Tx, r repository, visible string) error {
		var err error
		if list, more, err = manifestsPage(tx, r.id, visible, p); err != nil {
			return err
		}
		for i := range list {
			if list[i].Tags, err = tagsOf(tx, r.id, list[i].Digest); err != nil {
				return err
			}
		}
		return nil
	})
	return list, more, err
}

func manifestsPage(tx *meta.Tx, repository, visible string, p oci.Page) (list []oci.Manifest, more bool, err error) {
	where, order, args, err := behind(tx, "manifests", "digest", repository, p)
	if err != nil || p.N <= 0 {
		return nil, false, err
	}
	args = append(append([]any{repository}, args...), p.N+1)
	rows, err := tx.Query(`SELECT `+manifestColumns+` FROM manifests m WHERE repository = $1`+where+` AND (locks & 4) = 0`+visible+` ORDER BY `+order+` LIMIT $`+digit(len(args)), args...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for rows.Next() {
		if len(list) == p.N {
			return list, true, nil
		}
		m, err := scanManifest(rows.Scan)
		if err != nil {
			return nil, false, err
		}
		list = append(list, m)
	}
	return list, false, rows.Err()
}

// DescribeManifest describes a manifest. Errors: see oci.Metadata.
func (s *Service) DescribeManifest(ctx context.Context, c oci.Call, repo name.Repository, d name.Digest) (oci.Manifest, error) {
	var m oci.Manifest
	gone := unknownManifest(name.Reference{Repository: repo, Digest: d})
	err := s.look(ctx, c, repo, "metadata of "+string(d), gone, func(tx *meta.Tx, r repository, visible string) (err error) {
		m, err = scanManifest(tx.Row(`SELECT `+manifestColumns+` FROM manifests m WHERE repository = $1 AND digest = $2`+visible, r.id, string(d)).Scan)
		if errors.Is(err, meta.ErrNotFound) {
			return gone
		}
		if err == nil {
			m.Tags, err = tagsOf(tx, r.id, d)
		}
		if err != nil {
			return err
		}
		rows, err := tx.Query(`SELECT m.digest, m.architecture, m.os FROM manifest_refs f JOIN manifests m ON m.repository = f.repository AND m.digest = f.child
 WHERE f.repository = $1 AND f.digest = $2 AND f.kind = 'manifest' ORDER BY m.digest`, r.id, string(d))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p oci.Platform
			if err := rows.Scan(&p.Digest, &p.Architecture, &p.OS); err != nil {
				return err
			}
			m.References = append(m.References, p)
		}
		return rows.Err()
	})
	return m, err
}

// SetAttributes locks and unlocks. Errors: see oci.Metadata.
func (s *Service) SetAttributes(ctx context.Context, c oci.Call, of name.Reference, change oci.Change) error {
	return s.db.Write(ctx, func(tx *meta.Tx) error {
		row, err := live(tx, c)
		if err != nil {
			return err
		}
		r, err := lock(tx, row.ID, of.Repository)
		if err != nil {
			return err
		}
		table, where, args, gone := `repositories`, `id = $1`, []any{r.id}, unknownRepository(of.Repository)
		switch {
		case of.Digest != "":
			table, where, args, gone = `manifests`, `repository = $1 AND digest = $2`, append(args, string(of.Digest)), unknownManifest(of)
		case of.Tag != "":
			table, where, args, gone = `tags`, `repository = $1 AND name = $2`, append(args, string(of.Tag)), unknownManifest(of)
		case r.id != "":
			empty, err := s.empty(tx, c, row, r.id)
			if err != nil {
				return err
			}
			if empty {
				return gone
			}
		}
		if change.Quarantine == nil && change.QuarantineDetails == nil {
			if err := s.hidden(tx, c, row, r.id, of, gone); err != nil {
				return err
			}
		}
		var was locks
		err = tx.Row(`SELECT locks FROM `+table+` WHERE `+where, args...).Scan(&was)
		if errors.Is(err, meta.ErrNotFound) {
			return gone
		}
		if err != nil {
			return err
		}
		now := was.changed(change)
		if now != was {
			args = append(args, int64(now), meta.Micros(tx.Now()))
			if _, err := tx.Exec(`UPDATE `+table+` SET locks = $`+digit(len(args)-1)+`, updated_us = $`+digit(len(args))+` WHERE `+where, args...); err != nil {
				return err
			}
		}
		if change.Quarantine != nil || change.QuarantineDetails != nil {
			if err := s.release(tx, c, row, r.id, of, change); err != nil {
				return err
			}
		}
		note := record(row, c, actionMark, of.Repository)
		note.Reference, note.Digest = string(of.Tag), string(of.Digest)
		if note.Before, err = json.Marshal(was.attributes()); err == nil {
			note.After, err = json.Marshal(now.attributes())
		}
		if err != nil {
			return err
		}
		return s.audit.Append(tx, note)
	})
}

// hidden is gone for a manifest, or a tag of one, that is kept from the call's sight by quarantine.
func (s *Service) hidden(tx *meta.Tx, c oci.Call, row meta.RegistryRow, repository string, of name.Reference, gone error) error {
	if !row.Quarantine || of.Digest == "" && of.Tag == "" {
		return nil
	}
	var state string
	err := tx.Row(`SELECT quarantine FROM manifests WHERE repository = $1 AND (digest = $2 OR digest = (SELECT digest FROM tags WHERE repository = $1 AND name = $3))`,
		repository, string(of.Digest), string(of.Tag)).Scan(&state)
	if errors.Is(err, meta.ErrNotFound) || err == nil && !held(state) {
		return nil
	}
	if err == nil {
		c.Registry = row
		var seen bool
		if seen, err = s.sees(tx, c); err == nil && !seen {
			err = gone
		}
	}
	return err
}

// release changes the state of quarantine of a manifest, and with it of those that it names: what passes brings them out of quarantine, what is held puts them into it. That one failed
// is said of itself alone, and stays until it is said otherwise.
func (s *Service) release(tx *meta.Tx, c oci.Call, row meta.RegistryRow, repository string, of name.Reference, change oci.Change) error {
	if change.QuarantineDetails != nil && len(*change.QuarantineDetails) > 64<<10 {
		return fault.New(fault.BadRequest, "quarantineDetails has at most 64 KiB.")
	}
	var was, details string
	if err := tx.Row(`SELECT quarantine, quarantine_details FROM manifests WHERE repository = $1 AND digest = $2`, repository, string(of.Digest)).Scan(&was, &details); err != nil {
		return err
	}
	state := was
	if change.Quarantine != nil {
		state = *change.Quarantine
	}
	if change.QuarantineDetails != nil {
		details = *change.QuarantineDetails
	}
	note := record(row, c, actionQuarantine, of.Repository)
	if err := s.quarantine(tx, c, note, repository, of.Digest, was, state, details); err != nil {
		return err
	}
	if change.Quarantine == nil {
		return nil // a note alone
	}
	note.Reference = "named by " + string(of.Digest)
	if state != oci.Passed {
		state = oci.Quarantined
	}
	return s.quarantineNamed(tx, c, note, repository, of.Digest, state, details)
}

// quarantine sets the state of one manifest, with the record that note begins. What passes is told as pushed: nobody heard of it before.
func (s *Service) quarantine(tx *meta.Tx, c oci.Call, note audit.Record, repository string, d name.Digest, was, state, details string) error {
	n, err := tx.Exec(`UPDATE manifests SET quarantine = $1, quarantine_details = $2, updated_us = $3 WHERE repository = $4 AND digest = $5 AND quarantine = $6`,
		state, details, meta.Micros(tx.Now()), repository, string(d), was)
	if err != nil || n == 0 { // it is named twice
		return err
	}
	note.Digest = string(d)
	if note.Before, err = json.Marshal(map[string]string{"quarantineState": was}); err == nil {
		note.After, err = json.Marshal(map[string]string{"quarantineState": state, "quarantineDetails": details})
	}
	if err == nil {
		err = s.audit.Append(tx, note)
	}
	if err != nil || !held(was) || held(state) {
		return err
	}
	tags, err := tagsOf(tx, repository, d)
	if err != nil {
		return err
	}
	return tellPush(tx, repository, d, tags, eventOf(c, http.MethodPatch, name.Repository(note.Repository)))
}

// quarantineNamed sets the state of the manifests that a manifest names, and of what those name, where that lets them out of quarantine or puts them into it.
func (s *Service) quarantineNamed(tx *meta.Tx, c oci.Call, note audit.Record, repository string, of name.Digest, state, details string) error {
	rows, err := tx.Query(`SELECT f.child, m.quarantine FROM manifest_refs f JOIN manifests m ON m.repository = f.repository AND m.digest = f.child
 WHERE f.repository = $1 AND f.digest = $2 AND f.kind = 'manifest' ORDER BY f.child`, repository, string(of))
	if err != nil {
		return err
	}
	was := map[name.Digest]string{}
	var children []name.Digest
	for rows.Next() {
		var child name.Digest
		var its string
		if err := rows.Scan(&child, &its); err != nil {
			return errors.Join(err, rows.Close())
		}
		if its != oci.Failed && held(its) != held(state) {
			was[child], children = its, append(children, child)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, child := range children {
		if err := s.quarantine(tx, c, note, repository, child, was[child], state, details); err != nil {
			return err
		}
		if err := s.quarantineNamed(tx, c, note, repository, child, state, details); err != nil {
			return err
		}
	}
	return nil
}

// changed is what locks become by a change.
func (l locks) changed(c oci.Change) locks {
	a := l.attributes()
	for _, v := range []struct {
		to  *bool
		may *bool
	}{{c.Delete, &a.Delete}, {c.Write, &a.Write}, {c.List, &a.List}, {c.Read, &a.Read}} {
		if v.to != nil {
			*v.may = *v.to
		}
	}
	return locksOf(a)
}

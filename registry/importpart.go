// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

// part is a piece of content of an image.
type part struct {
	oci.Descriptor
	manifest bool
}

// partsOf lists what a manifest of the source names and the source's repository holds. Errors: InvalidParameters when something is missing or in quarantine, Unsupported
// when it is locked.
func (p *importer) partsOf(tx *meta.Tx, repository string, d name.Digest) ([]part, error) {
	rows, err := tx.Query(`SELECT f.child, f.kind, COALESCE(m.media_type, ''), COALESCE(m.size, l.size, -1), COALESCE(m.quarantine, ''), COALESCE(m.locks, 0)
 FROM manifest_refs f
 LEFT JOIN manifests m ON m.repository = f.repository AND m.digest = f.child AND f.kind = 'manifest'
 LEFT JOIN blob_links l ON l.repository = f.repository AND l.digest = f.child
 WHERE f.repository = $1 AND f.digest = $2 ORDER BY f.child, f.kind`, repository, string(d))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var parts []part
	for rows.Next() {
		var c part
		var kind, state string
		var own locks
		if err := rows.Scan(&c.Digest, &kind, &c.MediaType, &c.Size, &state, &own); err != nil {
			return nil, err
		}
		if c.Size < 0 {
			return nil, fault.New(fault.InvalidParameters, "The image %s/%s is not whole: its manifest %s names %s, which the repository does not hold any more.",
				p.source.LoginServer, p.Image.String(), d, c.Digest).At(p.source.ResourceID)
		}
		if held(state) && p.source.Quarantine {
			return nil, fault.New(fault.InvalidParameters, "The image %s/%s can't be imported: its manifest %s names %s, which the quarantinePolicy of the registry '%s' keeps back (quarantineState %s). "+
				"Import it when who has the role AcrQuarantineWriter has set that to Passed.", p.source.LoginServer, p.Image.String(), d, c.Digest, p.source.Name, state).At(p.source.ResourceID)
		}
		if err := own.forbids(noRead, manifestCalled(p.Image.Repository, c.Digest)); err != nil {
			return nil, fault.From(err).At(p.source.ResourceID)
		}
		c.manifest = c.MediaType != ""
		parts = append(parts, c)
	}
	return parts, rows.Err()
}

// askParts asks the source for everything that one of its manifests names.
func (p *importer) askParts(tx *meta.Tx, d name.Digest) ([]part, error) {
	from, err := find(tx, p.Source, p.Image.Repository)
	if err != nil {
		return nil, err
	}
	parts, err := p.partsOf(tx, from.id, d)
	if err != nil {
		return nil, err
	}
	for _, c := range parts {
		if err := p.s.releaseImport(tx, p.passage(), string(p.Image.Tag), c.Descriptor); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// walk lists the image's content, its root first, as the source holds it in tx.
func (p *importer) walk(tx *meta.Tx, repository string) ([]part, error) {
	root, err := p.found(tx, name.Reference{Repository: p.Image.Repository, Digest: p.root.Digest})
	if err != nil {
		return nil, err
	}
	whole := []part{{root, true}}
	seen := map[name.Digest]bool{root.Digest: true}
	for i := 0; i < len(whole); i++ {
		if !whole[i].manifest {
			continue
		}
		parts, err := p.partsOf(tx, repository, whole[i].Digest)
		if err != nil {
			return nil, err
		}
		for _, c := range parts {
			if !seen[c.Digest] {
				seen[c.Digest] = true
				whole = append(whole, c)
			}
		}
	}
	return whole, nil
}

// copyPart adds the rows of one piece of content. A manifest that the target has already stays, but what it names may have come since.
func (p *importer) copyPart(tx *meta.Tx, from, to string, repo name.Repository, c part) error {
	state := ""
	if p.target.Quarantine {
		state = oci.Quarantined
	}
	now := meta.Micros(tx.Now())
	if !c.manifest {
		return linkBlob(tx, to, c.Digest, c.Size)
	}
	_, err := tx.Exec(`INSERT INTO manifests (repository, digest, media_type, artifact_type, subject, annotations, config_digest, size, created_us,
  config_media_type, architecture, os, image_size, updated_us, untagged_us, pushed_us, quarantine)
 SELECT CAST($1 AS TEXT), digest, media_type, artifact_type, subject, annotations, config_digest, size, CAST($2 AS BIGINT),
  config_media_type, architecture, os, image_size, CAST($2 AS BIGINT), CAST($2 AS BIGINT), CAST($2 AS BIGINT), CAST($5 AS TEXT)
 FROM manifests WHERE repository = $3 AND digest = $4`+pushedAgain, to, now, from, string(c.Digest), state)
	if err == nil {
		err = notDeleted(tx, to, c.Digest)
	}
	if err != nil {
		return err
	}
	news, err := tx.Exec(`INSERT INTO manifest_refs (repository, digest, child, kind)
 SELECT CAST($1 AS TEXT), digest, child, kind FROM manifest_refs WHERE repository = $2 AND digest = $3
 ON CONFLICT (repository, digest, child, kind) DO NOTHING`, to, from, string(c.Digest))
	if err != nil {
		return err
	}
	if news == 0 || !p.target.Quarantine {
		return nil
	}
	note, err := p.record()
	if err != nil {
		return err
	}
	note.Repository, note.MediaType, note.Bytes = string(repo), "", 0
	return p.s.holdAgain(tx, oci.Call{}, note, to, c.Digest)
}

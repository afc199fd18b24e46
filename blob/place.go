// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"errors"
	"io"

	"github.com/embargo-registry/embargo/blob/internal/fs"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Placer writes content at the keys that rows will name, for a restore. No store is open on the folder.
type Placer struct{ dir *fs.Dir }

// NewPlacer makes the folder if it is not there.
func NewPlacer(dir string) (*Placer, error) {
	d, err := fs.Open(dir)
	return &Placer{d}, err
}

// Place writes content, in place of what an earlier attempt left there; it is durable when Place returns. Errors: DigestInvalid when the content is not d's,
// StorageFull.
func (p *Placer) Place(key string, d name.Digest, r io.Reader) error {
	if err := p.dir.Remove(key); err != nil {
		return err
	}
	f, err := p.dir.Create(key)
	if err != nil {
		return full(err)
	}
	h := d.NewHash()
	_, err = io.Copy(f, io.TeeReader(r, h))
	if got := name.DigestFrom(d.Algorithm(), h); err == nil && got != d {
		err = fault.New(fault.DigestInvalid, "The content of %s has the digest %s: it is damaged, and is not restored.", d, got)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(full(err), p.dir.Remove(key))
	}
	return nil
}

// Placed reports whether an earlier attempt placed the content; it is read and hashed.
func (p *Placer) Placed(key string, d name.Digest) bool {
	f, err := p.dir.Read(key)
	if err != nil {
		return false
	}
	h := d.NewHash()
	_, err = io.Copy(h, f)
	return errors.Join(err, f.Close()) == nil && name.DigestFrom(d.Algorithm(), h) == d
}

// Keep removes the rows of content that keep does not want, for a restore: a row without its object must not stay.
func Keep(tx *meta.Tx, keep func(d name.Digest) bool) error {
	rows, err := tx.Query(`SELECT digest FROM blobs`)
	if err != nil {
		return err
	}
	var gone []string
	for rows.Next() {
		var d string
		if err := rows.Scan(&d); err != nil {
			return errors.Join(err, rows.Close())
		}
		if !keep(name.Digest(d)) {
			gone = append(gone, d)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, d := range gone {
		if _, err := tx.Exec(`DELETE FROM blobs WHERE digest = $1`, d); err != nil {
			return err
		}
	}
	return nil
}

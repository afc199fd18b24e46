// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"errors"
	"io"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Placer writes content at the keys that rows will name, for a restore. No store is open on the storage.
type Placer struct {
	disk driver.Driver
	id   string
}

// NewPlacer opens the storage for the restore of the copy that is named. A storage that is another installation's, or that can't be used, is refused.
func NewPlacer(ctx context.Context, storage Storage, snapshot string) (*Placer, error) {
	disk, err := storage.open()
	if err != nil {
		return nil, err
	}
	id, err := settleRestore(ctx, disk, snapshot)
	return &Placer{disk, id}, err
}

// Place writes content, in place of what an earlier attempt left there; it is durable when Place returns. Errors: DigestInvalid when the content is not d's,
// StorageFull, Unavailable.
func (p *Placer) Place(ctx context.Context, key string, d name.Digest, r io.Reader) error {
	if err := p.disk.Remove(ctx, key); err != nil {
		return named(p.disk, err)
	}
	w, err := p.disk.Write(ctx, key, 0, nil)
	if err != nil {
		return named(p.disk, err)
	}
	h := d.NewHash()
	_, err = io.Copy(w, io.TeeReader(r, h))
	if got := name.DigestFrom(d.Algorithm(), h); err == nil && got != d {
		err = fault.New(fault.DigestInvalid, "The content of %s has the digest %s: it is damaged, and is not restored.", d, got)
	}
	if err == nil {
		err = w.Finish()
	}
	if err != nil {
		return errors.Join(named(p.disk, err), w.Abort())
	}
	return nil
}

// Placed reports whether an earlier attempt placed the content; it is read and hashed.
func (p *Placer) Placed(ctx context.Context, key string, d name.Digest) bool {
	o, err := p.disk.Open(ctx, key)
	if err != nil {
		return false
	}
	h := d.NewHash()
	r, err := o.Range(ctx, 0, -1)
	if err == nil {
		_, err = io.Copy(h, r)
	}
	return errors.Join(err, o.Close()) == nil && name.DigestFrom(d.Algorithm(), h) == d
}

// Settle records, in the restored database, which storage its content is in.
func (p *Placer) Settle(tx *meta.Tx) error { return remember(tx, p.disk, p.id) }

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

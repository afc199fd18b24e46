// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
	"sync"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/oci"
)

// quota bounds what each registry may hold. It keeps, for each, a figure that is never below the truth: what is pushed is added, whether it was there or not, and what is deleted is not
// taken off; only when the figure says that it is too much is it counted anew.
type quota struct {
	most int64 // bytes; 0 is no bound

	mu    sync.Mutex
	about map[string]int64
	// coming is how many bytes of uploads come in at the moment, by registry.
	coming map[string]int64
}

// room refuses content where a registry would then hold more than its quota. Errors: QuotaExceeded.
func (q *quota) room(tx *meta.Tx, row meta.RegistryRow, content ...oci.Descriptor) error {
	if q.most == 0 {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	size := int64(0)
	for _, c := range content {
		size += c.Size
	}
	about, known := q.about[row.ID]
	if !known || about+size > q.most {
		var err error
		if about, err = Size(tx, row.ID); err != nil {
			return err
		}
		if size, err = fresh(tx, row.ID, content); err != nil {
			return err
		}
	}
	q.about[row.ID] = about + size
	if about+size <= q.most || size == 0 {
		return nil
	}
	q.about[row.ID] = about
	return fault.New(fault.QuotaExceeded, "The registry '%s' holds %d bytes, and with %d more it would exceed its quota of %d (registryQuota of this server's configuration). Delete what is not needed, or have an operator raise it.",
		row.Name, about, size, q.most).At(row.ResourceID)
}

// bounded is a part of an upload that breaks off when the registry's uploads under way would hold more than its quota together, because their content is counted only when they end. One that ends with the part
// is bounded by itself. done is called when the part has been taken.
func (s *Service) bounded(ctx context.Context, u *upload, part io.Reader, ends bool) (bounded io.Reader, done func(), err error) {
	if s.quota.most == 0 || part == nil {
		return part, func() {}, nil
	}
	sum := u.Offset()
	if !ends {
		err = s.db.Read(ctx, func(tx *meta.Tx) error {
			// The owner is the registry's identity, a slash, and the repository; a 0 comes after the slash.
			by := bytewise(tx, "owner")
			return tx.Row(`SELECT COALESCE(CAST(SUM(size) AS BIGINT), 0) FROM uploads WHERE `+by+` >= $1 AND `+by+` < $2`, u.c.Registry.ID+"/", u.c.Registry.ID+"0").Scan(&sum)
		})
	}
	r := &boundedReader{Reader: part, quota: s.quota, registry: u.c.Registry.ID, left: s.quota.most - sum,
		beyond: fault.New(fault.QuotaExceeded, "The unfinished uploads of the registry '%s' would hold more than its quota of %d bytes (registryQuota of this server's configuration). "+
			"Finish or cancel some, or have an operator raise it.", u.c.Registry.Name, s.quota.most).At(u.c.Registry.ResourceID)}
	return r, r.done, err
}

// boundedReader gives left bytes at the most, with what comes for the registry at the same time, and beyond them the error beyond.
type boundedReader struct {
	io.Reader
	quota      *quota
	registry   string
	left, came int64
	beyond     error
}

func (r *boundedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n == 0 {
		return n, err
	}
	r.quota.mu.Lock()
	defer r.quota.mu.Unlock()
	if r.quota.coming[r.registry]+int64(n) > r.left {
		return 0, r.beyond
	}
	r.came += int64(n)
	r.quota.coming[r.registry] += int64(n)
	return n, err
}

func (r *boundedReader) done() {
	r.quota.mu.Lock()
	defer r.quota.mu.Unlock()
	if r.quota.coming[r.registry] -= r.came; r.quota.coming[r.registry] <= 0 {
		delete(r.quota.coming, r.registry)
	}
}

// fresh is how many bytes of the content a registry does not hold.
func fresh(tx *meta.Tx, registry string, content []oci.Descriptor) (size int64, err error) {
	for _, c := range content {
		var n int64
		err := tx.Row(`SELECT (SELECT COUNT(*) FROM blob_links l JOIN repositories r ON r.id = l.repository WHERE r.registry = $1 AND l.digest = $2)
 + (SELECT COUNT(*) FROM manifests m JOIN repositories r ON r.id = m.repository WHERE r.registry = $1 AND m.digest = $2)`, registry, string(c.Digest)).Scan(&n)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			size += c.Size
		}
	}
	return size, nil
}

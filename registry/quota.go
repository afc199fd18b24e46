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
	// unfinished has such a figure of what is in unfinished uploads.
	unfinished map[string]*unfinished
}

// unfinished is what is known of the unfinished uploads of a registry, in bytes. What has come and has not ended is in parts that are not kept yet.
type unfinished struct{ about, came, ended int64 }

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

// bounded is a part of an upload. Its content is counted only when the upload ends, so until then the unfinished uploads of a registry hold no more than its quota together; a part that ends its upload is
// bounded by the quota alone. done is called when the part has been taken.
func (s *Service) bounded(ctx context.Context, u *upload, part io.Reader, ends bool) (bounded io.Reader, done func()) {
	if s.quota.most == 0 || part == nil {
		return part, func() {}
	}
	r := &boundedReader{ctx: ctx, Reader: part, s: s, registry: u.c.Registry, ends: ends}
	if ends {
		r.came = u.Offset()
		return r, func() {}
	}
	return r, r.done
}

// boundedReader breaks off a part of an upload beyond the quota.
type boundedReader struct {
	ctx context.Context
	io.Reader
	s        *Service
	registry meta.RegistryRow
	came     int64
	ends     bool
	counted  bool // what other nodes have taken too
}

func (r *boundedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n == 0 {
		return n, err
	}
	fits, failed := r.room(int64(n))
	if failed == nil && !fits {
		failed = fault.New(fault.QuotaExceeded, "The unfinished uploads of the registry '%s' would hold more than its quota of %d bytes (registryQuota of this server's configuration). Finish or cancel some, or have an operator raise it.",
			r.registry.Name, r.s.quota.most).At(r.registry.ResourceID)
	}
	if failed != nil {
		return 0, failed
	}
	r.came += int64(n)
	return n, err
}

// room counts n bytes more, if they fit. It counts anew when the part begins, because other nodes take parts too, and when its figure says that they don't fit.
func (r *boundedReader) room(n int64) (bool, error) {
	q := r.s.quota
	if r.ends {
		return r.came+n <= q.most, nil
	}
	if r.counted && q.take(r.registry.ID, n) {
		return true, nil
	}
	ended := q.ended(r.registry.ID)
	var kept int64
	err := r.s.db.Read(r.ctx, func(tx *meta.Tx) error {
		// The owner is the registry's identity, a slash, and the repository; a 0 comes after the slash.
		by := bytewise(tx, "owner")
		return tx.Row(`SELECT COALESCE(CAST(SUM(size) AS BIGINT), 0) FROM uploads WHERE `+by+` >= $1 AND `+by+` < $2`, r.registry.ID+"/", r.registry.ID+"0").Scan(&kept)
	})
	if err != nil {
		return false, err
	}
	q.mu.Lock()
	u := q.unfinished[r.registry.ID]
	u.about = kept + u.came - ended // what ended meanwhile may not have been among what was kept
	q.mu.Unlock()
	r.counted = true
	return q.take(r.registry.ID, n), nil
}

// ended is how much of what came for a registry's unfinished uploads is kept, or was given up.
func (q *quota) ended(registry string) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unfinished[registry] == nil {
		q.unfinished[registry] = &unfinished{}
	}
	return q.unfinished[registry].ended
}

// take adds n to what has come for a registry's unfinished uploads, if the figure says that it fits.
func (q *quota) take(registry string, n int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.unfinished[registry]
	if u.about+n > q.most {
		return false
	}
	u.about += n
	u.came += n
	return true
}

func (r *boundedReader) done() {
	r.s.quota.mu.Lock()
	defer r.s.quota.mu.Unlock()
	if u := r.s.quota.unfinished[r.registry.ID]; u != nil {
		u.ended += r.came
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

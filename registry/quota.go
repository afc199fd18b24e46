// SPDX-License-Identifier: Apache-2.0

package registry

import (
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

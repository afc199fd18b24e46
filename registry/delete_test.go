// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"testing"

	"github.com/embargo-registry/embargo/meta"
)

// A repository that holds much is gone at once, name and all; its rows follow, and a job finds nothing to do any more.
func TestDeleteALargeRepository(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "one")
		w.write(func(tx *meta.Tx) error {
			_, err := tx.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
 INSERT INTO tags (repository, name, digest, created_us, updated_us) SELECT t.repository, 'tag-' || n.i, t.digest, 1, 1 FROM n, tags t`)
			return err
		})
		if n := w.count("tags"); n != 2501 {
			t.Fatalf("%d tags", n)
		}
		h.do(202, "DELETE", "/acr/v1/app", nil)
		for _, table := range []string{"tags", "manifests", "manifest_refs", "blob_links", "repositories"} {
			if n := w.count(table); n != 0 {
				t.Errorf("%d %s are left", n, table)
			}
		}
		h.image("app", "v1", "two")
		w.runJobs()
		h.whole(t, "app", "v1")
	})
}

// SPDX-License-Identifier: Apache-2.0

package registry

import "github.com/embargo-registry/embargo/meta"

// Size is what a registry's repositories hold, in bytes: each piece of content counts once for the registry, however many repositories
// link it.
func Size(tx *meta.Tx, registryID string) (int64, error) {
	var n int64
	err := tx.Row(`SELECT COALESCE(CAST(SUM(size) AS BIGINT), 0) FROM (
  SELECT l.digest AS digest, MAX(l.size) AS size FROM blob_links l JOIN repositories r ON r.id = l.repository WHERE r.registry = $1 GROUP BY l.digest
  UNION ALL
  SELECT m.digest AS digest, MAX(m.size) AS size FROM manifests m JOIN repositories r ON r.id = m.repository WHERE r.registry = $1 GROUP BY m.digest
 ) AS held`, registryID).Scan(&n)
	return n, err
}

// SPDX-License-Identifier: Apache-2.0

package blob

import "github.com/embargo-registry/embargo/meta"

// Space is what the objects take in the storage, in bytes: each once, however many repositories and registries hold it.
type Space struct {
	Objects int64 `json:"objects"`
	// Bytes is the content's, Unused of it what a collection has found that nothing names.
	Bytes  int64 `json:"bytes"`
	Unused int64 `json:"unusedBytes"`
	// Damaged is how many objects a scrub has found damaged, and nobody has pushed again.
	Damaged int64 `json:"damaged"`
	// Uploads are under way, and have taken so much so far.
	Uploads     int64 `json:"uploads"`
	UploadBytes int64 `json:"uploadBytes"`
}

// Taken is the space that is taken. What a crash has left, and no row names, is not in it: a collection finds and removes that.
func Taken(tx *meta.Tx) (Space, error) {
	var s Space
	err := tx.Row(`SELECT COUNT(*), COALESCE(CAST(SUM(size) AS BIGINT), 0), COALESCE(CAST(SUM(CASE WHEN freed_us <> 0 THEN size ELSE 0 END) AS BIGINT), 0),
 COALESCE(SUM(CASE WHEN state = 'damaged' THEN 1 ELSE 0 END), 0) FROM blobs`).Scan(&s.Objects, &s.Bytes, &s.Unused, &s.Damaged)
	if err == nil {
		err = tx.Row(`SELECT COUNT(*), COALESCE(CAST(SUM(size) AS BIGINT), 0) FROM uploads`).Scan(&s.Uploads, &s.UploadBytes)
	}
	return s, err
}

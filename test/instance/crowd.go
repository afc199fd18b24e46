// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// Rows changes the database of the server, which is stopped for it and started again.
func (s *Server) Rows(fn func(tx *meta.Tx) error) {
	s.t.Helper()
	if err := s.Stop(); err != nil {
		s.t.Fatal(err)
	}
	url := s.Database
	if url == "" {
		url = "sqlite:" + filepath.Join(s.Data, "embargo.db")
	}
	db := metatest.Open(s.t, url)
	if err := db.Write(s.t.Context(), fn); err != nil {
		s.t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.Start()
}

// Crowd is how much Fill adds, from a number on: tag-N of the repository app, manifests that refer to the one tagged v1, and repositories crowd/N.
type Crowd struct{ From, Tags, Referrers, Repositories int }

// Fill adds rows to the database of an installation whose one repository app has the tag v1. What they name is app's manifest v1; of the manifests that refer to it there is no content.
func (c Crowd) Fill(s *Server) {
	s.t.Helper()
	const numbers = `WITH RECURSIVE n(i) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $2) `
	const manifests = `INSERT INTO manifests (repository, digest, media_type, artifact_type, subject, annotations, config_digest, size, created_us) `
	s.Rows(func(tx *meta.Tx) error {
		var registry, app, digest string
		err := tx.Row(`SELECT r.registry, r.id, t.digest FROM repositories r JOIN tags t ON t.repository = r.id WHERE r.name = 'app' AND t.name = 'v1'`).Scan(&registry, &app, &digest)
		if err != nil {
			return err
		}
		ten := `SUBSTR('0000000000' || i, -10)`
		if tx.Postgres() {
			ten = `LPAD(CAST(i AS TEXT), 10, '0')`
		}
		now := meta.Micros(tx.Now())
		for _, part := range []struct {
			to   int
			text string
			args []any
		}{
			{c.Tags, `INSERT INTO tags (repository, name, digest, created_us, updated_us) SELECT CAST($3 AS TEXT), 'tag-' || i, CAST($4 AS TEXT), $5, $5 + i FROM n`, []any{app, digest, now}},
			{c.Referrers, manifests + `SELECT CAST($3 AS TEXT), 'sha256:' || ` + ten + ` || '` + ReferrerTail + `', '` + ManifestType + `', 'application/example', CAST($4 AS TEXT), '', '', 1000, CAST($5 AS BIGINT) FROM n`, []any{app, digest, now}},
			{c.Repositories, `INSERT INTO repositories (id, registry, name, created_us, updated_us) SELECT 'crowd-' || i, CAST($3 AS TEXT), 'crowd/' || i, $4, $4 FROM n`, []any{registry, now}},
			{c.Repositories, manifests + `SELECT 'crowd-' || i, CAST($3 AS TEXT), '` + ManifestType + `', '', '', '', '', 1000, CAST($4 AS BIGINT) FROM n`, []any{digest, now}},
		} {
			if part.to <= c.From {
				continue
			}
			if _, err := tx.Exec(numbers+part.text, append([]any{c.From, part.to}, part.args...)...); err != nil {
				return fmt.Errorf("%s: %w", part.text, err)
			}
		}
		if tx.Postgres() { // it does so by itself within a minute
			_, err = tx.Exec(`ANALYZE`)
		}
		return err
	})
}

// ReferrerTail is what stands behind the ten digits of a referrer's number in its digest.
var ReferrerTail = strings.Repeat("c", 54)

// Referrer is the digest of the referrer of that number.
func Referrer(i int) string { return fmt.Sprintf("sha256:%010d%s", i, ReferrerTail) }

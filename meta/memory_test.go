// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// alone opens a database of its own with memory.
func alone(t testing.TB) *meta.DB {
	db, err := meta.Open(context.Background(), meta.Options{URL: metatest.URL(t, "sqlite"), Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func write(t testing.TB, db *meta.DB, query string, args ...any) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *meta.Tx) error { _, err := tx.Exec(query, args...); return err })
	if err != nil {
		t.Fatal(err)
	}
}

// What a write has answered is seen by every read that begins after, whatever kind of statement it was and however often the same was read before.
func TestMemoryForgetsWhatIsWritten(t *testing.T) {
	t.Parallel()
	db := alone(t)
	write(t, db, `INSERT INTO nodes (id, lease_until, epoch_seen) VALUES ('a', 1, 0), ('b', 2, 0)`)
	look := func() (got string) {
		err := db.Read(t.Context(), func(tx *meta.Tx) error {
			got = ""
			var none int64
			if err := tx.Row(`SELECT lease_until FROM nodes WHERE id = $1`, "c").Scan(&none); err == nil {
				got = fmt.Sprint("c=", none, " ")
			} else if !errors.Is(err, meta.ErrNotFound) {
				return err
			}
			rows, err := tx.Query(`SELECT id, lease_until FROM nodes WHERE id <> $1 ORDER BY id`, "c")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var id string
				var n int64
				if err := rows.Scan(&id, &n); err != nil {
					return err
				}
				got += fmt.Sprint(id, "=", n, " ")
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	expect := func(want string) {
		t.Helper()
		for n := range 3 {
			if got := strings.TrimSpace(look()); got != want {
				t.Errorf("read %d: %q, want %q", n, got, want)
			}
		}
	}
	expect("a=1 b=2")
	write(t, db, `UPDATE nodes SET lease_until = 3 WHERE id = 'a'`)
	expect("a=3 b=2")
	write(t, db, `DELETE FROM nodes WHERE id = 'b'`)
	expect("a=3")
	err := db.Write(t.Context(), func(tx *meta.Tx) error {
		var n int64
		return tx.Row(`INSERT INTO nodes (id, lease_until, epoch_seen) VALUES ('c', 7, 0) RETURNING lease_until`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	expect("c=7 a=3")
	own := errors.New("refused")
	err = db.Write(t.Context(), func(tx *meta.Tx) error {
		_, err := tx.Exec(`UPDATE nodes SET lease_until = 9`)
		return errors.Join(err, own)
	})
	if !errors.Is(err, own) {
		t.Fatal(err)
	}
	expect("c=7 a=3")
	write(t, db, `WITH n AS (SELECT 'a' AS id) UPDATE nodes SET lease_until = 4 WHERE id IN (SELECT id FROM n)`)
	expect("c=7 a=4")
}

// While money goes from a table to another and back, every read sees all of it, though each of its statements may be answered from memory or from the database.
func TestMemorySeesOneInstant(t *testing.T) {
	t.Parallel()
	db := alone(t)
	const accounts, total = 4, 1000
	write(t, db, `INSERT INTO nodes (id, lease_until, epoch_seen) VALUES ('0', 250, 0), ('1', 250, 0), ('2', 250, 0), ('3', 250, 0)`)
	for n := range accounts {
		write(t, db, `INSERT INTO installation (key, value) VALUES ($1, '0')`, fmt.Sprint("n", n))
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				sum := 0
				err := db.Read(t.Context(), func(tx *meta.Tx) error {
					sum = 0
					for _, n := range rand.Perm(2 * accounts) {
						var had int
						query, key := `SELECT lease_until FROM nodes WHERE id = $1`, fmt.Sprint(n)
						if n >= accounts {
							query, key = `SELECT CAST(value AS INTEGER) FROM installation WHERE key = $1`, fmt.Sprint("n", n-accounts)
						}
						if err := tx.Row(query, key).Scan(&had); err != nil {
							return err
						}
						sum += had
					}
					return nil
				})
				if err != nil || sum != total {
					t.Errorf("a read saw %d, %v; there are %d", sum, err, total)
					return
				}
			}
		})
	}
	for n := range 3000 {
		from, by := n%accounts, int64(rand.IntN(5)-2)
		err := db.Write(t.Context(), func(tx *meta.Tx) error {
			if _, err := tx.Exec(`UPDATE nodes SET lease_until = lease_until - $1 WHERE id = $2`, by, fmt.Sprint(from)); err != nil {
				return err
			}
			_, err := tx.Exec(`UPDATE installation SET value = CAST(CAST(value AS INTEGER) + $1 AS TEXT) WHERE key = $2`, by, fmt.Sprint("n", rand.IntN(accounts)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
}

func BenchmarkRead(b *testing.B) {
	for name, db := range map[string]*meta.DB{"memory": alone(b), "database": metatest.Open(b, metatest.URL(b, "sqlite"))} {
		write(b, db, `INSERT INTO nodes (id, lease_until, epoch_seen) VALUES ('a', 1, 0)`)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					err := db.Read(b.Context(), func(tx *meta.Tx) error {
						var n int64
						return tx.Row(`SELECT lease_until FROM nodes WHERE id = $1`, "a").Scan(&n)
					})
					if err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// Two changes that exclude one another, at once, on two handles of the database: one of them wins.
func TestConflictingWritesNeverBothCommit(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		first := newBench(t, open())
		second := first
		if first.DB.Postgres() {
			second = first.Another(t, open(), declare)
		}
		first.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", `{"location":"westus"}`)
		var next atomic.Int64
		var doorsWon, locksWon atomic.Int64
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() {
				for n := next.Add(1); n <= 200; n = next.Add(1) {
					vault := fmt.Sprintf("/subscriptions/%s/resourceGroups/g/providers/Fake.Bank/vaults/vault%d", first.People.Subscription, n)
					version := "?api-version=2021-06-01-preview"
					r := first.Call("owner", "PUT", vault+version, `{"location":"westus","sku":{"name":"Basic"},"properties":{"public":"Disabled"}}`)
					if r.StatusCode != 201 {
						t.Errorf("create: %d", r.StatusCode)
						continue
					}
					var door, lock *http.Response
					var pair sync.WaitGroup
					both := []func(){
						func() { door = first.Call("owner", "PUT", vault+"/doors/d"+version, `{}`) },
						func() { lock = second.Call("owner", "PATCH", vault+version, `{"properties":{"lock":"enabled"}}`) },
					}
					pair.Go(both[n%2])
					pair.Go(both[1-n%2])
					pair.Wait()
					if won := (door.StatusCode == 201) != (lock.StatusCode == 200); !won {
						t.Errorf("vault %d: door %d, lock %d", n, door.StatusCode, lock.StatusCode)
					}
					if door.StatusCode == 201 {
						doorsWon.Add(1)
					} else {
						locksWon.Add(1)
					}
				}
			})
		}
		workers.Wait()
		t.Logf("doors won %d times, locks %d times", doorsWon.Load(), locksWon.Load())
	})
}

// Creating one name from many sides at once: one creates it, in one group, and the others are told.
func TestConcurrentCreatesOfOneName(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := newBench(t, open())
		for _, g := range []string{"a", "b"} {
			b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/"+g+"?api-version=2021-04-01", `{"location":"westus"}`)
		}
		for n := range 20 {
			var created, updated, taken atomic.Int64
			var all sync.WaitGroup
			for i := range 6 {
				all.Go(func() {
					path := fmt.Sprintf("/subscriptions/%s/resourceGroups/%c/providers/Fake.Bank/vaults/vault%d?api-version=2021-09-01", b.People.Subscription, 'a'+i%2, n)
					switch r := b.Call("owner", "PUT", path, `{"location":"westus","sku":{"name":"Basic"}}`); r.StatusCode {
					case 201:
						created.Add(1)
					case 200:
						updated.Add(1)
					case 409:
						taken.Add(1)
					default:
						t.Errorf("answer %d", r.StatusCode)
					}
				})
			}
			all.Wait()
			if created.Load() != 1 || updated.Load() != 2 || taken.Load() != 3 {
				t.Errorf("created %d, updated %d, taken %d", created.Load(), updated.Load(), taken.Load())
			}
		}
	})
}

// A change and its record commit together; a refusal is recorded with its rule; no secret is in either, nor in the database.
func TestRecordsOfChanges(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := newBench(t, open())
		b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", `{"location":"westus"}`)
		const vault = "/subscriptions/{sub}/resourceGroups/g/providers/Fake.Bank/vaults/vault1?api-version=2021-09-01"
		b.Must(t, 201, "PUT", vault, `{"location":"westus","sku":{"name":"Basic"},"properties":{"key":"opensesame"}}`)
		b.Must(t, 400, "PATCH", vault, `{"properties":{"lock":"enabled"}}`)
		b.Must(t, 200, "PATCH", vault, `{"properties":{"lock":"enabled","public":"Disabled"}}`)
		b.Must(t, 400, "POST", strings.Replace(vault, "vaults/vault1", "VAULTS/VAULT1/turnKey", 1), `{"times":"many"}`)
		b.Must(t, 200, "DELETE", vault, "")
		if err := b.Audit.Close(); err != nil { // what was only noted is written now
			t.Fatal(err)
		}
		entries, err := b.Audit.Read(context.Background(), audit.Query{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		var all string
		for _, e := range entries {
			got = append(got, fmt.Sprintf("%s %s %s %s", e.Action, e.Outcome, e.Rule, e.Resource[strings.LastIndex(e.Resource, "/")+1:]))
			all += string(e.Before) + string(e.After)
		}
		for _, want := range []string{
			"Fake.Bank/vaults/write succeeded  vault1", "Fake.Bank/vaults/write refused BadRequest properties.public vault1",
			"Fake.Bank/vaults/turnKey/action refused InvalidRequestContent times vault1", "Fake.Bank/vaults/delete succeeded  vault1",
		} {
			found := false
			for _, g := range got {
				found = found || g == want
			}
			if !found {
				t.Errorf("no record %q among %q", want, got)
			}
		}
		if len(got) != 6 {
			t.Errorf("%d records: %q", len(got), got)
		}
		if !strings.Contains(all, `"key":"(secret)"`) || strings.Contains(all, "opensesame") {
			t.Errorf("the records of the documents: %s", all)
		}
	})
}

// Secrets are sealed where they are stored.
func TestSecretsAreSealedAtRest(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := newBench(t, open())
		b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", `{"location":"westus"}`)
		const vault = "/subscriptions/{sub}/resourceGroups/g/providers/Fake.Bank/vaults/vault1"
		b.Must(t, 201, "PUT", vault+"?api-version=2021-09-01", `{"location":"westus","sku":{"name":"Basic"},"properties":{"key":"opensesame"}}`)
		var doc string
		err := b.DB.Read(context.Background(), func(tx *meta.Tx) error {
			return tx.Row("SELECT doc FROM resources WHERE name = 'vault1'").Scan(&doc)
		})
		if err != nil || strings.Contains(doc, "opensesame") || !strings.Contains(doc, `"key":"`) {
			t.Errorf("stored as %s, %v", doc, err)
		}
		if v := b.Must(t, 200, "POST", vault+"/showKey?api-version=2021-09-01", ""); v["key"] != "opensesame" {
			t.Errorf("the key came back as %v", v)
		}
	})
}

// After a new installation key, every secret is sealed by it, and is what it was.
func TestReseal(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := newBench(t, open())
		b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", `{"location":"westus"}`)
		const vault = "/subscriptions/{sub}/resourceGroups/g/providers/Fake.Bank/vaults/vault"
		for n := range 5 { // more than a page
			b.Must(t, 201, "PUT", fmt.Sprint(vault, n, "?api-version=2021-09-01"), fmt.Sprintf(`{"location":"westus","sku":{"name":"Basic"},"properties":{"key":"opensesame%d"}}`, n))
		}
		id := b.Rotate(t)
		if err := b.DB.Write(t.Context(), func(tx *meta.Tx) error { return b.Engine.Reseal(tx) }); err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			var doc string
			if err := b.DB.Read(t.Context(), func(tx *meta.Tx) error {
				return tx.Row("SELECT doc FROM resources WHERE name = $1", fmt.Sprint("vault", n)).Scan(&doc)
			}); err != nil {
				t.Fatal(err)
			}
			_, text, _ := strings.Cut(doc, `"key":"`)
			text, _, _ = strings.Cut(text, `"`)
			sealed, err := base64.StdEncoding.DecodeString(text)
			if err != nil || len(sealed) < 5 || hex.EncodeToString(sealed[1:5]) != id {
				t.Errorf("after the key %s came, a secret is stored as %x, %v", id, sealed, err)
			}
			if v := b.Must(t, 200, "POST", fmt.Sprint(vault, n, "/showKey?api-version=2021-09-01"), ""); v["key"] != fmt.Sprint("opensesame", n) {
				t.Errorf("the key came back as %v", v)
			}
		}
	})
}

// A list of more than a page is read to its end by its links, each resource once.
func TestPagesHoldEverythingOnce(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := newBench(t, open())
		b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", `{"location":"westus"}`)
		want := map[string]bool{}
		for n := range 10 {
			name := fmt.Sprintf("Vault%02d", n)
			want[name] = true
			b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g/providers/Fake.Bank/vaults/"+name+"?api-version=2021-09-01", `{"location":"westus","sku":{"name":"Basic"}}`)
		}
		pages := 0
		for next := "/subscriptions/" + b.People.Subscription + "/providers/Fake.Bank/vaults?api-version=2021-09-01"; next != ""; pages++ {
			r := b.Call("reader", "GET", next, "")
			var page struct {
				Value    []struct{ Name string }
				NextLink string
			}
			if err := json.NewDecoder(r.Body).Decode(&page); err != nil || r.StatusCode != 200 {
				t.Fatal(r.StatusCode, err)
			}
			for _, v := range page.Value {
				if !want[v.Name] {
					t.Errorf("%s is listed twice or was never made", v.Name)
				}
				delete(want, v.Name)
			}
			next = page.NextLink
		}
		if len(want) > 0 || pages != 4 {
			t.Errorf("%d pages, missing %v", pages, want)
		}
	})
}

// Deleting a group and creating in it, at once: nothing is left in a group that has gone.
func TestNothingOutlivesItsGroup(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := newBench(t, open())
		for n := range 30 {
			group := fmt.Sprintf("/subscriptions/{sub}/resourceGroups/g%d", n)
			vault := fmt.Sprintf("%s/providers/Fake.Bank/vaults/vault%d?api-version=2021-09-01", group, n)
			b.Must(t, 201, "PUT", group+"?api-version=2021-04-01", `{"location":"westus"}`)
			var both sync.WaitGroup
			both.Go(func() {
				switch r := b.Call("owner", "PUT", vault, `{"location":"westus","sku":{"name":"Basic"}}`); r.StatusCode {
				case 201, 404, 409:
				default:
					t.Errorf("create: %d", r.StatusCode)
				}
			})
			both.Go(func() {
				r := b.Call("owner", "DELETE", group+"?api-version=2021-04-01", "")
				link := r.Header.Get("Location")
				armtest.Until(t, func() bool { return b.Call("owner", "GET", link, "").StatusCode == 200 })
			})
			both.Wait()
		}
		var left int
		err := b.DB.Read(context.Background(), func(tx *meta.Tx) error { return tx.Row("SELECT COUNT(*) FROM resources").Scan(&left) })
		if err != nil || left != 0 {
			t.Errorf("%d resources are left, %v", left, err)
		}
	})
}

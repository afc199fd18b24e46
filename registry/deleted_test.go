// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/registry"
)

type bin struct {
	Repositories []string
	Manifests    []struct {
		Digest    string
		DeletedAt time.Time
	}
	Tags []struct {
		Tag, Digest string
		DeletedAt   time.Time
	}
}

func (h *host) bin(t *testing.T, path string) (b bin) {
	t.Helper()
	a := h.do(200, "GET", "/acr/v1/_deleted/"+path, nil)
	if err := json.Unmarshal(a.body, &b); err != nil {
		t.Fatalf("%s: %v: %s", path, err, a.body)
	}
	return b
}

// What is deleted under softDeletePolicy is gone from sight and can be listed and restored, until its days are over; its content stays as long.
func TestSoftDelete(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		one, two := h.image("app", "v1", "a"), h.image("app", "", "b")
		h.manifest("app", "latest", mediaImage, one)
		index := indexOf(one, two)
		h.manifest("app", "all", mediaIndex, index)
		d1, d2, di := string(name.DigestOf(one)), string(name.DigestOf(two)), string(name.DigestOf(index))
		if b := h.bin(t, "_catalog"); len(b.Repositories) != 0 {
			t.Errorf("before: %+v", b)
		}
		h.do(202, "DELETE", "/v2/app/manifests/"+d1, nil)
		h.do(404, "GET", "/v2/app/manifests/v1", nil)
		h.do(404, "GET", "/v2/app/manifests/"+d1, nil)
		if b := h.bin(t, "_catalog"); !slices.Equal(b.Repositories, []string{"app"}) {
			t.Errorf("the catalog of what was deleted: %+v", b)
		}
		if b := h.bin(t, "app/_manifests"); len(b.Manifests) != 1 || b.Manifests[0].Digest != d1 || b.Manifests[0].DeletedAt.IsZero() {
			t.Errorf("deleted manifests: %+v", b)
		}
		if b := h.bin(t, "app/_tags"); len(b.Tags) != 2 || b.Tags[0].Tag != "latest" || b.Tags[1].Tag != "v1" || b.Tags[1].Digest != d1 {
			t.Errorf("deleted tags: %+v", b)
		}
		if done := w.collect(0); done.Content != 0 {
			t.Errorf("deleted content was collected: %+v", done)
		}
		// Restored under a tag; another one's tag is taken only by force.
		h.manifest("app", "latest", mediaImage, two)
		const restore = "/acr/v1/_deleted/app/_manifests/"
		h.do(409, "POST", restore+d1, []byte(`{"tag":"latest"}`))
		h.do(404, "GET", "/v2/app/manifests/"+d1, nil)
		h.do(200, "POST", restore+d1, []byte(`{"tag":"v1"}`))
		h.do(200, "GET", "/v2/app/manifests/v1", nil)
		h.do(200, "POST", restore+d1+"?force=True", []byte(`{"tag":"latest"}`))
		h.do(200, "GET", "/v2/app/manifests/latest", nil).want(t, "Docker-Content-Digest", d1)
		h.do(404, "POST", restore+"sha256:0000000000000000000000000000000000000000000000000000000000000000", []byte(`{}`))
		// A whole repository, and an index with what it names.
		h.do(202, "DELETE", "/acr/v1/app", nil)
		h.do(404, "GET", "/v2/app/tags/list", nil)
		h.do(200, "POST", restore+di, []byte(`{"tag":"all"}`))
		for _, d := range []string{di, d1, d2} {
			h.do(200, "GET", "/v2/app/manifests/"+d, nil)
		}
		// An untagged one can be tagged again.
		h.do(202, "DELETE", "/acr/v1/app/_tags/all", nil)
		h.do(200, "POST", restore+di, []byte(`{"tag":"all"}`))
		h.do(200, "GET", "/v2/app/manifests/all", nil)
		// What is locked is not deleted, and what is pushed again is no longer deleted.
		h.do(202, "DELETE", "/v2/app/manifests/"+d2, nil)
		h.manifest("app", "", mediaImage, two)
		if b := h.bin(t, "app/_manifests"); len(b.Manifests) != 0 {
			t.Errorf("what was pushed again is among the deleted: %+v", b)
		}
		h.do(202, "DELETE", "/v2/app/manifests/"+d2, nil)
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 0 {
			t.Errorf("within the days: %d, %v", n, err)
		}
		w.age(7)
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 1 {
			t.Errorf("after the days: %d, %v", n, err)
		}
		h.do(404, "POST", restore+d2, []byte(`{}`))
		if done := w.collect(0); done.Content != 3 {
			t.Errorf("after the days: %+v", done)
		}
	})
}

// age makes what was deleted older by days.
func (w *world) age(days int) {
	w.t.Helper()
	w.write(func(tx *meta.Tx) error {
		for _, table := range []string{"deleted_manifests", "deleted_tags"} {
			if _, err := tx.Exec(`UPDATE `+table+` SET deleted_us = deleted_us - $1`, int64(days)*(24*time.Hour).Microseconds()); err != nil {
				return err
			}
		}
		return nil
	})
}

// An import brings what was deleted back as a push does: it is among the deleted no more, and whole when their days are over.
func TestImportOfWhatWasDeleted(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src := w.registry("source")
		dst := w.registry("target", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		d := string(name.DigestOf(src.image("app", "v1", "a")))
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleContributor)
		for _, before := range []string{"nothing", "what was deleted"} {
			finish, err := w.reg.Halves(context.Background(), registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "app:v1")}}, w.caller(p))
			if err == nil {
				err = finish()
			}
			if err != nil {
				t.Fatalf("over %s: %v", before, err)
			}
			if before == "nothing" {
				dst.do(202, "DELETE", "/v2/app/manifests/"+d, nil)
			}
		}
		if b := dst.bin(t, "app/_manifests"); len(b.Manifests) != 0 {
			t.Errorf("what was imported again is among the deleted: %+v", b)
		}
		src.do(202, "DELETE", "/acr/v1/app", nil)
		w.age(8)
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 0 {
			t.Errorf("after the days: %d, %v", n, err)
		}
		w.collect(0)
		dst.whole(t, "app", "v1")
	})
}

// What refers to a manifest is deleted with it, and what refers to that, each told and on record; it is restored with it. A lock on one of them refuses it all.
func TestReferrersGoWithTheirSubject(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h, l := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 }), listen(t, w)
		l.hook(t, h, "deletes", "", "delete")
		l.deliver(t)
		subject := h.image("app", "v1", "a")
		refer := func(to []byte, kind string) []byte {
			m := imageOf(`,"artifactType":"a/`+kind+`","subject":`+descriptor(mediaImage, to), []byte(`{"seed":"a"}`))
			h.manifest("app", "", mediaImage, m)
			return m
		}
		early, bill := refer(subject, "early"), refer(subject, "bill")
		signature := refer(bill, "signature")
		h.manifest("app", "signed", mediaImage, signature)
		digest := func(m []byte) string { return string(name.DigestOf(m)) }
		all := []string{digest(subject), digest(bill), digest(signature)}
		there := func(want int, digests ...string) {
			t.Helper()
			for _, d := range digests {
				h.do(want, "GET", "/v2/app/manifests/"+d, nil)
			}
		}
		h.do(202, "DELETE", "/v2/app/manifests/"+digest(early), nil)
		for _, at := range []string{"_manifests/" + digest(bill), "_tags/signed"} {
			h.acr(t, 200, "PATCH", "app/"+at, `{"deleteEnabled":false}`)
			a := h.do(405, "DELETE", "/v2/app/manifests/"+digest(subject), nil)
			if what := at[strings.Index(at, "/")+1:]; !strings.Contains(string(a.body), what) {
				t.Errorf("a locked %s is told as %s", what, a.body)
			}
			h.acr(t, 200, "PATCH", "app/"+at, `{"deleteEnabled":true}`)
		}
		h.do(202, "DELETE", "/acr/v1/app/_tags/v1", nil)
		there(200, all...)

		h.do(202, "DELETE", "/v2/app/manifests/"+digest(subject), nil)
		there(404, all...)
		h.do(404, "GET", "/acr/v1/app/_manifests", nil)
		if b := h.bin(t, "app/_manifests"); len(b.Manifests) != 4 {
			t.Errorf("in the bin: %+v", b)
		}
		told := map[string]bool{}
		for range 4 {
			told[l.next(t).Target.Digest] = true
		}
		recorded := w.records(h.row.ID, func(r audit.Record) bool {
			return strings.HasSuffix(r.Action, "artifacts/delete") && r.Reference == "manifest"
		})
		for _, d := range all {
			if n := slices.IndexFunc(recorded, func(r audit.Record) bool { return r.Digest == d }); !told[d] || n < 0 {
				t.Errorf("the deletion of %s: told %v, record %d", d, told[d], n)
			}
		}
		h.do(200, "POST", "/acr/v1/_deleted/app/_manifests/"+digest(subject), []byte(`{"tag":"v1"}`))
		there(200, all...)
		there(404, digest(early)) // it was deleted before, for itself

		h.change(func(r *meta.RegistryRow) { r.SoftDelete = false })
		h.do(202, "DELETE", "/v2/app/manifests/"+digest(subject), nil)
		there(404, all...)
	})
}

// What is restored is locked as it was, a manifest and a tag.
func TestRestoredLocks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		one, two := string(name.DigestOf(h.image("app", "v1", "a"))), string(name.DigestOf(h.image("app", "v2", "b")))
		for _, at := range []string{"_manifests/" + one, "_tags/v2"} {
			h.acr(t, 200, "PATCH", "app/"+at, `{"readEnabled":false}`)
		}
		restore := func(digest, tag string) {
			t.Helper()
			h.do(200, "POST", "/acr/v1/_deleted/app/_manifests/"+digest, []byte(`{"tag":"`+tag+`"}`))
		}
		for _, path := range []string{"/v2/app/manifests/" + two, "/acr/v1/app/_tags/v2"} {
			h.do(202, "DELETE", path, nil)
			restore(two, "v2")
			h.do(405, "GET", "/v2/app/manifests/v2", nil)
			h.do(200, "GET", "/v2/app/manifests/"+two, nil)
		}
		h.do(202, "DELETE", "/v2/app/manifests/"+one, nil)
		restore(one, "other")
		for _, reference := range []string{one, "other"} {
			h.do(405, "GET", "/v2/app/manifests/"+reference, nil)
		}
	})
}

// A manifest to which more refers than one deletion may take is not deleted.
func TestTooManyReferrers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		d := string(name.DigestOf(h.image("app", "v1", "a")))
		w.write(func(tx *meta.Tx) error {
			_, err := tx.Exec(`INSERT INTO manifests (repository, digest, media_type, artifact_type, subject, annotations, config_digest, size, created_us)
 SELECT id, 'sha256:' || i, '`+mediaImage+`', 'a/b', CAST($1 AS TEXT), '', '', 1, 1
 FROM repositories, (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001) SELECT i FROM n) AS many`, d)
			return err
		})
		if a := h.do(405, "DELETE", "/v2/app/manifests/"+d, nil); !strings.Contains(string(a.body), "10000") {
			t.Errorf("%s", a.body)
		}
		h.do(200, "GET", "/v2/app/manifests/v1", nil)
		w.write(func(tx *meta.Tx) error {
			_, err := tx.Exec(`DELETE FROM manifests WHERE digest = 'sha256:1'`)
			return err
		})
		h.do(202, "DELETE", "/v2/app/manifests/"+d, nil)
		if n := w.count("manifests"); n != 0 {
			t.Errorf("%d manifests are left", n)
		}
	})
}

// Deleted tags come in pages that together hold each once, also where a tag was deleted from several manifests.
func TestDeletedTagsInPages(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		want := map[string]bool{}
		for _, seed := range []string{"a", "b", "c"} {
			m := h.image("app", "latest", seed)
			h.manifest("app", "v-"+seed, mediaImage, m)
			d := string(name.DigestOf(m))
			h.do(202, "DELETE", "/v2/app/manifests/"+d, nil)
			want["latest@"+d], want["v-"+seed+"@"+d] = true, true
		}
		for n := 1; n <= 7; n++ {
			got := map[string]bool{}
			pages := 0
			for next := fmt.Sprintf("/acr/v1/_deleted/app/_tags?n=%d", n); next != ""; pages++ {
				a := h.do(200, "GET", next, nil)
				var b bin
				if err := json.Unmarshal(a.body, &b); err != nil {
					t.Fatal(err)
				}
				for _, tag := range b.Tags {
					key := tag.Tag + "@" + tag.Digest
					if got[key] {
						t.Errorf("in pages of %d %s comes twice", n, key)
					}
					got[key] = true
				}
				next, _, _ = strings.Cut(strings.TrimPrefix(a.Get("Link"), "<"), ">")
			}
			if !maps.Equal(got, want) || pages != (len(want)+n-1)/n {
				t.Errorf("in %d pages of %d: %v, want %v", pages, n, got, want)
			}
		}
	})
}

// A deleted tag is forgotten when its days are over, though its manifest is there.
func TestDeletedTagsAreForgotten(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		m := h.image("app", "kept", "a")
		for _, tag := range []string{"old", "new"} {
			h.manifest("app", tag, mediaImage, m)
			w.age(8)
			h.do(202, "DELETE", "/acr/v1/app/_tags/"+tag, nil)
		}
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 0 {
			t.Errorf("%d manifests were deleted: %v", n, err)
		}
		if b := h.bin(t, "app/_tags"); len(b.Tags) != 1 || b.Tags[0].Tag != "new" {
			t.Errorf("in the bin: %+v", b)
		}
		if gone := w.records(h.row.ID, func(r audit.Record) bool { return r.Rule == "softDeletePolicy" }); len(gone) != 1 || gone[0].Reference != "old" {
			t.Errorf("on record: %+v", gone)
		}
		h.whole(t, "app", "kept")
	})
}

// A role that pulls, pushes or deletes does not look into the bin; tokens of scope maps neither.
func TestRightsOnDeleted(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		m := h.image("app", "v1", "a")
		h.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(m)), nil)
		k := h.token(t, "ci-token", "_repositories_admin")
		for _, path := range []string{"_catalog", "app/_manifests", "app/_tags"} {
			k.do(403, "GET", "/acr/v1/_deleted/"+path, nil)
		}
		k.do(403, "POST", "/acr/v1/_deleted/app/_manifests/"+string(name.DigestOf(m)), []byte(`{}`))
		bearer := h.as(w.tokenOf(h, "repository:app:deleted_read"))
		bearer.do(200, "GET", "/acr/v1/_deleted/app/_manifests", nil)
		bearer.do(401, "POST", "/acr/v1/_deleted/app/_manifests/"+string(name.DigestOf(m)), []byte(`{}`))
		h.as(w.tokenOf(h, "registry:deleted_catalog:*")).do(200, "GET", "/acr/v1/_deleted/_catalog", nil)
		h.as(w.tokenOf(h, "registry:catalog:*")).do(401, "GET", "/acr/v1/_deleted/_catalog", nil)
	})
}

// retentionPolicy deletes what has had no tag for its days since it was enabled, and nothing that is of use without one, or locked.
func TestRetention(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		digest := func(m []byte) string { return string(name.DigestOf(m)) }
		before := h.image("app", "", "before")
		h.change(func(r *meta.RegistryRow) { r.Retention, r.RetentionDays, r.RetentionSince = true, 0, time.Now() })
		tagged, loose, locked, moved := h.image("app", "v1", "tagged"), h.image("app", "", "loose"), h.image("app", "", "locked"), h.image("app", "moving", "moved")
		child := h.image("app", "", "child")
		h.manifest("app", "all", mediaIndex, indexOf(child))
		signature := imageOf(`,"artifactType":"a/b","subject":`+descriptor(mediaImage, tagged), []byte(`{"seed":"child"}`))
		h.manifest("app", "", mediaImage, signature)
		h.acr(t, 200, "PATCH", "app/_manifests/"+digest(locked), `{"deleteEnabled":false}`)
		h.image("app", "moving", "other") // the tag leaves its manifest
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 1 {
			t.Errorf("%d were deleted, want moved: %v", n, err)
		}
		w.pass()
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 1 {
			t.Errorf("%d were deleted, want loose: %v", n, err)
		}
		for what, m := range map[string][]byte{"loose": loose, "moved": moved} {
			if h.send(h.request("GET", "/v2/app/manifests/"+digest(m), nil)).status != 404 {
				t.Errorf("%s is still there", what)
			}
		}
		for what, m := range map[string][]byte{"before the policy": before, "tagged": tagged, "locked": locked, "a child": child, "a signature": signature} {
			if h.send(h.request("GET", "/v2/app/manifests/"+digest(m), nil)).status != 200 {
				t.Errorf("%s was deleted", what)
			}
		}
		if gone := w.records(h.row.ID, func(r audit.Record) bool { return r.Rule == "retentionPolicy" }); len(gone) != 2 {
			t.Errorf("%d deletions are on record", len(gone))
		}
		h.change(func(r *meta.RegistryRow) { r.RetentionDays = 3 })
		h.image("app", "moving", "once more")
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 0 {
			t.Errorf("before its days are over %d were deleted: %v", n, err)
		}
		h.change(func(r *meta.RegistryRow) { r.RetentionDays, r.Retention = 0, false })
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 0 {
			t.Errorf("without the policy %d were deleted: %v", n, err)
		}
	})
}

// What retentionPolicy deletes takes along what refers to it, and stays where something of that is locked, however far away.
func TestRetentionOfWhatIsSigned(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Retention, r.RetentionSince = true, time.Now().Add(-time.Hour) })
		config := []byte(`{"seed":"signatures"}`)
		h.blob("app", config)
		refer := func(to []byte) []byte {
			m := imageOf(`,"artifactType":"a/b","subject":`+descriptor(mediaImage, to), config)
			h.manifest("app", "", mediaImage, m)
			return m
		}
		loose, kept := h.image("app", "", "loose"), h.image("app", "", "kept")
		ours := [][]byte{loose, refer(loose)}
		ours = append(ours, refer(ours[1]))
		theirs := [][]byte{kept, refer(kept)}
		theirs = append(theirs, refer(theirs[1]))
		h.acr(t, 200, "PATCH", "app/_manifests/"+string(name.DigestOf(theirs[2])), `{"deleteEnabled":false}`)
		w.pass()
		if n, err := w.reg.Purge(context.Background()); err != nil || n != len(ours) {
			t.Errorf("%d were deleted: %v", n, err)
		}
		var want, got []string
		for i := range ours {
			h.do(404, "GET", "/v2/app/manifests/"+string(name.DigestOf(ours[i])), nil)
			h.do(200, "GET", "/v2/app/manifests/"+string(name.DigestOf(theirs[i])), nil)
			want = append(want, string(name.DigestOf(ours[i])))
		}
		for _, r := range w.records(h.row.ID, func(r audit.Record) bool { return r.Rule == "retentionPolicy" }) {
			got = append(got, r.Digest)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("on record: %q, want %q", got, want)
		}
	})
}

// retentionPolicy of no days leaves a client the time to push an index, whether its platforms are new or were there.
func TestRetentionDuringAPush(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Retention, r.RetentionSince = true, time.Now().Add(-time.Hour) })
		one := h.image("app", "", "a")
		w.pass()
		h.manifest("app", "", mediaImage, one)
		two := h.image("app", "", "b")
		if n, err := w.reg.Purge(context.Background()); err != nil || n != 0 {
			t.Errorf("%d were deleted: %v", n, err)
		}
		h.manifest("app", "all", mediaIndex, indexOf(one, two))
		h.whole(t, "app", "all")
	})
}

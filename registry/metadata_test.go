// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// thing is a repository, a tag or a manifest, or a list, as ACR's interface shows it.
type thing struct {
	Registry, ImageName     string
	CreatedTime             time.Time
	LastUpdateTime          time.Time
	ManifestCount, TagCount int
	Tag, Manifest           *entry
	Tags, Manifests         []entry
	ChangeableAttributes    map[string]bool
	ManifestsDeleted        []string
	TagsDeleted             []string
	Repositories            []string
}

type entry struct {
	Name, Digest, Architecture, OS, MediaType, ConfigMediaType string
	ImageSize                                                  int64
	CreatedTime, LastUpdateTime                                time.Time
	Tags                                                       []string
	References                                                 []struct{ Digest, Architecture, OS string }
	ChangeableAttributes                                       map[string]bool
}

func (h *host) acr(t *testing.T, status int, method, path, body string) (thing, answer) {
	t.Helper()
	a := h.do(status, method, "/acr/v1/"+path, []byte(body))
	var th thing
	if err := json.Unmarshal(a.body, &th); err != nil && len(a.body) > 0 {
		t.Fatalf("%s %s: %v: %s", method, path, err, a.body)
	}
	return th, a
}

// platformImage pushes an image with a configuration that names a platform.
func (h *host) platformImage(repo, ref, arch string) []byte {
	h.w.t.Helper()
	config, layer := []byte(`{"architecture":"`+arch+`","os":"linux"}`), []byte("layer for "+arch)
	h.blob(repo, config)
	h.blob(repo, layer)
	m := imageOf("", config, layer)
	h.manifest(repo, ref, mediaImage, m)
	return m
}

// ACR's own interface describes repositories, tags and manifests.
func TestDescriptions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		amd, arm := h.platformImage("team/app", "amd", "amd64"), h.platformImage("team/app", "", "arm64")
		index := indexOf(amd, arm)
		h.manifest("team/app", "v1", mediaIndex, index)
		h.manifest("team/app", "latest", mediaIndex, index)

		all, _ := h.acr(t, 200, "GET", "_catalog", "")
		if !slices.Equal(all.Repositories, []string{"team/app"}) {
			t.Errorf("the catalog: %+v", all)
		}
		r, _ := h.acr(t, 200, "GET", "team/app", "")
		free := map[string]bool{"deleteEnabled": true, "writeEnabled": true, "readEnabled": true, "listEnabled": true}
		if r.Registry != "contoso.azurecr.localhost" || r.ImageName != "team/app" || r.ManifestCount != 3 || r.TagCount != 3 || r.CreatedTime.IsZero() ||
			r.LastUpdateTime.Before(r.CreatedTime) || fmt.Sprint(r.ChangeableAttributes) != fmt.Sprint(free) {
			t.Errorf("the repository: %+v", r)
		}
		tag, _ := h.acr(t, 200, "GET", "team/app/_tags/v1", "")
		if tag.Tag == nil || tag.Tag.Name != "v1" || tag.Tag.Digest != string(name.DigestOf(index)) || tag.Tag.CreatedTime.IsZero() || fmt.Sprint(tag.Tag.ChangeableAttributes) != fmt.Sprint(free) {
			t.Errorf("the tag: %+v", tag)
		}
		m, _ := h.acr(t, 200, "GET", "team/app/_manifests/"+string(name.DigestOf(index)), "")
		if m.Manifest == nil || m.Manifest.MediaType != mediaIndex || !slices.Equal(m.Manifest.Tags, []string{"latest", "v1"}) || len(m.Manifest.References) != 2 ||
			m.Manifest.References[0].OS != "linux" || m.Manifest.ImageSize != int64(len(index)) {
			t.Errorf("the index: %+v", m.Manifest)
		}
		if m, _ = h.acr(t, 200, "GET", "team/app/_manifests/"+string(name.DigestOf(arm)), ""); m.Manifest == nil || m.Manifest.Architecture != "arm64" || m.Manifest.OS != "linux" ||
			m.Manifest.ConfigMediaType != mediaConfig || m.Manifest.ImageSize != int64(len(arm)+len(`{"architecture":"arm64","os":"linux"}`)+len("layer for arm64")) || m.Manifest.Tags != nil {
			t.Errorf("the image: %+v", m.Manifest)
		}
		for path, code := range map[string]string{"none": "NAME_UNKNOWN", "none/_tags": "NAME_UNKNOWN", "none/_manifests": "NAME_UNKNOWN", "none/_tags/v1": "MANIFEST_UNKNOWN",
			"team/app/_tags/none": "MANIFEST_UNKNOWN", "team/app/_manifests/sha256:" + strings.Repeat("0", 64): "MANIFEST_UNKNOWN"} {
			if _, a := h.acr(t, 404, "GET", path, ""); a.code() != code {
				t.Errorf("%s: %s", path, a.body)
			}
		}
	})
}

// Lists come in pages, in the order that was asked, each entry once.
func TestListsInOrder(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		var names, digests []string
		for i := range 7 {
			tag := fmt.Sprintf("t%d", (i*3)%7) // pushed in another order than that of the names
			m := h.image("app", tag, tag)
			names, digests = append(names, tag), append(digests, string(name.DigestOf(m)))
		}
		reversed, sorted, sortedDigests := slices.Clone(names), slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(digests))
		slices.Reverse(reversed)
		for query, want := range map[string][]string{"_tags?n=3": sorted, "_tags?n=3&orderby=none": sorted, "_tags?n=2&orderby=timeasc": names, "_tags?n=3&orderby=timedesc": reversed,
			"_tags": sorted, "_tags?n=1000": sorted, "_tags?digest=" + digests[2]: names[2:3], "_manifests?n=4": sortedDigests, "_manifests?n=2&orderby=timeasc": digests} {
			var got []string
			for next := "/acr/v1/app/" + query; next != ""; {
				a := h.do(200, "GET", next, nil)
				var page thing
				if err := json.Unmarshal(a.body, &page); err != nil {
					t.Fatal(err)
				}
				for _, e := range page.Tags {
					got = append(got, e.Name)
				}
				for _, e := range page.Manifests {
					got = append(got, e.Digest)
				}
				next, _, _ = strings.Cut(strings.TrimPrefix(a.Get("Link"), "<"), ">")
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", query, got, want)
			}
		}
		for _, query := range []string{"_tags?orderby=size", "_tags?n=x", "_manifests?n=-1"} {
			if _, a := h.acr(t, 400, "GET", "app/"+query, ""); a.code() != "PAGINATION_NUMBER_INVALID" {
				t.Errorf("%s: %s", query, a.body)
			}
		}
		if page, _ := h.acr(t, 200, "GET", "app/_tags?orderby=timedesc&last=gone", ""); len(page.Tags) != 0 {
			t.Errorf("behind a tag that is not there: %+v", page.Tags)
		}
	})
}

// A list by time goes on where its page ended, though what the page ended with was deleted or changed meanwhile; so does one by the name alone while that is there.
func TestListsByTimeGoOn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		for i := range 6 {
			h.image("app", fmt.Sprintf("t%d", i), fmt.Sprint(i))
		}
		page := func(path string) (names []string, next string) {
			t.Helper()
			a := h.do(200, "GET", path, nil)
			var p thing
			if err := json.Unmarshal(a.body, &p); err != nil {
				t.Fatal(err)
			}
			for _, e := range p.Tags {
				names = append(names, e.Name)
			}
			for _, e := range p.Manifests {
				names = append(names, e.Digest)
			}
			next, _, _ = strings.Cut(strings.TrimPrefix(a.Get("Link"), "<"), ">")
			return names, next
		}
		digests, _ := page("/acr/v1/app/_manifests?orderby=timeasc")
		_, next := page("/acr/v1/app/_tags?orderby=timeasc&n=2")
		_, manifests := page("/acr/v1/app/_manifests?orderby=timeasc&n=2")
		h.do(202, "DELETE", "/acr/v1/app/_tags/t0", nil)
		h.do(202, "DELETE", "/v2/app/manifests/"+digests[1], nil)
		names, next := page(next)
		if want := []string{"t2", "t3"}; !slices.Equal(names, want) {
			t.Errorf("behind a tag that was deleted: %v, want %v", names, want)
		}
		if names, _ := page(manifests); !slices.Equal(names, digests[2:4]) {
			t.Errorf("behind a manifest that was deleted: %v, want %v", names, digests[2:4])
		}
		h.do(200, "PATCH", "/acr/v1/app/_tags/t3", []byte(`{"deleteEnabled":false}`))
		if names, _ := page(next); !slices.Equal(names, []string{"t4", "t5"}) {
			t.Errorf("behind a tag that was changed: %v", names)
		}
		if names, _ := page("/acr/v1/app/_tags?orderby=timedesc&last=t4"); !slices.Equal(names, []string{"t2"}) {
			t.Errorf("behind a name: %v", names)
		}
	})
}

// A lock holds against everything that it names, with the thing that is locked in the refusal, until it is taken away. Each change of it is on record.
func TestLocks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := h.image("app", "v1", "a")
		d := string(name.DigestOf(m))
		other := h.image("app", "v2", "b")
		layer := string(name.DigestOf([]byte("layer of a")))
		h.image("source", "v1", "c")
		mounted := string(name.DigestOf([]byte("layer of c")))
		type attempt struct {
			method, path, content string
			status                int
		}
		const manifests, tags = "/v2/app/manifests/", "/acr/v1/app/_tags/"
		retag := attempt{"PUT", manifests + "v1", string(other), 201}
		push := attempt{"PUT", manifests + "v3", string(other), 201}
		blob := attempt{"POST", "/v2/app/blobs/uploads/?digest=" + string(name.DigestOf([]byte("new"))), "new", 201}
		mount := attempt{"POST", "/v2/app/blobs/uploads/?from=source&mount=" + mounted, "", 201}
		pull, pullByTag, pullBlob := attempt{"GET", manifests + d, "", 200}, attempt{"GET", manifests + "v1", "", 200}, attempt{"GET", "/v2/app/blobs/" + layer, "", 200}
		untag, drop, dropAll := attempt{"DELETE", tags + "v1", "", 202}, attempt{"DELETE", manifests + d, "", 202}, attempt{"DELETE", "/acr/v1/app", "", 202}
		dropBlob := attempt{"DELETE", "/v2/app/blobs/" + layer, "", 202}
		for _, c := range []struct {
			of, attribute string
			refused       []attempt
			allowed       []attempt
			hidden        string // a list, and what is hidden in it
			entry         string
		}{
			{"app", "writeEnabled", []attempt{push, retag, blob, mount, untag, drop, dropBlob, dropAll}, []attempt{pull, pullByTag, pullBlob}, "", ""},
			{"app", "deleteEnabled", []attempt{untag, drop, dropBlob, dropAll}, []attempt{pull, push, blob, mount}, "", ""},
			{"app", "readEnabled", []attempt{pull, pullByTag, pullBlob}, []attempt{push}, "", ""},
			{"app", "listEnabled", nil, []attempt{pull, push}, "/v2/_catalog", `"app"`},
			{"app/_tags/v1", "writeEnabled", []attempt{retag, untag, drop, dropAll}, []attempt{pull, pullByTag, push}, "", ""},
			{"app/_tags/v1", "deleteEnabled", []attempt{untag, drop, dropAll}, []attempt{pullByTag, push}, "", ""},
			{"app/_tags/v1", "readEnabled", []attempt{pullByTag}, []attempt{pull, pullBlob}, "", ""},
			{"app/_tags/v1", "listEnabled", nil, []attempt{pullByTag}, "/v2/app/tags/list", `"v1"`},
			{"app/_manifests/" + d, "writeEnabled", []attempt{drop, dropAll}, []attempt{pull, push}, "", ""},
			{"app/_manifests/" + d, "deleteEnabled", []attempt{drop, dropAll}, []attempt{pull}, "", ""},
			{"app/_manifests/" + d, "readEnabled", []attempt{pull, pullByTag}, []attempt{pullBlob}, "", ""},
			{"app/_manifests/" + d, "listEnabled", nil, []attempt{pull}, "/acr/v1/app/_manifests", d},
		} {
			what := c.of + " " + c.attribute
			changed, a := h.acr(t, 200, "PATCH", c.of, `{"`+c.attribute+`":false}`)
			shown := changed.ChangeableAttributes
			if changed.Tag != nil {
				shown = changed.Tag.ChangeableAttributes
			} else if changed.Manifest != nil {
				shown = changed.Manifest.ChangeableAttributes
			}
			if v, there := shown[c.attribute]; v || !there || len(shown) != 4 {
				t.Errorf("%s: %s", what, a.body)
			}
			for _, try := range c.refused {
				a := h.do(405, try.method, try.path, []byte(try.content), "Content-Type", mediaImage)
				if !strings.Contains(string(a.body), "disallowed") || !strings.Contains(string(a.body), c.attribute) || a.code() != "UNSUPPORTED" {
					t.Errorf("%s: %s %s: %s", what, try.method, try.path, a.body)
				}
			}
			for _, try := range c.allowed {
				h.do(try.status, try.method, try.path, []byte(try.content), "Content-Type", mediaImage)
			}
			if c.hidden != "" && strings.Contains(string(h.do(200, "GET", c.hidden, nil).body), c.entry) {
				t.Errorf("%s: it is listed", what)
			}
			h.acr(t, 200, "PATCH", c.of, `{"`+c.attribute+`":true}`)
			if c.hidden != "" && !strings.Contains(string(h.do(200, "GET", c.hidden, nil).body), c.entry) {
				t.Errorf("%s: it stays hidden", what)
			}
		}
		h.manifest("app", "v1", mediaImage, m)
		for _, try := range []attempt{pull, pullByTag, pullBlob, push, blob, untag, drop} {
			h.do(try.status, try.method, try.path, []byte(try.content), "Content-Type", mediaImage)
		}
		for _, body := range []string{`{"writeEnabled":"no"}`, `[]`, `{`} {
			h.do(400, "PATCH", "/acr/v1/app", []byte(body))
		}
		h.do(404, "PATCH", "/acr/v1/none", []byte(`{"writeEnabled":false}`))
		h.do(404, "PATCH", "/acr/v1/app/_tags/none", []byte(`{"writeEnabled":false}`))
		marks := w.records(h.row.ID, func(r audit.Record) bool { return strings.HasSuffix(r.Action, "metadata/write") })
		if len(marks) != 24 || !strings.Contains(string(marks[0].Before), `"Write":true`) {
			t.Errorf("%d changes of locks are on record", len(marks))
		}
	})
}

// No policy undoes a lock: a repository that may not be deleted from or written keeps what retentionPolicy would delete and what softDeletePolicy would forget, nothing is restored into
// it or over a locked tag, and content that passed quarantine is not read where reading is locked.
func TestLocksBeatPolicies(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		purged := func(what string, want int) {
			t.Helper()
			if n, err := w.reg.Purge(context.Background()); err != nil || n != want {
				t.Errorf("%s: %d were deleted, want %d: %v", what, n, want, err)
			}
		}
		h.change(func(r *meta.RegistryRow) { r.Retention, r.RetentionDays, r.RetentionSince = true, 0, time.Now() })
		h.image("app", "v1", "a")
		h.image("app", "", "loose")
		w.pass()
		for _, lock := range []string{"deleteEnabled", "writeEnabled"} {
			h.acr(t, 200, "PATCH", "app", `{"`+lock+`":false}`)
			purged("retentionPolicy, "+lock, 0)
			h.acr(t, 200, "PATCH", "app", `{"`+lock+`":true}`)
		}
		purged("retentionPolicy without a lock", 1)
		config := []byte(`{"os":"linux"}`)
		h.blob("app", config)
		signature := imageOf(`,"artifactType":"a/b","subject":`+descriptor(mediaImage, h.image("app", "", "signed")), config)
		ds := string(name.DigestOf(signature))
		h.manifest("app", ds, mediaImage, signature)
		h.acr(t, 200, "PATCH", "app/_manifests/"+ds, `{"deleteEnabled":false}`)
		w.pass()
		purged("what something locked refers to", 0)
		h.acr(t, 200, "PATCH", "app/_manifests/"+ds, `{"deleteEnabled":true}`)
		purged("what something refers to, and that", 2)

		h.change(func(r *meta.RegistryRow) { r.Retention, r.SoftDelete, r.SoftDeleteDays = false, true, 7 })
		d := string(name.DigestOf(h.image("app", "gone", "b")))
		h.do(202, "DELETE", "/v2/app/manifests/"+d, nil)
		restore := func(status int, body string) {
			t.Helper()
			h.do(status, "POST", "/acr/v1/_deleted/app/_manifests/"+d+"?force=True", []byte(body))
		}
		h.acr(t, 200, "PATCH", "app", `{"writeEnabled":false}`)
		restore(405, `{}`)
		h.acr(t, 200, "PATCH", "app", `{"writeEnabled":true}`)
		h.acr(t, 200, "PATCH", "app/_tags/v1", `{"writeEnabled":false}`)
		restore(405, `{"tag":"v1"}`)
		h.do(404, "GET", "/v2/app/manifests/"+d, nil)
		h.acr(t, 200, "PATCH", "app/_tags/v1", `{"writeEnabled":true}`)
		w.age(8)
		for _, lock := range []string{"deleteEnabled", "writeEnabled"} {
			h.acr(t, 200, "PATCH", "app", `{"`+lock+`":false}`)
			purged("softDeletePolicy, "+lock, 0)
			h.acr(t, 200, "PATCH", "app", `{"`+lock+`":true}`)
		}
		purged("softDeletePolicy without a lock", 1)

		h.change(func(r *meta.RegistryRow) { r.Quarantine = true })
		d = string(name.DigestOf(h.image("app", "new", "c")))
		h.acr(t, 200, "PATCH", "app", `{"readEnabled":false}`)
		judge := h.logged("judge", identity.RoleAcrPull, roleQuarantineWriter)
		judge.do(200, "PATCH", "/acr/v1/app/_manifests/"+d, []byte(`{"quarantineState":"Passed"}`))
		h.do(405, "GET", "/v2/app/manifests/new", nil)
		h.acr(t, 200, "PATCH", "app", `{"readEnabled":true}`)
		h.do(200, "GET", "/v2/app/manifests/new", nil)
	})
}

// What a locked image needs is not deleted from under it: no layer, and no platform of a locked index. Nor is what something in the bin needs.
func TestPartsOfWhatIsLocked(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		one, two := h.image("app", "", "a"), h.image("app", "", "b")
		index := indexOf(one, two)
		h.manifest("app", "all", mediaIndex, index)
		layer := string(name.DigestOf([]byte("layer of a")))
		h.scopeMap("deleters", "repositories/app/content/delete")
		k := h.token(t, "ci-token", "deleters")
		for _, at := range []string{"app/_manifests/" + string(name.DigestOf(one)), "app/_manifests/" + string(name.DigestOf(index)), "app/_tags/all"} {
			for _, lock := range []string{"deleteEnabled", "writeEnabled"} {
				h.acr(t, 200, "PATCH", at, `{"`+lock+`":false}`)
				for _, path := range []string{"blobs/" + layer, "manifests/" + string(name.DigestOf(one))} {
					if a := k.do(405, "DELETE", "/v2/app/"+path, nil); !strings.Contains(string(a.body), lock+" of the ") {
						t.Errorf("DELETE %s: %s", path, a.body)
					}
				}
				h.acr(t, 200, "PATCH", at, `{"`+lock+`":true}`)
			}
		}
		h.whole(t, "app", "all")
		k.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(index)), nil)
		if a := k.do(405, "DELETE", "/v2/app/blobs/"+layer, nil); !strings.Contains(string(a.body), "softDeletePolicy") {
			t.Errorf("%s", a.body)
		}
		w.age(8)
		must[int](t)(w.reg.Purge(context.Background()))
		k.do(202, "DELETE", "/v2/app/blobs/"+layer, nil)
	})
}

// A repository goes with all it holds, and the answer tells what that was.
func TestDeleteRepository(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		one, two := h.image("app", "v1", "a"), h.image("app", "v2", "b")
		h.image("kept", "v1", "a")
		gone, _ := h.acr(t, 202, "DELETE", "app", "")
		want := slices.Sorted(slices.Values([]string{string(name.DigestOf(one)), string(name.DigestOf(two))}))
		if !slices.Equal(gone.ManifestsDeleted, want) || !slices.Equal(gone.TagsDeleted, []string{"v1", "v2"}) {
			t.Errorf("%+v", gone)
		}
		for _, path := range []string{"/v2/app/manifests/v1", "/v2/app/blobs/" + string(name.DigestOf([]byte("layer of a"))), "/acr/v1/app", "/v2/app/tags/list"} {
			h.do(404, "GET", path, nil)
		}
		h.do(404, "DELETE", "/acr/v1/app", nil)
		h.do(200, "GET", "/v2/kept/manifests/v1", nil)
		h.do(200, "GET", "/v2/kept/blobs/"+string(name.DigestOf([]byte("layer of a"))), nil)
	})
}

// A push by digest can set several tags at once; all of them or none.
func TestTagsOfAPushByDigest(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := h.image("app", "v1", "a")
		d := string(name.DigestOf(m))
		a := h.do(201, "PUT", "/v2/app/manifests/"+d+"?tag=x&tag=y&tag=x", m, "Content-Type", mediaImage)
		if got := a.Values("Oci-Tag"); !slices.Equal(got, []string{"x", "y"}) {
			t.Errorf("OCI-Tag: %v", got)
		}
		for _, tag := range []string{"x", "y"} {
			h.do(200, "GET", "/v2/app/manifests/"+tag, nil).want(t, "Docker-Content-Digest", d)
		}
		h.acr(t, 200, "PATCH", "app/_tags/y", `{"writeEnabled":false}`)
		h.do(http.StatusMethodNotAllowed, "PUT", "/v2/app/manifests/"+d+"?tag=z&tag=y", m, "Content-Type", mediaImage)
		h.do(404, "GET", "/v2/app/manifests/z", nil)
		h.do(400, "PUT", "/v2/app/manifests/"+d+"?tag=-z", m, "Content-Type", mediaImage)
		h.do(400, "PUT", "/v2/app/manifests/v1?tag=z", m, "Content-Type", mediaImage)
	})
}

// What a manifest says of its parts' sizes must be true.
func TestWrongSizes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := string(h.image("app", "v1", "a"))
		wrong := strings.Replace(m, fmt.Sprintf(`"size":%d`, len("layer of a")), `"size":999`, 1)
		a := h.do(400, "PUT", "/v2/app/manifests/v2", []byte(wrong), "Content-Type", mediaImage)
		if a.code() != "MANIFEST_INVALID" || !strings.Contains(string(a.body), "999") {
			t.Errorf("%s", a.body)
		}
	})
}

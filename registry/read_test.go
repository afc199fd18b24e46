// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

func TestRangesAndConditions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		// Larger than what is kept in memory and than one window of the gate.
		content := bytes.Repeat([]byte("0123456789abcdef"), (3<<20)/16)
		d := h.blob("app", content)
		path, size := "/v2/app/blobs/"+string(d), len(content)
		for _, c := range []struct {
			header   string
			status   int
			off, end int
			said     string
		}{
			{"bytes=0-0", 206, 0, 1, fmt.Sprintf("bytes 0-0/%d", size)},
			{"bytes=1048570-1048590", 206, 1048570, 1048591, fmt.Sprintf("bytes 1048570-1048590/%d", size)},
			{"bytes=3145720-", 206, 3145720, size, fmt.Sprintf("bytes 3145720-%d/%d", size-1, size)},
			{"bytes=-5", 206, size - 5, size, fmt.Sprintf("bytes %d-%d/%d", size-5, size-1, size)},
			{"bytes=0-1,5-6", 200, 0, size, ""},
			{"lines=1-2", 200, 0, size, ""},
		} {
			a := h.do(c.status, "GET", path, nil, "Range", c.header)
			a.want(t, "Content-Range", c.said, "Content-Length", fmt.Sprint(c.end-c.off), "Accept-Ranges", "bytes", "Content-Type", "application/octet-stream")
			if !bytes.Equal(a.body, content[c.off:c.end]) {
				t.Errorf("%s: other bytes", c.header)
			}
		}
		h.refused(t, 416, "RANGE_INVALID", "GET", path, nil, "Range", "bytes=3145728-").want(t, "Content-Range", fmt.Sprintf("bytes */%d", size))
		etag := `"` + string(d) + `"`
		h.do(206, "GET", path, nil, "Range", "bytes=0-1", "If-Range", etag)
		h.do(200, "GET", path, nil, "Range", "bytes=0-1", "If-Range", `"other"`)
		for _, method := range []string{"GET", "HEAD"} {
			a := h.do(304, method, path, nil, "If-None-Match", `"x", W/`+etag)
			a.want(t, "Etag", etag)
			if len(a.body) > 0 {
				t.Errorf("304 with %d bytes", len(a.body))
			}
		}
		h.do(200, "GET", path, nil, "If-None-Match", `"other"`)
	})
}

// TestDigestOfAnotherRepository (R12): a digest is served only from a repository that holds it.
func TestDigestOfAnotherRepository(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		one, two := w.registry("one"), w.registry("two")
		m := one.image("app", "v1", "a")
		d, layer := string(name.DigestOf(m)), string(name.DigestOf([]byte("layer of a")))
		two.image("app", "v1", "b")
		one.image("other", "v1", "c")
		for _, h := range []*host{one, two} {
			for _, repo := range []string{"other", "absent"} {
				for _, method := range []string{"GET", "HEAD"} {
					h.do(404, method, "/v2/"+repo+"/manifests/"+d, nil)
					h.do(404, method, "/v2/"+repo+"/blobs/"+layer, nil)
				}
			}
		}
		two.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/"+d, nil)
		two.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/app/blobs/"+layer, nil)
		one.do(200, "GET", "/v2/app/manifests/"+d, nil)
		// A manifest is no blob, and a blob no manifest.
		one.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/app/blobs/"+d, nil)
		one.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/"+layer, nil)
	})
}

func TestTagsAndCatalog(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		// In the order of bytes, which no locale's is.
		tags := []string{"0", "1.0", "A", "B_", "V1", "_x", "a", "b", "v1", "v1-x", "v10", "v2"}
		for _, tag := range tags {
			h.image("app", tag, "same")
		}
		list := func(path string) (names []string, next string) {
			t.Helper()
			a := h.do(200, "GET", path, nil)
			var body struct {
				Tags, Repositories []string
			}
			if err := json.Unmarshal(a.body, &body); err != nil {
				t.Fatal(err)
			}
			link := a.Get("Link")
			if link != "" {
				if !strings.HasPrefix(link, "</v2/") || !strings.HasSuffix(link, `>; rel="next"`) {
					t.Errorf("Link: %s", link)
				}
				next = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
			}
			return append(body.Tags, body.Repositories...), next
		}
		all, next := list("/v2/app/tags/list")
		if !slices.Equal(all, tags) || next != "" {
			t.Errorf("tags %v, next %q", all, next)
		}
		var paged []string
		pages := 0
		for path := "/v2/app/tags/list?n=5"; path != ""; pages++ {
			var page []string
			page, path = list(path)
			paged = append(paged, page...)
		}
		if !slices.Equal(paged, tags) || pages != 3 {
			t.Errorf("in %d pages: %v", pages, paged)
		}
		if got, next := list("/v2/app/tags/list?n=2&last=v1-x"); !slices.Equal(got, []string{"v10", "v2"}) || next != "" {
			t.Errorf("behind v1-x: %v, next %q", got, next)
		}
		a := h.do(200, "GET", "/v2/app/tags/list?n=0", nil)
		if string(a.body) != `{"name":"app","tags":[]}` || a.Get("Link") != "" {
			t.Errorf("n=0: %s", a.body)
		}
		for _, bad := range []string{"-1", "x", "1.5", ""} {
			h.refused(t, 400, "PAGINATION_NUMBER_INVALID", "GET", "/v2/app/tags/list?n="+bad, nil)
		}
		h.refused(t, 404, "NAME_UNKNOWN", "GET", "/v2/absent/tags/list", nil)

		// The catalog needs its own scope.
		h.as(w.tokenOf(h, "repository:app:pull,push,delete")).refused(t, 401, "UNAUTHORIZED", "GET", "/v2/_catalog", nil)
		h.image("zeta/b", "v1", "z")
		h.image("a-b", "v1", "z")
		h.image("a/b", "v1", "z")
		h.blob("only-a-blob", []byte("x"))
		w.registry("elsewhere").image("elsewhere", "v1", "e")
		want := []string{"a-b", "a/b", "app", "zeta/b"}
		if got, next := list("/v2/_catalog"); !slices.Equal(got, want) || next != "" {
			t.Errorf("catalog %v, next %q", got, next)
		}
		paged = nil
		for path := "/v2/_catalog?n=3"; path != ""; {
			var page []string
			page, path = list(path)
			paged = append(paged, page...)
		}
		if !slices.Equal(paged, want) {
			t.Errorf("catalog in pages: %v", paged)
		}
	})
}

// TestReferrersConcurrent: a thousand referrers pushed at once are all listed, each once.
func TestReferrersConcurrent(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		subject := h.image("app", "v1", "s")
		config := []byte("{}")
		h.blob("app", config)
		n := 1000
		if testing.Short() {
			n = 100
		}
		want := map[string]string{}
		work := make(chan []byte)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for m := range work {
					a := h.send(h.request("PUT", "/v2/app/manifests/"+string(name.DigestOf(m)), bytes.NewReader(m), "Content-Type", mediaImage))
					if a.status != 201 || a.Get("OCI-Subject") != string(name.DigestOf(subject)) {
						t.Errorf("PUT: %d, OCI-Subject %q: %.200s", a.status, a.Get("OCI-Subject"), a.body)
					}
				}
			})
		}
		for i := range n {
			kind := []string{"example/sbom", "example/signature"}[i%2]
			m := imageOf(fmt.Sprintf(`,"artifactType":%q,"subject":%s,"annotations":{"n":"%d"}`, kind, descriptor(mediaImage, subject), i), config)
			want[string(name.DigestOf(m))] = kind
			work <- m
		}
		close(work)
		wg.Wait()
		path := "/v2/app/referrers/" + string(name.DigestOf(subject))
		a := h.do(200, "GET", path, nil)
		a.want(t, "Content-Type", mediaIndex, "OCI-Filters-Applied", "")
		type entry struct {
			MediaType, Digest, ArtifactType string
			Size                            int
			Annotations                     map[string]string
		}
		var index struct {
			SchemaVersion int
			MediaType     string
			Manifests     []entry
		}
		if err := json.Unmarshal(a.body, &index); err != nil {
			t.Fatal(err)
		}
		if index.SchemaVersion != 2 || index.MediaType != mediaIndex || len(index.Manifests) != n {
			t.Fatalf("schemaVersion %d, mediaType %s, %d referrers", index.SchemaVersion, index.MediaType, len(index.Manifests))
		}
		seen := map[string]bool{}
		for _, e := range index.Manifests {
			if want[e.Digest] != e.ArtifactType || seen[e.Digest] || e.MediaType != mediaImage || e.Size == 0 || e.Annotations["n"] == "" {
				t.Fatalf("referrer %+v, wanted of type %q", e, want[e.Digest])
			}
			seen[e.Digest] = true
		}
		a = h.do(200, "GET", path+"?artifactType=example/sbom", nil)
		a.want(t, "OCI-Filters-Applied", "artifactType")
		index.Manifests = nil
		if err := json.Unmarshal(a.body, &index); err != nil || len(index.Manifests) != n/2 {
			t.Errorf("%d of one type, %v", len(index.Manifests), err)
		}
	})
}

func TestReferrers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		absent := string(name.DigestOf([]byte("nothing")))
		for _, repo := range []string{"app", "absent"} {
			a := h.do(200, "GET", "/v2/"+repo+"/referrers/"+absent, nil)
			if !strings.Contains(string(a.body), `"manifests":[]`) {
				t.Errorf("of nothing: %s", a.body)
			}
		}
		h.refused(t, 400, "DIGEST_INVALID", "GET", "/v2/app/referrers/v1", nil)
		// Referrers are read by those who may read the repository.
		h.as(w.tokenOf(h, "repository:app:push")).refused(t, 401, "UNAUTHORIZED", "GET", "/v2/app/referrers/"+absent, nil)
		// The subject may come later, and without artifactType the config's media type stands for it.
		h.blob("app", []byte("{}"))
		m := imageOf(`,"subject":`+descriptor(mediaImage, []byte("nothing")), []byte("{}"))
		h.manifest("app", "", mediaImage, m).want(t, "OCI-Subject", absent)
		a := h.do(200, "GET", "/v2/app/referrers/"+absent+"?artifactType="+mediaConfig, nil)
		if strings.Count(string(a.body), `"artifactType"`) != 0 {
			// Decoded, because "+" may stand in the query as a space.
			t.Errorf("a plus sign in a query is a space: %s", a.body)
		}
		a = h.do(200, "GET", "/v2/app/referrers/"+absent+"?artifactType="+strings.ReplaceAll(mediaConfig, "+", "%2B"), nil)
		if !strings.Contains(string(a.body), string(name.DigestOf(m))) {
			t.Errorf("by the config's type: %s", a.body)
		}
		// In another repository the same subject has none.
		a = h.do(200, "GET", "/v2/other/referrers/"+absent, nil)
		if strings.Contains(string(a.body), string(name.DigestOf(m))) {
			t.Errorf("another repository lists it: %s", a.body)
		}
		h.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(m)), nil)
		a = h.do(200, "GET", "/v2/app/referrers/"+absent, nil)
		if strings.Contains(string(a.body), string(name.DigestOf(m))) {
			t.Errorf("a deleted referrer is listed: %s", a.body)
		}
	})
}

func TestDelete(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := h.image("app", "v1", "a")
		d := string(name.DigestOf(m))
		h.manifest("app", "v2", mediaImage, m)
		h.do(202, "DELETE", "/v2/app/manifests/v1", nil)
		h.refused(t, 404, "MANIFEST_UNKNOWN", "DELETE", "/v2/app/manifests/v1", nil)
		h.do(200, "GET", "/v2/app/manifests/v2", nil)
		h.do(202, "DELETE", "/v2/app/manifests/"+d, nil)
		h.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/v2", nil)
		h.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/"+d, nil)
		h.refused(t, 404, "MANIFEST_UNKNOWN", "DELETE", "/v2/app/manifests/"+d, nil)
		layer := string(name.DigestOf([]byte("layer of a")))
		h.do(202, "DELETE", "/v2/app/blobs/"+layer, nil)
		h.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/app/blobs/"+layer, nil)
		h.refused(t, 404, "BLOB_UNKNOWN", "DELETE", "/v2/app/blobs/"+layer, nil)
		h.refused(t, 404, "BLOB_UNKNOWN", "DELETE", "/v2/absent/blobs/"+layer, nil)
		h.refused(t, 404, "MANIFEST_UNKNOWN", "DELETE", "/v2/absent/manifests/v1", nil)
		// It can be pushed again.
		h.image("app", "v1", "a")
		h.do(200, "GET", "/v2/app/manifests/"+d, nil)
		changes := w.records(h.row.ID, func(r audit.Record) bool { return strings.HasSuffix(r.Action, "/artifacts/delete") })
		if len(changes) != 3 {
			t.Errorf("%d deletions on record: %+v", len(changes), changes)
		}
	})
}

func TestMethodsAndPaths(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		d := string(h.blob("app", []byte("x")))
		for _, c := range []struct{ method, path, allow string }{
			{"POST", "/v2/", "GET, HEAD"},
			{"PUT", "/v2/_catalog", "GET, HEAD"},
			{"POST", "/v2/app/tags/list", "GET, HEAD"},
			{"POST", "/v2/app/manifests/v1", "GET, HEAD, PUT, DELETE"},
			{"PUT", "/v2/app/blobs/" + d, "GET, HEAD, DELETE"},
			{"GET", "/v2/app/blobs/uploads/", "POST"},
			{"POST", "/v2/app/blobs/uploads/00", "GET, HEAD, PATCH, PUT, DELETE"},
			{"DELETE", "/v2/app/referrers/" + d, "GET, HEAD"},
			{"GET", "/oauth2/exchange", "POST"},
		} {
			h.refused(t, 405, "UNSUPPORTED", c.method, c.path, nil).want(t, "Allow", c.allow)
		}
		for path, code := range map[string]string{
			"/":                      "UNSUPPORTED",
			"/v1/search":             "UNSUPPORTED",
			"/acr/v1/_nothing":       "UNSUPPORTED",
			"/v2/app":                "UNSUPPORTED",
			"/v2/app/manifests/v1/x": "UNSUPPORTED",
		} {
			h.refused(t, 404, code, "GET", path, nil)
		}
		h.refused(t, 400, "NAME_INVALID", "GET", "/v2/App/manifests/v1", nil)
		h.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/-x", nil)
		h.refused(t, 400, "TAG_INVALID", "PUT", "/v2/app/manifests/-x", []byte("{}"))
		if a := h.do(404, "HEAD", "/v2/app/manifests/none", nil); len(a.body) != 0 {
			t.Errorf("HEAD with a body: %s", a.body)
		}
		id := "0f8fad5b-d9cb-469f-a165-70867728950e"
		h.do(200, "GET", "/v2/", nil, "X-Ms-Correlation-Request-Id", id).want(t, "X-Ms-Correlation-Request-Id", id)
		if got := h.do(200, "GET", "/v2/", nil, "X-Ms-Correlation-Request-Id", "<script>alert(1)").Get("X-Ms-Correlation-Request-Id"); strings.Contains(got, "<") {
			t.Errorf("echoed %q", got)
		}
	})
}

// TestHeadIsGetWithoutBody: whatever can be read answers HEAD with the status and the headers of GET and nothing else.
func TestHeadIsGetWithoutBody(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		m := h.image("app", "v1", "a")
		h.manifest("app", "v2", mediaImage, m)
		h.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(h.image("app", "gone", "b"))), nil)
		d := string(name.DigestOf(m))
		for _, path := range []string{"/v2/", "/v2/_catalog", "/v2/app/tags/list?n=1", "/v2/app/referrers/" + d, "/v2/app/manifests/v1", "/v2/app/blobs/" + string(name.DigestOf([]byte("layer of a"))),
			"/acr/v1/_catalog", "/acr/v1/app", "/acr/v1/app/_tags?n=1", "/acr/v1/app/_tags/v1", "/acr/v1/app/_manifests", "/acr/v1/app/_manifests/" + d,
			"/acr/v1/_deleted/_catalog", "/acr/v1/_deleted/app/_manifests", "/acr/v1/_deleted/app/_tags", "/v2/none/tags/list", "/acr/v1/app/_tags/none"} {
			get := h.send(h.request("GET", path, nil))
			head := h.do(get.status, "HEAD", path, nil)
			if len(head.body) != 0 || len(get.body) == 0 {
				t.Errorf("%s: HEAD has %d bytes, GET %d", path, len(head.body), len(get.body))
			}
			for _, header := range []string{"Content-Type", "Content-Length", "Docker-Content-Digest", "Link", "Etag"} {
				if head.Get(header) != get.Get(header) {
					t.Errorf("%s: %s is %q for HEAD and %q for GET", path, header, head.Get(header), get.Get(header))
				}
			}
		}
	})
}

// TestRegistriesAreApart: a registry made again under a name starts empty, and what the old one held can't be reached.
func TestRegistriesAreApart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := h.image("app", "v1", "a")
		old := w.tokenOf(h, "repository:app:pull,push")
		w.drop(h)
		h.refused(t, 404, "NAME_UNKNOWN", "GET", "/v2/app/manifests/v1", nil)
		w.runJobs()
		w.ended("registry.drop-" + h.row.ID)
		for _, table := range []string{"repositories", "manifests", "manifest_refs", "blob_links", "tags"} {
			if n := w.count(table); n != 0 {
				t.Errorf("%d rows are left in %s", n, table)
			}
		}
		again := w.registry("contoso")
		again.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/v1", nil)
		again.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/"+string(name.DigestOf(m)), nil)
		again.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/app/blobs/"+string(name.DigestOf([]byte("layer of a"))), nil)
		again.as(old).refused(t, 401, "UNAUTHORIZED", "GET", "/v2/app/manifests/v1", nil)
		if a := again.do(200, "GET", "/v2/_catalog", nil); string(a.body) != `{"repositories":[]}` {
			t.Errorf("catalog: %s", a.body)
		}
	})
}

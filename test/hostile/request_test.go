// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// target sends a request with its target as it is written, on a connection of its own.
func (w *world) target(method, target string, headers ...string) instance.Answer {
	w.t.Helper()
	var more strings.Builder
	for i := 0; i+1 < len(headers); i += 2 {
		more.WriteString(headers[i] + ": " + headers[i+1] + "\r\n")
	}
	as := w.raw(method + " " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + w.auth + "\r\nContent-Length: 0\r\n" + more.String() + "\r\n")
	if len(as) != 1 {
		w.t.Fatalf("%s %.100s: %d answers", method, target, len(as))
	}
	return as[0]
}

// TestPaths: an escape is undone once, nothing is tidied up, and what is then no path of the protocol is none.
func TestPaths(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m := w.image("app", "v1")
		want(t, "a tag", w.put("/v2/app/manifests/v1", string(m), instance.ManifestType), 201, "")
		upload := w.begin()
		a63, a64 := strings.Repeat("a", 63), strings.Repeat("a", 64)
		for _, c := range []struct {
			request string
			status  int
			code    string
		}{
			{"GET /v2/app/tags/list", 200, ""},
			{"GET /v2/app%2ftags%2flist", 200, ""},
			{"GET /v2/app/%74ags/list", 200, ""},
			{"GET /v2/app/%2574ags/list", 404, "UNSUPPORTED"},
			{"GET /v2/app/../app/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/./app/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/%2e%2e/%2e%2e/etc/passwd/manifests/x", 400, "NAME_INVALID"},
			{"GET /v2//app/tags/list", 400, "NAME_INVALID"},
			{"GET //v2/app/tags/list", 404, "UNSUPPORTED"},
			{"GET /v2/app//tags/list", 400, "NAME_INVALID"},
			{"GET /v2/app/tags/list/", 404, "UNSUPPORTED"},
			{"GET /v2/app/tags/list%3Fn=1", 404, "UNSUPPORTED"},
			{"GET /v2/app/tags/list;n=1", 404, "UNSUPPORTED"},
			{"GET /v2/app/tags/list#x", 404, "UNSUPPORTED"},
			{"GET /V2/app/tags/list", 404, "UNSUPPORTED"},
			{"GET /v2/APP/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/app%00/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/%ff/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/\xc3\xbc/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/app%ef%bd%81/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/app%0d%0aX:%20y/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/app%5c..%5cother/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/" + strings.Repeat("a", 255) + "/tags/list", 401, "UNAUTHORIZED"},
			{"GET /v2/" + strings.Repeat("a", 256) + "/tags/list", 400, "NAME_INVALID"},
			{"GET /v2/" + strings.Repeat("a/", 10000) + "tags/list", 400, "NAME_INVALID"},

			{"GET /v2/app/manifests/%2e%2e", 404, "MANIFEST_UNKNOWN"},
			{"PUT /v2/app/manifests/%2e%2e", 400, "TAG_INVALID"},
			{"PUT /v2/app/manifests/v1%00", 400, "TAG_INVALID"},
			{"PUT /v2/app/manifests/" + strings.Repeat("a", 129), 400, "TAG_INVALID"},
			{"GET /v2/app/manifests/..%2f..%2fv1", 404, "UNSUPPORTED"},
			{"DELETE /v2/app/manifests/..%2f..%2fv1", 404, "UNSUPPORTED"},

			{"GET /v2/app/blobs/SHA256:" + a64, 400, "DIGEST_INVALID"},
			{"GET /v2/app/blobs/sha256:" + strings.ToUpper(a64), 400, "DIGEST_INVALID"},
			{"GET /v2/app/blobs/sha256:" + a63, 400, "DIGEST_INVALID"},
			{"GET /v2/app/blobs/sha256:" + a64 + "%00", 400, "DIGEST_INVALID"},
			{"GET /v2/app/blobs/sha1:" + a64[:40], 400, "DIGEST_INVALID"},
			{"GET /v2/app/blobs/sha256:..%2f..%2fetc%2fpasswd", 404, "UNSUPPORTED"},
			{"GET /v2/app/blobs/..", 400, "DIGEST_INVALID"},
			{"GET /v2/app/blobs/" + stranger, 404, "BLOB_UNKNOWN"},

			{"GET " + upload, 204, ""},
			{"GET " + upload + "/", 404, "UNSUPPORTED"},
			{"GET " + upload + "%2e", 404, "BLOB_UPLOAD_UNKNOWN"},
			{"GET " + upload + "%00", 404, "BLOB_UPLOAD_UNKNOWN"},
			{"GET /v2/app/blobs/uploads/" + strings.ToUpper(strings.TrimPrefix(upload, "/v2/app/blobs/uploads/")), 404, "BLOB_UPLOAD_UNKNOWN"},
			{"GET " + strings.Replace(upload, "/app/", "/other/", 1), 404, "BLOB_UPLOAD_UNKNOWN"},
			{"DELETE " + strings.Replace(upload, "/app/", "/other/", 1), 404, "BLOB_UPLOAD_UNKNOWN"},
			{"GET /v2/app/blobs/uploads/..", 404, "BLOB_UPLOAD_UNKNOWN"},
			{"DELETE /v2/app/blobs/uploads/%2e%2e%2f%2e%2e%2fetc", 404, "UNSUPPORTED"},
			{"PATCH /v2/app/blobs/uploads/" + a64[:32], 404, "BLOB_UPLOAD_UNKNOWN"},
			{"PATCH /v2/app/blobs/uploads/" + strings.Repeat("a", 50000), 404, "BLOB_UPLOAD_UNKNOWN"},
			{"GET /", 404, "UNSUPPORTED"},
			{"GET /healthz", 404, "UNSUPPORTED"},
			{"GET /metrics", 404, "UNSUPPORTED"},
			{"GET /subscriptions", 404, "UNSUPPORTED"},
		} {
			method, target, _ := strings.Cut(c.request, " ")
			want(t, fmt.Sprintf("%.120q", c.request), w.target(method, target), c.status, c.code)
		}
	})
}

// TestQueries: of a parameter that stands twice the first counts, and one that can't be decoded is as if it were absent.
func TestQueries(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m := w.image("app", "v1")
		for _, tag := range []string{"v1", "v2", "v3"} {
			want(t, "a tag", w.put("/v2/app/manifests/"+tag, string(m), instance.ManifestType), 201, "")
		}
		w.login("repository:app:pull,push,delete,metadata_read,metadata_write,deleted_read", "repository:other:pull,push", "registry:catalog:*")
		upload := w.begin()
		tags, referrers, begin := "GET /v2/app/tags/list?", "GET /v2/app/referrers/"+stranger+"?", "POST /v2/app/blobs/uploads/?"
		for _, c := range []struct {
			request string
			status  int
			code    string
			body    string
		}{
			{tags + "n=-1", 400, "PAGINATION_NUMBER_INVALID", ""},
			{tags + "n=1e3", 400, "PAGINATION_NUMBER_INVALID", ""},
			{tags + "n=", 400, "PAGINATION_NUMBER_INVALID", ""},
			{tags + "n=99999999999999999999", 400, "PAGINATION_NUMBER_INVALID", ""},
			{tags + "n=9223372036854775807", 200, "", `["v1","v2","v3"]`},
			{tags + "n=0", 200, "", `[]`},
			{tags + "n=%31", 200, "", `["v1"]`},
			{tags + "n=1&n=x", 200, "", `["v1"]`},
			{tags + "n=%zz", 200, "", `["v1","v2","v3"]`},
			{tags + "n=1;last=v1", 200, "", `["v1","v2","v3"]`},
			{tags + "last=v1&last=v2", 200, "", `["v2","v3"]`},
			{tags + "last=%27%20OR%201%3D1%20--", 200, "", `["v1","v2","v3"]`},
			{tags + "last=" + strings.Repeat("w", 50000), 200, "", `[]`},
			{tags + "last=%00", 400, "PAGINATION_NUMBER_INVALID", ""},
			{tags + "last=v1%00", 400, "PAGINATION_NUMBER_INVALID", ""},
			{tags + "last=%ff", 400, "PAGINATION_NUMBER_INVALID", ""},
			{"GET /v2/_catalog?last=%00", 400, "PAGINATION_NUMBER_INVALID", ""},
			{"GET /v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID", ""},
			{"GET /acr/v1/_catalog?last=%ff", 400, "PAGINATION_NUMBER_INVALID", ""},
			{"GET /acr/v1/app/_tags?last=%00", 400, "PAGINATION_NUMBER_INVALID", ""},
			{"GET /acr/v1/app/_tags?last=%ff&orderby=timedesc", 400, "PAGINATION_NUMBER_INVALID", ""},
			{"GET /acr/v1/app/_tags?orderby=%00", 400, "PAGINATION_NUMBER_INVALID", ""},
			{"GET /acr/v1/app/_tags?digest=%00", 400, "DIGEST_INVALID", ""},
			{"GET /acr/v1/app/_manifests?last=%00", 400, "PAGINATION_NUMBER_INVALID", ""},
			{"GET /acr/v1/_deleted/app/_manifests?last=%00", 400, "PAGINATION_NUMBER_INVALID", ""},
			{referrers + "artifactType=%00", 400, "UNSUPPORTED", ""},
			{referrers + "artifactType=%ff", 400, "UNSUPPORTED", ""},
			{referrers + "artifactType=a&artifactType=b", 200, "", `"manifests":[]`},
			{referrers + "last=x", 400, "DIGEST_INVALID", ""},

			{begin + "digest=", 400, "DIGEST_INVALID", ""},
			{begin + "digest=%00", 400, "DIGEST_INVALID", ""},
			{begin + "digest=" + stranger + "&digest=" + instance.Digest(nil), 400, "DIGEST_INVALID", ""},
			{begin + "digest=" + instance.Digest(nil) + "&digest=" + stranger, 201, "", ""},
			{begin + "mount=x&from=other", 400, "DIGEST_INVALID", ""},
			{begin + "mount=" + stranger + "&from=..", 400, "NAME_INVALID", ""},
			{begin + "mount=" + stranger + "&from=other%00", 400, "NAME_INVALID", ""},
			{begin + "mount=" + stranger + "&from=other", 202, "", ""},
			{begin + "mount=" + stranger, 202, "", ""},
			{begin + "mount=" + stranger + "&mount=x&from=other&from=..", 202, "", ""},
			{"PUT " + upload, 400, "DIGEST_INVALID", ""},
			{"PUT " + upload + "?digest=%zz", 400, "DIGEST_INVALID", ""},
			{"PUT " + upload + "?digest=" + stranger + "&digest=" + stranger, 400, "DIGEST_INVALID", ""},
			{"PUT /v2/app/manifests/" + stranger + "?tag=%00", 400, "TAG_INVALID", ""},
			{"PUT /v2/app/manifests/v1?tag=v2", 400, "TAG_INVALID", ""},
		} {
			method, target, _ := strings.Cut(c.request, " ")
			a := w.target(method, target)
			want(t, fmt.Sprintf("%.120q", c.request), a, c.status, c.code)
			if !strings.Contains(string(a.Body), c.body) {
				t.Errorf("%.120q: %.200s, want %s in it", c.request, a.Body, c.body)
			}
		}
		for _, body := range []string{`{"quarantineState":"Passed","quarantineDetails":"\u0000"}`, `{"quarantineState":"\u0000"}`, `{"writeEnabled":"x"}`, `{`, strings.Repeat("[", 1<<20)} {
			want(t, fmt.Sprintf("attributes %.60q", body), w.send(http.MethodPatch, "/acr/v1/app/_manifests/"+instance.Digest(m), []byte(body)), 400, "UNSUPPORTED")
		}
	})
}

// TestLogins: no credential, however odd, is more than a wrong one.
func TestLogins(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		basic := func(user, password string) string {
			return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
		}
		for _, c := range []struct {
			credential string
			status     int
			code       string
		}{
			{basic("a\x00b", "x"), 401, "UNAUTHORIZED"},
			{basic("\xff", "\xff"), 401, "UNAUTHORIZED"},
			{basic("x", "\x00"), 401, "UNAUTHORIZED"},
			{basic(strings.Repeat("a", 40000), "x"), 401, "UNAUTHORIZED"},
			{basic("00000000-0000-0000-0000-000000000000", "a\x00.b.c"), 401, "UNAUTHORIZED"},
			{"Basic !!!", 401, "UNAUTHORIZED"},
			{"Basic " + strings.Repeat("QUJD", 10000), 401, "UNAUTHORIZED"},
			{"Bearer \xff", 401, "UNAUTHORIZED"},
			{"Bearer a.b.c", 401, "UNAUTHORIZED"},
			{"Bearer " + strings.Repeat("a.", 20000), 401, "UNAUTHORIZED"},
			{"Bearer", 401, "UNAUTHORIZED"},
			{"Digest x", 401, "UNAUTHORIZED"},
		} {
			for _, path := range []string{"/oauth2/token?service=x&scope=repository:app:pull", "/v2/app/tags/list"} {
				a, err := w.Do(http.MethodGet, "http://"+w.door+path, nil, "Authorization", c.credential)
				if err != nil {
					t.Fatal(err)
				}
				want(t, fmt.Sprintf("%s with %.40q", path, c.credential), a, c.status, c.code)
			}
		}
		for _, path := range []string{"/subscriptions/%00?api-version=2021-04-01", "/subscriptions/" + w.SubscriptionID + "/resources?api-version=2021-04-01&$filter=resourceType%20eq%20'%00'"} {
			if a := w.ARM(http.MethodGet, path, nil); a.Status != 400 {
				t.Errorf("%s: %d %s", path, a.Status, a.Body)
			}
		}
		for form, code := range map[string]int{
			"grant_type=password&username=a%00&password=b&service=x": 401,
			"grant_type=refresh_token&refresh_token=%00&service=x":   401,
			"grant_type=%00":                      400,
			"%zz":                                 400,
			strings.Repeat("a=b&", 1<<20):         400,
			"scope=" + strings.Repeat("a", 8<<20): 400,
		} {
			a, err := w.Do(http.MethodPost, "http://"+w.door+"/oauth2/token", []byte(form), "Content-Type", "application/x-www-form-urlencoded")
			if err != nil || a.Status != code {
				t.Errorf("%.60q: %v %d %.200s, want %d", form, err, a.Status, a.Body, code)
			}
		}
	})
}

// TestStrangers: content of another repository is as absent as content that is nowhere, to who may read both and to who may read one.
func TestStrangers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		theirs := w.blob("other", []byte("of another repository"))
		m := w.image("other", "of another repository")
		want(t, "a manifest of another repository", w.put("/v2/other/manifests/v1", string(m), instance.ManifestType), 201, "")
		for _, scopes := range [][]string{{"repository:app:pull,push,delete", "repository:other:pull,push"}, {"repository:app:pull,push,delete"}} {
			w.login(scopes...)
			for _, pair := range []struct {
				request    string
				one, other string
			}{
				{"GET /v2/app/blobs/", theirs, stranger},
				{"HEAD /v2/app/blobs/", theirs, stranger},
				{"DELETE /v2/app/blobs/", theirs, stranger},
				{"GET /v2/app/blobs/", instance.Digest(m), stranger},
				{"GET /v2/app/manifests/", instance.Digest(m), stranger},
				{"GET /v2/app/manifests/", theirs, stranger},
				{"DELETE /v2/app/manifests/", instance.Digest(m), stranger},
			} {
				method, path, _ := strings.Cut(pair.request, " ")
				a, b := w.send(method, path+pair.one, nil), w.send(method, path+pair.other, nil)
				if a.Status != 404 || b.Status != 404 || !bytes.Equal(bytes.ReplaceAll(a.Body, []byte(pair.one), nil), bytes.ReplaceAll(b.Body, []byte(pair.other), nil)) {
					t.Errorf("%s: %d %s for what another holds, %d %s for what nobody does", pair.request, a.Status, a.Body, b.Status, b.Body)
				}
			}
		}
		w.login("repository:app:pull,push") // a mount without the right to read the source
		for _, d := range []string{theirs, stranger} {
			if a := w.send(http.MethodPost, "/v2/app/blobs/uploads/?mount="+d+"&from=other", nil); a.Status != 202 || a.Header.Get("Location") == "" {
				t.Errorf("a mount of %s: %d %s", d, a.Status, a.Body)
			}
		}
	})
}

// TestRanges: one range of bytes is honoured; what is no such range is ignored, and a range beyond the content is not satisfiable.
func TestRanges(t *testing.T) {
	w := newWorld(t, "sqlite")
	content := []byte("0123456789")
	d := w.blob("app", content)
	for _, c := range []struct {
		header string
		status int
		body   string
	}{
		{"bytes=2-4", 206, "234"},
		{"bytes=2-", 206, "23456789"},
		{"bytes=-3", 206, "789"},
		{"bytes=-99", 206, "0123456789"},
		{"bytes=0-9223372036854775807", 206, "0123456789"},
		{"bytes=9-99", 206, "9"},
		{"BYTES=0-0", 206, "0"},
		{"bytes=-0", 416, ""},
		{"bytes=10-", 416, ""},
		{"bytes=9223372036854775807-", 416, ""},
		{"bytes=9223372036854775807-9223372036854775807", 416, ""},
		{"bytes=0-99999999999999999999", 200, "0123456789"},
		{"bytes=99999999999999999999-", 200, "0123456789"},
		{"bytes=-99999999999999999999", 200, "0123456789"},
		{"bytes=4-2", 200, "0123456789"},
		{"bytes=--1", 200, "0123456789"},
		{"bytes=+1-2", 200, "0123456789"},
		{"bytes=0x1-2", 200, "0123456789"},
		{"bytes=a-b", 200, "0123456789"},
		{"bytes=-", 200, "0123456789"},
		{"bytes=", 200, "0123456789"},
		{"bytes=0-1,3-4", 200, "0123456789"},
		{"bytes=" + times("0-", 10000), 200, "0123456789"},
		{"items=0-1", 200, "0123456789"},
		{"0-1", 200, "0123456789"},
	} {
		a := w.send(http.MethodGet, "/v2/app/blobs/"+d, nil, "Range", c.header)
		code := ""
		if c.status == 416 {
			code = "RANGE_INVALID"
		}
		want(t, fmt.Sprintf("%.60q", c.header), a, c.status, code)
		if c.status != 416 && string(a.Body) != c.body {
			t.Errorf("%.60q: %.200q, want %q", c.header, a.Body, c.body)
		}
		if c.status == 416 && a.Header.Get("Content-Range") != "bytes */10" {
			t.Errorf("%q: Content-Range %q", c.header, a.Header.Get("Content-Range"))
		}
	}
	none := w.blob("app", nil)
	want(t, "a range of nothing", w.send(http.MethodGet, "/v2/app/blobs/"+none, nil, "Range", "bytes=0-"), 416, "RANGE_INVALID")
	w.well()
}

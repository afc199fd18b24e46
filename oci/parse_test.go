// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		path string
		want target
	}{
		{"/v2", target{kind: kindBase}},
		{"/v2/", target{kind: kindBase}},
		{"/v2/_catalog", target{kind: kindCatalog}},
		{"/oauth2/token", target{kind: kindToken}},
		{"/oauth2/exchange", target{kind: kindExchange}},
		{"/v2/app/tags/list", target{kind: kindTags, repository: "app"}},
		{"/v2/a/b/c/manifests/v1", target{kind: kindManifest, repository: "a/b/c", tag: "v1"}},
		{"/v2/app/manifests/" + someDigest, target{kind: kindManifest, repository: "app", digest: someDigest}},
		{"/v2/app/blobs/" + someDigest, target{kind: kindBlob, repository: "app", digest: someDigest}},
		{"/v2/app/referrers/" + someDigest, target{kind: kindReferrers, repository: "app", digest: someDigest}},
		{"/v2/app/blobs/uploads/", target{kind: kindUploads, repository: "app"}},
		{"/v2/app/blobs/uploads", target{kind: kindUploads, repository: "app"}},
		{"/v2/app/blobs/uploads/00ff", target{kind: kindUpload, repository: "app", upload: "00ff"}},
		// A repository may be named after the protocol's own words.
		{"/v2/manifests/manifests/manifests", target{kind: kindManifest, repository: "manifests", tag: "manifests"}},
		{"/v2/tags/list/tags/list", target{kind: kindTags, repository: "tags/list"}},
		{"/v2/a/manifests/b/tags/list", target{kind: kindTags, repository: "a/manifests/b"}},
		{"/v2/blobs/uploads/blobs/uploads/", target{kind: kindUploads, repository: "blobs/uploads"}},
		{"/v2/x/blobs/uploads/manifests/v1", target{kind: kindManifest, repository: "x/blobs/uploads", tag: "v1"}},
		{"/v2/blobs/uploads/ab/manifests/list", target{kind: kindManifest, repository: "blobs/uploads/ab", tag: "list"}},
		{"/acr/v1/_catalog", target{kind: kindAcrCatalog}},
		{"/acr/v1/team/app", target{kind: kindAcrRepository, repository: "team/app"}},
		{"/acr/v1/team/app/_tags", target{kind: kindAcrTags, repository: "team/app"}},
		{"/acr/v1/team/app/_tags/v1", target{kind: kindAcrTag, repository: "team/app", tag: "v1"}},
		{"/acr/v1/app/_manifests", target{kind: kindAcrManifests, repository: "app"}},
		{"/acr/v1/tags/_manifests/" + someDigest, target{kind: kindAcrManifest, repository: "tags", digest: someDigest}},
		{"/v2/tags/manifests/list", target{kind: kindManifest, repository: "tags", tag: "list"}},
	} {
		got, err := parsePath(c.path)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.path, got, err, c.want)
		}
	}
	for _, c := range []struct {
		path string
		kind fault.Kind
	}{
		{"/", fault.NotFound},
		{"/v1/_ping", fault.NotFound},
		{"/acr/v1/_nothing", fault.NotFound},
		{"/acr/v1/_deleted/app", fault.NotFound},
		{"/acr/v1/", fault.NameInvalid},
		{"/acr/v1/app/_tags/-x", fault.TagInvalid},
		{"/acr/v1/app/_manifests/v1", fault.DigestInvalid},
		{"/acr/v1/app/_blobs/x", fault.NameInvalid},
		{"/v2/app", fault.NotFound},
		{"/v2/app/", fault.NotFound},
		{"/v2/app/tags/", fault.NotFound},
		{"/v2/app/uploads/ab", fault.NotFound},
		{"/v2/app/manifests/v1/", fault.NotFound},
		{"/v2//manifests/v1", fault.NameInvalid},
		{"/v2/manifests/v1", fault.NameInvalid},
		{"/v2/App/manifests/v1", fault.NameInvalid},
		{"/v2/a//b/manifests/v1", fault.NameInvalid},
		{"/v2/../manifests/v1", fault.NameInvalid},
		{"/v2/" + strings.Repeat("a", 256) + "/tags/list", fault.NameInvalid},
		{"/v2/app/manifests/-v1", fault.TagInvalid},
		{"/v2/app/manifests/", fault.TagInvalid},
		{"/v2/app/manifests/md5:00", fault.DigestInvalid},
		{"/v2/app/blobs/latest", fault.DigestInvalid},
		{"/v2/app/referrers/x", fault.DigestInvalid},
		{"/v2/app/blobs/uploads/../x", fault.NotFound},
		{"/v2/app/blobs/uploads/XYZ", fault.BlobUploadUnknown},
	} {
		if got, err := parsePath(c.path); !fault.Is(err, c.kind) {
			t.Errorf("%s: %+v, %v; want kind %v", c.path, got, err, c.kind.OCI())
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("/v2/a/b/manifests/v1")
	f.Add("/v2/a/blobs/uploads/")
	f.Add("/v2/a/blobs/" + someDigest)
	f.Fuzz(func(t *testing.T, path string) {
		at, err := parsePath(path)
		if err != nil {
			if fault.From(err).Status() >= 500 {
				t.Fatalf("%q: %v", path, err)
			}
			return
		}
		if at.kind < kindTags || at.kind > kindUpload {
			return
		}
		if _, err := name.ParseRepository(string(at.repository)); err != nil {
			t.Fatalf("%q: repository %q let through", path, at.repository)
		}
		// What is understood is understood in one way: written again, it reads the same.
		again, err := parsePath(at.path())
		if err != nil || again != at {
			t.Fatalf("%q: %+v reads again as %+v, %v", path, at, again, err)
		}
	})
}

// path writes a target as the protocol does.
func (t target) path() string {
	repo := "/v2/" + string(t.repository)
	switch t.kind {
	case kindTags:
		return repo + "/tags/list"
	case kindManifest:
		return repo + "/manifests/" + string(t.tag) + string(t.digest)
	case kindReferrers:
		return repo + "/referrers/" + string(t.digest)
	case kindBlob:
		return repo + "/blobs/" + string(t.digest)
	case kindUploads:
		return repo + "/blobs/uploads/"
	}
	return repo + "/blobs/uploads/" + t.upload
}

func TestParseRange(t *testing.T) {
	for _, c := range []struct {
		header string
		size   int64
		want   span
		kind   rangeKind
	}{
		{"bytes=0-0", 10, span{0, 1}, rangePart},
		{"bytes=0-9", 10, span{0, 10}, rangePart},
		{"bytes=3-5", 10, span{3, 3}, rangePart},
		{"bytes=3-", 10, span{3, 7}, rangePart},
		{"bytes=3-99", 10, span{3, 7}, rangePart},
		{"bytes=-4", 10, span{6, 4}, rangePart},
		{"bytes=-40", 10, span{0, 10}, rangePart},
		{"BYTES = 1-2 ", 10, span{1, 2}, rangePart},
		{"bytes=10-", 10, span{}, rangeUnsatisfiable},
		{"bytes=10-12", 10, span{}, rangeUnsatisfiable},
		{"bytes=-0", 10, span{}, rangeUnsatisfiable},
		{"bytes=0-", 0, span{}, rangeUnsatisfiable},
		{"bytes=-5", 0, span{}, rangeUnsatisfiable},
		{"bytes=0-1,3-4", 10, span{0, 10}, rangeWhole},
		{"bytes=5-3", 10, span{0, 10}, rangeWhole},
		{"bytes=a-3", 10, span{0, 10}, rangeWhole},
		{"bytes=+1-3", 10, span{0, 10}, rangeWhole},
		{"bytes=--3", 10, span{0, 10}, rangeWhole},
		{"items=0-3", 10, span{0, 10}, rangeWhole},
		{"bytes", 10, span{0, 10}, rangeWhole},
		{"bytes=99999999999999999999-", 10, span{0, 10}, rangeWhole},
	} {
		if got, kind := parseRange(c.header, c.size); got != c.want || kind != c.kind {
			t.Errorf("%q of %d: %+v %v, want %+v %v", c.header, c.size, got, kind, c.want, c.kind)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	f.Add("bytes=0-1", int64(10))
	f.Add("bytes=-1", int64(0))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		at, kind := parseRange(header, size)
		if kind == rangeUnsatisfiable {
			return
		}
		if at.off < 0 || at.n < 0 || at.off > size || at.n > size-at.off || kind == rangePart && at.n == 0 {
			t.Fatalf("%q of %d: %+v lies outside", header, size, at)
		}
	})
}

func TestParseContentRange(t *testing.T) {
	for _, c := range []struct {
		header string
		want   span
		ok     bool
	}{
		{"0-9", span{0, 10}, true},
		{"10-10", span{10, 1}, true},
		{"bytes 5-9/10", span{5, 5}, true},
		{"bytes 5-9/*", span{5, 5}, true},
		{"bytes=5-9", span{5, 5}, true},
		{"9-5", span{}, false},
		{"-5", span{}, false},
		{"5-", span{}, false},
		{"", span{}, false},
		{"0-9223372036854775807", span{}, false},
		{"0-9/x", span{}, false},
		{"a-b", span{}, false},
	} {
		if got, ok := parseContentRange(c.header); got != c.want || ok != c.ok {
			t.Errorf("%q: %+v %v, want %+v %v", c.header, got, ok, c.want, c.ok)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("0-9")
	f.Add("bytes 1-2/3")
	f.Fuzz(func(t *testing.T, header string) {
		if at, ok := parseContentRange(header); ok && (at.off < 0 || at.n <= 0 || at.off+at.n < 0) {
			t.Fatalf("%q: %+v", header, at)
		}
	})
}

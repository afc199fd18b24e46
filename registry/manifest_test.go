// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

const (
	dA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	dB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	dC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

func desc(media, digest string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":3}`, media, digest)
}

const configType = "application/vnd.oci.image.config.v1+json"

func TestParseManifest(t *testing.T) {
	cfg, layer := desc("application/vnd.oci.image.config.v1+json", dA), desc("application/vnd.oci.image.layer.v1.tar+gzip", dB)
	image := `{"schemaVersion":2,"mediaType":"` + mediaImage + `","config":` + cfg + `,"layers":[` + layer + `]`
	for _, c := range []struct {
		what, contentType, content string
		want                       manifest
	}{
		{"an image", mediaImage, image + `}`, manifest{mediaType: mediaImage, artifactType: "application/vnd.oci.image.config.v1+json", config: dA, configType: configType,
			total: 6, refs: []ref{{refConfig, dA, 3, false}, {refLayer, dB, 3, false}}}},
		{"its type from the document", "", image + `}`, manifest{mediaType: mediaImage, artifactType: "application/vnd.oci.image.config.v1+json", config: dA, configType: configType,
			total: 6, refs: []ref{{refConfig, dA, 3, false}, {refLayer, dB, 3, false}}}},
		{"its type from the header", mediaDockerImage, `{"schemaVersion":2,"config":` + cfg + `,"layers":[]}`,
			manifest{mediaType: mediaDockerImage, artifactType: "application/vnd.oci.image.config.v1+json", config: dA, configType: configType, total: 3, refs: []ref{{refConfig, dA, 3, false}}}},
		{"an artifact with a subject", mediaImage, image + `,"artifactType":"a/b","subject":` + desc(mediaImage, dC) + `,"annotations":{"k":"v"}}`,
			manifest{mediaType: mediaImage, artifactType: "a/b", annotations: `{"k":"v"}`, config: dA, configType: configType, total: 6, subject: dC, refs: []ref{{refConfig, dA, 3, false}, {refLayer, dB, 3, false}}}},
		{"layers that lie elsewhere", mediaImage, `{"schemaVersion":2,"config":` + cfg + `,"layers":[` +
			desc("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", dB) + `,` + desc("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", dC) + `]}`,
			manifest{mediaType: mediaImage, artifactType: "application/vnd.oci.image.config.v1+json", config: dA, configType: configType, total: 9,
				refs: []ref{{refConfig, dA, 3, false}, {refLayer, dB, 3, true}, {refLayer, dC, 3, true}}}},
		{"an index", mediaIndex, `{"schemaVersion":2,"manifests":[` + desc(mediaImage, dA) + `]}`,
			manifest{mediaType: mediaIndex, refs: []ref{{refManifest, dA, 3, false}}}},
		{"an empty list", mediaDockerList, `{"schemaVersion":2,"manifests":[]}`, manifest{mediaType: mediaDockerList}},
	} {
		got, err := parseManifest(c.contentType, []byte(c.content))
		if err != nil || !same(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.what, got, err, c.want)
		}
	}
	many := strings.TrimSuffix(strings.Repeat(desc(mediaImage, dA)+",", referenceLimit+1), ",")
	for what, c := range map[string]struct{ contentType, content, says string }{
		"no JSON":                   {mediaImage, `{`, "not the JSON"},
		"an array":                  {mediaImage, `[]`, "not the JSON"},
		"text behind the document":  {mediaImage, image + `} {}`, "not the JSON"},
		"two types":                 {mediaDockerImage, image + `}`, "Content-Type"},
		"no type":                   {"", `{"schemaVersion":2,"config":` + cfg + `}`, "no media type"},
		"a type of no registry":     {"text/html", `{"schemaVersion":2}`, "not supported"},
		"schema 1":                  {mediaImage, `{"schemaVersion":1,"fsLayers":[]}`, "version 1"},
		"no schema version":         {mediaImage, `{"config":` + cfg + `}`, "schemaVersion"},
		"no config":                 {mediaImage, `{"schemaVersion":2,"layers":[]}`, "no config"},
		"an image that is an index": {mediaImage, image + `,"manifests":[]}`, "index"},
		"an index that is an image": {mediaIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`, "image"},
		"an index of nothing":       {mediaIndex, `{"schemaVersion":2}`, "no member manifests"},
		"a layer of no digest":      {mediaImage, `{"schemaVersion":2,"config":` + cfg + `,"layers":[` + desc("x/y", "sha256:12") + `]}`, "digest"},
		"a subject of no size":      {mediaImage, image + `,"subject":{"digest":"` + dC + `"}}`, "size"},
		"a negative size":           {mediaImage, `{"schemaVersion":2,"config":{"digest":"` + dA + `","size":-1}}`, "size"},
		"too much":                  {mediaIndex, `{"schemaVersion":2,"manifests":[` + many + `]}`, "at most"},
	} {
		_, err := parseManifest(c.contentType, []byte(c.content))
		if !fault.Is(err, fault.ManifestInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want MANIFEST_INVALID that says %q", what, err, c.says)
		}
	}
}

func same(a, b manifest) bool {
	return a.mediaType == b.mediaType && a.artifactType == b.artifactType && a.annotations == b.annotations &&
		a.config == b.config && a.configType == b.configType && a.total == b.total && a.subject == b.subject && slices.Equal(a.refs, b.refs)
}

func FuzzParseManifest(f *testing.F) {
	f.Add(mediaImage, `{"schemaVersion":2,"config":`+desc("x/y", dA)+`,"layers":[]}`)
	f.Add(mediaIndex, `{"schemaVersion":2,"manifests":[`+desc(mediaImage, dA)+`]}`)
	f.Fuzz(func(t *testing.T, contentType, content string) {
		m, err := parseManifest(contentType, []byte(content))
		if err != nil {
			if !fault.Is(err, fault.ManifestInvalid) {
				t.Fatalf("%v is no ManifestInvalid", err)
			}
			return
		}
		for _, r := range append(m.refs, ref{refLayer, m.subject, 0, false}) {
			if _, err := name.ParseDigest(string(r.digest)); err != nil && r.digest != "" {
				t.Fatalf("the digest %q was let through", r.digest)
			}
		}
	})
}

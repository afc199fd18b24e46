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
	t.Parallel()
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
		{"annotations in two cases", mediaIndex, `{"schemaVersion":2,"manifests":[],"annotations":{"a":"1","A":"2"}}`, manifest{mediaType: mediaIndex, annotations: `{"A":"2","a":"1"}`}},
		{"an empty list", mediaDockerList, `{"schemaVersion":2,"manifests":[]}`, manifest{mediaType: mediaDockerList}},
	} {
		got, err := parseManifest(c.contentType, []byte(c.content))
		if err != nil || !same(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", c.what, got, err, c.want)
		}
	}
	many := strings.TrimSuffix(strings.Repeat(desc(mediaImage, dA)+",", referenceLimit+1), ",")
	for what, c := range map[string]struct{ contentType, content, says string }{
		"no JSON":                     {mediaImage, `{`, "not the JSON"},
		"an array":                    {mediaImage, `[]`, "not the JSON"},
		"text behind the document":    {mediaImage, image + `} {}`, "not the JSON"},
		"two types":                   {mediaDockerImage, image + `}`, "Content-Type"},
		"no type":                     {"", `{"schemaVersion":2,"config":` + cfg + `}`, "no media type"},
		"a type of no registry":       {"text/html", `{"schemaVersion":2}`, "not supported"},
		"schema 1":                    {mediaImage, `{"schemaVersion":1,"fsLayers":[]}`, "version 1"},
		"no schema version":           {mediaImage, `{"config":` + cfg + `}`, "schemaVersion"},
		"no config":                   {mediaImage, `{"schemaVersion":2,"layers":[]}`, "no config"},
		"an image that is an index":   {mediaImage, image + `,"manifests":[]}`, "index"},
		"an index that is an image":   {mediaIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`, "image"},
		"an index of nothing":         {mediaIndex, `{"schemaVersion":2}`, "no member manifests"},
		"a layer of no digest":        {mediaImage, `{"schemaVersion":2,"config":` + cfg + `,"layers":[` + desc("x/y", "sha256:12") + `]}`, "digest"},
		"a subject of no size":        {mediaImage, image + `,"subject":{"digest":"` + dC + `"}}`, "size"},
		"a negative size":             {mediaImage, `{"schemaVersion":2,"config":{"digest":"` + dA + `","size":-1}}`, "size"},
		"a member twice":              {mediaImage, image + `,"config":` + cfg + `}`, "\"config\" stands twice"},
		"a member of a layer twice":   {mediaImage, `{"schemaVersion":2,"config":` + cfg + `,"layers":[{"mediaType":"x/y","digest":"` + dA + `","size":3,"digest":"` + dB + `"}]}`, "\"digest\" stands twice"},
		"a member in two cases":       {mediaImage, image + `,"Layers":[]}`, "must be written"},
		"a member in another case":    {mediaIndex, `{"schemaVersion":2,"manifests":[{"Digest":"` + dA + `","size":3}]}`, "must be written"},
		"an unknown member twice":     {mediaImage, image + `,"x":{"y":[{"z":1,"z":1}]}}`, "stands twice"},
		"an annotation twice":         {mediaImage, image + `,"annotations":{"a":"b","a":"c"}}`, "stands twice"},
		"what lies too deep":          {mediaImage, image + `,"x":` + strings.Repeat("[", depthLimit+1) + strings.Repeat("]", depthLimit+1) + `}`, "nested"},
		"too many values":             {mediaImage, image + `,"x":[` + strings.TrimSuffix(strings.Repeat("0,", valuesLimit), ",") + `]}`, "values"},
		"an artifact type with NUL":   {mediaImage, image + `,"artifactType":"a/\u0000"}`, "artifactType"},
		"a long artifact type":        {mediaImage, image + `,"artifactType":"a/` + strings.Repeat("b", typeLimit) + `"}`, "artifactType"},
		"a config of a type with NUL": {mediaImage, `{"schemaVersion":2,"layers":[],"config":` + `{"mediaType":"a\u0000","digest":"` + dA + `","size":3}}`, "media type of the config"},
		"too much":                    {mediaIndex, `{"schemaVersion":2,"manifests":[` + many + `]}`, "at most"},
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

// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"bytes"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/embargo-registry/embargo/test/instance"
)

func orasRepository(t *testing.T, s *instance.Server, name string) *remote.Repository {
	t.Helper()
	host := s.LoginServer(instance.Open)
	r, err := remote.NewRepository(host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	r.Client = &auth.Client{Client: s.Client, Cache: auth.NewCache(), Credential: auth.StaticCredential(host, auth.Credential{Username: s.ClientID, Password: s.ClientSecret})}
	return r
}

// discovered are the digests of what refers to a manifest, of a type unless that is "".
func discovered(t *testing.T, r *remote.Repository, of ocispec.Descriptor, kind string) (digests []string) {
	t.Helper()
	err := r.Referrers(t.Context(), of, kind, func(page []ocispec.Descriptor) error {
		for _, d := range page {
			digests = append(digests, d.Digest.String())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return digests
}

// TestORAS pushes an artifact, attaches to it, discovers, copies the whole graph to another repository, to a layout on disk and back, and deletes,
// by the library of oras, which helm and notation use too.
func TestORAS(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	one, two, three := orasRepository(t, s, "app/one"), orasRepository(t, s, "app/two"), orasRepository(t, s, "app/three")
	bytesOf := bytes.Repeat([]byte("cargo"), 100_000)
	layer, err := oras.PushBytes(t.Context(), one, "application/octet-stream", bytesOf)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(kind string, subject *ocispec.Descriptor) ocispec.Descriptor {
		t.Helper()
		d, err := oras.PackManifest(t.Context(), one, oras.PackManifestVersion1_1, kind, oras.PackManifestOptions{Subject: subject, Layers: []ocispec.Descriptor{layer}})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	image := pack("application/example.cargo", nil)
	if err := one.Tag(t.Context(), image, "v1"); err != nil {
		t.Fatal(err)
	}
	list := pack("application/example.list", &image)
	signature := pack("application/example.signature", &list)
	disk, err := oci.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []struct {
		from oras.ReadOnlyGraphTarget
		to   oras.Target
	}{{one, two}, {two, disk}, {disk, three}} {
		if got, err := oras.ExtendedCopy(t.Context(), way.from, "v1", way.to, "v1", oras.DefaultExtendedCopyOptions); err != nil || got.Digest != image.Digest {
			t.Fatalf("the copy: %v %v", got.Digest, err)
		}
	}
	for _, r := range []*remote.Repository{one, two, three} {
		if got := discovered(t, r, image, ""); !slices.Equal(got, []string{list.Digest.String()}) {
			t.Errorf("%s: what refers to the image: %v", r.Reference.Repository, got)
		}
		if got := discovered(t, r, image, "application/example.signature"); len(got) > 0 {
			t.Errorf("%s: what refers to the image as a signature: %v", r.Reference.Repository, got)
		}
		if got := discovered(t, r, list, "application/example.signature"); !slices.Equal(got, []string{signature.Digest.String()}) {
			t.Errorf("%s: what refers to the list: %v", r.Reference.Repository, got)
		}
		if got, err := content.FetchAll(t.Context(), r, layer); err != nil || !bytes.Equal(got, bytesOf) {
			t.Errorf("%s: the layer: %v", r.Reference.Repository, err)
		}
	}
	if err := two.Delete(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if got := discovered(t, two, image, ""); len(got) > 0 {
		t.Errorf("after the delete: %v", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	data "github.com/Azure/azure-sdk-for-go/sdk/containers/azcontainerregistry"

	"github.com/embargo-registry/embargo/test/instance"
)

// dataPlane makes the data-plane clients of the Azure SDK for a registry. cred nil asks without a credential.
func dataPlane(t *testing.T, s *instance.Server, registry string, cred azcore.TokenCredential) (*data.Client, *data.BlobClient) {
	t.Helper()
	options := azcore.ClientOptions{Transport: s.Client, Cloud: cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
		data.ServiceName: {Audience: "https://containerregistry.azure.net"}}}}
	endpoint := "https://" + s.LoginServer(registry)
	client, err := data.NewClient(endpoint, cred, &data.ClientOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := data.NewBlobClient(endpoint, cred, &data.BlobClientOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	return client, blobs
}

// upload sends content in chunks of the size given.
func upload(t *testing.T, blobs *data.BlobClient, repository string, content []byte, size int) string {
	t.Helper()
	started, err := blobs.StartUpload(t.Context(), repository, nil)
	if err != nil {
		t.Fatal(err)
	}
	location, sum := *started.Location, data.NewBlobDigestCalculator()
	at := 0
	for chunk := range slices.Chunk(content, size) {
		sent, err := blobs.UploadChunk(t.Context(), location, bytes.NewReader(chunk), sum,
			&data.BlobClientUploadChunkOptions{RangeStart: to.Ptr(int32(at)), RangeEnd: to.Ptr(int32(at + len(chunk) - 1))})
		if err != nil {
			t.Fatal(err)
		}
		location, at = *sent.Location, at+len(chunk)
	}
	done, err := blobs.CompleteUpload(t.Context(), location, sum, nil)
	if err != nil {
		t.Fatal(err)
	}
	return *done.DockerContentDigest
}

// image pushes an image of one layer under a tag and returns its manifest.
func image(t *testing.T, client *data.Client, blobs *data.BlobClient, repository, tag string, layer []byte) []byte {
	t.Helper()
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, instance.Digest(layer))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`, instance.ManifestType,
		upload(t, blobs, repository, config, len(config)), len(config), upload(t, blobs, repository, layer, 10_000), len(layer))
	put, err := client.UploadManifest(t.Context(), repository, tag, data.ContentTypeApplicationVndOciImageManifestV1JSON, streaming.NopCloser(bytes.NewReader(manifest)), nil)
	if err != nil || *put.DockerContentDigest != instance.Digest(manifest) {
		t.Fatalf("the manifest of %s:%s: %v", repository, tag, err)
	}
	return manifest
}

// status is the HTTP status of an SDK's refusal, 0 where there is none.
func status(err error) int {
	var answer *azcore.ResponseError
	if errors.As(err, &answer) {
		return answer.StatusCode
	}
	return 0
}

// TestDataPlaneGoSDKContent uploads, mounts and downloads content by the Azure SDK for Go.
func TestDataPlaneGoSDKContent(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry("cargoone", nil)
	cred, _ := credential(t, s, "")
	client, blobs := dataPlane(t, s, "cargoone", cred)
	layer := bytes.Repeat([]byte("cargo"), 5_001)
	manifest := image(t, client, blobs, "app/one", "v1", layer)
	digest := instance.Digest(layer)
	read := func(body io.ReadCloser, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		got, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got, err := client.GetManifest(t.Context(), "app/one", "v1", &data.ClientGetManifestOptions{Accept: to.Ptr(instance.ManifestType)})
	if !bytes.Equal(read(got.ManifestData, err), manifest) || *got.DockerContentDigest != instance.Digest(manifest) {
		t.Error("the manifest is another")
	}
	whole, err := blobs.GetBlob(t.Context(), "app/one", digest, nil)
	checked, bad := data.NewDigestValidationReader(digest, whole.BlobData)
	if bad != nil {
		t.Fatal(bad)
	}
	if !bytes.Equal(read(io.NopCloser(checked), err), layer) {
		t.Error("the blob is another")
	}
	part, err := blobs.GetChunk(t.Context(), "app/one", digest, "bytes=5-14", nil)
	if text := read(part.ChunkData, err); string(text) != "cargocargo" || *part.ContentRange != fmt.Sprintf("bytes 5-14/%d", len(layer)) {
		t.Errorf("the part is %q", text)
	}
	there, err := blobs.CheckBlobExists(t.Context(), "app/one", digest, nil)
	if err != nil || *there.ContentLength != int64(len(layer)) {
		t.Errorf("the blob is not seen: %v", err)
	}
	if _, err := blobs.MountBlob(t.Context(), "app/two", "app/one", digest, nil); err != nil {
		t.Errorf("mount: %v", err)
	}
	if _, err := blobs.CheckBlobExists(t.Context(), "app/two", digest, nil); err != nil {
		t.Errorf("the mounted blob: %v", err)
	}
	left, err := blobs.StartUpload(t.Context(), "app/one", nil)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := blobs.GetUploadStatus(t.Context(), *left.Location, nil); err != nil || *at.DockerUploadUUID != *left.DockerUploadUUID {
		t.Errorf("the status of an upload: %v", err)
	}
	if _, err := blobs.CancelUpload(t.Context(), *left.Location, nil); err != nil {
		t.Errorf("cancelling: %v", err)
	}
	if _, err := blobs.GetUploadStatus(t.Context(), *left.Location, nil); status(err) != http.StatusNotFound {
		t.Errorf("the status of a cancelled upload: %v", err)
	}
}

// TestDataPlaneGoSDKMetadata lists by pages, describes, locks and deletes by the Azure SDK for Go.
func TestDataPlaneGoSDKMetadata(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry("cargoone", nil)
	cred, _ := credential(t, s, "")
	client, blobs := dataPlane(t, s, "cargoone", cred)
	manifest := image(t, client, blobs, "app/one", "v1", []byte("one"))
	image(t, client, blobs, "app/one", "v2", []byte("two"))
	image(t, client, blobs, "app/one", "v3", []byte("three"))
	image(t, client, blobs, "app/two", "v1", []byte("four"))
	t.Run("pages", func(t *testing.T) { pages(t, client) })
	t.Run("locks", func(t *testing.T) { locks(t, client, instance.Digest(manifest)) })
	t.Run("delete", func(t *testing.T) { deletes(t, client, instance.Digest(manifest)) })
}

// pages lists with one entry a page, so that each list takes its Link.
func pages(t *testing.T, client *data.Client) {
	var repositories, tags []string
	for p := client.NewListRepositoriesPager(&data.ClientListRepositoriesOptions{MaxNum: to.Ptr(int32(1))}); p.More(); {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range page.Names {
			repositories = append(repositories, *name)
		}
	}
	if !slices.Equal(repositories, []string{"app/one", "app/two"}) {
		t.Errorf("repositories: %v", repositories)
	}
	for p := client.NewListTagsPager("app/one", &data.ClientListTagsOptions{MaxNum: to.Ptr(int32(1)), OrderBy: to.Ptr(data.ArtifactTagOrderByLastUpdatedOnDescending)}); p.More(); {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range page.Tags {
			tags = append(tags, *tag.Name)
		}
	}
	if !slices.Equal(tags, []string{"v3", "v2", "v1"}) {
		t.Errorf("tags: %v", tags)
	}
	manifests := 0
	for p := client.NewListManifestsPager("app/one", &data.ClientListManifestsOptions{MaxNum: to.Ptr(int32(2))}); p.More(); {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Attributes {
			if manifests++; *m.Size == 0 || *m.Architecture != data.ArtifactArchitectureAmd64 || len(m.Tags) != 1 {
				t.Errorf("manifest: %+v", m)
			}
		}
	}
	if manifests != 3 {
		t.Errorf("%d manifests", manifests)
	}
}

// locks describes and changes a repository, a tag and a manifest; what is locked is refused.
func locks(t *testing.T, client *data.Client, digest string) {
	off := to.Ptr(false)
	repository, err := client.GetRepositoryProperties(t.Context(), "app/one", nil)
	if err != nil || *repository.TagCount != 3 || *repository.ManifestCount != 3 || !*repository.ChangeableAttributes.CanDelete {
		t.Errorf("the repository: %v %+v", err, repository)
	}
	changed, err := client.UpdateRepositoryProperties(t.Context(), "app/two", &data.ClientUpdateRepositoryPropertiesOptions{Value: &data.RepositoryWriteableProperties{CanDelete: off}})
	if err != nil || *changed.ChangeableAttributes.CanDelete || !*changed.ChangeableAttributes.CanRead {
		t.Errorf("the repository after its change: %v %+v", err, changed)
	}
	if _, err := client.DeleteRepository(t.Context(), "app/two", nil); status(err) != http.StatusMethodNotAllowed {
		t.Errorf("a locked repository's delete: %v", err)
	}
	tag, err := client.GetTagProperties(t.Context(), "app/one", "v1", nil)
	if err != nil || *tag.Tag.Digest != digest || tag.Tag.CreatedOn.IsZero() {
		t.Errorf("the tag: %v %+v", err, tag.Tag)
	}
	lock := func(on bool) {
		t.Helper()
		got, err := client.UpdateTagProperties(t.Context(), "app/one", "v1", &data.ClientUpdateTagPropertiesOptions{Value: &data.TagWriteableProperties{CanDelete: to.Ptr(on), CanWrite: to.Ptr(on)}})
		if err != nil || *got.Tag.ChangeableAttributes.CanWrite != on {
			t.Fatalf("the tag after its change: %v %+v", err, got.Tag)
		}
	}
	lock(false)
	if _, err := client.DeleteTag(t.Context(), "app/one", "v1", nil); status(err) != http.StatusMethodNotAllowed {
		t.Errorf("a locked tag's delete: %v", err)
	}
	lock(true)
	shown, err := client.GetManifestProperties(t.Context(), "app/one", digest, nil)
	if err != nil || *shown.Manifest.Digest != digest || *shown.Manifest.MediaType != instance.ManifestType {
		t.Errorf("the manifest: %v %+v", err, shown.Manifest)
	}
	for _, on := range []bool{false, true} {
		got, err := client.UpdateManifestProperties(t.Context(), "app/one", digest, &data.ClientUpdateManifestPropertiesOptions{Value: &data.ManifestWriteableProperties{CanDelete: to.Ptr(on)}})
		if err != nil || *got.Manifest.ChangeableAttributes.CanDelete != on {
			t.Fatalf("the manifest after its change: %v %+v", err, got.Manifest)
		}
		if !on {
			if _, err := client.DeleteManifest(t.Context(), "app/one", digest, nil); status(err) != http.StatusMethodNotAllowed {
				t.Errorf("a locked manifest's delete: %v", err)
			}
		}
	}
}

// deletes takes a tag, then its manifest, then the repository.
func deletes(t *testing.T, client *data.Client, digest string) {
	if _, err := client.DeleteTag(t.Context(), "app/one", "v1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetTagProperties(t.Context(), "app/one", "v1", nil); status(err) != http.StatusNotFound {
		t.Errorf("the deleted tag: %v", err)
	}
	if _, err := client.GetManifestProperties(t.Context(), "app/one", digest, nil); err != nil {
		t.Errorf("the manifest without a tag: %v", err)
	}
	if _, err := client.DeleteManifest(t.Context(), "app/one", digest, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetManifest(t.Context(), "app/one", digest, nil); status(err) != http.StatusNotFound {
		t.Errorf("the deleted manifest: %v", err)
	}
	if _, err := client.DeleteRepository(t.Context(), "app/one", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetRepositoryProperties(t.Context(), "app/one", nil); status(err) != http.StatusNotFound {
		t.Errorf("the deleted repository: %v", err)
	}
}

// TestDataPlaneGoSDKAnonymous: without a credential the SDK is refused until the registry lets everybody pull, and then may read alone.
func TestDataPlaneGoSDKAnonymous(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry("cargoone", nil)
	manifest, err := s.PushImage("cargoone", "app/one", "v1", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	client, _ := dataPlane(t, s, "cargoone", nil)
	if _, err := client.GetTagProperties(t.Context(), "app/one", "v1", nil); status(err) != http.StatusUnauthorized {
		t.Errorf("before: %v", err)
	}
	if a := s.Patch("cargoone", instance.J{"anonymousPullEnabled": true}); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	client, blobs := dataPlane(t, s, "cargoone", nil)
	if got, err := client.GetTagProperties(t.Context(), "app/one", "v1", nil); err != nil || *got.Tag.Digest != instance.Digest(manifest) {
		t.Errorf("after: %v", err)
	}
	if got, err := blobs.GetBlob(t.Context(), "app/one", instance.Digest([]byte("one")), nil); err != nil {
		t.Errorf("a blob: %v", err)
	} else if err := got.BlobData.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.DeleteTag(t.Context(), "app/one", "v1", nil); status(err) == 0 {
		t.Errorf("who has no credential deletes: %v", err)
	}
}

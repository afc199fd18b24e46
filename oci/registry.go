// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"io"

	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
)

// Call is one client's request as the registry sees it: the caller is authenticated, may do what the method says, and has entered
// the registry by its network rules.
type Call struct {
	// Registry is the row that the request was let in by. What releases content reads it anew.
	Registry meta.RegistryRow
	Caller   identity.Caller
	// Peer is the connection, never nil.
	Peer        *network.Peer
	Correlation string
	UserAgent   string
}

// Descriptor tells of content. Source: OCI image spec 1.1, "Content Descriptors".
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       name.Digest       `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	// Quarantined says that only those may see it who may read content in quarantine.
	Quarantined bool `json:"-"`
}

// Content is content that was released to one call. It must be closed.
type Content interface {
	// Size is the number of bytes in all.
	Size() int64
	// WriteTo hands n bytes from offset off to w and returns how many were handed on. It ends early with a fault when a change of policy
	// forbids the rest.
	WriteTo(ctx context.Context, w io.Writer, off, n int64) (int64, error)
	// Close ends the reading; complete says whether all that was asked was handed on. It goes on record.
	Close(complete bool) error
}

// Reader is what reading needs. Every method may also fail with FirewallDenied or Denied, when the registry's policy refuses it now, with
// NameUnknown, when the registry is gone, and with Unavailable, when it could not be recorded.
type Reader interface {
	// Blob releases a blob of a repository. Errors: BlobUnknown.
	Blob(ctx context.Context, c Call, repo name.Repository, d name.Digest) (Descriptor, Content, error)
	// StatBlob describes a blob of a repository. Errors: BlobUnknown.
	StatBlob(ctx context.Context, c Call, repo name.Repository, d name.Digest) (Descriptor, error)
	// Manifest releases a manifest, if accepts (nil: anything) takes its media type. Errors: ManifestUnknown, TagUnknown.
	Manifest(ctx context.Context, c Call, ref name.Reference, accepts func(mediaType string) bool) (Descriptor, Content, error)
	// StatManifest describes a manifest. Errors: as Manifest.
	StatManifest(ctx context.Context, c Call, ref name.Reference, accepts func(mediaType string) bool) (Descriptor, error)
	// Referrers lists the manifests of a repository whose subject is d, of one artifact type unless that is "", in the order of their digests
	// beginning behind after. more says that the list goes on. A subject that nothing refers to has an empty list, whether it exists or not.
	Referrers(ctx context.Context, c Call, repo name.Repository, d name.Digest, artifactType string, after name.Digest) (list []Descriptor, more bool, err error)
}

// Writer is what pushing needs. Every method may also fail with NameUnknown when the registry is gone, with StorageFull, and with Unsupported when a lock forbids it.
type Writer interface {
	// Begin starts an upload.
	Begin(ctx context.Context, c Call, repo name.Repository) (Upload, error)
	// Upload finds an upload of the repository. Errors: BlobUploadUnknown.
	Upload(ctx context.Context, c Call, repo name.Repository, id string) (Upload, error)
	// Mount puts a blob of another repository of the same registry into repo. The caller may read from. It is false when from does not hold it.
	Mount(ctx context.Context, c Call, repo, from name.Repository, d name.Digest) (bool, error)
	// PutManifest stores a manifest and points the reference's tag to it, or, when it has a digest, the further tags. When it returns, all is durable.
	// Errors: ManifestInvalid, DigestInvalid, ManifestBlobUnknown and ManifestUnknown for what the manifest names and the repository does not hold.
	PutManifest(ctx context.Context, c Call, ref name.Reference, tags []name.Tag, mediaType string, content []byte) (Pushed, error)
}

// Pushed tells of a stored manifest. Subject is "" when it has none.
type Pushed struct{ Digest, Subject name.Digest }

// Upload is a blob being pushed. One request writes it at a time. Errors of each method: BlobUploadUnknown, Conflict while another
// request writes, StorageFull.
type Upload interface {
	ID() string
	// Offset is the number of bytes that are durable.
	Offset() int64
	// Append takes r to its end. What was taken is durable when it returns, also when r breaks off.
	Append(ctx context.Context, r io.Reader) (int64, error)
	// Finish takes the rest (may be nil) and makes the whole a blob of the repository, durable when it returns. Errors: DigestInvalid.
	Finish(ctx context.Context, want name.Digest, rest io.Reader) error
	// Cancel ends the upload and forgets its bytes.
	Cancel(ctx context.Context) error
}

// Deleter is what deleting needs. Every method may also fail with NameUnknown when the registry is gone, and with Unsupported when a lock forbids it.
type Deleter interface {
	// DeleteBlob takes a blob out of a repository. Errors: BlobUnknown, Unsupported.
	DeleteBlob(ctx context.Context, c Call, repo name.Repository, d name.Digest) error
	// DeleteManifest takes a manifest and every tag of it out of a repository, and so with what refers to it. Errors: ManifestUnknown, Unsupported.
	DeleteManifest(ctx context.Context, c Call, repo name.Repository, d name.Digest) error
	// DeleteTag removes a tag and leaves its manifest. Errors: TagUnknown.
	DeleteTag(ctx context.Context, c Call, repo name.Repository, t name.Tag) error
	// DeleteRepository removes a repository with all it holds. Errors: NameUnknown.
	DeleteRepository(ctx context.Context, c Call, repo name.Repository) (Deleted, error)
}

// Deleted is what a repository held.
type Deleted struct {
	Manifests []name.Digest
	Tags      []name.Tag
}

// Lister is what listing needs. Lists are in the order of their bytes and begin behind last; n is the most that is wanted; more says that
// the list goes on. Errors: as Reader.
type Lister interface {
	// Tags lists a repository's tags. Errors: NameUnknown.
	Tags(ctx context.Context, c Call, repo name.Repository, last string, n int) (list []string, more bool, err error)
	// Repositories lists the repositories that hold a manifest and that may lets pass.
	Repositories(ctx context.Context, c Call, last string, n int, may func(tx *meta.Tx, repo name.Repository) (bool, error)) (list []string, more bool, err error)
}

// Registry is what the protocol is served from.
type Registry interface {
	Reader
	Writer
	Deleter
	Lister
	Metadata
	Bin
}

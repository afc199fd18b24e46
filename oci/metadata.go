// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"time"

	"github.com/embargo-registry/embargo/name"
)

// Attributes are what may be done with a repository, a tag or a manifest. Source: ACR, "changeableAttributes".
type Attributes struct{ Delete, Write, List, Read bool }

// Repository describes a repository.
type Repository struct {
	Created, Updated time.Time
	Manifests, Tags  int64
	Attributes
}

// Tag describes a tag.
type Tag struct {
	Name             name.Tag
	Digest           name.Digest
	Created, Updated time.Time
	Attributes
}

// Manifest describes a manifest.
type Manifest struct {
	Descriptor
	// ImageSize is its size together with that of what it names.
	ImageSize        int64
	ConfigMediaType  string
	Architecture, OS string
	Created, Updated time.Time
	Tags             []name.Tag
	// Quarantine is the state of what was pushed under quarantinePolicy: Quarantined, Passed or Failed; "" of what was not. QuarantineDetails is what was said of it.
	Quarantine, QuarantineDetails string
	// References are the manifests of an index.
	References []Platform
	Attributes
}

// Platform is a manifest of an index and what it runs on.
type Platform struct {
	Digest           name.Digest
	Architecture, OS string
}

// Page is the part of a list that is wanted: at most N entries behind Last, by name (digest), or by the time of the last change where Order says so.
type Page struct {
	Last  string
	N     int
	Order Order
	// At is when Last was last changed as the page that it ended had it, so that the next begins there whatever has become of it; zero: as it is now.
	At time.Time
	// Digest narrows a list of tags to those of one manifest; "": all.
	Digest name.Digest
}

// Order is the order of a list.
type Order int

// The orders of lists.
const (
	ByName Order = iota
	OldestFirst
	NewestFirst
)

// Change is a change of attributes; nil leaves one as it is. The last two are a manifest's alone.
type Change struct {
	Delete, Write, List, Read     *bool
	Quarantine, QuarantineDetails *string
}

// The states of quarantine.
const (
	Quarantined = "Quarantined"
	Passed      = "Passed"
	Failed      = "Failed"
)

// Metadata is what describes content without handing it out. Every method may also fail as Reader's do.
type Metadata interface {
	// DescribeRepository describes a repository. Errors: NameUnknown.
	DescribeRepository(ctx context.Context, c Call, repo name.Repository) (Repository, error)
	// ListTags lists tags. Errors: NameUnknown.
	ListTags(ctx context.Context, c Call, repo name.Repository, p Page) (list []Tag, more bool, err error)
	// DescribeTag describes a tag. Errors: TagUnknown.
	DescribeTag(ctx context.Context, c Call, repo name.Repository, t name.Tag) (Tag, error)
	// ListManifests lists manifests, without their References. Errors: NameUnknown.
	ListManifests(ctx context.Context, c Call, repo name.Repository, p Page) (list []Manifest, more bool, err error)
	// DescribeManifest describes a manifest. Errors: ManifestUnknown.
	DescribeManifest(ctx context.Context, c Call, repo name.Repository, d name.Digest) (Manifest, error)
	// SetAttributes changes what may be done with a repository, or with the tag or manifest of it that the reference names. Errors: NameUnknown, TagUnknown, ManifestUnknown.
	SetAttributes(ctx context.Context, c Call, of name.Reference, change Change) error
}

// DeletedManifest is a manifest that can be restored.
type DeletedManifest struct {
	Digest           name.Digest
	MediaType        string
	Size, ImageSize  int64
	Architecture, OS string
	Created, Deleted time.Time
}

// DeletedTag is a tag that was deleted, and where it pointed.
type DeletedTag struct {
	Name    name.Tag
	Digest  name.Digest
	Deleted time.Time
}

// Bin is what was deleted for a while (softDeletePolicy). Every method may also fail as Reader's do.
type Bin interface {
	// DeletedRepositories lists the repositories that hold something deleted.
	DeletedRepositories(ctx context.Context, c Call, last string, n int) (list []string, more bool, err error)
	// DeletedManifests lists deleted manifests by digest.
	DeletedManifests(ctx context.Context, c Call, repo name.Repository, p Page) (list []DeletedManifest, more bool, err error)
	// DeletedTags lists deleted tags by name, and those of one name by digest; last of the page is "name@digest".
	DeletedTags(ctx context.Context, c Call, repo name.Repository, p Page) (list []DeletedTag, more bool, err error)
	// Restore brings a manifest back and points the reference's tag, if it has one, to it; force takes the tag from another manifest. Errors: ManifestUnknown, Conflict, Unsupported.
	Restore(ctx context.Context, c Call, to name.Reference, force bool) error
}

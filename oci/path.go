// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// kind is what a path means.
type kind int

const (
	kindBase kind = iota
	kindCatalog
	kindTags
	kindManifest
	kindReferrers
	kindBlob
	kindUploads
	kindUpload
	kindToken
	kindExchange
	kindAcrCatalog
	kindAcrRepository
	kindAcrTags
	kindAcrTag
	kindAcrManifests
	kindAcrManifest
	kindDeletedCatalog
	kindDeletedTags
	kindDeletedManifests
	kindDeletedManifest
)

// target is a parsed path. Repository is set for every kind below kindCatalog but the token endpoints; of Tag, Digest and Upload, what
// the kind has.
type target struct {
	kind       kind
	repository name.Repository
	tag        name.Tag
	digest     name.Digest
	upload     string
}

// reference is the manifest that the target names.
func (t target) reference() name.Reference {
	return name.Reference{Repository: t.repository, Tag: t.tag, Digest: t.digest}
}

// parsePath reads the path of a request, percent-decoded. It is pure. A repository's name may hold any of the protocol's own words, so the
// path is read from its end. Errors: NameInvalid, TagInvalid, DigestInvalid, BlobUploadUnknown for a malformed upload id, and
// NotFound for what is no path of the protocol.
// Source: OCI distribution 1.1, section "Endpoints".
func parsePath(path string) (target, error) {
	switch path {
	case "/v2", "/v2/":
		return target{kind: kindBase}, nil
	case "/v2/_catalog":
		return target{kind: kindCatalog}, nil
	case "/oauth2/token":
		return target{kind: kindToken}, nil
	case "/oauth2/exchange":
		return target{kind: kindExchange}, nil
	}
	if rest, ok := strings.CutPrefix(path, "/acr/v1/"); ok {
		return acrPath(path, rest)
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return target{}, unknownPath(path)
	}
	// The longest tail has three segments: blobs/uploads/{id}.
	rest, last := cutLast(rest)
	head, word := cutLast(rest)
	switch {
	case word == "manifests":
		return manifestPath(head, last)
	case word == "tags" && last == "list":
		return repositoryPath(target{kind: kindTags}, head)
	case word == "referrers":
		return digestPath(kindReferrers, head, last)
	case word == "blobs" && last == "uploads":
		return repositoryPath(target{kind: kindUploads}, head)
	case word == "blobs":
		return digestPath(kindBlob, head, last)
	case word == "uploads":
		if repo, blobs := cutLast(head); blobs == "blobs" {
			if last == "" {
				return repositoryPath(target{kind: kindUploads}, repo)
			}
			return uploadPath(repo, last)
		}
	}
	return target{}, unknownPath(path)
}

// acrPath reads what stands behind /acr/v1/. The words of this interface begin with an underscore, which no part of a repository's name does.
func acrPath(path, rest string) (target, error) {
	if rest == "_catalog" {
		return target{kind: kindAcrCatalog}, nil
	}
	if deleted, ok := strings.CutPrefix(rest, "_deleted/"); ok {
		return deletedPath(path, deleted)
	}
	head, last := cutLast(rest)
	switch last {
	case "_tags":
		return repositoryPath(target{kind: kindAcrTags}, head)
	case "_manifests":
		return repositoryPath(target{kind: kindAcrManifests}, head)
	}
	switch repo, word := cutLast(head); word {
	case "_tags":
		return tagPath(repo, last)
	case "_manifests":
		return digestPath(kindAcrManifest, repo, last)
	}
	if strings.HasPrefix(rest, "_") {
		return target{}, unknownPath(path)
	}
	return repositoryPath(target{kind: kindAcrRepository}, rest)
}

// deletedPath reads what stands behind /acr/v1/_deleted/.
func deletedPath(path, rest string) (target, error) {
	if rest == "_catalog" {
		return target{kind: kindDeletedCatalog}, nil
	}
	head, last := cutLast(rest)
	switch last {
	case "_tags":
		return repositoryPath(target{kind: kindDeletedTags}, head)
	case "_manifests":
		return repositoryPath(target{kind: kindDeletedManifests}, head)
	}
	if repo, word := cutLast(head); word == "_manifests" {
		return digestPath(kindDeletedManifest, repo, last)
	}
	return target{}, unknownPath(path)
}

func tagPath(repo, tag string) (target, error) {
	t, err := repositoryPath(target{kind: kindAcrTag}, repo)
	if err == nil {
		t.tag, err = name.ParseTag(tag)
	}
	return t, err
}

// cutLast splits before the last slash; without one, all is last.
func cutLast(s string) (head, last string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

func repositoryPath(t target, repo string) (target, error) {
	var err error
	t.repository, err = name.ParseRepository(repo)
	return t, err
}

func digestPath(k kind, repo, digest string) (target, error) {
	t, err := repositoryPath(target{kind: k}, repo)
	if err == nil {
		t.digest, err = name.ParseDigest(digest)
	}
	return t, err
}

func manifestPath(repo, ref string) (target, error) {
	t, err := repositoryPath(target{kind: kindManifest}, repo)
	switch {
	case err != nil:
	case name.IsDigest(ref):
		t.digest, err = name.ParseDigest(ref)
	default:
		t.tag, err = name.ParseTag(ref)
	}
	return t, err
}

// uploadPath: an id is what this server gives out: hexadecimal digits. Any other was never one.
func uploadPath(repo, id string) (target, error) {
	t, err := repositoryPath(target{kind: kindUpload}, repo)
	if err != nil {
		return t, err
	}
	if len(id) > 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return t, fault.New(fault.BlobUploadUnknown, "The upload %q is not known here. Begin a new one.", clip(id))
	}
	t.upload = id
	return t, nil
}

func unknownPath(path string) error {
	return fault.New(fault.NotFound, "%q is no path of the distribution protocol, and none of /acr/v1.", clip(path))
}

// clip makes a client's text fit for a message.
func clip(s string) string {
	if len(s) > 128 {
		s = s[:128] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

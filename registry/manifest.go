// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// The media types of manifests that are served. Sources: OCI image spec 1.1; Docker image manifest V2, schema 2.
const (
	mediaImage       = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex       = "application/vnd.oci.image.index.v1+json"
	mediaDockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	mediaDockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"

	mediaConfig       = "application/vnd.oci.image.config.v1+json"
	mediaDockerConfig = "application/vnd.docker.container.image.v1+json"
)

// referenceLimit is how much content one manifest may name.
const referenceLimit = 2000

// What a manifest names, by kind. The kind is kept with the reference.
const (
	refConfig   = "config"
	refLayer    = "layer"
	refManifest = "manifest"
)

// ref is content that a manifest names and that its repository must hold.
type ref struct {
	kind   string
	digest name.Digest
	size   int64
	// elsewhere: the content need not be here; where it is, it belongs to the manifest like any other.
	elsewhere bool
}

// manifest is what is kept of a manifest beside its bytes.
type manifest struct {
	mediaType    string
	artifactType string
	annotations  string // JSON object, "" for none
	config       name.Digest
	configType   string
	// total is the size of all that an image names, as the manifest says it.
	total int64
	// architecture and os are an image's platform, "" when it says none.
	architecture, os string
	// quarantine is the state in which it is stored.
	quarantine string
	subject    name.Digest
	refs       []ref
}

type descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      *int64   `json:"size"`
	URLs      []string `json:"urls"`
}

// document is every form of a manifest at once, so that one that would be read in two ways is seen and refused.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *descriptor       `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Manifests     []descriptor      `json:"manifests"`
	Blobs         json.RawMessage   `json:"blobs"`
	FSLayers      json.RawMessage   `json:"fsLayers"`
	Subject       *descriptor       `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// parseManifest reads a manifest of a media type ("" is taken from the document). It is pure. Errors: ManifestInvalid.
func parseManifest(mediaType string, content []byte) (manifest, error) {
	if err := unambiguous(content); err != nil {
		return manifest{}, err
	}
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return manifest{}, noJSON(err)
	}
	if doc.MediaType == "" {
		doc.MediaType = mediaType
	}
	if mediaType == "" {
		mediaType = doc.MediaType
	}
	if doc.MediaType != mediaType {
		return manifest{}, invalid("The manifest says that its media type is %q, but Content-Type says %q.", clip(doc.MediaType), clip(mediaType))
	}
	if doc.FSLayers != nil || doc.SchemaVersion == 1 {
		return manifest{}, invalid("Manifests of schema version 1 are not supported: push the image with a current client.")
	}
	if doc.SchemaVersion != 2 {
		return manifest{}, invalid("schemaVersion must be 2, not %d.", doc.SchemaVersion)
	}
	m := manifest{mediaType: mediaType, artifactType: doc.ArtifactType}
	err := kindOfContent("artifactType", doc.ArtifactType)
	if err == nil && doc.Config != nil {
		err = kindOfContent("media type of the config", doc.Config.MediaType)
	}
	if err != nil {
		return manifest{}, err
	}
	switch mediaType {
	case mediaImage, mediaDockerImage:
		err = m.image(doc)
	case mediaIndex, mediaDockerList:
		err = m.index(doc)
	case "":
		err = invalid("The manifest has no media type: say it in Content-Type.")
	default:
		err = invalid("The media type %q is not supported. Supported are %s.", clip(mediaType),
			strings.Join([]string{mediaImage, mediaIndex, mediaDockerImage, mediaDockerList}, ", "))
	}
	if err == nil && doc.Subject != nil {
		var subject ref
		subject, err = doc.Subject.check("subject", "")
		m.subject = subject.digest
	}
	if err == nil && len(m.refs) > referenceLimit {
		err = invalid("The manifest names %d pieces of content; at most %d are supported.", len(m.refs), referenceLimit)
	}
	if err == nil && len(doc.Annotations) > 0 {
		var text []byte
		text, err = json.Marshal(doc.Annotations)
		m.annotations = string(text)
	}
	return m, err
}

func (m *manifest) image(doc document) error {
	if doc.Manifests != nil || doc.Blobs != nil {
		return invalid("An image manifest must not have the members manifests or blobs: a client could take it for an index.")
	}
	if doc.Config == nil {
		return invalid("The manifest has no config.")
	}
	config, err := doc.Config.check("config", refConfig)
	if err != nil {
		return err
	}
	m.config, m.configType, m.total = config.digest, doc.Config.MediaType, config.size
	// Source: OCI distribution 1.1, section "Listing Referrers": without artifactType the config's media type stands for it.
	if m.artifactType == "" {
		m.artifactType = doc.Config.MediaType
	}
	m.refs = append(m.refs, config)
	for i := range doc.Layers {
		layer, err := doc.Layers[i].check("a layer", refLayer)
		if err != nil {
			return err
		}
		if m.total += layer.size; m.total < 0 {
			return invalid("The sizes of the layers add up to more than can be stored.")
		}
		layer.elsewhere = foreign(doc.Layers[i].MediaType)
		m.refs = append(m.refs, layer)
	}
	return nil
}

func (m *manifest) index(doc document) error {
	if doc.Config != nil || doc.Layers != nil || doc.Blobs != nil {
		return invalid("An index must not have the members config, layers or blobs: a client could take it for an image.")
	}
	if doc.Manifests == nil {
		return invalid("The index has no member manifests.")
	}
	for i := range doc.Manifests {
		child, err := doc.Manifests[i].check("a manifest of the index", refManifest)
		if err != nil {
			return err
		}
		m.refs = append(m.refs, child)
	}
	return nil
}

func (d *descriptor) check(what, kind string) (ref, error) {
	digest, err := name.ParseDigest(d.Digest)
	if err != nil {
		return ref{}, invalid("The digest of %s can't be used: %s", what, fault.From(err).Message)
	}
	if d.Size == nil || *d.Size < 0 {
		return ref{}, invalid("The size of %s (%s) is missing or negative.", what, digest)
	}
	return ref{kind: kind, digest: digest, size: *d.Size}, nil
}

// foreign: layers of these media types lie elsewhere by their nature and need not be pushed.
// Sources: OCI image spec 1.1, "Non-Distributable Layers"; Docker schema 2.
func foreign(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		mediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" ||
		mediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar"
}

func noJSON(err error) error {
	return fault.New(fault.ManifestInvalid, "The manifest is not the JSON of a manifest.").Because(err)
}

func invalid(format string, args ...any) error {
	return fault.New(fault.ManifestInvalid, format, args...)
}

// clip makes a client's text fit for a message.
func clip(s string) string {
	if len(s) > 128 {
		s = s[:128] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"strings"
	"time"
)

// The media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// user is the id of the user embargo in the image.
const user = 65532

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// imageConfig is what a runtime does with the image.
type imageConfig struct {
	Created time.Time `json:"created"`
	platform
	Config struct {
		User         string
		ExposedPorts map[string]struct{}
		Env          []string
		Entrypoint   []string
		Cmd          []string
		Volumes      map[string]struct{}
		WorkingDir   string
		Labels       map[string]string
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// image is the name of the archive.
func (r release) image() string { return "embargo-" + r.version + "-oci.tar" }

// annotations say what the image is.
func (r release) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "embargo",
		"org.opencontainers.image.description": "A container registry that lets artifacts leave only as its policies say",
		"org.opencontainers.image.version":     r.version,
		"org.opencontainers.image.revision":    r.commit,
		"org.opencontainers.image.created":     r.time.Format(time.RFC3339),
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.source":      "https://github.com/embargo-registry/embargo",
	}
}

// layout writes an OCI image layout into a tar; the first error stays.
type layout struct {
	tree
	seen map[string]bool
}

// blob adds content once and describes it.
func (l *layout) blob(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	if !l.seen[digest] {
		l.seen[digest] = true
		l.file("blobs/sha256/"+digest, 0o644, content)
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(content)}
}

// json adds a value as a blob.
func (l *layout) json(mediaType string, v any) descriptor {
	b, err := json.Marshal(v)
	if err != nil && l.err == nil {
		l.err = err
	}
	return l.blob(mediaType, b)
}

// writeImage writes the archive: an index of one image for each Linux target, and the index that names it.
func (r release) writeImage() error {
	f, err := os.Create(r.path(r.image()))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	l := layout{tree: tree{w: tar.NewWriter(f), time: r.time}, seen: map[string]bool{}}
	l.directory("blobs", 0o755, 0)
	l.directory("blobs/sha256", 0o755, 0)
	all := index{SchemaVersion: 2, MediaType: typeIndex, Annotations: r.annotations()}
	for _, t := range r.linux() {
		d, err := r.addImage(&l, t)
		if err != nil {
			return err
		}
		all.Manifests = append(all.Manifests, d)
	}
	top := l.json(typeIndex, all)
	tag := strings.ReplaceAll(r.version, "+", "_") // a tag has no +
	tag = strings.ReplaceAll(tag, "~", "-")
	top.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": "localhost/embargo:" + tag}
	names, err := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{top}})
	if err != nil {
		return err
	}
	l.file("index.json", 0o644, names)
	l.file("oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	if err := l.close(); err != nil {
		return err
	}
	return f.Close()
}

// addImage adds a target's layer, configuration and manifest.
func (r release) addImage(l *layout, t target) (descriptor, error) {
	program, err := os.ReadFile(r.path(r.binary(t)))
	if err != nil {
		return descriptor{}, err
	}
	plain, packed, err := r.layer(program)
	if err != nil {
		return descriptor{}, err
	}
	p := platform{Architecture: t.arch, OS: t.os}
	c := imageConfig{Created: r.time, platform: p}
	c.Config.User = "65532:65532"
	c.Config.ExposedPorts = map[string]struct{}{"8443/tcp": {}}
	c.Config.Env = []string{"PATH=/usr/bin", "EMBARGO_DATA=/var/lib/embargo"} // for the commands that are run beside the server
	c.Config.Entrypoint = []string{"/usr/bin/embargo"}
	c.Config.Cmd = []string{"serve", "--data", "/var/lib/embargo", "--listen", "0.0.0.0:8443"}
	c.Config.Volumes = map[string]struct{}{"/var/lib/embargo": {}}
	c.Config.WorkingDir = "/var/lib/embargo"
	c.Config.Labels = r.annotations()
	c.RootFS.Type = "layers"
	sum := sha256.Sum256(plain)
	c.RootFS.DiffIDs = []string{"sha256:" + hex.EncodeToString(sum[:])}
	c.History = []history{{Created: r.time, CreatedBy: "embargo packaging"}}
	m := manifest{SchemaVersion: 2, MediaType: typeManifest, Annotations: r.annotations()}
	m.Config = l.json(typeConfig, c)
	m.Layers = []descriptor{l.blob(typeLayer, packed)}
	d := l.json(typeManifest, m)
	d.Platform = &p
	return d, nil
}

// layer is the image's file system as a tar, plain and compressed.
func (r release) layer(program []byte) (plain, packed []byte, err error) {
	var b, z bytes.Buffer
	t := tree{w: tar.NewWriter(&b), time: r.time}
	t.directory("etc", 0o755, 0)
	t.file("etc/group", 0o644, []byte("root:x:0:\nembargo:x:65532:\n"))
	t.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/sbin/nologin\nembargo:x:65532:65532:Embargo:/var/lib/embargo:/sbin/nologin\n"))
	t.directory("usr", 0o755, 0)
	t.directory("usr/bin", 0o755, 0)
	t.file("usr/bin/embargo", 0o755, program)
	t.directory("var", 0o755, 0)
	t.directory("var/lib", 0o755, 0)
	t.directory("var/lib/embargo", 0o700, user)
	if err := t.close(); err != nil {
		return nil, nil, err
	}
	gz, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return nil, nil, err
	}
	if _, err := gz.Write(b.Bytes()); err != nil {
		return nil, nil, err
	}
	if err := gz.Close(); err != nil {
		return nil, nil, err
	}
	return b.Bytes(), z.Bytes(), nil
}

// tree writes a tar whose entries all bear one time; the first error stays.
type tree struct {
	w    *tar.Writer
	time time.Time
	err  error
}

func (t *tree) directory(path string, mode fs.FileMode, owner int) {
	t.entry(&tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: int64(mode), Uid: owner, Gid: owner}, nil)
}

func (t *tree) file(path string, mode fs.FileMode, content []byte) {
	t.entry(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: int64(mode), Size: int64(len(content))}, content)
}

func (t *tree) entry(h *tar.Header, content []byte) {
	if t.err != nil {
		return
	}
	h.ModTime, h.Format = t.time, tar.FormatUSTAR
	if t.err = t.w.WriteHeader(h); t.err == nil {
		_, t.err = t.w.Write(content)
	}
}

func (t *tree) close() error {
	if t.err != nil {
		return t.err
	}
	return t.w.Close()
}

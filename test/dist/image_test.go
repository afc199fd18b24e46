// SPDX-License-Identifier: Apache-2.0

package dist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// entries reads a tar: each entry's mode, owner and path, and its content by path. All bear the time of the release.
func entries(t *testing.T, r io.Reader, at time.Time) (list []string, content map[string][]byte) {
	t.Helper()
	content = map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return list, content
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(at) {
			t.Errorf("%s is of %s", h.Name, h.ModTime)
		}
		list = append(list, fmt.Sprintf("%o %d:%d %s", h.Mode, h.Uid, h.Gid, h.Name))
		if content[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

type descriptor struct {
	MediaType, Digest string
	Size              int
	Platform          struct{ OS, Architecture string }
	Annotations       map[string]string
}

// image reads the archive as the specification says, and has podman load it.
func image(t *testing.T, out string, at time.Time) {
	_, archive := entries(t, bytes.NewReader(read(t, out, files[3])), at)
	if got := string(archive["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %s", got)
	}
	blob := func(d descriptor, mediaType string) []byte {
		t.Helper()
		b := archive["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if d.MediaType != mediaType || len(b) != d.Size || "sha256:"+digest(b) != d.Digest {
			t.Fatalf("%+v is not what it says, or not %s", d, mediaType)
		}
		return b
	}
	var top, all struct{ Manifests []descriptor }
	decode(t, archive["index.json"], &top)
	if len(top.Manifests) != 1 || top.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != version {
		t.Fatalf("index.json: %+v", top)
	}
	decode(t, blob(top.Manifests[0], "application/vnd.oci.image.index.v1+json"), &all)
	if len(all.Manifests) != 1 || all.Manifests[0].Platform.OS != "linux" || all.Manifests[0].Platform.Architecture != "amd64" {
		t.Fatalf("the index: %+v", all)
	}
	var m struct {
		Config      descriptor
		Layers      []descriptor
		Annotations map[string]string
	}
	decode(t, blob(all.Manifests[0], "application/vnd.oci.image.manifest.v1+json"), &m)
	if m.Annotations["org.opencontainers.image.version"] != version || len(m.Layers) != 1 {
		t.Fatalf("the manifest: %+v", m)
	}
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(t, blob(m.Config, "application/vnd.oci.image.config.v1+json"), &c)
	z, err := gzip.NewReader(bytes.NewReader(blob(m.Layers[0], "application/vnd.oci.image.layer.v1.tar+gzip")))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.RootFS.DiffIDs, []string{"sha256:" + digest(plain)}) {
		t.Errorf("diff_ids: %q", c.RootFS.DiffIDs)
	}
	layer(t, plain, read(t, out, files[1]), at)
	podman(t, filepath.Join(out, files[3]))
}

func decode(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
}

// layer: the image holds the program, its user and its data directory, and nothing else.
func layer(t *testing.T, plain, program []byte, at time.Time) {
	list, content := entries(t, bytes.NewReader(plain), at)
	want := []string{
		"755 0:0 etc/", "644 0:0 etc/group", "644 0:0 etc/passwd", "755 0:0 usr/", "755 0:0 usr/bin/", "755 0:0 usr/bin/embargo",
		"755 0:0 var/", "755 0:0 var/lib/", "700 65532:65532 var/lib/embargo/",
	}
	if !slices.Equal(list, want) {
		t.Errorf("the layer holds %q, want %q", list, want)
	}
	if !bytes.Equal(content["usr/bin/embargo"], program) {
		t.Error("the image holds another program than the one beside it")
	}
	if !strings.Contains(string(content["etc/passwd"]), "\nembargo:x:65532:65532:") || !strings.Contains(string(content["etc/group"]), "\nembargo:x:65532:") {
		t.Errorf("the user embargo is not 65532:\n%s%s", content["etc/passwd"], content["etc/group"])
	}
}

// podman loads the archive into a store of its own and says what would be run.
func podman(t *testing.T, archive string) {
	store := []string{"--root", filepath.Join(t.TempDir(), "root"), "--runroot", filepath.Join(t.TempDir(), "run"), "--storage-driver", "vfs"}
	name := "localhost/embargo:" + version
	if got := run(t, "podman", append(store, "load", "--quiet", "--input", archive)...); !strings.Contains(got, name) {
		t.Errorf("podman load: %s", got)
	}
	var v []struct {
		Os, Architecture string
		Config           struct {
			User, WorkingDir      string
			Entrypoint, Cmd, Env  []string
			ExposedPorts, Volumes map[string]any
		}
	}
	decode(t, []byte(run(t, "podman", append(store, "image", "inspect", name)...)), &v)
	if len(v) != 1 || v[0].Os+"/"+v[0].Architecture != "linux/amd64" {
		t.Fatalf("podman image inspect: %+v", v)
	}
	c := v[0].Config
	for what, pair := range map[string][2]string{
		"user":       {c.User, "65532:65532"},
		"directory":  {c.WorkingDir, "/var/lib/embargo"},
		"entrypoint": {strings.Join(c.Entrypoint, " "), "/usr/bin/embargo"},
		"command":    {strings.Join(c.Cmd, " "), "serve --data /var/lib/embargo --listen 0.0.0.0:8443"},
		"env":        {strings.Join(c.Env, " "), "PATH=/usr/bin EMBARGO_DATA=/var/lib/embargo"},
		"ports":      {strings.Join(slices.Collect(maps.Keys(c.ExposedPorts)), " "), "8443/tcp"},
		"volumes":    {strings.Join(slices.Collect(maps.Keys(c.Volumes)), " "), "/var/lib/embargo"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// What the server says that its content takes is what the objects on the disk take, to the byte, after each thing that writes; what a registry holds is counted once for it.
func TestSpaceMatchesTheDisk(t *testing.T) {
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			in := newInstallation(t)
			in.Server = instance.New(t, kind, fmt.Sprintf("logLevel: warn\ngcGrace: 1ms\nprivateListeners: [{address: %q, registry: %q, tls: false}]\n", in.private, registry))
			in.prepare(t)
			s := in.newStory(1)
			for _, r := range s.requests() {
				if err := r.once(t.Context()); err != nil {
					t.Fatal(err)
				}
				taken := in.spaceIsDisk(t, r.name, 0)
				uploads := int64(0)
				switch r.name {
				case "begin":
					uploads = min(taken.Uploads, 1) // it has a row after a moment
				case "chunk1", "chunk2":
					uploads = 1
				case "abandon":
					if uploads = 1; taken.UploadBytes != 1000 {
						t.Errorf("an upload of 1000 bytes is under way, and counts as %d", taken.UploadBytes)
					}
				}
				if taken.Uploads != uploads {
					t.Errorf("%s: %d uploads are under way, not %d", r.name, taken.Uploads, uploads)
				}
			}
			held := int64(len(s.config) + len(s.layer) + len(s.first) + len(s.second))
			if got := in.usage(t); got != held {
				t.Errorf("the registry holds %d bytes, and its usage is %d", held, got)
			}
			if taken := in.spaceIsDisk(t, "the end", 0); taken.Bytes != held || taken.Objects != 4 || taken.Unused != 0 {
				t.Errorf("%+v: one registry holds all, %d bytes in 4 objects", taken, held)
			}
			in.emptied(t, s)
		})
	}
}

// emptied deletes everything; what is not collected yet is counted as unused, and a file that belongs to nothing is told by the collection alone.
func (in *installation) emptied(t *testing.T, s *story) {
	t.Helper()
	for _, path := range []string{s.repo + "/manifests/" + digestOf(s.second), s.side + "/manifests/" + digestOf(s.first)} {
		if _, _, err := in.do(t.Context(), "DELETE", "/v2/"+path, "", nil, http.StatusAccepted); err != nil {
			t.Fatal(err)
		}
	}
	stray := filepath.Join(in.Data, "blobs", "ab", "ab"+strings.Repeat("0", 30))
	if err := os.MkdirAll(filepath.Dir(stray), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stray, make([]byte, 77), 0o600); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(stray, past, past); err != nil {
		t.Fatal(err)
	}
	in.spaceIsDisk(t, "all is deleted", 77)
	out, errs, err := in.Run(t.Context(), "gc", "--data", in.Data, "--dry-run")
	if err != nil || !strings.Contains(out, "1 file that no row names (77 B)") {
		t.Errorf("a file that belongs to nothing: %v %s%s", err, out, errs)
	}
	if err := s.collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if taken := in.spaceIsDisk(t, "a collection", 0); taken.Unused == 0 || taken.Unused != taken.Bytes {
		t.Errorf("nothing is used, %+v", taken)
	}
	if err := s.collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if taken := in.spaceIsDisk(t, "two collections", 0); taken != (space{}) || in.usage(t) != 0 {
		t.Errorf("everything is gone, %+v", taken)
	}
}

// space is what embargo status says of the content.
type space struct {
	Objects, Bytes, Uploads, UploadBytes int64
	Unused                               int64 `json:"unusedBytes"`
}

// spaceIsDisk compares what the server says with the disk. An object that a commit found to be there already is removed a moment after the answer.
func (in *installation) spaceIsDisk(t *testing.T, after string, stray int64) (said space) {
	t.Helper()
	var disk int64
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		said, disk = in.said(t), in.onDisk(t)
		if said.Bytes+said.UploadBytes+stray == disk {
			in.metricsSay(t, after, said)
			return said
		}
	}
	t.Errorf("after %s: status says %+v, the objects on disk are %d bytes, of which %d belong to nothing", after, said, disk, stray)
	return said
}

func (in *installation) said(t *testing.T) space {
	t.Helper()
	out, errs, err := in.Run(context.Background(), "status", "--data", in.Data, "--output", "json")
	var st struct{ Content space }
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	if err != nil {
		t.Fatalf("embargo status: %v: %s%s", err, out, errs)
	}
	return st.Content
}

func (in *installation) onDisk(t *testing.T) (n int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(in.Data, "blobs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if st, err := os.Stat(path); err == nil { // else it went meanwhile
			n += st.Size()
		}
	}
	return n
}

// metricsSay checks that the gauges are the status's figures.
func (in *installation) metricsSay(t *testing.T, after string, said space) {
	t.Helper()
	a, err := in.Do(http.MethodGet, "http://"+in.Listening(t).Admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]int64{"used": said.Bytes - said.Unused, "unused": said.Unused, "uploads": said.UploadBytes} {
		if line := fmt.Sprintf("embargo_content_bytes{what=%q} %v\n", what, float64(want)); !strings.Contains(string(a.Body), line) {
			t.Errorf("after %s: /metrics lacks %s", after, line)
		}
	}
}

// usage is what listUsages says that the registry holds.
func (in *installation) usage(t *testing.T) int64 {
	t.Helper()
	a := in.ARM(http.MethodGet, in.RegistryID(registry)+"/listUsages"+instance.Version, nil)
	var usages struct {
		Value []struct {
			Name         string
			CurrentValue int64
		}
	}
	if err := json.Unmarshal(a.Body, &usages); err != nil {
		t.Fatal(err)
	}
	for _, u := range usages.Value {
		if u.Name == "Size" {
			return u.CurrentValue
		}
	}
	t.Fatalf("no size: %s", a.Body)
	return 0
}

// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// Deleted content leaves the disk, by itself and by the command; damaged content is found by the command and named.
func TestCollectAndScrub(t *testing.T) {
	instance.Each(t, "gcGrace: 1ms\n", func(t *testing.T, s *instance.Server) {
		s.CreateRegistry(instance.Open, nil)
		manifest, err := s.PushImage(instance.Open, "app", "v1", []byte("a layer that goes"))
		if err != nil {
			t.Fatal(err)
		}
		layer := []byte("a layer that stays")
		if _, err := s.PushImage(instance.Open, "kept", "v1", layer); err != nil {
			t.Fatal(err)
		}
		if a, err := s.OCI(instance.Open, "app", http.MethodDelete, "/v2/app/manifests/"+instance.Digest(manifest), nil); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("%v %d %s", err, a.Status, a.Body)
		}
		if out := must(t, s, "gc", "--dry-run", "--data", s.Data); !strings.Contains(out, "Would remove 0 pieces") {
			t.Errorf("what was never marked would be removed: %s", out)
		}
		removed := ""
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !strings.Contains(removed, "Removed 2 pieces"); {
			removed += must(t, s, "gc", "--data", s.Data) // the configuration is the same for both images, so two of three go
		}
		if !strings.Contains(removed, "Removed 2 pieces") {
			t.Fatalf("what was deleted is not removed:\n%s", removed)
		}
		if out := must(t, s, "scrub", "--data", s.Data); !strings.Contains(out, "none is damaged") {
			t.Error(out)
		}
		var found bool
		err = filepath.WalkDir(filepath.Join(s.Data, "blobs"), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil && bytes.Equal(b, layer) {
				found = true
				b[0] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
			return err
		})
		if err != nil || !found {
			t.Fatalf("the layer is not on the disk: %v", err)
		}
		out, errs, err := s.Run(t.Context(), "scrub", "--data", s.Data)
		if err == nil || !strings.Contains(out, "damaged: "+instance.Digest(layer)+", held by "+s.LoginServer(instance.Open)+"/kept") || !strings.Contains(errs, "push the damaged content again") {
			t.Errorf("scrub: %v %s%s", err, out, errs)
		}
		s.Recorded(t.Context(), "the damaged content", func(r map[string]any) bool { return r["outcome"] == "failed" && r["digest"] == instance.Digest(layer) })
		if out := must(t, s, "status", "--data", s.Data); !strings.Contains(out, "DAMAGED") || !strings.Contains(out, "1 piece of content") {
			t.Errorf("status does not tell of it:\n%s", out)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		s.Start() // it is remembered
		if a, err := s.OCI(instance.Open, "kept", http.MethodGet, "/v2/kept/blobs/"+instance.Digest(layer), nil); err != nil || a.Status != http.StatusNotFound || !strings.Contains(string(a.Body), "damaged") {
			t.Errorf("damaged content is served: %v %d %s", err, a.Status, a.Body)
		}
		if err := s.PushBlob(instance.Open, "kept", layer); err != nil {
			t.Fatal(err)
		}
		if a, err := s.OCI(instance.Open, "kept", http.MethodGet, "/v2/kept/blobs/"+instance.Digest(layer), nil); err != nil || a.Status != http.StatusOK || !bytes.Equal(a.Body, layer) {
			t.Errorf("after it was pushed again: %v %d", err, a.Status)
		}
		must(t, s, "scrub", "--data", s.Data)
	})
}

// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// On a full disk whatever needs space is refused with the code of a full disk and the way out, everything acknowledged stays readable as far as its record can be kept, and when there
// is space again the same server goes on.
func TestDiskFull(t *testing.T) {
	d := newDisk(t, 96)
	in := newInstallation(t)
	in.Server = instance.At(t, filepath.Join(d.dir, "data"), "", in.config())
	in.Start()
	in.prepare(t)
	l := newLedger()
	w := &writer{in: in, ledger: l, repo: "app", tag: "v1", random: rand.New(rand.NewPCG(1, 1))}
	for range 3 {
		if err := w.push(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	// Something else takes what is left, but for a little.
	filler := filepath.Join(d.dir, "filler")
	fill(t, filler, 3<<20)
	full := 0
	for n := range 40 {
		layer := bytes.Repeat([]byte{byte(n)}, 1<<20)
		status, err := in.tryPush(t.Context(), "app", fmt.Sprintf("full%d", n), layer, l)
		if err != nil {
			t.Fatal(err)
		}
		if status == http.StatusInsufficientStorage {
			full++
		}
		if full == 5 {
			break
		}
	}
	if full == 0 {
		t.Fatal("the disk did not become full")
	}
	// Not a byte is left.
	fill(t, filepath.Join(d.dir, "rest"), 0)
	for n := range 8 {
		if _, err := in.tryPush(t.Context(), "app", fmt.Sprintf("none%d", n), []byte(fmt.Sprint("layer ", n)), l); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(os.Remove(filler), os.Remove(filepath.Join(d.dir, "rest"))); err != nil {
		t.Fatal(err)
	}
	in.verify(t, l)
	for range 3 {
		if err := w.push(t.Context(), 1); err != nil {
			t.Errorf("with space again: %v", err)
		}
	}
	if err := in.Stop(); err != nil {
		t.Error(err)
	}
	in.dangling(t)
	in.Start()
	in.verify(t, l)
}

// fill writes a file until only so many bytes are free.
func fill(t *testing.T, path string, free int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1 << 20, 4 << 10} {
		for err == nil {
			var left int64
			if left, err = available(path); err == nil && left < free+size {
				break
			}
			if err == nil {
				_, err = f.Write(make([]byte, size))
			}
			if err == nil {
				err = f.Sync()
			}
		}
	}
	if free == 0 {
		err = nil // it is full, as it should be
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// tryPush pushes an image of one layer. A refusal for want of space is its status, any other is an error.
func (in *installation) tryPush(ctx context.Context, repo, tag string, layer []byte, l *ledger) (status int, err error) {
	config := []byte(fmt.Sprintf(`{"architecture":"amd64","os":"linux","tag":%q}`, tag))
	for _, content := range [][]byte{config, layer} {
		path := "/v2/" + repo + "/blobs/" + digestOf(content)
		if status, err := in.try(ctx, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digestOf(content), "application/octet-stream", content); status != http.StatusCreated {
			return status, err
		}
		l.blob(path)
	}
	manifest := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		digestOf(config), len(config), digestOf(layer), len(layer)))
	path := "/v2/" + repo + "/manifests/" + tag
	l.asked(path, digestOf(manifest))
	status, err = in.try(ctx, "PUT", path, "application/vnd.oci.image.manifest.v1+json", manifest)
	if status == http.StatusCreated {
		l.tagged(repo, path, digestOf(manifest))
	}
	return status, err
}

// try sends a request that a full disk may refuse.
func (in *installation) try(ctx context.Context, method, path, contentType string, body []byte) (int, error) {
	_, _, err := in.do(ctx, method, path, contentType, body, http.StatusCreated)
	if err == nil {
		return http.StatusCreated, nil
	}
	var r refusal
	if !errors.As(err, &r) || r.status != http.StatusInsufficientStorage {
		return 0, err
	}
	var told struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(r.body, &told); err != nil || len(told.Errors) != 1 || told.Errors[0].Code != "DENIED" || !bytes.Contains(r.body, []byte("is full")) {
		return 0, fmt.Errorf("a full disk is told as %s: %w", r.body, errors.Join(err, r))
	}
	return r.status, nil
}

// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// files are the objects on the disk.
func (w *world) files() (all []string) {
	w.t.Helper()
	err := filepath.WalkDir(w.content, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// collect marks and removes what is unused now.
func (w *world) collect(grace time.Duration) (done blob.Collected) {
	w.t.Helper()
	for range 2 { // it is marked, and then removed
		once, err := w.reg.Collect(context.Background(), grace, false)
		if err != nil {
			w.t.Fatal(err)
		}
		done.Content += once.Content
		done.ContentBytes += once.ContentBytes
		done.Files += once.Files
		done.Uploads += once.Uploads
	}
	return done
}

// What nothing names is removed from the disk, and nothing else is: not what a manifest names, not what another repository holds, not what is younger than the grace.
func TestCollect(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		kept := h.image("kept", "v1", "a")
		gone := h.image("gone", "v1", "b")
		h.image("shared", "v1", "a") // the same layers
		loose := h.blob("kept", []byte("a layer whose manifest never came"))
		if done := w.collect(time.Hour); done != (blob.Collected{}) {
			t.Errorf("within the grace: %+v", done)
		}
		h.do(202, "DELETE", "/v2/gone/manifests/"+string(name.DigestOf(gone)), nil)
		before := len(w.files())
		dry, err := w.reg.Collect(context.Background(), 0, true)
		if err != nil || dry.Content != 0 { // nothing is marked yet
			t.Errorf("a dry run: %+v, %v", dry, err)
		}
		done := w.collect(0)
		if want := int64(len(gone) + len(`{"seed":"b"}`) + len("layer of b") + len("a layer whose manifest never came")); done.Content != 4 || done.ContentBytes != want {
			t.Errorf("removed: %+v, want 4 of %d bytes", done, want)
		}
		if after := len(w.files()); before-after != 4 {
			t.Errorf("%d files are gone", before-after)
		}
		h.do(404, "GET", "/v2/kept/blobs/"+string(loose), nil)
		for _, repo := range []string{"kept", "shared"} {
			for _, path := range []string{"/manifests/v1", "/blobs/" + string(name.DigestOf([]byte("layer of a")))} {
				h.do(200, "GET", "/v2/"+repo+path, nil)
			}
		}
		h.do(202, "DELETE", "/v2/kept/manifests/"+string(name.DigestOf(kept)), nil)
		if done := w.collect(0); done.Content != 0 {
			t.Errorf("what another repository holds was removed: %+v", done)
		}
		h.image("gone", "v1", "b") // what was removed can come again
		h.do(200, "GET", "/v2/gone/blobs/"+string(name.DigestOf([]byte("layer of b"))), nil)
	})
}

// Content that is used again while it is marked stays.
func TestCollectedContentComesBack(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := h.image("app", "v1", "a")
		h.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(m)), nil)
		if _, err := w.reg.Collect(context.Background(), 0, false); err != nil { // it is marked
			t.Fatal(err)
		}
		h.image("app", "v1", "a")
		if done := w.collect(0); done.Content != 0 {
			t.Errorf("%+v", done)
		}
		h.do(200, "GET", "/v2/app/manifests/v1", nil)
		h.do(200, "GET", "/v2/app/blobs/"+string(name.DigestOf([]byte("layer of a"))), nil)
	})
}

// Files that belong to nothing go when they are old enough; uploads go when nobody went on with them for a week, and then their id is unknown.
func TestCollectFilesAndUploads(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "a")
		stray := filepath.Join(w.content, "00", "00000000000000000000000000000000")
		if err := os.WriteFile(stray, []byte("left by a crash"), 0o600); err != nil {
			t.Fatal(err)
		}
		begin := func() string {
			at := h.do(202, "POST", "/v2/app/blobs/uploads/", nil).Get("Location")
			return h.do(202, "PATCH", at, []byte("a part")).Get("Location")
		}
		old, young := begin(), begin()
		before := len(w.files())
		week := meta.Micros(time.Now().Add(-8 * 24 * time.Hour))
		w.write(func(tx *meta.Tx) error {
			_, err := tx.Exec(`UPDATE uploads SET touched_us = $1 WHERE id = $2`, week, filepath.Base(old))
			return err
		})
		done, err := w.reg.Collect(context.Background(), time.Hour, false)
		if err != nil || done.Uploads != 1 || done.Files != 0 {
			t.Errorf("%+v, %v", done, err)
		}
		past := time.Now().Add(-2 * time.Hour)
		for _, f := range w.files() {
			if err := os.Chtimes(f, past, past); err != nil {
				t.Fatal(err)
			}
		}
		if done, err = w.reg.Collect(context.Background(), time.Hour, false); err != nil || done.Files != 1 || done.FileBytes != int64(len("left by a crash")) {
			t.Errorf("%+v, %v", done, err)
		}
		if n := len(w.files()); before-n != 2 {
			t.Errorf("%d files are gone", before-n)
		}
		h.refused(t, 404, "BLOB_UPLOAD_UNKNOWN", "GET", old, nil)
		rest := []byte(" and the rest")
		h.do(201, "PUT", young+"?digest="+string(name.DigestOf(append([]byte("a part"), rest...))), rest)
	})
}

// A scrub finds what changed on the disk and what is gone; it is not served until it is pushed again.
func TestScrub(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "a")
		h.image("app", "v2", "b")
		whole, err := w.reg.Scrub(context.Background(), func(blob.Scrubbed) {})
		if err != nil || whole.Content != 6 || len(whole.Damaged) != 0 {
			t.Fatalf("%+v, %v", whole, err)
		}
		changed, lost := name.DigestOf([]byte("layer of a")), name.DigestOf([]byte("layer of b"))
		for _, f := range w.files() {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			switch sum := sha256.Sum256(b); fmt.Sprintf("sha256:%x", sum) {
			case string(changed):
				b[3] ^= 1
				err = os.WriteFile(f, b, 0o600)
			case string(lost):
				err = os.Remove(f)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		found, err := w.reg.Scrub(context.Background(), func(blob.Scrubbed) {})
		slices.Sort(found.Damaged)
		want := []name.Digest{changed, lost}
		slices.Sort(want)
		if err != nil || !slices.Equal(found.Damaged, want) {
			t.Fatalf("%+v, %v", found, err)
		}
		for _, d := range want {
			h.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/app/blobs/"+string(d), nil)
			h.do(404, "HEAD", "/v2/app/blobs/"+string(d), nil)
		}
		h.do(200, "GET", "/v2/app/manifests/v1", nil)
		h.blob("app", []byte("layer of a"))
		h.blob("app", []byte("layer of b"))
		for _, d := range want {
			h.do(200, "GET", "/v2/app/blobs/"+string(d), nil)
		}
		if healed, err := w.reg.Scrub(context.Background(), func(blob.Scrubbed) {}); err != nil || len(healed.Damaged) != 0 {
			t.Errorf("after the push: %+v, %v", healed, err)
		}
	})
}

// modelSteps is how many steps the model test takes on SQLite; PostgreSQL takes a tenth.
func modelSteps() int {
	if testing.Short() {
		return 1000
	}
	return 50000
}

// pass lets time pass: everything that is kept for a while is older by two hours afterwards.
func (w *world) pass() {
	w.t.Helper()
	hours := (2 * time.Hour).Microseconds()
	w.write(func(tx *meta.Tx) error {
		_, err := tx.Exec(`UPDATE blob_links SET touched_us = touched_us - $1`, hours)
		if err == nil {
			_, err = tx.Exec(`UPDATE blobs SET freed_us = freed_us - $1 WHERE freed_us > 0`, hours)
		}
		return err
	})
	for _, f := range w.files() {
		past := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(f, past, past); err != nil {
			w.t.Fatal(err)
		}
	}
}

// model is what the repositories of a registry must hold.
type model struct {
	t    *testing.T
	h    *host
	r    *rand.Rand
	held map[string]bool // "repository/image" whose manifest is there
	half map[string]bool // whose blobs were pushed or mounted a moment ago, and whose manifest will be
}

const modelImages = 6

func modelParts(image string) (config, layer, manifest []byte) {
	config, layer = []byte(`{"seed":"`+image+`"}`), []byte("layer of "+image)
	return config, layer, imageOf("", config, layer)
}

// step takes a step: a push whole or in two halves, a deletion, a collection, a pull, or two hours.
func (m *model) step() {
	repos := []string{"a", "b", "c"}
	repo, image := repos[m.r.IntN(len(repos))], fmt.Sprint(m.r.IntN(modelImages))
	key := repo + "/" + image
	config, layer, manifest := modelParts(image)
	d := string(name.DigestOf(manifest))
	switch m.r.IntN(12) {
	case 0, 1:
		m.h.blob(repo, config)
		m.h.blob(repo, layer)
		m.half[key] = true
	case 2: // by mounting what another repository may hold
		from := repos[m.r.IntN(len(repos))]
		for _, content := range [][]byte{config, layer} {
			a := m.h.send(m.h.request("POST", "/v2/"+repo+"/blobs/uploads/?from="+from+"&mount="+string(name.DigestOf(content)), nil))
			if a.status == http.StatusAccepted {
				m.h.blob(repo, content)
			}
		}
		m.half[key] = true
	case 3, 4, 5:
		if m.half[key] {
			m.h.manifest(repo, "t"+image, mediaImage, manifest)
			m.held[key] = true
			delete(m.half, key)
		}
	case 6:
		if m.held[key] {
			m.h.do(202, "DELETE", "/v2/"+repo+"/manifests/"+d, nil)
			delete(m.held, key)
		}
	case 7:
		if m.r.IntN(20) == 0 {
			if a := m.h.send(m.h.request("DELETE", "/acr/v1/"+repo, nil)); a.status == 202 {
				for _, all := range []map[string]bool{m.held, m.half} {
					for k := range all {
						if k[:1] == repo {
							delete(all, k)
						}
					}
				}
			} else if a.status != 404 {
				m.t.Fatalf("%d %s", a.status, a.body)
			}
		}
	case 8, 9:
		if _, err := m.h.w.reg.Collect(context.Background(), time.Hour, false); err != nil {
			m.t.Fatal(err)
		}
	case 10:
		if m.r.IntN(10) == 0 { // whoever was in the middle of a push has gone
			m.h.w.pass()
			clear(m.half)
		}
	default:
		if m.held[key] {
			m.h.do(200, "GET", "/v2/"+repo+"/manifests/"+d, nil)
			m.h.do(200, "GET", "/v2/"+repo+"/blobs/"+string(name.DigestOf(layer)), nil)
		}
	}
}

// Whatever is pushed at once or in parts, mounted, deleted and collected in whatever order: what a repository holds is served whole, who is pushing is not disturbed, and what nothing
// names goes from the disk. The seed is printed.
func TestCollectModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	each(t, func(t *testing.T, w *world) {
		m := &model{t: t, h: w.registry("contoso"), r: rand.New(rand.NewPCG(seed, 1)), held: map[string]bool{}, half: map[string]bool{}}
		n := modelSteps()
		if w.db.Postgres() {
			n /= 10
		}
		for range n {
			m.step()
		}
		for range 2 {
			w.pass()
			w.collect(time.Hour)
		}
		images := map[string]bool{}
		for k := range m.held {
			images[k[2:]] = true
			_, layer, manifest := modelParts(k[2:])
			for path, want := range map[string][]byte{"/manifests/" + string(name.DigestOf(manifest)): manifest, "/blobs/" + string(name.DigestOf(layer)): layer} {
				if a := m.h.do(200, "GET", "/v2/"+k[:1]+path, nil); !bytes.Equal(a.body, want) {
					t.Errorf("%s%s is not whole", k, path)
				}
			}
		}
		if files := len(w.files()); files != 3*len(images) {
			t.Errorf("%d files are on the disk for %d images of three each", files, len(images))
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/registry"
)

// modelSteps is how many steps the model test takes on SQLite; PostgreSQL takes a tenth.
func modelSteps() int {
	if testing.Short() {
		return 1000
	}
	return 50000
}

// model is what the repositories of a registry must hold. A key is "repository/image".
type model struct {
	t    *testing.T
	w    *world
	h    *host
	r    *rand.Rand
	held map[string]bool // whose manifest is there
	bin  map[string]bool // whose manifest was deleted and can be restored
	half map[string]bool // whose blobs were pushed or mounted a moment ago, and whose manifest will be
	// bins says whether softDeletePolicy is enabled.
	bins     bool
	importer identity.Caller
}

const modelImages = 6

var modelRepos = []string{"a", "b", "c"}

func modelParts(image string) (config, layer, manifest []byte) {
	config, layer = []byte(`{"seed":"`+image+`"}`), []byte("layer of "+image)
	return config, layer, imageOf("", config, layer)
}

// step takes a step with one image of one repository, or with all.
func (m *model) step() {
	repo, image := modelRepos[m.r.IntN(len(modelRepos))], fmt.Sprint(m.r.IntN(modelImages))
	switch m.r.IntN(30) {
	case 0, 1, 2, 3:
		m.pushHalf(repo, image)
	case 4, 5, 6:
		m.mountHalf(repo, image)
	case 7, 8, 9, 10, 11, 12, 13:
		m.pushRest(repo, image)
	case 14, 15, 16:
		m.delete(repo, image)
	case 17, 18:
		m.restore(repo, image)
	case 19, 20, 21, 22, 23:
		m.collect()
	case 24:
		if m.r.IntN(4) == 0 {
			m.crash()
		}
	case 25:
		m.seldom(repo)
	case 26:
		m.importFrom(modelRepos[m.r.IntN(len(modelRepos))], repo, image)
	default:
		m.pull(repo, image)
	}
}

func (m *model) pushHalf(repo, image string) {
	config, layer, _ := modelParts(image)
	m.h.blob(repo, config)
	m.h.blob(repo, layer)
	m.half[repo+"/"+image] = true
}

// mountHalf mounts what another repository may hold.
func (m *model) mountHalf(repo, image string) {
	from := modelRepos[m.r.IntN(len(modelRepos))]
	config, layer, _ := modelParts(image)
	for _, content := range [][]byte{config, layer} {
		a := m.h.send(m.h.request("POST", "/v2/"+repo+"/blobs/uploads/?from="+from+"&mount="+string(name.DigestOf(content)), nil))
		if a.status == http.StatusAccepted {
			m.h.blob(repo, content)
		}
	}
	m.half[repo+"/"+image] = true
}

func (m *model) pushRest(repo, image string) {
	key := repo + "/" + image
	if !m.half[key] {
		return
	}
	_, _, manifest := modelParts(image)
	m.h.manifest(repo, "t"+image, mediaImage, manifest)
	m.held[key] = true
	delete(m.half, key)
	delete(m.bin, key)
}

// importFrom imports from another repository of the registry.
func (m *model) importFrom(from, repo, image string) {
	if !m.held[from+"/"+image] {
		return
	}
	finish, err := m.w.reg.Halves(context.Background(), registry.Import{Source: m.h.row.ID, Target: m.h.row.ID, Image: name.Reference{Repository: name.Repository(from), Tag: name.Tag("t" + image)},
		Tags: []name.Reference{{Repository: name.Repository(repo), Tag: name.Tag("t" + image)}}, Force: true}, m.importer)
	if err == nil {
		err = finish()
	}
	if err != nil {
		m.t.Fatalf("from %s into %s/%s: %v", from, repo, image, err)
	}
	m.held[repo+"/"+image] = true
	delete(m.half, repo+"/"+image)
	delete(m.bin, repo+"/"+image)
}

func (m *model) delete(repo, image string) {
	key := repo + "/" + image
	if !m.held[key] {
		return
	}
	_, _, manifest := modelParts(image)
	m.h.do(202, "DELETE", "/v2/"+repo+"/manifests/"+string(name.DigestOf(manifest)), nil)
	delete(m.held, key)
	if m.bins {
		m.bin[key] = true
	}
}

func (m *model) restore(repo, image string) {
	key := repo + "/" + image
	_, _, manifest := modelParts(image)
	a := m.h.send(m.h.request("POST", "/acr/v1/_deleted/"+repo+"/_manifests/"+string(name.DigestOf(manifest))+"?force=True", strings.NewReader(`{"tag":"t`+image+`"}`)))
	if restored := a.status == 200; restored != (m.bin[key] || m.held[key]) {
		m.t.Fatalf("%s: in the bin %v, there %v: its restoring was answered %d %s", key, m.bin[key], m.held[key], a.status, a.body)
	}
	if m.bin[key] {
		m.held[key] = true
		delete(m.bin, key)
	}
}

func (m *model) pull(repo, image string) {
	if !m.held[repo+"/"+image] {
		return
	}
	_, layer, manifest := modelParts(image)
	m.h.do(200, "GET", "/v2/"+repo+"/manifests/"+string(name.DigestOf(manifest)), nil)
	m.h.do(200, "GET", "/v2/"+repo+"/blobs/"+string(name.DigestOf(layer)), nil)
}

func (m *model) collect() {
	if _, err := m.w.reg.Collect(context.Background(), time.Hour, false); err != nil {
		m.t.Fatal(err)
	}
}

// seldom deletes a repository, empties the bin, or lets two hours pass.
func (m *model) seldom(repo string) {
	switch m.r.IntN(8) {
	case 0:
		a := m.h.send(m.h.request("DELETE", "/acr/v1/"+repo, nil))
		if a.status != 202 && a.status != 404 {
			m.t.Fatalf("%d %s", a.status, a.body)
		}
		for k := range m.held {
			if k[:1] == repo {
				delete(m.held, k)
				m.bin[k] = m.bins
			}
		}
		for k := range m.half {
			if k[:1] == repo {
				delete(m.half, k)
			}
		}
	case 1:
		m.emptyBin()
	case 2, 3: // whoever was in the middle of a push has gone
		m.w.pass()
		clear(m.half)
	}
}

// emptyBin lets the days of softDeletePolicy pass.
func (m *model) emptyBin() {
	m.w.age(8)
	if _, err := m.w.reg.Purge(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	clear(m.bin)
}

// crash ends the process after a collection's rows were committed and before its files were removed, and in the middle of a push, and starts it again: what lies on the disk
// then is more than the rows name, and nothing that was in memory is left.
func (m *model) crash() {
	kept := filepath.Join(m.t.TempDir(), "kept")
	if err := os.Mkdir(kept, 0o700); err != nil { // also when nothing is stored yet
		m.t.Fatal(err)
	}
	for _, f := range m.w.files() {
		at := filepath.Join(kept, strings.TrimPrefix(f, m.w.content))
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.Link(f, at)); err != nil {
			m.t.Fatal(err)
		}
	}
	m.collect()
	err := filepath.WalkDir(kept, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(m.w.content, strings.TrimPrefix(path, kept)), 0o700)
		}
		if err = os.Link(path, filepath.Join(m.w.content, strings.TrimPrefix(path, kept))); errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	})
	stray := filepath.Join(m.w.content, "00", fmt.Sprintf("%032x", m.r.Uint64()))
	if err = errors.Join(err, os.MkdirAll(filepath.Dir(stray), 0o700), os.WriteFile(stray, []byte("half of a lay"), 0o600), os.RemoveAll(kept)); err != nil {
		m.t.Fatal(err)
	}
	m.w.restart()
}

// pass lets time pass: everything that is kept for a while is older by two hours afterwards.
func (w *world) pass() {
	w.t.Helper()
	hours := (2 * time.Hour).Microseconds()
	w.write(func(tx *meta.Tx) error {
		_, err := tx.Exec(`UPDATE blob_links SET touched_us = touched_us - $1`, hours)
		if err == nil {
			_, err = tx.Exec(`UPDATE manifests SET pushed_us = pushed_us - $1 WHERE pushed_us > 0`, hours)
		}
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

// Whatever is pushed at once or in parts, mounted, imported, deleted, restored, collected and cut short in whatever order: what a repository holds is served whole, what can be restored is, who
// is pushing is not disturbed, and what nothing names goes from the disk. The seed is printed.
func TestCollectModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		m := &model{t: t, w: w, h: h, r: rand.New(rand.NewPCG(seed, 1)), held: map[string]bool{}, bin: map[string]bool{}, half: map[string]bool{}, bins: true}
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleContributor)
		m.importer = w.caller(p)
		n := modelSteps()
		if w.db.Postgres() {
			n /= 10
		}
		for i := range n {
			if i == n/2 {
				m.bins = false
				h.change(func(r *meta.RegistryRow) { r.SoftDelete = false })
				m.emptyBin()
			}
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
				if a := h.do(200, "GET", "/v2/"+k[:1]+path, nil); !bytes.Equal(a.body, want) {
					t.Errorf("%s%s is not whole", k, path)
				}
			}
		}
		if files := len(w.files()); files != 3*len(images) {
			t.Errorf("%d files are on the disk for %d images of three each", files, len(images))
		}
		whole, err := w.reg.Scrub(context.Background(), func(blob.Scrubbed) {})
		if err != nil || whole.Content != 3*len(images) || len(whole.Damaged) > 0 {
			t.Errorf("%+v, %v", whole, err)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/registry"
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
		if err != nil || dry.Content != 0 || dry.Waiting != 4 { // nothing is marked yet
			t.Errorf("a dry run: %+v, %v", dry, err)
		}
		if dry, err = w.reg.Collect(context.Background(), time.Hour, true); err != nil || dry.Waiting != 1 { // what names the layers is gone, their push was just now
			t.Errorf("a dry run within the grace: %+v, %v", dry, err)
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

// A layer that lies elsewhere need not be pushed; one that was pushed all the same stays as long as its manifest.
func TestCollectKeepsForeignLayers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		config, here, elsewhere := []byte(`{}`), []byte("a layer that is here"), []byte("a layer that is elsewhere")
		h.blob("app", config)
		h.blob("app", here)
		const media = "application/vnd.oci.image.layer.nondistributable.v1.tar"
		m := []byte(`{"schemaVersion":2,"mediaType":"` + mediaImage + `","config":` + descriptor(mediaConfig, config) + `,"layers":[` + descriptor(media, here) + `,` + descriptor(media, elsewhere) + `]}`)
		h.manifest("app", "v1", mediaImage, m)
		if done := w.collect(0); done.Content != 0 {
			t.Errorf("removed: %+v", done)
		}
		h.do(200, "GET", "/v2/app/blobs/"+string(name.DigestOf(here)), nil)
		h.do(404, "GET", "/v2/app/blobs/"+string(name.DigestOf(elsewhere)), nil)
		h.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(m)), nil)
		if done := w.collect(0); done.Content != 3 {
			t.Errorf("removed with its manifest: %+v", done)
		}
	})
}

// A layer that comes after its manifest belongs to it from the manifest's next push or import on.
func TestCollectKeepsWhatCameLate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, h := w.registry("source"), w.registry("contoso")
		config, late := []byte(`{}`), []byte("a layer that was elsewhere")
		m := []byte(`{"schemaVersion":2,"mediaType":"` + mediaImage + `","config":` + descriptor(mediaConfig, config) +
			`,"layers":[` + descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", late) + `]}`)
		for _, repo := range []string{"pushed", "imported"} {
			h.blob(repo, config)
			h.manifest(repo, "v1", mediaImage, m)
		}
		h.blob("pushed", late)
		h.manifest("pushed", "v1", mediaImage, m)
		src.blob("app", config)
		src.blob("app", late)
		src.manifest("app", "v1", mediaImage, m)
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleContributor)
		finish := must[func() error](t)(w.reg.Halves(context.Background(), registry.Import{Source: src.row.ID, Target: h.row.ID, Image: ref(t, "app:v1"),
			Tags: []name.Reference{ref(t, "imported:v2")}}, w.caller(p)))
		if err := finish(); err != nil {
			t.Fatal(err)
		}
		w.collect(0)
		for _, repo := range []string{"pushed", "imported"} {
			h.whole(t, repo, "v1")
		}
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

// A blob that is pushed into a repository while it is deleted belongs to the deleted one or to a new one, and is collected like any other.
func TestPushIntoWhatIsDeleted(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		content := []byte("a layer")
		d := h.blob("kept", content)
		h.image("app", "v1", "a")
		var deleted atomic.Bool
		// waiting waits until so many transactions wait for a row, or the repository is deleted. SQLite has no two at once.
		waiting := func(n int) {
			t.Helper()
			w.eventually(fmt.Sprintf("%d transactions wait", n), func() bool {
				now := n
				err := w.db.Read(context.Background(), func(tx *meta.Tx) error {
					if !tx.Postgres() {
						return nil
					}
					return tx.Row(`SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&now)
				})
				return err == nil && now >= n || deleted.Load()
			})
		}
		var group sync.WaitGroup
		w.write(func(tx *meta.Tx) error {
			var key string
			if err := tx.Lock(`SELECT object_key FROM blobs WHERE digest = $1`, string(d)).Scan(&key); err != nil {
				return err
			}
			group.Go(func() { h.blob("app", content) }) // it has found the repository, and waits for the blob
			waiting(1)
			group.Go(func() {
				h.do(202, "DELETE", "/acr/v1/app", nil)
				deleted.Store(true)
			})
			waiting(2)
			return nil
		})
		group.Wait()
		var orphans int
		err := w.db.Read(context.Background(), func(tx *meta.Tx) error {
			return tx.Row(`SELECT COUNT(*) FROM blob_links WHERE NOT EXISTS (SELECT 1 FROM repositories WHERE id = blob_links.repository)`).Scan(&orphans)
		})
		if err != nil || orphans != 0 {
			t.Errorf("%d blobs belong to no repository: %v", orphans, err)
		}
		h.do(202, "DELETE", "/v2/kept/blobs/"+string(d), nil)
		w.collect(0)
		if n := w.count("blobs"); n != 0 {
			t.Errorf("%d blobs are left", n)
		}
	})
}

// Files that belong to nothing go when they are old enough; uploads go when nobody went on with them for a week, and then their id is unknown.
func TestCollectFilesAndUploads(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "a")
		stray := filepath.Join(w.content, "00", "00000000000000000000000000000000")
		if err := errors.Join(os.MkdirAll(filepath.Dir(stray), 0o700), os.WriteFile(stray, []byte("left by a crash"), 0o600)); err != nil {
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

// A scrub finds what changed on the disk and what is gone; it is not served and not mounted until it is pushed again.
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
			h.do(202, "POST", "/v2/new/blobs/uploads/?from=app&mount="+string(d), nil)
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

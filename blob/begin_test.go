// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/blob/blobtest"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

// on runs a test on SQLite and a folder, where a process alone writes the database.
func on(t *testing.T, fn func(t *testing.T, w *world)) {
	inWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")), blobtest.Open(t, blobtest.Folder).Storage, fn)
}

// An upload's name is told before its row is committed; what is taken of it is told only after that.
func TestBeginDoesNotWait(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, w *world) {
		content := random(1000)
		release := metatest.Hold(t, w.db)
		defer release()
		u := w.begin()
		if _, err := w.store.Upload(t.Context(), "another", u.ID); !fault.Is(err, fault.BlobUploadUnknown) {
			t.Errorf("of another repository: %v", err)
		}
		found, err := w.store.Upload(t.Context(), "repo", u.ID)
		if err != nil || found.Offset != 0 {
			t.Fatalf("it is found at %+v: %v", found, err)
		}
		answer := make(chan error, 1)
		go func() {
			_, err := found.Append(t.Context(), bytes.NewReader(content))
			answer <- err
		}()
		select {
		case err := <-answer:
			t.Fatalf("a part was acknowledged before there was a row: %v", err)
		case <-time.After(100 * time.Millisecond): // what must not happen has had its time
		}
		release()
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		idle := w.begin()
		w.store.Settle()
		w.open() // as another process does
		for id, offset := range map[string]int64{u.ID: 1000, idle.ID: 0} {
			if found, err = w.store.Upload(t.Context(), "repo", id); err != nil || found.Offset != offset {
				t.Errorf("after a restart: %+v %v, not at %d", found, err, offset)
			}
		}
	})
}

// An upload that is sealed or cancelled at once never has a row; one whose commit fails has one, and goes on.
func TestBeginWithoutARow(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, w *world) {
		content := random(1000)
		d := name.DigestOf(content)
		cancelled, sealed, refused := w.begin(), w.begin(), w.begin()
		if err := cancelled.Cancel(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := seal(sealed, t.Context(), d, bytes.NewReader(content)); err != nil {
			t.Error(err)
		}
		why := errors.New("refused")
		if err := refused.Seal(t.Context(), d, bytes.NewReader(content), func(blob.Sealed) error { return why }); !errors.Is(err, why) {
			t.Errorf("a commit that fails: %v", err)
		}
		w.store.Settle()
		w.open()
		for _, u := range []*blob.Upload{cancelled, sealed} {
			if _, err := w.store.Upload(t.Context(), "repo", u.ID); !fault.Is(err, fault.BlobUploadUnknown) {
				t.Errorf("one that has ended: %v", err)
			}
		}
		again, err := w.store.Upload(t.Context(), "repo", refused.ID)
		if err != nil {
			t.Fatal(err)
		}
		c, err := seal(again, t.Context(), d, bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		w.commit(c)
		if got, err := w.read(d, 0, -1); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
	})
}

// An upload that ends at the very instant when its row would be written ends once.
func TestBeginThatEndsInTime(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, w *world) {
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				u := w.begin()
				time.Sleep(50*time.Millisecond - time.Duration(i)*5*time.Microsecond) // beginWait, and a bit less
				if err := u.Cancel(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		w.store.Settle()
		w.write(func(tx *meta.Tx) error {
			var n int
			err := tx.Row(`SELECT COUNT(*) FROM uploads`).Scan(&n)
			if n != 0 {
				t.Errorf("%d uploads are left", n)
			}
			return err
		})
	})
}

// The object of an upload without a row is nobody's garbage.
func TestCollectBesideABegin(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, w *world) {
		content := random(1000)
		err := w.begin().Seal(t.Context(), name.DigestOf(content), bytes.NewReader(content), func(c blob.Sealed) error {
			_, err := w.store.Collect(t.Context(), blob.Collection{
				Used:   func(*meta.Tx, name.Digest) (bool, error) { return true, nil },
				Unused: func(*meta.Tx, name.Digest, int) ([]name.Digest, error) { return nil, nil },
				Grace:  -time.Hour, UploadLife: time.Hour,
			})
			w.commit(c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.read(name.DigestOf(content), 0, -1); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
	})
}

// A row that can't be written fails what is asked of its upload, and the next ones are waited for until one is written.
func TestBeginThatFails(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, w *world) {
		rename := func(from, to string) {
			w.write(func(tx *meta.Tx) error {
				_, err := tx.Exec(`ALTER TABLE ` + from + ` RENAME TO ` + to)
				return err
			})
		}
		rename("uploads", "elsewhere")
		if n, err := w.begin().Append(t.Context(), bytes.NewReader(random(1000))); err == nil {
			t.Errorf("%d bytes were taken", n)
		}
		if _, err := w.store.Begin(t.Context(), "repo"); err == nil {
			t.Error("after a failure the next one is not waited for")
		}
		rename("elsewhere", "uploads")
		w.begin()
		release := metatest.Hold(t, w.db)
		defer release()
		begun := make(chan error, 1)
		go func() {
			_, err := w.store.Begin(t.Context(), "repo")
			begun <- err
		}()
		select {
		case err := <-begun:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("when rows are written again they are still waited for")
		}
	})
}

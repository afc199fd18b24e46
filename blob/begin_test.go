// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"bytes"
	"errors"
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
		acts := map[string]func(u *blob.Upload) error{
			"append": func(u *blob.Upload) error {
				_, err := u.Append(t.Context(), bytes.NewReader(content))
				return err
			},
			"seal": func(u *blob.Upload) error {
				_, err := seal(u, t.Context(), name.DigestOf(content), bytes.NewReader(content))
				return err
			},
			"cancel": func(u *blob.Upload) error { return u.Cancel(t.Context()) },
		}
		answers := map[string]chan error{}
		for what, act := range acts {
			answers[what] = make(chan error, 1)
			u := w.begin()
			go func() { answers[what] <- act(u) }()
		}
		time.Sleep(100 * time.Millisecond) // for what must not happen
		for what, answer := range answers {
			select {
			case err := <-answer:
				t.Errorf("%s was answered before the upload's row was there: %v", what, err)
			default:
			}
		}
		release()
		for what, answer := range answers {
			if err := <-answer; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := w.store.Upload(t.Context(), "repo", u.ID); err != nil {
			t.Errorf("when its row is there: %v", err)
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
		content := random(1000)
		rename("uploads", "elsewhere")
		u := w.begin()
		err := u.Seal(t.Context(), name.DigestOf(content), bytes.NewReader(content), func(blob.Sealed) error {
			t.Error("it was committed")
			return nil
		})
		if err == nil {
			t.Error("it was sealed")
		}
		if _, err := w.store.Begin(t.Context(), "repo"); err == nil {
			t.Error("after a failure the next one is not waited for")
		}
		rename("elsewhere", "uploads")
		for range 2 {
			if _, err := seal(w.begin(), t.Context(), name.DigestOf(content), bytes.NewReader(content)); err != nil {
				t.Error(err)
			}
		}
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
			release()
			t.Error("when rows are written again they are still waited for", errors.Join(<-begun))
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/blob/blobtest"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// later is a store on the same database and storage at another time.
func (w *world) later(d time.Duration) *blob.Store {
	w.t.Helper()
	s, err := blob.New(w.t.Context(), blob.Options{DB: w.db, Storage: w.at, Clock: func() time.Time { return time.Now().Add(d) }})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// collect collects at a time from now, with unused content named.
func (w *world) collect(in time.Duration, dry bool, unused ...name.Digest) blob.Collected {
	w.t.Helper()
	done, err := w.later(in).Collect(w.t.Context(), blob.Collection{
		Used: func(_ *meta.Tx, d name.Digest) (bool, error) { return !slices.Contains(unused, d), nil },
		Unused: func(_ *meta.Tx, after name.Digest, _ int) (list []name.Digest, err error) {
			for _, d := range unused {
				if d > after {
					list = append(list, d)
				}
			}
			slices.Sort(list)
			return list, nil
		},
		Grace: 24 * time.Hour, UploadLife: 72 * time.Hour, DryRun: dry})
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

// What nothing names goes when its grace has passed, whatever wrote it: objects, and what unfinished uploads left. What is named stays.
func TestCollect(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		kept, unused := random(9<<20), random(100<<10)
		w.put(kept)
		gone := w.put(unused)
		if _, err := w.store.Put(ctx, []byte("of a push that was refused"), ""); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{5, 9 << 20} {
			if _, err := w.begin().Append(ctx, bytes.NewReader(random(n))); err != nil {
				t.Fatal(err)
			}
		}
		for _, in := range []time.Duration{0, 23 * time.Hour} { // it is marked, and stays
			if done := w.collect(in, false, gone); done != (blob.Collected{Waiting: 1, WaitingBytes: int64(len(unused))}) || w.objects() != 5 {
				t.Errorf("after %v %+v is removed, %d objects stay", in, done, w.objects())
			}
		}
		want := blob.Collected{Content: 1, ContentBytes: int64(len(unused)), Files: 1, FileBytes: int64(len("of a push that was refused"))}
		for _, dry := range []bool{true, false} {
			if done := w.collect(48*time.Hour, dry, gone); done != want {
				t.Errorf("after the grace (dry run %v) %+v is removed, not %+v", dry, done, want)
			}
		}
		if n := w.objects(); n != 3 {
			t.Errorf("%d objects stay", n)
		}
		if done := w.collect(96*time.Hour, false); done.Uploads != 2 {
			t.Errorf("%+v is removed of two uploads that nobody goes on with", done)
		}
		if n := w.objects(); n != 1 {
			t.Errorf("%d objects stay", n)
		}
		if got, err := w.read(name.DigestOf(kept), 0, -1); err != nil || !bytes.Equal(got, kept) {
			t.Errorf("%d bytes of what is used: %v", len(got), err)
		}
	})
}

// What an upload left beside the object that it became is collected, and the object is not.
func TestCollectPartsOfWhatIsFinished(t *testing.T) {
	t.Parallel()
	far(t, func(t *testing.T, w *world, _ *blobtest.Valve) {
		content := random(9 << 20)
		u := w.begin()
		if _, err := u.Append(t.Context(), bytes.NewReader(content[:5])); err != nil {
			t.Fatal(err)
		}
		d := blobtest.Driver(t, w.at)
		var key string
		for k := range blobtest.Keys(t, w.at) {
			key = k
		}
		// A part that another node wrote and did not record.
		out, err := d.Write(t.Context(), key, 0, nil)
		if err == nil {
			_, err = out.Write([]byte("more"))
		}
		if err == nil {
			_, err = out.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		c, err := seal(u, t.Context(), name.DigestOf(content), bytes.NewReader(content[5:]))
		if err != nil {
			t.Fatal(err)
		}
		w.commit(c)
		if done := w.collect(48*time.Hour, false); done != (blob.Collected{Files: 1, FileBytes: 4}) {
			t.Errorf("%+v is removed", done)
		}
		if got, err := w.read(c.Digest, 0, -1); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
	})
}

// A scrub finds content that is gone or changed, and a push heals it.
func TestScrub(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		content := [][]byte{random(100 << 10), random(100 << 10), random(9 << 20)}
		for _, c := range content {
			w.put(c)
		}
		d := blobtest.Driver(t, w.at)
		changed := name.DigestOf(content[0])
		for key, size := range blobtest.Keys(t, w.at) {
			if size == 9<<20 {
				if err := d.Remove(ctx, key); err != nil {
					t.Fatal(err)
				}
			}
		}
		var key string
		if err := w.db.Read(ctx, func(tx *meta.Tx) error {
			return tx.Row(`SELECT object_key FROM blobs WHERE digest = $1`, string(changed)).Scan(&key)
		}); err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(ctx, key); err != nil {
			t.Fatal(err)
		}
		if err := d.Put(ctx, key, random(100<<10)); err != nil {
			t.Fatal(err)
		}
		found, err := w.store.Scrub(ctx, func(blob.Scrubbed) {})
		want := []name.Digest{changed, name.DigestOf(content[2])}
		slices.Sort(want)
		if err != nil || found.Content != 3 || !slices.Equal(found.Damaged, want) {
			t.Errorf("%+v %v", found, err)
		}
		for _, c := range [][]byte{content[0], content[2]} {
			if _, err := w.read(name.DigestOf(c), 0, -1); !fault.Is(err, fault.BlobUnknown) {
				t.Errorf("damaged content is read: %v", err)
			}
			w.put(c)
			if got, err := w.read(name.DigestOf(c), 0, -1); err != nil || !bytes.Equal(got, c) || w.store.Damaged(name.DigestOf(c)) {
				t.Errorf("pushed again: %d bytes, %v", len(got), err)
			}
		}
	})
}

// A storage that lost everything, its mark too, is not the storage that the content is in: a scrub says so and takes nothing out of use.
func TestScrubOfAnotherStorage(t *testing.T) {
	t.Parallel()
	far(t, func(t *testing.T, w *world, _ *blobtest.Valve) {
		d := w.put(random(100 << 10))
		for key := range blobtest.Keys(t, w.at) {
			if err := blobtest.Driver(t, w.at).Remove(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		blobtest.Unmark(t, w.at)
		if _, err := w.store.Scrub(t.Context(), func(blob.Scrubbed) {}); !fault.Is(err, fault.Unavailable) || w.store.Damaged(d) {
			t.Errorf("%v, damaged: %v", err, w.store.Damaged(d))
		}
	})
}

// The machine's clock was set back: files are younger than the store's own clock says, which comes back slowly. A collection between the bytes of a push and its row leaves them.
func TestCollectAfterAStepBack(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ahead := func() time.Time { return time.Now().Add(48 * time.Hour) }
		s, err := blob.New(t.Context(), blob.Options{DB: w.db, Storage: w.at, Clock: ahead, Wall: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.Put(t.Context(), []byte("a manifest"), "")
		if err != nil {
			t.Fatal(err)
		}
		done, err := s.Collect(t.Context(), blob.Collection{
			Used:   func(*meta.Tx, name.Digest) (bool, error) { return true, nil },
			Unused: func(*meta.Tx, name.Digest, int) ([]name.Digest, error) { return nil, nil },
			Grace:  24 * time.Hour, UploadLife: 7 * 24 * time.Hour,
		})
		if err != nil || done.Files != 0 {
			t.Errorf("%+v %v", done, err)
		}
		w.write(func(tx *meta.Tx) error { return s.Commit(tx, c) })
		if got, err := w.read(c.Digest, 0, -1); err != nil || string(got) != "a manifest" {
			t.Errorf("acknowledged and lost: %q %v", got, err)
		}
	})
}

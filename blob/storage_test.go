// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/blob/blobtest"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

// far runs a test on each storage that is not a folder, behind a valve.
func far(t *testing.T, fn func(t *testing.T, w *world, v *blobtest.Valve)) {
	for _, kind := range blobtest.Kinds[1:] {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v, place := blobtest.Behind(t, blobtest.Open(t, kind))
			inWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")), place.Storage, func(t *testing.T, w *world) { fn(t, w, v) })
		})
	}
}

// other is a second store of the same database and storage: another node.
func (w *world) other() *blob.Store {
	w.t.Helper()
	s, err := blob.New(w.t.Context(), blob.Options{DB: w.db, Storage: w.at})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// put stores content.
func (w *world) put(content []byte) name.Digest {
	w.t.Helper()
	u := w.begin()
	c, err := seal(u, w.t.Context(), name.DigestOf(content), bytes.NewReader(content))
	if err != nil {
		w.t.Fatal(err)
	}
	w.commit(c)
	return c.Digest
}

// An upload begun on one node goes on and ends on another; who looked before is told.
func TestUploadGoesOnElsewhere(t *testing.T) {
	t.Parallel()
	content := random(20<<20 + 5)
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		u := w.begin()
		if _, err := u.Append(ctx, bytes.NewReader(content[:9<<20])); err != nil {
			t.Fatal(err)
		}
		there, err := w.other().Upload(ctx, "repo", u.ID)
		if err != nil || there.Offset != 9<<20 {
			t.Fatalf("on the other node: %+v %v", there, err)
		}
		if _, err := there.Append(ctx, bytes.NewReader(content[9<<20:12<<20])); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Append(ctx, bytes.NewReader([]byte("x"))); !fault.Is(err, fault.RangeInvalid) {
			t.Errorf("who looked before: %v", err)
		}
		c, err := seal(there, ctx, name.DigestOf(content), bytes.NewReader(content[12<<20:]))
		if err != nil {
			t.Fatal(err)
		}
		w.commit(c)
		if got, err := w.read(c.Digest, 0, -1); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
		if n := w.objects(); n != 1 {
			t.Errorf("%d objects", n)
		}
	})
}

// Of two nodes that write an upload at once one is told that the other was there, and what the other wrote stays.
func TestTwoNodesWriteAtOnce(t *testing.T) {
	t.Parallel()
	far(t, func(t *testing.T, w *world, _ *blobtest.Valve) {
		ctx := t.Context()
		content := random(9 << 20)
		u := w.begin()
		w.store.Settle() // other nodes find its row
		there, err := w.other().Upload(ctx, "repo", u.ID)
		if err != nil {
			t.Fatal(err)
		}
		in, out := io.Pipe()
		slow := make(chan error, 1)
		go func() {
			_, err := u.Append(ctx, in)
			slow <- err
		}()
		if _, err := out.Write(random(9 << 20)); err != nil { // it is within its Append now
			t.Fatal(err)
		}
		if _, err := there.Append(ctx, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-slow; !fault.Is(err, fault.RangeInvalid) {
			t.Errorf("the slower one: %v", err)
		}
		c, err := seal(there, ctx, name.DigestOf(content), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.commit(c)
		if got, err := w.read(c.Digest, 0, -1); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
	})
}

// A seal whose row was not written can be repeated, with the rest or without; what another seal has finished under its name is not taken for it.
func TestSealAgain(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for _, c := range []struct{ before, rest int }{{5, 0}, {0, 5}, {9 << 20, 0}, {0, 9 << 20}} {
			content := random(c.before + c.rest)
			for _, d := range []name.Digest{name.DigestOf(content), sha512Of(content)} {
				u := w.begin()
				if _, err := u.Append(ctx, bytes.NewReader(content[:c.before])); err != nil {
					t.Fatal(err)
				}
				if _, err := seal(u, ctx, d, bytes.NewReader(content[c.before:])); err != nil {
					t.Fatal(err)
				}
				sealed, err := seal(u, ctx, d, bytes.NewReader(content[c.before:]))
				if err != nil {
					t.Fatalf("%d and %d bytes, again: %v", c.before, c.rest, err)
				}
				w.commit(sealed)
				if got, err := w.read(d, 0, -1); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes came back: %v", len(got), err)
				}
			}
		}
	})
	far(t, func(t *testing.T, w *world, _ *blobtest.Valve) {
		for _, n := range []int{5, 9 << 20} {
			first, second := random(n), random(n)
			u := w.begin()
			if _, err := seal(u, t.Context(), name.DigestOf(first), bytes.NewReader(first)); err != nil {
				t.Fatal(err)
			}
			if c, err := seal(u, t.Context(), name.DigestOf(second), bytes.NewReader(second)); err == nil {
				w.commit(c)
				if got, err := w.read(c.Digest, 0, -1); err != nil || !bytes.Equal(got, second) {
					t.Errorf("of two contents sealed under one name the first is served as the second: %v", err)
				}
			}
		}
	})
}

// Content that is not what its sha512 says is found before it is committed, and nothing stays of it.
func TestWrongDigestOfAnotherAlgorithm(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for _, n := range []int{5, 9 << 20} {
			u := w.begin()
			if _, err := seal(u, t.Context(), sha512Of([]byte("said")), bytes.NewReader(random(n))); !fault.Is(err, fault.DigestInvalid) {
				t.Errorf("%d bytes: %v", n, err)
			}
			if n := w.objects(); n != 0 {
				t.Errorf("%d objects stay", n)
			}
		}
	})
}

// While a storage is away each request says so, nothing that was acknowledged is lost, and the work goes on when it is back.
func TestStorageAway(t *testing.T) {
	t.Parallel() // it waits most of its time
	far(t, func(t *testing.T, w *world, v *blobtest.Valve) {
		ctx := t.Context()
		content, large := random(20<<20), random(100<<10)
		d := w.put(large)
		u := w.begin()
		if _, err := u.Append(ctx, bytes.NewReader(content[:9<<20])); err != nil {
			t.Fatal(err)
		}
		v.Shut()
		_, put := w.store.Put(ctx, []byte("small"), "")
		_, appended := u.Append(ctx, bytes.NewReader(content[9<<20:]))
		_, sealed := seal(u, ctx, name.DigestOf(content), bytes.NewReader(content[9<<20:]))
		_, read := w.read(d, 0, -1)
		_, scrubbed := w.store.Scrub(ctx, func(blob.Scrubbed) {})
		for what, err := range map[string]error{"put": put, "append": appended, "seal": sealed, "read": read, "scrub": scrubbed} {
			if !fault.Is(err, fault.Unavailable) || !strings.Contains(errors.Unwrap(err).Error(), "the ") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := w.store.Healthy(ctx); err == nil {
			t.Error("the storage is said to be well")
		}
		if w.store.Damaged(d) {
			t.Error("content is taken for damaged because the storage is away")
		}
		v.Open(0)
		if err := w.store.Healthy(ctx); err != nil {
			t.Error(err)
		}
		c, err := seal(u, ctx, name.DigestOf(content), bytes.NewReader(content[9<<20:]))
		if err != nil {
			t.Fatal(err)
		}
		w.commit(c)
		for d, want := range map[name.Digest][]byte{c.Digest: content, d: large} {
			if got, err := w.read(d, 0, -1); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes came back: %v", len(got), err)
			}
		}
	})
}

// A reading whose connection breaks goes on where it was.
func TestReadingGoesOn(t *testing.T) {
	t.Parallel()
	far(t, func(t *testing.T, w *world, v *blobtest.Valve) {
		content := random(9 << 20)
		d := w.put(content)
		v.Open(4 << 20)
		if got, err := w.read(d, 7, int64(len(content)-7)); err != nil || !bytes.Equal(got, content[7:]) {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
		v.Open(100 << 10) // it breaks too often
		if _, err := w.read(d, 0, -1); err == nil {
			t.Error("a storage that hands no more on is read")
		}
	})
}

// stops is a writer that takes a window and no more.
type stops struct{ taken int }

var errStopped = errors.New("stopped")

func (w *stops) Write(b []byte) (int, error) {
	if w.taken += len(b); w.taken > 1<<20 {
		return 0, errStopped
	}
	return len(b), nil
}

// A reading is one request, and one that ends midway leaves the rest where it is.
func TestReadingThatStops(t *testing.T) {
	t.Parallel()
	far(t, func(t *testing.T, w *world, v *blobtest.Valve) {
		const size = 64 << 20
		d := w.put(random(size))
		r, err := w.store.Open(t.Context(), w.grant(d), d)
		if err != nil {
			t.Fatal(err)
		}
		before := v.Sent()
		if n, err := r.WriteTo(t.Context(), &stops{}, 0, size); n > 1<<20 || !errors.Is(err, errStopped) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err := r.Close(false); err != nil {
			t.Error(err)
		}
		if err := w.store.Healthy(t.Context()); err != nil { // what was under way has ended by now
			t.Error(err)
		}
		if n := v.Sent() - before; n > size/2 {
			t.Errorf("%d bytes of %d were fetched for a window", n, size)
		}
	})
}

// An installation starts with the storage that its content is in, and with no other; a storage serves one installation.
func TestStorageIsTheInstallations(t *testing.T) {
	t.Parallel()
	for _, kind := range blobtest.Kinds {
		t.Run(kind, func(t *testing.T) {
			place, folder := blobtest.Open(t, kind).Storage, blobtest.Open(t, blobtest.Folder).Storage
			open := func(db *meta.DB, at blob.Storage) error {
				_, err := blob.New(t.Context(), blob.Options{DB: db, Storage: at})
				return err
			}
			db := metatest.Open(t, metatest.URL(t, "sqlite"))
			if err := errors.Join(open(db, folder), open(db, place), open(db, place)); err != nil {
				t.Fatalf("without content each storage will do: %v", err)
			}
			inWorld(t, db, place, func(t *testing.T, w *world) { w.put(random(10)) })
			if err := open(db, place); err != nil {
				t.Error(err)
			}
			second := metatest.Open(t, metatest.URL(t, "sqlite"))
			if kind == blobtest.Folder {
				return
			}
			if err := open(second, place); err == nil || !strings.Contains(err.Error(), "belongs to another installation") {
				t.Errorf("another installation: %v", err)
			}
			if err := second.Read(t.Context(), func(tx *meta.Tx) error { _, err := tx.Installation("storage"); return err }); !errors.Is(err, meta.ErrNotFound) {
				t.Errorf("the storage that was refused is remembered: %v", err)
			}
			for what, at := range map[string]blob.Storage{"the folder": folder, "an empty one": blobtest.Open(t, kind).Storage} {
				if err := open(db, at); err == nil || !strings.Contains(err.Error(), "the content of this installation is in "+place.String()) {
					t.Errorf("%s: %v", what, err)
				}
			}
			// An installation older than marks has its content in its folder.
			inWorld(t, second, folder, func(t *testing.T, w *world) {
				w.put(random(10))
				w.write(func(tx *meta.Tx) error {
					return errors.Join(tx.ForgetInstallation("storage"), tx.ForgetInstallation("storage-place"))
				})
			})
			if err := open(second, blobtest.Open(t, kind).Storage); err == nil || !strings.Contains(err.Error(), "is in the data directory") {
				t.Errorf("an older installation: %v", err)
			}
			if err := open(second, folder); err != nil {
				t.Error(err)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// An upload goes on where it stopped: in parts, after a break in the middle of one, and after the process was started again.
func TestUploadGoesOn(t *testing.T) {
	t.Parallel()
	content := random(3<<20 + 1)
	for _, want := range []name.Digest{name.DigestOf(content), sha512Of(content)} {
		each(t, func(t *testing.T, w *world) {
			ctx := context.Background()
			u := w.begin()
			if n, err := u.Append(ctx, bytes.NewReader(content[:1000])); n != 1000 || err != nil {
				t.Fatalf("the first part: %d %v", n, err)
			}
			if n, err := u.Append(ctx, brokenAfter(content[1000:], 1<<20)); n != 1<<20 || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("the part that breaks off: %d %v", n, err)
			}
			w.open()
			u, err := w.store.Upload(ctx, "repo", u.ID)
			if err != nil || u.Offset != 1000+1<<20 {
				t.Fatalf("after the start: %+v %v", u, err)
			}
			c, err := seal(u, ctx, want, bytes.NewReader(content[u.Offset:]))
			if err != nil {
				t.Fatal(err)
			}
			w.commit(c)
			if got, err := w.read(want, 0, -1); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes came back: %v", len(got), err)
			}
			if _, err := w.store.Upload(ctx, "repo", u.ID); !fault.Is(err, fault.BlobUploadUnknown) {
				t.Errorf("the finished upload: %v", err)
			}
		})
	}
}

// After a wrong digest, or a rest that breaks off, an upload stands where its last part ended.
func TestSealThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		content := random(5000)
		u := w.begin()
		if _, err := u.Append(ctx, bytes.NewReader(content[:2000])); err != nil {
			t.Fatal(err)
		}
		if _, err := seal(u, ctx, name.DigestOf(content), bytes.NewReader([]byte("what does not belong here"))); !fault.Is(err, fault.DigestInvalid) {
			t.Errorf("a wrong rest: %v", err)
		}
		if _, err := seal(u, ctx, name.DigestOf(content), brokenAfter(content[2000:], 100)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a rest that breaks off: %v", err)
		}
		c, err := seal(u, ctx, name.DigestOf(content), bytes.NewReader(content[2000:]))
		if err != nil {
			t.Fatal(err)
		}
		w.commit(c)
		if got, err := w.read(c.Digest, 0, -1); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
	})
}

// One request writes an upload at a time; one that looked before another wrote is told so.
func TestUploadHasOneWriter(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		u := w.begin()
		second, err := w.store.Upload(ctx, "repo", u.ID)
		if err != nil {
			t.Fatal(err)
		}
		in, out := io.Pipe()
		done := make(chan error, 1)
		go func() {
			_, err := u.Append(ctx, in)
			done <- err
		}()
		if _, err := out.Write([]byte("first")); err != nil { // it is within its Append now
			t.Fatal(err)
		}
		if _, err := second.Append(ctx, bytes.NewReader([]byte("x"))); !fault.Is(err, fault.Conflict) {
			t.Errorf("a second writer: %v", err)
		}
		if _, err := seal(second, ctx, name.DigestOf([]byte("x")), bytes.NewReader([]byte("x"))); !fault.Is(err, fault.Conflict) {
			t.Errorf("a second that seals: %v", err)
		}
		if err := second.Cancel(ctx); !fault.Is(err, fault.Conflict) {
			t.Errorf("a second that cancels: %v", err)
		}
		if err := errors.Join(out.Close(), <-done); err != nil {
			t.Fatal(err)
		}
		if _, err := second.Append(ctx, bytes.NewReader([]byte("x"))); !fault.Is(err, fault.RangeInvalid) {
			t.Errorf("a writer that looked before: %v", err)
		}
	})
}

// An upload is found by its repository alone, and ends with a cancel that leaves no object.
func TestUploadEnds(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		u := w.begin()
		if _, err := u.Append(ctx, bytes.NewReader(random(10))); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ owner, id string }{{"other", u.ID}, {"repo", "nothing"}, {"repo", "../../etc/passwd"}} {
			if _, err := w.store.Upload(ctx, c.owner, c.id); !fault.Is(err, fault.BlobUploadUnknown) {
				t.Errorf("%v: %v", c, err)
			}
		}
		if n := w.objects(); n != 1 {
			t.Errorf("%d objects while it is under way", n)
		}
		if err := u.Cancel(ctx); err != nil {
			t.Fatal(err)
		}
		if n := w.objects(); n != 0 {
			t.Errorf("%d objects after the cancel", n)
		}
		if err := u.Cancel(ctx); !fault.Is(err, fault.BlobUploadUnknown) {
			t.Errorf("a second cancel: %v", err)
		}
		if _, err := u.Append(ctx, bytes.NewReader([]byte("x"))); !fault.Is(err, fault.BlobUploadUnknown) {
			t.Errorf("a part after the cancel: %v", err)
		}
	})
}

// Sealed content of a cancelled upload is not committed.
func TestCommitOfACancelledUpload(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		u := w.begin()
		w.store.Settle() // it has a row
		c, err := seal(u, ctx, name.DigestOf([]byte("x")), bytes.NewReader([]byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Cancel(ctx); err != nil {
			t.Fatal(err)
		}
		err = w.db.Write(ctx, func(tx *meta.Tx) error { return w.store.Commit(tx, c) })
		if !fault.Is(err, fault.BlobUploadUnknown) {
			t.Errorf("committed: %v", err)
		}
		if _, err := w.read(c.Digest, 0, -1); !fault.Is(err, fault.BlobUnknown) {
			t.Errorf("read: %v", err)
		}
	})
}

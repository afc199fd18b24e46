// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/blob/blobtest"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
)

// world is a store with its database and the gate that its readers need.
type world struct {
	t     *testing.T
	db    *meta.DB
	at    blob.Storage
	store *blob.Store
	gate  *egress.Gate
}

// each runs a test on each kind of database with a folder, and on SQLite with each other kind of storage.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		inWorld(t, open(), blobtest.Open(t, blobtest.Folder).Storage, fn)
	})
	for _, kind := range blobtest.Kinds[1:] {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			inWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")), blobtest.Open(t, kind).Storage, fn)
		})
	}
}

func inWorld(t *testing.T, db *meta.DB, at blob.Storage, fn func(t *testing.T, w *world)) {
	t.Helper()
	w := &world{t: t, db: db, at: at}
	w.open()
	log, err := audit.New(context.Background(), audit.Options{DB: w.db, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	if w.gate, err = egress.New(egress.Options{DB: w.db, Audit: log}); err != nil {
		t.Fatal(err)
	}
	w.write(func(tx *meta.Tx) error {
		_, err := tx.PutRegistry(meta.RegistryRow{ID: "r", ResourceID: "/r", Name: "one", LoginServer: "one", PublicAccess: true})
		return err
	})
	fn(t, w)
}

// open opens the store, as a process does at its start.
func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = blob.New(context.Background(), blob.Options{DB: w.db, Storage: w.at}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(fn func(tx *meta.Tx) error) {
	w.t.Helper()
	if err := w.db.Write(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) commit(c blob.Sealed) {
	w.t.Helper()
	w.write(func(tx *meta.Tx) error { return w.store.Commit(tx, c) })
}

// seal is Seal without a commit.
func seal(u *blob.Upload, ctx context.Context, want name.Digest, rest io.Reader) (c blob.Sealed, err error) {
	err = u.Seal(ctx, want, rest, func(sealed blob.Sealed) error {
		c = sealed
		return nil
	})
	return c, err
}

func (w *world) begin() *blob.Upload {
	w.t.Helper()
	u, err := w.store.Begin(context.Background(), "repo")
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *world) grant(d name.Digest) egress.Grant {
	w.t.Helper()
	peer := &network.Peer{Zone: network.Zone{Kind: network.Public}, Addr: netip.MustParseAddrPort("127.0.0.1:1"), ID: "c"}
	var decision egress.Decision
	err := w.db.Read(context.Background(), func(tx *meta.Tx) (err error) {
		decision, err = w.gate.Decide(tx, egress.Ask{Route: egress.Pull, Registry: "r", Repository: "app", Digest: d, Caller: identity.Caller{ID: "p"}, Peer: peer})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	g, err := w.gate.Release(context.Background(), decision)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// read is the range off+n of what is stored, by a grant; n < 0 is all.
func (w *world) read(d name.Digest, off, n int64) ([]byte, error) {
	w.t.Helper()
	r, err := w.store.Open(context.Background(), w.grant(d), d)
	if err != nil {
		return nil, err
	}
	if n < 0 {
		n = r.Size()
	}
	var b bytes.Buffer
	_, err = r.WriteTo(context.Background(), &b, off, n)
	return b.Bytes(), errors.Join(err, r.Close(err == nil))
}

// objects counts what lies in the storage.
func (w *world) objects() int {
	w.t.Helper()
	w.store.Settle()
	return blobtest.Count(w.t, w.at)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its contract
	return b
}

// What was put is read back by its digest, whole and in ranges, of every size that matters.
func TestReadBack(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 3<<20 + 7} {
			content := random(size)
			c, err := w.store.Put(context.Background(), content, "")
			if err != nil || c.Digest != name.DigestOf(content) || c.Size != int64(size) {
				t.Fatalf("%d bytes: %+v, %v", size, c, err)
			}
			if _, err := w.read(c.Digest, 0, -1); !fault.Is(err, fault.BlobUnknown) {
				t.Errorf("%d bytes are read before they are committed: %v", size, err)
			}
			w.commit(c)
			for range 2 { // from the file, and from memory if it is small
				if got, err := w.read(c.Digest, 0, -1); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes came back as %d: %v", size, len(got), err)
				}
			}
			half := int64(size / 2)
			if got, err := w.read(c.Digest, half, int64(size)-half); err != nil || !bytes.Equal(got, content[half:]) {
				t.Errorf("the second half of %d bytes came back as %d: %v", size, len(got), err)
			}
			if got, err := w.read(c.Digest, half, int64(size)-half+1); err == nil {
				t.Errorf("a range beyond the end of %d bytes gave %d", size, len(got))
			}
		}
	})
}

// Nothing is read but by a grant of that content.
func TestReadNeedsTheGrant(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		var digests []name.Digest
		for _, text := range []string{"one", "two"} {
			c, err := w.store.Put(ctx, []byte(text), "")
			if err != nil {
				t.Fatal(err)
			}
			w.commit(c)
			digests = append(digests, c.Digest)
		}
		if _, err := w.store.Open(ctx, egress.Grant{}, digests[0]); !fault.Is(err, fault.Denied) {
			t.Errorf("the zero grant reads: %v", err)
		}
		if _, err := w.store.Open(ctx, w.grant(digests[1]), digests[0]); !fault.Is(err, fault.Denied) {
			t.Errorf("another content's grant reads: %v", err)
		}
	})
}

// One digest has one object, however often and at once it is put; the others are removed.
func TestOneObjectPerDigest(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		content := random(100)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				c, err := w.store.Put(context.Background(), content, "")
				if err == nil {
					err = w.db.Write(context.Background(), func(tx *meta.Tx) error { return w.store.Commit(tx, c) })
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := w.objects(); n != 1 {
			t.Errorf("%d objects", n)
		}
		if got, err := w.read(name.DigestOf(content), 0, -1); err != nil || !bytes.Equal(got, content) {
			t.Errorf("read %d bytes: %v", len(got), err)
		}
	})
}

// Content of another digest than was said is stored nowhere; a transaction that fails commits nothing.
func TestNothingStaysOfWhatFails(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		want := name.DigestOf([]byte("said"))
		if _, err := w.store.Put(ctx, []byte("other"), want); !fault.Is(err, fault.DigestInvalid) {
			t.Errorf("a wrong digest: %v", err)
		}
		u := w.begin()
		if _, err := seal(u, ctx, want, bytes.NewReader([]byte("other"))); !fault.Is(err, fault.DigestInvalid) {
			t.Errorf("a wrong digest of an upload: %v", err)
		}
		if n := w.objects(); n != 0 {
			t.Errorf("%d objects stay", n)
		}
		c, err := seal(u, ctx, want, bytes.NewReader([]byte("said"))) // the upload is where it was
		if err != nil {
			t.Fatal(err)
		}
		failed := errors.New("the caller's")
		err = w.db.Write(ctx, func(tx *meta.Tx) error { return errors.Join(w.store.Commit(tx, c), failed) })
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
		if _, err := w.read(want, 0, -1); !fault.Is(err, fault.BlobUnknown) {
			t.Errorf("read after a transaction that failed: %v", err)
		}
		w.commit(c)
		if got, err := w.read(want, 0, -1); err != nil || string(got) != "said" {
			t.Errorf("%q %v", got, err)
		}
	})
}

// Inspect gives the registry its own small content, and no more than it asked for.
func TestInspect(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		c, err := w.store.Put(ctx, []byte("manifest"), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.Inspect(ctx, c.Digest, 100); !fault.Is(err, fault.BlobUnknown) {
			t.Errorf("before its commit: %v", err)
		}
		w.commit(c)
		for range 2 {
			if got, err := w.store.Inspect(ctx, c.Digest, 8); err != nil || string(got) != "manifest" {
				t.Errorf("%q %v", got, err)
			}
			if _, err := w.store.Inspect(ctx, c.Digest, 7); !fault.Is(err, fault.SizeInvalid) {
				t.Errorf("over the limit: %v", err)
			}
		}
	})
}

func sha512Of(b []byte) name.Digest {
	sum := sha512.Sum512(b)
	return name.Digest("sha512:" + hex.EncodeToString(sum[:]))
}

// brokenAfter gives a reader of content that breaks off after n bytes.
func brokenAfter(content []byte, n int) io.Reader {
	return io.MultiReader(bytes.NewReader(content[:n]), iotest.ErrReader(io.ErrUnexpectedEOF))
}

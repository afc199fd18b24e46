// SPDX-License-Identifier: Apache-2.0

// Package blob keeps content by digest. It hides where and how: an object is written at its final random key, made durable, and
// becomes content when its row (digest → key) commits in the caller's transaction; a crash before that leaves garbage, never a
// row without bytes. Content is read only with a Grant of the gate (Open); Inspect is for the registry's own parsing and never
// feeds a network writer.
//
// Content present already is written and synced all the same: an upload tells nobody what else is stored.
package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/embargo-registry/embargo/blob/internal/fs"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

const (
	// domain is the deduplication domain of the one store that an installation has.
	domain = "default"
	// smallContent is the size up to which content (manifests, mostly) is kept in memory once read, and smallCount how many.
	smallContent = 64 << 10
	smallCount   = 512
)

// Options configure a Store.
type Options struct {
	DB *meta.DB
	// Dir is the folder of the objects. It is made if absent.
	Dir string
	// Clock is the time of uploads; nil is time.Now.
	Clock func() time.Time
	// Log gets what could not be cleaned up; nil discards.
	Log *slog.Logger
}

// Store is content by digest. It is safe for concurrent use.
type Store struct {
	db    *meta.DB
	dir   *fs.Dir
	clock func() time.Time
	log   *slog.Logger
	small *lru.Cache[name.Digest, []byte]
	// chunks are the buffers of uploads under way.
	chunks chunkPool

	mu sync.Mutex
	// damaged is the content that a scrub found changed on the disk, until it is pushed again.
	damaged map[name.Digest]struct{}
	// writing holds the uploads that a request writes at the moment.
	writing map[string]struct{}
}

// New opens the store.
func New(o Options) (*Store, error) {
	if o.DB == nil || o.Dir == "" {
		return nil, errors.New("blob: a store needs a database and a folder")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := fs.Open(o.Dir)
	if err != nil {
		return nil, err
	}
	small, err := lru.New[name.Digest, []byte](smallCount)
	if err != nil {
		return nil, err
	}
	s := &Store{db: o.DB, dir: dir, clock: o.Clock, log: o.Log, small: small, writing: map[string]struct{}{}, damaged: map[name.Digest]struct{}{}}
	return s, s.loadDamaged()
}

// Sealed is content that is durable and whose digest is verified, not yet committed.
type Sealed struct {
	Digest name.Digest
	Size   int64
	key    string
	upload string
}

// Put writes small content whole and makes it durable. want may be "": the digest is then sha256. Errors: DigestInvalid when the content
// is not want's, StorageFull.
func (s *Store) Put(_ context.Context, content []byte, want name.Digest) (Sealed, error) {
	if want == "" {
		want = name.DigestOf(content)
	}
	h := want.NewHash()
	h.Write(content)
	if got := name.DigestFrom(want.Algorithm(), h); got != want {
		return Sealed{}, mismatch(got, want)
	}
	key := fs.NewKey()
	f, err := s.dir.Create(key)
	if err != nil {
		return Sealed{}, full(err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.discard(key)
		return Sealed{}, full(err)
	}
	return Sealed{Digest: want, Size: int64(len(content)), key: key}, nil
}

// Commit makes sealed content part of the store, in the caller's transaction. Where the digest is stored already its object stays and
// the new one is removed after the commit.
func (s *Store) Commit(tx *meta.Tx, c Sealed) error {
	if c.key == "" {
		return errors.New("blob: nothing was sealed")
	}
	// A row that is there is locked until the transaction ends, so that a collection running at the same time finds it in use; damaged content is replaced.
	var key string
	err := tx.Row(`INSERT INTO blobs (domain, digest, object_key, size, state) VALUES ($1, $2, $3, $4, 'live')
 ON CONFLICT (domain, digest) DO UPDATE SET freed_us = 0, state = 'live',
  object_key = CASE WHEN blobs.state = 'live' THEN blobs.object_key ELSE excluded.object_key END RETURNING object_key`,
		domain, string(c.Digest), c.key, c.Size).Scan(&key)
	if err != nil {
		return err
	}
	if c.upload != "" {
		if err := finish(tx, c.upload); err != nil {
			return err
		}
	}
	if key != c.key {
		tx.OnCommit(func() { s.discard(c.key) })
	} else {
		tx.OnCommit(func() { s.healed(c.Digest) })
	}
	return nil
}

// Discard removes sealed content that will not be committed.
func (s *Store) Discard(c Sealed) {
	if c.key != "" {
		s.discard(c.key)
	}
}

func (s *Store) discard(key string) {
	if err := s.dir.Remove(key); err != nil {
		s.log.Warn("an object that belongs to nothing could not be removed", "object", key, "err", err)
	}
}

// Stat tells whether the digest is stored, and its size.
func (s *Store) Stat(tx *meta.Tx, d name.Digest) (size int64, ok bool, err error) {
	_, size, err = locate(tx, d)
	if errors.Is(err, meta.ErrNotFound) {
		return 0, false, nil
	}
	return size, err == nil, err
}

func locate(tx *meta.Tx, d name.Digest) (key string, size int64, err error) {
	err = tx.Row(`SELECT object_key, size FROM blobs WHERE domain = $1 AND digest = $2 AND state = 'live'`, domain, string(d)).Scan(&key, &size)
	return key, size, err
}

// Inspect reads content of at most limit bytes for the registry's own use: parsing a manifest, checking a digest. Its result must not
// reach a client. Errors: BlobUnknown, SizeInvalid.
func (s *Store) Inspect(ctx context.Context, d name.Digest, limit int64) ([]byte, error) {
	f, size, content, err := s.find(ctx, d)
	if err != nil {
		return nil, err
	}
	if size > limit {
		if f != nil {
			_ = f.Close() // opened for reading only
		}
		return nil, fault.New(fault.SizeInvalid, "The content %s has %d bytes; at most %d are read here.", d, size, limit)
	}
	if f == nil {
		return content, nil
	}
	return s.load(f, d, size)
}

// load reads a file whole and keeps it if it is small.
func (s *Store) load(f *os.File, d name.Digest, size int64) ([]byte, error) {
	content := make([]byte, size)
	_, err := io.ReadFull(f, content)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if size <= smallContent {
		s.small.Add(d, content)
	}
	return content, nil
}

// find gives content either in memory or as an open file.
func (s *Store) find(ctx context.Context, d name.Digest) (*os.File, int64, []byte, error) {
	if content, ok := s.small.Get(d); ok {
		return nil, int64(len(content)), content, nil
	}
	var key string
	var size int64
	err := s.db.Read(ctx, func(tx *meta.Tx) (err error) {
		key, size, err = locate(tx, d)
		return err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil, 0, nil, fault.New(fault.BlobUnknown, "The content %s is not stored.", d).Because(err)
	}
	if err != nil {
		return nil, 0, nil, err
	}
	f, err := s.dir.Read(key)
	if err != nil {
		return nil, 0, nil, err
	}
	return f, size, nil, nil
}

// Open reads content under a grant. The Reader must be closed.
func (s *Store) Open(ctx context.Context, grant egress.Grant, d name.Digest) (*Reader, error) {
	flow, err := grant.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	f, size, content, err := s.find(ctx, d)
	if err == nil && f != nil && size <= smallContent {
		content, err = s.load(f, d, size)
		f = nil
	}
	if err != nil {
		flow.Close(false)
		return nil, err
	}
	return &Reader{flow: flow, file: f, content: content, size: size}, nil
}

func mismatch(got, want name.Digest) error {
	return fault.New(fault.DigestInvalid, "The content's digest is %s, not %s as was said: nothing was stored.", got, want)
}

// full names a full disk to the client; any other error stays what it is.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.StorageFull, "The registry's disk is full: this upload was not stored, nothing else is lost. Free space or enlarge the disk, then push again.").Because(err)
	}
	return err
}

// emptyHash is where every upload's hash begins.
func emptyHash() resumable { return sha256.New().(resumable) }

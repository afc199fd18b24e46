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
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/embargo-registry/embargo/blob/internal/driver"
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
	// Storage is where the objects are.
	Storage Storage
	// Clock is the time of uploads; nil is time.Now.
	Clock func() time.Time
	// Wall is the machine's clock, by which files are dated; nil is Clock.
	Wall func() time.Time
	// Log gets what could not be cleaned up; nil discards.
	Log *slog.Logger
}

// Store is content by digest. It is safe for concurrent use.
type Store struct {
	db    *meta.DB
	disk  driver.Driver
	clock func() time.Time
	wall  func() time.Time
	log   *slog.Logger
	small *lru.Cache[name.Digest, []byte]
	// chunks are the buffers of uploads under way.
	chunks chunkPool

	mu sync.Mutex
	// damaged is the content that a scrub found changed on the disk, until it is pushed again.
	damaged map[name.Digest]struct{}
	// removals bounds the objects that are being removed beside the requests.
	removals chan struct{}
	removing sync.WaitGroup
	begins   begins
	// writing holds the uploads that a request writes at the moment.
	writing map[string]struct{}
}

// New opens the store. A storage that objects are not to be written to, or that can't be used, is refused.
func New(ctx context.Context, o Options) (*Store, error) {
	if o.DB == nil {
		return nil, errors.New("blob: a store needs a database")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Wall == nil {
		o.Wall = o.Clock
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	disk, err := o.Storage.open()
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, o.DB, disk); err != nil {
		return nil, err
	}
	small, err := lru.New[name.Digest, []byte](smallCount)
	if err != nil {
		return nil, err
	}
	s := &Store{db: o.DB, disk: disk, clock: o.Clock, wall: o.Wall, log: o.Log, small: small, removals: make(chan struct{}, 64), writing: map[string]struct{}{}, begins: begins{of: map[string]*begun{}}, damaged: map[name.Digest]struct{}{}}
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
func (s *Store) Put(ctx context.Context, content []byte, want name.Digest) (Sealed, error) {
	if want == "" {
		want = name.DigestOf(content)
	}
	h := want.NewHash()
	h.Write(content)
	if got := name.DigestFrom(want.Algorithm(), h); got != want {
		return Sealed{}, mismatch(got, want)
	}
	key := driver.NewKey()
	if err := s.disk.Put(context.WithoutCancel(ctx), key, content); err != nil {
		return Sealed{}, named(s.disk, err)
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
		tx.OnCommit(func() { s.discardSoon(c.key) })
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
	if err := s.disk.Remove(context.Background(), key); err != nil {
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
	o, size, content, err := s.find(ctx, d)
	if err != nil {
		return nil, err
	}
	if size > limit {
		if o != nil {
			_ = o.Close() // opened for reading only
		}
		return nil, fault.New(fault.SizeInvalid, "The content %s has %d bytes; at most %d are read here.", d, size, limit)
	}
	if o == nil {
		return content, nil
	}
	return s.load(ctx, o, d, size)
}

// load reads an object whole and keeps it if it is small.
func (s *Store) load(ctx context.Context, o driver.Object, d name.Digest, size int64) ([]byte, error) {
	content := make([]byte, size)
	r, err := o.Range(ctx, 0, size)
	if err == nil {
		_, err = io.ReadFull(r, content)
	}
	if err = errors.Join(err, o.Close()); err != nil {
		return nil, named(s.disk, err)
	}
	if size <= smallContent {
		s.small.Add(d, content)
	}
	return content, nil
}

// there finds out that a far storage answers for an object, before anything is told to a client that could not be taken back.
func (s *Store) there(ctx context.Context, o driver.Object) error {
	if folder(s.disk) {
		return nil
	}
	if _, err := o.Size(ctx); err != nil {
		_ = o.Close() // nothing was read
		return named(s.disk, err)
	}
	return nil
}

// find gives content either in memory or as an open object.
func (s *Store) find(ctx context.Context, d name.Digest) (driver.Object, int64, []byte, error) {
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
	o, err := s.disk.Open(ctx, key)
	if err != nil {
		return nil, 0, nil, named(s.disk, err)
	}
	return o, size, nil, nil
}

// Open reads content under a grant. The Reader must be closed.
func (s *Store) Open(ctx context.Context, grant egress.Grant, d name.Digest) (*Reader, error) {
	flow, err := grant.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	o, size, content, err := s.find(ctx, d)
	if err == nil && o != nil && size <= smallContent {
		content, err = s.load(ctx, o, d, size)
		o = nil
	} else if err == nil && o != nil {
		err = s.there(ctx, o)
	}
	if err != nil {
		flow.Close(false)
		return nil, err
	}
	return &Reader{flow: flow, object: o, content: content, size: size}, nil
}

func mismatch(got, want name.Digest) error {
	return fault.New(fault.DigestInvalid, "The content's digest is %s, not %s as was said: nothing was stored.", got, want)
}

// emptyHash is where every upload's hash begins.
func emptyHash() resumable { return sha256.New().(resumable) }

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/upstream"
)

const (
	// tagLife is how long a tag that came from an upstream is served without asking again, tagRetry how long after an upstream that could not be asked.
	tagLife  = 5 * time.Minute
	tagRetry = 30 * time.Second
)

// errDue: a tag that came from an upstream is to be asked for again.
var errDue = errors.New("the tag is due to be asked for at its upstream")

// cache fetches what cache rules map; each thing once at a time.
type cache struct {
	upstream *upstream.Service
	ring     *meta.Keyring

	mu      sync.Mutex
	flights map[flightKey]*flight
}

type flightKey struct {
	registry string
	at       name.Reference
	blob     bool
}

type flight struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{} // closed when err is there
	err     error
}

// newCache is nil where nothing can be fetched.
func newCache(o Options) *cache {
	if o.Upstream == nil || o.Keyring == nil {
		return nil
	}
	return &cache{upstream: o.Upstream, ring: o.Keyring, flights: map[flightKey]*flight{}}
}

// once has do done, or waits for the one that is at it. It ends with the last of those who wait for it.
func (k *cache) once(ctx context.Context, key flightKey, do func(ctx context.Context) error) error {
	k.mu.Lock()
	f := k.flights[key]
	if f == nil {
		flying, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{cancel: cancel, done: make(chan struct{})}
		k.flights[key] = f
		go func() {
			defer cancel()
			f.err = safely(func() error { return do(flying) })
			k.leave(key, f)
			close(f.done)
		}()
	}
	f.waiting++
	k.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
	}
	k.mu.Lock()
	f.waiting--
	last := f.waiting == 0
	k.mu.Unlock()
	if last {
		k.leave(key, f) // who comes now begins anew
		f.cancel()
		<-f.done
	}
	return ctx.Err()
}

// safely makes a panic over what an upstream has answered an error of that answer.
func safely(do func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("registry: a panic while an upstream was asked: %v\n%s", cause, debug.Stack())
		}
	}()
	return do()
}

func (k *cache) leave(key flightKey, f *flight) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.flights[key] == f {
		delete(k.flights, key)
	}
}

// through reads what a call asks for. What a cache rule maps and is not there, or is a tag that is due, is fetched first; read is told whether a tag that is due will do.
// What was fetched once is served also when its upstream can't be asked. Nobody's pull fetches: who has no credential gets what is there.
func (s *Service) through(ctx context.Context, c oci.Call, at name.Reference, blob bool, read func(old bool) error) error {
	if s.cache == nil || c.Caller.Type == identity.Anonymous {
		return read(true)
	}
	err := read(false)
	if !errors.Is(err, errDue) && !unknown(err) {
		return err
	}
	call := c // what is there, as it mostly is, needs no memory for it
	fetched := s.cache.once(ctx, flightKey{c.Registry.ID, at, blob}, func(ctx context.Context) error { return s.fetch(ctx, call, at, blob) })
	err = read(true)
	if fetched == nil || errors.Is(fetched, upstream.ErrAbsent) || !unknown(err) {
		return err
	}
	var refused *fault.Fault
	if errors.As(fetched, &refused) {
		return fetched
	}
	return fault.New(fault.Unavailable, "The content is not cached in this registry, and the upstream of its cache rule could not be asked or did not answer with it. Try again; the server's log says why.").Because(fetched)
}

func unknown(err error) bool {
	return fault.Is(err, fault.TagUnknown) || fault.Is(err, fault.ManifestUnknown) || fault.Is(err, fault.BlobUnknown)
}

// due tells whether a tag of a digest came from an upstream and is to be asked for again.
func due(tx *meta.Tx, repository string, t name.Tag, d name.Digest) (bool, error) {
	var when int64
	err := tx.Row(`SELECT due_us FROM cached_tags WHERE repository = $1 AND name = $2 AND digest = $3`, repository, string(t), string(d)).Scan(&when)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	return err == nil && when <= meta.Micros(tx.Now()), err
}

// setDue notes that a tag of a digest came from an upstream, and when it is to be asked for again.
func setDue(tx *meta.Tx, repository string, t name.Tag, d name.Digest, life time.Duration) error {
	_, err := tx.Exec(`INSERT INTO cached_tags (repository, name, digest, due_us) VALUES ($1, $2, $3, $4)
 ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest, due_us = excluded.due_us`, repository, string(t), string(d), meta.Micros(tx.Now().Add(life)))
	return err
}

// postpone has a tag asked for again later, if it still is the one that was due.
func (s *Service) postpone(ctx context.Context, p plan, t name.Tag, life time.Duration) error {
	return s.db.Write(context.WithoutCancel(ctx), func(tx *meta.Tx) error {
		_, err := tx.Exec(`UPDATE cached_tags SET due_us = $1 WHERE repository = $2 AND name = $3 AND digest = $4`,
			meta.Micros(tx.Now().Add(life)), p.repository, string(t), string(p.held))
		return err
	})
}

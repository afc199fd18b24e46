// SPDX-License-Identifier: Apache-2.0

// Package registry is what a registry does: push, pull, tag, list, delete, mount and import. It hides the tables of repositories,
// manifests, links and tags, and keeps this order: bytes before rows on a push, one transaction for {manifest, links, tag, record}.
//
// It promises that content is a member of a repository or is not there: no answer tells what another repository or registry holds.
// Content leaves through the functions of release.go alone, one per route; they are the only callers of the gate.
package registry

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"sync"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/upstream"
)

// Options configure a Service. All but Upstream, Keyring, Random and Log are required.
type Options struct {
	DB       *meta.DB
	Blobs    *blob.Store
	Gate     *egress.Gate
	Audit    *audit.Log
	Identity *identity.Service
	// Upstream and Keyring are for what cache rules fetch; nil fetches nothing.
	Upstream *upstream.Service
	Keyring  *meta.Keyring
	// Quota is how many bytes each registry may hold; 0 is no bound.
	Quota int64
	// Random makes the identities of repositories; nil is the system's.
	Random io.Reader
	// Log gets what could not be cleaned up; nil discards.
	Log *slog.Logger
}

// Service is every registry of an installation. It is safe for concurrent use, and serves the protocol as an oci.Registry.
type Service struct {
	db       *meta.DB
	blobs    *blob.Store
	gate     *egress.Gate
	audit    *audit.Log
	identity *identity.Service
	quota    *quota
	random   io.Reader
	log      *slog.Logger
	cache    *cache
	prover   *prover

	collecting sync.Mutex // one collection at a time
}

var _ oci.Registry = (*Service)(nil)

// New makes the service.
func New(o Options) (*Service, error) {
	if o.DB == nil || o.Blobs == nil || o.Gate == nil || o.Audit == nil || o.Identity == nil {
		return nil, errors.New("registry: a database, a blob store, the gate, an audit log and an identity service are needed")
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p, err := newProver()
	if err != nil {
		return nil, err
	}
	return &Service{db: o.DB, blobs: o.Blobs, gate: o.Gate, audit: o.Audit, identity: o.Identity, random: o.Random, log: o.Log, cache: newCache(o), prover: p,
		quota: &quota{most: o.Quota, about: map[string]int64{}, unfinished: map[string]*unfinished{}}}, nil
}

// Handle gives the runner the jobs of this package: imports, and the removal of what a deleted registry held.
func (s *Service) Handle(r *job.Runner) {
	r.Handle(importKind, s.runImport)
	r.Handle(dropKind, s.runDrop)
}

// live reads the registry of a call as it is in this transaction. Errors: NameUnknown when it is gone.
func live(tx *meta.Tx, c oci.Call) (meta.RegistryRow, error) {
	row, err := tx.RegistryByID(c.Registry.ID)
	if errors.Is(err, meta.ErrNotFound) {
		return row, fault.New(fault.NameUnknown, "The registry does not exist any more.").Because(err)
	}
	return row, err
}

// repository is a repository that exists; the zero value is one that does not.
type repository struct {
	id    string
	locks locks
}

// find is a repository as it is.
func find(tx *meta.Tx, registry string, repo name.Repository) (repository, error) {
	var r repository
	err := tx.Row(`SELECT id, locks FROM repositories WHERE registry = $1 AND name = $2`, registry, string(repo)).Scan(&r.id, &r.locks)
	if errors.Is(err, meta.ErrNotFound) {
		return repository{}, nil
	}
	return r, err
}

// take finds a repository that is to be written, or makes it, and keeps other transactions from changing its manifests until this one ends. Errors: Unsupported when
// it is locked.
func (s *Service) take(tx *meta.Tx, registry string, repo name.Repository) (repository, error) {
	fresh, err := s.newID()
	if err != nil {
		return repository{}, err
	}
	var r repository
	now := meta.Micros(tx.Now())
	err = tx.Row(`INSERT INTO repositories (id, registry, name, created_us, updated_us) VALUES ($1, $2, $3, $4, $5)
 ON CONFLICT (registry, name) DO UPDATE SET updated_us = excluded.updated_us RETURNING id, locks`,
		fresh, registry, string(repo), now, now).Scan(&r.id, &r.locks)
	if err == nil {
		err = r.locks.forbids(noWrite, repositoryCalled(repo))
	}
	return r, err
}

// lock finds a repository and keeps other transactions from changing its manifests until this one ends.
func lock(tx *meta.Tx, registry string, repo name.Repository) (repository, error) {
	var r repository
	err := tx.Lock(`SELECT id, locks FROM repositories WHERE registry = $1 AND name = $2`, registry, string(repo)).Scan(&r.id, &r.locks)
	if errors.Is(err, meta.ErrNotFound) {
		return repository{}, nil
	}
	return r, err
}

// open finds a repository, or makes it, for adding a blob: adding excludes nobody but who deletes the repository. Errors: as take.
func (s *Service) open(tx *meta.Tx, registry string, repo name.Repository) (repository, error) {
	var r repository
	err := tx.Keep(`SELECT id, locks FROM repositories WHERE registry = $1 AND name = $2`, registry, string(repo)).Scan(&r.id, &r.locks)
	if errors.Is(err, meta.ErrNotFound) {
		return s.take(tx, registry, repo)
	}
	if err == nil {
		err = r.locks.forbids(noWrite, repositoryCalled(repo))
	}
	return r, err
}

func (s *Service) newID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(s.random, b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}

// The actions under which changes are recorded.
const (
	actionPush   = "Microsoft.ContainerRegistry/registries/push/write"
	actionPull   = "Microsoft.ContainerRegistry/registries/pull/read"
	actionDelete = "Microsoft.ContainerRegistry/registries/artifacts/delete"
	actionImport = "Microsoft.ContainerRegistry/registries/importImage/action"
	actionFetch  = "Microsoft.ContainerRegistry/registries/cacheRules/fetch/action"
)

// record begins the audit record of a change made by a call.
func record(row meta.RegistryRow, c oci.Call, action string, repo name.Repository) audit.Record {
	return audit.Record{
		Kind: audit.Change, Action: action, Outcome: audit.Succeeded,
		Resource: row.ResourceID, Registry: row.ID, LoginServer: row.LoginServer, Epoch: row.Epoch,
		Repository:  string(repo),
		Caller:      callerOf(c.Caller),
		Source:      audit.From(c.Peer, c.UserAgent),
		Correlation: c.Correlation,
	}
}

func callerOf(c identity.Caller) audit.Caller {
	return audit.Caller{ID: c.ID, Name: c.Name, Type: string(c.Type), Credential: c.Credential, Tenant: c.Tenant}
}

// bytewise is a column as it is ordered and compared by its bytes, whatever the database's locale.
func bytewise(tx *meta.Tx, column string) string {
	if tx.Postgres() {
		return column + ` COLLATE "C"`
	}
	return column
}

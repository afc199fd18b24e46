// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

const armAudience = "https://localhost:8443/"

// bench is a bootstrapped service on a real database, with a clock that tests move.
type bench struct {
	*identity.Service
	t       *testing.T
	db      *meta.DB
	keyring *meta.Keyring
	first   identity.First
	ahead   *atomic.Int64 // nanoseconds that the service's clock is ahead
}

func each(t *testing.T, fn func(t *testing.T, b *bench)) {
	t.Helper()
	metatest.EachAlone(t, func(t *testing.T, db *meta.DB) { fn(t, newBench(t, db)) })
}

func newBench(t *testing.T, db *meta.DB) *bench {
	t.Helper()
	keyring, err := meta.NewKeyring(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, db: db, keyring: keyring, ahead: &atomic.Int64{}}
	b.Service = b.another(db)
	if b.first, err = b.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// another is a service of another node on the same database.
func (b *bench) another(db *meta.DB) *identity.Service {
	b.t.Helper()
	s, err := identity.New(b.t.Context(), identity.Options{DB: db, Keyring: b.keyring, Hosts: []string{"arm.example.com"},
		Clock: func() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bench) pass(d time.Duration) { b.ahead.Add(int64(d)) }

func (b *bench) read(fn func(tx *meta.Tx) error) error { return b.db.Read(context.Background(), fn) }

func (b *bench) write(fn func(tx *meta.Tx) error) {
	b.t.Helper()
	if err := b.db.Write(context.Background(), fn); err != nil {
		b.t.Fatal(err)
	}
}

// principal makes one, with a role at a scope unless role is "".
func (b *bench) principal(t identity.Type, n, role string, at name.ResourceID) (identity.Principal, string) {
	b.t.Helper()
	var p identity.Principal
	var secret string
	b.write(func(tx *meta.Tx) error {
		var err error
		if p, secret, err = b.CreatePrincipal(tx, t, n, ""); err != nil || role == "" {
			return err
		}
		return b.assign(tx, p.ID, role, at)
	})
	return p, secret
}

func (b *bench) assign(tx *meta.Tx, principal, role string, at name.ResourceID) error {
	id, err := b.NewID()
	if err != nil {
		return err
	}
	return b.PutAssignment(tx, identity.Assignment{ID: id, Scope: at, Principal: principal, Role: role})
}

// caller is the principal as an ARM token proves it.
func (b *bench) caller(p identity.Principal) identity.Caller {
	b.t.Helper()
	c, err := b.Authenticate(b.t.Context(), b.token(p, armAudience))
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) token(p identity.Principal, audience string) string {
	b.t.Helper()
	token, err := b.IssueARM(b.t.Context(), b.first.Tenant, p, audience)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

func (b *bench) can(c identity.Caller, action string, at name.ResourceID) bool {
	b.t.Helper()
	var ok bool
	if err := b.read(func(tx *meta.Tx) (err error) { ok, err = b.Can(tx, c, action, at); return err }); err != nil {
		b.t.Fatal(err)
	}
	return ok
}

func (b *bench) canRepository(c identity.Caller, row meta.RegistryRow, repo name.Repository, v identity.Verb) bool {
	b.t.Helper()
	var ok bool
	if err := b.read(func(tx *meta.Tx) (err error) { ok, err = b.CanRepository(tx, c, row, repo, v); return err }); err != nil {
		b.t.Fatal(err)
	}
	return ok
}

func (b *bench) canCatalog(c identity.Caller, row meta.RegistryRow) bool {
	b.t.Helper()
	var ok bool
	if err := b.read(func(tx *meta.Tx) (err error) { ok, err = b.CanCatalog(tx, c, row); return err }); err != nil {
		b.t.Fatal(err)
	}
	return ok
}

// group and registry are the scopes that tests use.
func (b *bench) group() name.ResourceID { return name.Group(b.first.Subscription, "g") }

func (b *bench) registry(n string) meta.RegistryRow {
	b.t.Helper()
	id, err := b.NewID()
	if err != nil {
		b.t.Fatal(err)
	}
	row := meta.RegistryRow{ID: id, ResourceID: b.group().In("Microsoft.ContainerRegistry", "registries", n).String(), Name: n, LoginServer: n + ".azurecr.localhost",
		Exports: true, PublicAccess: true, ArmTokens: true}
	b.write(func(tx *meta.Tx) error { _, err := tx.PutRegistry(row); return err })
	return row
}

// wantFault fails the test unless err is a fault of the kind.
func wantFault(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("got %v, want a fault of the kind %s", err, kind.ARM())
	}
}

// payload reads a token without checking it, in base64's alphabet of the client that reads it wrong.
func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no compact token", token)
	}
	data, err := base64.RawStdEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatalf("the payload does not read in the standard alphabet: %v", err)
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func newBenchClock() *atomic.Int64 { return &atomic.Int64{} }

func throughJSON(t *testing.T, c identity.Caller) identity.Caller {
	t.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var out identity.Caller
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

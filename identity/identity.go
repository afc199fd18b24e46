// SPDX-License-Identifier: Apache-2.0

// Package identity knows who is calling and what they may do. It hides principals and their secrets, signing keys, the tokens of both
// planes, roles and their assignments.
//
// It promises that a token is judged by the state now: the principal's row is read at every use, rights are evaluated at every use, and a
// token's own scope only narrows them. Secrets shown once are stored hashed; what must be readable again is sealed. It refuses
// tokens of one plane on the other, tokens of another registry (by identity, not name), and whatever it does not know.
package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/redact"
)

// Type is the kind of a caller.
type Type string

// The types of callers. The first three are principals.
const (
	ServicePrincipal Type = "ServicePrincipal"
	User             Type = "User"
	ManagedIdentity  Type = "ManagedIdentity"
	AdminUser        Type = "AdminUser"
	Anonymous        Type = "Anonymous"
	// TokenUser is a registry's own token (registries/tokens).
	TokenUser Type = "Token"
)

// Caller is who asks, as proven by a credential. It can be kept as JSON with a job that goes on in the caller's name.
type Caller struct {
	// ID is the principal's object id; the admin user's is the registry's name.
	ID   string `json:"id"`
	Name string `json:"name"`
	Type Type   `json:"type"`
	// Tenant and AppID are a principal's.
	Tenant string `json:"tenant,omitempty"`
	AppID  string `json:"appId,omitempty"`
	// Credential names what proved the caller, never its secret: "token:<jti>", "password:<name>".
	Credential string `json:"credential,omitempty"`
	// Registry is the identity of the registry that the credential is bound to; "" is none.
	Registry string `json:"registry,omitempty"`
	// Access is what the credential was narrowed to; Narrowed says that it was, so that an empty list is nothing and not everything.
	Access   []Access `json:"access,omitempty"`
	Narrowed bool     `json:"narrowed,omitempty"`
	// Issued is when the credential was made; zero for passwords.
	Issued time.Time `json:"issued,omitzero"`
	// Expires is when a registry's token ends; what is made of it ends no later. Zero for other credentials.
	Expires time.Time `json:"expires,omitzero"`
}

// Options configure a Service.
type Options struct {
	DB      *meta.DB
	Keyring *meta.Keyring
	// Hosts are the names under which the resource manager is reached, without ports; tokens for them are its own.
	Hosts []string
	// Clock is the time; nil is time.Now.
	Clock func() time.Time
	// Random makes secrets and ids; nil is the system's.
	Random io.Reader
}

// Service is the identity of an installation. It is safe for concurrent use.
type Service struct {
	db      *meta.DB
	keyring *meta.Keyring
	hosts   map[string]bool
	clock   func() time.Time
	random  io.Reader

	// hashing has room for as many slow hashes as may be computed at a time; nobody is one that fits no secret.
	hashing chan struct{}
	nobody  string

	keys     atomic.Pointer[keySet]
	tenant   atomic.Pointer[string]
	verified *lru.Cache[verifiedKey, claims]
}

// New opens the service: signing keys are made at the first start.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.DB == nil || o.Keyring == nil {
		return nil, errors.New("identity: a service needs a database and a keyring")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	verified, err := lru.New[verifiedKey, claims](1 << 14)
	if err != nil {
		return nil, err
	}
	salt, none := make([]byte, 16), make([]byte, 32)
	for _, b := range [][]byte{salt, none} {
		if _, err := io.ReadFull(o.Random, b); err != nil {
			return nil, err
		}
	}
	s := &Service{db: o.DB, keyring: o.Keyring, hosts: map[string]bool{}, clock: o.Clock, random: o.Random, verified: verified,
		hashing: make(chan struct{}, hashesAtOnce), nobody: hashChosen(string(none), salt)}
	for _, h := range append([]string{"localhost", "127.0.0.1", "::1"}, o.Hosts...) {
		s.hosts[hostname(h)] = true
	}
	return s, s.loadKeys(ctx)
}

// hashesAtOnce bounds the memory (19 MiB each) and the processors that guessing of passwords can take.
const hashesAtOnce = 4

// OwnHost reports whether a host (with or without a port) is one under which this installation's resource manager is reached.
func (s *Service) OwnHost(host string) bool { return s.hosts[hostname(host)] }

// isGUID reports whether s has the form of a UUID, in any case.
func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		digit := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if dash != (c == '-') || !dash && !digit {
			return false
		}
	}
	return true
}

// hostname is a host in lower case without port, brackets and trailing dot.
func hostname(h string) string {
	if only, _, err := net.SplitHostPort(h); err == nil {
		h = only
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(h, "[]"), "."))
}

// NewID is a random UUID (RFC 9562, version 4).
func (s *Service) NewID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(s.random, b[:]); err != nil {
		return "", err
	}
	return name.UUID(b), nil
}

// Tenant is the installation's tenant id. Errors: meta.ErrNotFound before Bootstrap.
func (s *Service) Tenant(tx *meta.Tx) (string, error) {
	if t := s.tenant.Load(); t != nil {
		return *t, nil
	}
	t, err := tx.Installation("tenant")
	if err == nil {
		s.tenant.Store(&t)
	}
	return t, err
}

// Subscription is a subscription of the tenant.
type Subscription struct{ ID, Name, Tenant, State string }

// Subscriptions are all subscriptions, by name.
func (s *Service) Subscriptions(tx *meta.Tx) ([]Subscription, error) {
	rows, err := tx.Query(`SELECT id, name, tenant, state FROM subscriptions ORDER BY name, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Subscription
	for rows.Next() {
		var sub Subscription
		if err := rows.Scan(&sub.ID, &sub.Name, &sub.Tenant, &sub.State); err != nil {
			return nil, err
		}
		all = append(all, sub)
	}
	return all, rows.Err()
}

// SubscriptionExists reports whether the subscription is one of the tenant's; ids compare without regard to case.
func (s *Service) SubscriptionExists(tx *meta.Tx, id string) (bool, error) {
	var n int
	err := tx.Row(`SELECT COUNT(*) FROM subscriptions WHERE id = $1`, strings.ToLower(id)).Scan(&n)
	return n > 0, err
}

// First is what Bootstrap made or found. Secret is set only by the start that made the principal.
type First struct {
	Tenant, Subscription, Principal, ClientID string
	Secret                                    redact.Secret
}

// Bootstrap makes, once, the tenant, a subscription, and a service principal that is Owner of everything. Later it finds them. record, if not nil,
// puts what was made on record in the same transaction.
func (s *Service) Bootstrap(ctx context.Context, record ...func(tx *meta.Tx, first First) error) (First, error) {
	first, err := s.bootstrap(ctx, record)
	if fault.Is(err, fault.Conflict) {
		return s.bootstrap(ctx, record) // another node was first
	}
	return first, err
}

func (s *Service) bootstrap(ctx context.Context, record []func(tx *meta.Tx, first First) error) (First, error) {
	var first First
	err := s.db.Write(ctx, func(tx *meta.Tx) error {
		first = First{}
		tenant, err := tx.Installation("tenant")
		if err == nil {
			first.Tenant = tenant
			return s.findFirst(tx, &first)
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		if err := s.makeFirst(tx, &first); err != nil {
			return err
		}
		for _, r := range record {
			if err := r(tx, first); err != nil {
				return err
			}
		}
		return nil
	})
	return first, err
}

func (s *Service) findFirst(tx *meta.Tx, first *First) error {
	var err error
	if first.Subscription, err = tx.Installation("subscription"); err != nil {
		return err
	}
	if first.Principal, err = tx.Installation("principal"); err != nil {
		return err
	}
	p, err := s.principal(tx, first.Principal)
	if errors.Is(err, meta.ErrNotFound) {
		return nil // deleted since: others have taken over
	}
	first.ClientID = p.AppID
	return err
}

func (s *Service) makeFirst(tx *meta.Tx, first *First) error {
	var err error
	for _, id := range []*string{&first.Tenant, &first.Subscription} {
		if *id, err = s.NewID(); err != nil {
			return err
		}
	}
	p, secret, err := s.CreatePrincipal(tx, ServicePrincipal, "embargo-owner", "")
	if err != nil {
		return err
	}
	first.Principal, first.ClientID, first.Secret = p.ID, p.AppID, redact.Secret(secret)
	if _, err := tx.Exec(`INSERT INTO subscriptions (id, name, tenant, state) VALUES ($1, 'Embargo', $2, 'Enabled')`, first.Subscription, first.Tenant); err != nil {
		return err
	}
	id, err := s.NewID()
	if err != nil {
		return err
	}
	if err := s.PutAssignment(tx, Assignment{ID: id, Scope: name.ResourceID{}, Principal: p.ID, PrincipalType: p.Type, Role: RoleOwner}); err != nil {
		return err
	}
	for key, value := range map[string]string{"tenant": first.Tenant, "subscription": first.Subscription, "principal": first.Principal} {
		if err := tx.SetInstallation(key, value); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Options configure an Engine. DB, Identity and Audit are needed.
type Options struct {
	DB       *meta.DB
	Identity *identity.Service
	Audit    *audit.Log
	// Keyring seals secret members; needed when a declared type has some.
	Keyring    *meta.Keyring
	Namespaces []Namespace
	// Locations are the regions that a resource may be in, lower-case without blanks. None: Azure's public regions (Locations).
	Locations []Location
	// Authority is the authorization_uri of the 401 challenge; "" is the request's own scheme and host with /adfs.
	Authority string
	// Source tells the address and zone that a request came from, for records; nil takes the request's RemoteAddr and no zone.
	Source func(r *http.Request) (address, zone string)
	// PageSize is the most that one page of a list holds; 0 is 1000.
	PageSize int
	Random   io.Reader    // nil: crypto/rand
	Log      *slog.Logger // nil: slog.Default
}

// Engine serves ARM for the declared types. It is an http.Handler for every path of the management endpoint, and is safe for concurrent use.
type Engine struct {
	o         Options
	providers []*provider
	types     map[string]*resource // by lower-case full type
	locations map[string]Location
	keyring   *meta.Keyring
}

// New checks the declarations and makes an engine. Errors are mistakes in a declaration.
func New(o Options) (*Engine, error) {
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.PageSize == 0 {
		o.PageSize = 1000
	}
	if len(o.Locations) == 0 {
		o.Locations = PublicLocations()
	}
	e := &Engine{o: o, types: map[string]*resource{}, locations: map[string]Location{}, keyring: o.Keyring}
	for _, l := range o.Locations {
		e.locations[l.Name] = l
	}
	for _, n := range o.Namespaces {
		p, err := compileNamespace(n)
		if err != nil {
			return nil, fmt.Errorf("arm: %w", err)
		}
		if e.provider(p.name) != nil {
			return nil, fmt.Errorf("arm: namespace %s is declared twice", p.name)
		}
		e.providers = append(e.providers, p)
		if err := e.addTypes(p); err != nil {
			return nil, fmt.Errorf("arm: %w", err)
		}
	}
	return e, nil
}

func (e *Engine) addTypes(p *provider) error {
	for _, r := range p.types {
		key := strings.ToLower(r.name)
		if e.types[key] != nil {
			return fmt.Errorf("type %s is declared twice", r.name)
		}
		if r.sealed && e.keyring == nil {
			return fmt.Errorf("type %s has secret members, and there is no keyring", r.name)
		}
		e.types[key] = r
		for _, a := range r.actions {
			if a.body.err != nil {
				return fmt.Errorf("type %s, action %s: %w", r.name, a.Name, a.body.err)
			}
		}
	}
	for _, a := range p.actions {
		if a.body.err != nil {
			return fmt.Errorf("namespace %s, action %s: %w", p.name, a.Name, a.body.err)
		}
	}
	return nil
}

// Register gives the jobs of the declared types to the runner.
func (e *Engine) Register(r *job.Runner) {
	for _, p := range e.providers {
		for _, t := range p.types {
			for _, w := range t.work {
				r.Handle(w.Kind, func(ctx context.Context, j *job.Job) (any, error) { return w.Do(ctx, e, j) })
			}
		}
	}
}

// provider finds a namespace, nil when it is not declared.
func (e *Engine) provider(namespace string) *provider {
	for _, p := range e.providers {
		if strings.EqualFold(p.name, namespace) {
			return p
		}
	}
	return nil
}

// Write runs fn in one write transaction as a caller, for jobs and for the server's own start: fn's changes go through the engine
// (Tx.Put, Tx.Delete, Tx.Remove). Work registered with AfterCommit has finished when it returns nil.
func (e *Engine) Write(ctx context.Context, c identity.Caller, correlation string, fn func(tx *Tx) error) error {
	var done *Tx
	err := e.o.DB.Write(ctx, func(m *meta.Tx) error {
		done = e.newTx(m, Request{Method: http.MethodPut, Caller: c, RequestID: correlation, Now: m.Now()})
		if err := fn(done); err != nil {
			return err
		}
		return done.world.src.err
	})
	if err != nil {
		return err
	}
	return done.finish(ctx)
}

// Read runs fn in one read transaction as a caller.
func (e *Engine) Read(ctx context.Context, c identity.Caller, fn func(tx *Tx) error) error {
	return e.o.DB.Read(ctx, func(m *meta.Tx) error {
		tx := e.newTx(m, Request{Method: http.MethodGet, Caller: c, Now: m.Now()})
		if err := fn(tx); err != nil {
			return err
		}
		return tx.world.src.err
	})
}

func (e *Engine) newTx(m *meta.Tx, r Request) *Tx {
	r.Now = m.Now()
	tx := &Tx{e: e, m: m, req: r}
	tx.world = e.worldOf(tx)
	return tx
}

// finish runs what was registered for after the commit. Every one runs, even when one fails.
func (tx *Tx) finish(ctx context.Context) error {
	var errs []error
	for _, f := range tx.after {
		if err := f(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) can(m *meta.Tx, c identity.Caller, action string, scope name.ResourceID) (bool, error) {
	return e.o.Identity.Can(m, c, action, scope)
}

func (e *Engine) must(m *meta.Tx, c identity.Caller, action string, scope name.ResourceID) error {
	ok, err := e.can(m, c, action, scope)
	if err != nil || ok {
		return err
	}
	return fault.New(fault.AuthorizationFailed, "The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		clientName(c), c.ID, action, scope)
}

func (e *Engine) mustLinked(m *meta.Tx, c identity.Caller, action string, scope name.ResourceID, linkedAction string, linked name.ResourceID) error {
	ok, err := e.can(m, c, linkedAction, linked)
	if err != nil || ok {
		return err
	}
	verb := linkedAction[strings.LastIndexByte(linkedAction, '/')+1:]
	return fault.New(fault.LinkedAuthorizationFailed, "The client '%s' with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have permission to perform action '%s' on the linked scope(s) '%s'.",
		clientName(c), c.ID, action, scope, verb, linked)
}

// clientName is what ARM calls a caller in its messages and in systemData: an application's id, a person's name.
func clientName(c identity.Caller) string {
	if c.Type != identity.User && c.AppID != "" {
		return c.AppID
	}
	if c.Name != "" {
		return c.Name
	}
	return c.ID
}

// newID is a random UUID, version 4.
func (e *Engine) newID() string {
	var b [16]byte
	if _, err := io.ReadFull(e.o.Random, b[:]); err != nil {
		// Without randomness there are no ids: the next write fails on a duplicate rather than proceed with a guessable one.
		e.o.Log.Error("randomness failed", "error", err)
	}
	return name.UUID(b)
}

// now is the transaction's instant as systemData has it.
func (tx *Tx) now() time.Time { return tx.req.Now }

// subscriptionExists asks the identity service, which owns the subscriptions.
func (e *Engine) subscriptionExists(tx *Tx, id string) (bool, error) {
	return e.o.Identity.SubscriptionExists(tx.m, id)
}

// rightOf is what permissions on an id begin with.
func (e *Engine) rightOf(id name.ResourceID) string {
	if r := e.types[strings.ToLower(id.Type())]; r != nil {
		return r.right
	}
	return id.Type()
}

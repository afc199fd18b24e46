// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Tx is the one transaction of a request, as hooks and actions see it. It may run more than once (the database retries), so a
// hook keeps no state outside it.
type Tx struct {
	e       *Engine
	m       *meta.Tx
	req     Request
	world   World
	after   []func(context.Context) error
	remarks []string
	operate *job.Spec
	rq      *request // the exchange, nil in a job
}

// Meta is the database transaction itself.
func (tx *Tx) Meta() *meta.Tx { return tx.m }

// World is the state in this transaction.
func (tx *Tx) World() World { return tx.world }

// Engine is the engine of the transaction.
func (tx *Tx) Engine() *Engine { return tx.e }

// Request is the request that the transaction serves.
func (tx *Tx) Request() Request { return tx.req }

// Put writes another type's resource through the engine, as the same caller: doc is a document in the newest shape (any value that
// marshals to it), read-only members included. That type's Admit and Apply run. Errors are those of a client's PUT.
func (tx *Tx) Put(id name.ResourceID, doc any) error { return tx.e.putInside(tx, id, doc) }

// Delete deletes another type's resource and its children through the engine, their Admit and Apply included. What is absent is no error.
func (tx *Tx) Delete(id name.ResourceID) error { return tx.e.deleteInside(tx, id) }

// Remove takes a resource and what is left below it out of storage, at the end of a DeleteJob: the Apply of its children run, then its own.
func (tx *Tx) Remove(id name.ResourceID) error { return tx.e.removeInside(tx, id) }

// Enqueue adds a job to the transaction. An empty Caller or Correlation is the request's.
func (tx *Tx) Enqueue(spec job.Spec) (string, error) { return job.Enqueue(tx.m, tx.fill(spec)) }

// SetState records what a resource is going through ("Deleting", "Failed"); "" is Succeeded. It shows as provisioningState.
func (tx *Tx) SetState(id name.ResourceID, state string) error { return tx.e.setState(tx.m, id, state) }

// NameTaken reports whether a GlobalName type's name is in use anywhere in the installation.
func (tx *Tx) NameTaken(typ, name string) (bool, error) { return nameTaken(tx.m, typ, name) }

// Operate makes a PUT or PATCH long-running: its job is enqueued at the end of the transaction, and the answer carries
// Azure-AsyncOperation. Only an Apply hook may call it, once.
func (tx *Tx) Operate(spec job.Spec) { tx.operate = &spec }

// AfterCommit registers work that must finish after the commit and before the answer is sent, such as a fence. Its failure is
// answered as 500 although the change stands.
func (tx *Tx) AfterCommit(f func(ctx context.Context) error) { tx.after = append(tx.after, f) }

// Remark adds a sentence to the change's audit record.
func (tx *Tx) Remark(text string) { tx.remarks = append(tx.remarks, text) }

// Record appends a further audit record to the transaction. Empty Caller, Source, Correlation and Resource are the request's.
func (tx *Tx) Record(r audit.Record) error { return tx.e.record(tx, r) }

// Can reports whether the request's caller may do action at scope.
func (tx *Tx) Can(action string, scope name.ResourceID) (bool, error) {
	return tx.e.can(tx.m, tx.req.Caller, action, scope)
}

// Must is nil when the caller may do action at scope, else ARM's AuthorizationFailed.
func (tx *Tx) Must(action string, scope name.ResourceID) error {
	return tx.e.must(tx.m, tx.req.Caller, action, scope)
}

// MustLinked is nil when the caller may do the linked action (such as {type}/read) on the linked scope, else ARM's
// LinkedAuthorizationFailed in the words of the action that the caller asked on scope.
func (tx *Tx) MustLinked(action string, scope name.ResourceID, linkedAction string, linked name.ResourceID) error {
	return tx.e.mustLinked(tx.m, tx.req.Caller, action, scope, linkedAction, linked)
}

// NewID is a fresh random UUID.
func (tx *Tx) NewID() string { return tx.e.newID() }

// As runs the rest of fn as another caller (a job acts as the one who asked for it).
func (tx *Tx) As(c identity.Caller, fn func(tx *Tx) error) error {
	was := tx.req.Caller
	tx.req.Caller = c
	defer func() { tx.req.Caller = was }()
	return fn(tx)
}

// Lock takes the root resource of id for the rest of the transaction, before anything is read that a write depends on.
func (tx *Tx) Lock(id name.ResourceID) error { return tx.e.lock(tx, id) }

// FirstBelow is a resource below a scope, and whether there is one.
func (tx *Tx) FirstBelow(scope name.ResourceID) (name.ResourceID, bool, error) {
	where, args := scopeWhere(scope, 2)
	after := ""
	for {
		page, err := tx.e.page(tx, where, after, 16, args...)
		if err != nil || len(page) == 0 {
			return name.ResourceID{}, false, err
		}
		for _, s := range page {
			if s.id.Within(scope) && !s.id.Equal(scope) {
				return s.id, true, nil
			}
			after = s.id.Key()
		}
	}
}

// RecordAction appends the audit record of an action on a scope.
func (tx *Tx) RecordAction(action string, scope name.ResourceID) error {
	return tx.e.recordAction(tx, action, scope)
}

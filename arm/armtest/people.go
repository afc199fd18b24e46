// SPDX-License-Identifier: Apache-2.0

package armtest

import (
	"context"
	"testing"

	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// newPeople bootstraps an identity service with three users: owner@x owns everything, reader@x reads the subscription, stranger@x may
// nothing.
func newPeople(t testing.TB, db *meta.DB, keyring *meta.Keyring) People {
	t.Helper()
	ctx := context.Background()
	service, err := identity.New(ctx, identity.Options{DB: db, Keyring: keyring, Hosts: []string{Host}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := service.Bootstrap(ctx)
	if err != nil {
		t.Fatal(err)
	}
	people := People{Service: service, Subscription: first.Subscription, Tenant: first.Tenant, Tokens: map[string]string{}, IDs: map[string]string{}}
	for word, at := range map[string]struct {
		role  string
		scope name.ResourceID
	}{
		"owner":    {identity.RoleOwner, name.ResourceID{}},
		"reader":   {identity.RoleReader, name.Subscription(first.Subscription)},
		"stranger": {},
	} {
		var p identity.Principal
		err := db.Write(ctx, func(tx *meta.Tx) error {
			var err error
			if p, _, err = service.CreatePrincipal(tx, identity.User, word+"@x", "a password of "+word); err != nil || at.role == "" {
				return err
			}
			id, err := service.NewID()
			if err != nil {
				return err
			}
			return service.PutAssignment(tx, identity.Assignment{ID: id, Scope: at.scope, Principal: p.ID, Role: at.role})
		})
		if err != nil {
			t.Fatal(err)
		}
		people.IDs[word] = p.ID
		if people.Tokens[word], err = service.IssueARM(ctx, first.Tenant, p, "https://"+Host+"/"); err != nil {
			t.Fatal(err)
		}
	}
	return people
}

// Grant gives one of the people a further role at a scope.
func (b *Bench) Grant(t testing.TB, who, role string, scope name.ResourceID) {
	t.Helper()
	err := b.DB.Write(context.Background(), func(tx *meta.Tx) error {
		id, err := b.People.Service.NewID()
		if err != nil {
			return err
		}
		return b.People.Service.PutAssignment(tx, identity.Assignment{ID: id, Scope: scope, Principal: b.People.IDs[who], Role: role})
	})
	if err != nil {
		t.Fatal(err)
	}
}

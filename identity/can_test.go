// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

const acr = "Microsoft.ContainerRegistry/registries/"

// Rights hold where they are given and below, in any casing, and end with the role's own limits.
func TestCan(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		sub := name.Subscription(b.first.Subscription)
		group := b.group()
		registry := group.In("Microsoft.ContainerRegistry", "registries", "Contoso")
		pipeline := registry.Child("exportPipelines", "p")
		const custom = "aaaaaaaa-0000-0000-0000-000000000001"
		b.write(func(tx *meta.Tx) error {
			return b.PutRole(tx, identity.Role{ID: custom, Name: "Flips nothing", Scopes: []string{sub.String()}, Permissions: []identity.Permission{
				{Actions: []string{acr + "*"}, NotActions: []string{acr + "*/delete", acr + "write"}, DataActions: []string{"*"}, NotDataActions: []string{acr + "repositories/content/write"}},
				{Actions: []string{acr + "tokens/delete"}}}})
		})
		for i, c := range []struct {
			role   string
			given  name.ResourceID
			action string
			at     name.ResourceID
			want   bool
		}{
			{identity.RoleReader, name.ResourceID{}, acr + "read", registry, true},
			{identity.RoleReader, sub, acr + "read", registry, true},
			{identity.RoleReader, group, "microsoft.containerregistry/REGISTRIES/read", registry, true},
			{identity.RoleReader, registry, acr + "exportPipelines/read", pipeline, true},
			{identity.RoleReader, pipeline, acr + "read", registry, false},
			{identity.RoleReader, registry, acr + "read", group, false},
			{identity.RoleReader, registry, acr + "read", group.In("Microsoft.ContainerRegistry", "registries", "Contoso2"), false},
			{identity.RoleReader, group, acr + "read", name.Group(b.first.Subscription, "g2"), false},
			{identity.RoleReader, name.Subscription(b.first.Tenant), acr + "read", registry, false},
			{identity.RoleReader, sub, acr + "write", registry, false},
			{identity.RoleReader, sub, acr + "listCredentials/action", registry, false},
			{identity.RoleOwner, sub, "Microsoft.Authorization/roleAssignments/write", registry, true},
			{identity.RoleContributor, sub, "Microsoft.Authorization/roleAssignments/write", registry, false},
			{identity.RoleContributor, sub, "Microsoft.Authorization/roleAssignments/read", registry, true},
			{identity.RoleContributor, sub, acr + "delete", registry, true},
			{identity.RoleUserAccessAdministrator, sub, "Microsoft.Authorization/roleAssignments/write", registry, true},
			{identity.RoleUserAccessAdministrator, sub, acr + "write", registry, false},
			{identity.RoleAcrPull, group, acr + "read", registry, false},
			{custom, group, acr + "importImage/action", registry, true},
			{custom, group, acr + "delete", registry, true}, // "*/delete" needs something before the slash
			{custom, group, acr + "scopeMaps/delete", registry, false},
			{custom, group, acr + "tokens/delete", registry, true}, // each permission has its own exceptions
			{custom, group, acr + "write", registry, false},
			{custom, group, "Microsoft.ContainerRegistry/registries", registry, false},
		} {
			p, _ := b.principal(identity.User, fmt.Sprint("user ", i), c.role, c.given)
			if got := b.can(b.caller(p), c.action, c.at); got != c.want {
				t.Errorf("%s at %s: %s at %s is %v, want %v", c.role, c.given, c.action, c.at, got, c.want)
			}
		}
	})
}

// The data plane: legacy roles count until the registry has repository permissions, and then only data actions do.
func TestCanRepository(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		const (
			reader = "b93aa761-3e63-49ed-ac28-beffa264f7ac"
			writer = "2a1e307c-b015-4ebd-883e-5b7698a07328"
			whole  = "2efddaa5-3f1f-4df3-97df-af3f13818f4c"
			lister = "bfdb9389-c9a5-478a-bb2f-ba9ca092c3c7"
		)
		row := b.registry("contoso")
		abac := row
		abac.AbacMode = true
		verbs := []identity.Verb{identity.Pull, identity.Push, identity.Delete, identity.MetadataRead, identity.MetadataWrite}
		for _, c := range []struct{ role, legacy, abac string }{
			{identity.RoleOwner, "pull push delete metadata_read metadata_write catalog", ""},
			{identity.RoleContributor, "pull push delete metadata_read metadata_write catalog", ""},
			{identity.RoleReader, "pull metadata_read catalog", ""},
			{identity.RoleAcrPull, "pull metadata_read catalog", ""},
			{identity.RoleAcrPush, "pull push metadata_read metadata_write catalog", ""},
			{identity.RoleAcrDelete, "delete", ""},
			{identity.RoleUserAccessAdministrator, "pull metadata_read catalog", ""},
			{reader, "", "pull metadata_read"},
			{writer, "", "pull push metadata_read metadata_write"},
			{whole, "", "pull push delete metadata_read metadata_write"},
			{lister, "", "catalog"},
			{"", "", ""},
		} {
			p, _ := b.principal(identity.ServicePrincipal, "with "+c.role, c.role, b.group())
			caller := b.caller(p)
			for _, mode := range []struct {
				row  meta.RegistryRow
				want string
			}{{row, c.legacy}, {abac, c.abac}} {
				var got []string
				for _, v := range verbs {
					if b.canRepository(caller, mode.row, "app", v) {
						got = append(got, string(v))
					}
				}
				if b.canCatalog(caller, mode.row) {
					got = append(got, "catalog")
				}
				if text := strings.Join(got, " "); text != mode.want {
					t.Errorf("role %q, repository permissions %v: %q, want %q", c.role, mode.row.AbacMode, text, mode.want)
				}
			}
			if b.canRepository(caller, row, "app", "fly") {
				t.Error("an unknown verb is allowed")
			}
		}
	})
}

// A right that is taken away, or whose principal is disabled, is gone with the commit.
func TestRightsEndAtOnce(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		p, _ := b.principal(identity.User, "ada@example.com", identity.RoleReader, b.group())
		c := b.caller(p)
		can := func(want bool) {
			t.Helper()
			if got := b.can(c, acr+"read", b.group()); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		}
		can(true)
		b.write(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, p.ID, false); return err })
		can(false)
		b.write(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, p.ID, true); return err })
		can(true)
		b.write(func(tx *meta.Tx) error {
			all, err := b.Assignments(tx)
			for _, a := range all {
				if a.Principal == p.ID {
					err = errors.Join(err, b.DeleteAssignment(tx, strings.ToUpper(a.ID)))
				}
			}
			return err
		})
		can(false)
	})
}

// An assignment is what it was made as: nobody moves it by writing it again from a scope where they may write.
func TestPutAssignment(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		p, _ := b.principal(identity.User, "ada@example.com", "", name.ResourceID{})
		a := identity.Assignment{ID: "BBBBBBBB-0000-0000-0000-000000000001", Scope: b.group(), Principal: p.ID, Role: identity.RoleReader, Description: "first", CreatedBy: "me"}
		put := func(change func(a *identity.Assignment)) error {
			a := a
			change(&a)
			return b.db.Write(t.Context(), func(tx *meta.Tx) error { return b.PutAssignment(tx, a) })
		}
		same := func(*identity.Assignment) {}
		if err := errors.Join(put(same), put(same), put(func(a *identity.Assignment) { a.Description, a.CreatedBy = "second", "you" })); err != nil {
			t.Fatal(err)
		}
		if err := b.read(func(tx *meta.Tx) error {
			got, err := b.AssignmentByID(tx, strings.ToLower(a.ID))
			if got.Description != "second" || got.CreatedBy != "me" || got.PrincipalType != identity.User || got.Created.IsZero() {
				t.Errorf("%+v", got)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		wantFault(t, put(func(a *identity.Assignment) { a.Scope = name.ResourceID{} }), fault.RoleAssignmentUpdateNotPermitted)
		wantFault(t, put(func(a *identity.Assignment) { a.Role = identity.RoleOwner }), fault.RoleAssignmentUpdateNotPermitted)
		wantFault(t, put(func(a *identity.Assignment) { a.Principal = b.first.Principal }), fault.RoleAssignmentUpdateNotPermitted)
		other := "bbbbbbbb-0000-0000-0000-000000000002"
		wantFault(t, put(func(a *identity.Assignment) { a.ID = other }), fault.RoleAssignmentExists)
		wantFault(t, put(func(a *identity.Assignment) { a.ID, a.Role = other, "cccccccc-0000-0000-0000-000000000009" }), fault.RoleDefinitionNotFound)
		wantFault(t, put(func(a *identity.Assignment) { a.ID, a.Principal = other, other }), fault.PrincipalNotFound)
		err := b.db.Write(t.Context(), func(tx *meta.Tx) error { return b.DeleteAssignment(tx, other) })
		wantFault(t, err, fault.RoleAssignmentNotFound)
	})
}

// What was given on a scope that is deleted does not hold for what is made there later, and its neighbours keep theirs.
func TestDropScope(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		at := func(n string) name.ResourceID { return b.group().In("Microsoft.ContainerRegistry", "registries", n) }
		p, _ := b.principal(identity.User, "ada@example.com", identity.RoleReader, at("contoso"))
		b.write(func(tx *meta.Tx) error {
			return errors.Join(b.assign(tx, p.ID, identity.RoleReader, at("contoso").Child("tokens", "t")), b.assign(tx, p.ID, identity.RoleReader, at("contoso2")))
		})
		c := b.caller(p)
		b.write(func(tx *meta.Tx) error { return b.DropScope(tx, at("CONTOSO")) })
		if b.can(c, acr+"read", at("contoso")) || b.can(c, acr+"tokens/read", at("contoso").Child("tokens", "t")) {
			t.Error("a right outlives its scope")
		}
		if !b.can(c, acr+"read", at("contoso2")) {
			t.Error("the neighbour's right is gone too")
		}
		if err := b.db.Write(t.Context(), func(tx *meta.Tx) error { return b.DropScope(tx, name.ResourceID{}) }); err == nil {
			t.Error("every right of the installation was dropped")
		}
	})
}

// Somebody enabled is always Owner of everything: no way of taking the last one away succeeds.
func TestLastOwner(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		change := func(fn func(tx *meta.Tx) error) error { return b.db.Write(t.Context(), fn) }
		var last identity.Assignment
		if err := b.read(func(tx *meta.Tx) error {
			all, err := b.Assignments(tx)
			last = all[0]
			return err
		}); err != nil {
			t.Fatal(err)
		}
		ways := map[string]func(tx *meta.Tx) error{
			"assignment": func(tx *meta.Tx) error { return b.DeleteAssignment(tx, last.ID) },
			"disable":    func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, b.first.Principal, false); return err },
			"delete":     func(tx *meta.Tx) error { _, err := b.DeletePrincipal(tx, b.first.Principal); return err },
		}
		// An Owner of less, one of another role and one that is disabled do not count.
		b.principal(identity.User, "of the group", identity.RoleOwner, b.group())
		b.principal(identity.User, "contributor", identity.RoleContributor, name.ResourceID{})
		off, _ := b.principal(identity.User, "off", identity.RoleOwner, name.ResourceID{})
		if err := change(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, off.ID, false); return err }); err != nil {
			t.Fatal(err)
		}
		for what, way := range ways {
			if err := change(way); !fault.Is(err, fault.Conflict) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := change(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, off.ID, true); return err }); err != nil {
			t.Fatal(err)
		}
		if err := change(ways["disable"]); err != nil {
			t.Error("there is another Owner by now:", err)
		}
	})
}

// Two Owners who go at the same moment do not both go.
func TestLastOwnerTogether(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := newBench(t, open())
		for range 10 {
			second, _ := b.principal(identity.User, "second", identity.RoleOwner, name.ResourceID{})
			errs := make(chan error, 2)
			for _, id := range []string{b.first.Principal, second.ID} {
				go func() {
					errs <- b.db.Write(context.Background(), func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, id, false); return err })
				}()
			}
			one, two := <-errs, <-errs
			if (one == nil) == (two == nil) {
				t.Fatalf("both went, or neither: %v, %v", one, two)
			}
			b.write(func(tx *meta.Tx) error {
				_, err := b.EnablePrincipal(tx, b.first.Principal, true)
				if err == nil {
					_, err = b.DeletePrincipal(tx, second.ID)
				}
				return err
			})
		}
	})
}

// Custom roles: names are taken once, a role in use stays, and it is given only where it may be.
func TestCustomRoles(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		put := func(id, n string, scopes ...string) error {
			return b.db.Write(t.Context(), func(tx *meta.Tx) error {
				return b.PutRole(tx, identity.Role{ID: id, Name: n, Scopes: scopes, Permissions: []identity.Permission{{Actions: []string{"*/read"}}}})
			})
		}
		const one, two = "AAAAAAAA-0000-0000-0000-000000000001", "aaaaaaaa-0000-0000-0000-000000000002"
		wantFault(t, put(strings.ToUpper(identity.RoleOwner), "Mine", "/"), fault.Conflict)
		wantFault(t, put(one, "acrpull", "/"), fault.RoleDefinitionWithSameNameExists)
		if err := errors.Join(put(one, "Mine", b.group().String()), put(one, "Mine", b.group().String())); err != nil {
			t.Fatal(err)
		}
		wantFault(t, put(two, "mine", "/"), fault.RoleDefinitionWithSameNameExists)
		assign := func(at name.ResourceID) error {
			return b.db.Write(t.Context(), func(tx *meta.Tx) error { return b.assign(tx, b.first.Principal, one, at) })
		}
		wantFault(t, assign(name.Subscription(b.first.Subscription)), fault.InvalidParameter)
		if err := assign(b.group().In("N.S", "t", "x")); err != nil {
			t.Fatal(err)
		}
		wantFault(t, put(one, "Mine", name.Group(b.first.Subscription, "elsewhere").String()), fault.Conflict)
		drop := func(id string) error {
			return b.db.Write(t.Context(), func(tx *meta.Tx) error { return b.DeleteRole(tx, id) })
		}
		wantFault(t, drop(one), fault.RoleDefinitionHasAssignments)
		wantFault(t, drop(identity.RoleAcrPull), fault.Conflict)
		wantFault(t, drop(two), fault.RoleDefinitionNotFound)
		b.write(func(tx *meta.Tx) error { return b.DropScope(tx, b.group()) })
		if err := drop(one); err != nil {
			t.Error(err)
		}
	})
}

// The built-in roles are Azure's: ids that templates hold, each once.
func TestBuiltInRoles(t *testing.T) {
	b := newBench(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	want := map[string]string{
		"Owner": "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "Contributor": "b24988ac-6180-42a0-ab88-20f7382dd24c", "Reader": "acdd72a7-3385-48ef-bd42-f606fba81ae7",
		"User Access Administrator": "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", "AcrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",
		"AcrPush": "8311e382-0749-4cb8-b61a-304f252e45ec", "AcrDelete": "c2f4ef07-c644-48eb-af81-4b1b4947fb11", "AcrImageSigner": "6cef56e8-d556-48e5-a04f-b8e64114680f",
		"AcrQuarantineReader": "cdda3590-29a3-44f6-95f2-9f980659eb04", "AcrQuarantineWriter": "c8d4ff99-41c3-41a8-9f60-21dfdad59608",
	}
	if err := b.read(func(tx *meta.Tx) error {
		all, err := b.Roles(tx)
		ids, names := map[string]bool{}, map[string]bool{}
		for _, r := range all {
			if ids[r.ID] || names[r.Name] || !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(r.ID) || !r.BuiltIn || len(r.Permissions) == 0 {
				t.Errorf("role %+v", r)
			}
			ids[r.ID], names[r.Name] = true, true
			if id, known := want[r.Name]; known && id != r.ID {
				t.Errorf("%s has the id %s", r.Name, r.ID)
			}
			delete(want, r.Name)
			for _, p := range r.Permissions {
				for _, a := range append(append(append(p.Actions, p.NotActions...), p.DataActions...), p.NotDataActions...) {
					if a != "*" && !strings.HasPrefix(a, "*/") && !strings.HasPrefix(a, "Microsoft.") {
						t.Errorf("%s has the permission %q", r.Name, a)
					}
				}
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// tokens are the doors of a registry's tokens, each in a transaction of its own.
type tokens struct {
	*bench
	row meta.RegistryRow
}

func (b *bench) at(row meta.RegistryRow) tokens { return tokens{b, row} }

func (k tokens) refresh(c identity.Caller) (token string, err error) {
	err = k.read(func(tx *meta.Tx) (err error) {
		token, err = k.IssueRegistryRefresh(k.t.Context(), tx, k.row, c)
		return err
	})
	return token, err
}

func (k tokens) access(c identity.Caller, scopes ...string) (token string, granted []identity.Access) {
	k.t.Helper()
	err := k.read(func(tx *meta.Tx) (err error) {
		token, granted, err = k.IssueAccess(k.t.Context(), tx, k.row, c, identity.ParseScopes(scopes))
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	return token, granted
}

func (k tokens) verify(token string) (c identity.Caller, err error) {
	err = k.read(func(tx *meta.Tx) (err error) {
		c, err = k.VerifyRegistryToken(k.t.Context(), tx, k.row, token)
		return err
	})
	return c, err
}

func (k tokens) basic(user, password string) (c identity.Caller, err error) {
	err = k.read(func(tx *meta.Tx) (err error) { c, err = k.Basic(k.t.Context(), tx, k.row, user, password); return err })
	return c, err
}

func (k tokens) exchange(token string) (refresh string, err error) {
	err = k.read(func(tx *meta.Tx) (err error) {
		refresh, _, err = k.ExchangeARM(k.t.Context(), tx, k.row, token)
		return err
	})
	return refresh, err
}

func (k tokens) adminPasswords() (one, two string) {
	k.t.Helper()
	k.write(func(tx *meta.Tx) (err error) { one, two, err = k.AdminPasswords(tx, k.row.ID); return err })
	return one, two
}

// The registry's tokens have its own claims and lives, and name the principal; az's exchange leads to them.
func TestRegistryTokens(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		p, _ := b.principal(identity.ServicePrincipal, "ci", identity.RoleAcrPush, b.group())
		refresh, err := k.exchange(b.token(p, armAudience))
		if err != nil {
			t.Fatal(err)
		}
		c := payload(t, refresh)
		for claim, want := range map[string]any{"iss": "Azure Container Registry", "aud": "contoso.azurecr.localhost", "version": "1.0", "grant_type": "refresh_token",
			"tenant": b.first.Tenant, "sub": p.ID, "permissions": map[string]any{"actions": []any{"read", "write"}, "notActions": []any{}}} {
			if !reflect.DeepEqual(c[claim], want) {
				t.Errorf("refresh token: %s is %v, want %v", claim, c[claim], want)
			}
		}
		if life := c["exp"].(float64) - c["iat"].(float64); life != 3*3600 || c["jti"] == "" {
			t.Errorf("the refresh token lives %v seconds", life)
		}
		caller, err := k.basic(identity.NullUser, refresh)
		if err != nil || caller.ID != p.ID || caller.Registry != k.row.ID || caller.Narrowed {
			t.Errorf("%+v, %v", caller, err)
		}
		token, _ := k.access(caller, "repository:app:pull,push,delete")
		c = payload(t, token)
		want := []any{map[string]any{"type": "repository", "name": "app", "actions": []any{"pull", "push"}}}
		if !reflect.DeepEqual(c["access"], want) || c["grant_type"] != "access_token" || c["exp"].(float64)-c["iat"].(float64) != 75*60 {
			t.Errorf("access token: %v", c)
		}
		got, err := k.verify(token)
		if err != nil || got.ID != p.ID || got.AppID != p.AppID || got.Type != identity.ServicePrincipal || !got.Narrowed || got.Issued.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
		b.write(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, p.ID, false); return err })
		_, err = k.verify(token)
		wantFault(t, err, fault.InvalidToken)
		_, err = k.basic(identity.NullUser, refresh)
		wantFault(t, err, fault.InvalidToken)
	})
}

// azureADAuthenticationAsArmPolicy disabled: the resource manager's tokens are not taken, those for the container registry are.
func TestExchangeAudience(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		k.row.ArmTokens = false
		p, _ := b.principal(identity.User, "ada@example.com", "", name.ResourceID{})
		_, err := k.exchange(b.token(p, armAudience))
		wantFault(t, err, fault.InvalidToken)
		if _, err := k.exchange(b.token(p, identity.ContainerRegistryResource)); err != nil {
			t.Error(err)
		}
		_, err = k.exchange(b.token(p, "https://localhost/graph/"))
		wantFault(t, err, fault.InvalidToken)
	})
}

// A token ends with its registry's identity, with its hour, and with what the registry declares void; none is made to last by exchanging it.
func TestRegistryTokensEnd(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		p, secret := b.principal(identity.ServicePrincipal, "ci", identity.RoleAcrPull, b.group())
		caller, err := k.basic(p.AppID, secret)
		if err != nil {
			t.Fatal(err)
		}
		token, _ := k.access(caller, "repository:app:pull")
		refresh, err := k.refresh(caller)
		if err != nil {
			t.Fatal(err)
		}
		good := func(k tokens, want bool) {
			t.Helper()
			if _, err := k.verify(token); (err == nil) != want {
				t.Errorf("access token: %v, want %v", err, want)
			}
			if _, err := k.basic(identity.NullUser, refresh); (err == nil) != want {
				t.Errorf("refresh token: %v, want %v", err, want)
			}
		}
		good(k, true)
		again := k
		again.row.ID = "made-anew"
		good(again, false)
		renamed := k
		renamed.row.LoginServer = "fabrikam.azurecr.localhost"
		good(renamed, false)
		void := k
		void.row.TokensValidFrom = time.Now()
		good(void, false)

		// An access token gives no refresh token, and neither gives one that outlives it.
		narrowed, err := k.verify(token)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.refresh(narrowed)
		wantFault(t, err, fault.InvalidToken)
		b.pass(time.Hour)
		for _, from := range []string{token, refresh} {
			c, err := k.basic(identity.NullUser, refresh)
			if from == token {
				c, err = k.verify(token)
			}
			if err != nil {
				t.Fatal(err)
			}
			next, _ := k.access(c, "repository:app:pull")
			if payload(t, next)["exp"].(float64) > payload(t, from)["exp"].(float64) {
				t.Errorf("the token made of another outlives it")
			}
		}
		b.pass(21 * time.Minute)
		_, err = k.verify(token)
		wantFault(t, err, fault.InvalidToken)
		if _, err := k.basic(identity.NullUser, refresh); err != nil {
			t.Error(err)
		}
		b.pass(2 * time.Hour)
		good(k, false)
	})
}

// The token holds what is left of the scopes asked: known verbs that the caller may, each scope on its own. It narrows and never widens.
func TestGrants(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		puller, _ := b.principal(identity.User, "puller", identity.RoleAcrPull, b.group())
		owner, _ := b.principal(identity.User, "owner", identity.RoleOwner, b.group())
		stranger, _ := b.principal(identity.User, "stranger", "", name.ResourceID{})
		acc := func(typ, name string, actions ...string) identity.Access {
			return identity.Access{Type: typ, Name: name, Actions: append([]string{}, actions...)}
		}
		for _, c := range []struct {
			who    identity.Principal
			scopes []string
			want   []identity.Access
		}{
			{puller, []string{"repository:app:pull,push,fly"}, []identity.Access{acc("repository", "app", "pull")}},
			{puller, []string{"repository:app:*"}, []identity.Access{acc("repository", "app", "pull", "metadata_read")}},
			{puller, []string{"repository:a/b:pull repository:c:push", "registry:catalog:*"},
				[]identity.Access{acc("repository", "a/b", "pull"), acc("repository", "c"), acc("registry", "catalog", "*")}},
			{owner, []string{"repository:app:*"}, []identity.Access{acc("repository", "app", "pull", "push", "delete", "metadata_read", "metadata_write")}},
			{stranger, []string{"repository:app:pull", "registry:catalog:*"}, []identity.Access{acc("repository", "app"), acc("registry", "catalog")}},
			{owner, nil, []identity.Access{}},
		} {
			token, got := k.access(b.caller(c.who), c.scopes...)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s asking %q: %+v, want %+v", c.who.Name, c.scopes, got, c.want)
			}
			if _, err := k.verify(token); err != nil {
				t.Error(err)
			}
		}
		token, _ := k.access(b.caller(owner), "repository:app:pull")
		c, err := k.verify(token)
		if err != nil {
			t.Fatal(err)
		}
		if !b.canRepository(c, k.row, "app", identity.Pull) || b.canRepository(c, k.row, "app", identity.Push) || b.canRepository(c, k.row, "other", identity.Pull) || b.canCatalog(c, k.row) {
			t.Error("a token for one repository's pull opens something else, or not even that")
		}
		if b.can(c, "Microsoft.ContainerRegistry/registries/delete", b.group()) {
			t.Error("a registry's token has rights on the control plane")
		}
		other := b.registry("fabrikam")
		if b.canRepository(c, other, "app", identity.Pull) {
			t.Error("a registry's token opens another registry")
		}
		_, granted := k.access(c, "repository:app:pull,push", "repository:other:pull")
		if want := []identity.Access{acc("repository", "app", "pull"), acc("repository", "other")}; !reflect.DeepEqual(granted, want) {
			t.Errorf("a narrowed token was exchanged for %+v", granted)
		}
		// Rights are judged at use: a role that was taken away is gone from tokens that were made before.
		b.write(func(tx *meta.Tx) error { return b.DropScope(tx, b.group()) })
		if b.canRepository(c, k.row, "app", identity.Pull) {
			t.Error("a token outlives the role that it was made by")
		}
	})
}

// A caller goes through a job as JSON and stays as narrow as it was.
func TestNarrowedToNothing(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		owner, _ := b.principal(identity.User, "owner", identity.RoleOwner, name.ResourceID{})
		token, _ := k.access(b.caller(owner))
		c, err := k.verify(token)
		if err != nil {
			t.Fatal(err)
		}
		for _, caller := range []identity.Caller{c, throughJSON(t, c)} {
			if b.canRepository(caller, k.row, "app", identity.Pull) || b.canCatalog(caller, k.row) || b.can(caller, "*", name.ResourceID{}) {
				t.Errorf("a token for nothing opens something: %+v", caller)
			}
		}
	})
}

// Who a user name and password are at a registry.
func TestBasic(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		p, secret := b.principal(identity.ServicePrincipal, "ci", "", name.ResourceID{})
		managed, managedSecret := b.principal(identity.ManagedIdentity, "vm", "", name.ResourceID{})
		user, userSecret := b.principal(identity.User, "ada@example.com", "", name.ResourceID{})
		one, two := k.adminPasswords()
		for _, c := range []struct{ user, password string }{
			{"", ""}, {p.AppID, ""}, {p.AppID, "x"}, {p.ID, secret}, {p.Name, secret}, {managed.AppID, managedSecret}, {user.Name, userSecret}, {user.AppID, userSecret},
			{"contoso", one}, {"contoso", two}, {"contoso", ""}, {identity.NullUser, ""}, {identity.NullUser, secret}, {identity.NullUser, b.token(p, armAudience)},
		} {
			if got, err := k.basic(c.user, c.password); !fault.Is(err, fault.InvalidToken) {
				t.Errorf("%q with %q is %+v, %v", c.user, c.password, got, err)
			}
		}
		if c, err := k.basic(p.AppID, secret); err != nil || c.ID != p.ID || c.Type != identity.ServicePrincipal || !strings.HasPrefix(c.Credential, "secret:") {
			t.Errorf("%+v, %v", c, err)
		}
		k.row.AdminEnabled = true
		for _, password := range []string{one, two} {
			c, err := k.basic("Contoso", password)
			if err != nil || c.Type != identity.AdminUser || c.Registry != k.row.ID {
				t.Errorf("%+v, %v", c, err)
			}
			if !b.canRepository(c, k.row, "app", identity.Delete) || !b.canCatalog(c, k.row) {
				t.Error("the admin user may not everything in its registry")
			}
			if b.canRepository(c, b.registry("x"+password[:5]), "app", identity.Pull) || b.can(c, "Microsoft.ContainerRegistry/registries/read", b.group()) {
				t.Error("the admin user may something elsewhere")
			}
			off := k.row
			off.AdminEnabled = false
			if b.canRepository(c, off, "app", identity.Pull) {
				t.Error("the admin user may something while it is disabled")
			}
		}
		_, err := k.basic("contoso", "x")
		wantFault(t, err, fault.InvalidToken)
	})
}

// The admin passwords are generated, sealed and readable again; one is replaced at a time, and tokens of the old one end at once.
func TestAdminPasswords(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		k.row.AdminEnabled = true
		err := b.read(func(tx *meta.Tx) error { _, _, err := b.AdminPasswords(tx, k.row.ID); return err })
		if err == nil {
			t.Error("passwords were made in a transaction that only reads")
		}
		one, two := k.adminPasswords()
		if len(one) < 40 || len(two) < 40 || one == two {
			t.Errorf("passwords: %q, %q", one, two)
		}
		if again, other := k.adminPasswords(); again != one || other != two {
			t.Error("the passwords change by being read")
		}
		if err := b.read(func(tx *meta.Tx) error {
			rows, err := tx.Query(`SELECT sealed FROM admin_passwords`)
			if err != nil {
				return err
			}
			defer rows.Close()
			n := 0
			for ; rows.Next(); n++ {
				var sealed []byte
				if err := rows.Scan(&sealed); err != nil {
					return err
				}
				if bytes.Contains(sealed, []byte(one)) || bytes.Contains(sealed, []byte(two)) {
					t.Error("a password lies open in the database")
				}
			}
			if n != 2 {
				t.Errorf("%d passwords are kept", n)
			}
			return rows.Err()
		}); err != nil {
			t.Fatal(err)
		}
		tokenOf := func(password string) string {
			c, err := k.basic("contoso", password)
			if err != nil {
				t.Fatal(err)
			}
			token, _ := k.access(c, "repository:app:*")
			return token
		}
		first, second := tokenOf(one), tokenOf(two)
		b.write(func(tx *meta.Tx) error { _, err := b.RegenerateAdminPassword(tx, k.row.ID, "password"); return err })
		_, err = k.basic("contoso", one)
		wantFault(t, err, fault.InvalidToken)
		_, err = k.verify(first)
		wantFault(t, err, fault.InvalidToken)
		if _, err = k.verify(second); err != nil {
			t.Error(err)
		}
		err = b.db.Write(t.Context(), func(tx *meta.Tx) error { _, err := b.RegenerateAdminPassword(tx, k.row.ID, "password3"); return err })
		wantFault(t, err, fault.InvalidParameter)
		off := k
		off.row.AdminEnabled = false
		_, err = off.verify(second)
		wantFault(t, err, fault.InvalidToken)
		b.write(func(tx *meta.Tx) error { return b.DropRegistry(tx, k.row.ID) })
		_, err = k.verify(second)
		wantFault(t, err, fault.InvalidToken)
	})
}

// Anonymous pull is pull, where the registry says so, and now.
func TestAnonymous(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		k.row.AnonymousPull = true
		token, granted := k.access(identity.Nobody(k.row), "repository:app:*", "registry:catalog:*")
		if len(granted) != 2 || strings.Join(granted[0].Actions, ",") != "pull,metadata_read" || len(granted[1].Actions) != 0 {
			t.Errorf("nobody is granted %+v", granted)
		}
		c, err := k.verify(token)
		if err != nil || c.Type != identity.Anonymous || !b.canRepository(c, k.row, "app", identity.Pull) {
			t.Errorf("%+v, %v", c, err)
		}
		k.row.AnonymousPull = false
		_, err = k.verify(token)
		wantFault(t, err, fault.InvalidToken)
		if b.canRepository(c, k.row, "app", identity.Pull) {
			t.Error("nobody pulls although anonymous pull is off")
		}
	})
}

// Whatever a principal is called, the payload of its registry tokens reads the same in base64's two alphabets.
func TestPayloadAlphabet(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		k := b.at(b.registry("contoso"))
		for _, n := range []string{"a?b~c>d", "Grüße 🙂 ?>~", "~~~~~~~~~", "??????????"} {
			p, _ := b.principal(identity.User, n, identity.RoleAcrPull, name.ResourceID{})
			refresh, err := k.refresh(b.caller(p))
			if err != nil {
				t.Fatal(err)
			}
			access, _ := k.access(b.caller(p), "repository:app:pull")
			for _, token := range []string{refresh, access, b.token(p, armAudience)} {
				body := strings.Split(token, ".")[1]
				url, err1 := base64.RawURLEncoding.DecodeString(body)
				std, err2 := base64.RawStdEncoding.DecodeString(body)
				if err := errors.Join(err1, err2); err != nil || !bytes.Equal(url, std) || bytes.ContainsFunc(url, func(r rune) bool { return r > 0x7e }) {
					t.Errorf("%q: %v\n%s", n, err, url)
				}
			}
			if got := payload(t, b.token(p, armAudience))["upn"]; got != n {
				t.Errorf("the name %q comes back as %q", n, got)
			}
		}
	})
}

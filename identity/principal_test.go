// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

// The first start makes the tenant and its owner; later ones find them, and tell no secret.
func TestBootstrap(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{40,}$`).MatchString(string(b.first.Secret)) {
			t.Errorf("the secret %q is short, or not safe in URLs", string(b.first.Secret))
		}
		again, err := b.Bootstrap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := b.first
		want.Secret = ""
		if again != want {
			t.Errorf("the second start found %+v, want %+v", again, want)
		}
		p, _, err := b.Login(t.Context(), b.first.ClientID, string(b.first.Secret))
		if err != nil {
			t.Fatal(err)
		}
		if c := b.caller(p); !b.can(c, "Microsoft.Authorization/roleAssignments/write", name.ResourceID{}) {
			t.Error("the first principal is not Owner of everything")
		}
		if err := b.read(func(tx *meta.Tx) error {
			subs, err := b.Subscriptions(tx)
			if len(subs) != 1 || subs[0] != (identity.Subscription{ID: b.first.Subscription, Name: "Embargo", Tenant: b.first.Tenant, State: "Enabled"}) {
				t.Errorf("subscriptions: %+v", subs)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// Two nodes that start together on an empty database end up in one installation.
func TestBootstrapTogether(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		one := &bench{t: t, db: open(), ahead: newBenchClock()}
		var err error
		if one.keyring, err = meta.NewKeyring(t.TempDir() + "/key"); err != nil {
			t.Fatal(err)
		}
		nodes := []*identity.Service{one.another(one.db), one.another(one.db)}
		type made struct {
			first identity.First
			err   error
		}
		answers := make(chan made, len(nodes))
		for _, n := range nodes {
			go func() {
				f, err := n.Bootstrap(context.Background())
				answers <- made{f, err}
			}()
		}
		a, b := <-answers, <-answers
		if a.err != nil || b.err != nil {
			t.Fatal(a.err, b.err)
		}
		if (a.first.Secret == "") == (b.first.Secret == "") {
			t.Errorf("one of the two must have made the principal: %+v, %+v", a.first, b.first)
		}
		a.first.Secret, b.first.Secret = "", ""
		if a.first != b.first {
			t.Errorf("two installations: %+v, %+v", a.first, b.first)
		}
	})
}

// What is kept of a secret does not give it back: a fast hash of what was generated, a slow one of what a person chose.
func TestSecretsAreHashed(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		const chosen = "correct horse battery"
		b.write(func(tx *meta.Tx) error {
			_, _, err := b.CreatePrincipal(tx, identity.User, "ada@example.com", chosen)
			return err
		})
		kinds := map[string]int{}
		if err := b.read(func(tx *meta.Tx) error {
			rows, err := tx.Query(`SELECT hash, hint FROM principal_secrets`)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var hash, hint string
				if err := rows.Scan(&hash, &hint); err != nil {
					return err
				}
				kind, _, _ := strings.Cut(hash, ":")
				kinds[kind]++
				if strings.Contains(hash, chosen) || strings.Contains(hash, string(b.first.Secret)) || len(hint) > 3 {
					t.Errorf("the row tells the secret: %s %s", hash, hint)
				}
			}
			return rows.Err()
		}); err != nil {
			t.Fatal(err)
		}
		if kinds["sha256"] != 1 || kinds["argon2id"] != 1 {
			t.Errorf("kinds of hashes: %v", kinds)
		}
	})
}

// Rotation leaves the secret in use alive, and the one before that dead. A secret with an end ends.
func TestRotate(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		p, one := b.principal(identity.ServicePrincipal, "ci", "", name.ResourceID{})
		rotate := func(until time.Time) string {
			var secret string
			b.write(func(tx *meta.Tx) (err error) { _, secret, err = b.RotateSecretUntil(tx, "CI", until); return err })
			return secret
		}
		alive := func(secret string, want bool) {
			t.Helper()
			_, _, err := b.Login(t.Context(), strings.ToUpper(p.AppID), secret)
			if want && err != nil {
				t.Error(err)
			}
			if !want {
				wantFault(t, err, fault.InvalidToken)
			}
		}
		two := rotate(time.Time{})
		alive(one, true)
		alive(two, true)
		three := rotate(time.Now().Add(time.Hour))
		alive(one, false)
		alive(two, true)
		alive(three, true)
		b.pass(2 * time.Hour)
		alive(three, false)
		alive(two, true)
		if err := b.read(func(tx *meta.Tx) error {
			all, err := b.Principals(tx)
			if len(all) != 2 || len(all[0].Secrets) != 2 || all[0].Secrets[1].Hint != three[:3] || all[0].Secrets[1].Expires.IsZero() {
				t.Errorf("the list of principals: %+v", all)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// Command lines take what begins with "-" for an option, so no generated secret does: 400 of each kind.
func TestSecretsOnCommandLines(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		b.principal(identity.ServicePrincipal, "ci", "", name.ResourceID{})
		k := b.at(b.registry("contoso"))
		b.write(func(tx *meta.Tx) error {
			for range 400 {
				_, client, err := b.RotateSecretUntil(tx, "ci", time.Time{})
				if err != nil {
					return err
				}
				admin, err := b.RegenerateAdminPassword(tx, k.row.ID, "password")
				if err != nil {
					return err
				}
				token, err := b.GenerateTokenPassword(tx, "a token", identity.TokenPasswordNames[0], time.Time{})
				if err != nil {
					return err
				}
				for _, secret := range []string{client, admin, token} {
					if strings.HasPrefix(secret, "-") || strings.HasPrefix(secret, "_") {
						t.Errorf("the secret %q was generated", secret)
					}
				}
			}
			return nil
		})
	})
}

// Users log in by name, in any case; whoever can't log in learns nothing about why.
func TestUsers(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		const chosen = "correct horse battery"
		create := func(n, password string) error {
			return b.db.Write(t.Context(), func(tx *meta.Tx) error {
				_, _, err := b.CreatePrincipal(tx, identity.User, n, password)
				return err
			})
		}
		wantFault(t, create("short@example.com", "too short"), fault.InvalidParameter)
		wantFault(t, create("11111111-2222-3333-4444-555555555555", chosen), fault.InvalidParameter)
		wantFault(t, create("a\nb", chosen), fault.InvalidParameter)
		if err := create("Ada@Example.com", chosen); err != nil {
			t.Fatal(err)
		}
		wantFault(t, create("ada@example.COM", chosen), fault.Conflict)
		p, credential, err := b.Login(t.Context(), "ada@example.com", chosen)
		if err != nil || p.Type != identity.User || credential == "" {
			t.Errorf("%+v, %q, %v", p, credential, err)
		}
		var texts []string
		refused := func(client, secret string) {
			t.Helper()
			_, _, err := b.Login(t.Context(), client, secret)
			wantFault(t, err, fault.InvalidToken)
			texts = append(texts, fmt.Sprint(err))
		}
		refused("ada@example.com", "correct horse batterz")
		refused("nobody@example.com", chosen)
		refused("ada@example.com", strings.Repeat("x", 1<<20))
		refused(p.ID, chosen)
		b.write(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, p.AppID, false); return err })
		refused("ada@example.com", chosen)
		for _, text := range texts[1:] {
			if text != texts[0] {
				t.Errorf("the refusals differ: %q, %q", texts[0], text)
			}
		}
		b.write(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, p.AppID, true); return err })
		if _, _, err := b.Login(t.Context(), "ada@example.com", chosen); err != nil {
			t.Error(err)
		}
		b.write(func(tx *meta.Tx) error { _, err := b.DeletePrincipal(tx, "ADA@example.com"); return err })
		refused("ada@example.com", chosen)
		err = b.db.Write(t.Context(), func(tx *meta.Tx) error { _, err := b.DeletePrincipal(tx, p.ID); return err })
		wantFault(t, err, fault.PrincipalNotFound)
	})
}

// A managed identity is found by its secret alone, and nobody else is.
func TestManagedIdentity(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		if bound, err := b.HasManagedIdentity(t.Context()); err != nil || bound {
			t.Error("there is a managed identity before one is made", err)
		}
		_, _, err := b.LoginManaged(t.Context(), string(b.first.Secret))
		wantFault(t, err, fault.InvalidToken)
		p, secret := b.principal(identity.ManagedIdentity, "vm", "", name.ResourceID{})
		if bound, err := b.HasManagedIdentity(t.Context()); err != nil || !bound {
			t.Error("the managed identity is not there", err)
		}
		got, _, err := b.LoginManaged(t.Context(), secret)
		if err != nil || got.ID != p.ID {
			t.Errorf("%+v, %v", got, err)
		}
		_, _, err = b.Login(t.Context(), p.AppID, secret)
		wantFault(t, err, fault.InvalidToken)
	})
}

// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

// What the token specification and its clients send, and what is left out of it.
func TestParseScopes(t *testing.T) {
	acc := func(typ, name string, actions ...string) identity.Access {
		return identity.Access{Type: typ, Name: name, Actions: actions}
	}
	for _, c := range []struct {
		in   []string
		want []identity.Access
	}{
		{nil, nil},
		{[]string{"repository:app:pull"}, []identity.Access{acc("repository", "app", "pull")}},
		{[]string{"repository:a/b:pull,push,pull"}, []identity.Access{acc("repository", "a/b", "pull", "push")}},
		{[]string{"repository:a:pull repository:b:push", "registry:catalog:*"}, []identity.Access{acc("repository", "a", "pull"), acc("repository", "b", "push"), acc("registry", "catalog", "*")}},
		{[]string{"", "  ", "x", "repository", "repository:a", "repository::pull", "repository:a:", "repository:a:,", ":a:pull", "registry:other:*", "plugin:a:pull",
			"repository:../a:pull", "repository:A:pull", "repository:host:5000/a:pull"}, nil},
	} {
		if got := identity.ParseScopes(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, want %+v", c.in, got, c.want)
		}
	}
	many := identity.ParseScopes(slices.Repeat([]string{"repository:a:pull"}, 10000))
	if len(many) != 100 {
		t.Errorf("%d scopes are taken", len(many))
	}
}

// Whatever is asked, what is read of it is well-formed.
func FuzzParseScopes(f *testing.F) {
	f.Add("repository:app:pull,push registry:catalog:*")
	f.Add("repository:a:b:c:pull")
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range identity.ParseScopes([]string{text}) {
			if len(a.Actions) == 0 || slices.Contains(a.Actions, "") {
				t.Errorf("%q: %+v", text, a)
			}
			if _, err := name.ParseRepository(a.Name); a.Type == "repository" && err != nil || a.Type == "registry" && a.Name != "catalog" {
				t.Errorf("%q: %+v", text, a)
			}
		}
	})
}

// No text but a token that was issued opens anything, and none fails otherwise than as an invalid token.
func FuzzTokens(f *testing.F) {
	db := metatest.Open(f, metatest.URL(f, "sqlite"))
	keyring, err := meta.NewKeyring(filepath.Join(f.TempDir(), "key"))
	if err != nil {
		f.Fatal(err)
	}
	s, err := identity.New(f.Context(), identity.Options{DB: db, Keyring: keyring})
	if err != nil {
		f.Fatal(err)
	}
	first, err := s.Bootstrap(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	issued, err := s.IssueARM(f.Context(), first.Tenant, identity.Principal{ID: first.Principal, AppID: first.ClientID, Type: identity.ServicePrincipal}, armAudience)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(issued)
	f.Add(issued[:40])
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Add("\x00")
	row := meta.RegistryRow{ID: "r", Name: "contoso", LoginServer: "contoso.azurecr.localhost", ResourceID: "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/contoso", AdminEnabled: true}
	f.Fuzz(func(t *testing.T, token string) {
		if c, err := s.Authenticate(t.Context(), token); err == nil && c.ID != first.Principal || err != nil && !fault.Is(err, fault.InvalidToken) {
			t.Errorf("%q: %+v, %v", token, c, err)
		}
		err := db.Read(t.Context(), func(tx *meta.Tx) error {
			for _, user := range []string{identity.NullUser, "contoso", first.ClientID, token} {
				if c, err := s.Basic(t.Context(), tx, row, user, token); !fault.Is(err, fault.InvalidToken) {
					t.Errorf("%q with %q is %+v, %v", user, token, c, err)
				}
			}
			if c, err := s.VerifyRegistryToken(t.Context(), tx, row, token); !fault.Is(err, fault.InvalidToken) {
				t.Errorf("%q: %+v, %v", token, c, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

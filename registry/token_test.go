// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

// token is a registry's token as its client has it, and what changes it.
type token struct {
	*host
	known identity.RegistryToken
}

func (h *host) token(t *testing.T, called, scopeMap string) *token {
	t.Helper()
	k := &token{}
	h.w.write(func(tx *meta.Tx) (err error) {
		if k.known, err = h.w.ids.PutRegistryToken(tx, h.row.ID, identity.RegistryToken{Name: called, ScopeMap: scopeMap, Enabled: true}); err != nil {
			return err
		}
		p := *h
		k.host = &p
		p.user = called
		p.password, err = h.w.ids.GenerateTokenPassword(tx, k.known.ID, "password1", time.Time{})
		return err
	})
	return k
}

func (w *world) write(fn func(tx *meta.Tx) error) {
	w.t.Helper()
	if err := w.db.Write(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (h *host) scopeMap(called string, actions ...string) {
	h.w.write(func(tx *meta.Tx) error {
		return h.w.ids.PutScopeMap(tx, h.row.ID, identity.ScopeMap{Name: called, Actions: actions})
	})
}

// A token may what its scope map says, repository by repository and action by action, and what a map says anew holds from the next request on.
func TestTokensAndScopeMaps(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := h.image("app/one", "v1", "a")
		h.image("app/two", "v1", "b")
		h.image("other", "v1", "c")
		h.scopeMap("readers", "repositories/app/*/content/read", "repositories/other/metadata/read")
		k := h.token(t, "ci-token", "readers")
		type ask struct {
			status       int
			method, path string
		}
		check := func(what string, asks ...ask) {
			t.Helper()
			for _, a := range asks {
				k.do(a.status, a.method, a.path, m, "Content-Type", mediaImage)
			}
		}
		const one, other = "/v2/app/one/manifests/v1", "/v2/other/manifests/v1"
		check("reads", ask{200, "GET", one}, ask{200, "GET", "/v2/app/two/manifests/v1"}, ask{403, "GET", other}, ask{403, "PUT", one}, ask{403, "DELETE", one},
			ask{403, "GET", "/acr/v1/app/one"}, ask{403, "GET", "/acr/v1/app/one/_tags"}, ask{200, "GET", "/acr/v1/other"}, ask{403, "PATCH", "/acr/v1/other"}, ask{403, "GET", "/v2/application/manifests/v1"})
		list, _ := k.acr(t, 200, "GET", "_catalog", "")
		if !slices.Equal(list.Repositories, []string{"app/one", "app/two", "other"}) {
			t.Errorf("the catalog of a token: %v", list.Repositories)
		}
		// A bearer token narrows further, and never widens.
		bearer := k.as(w.tokenOf(k.host, "repository:app/one:pull,push", "repository:other:pull"))
		bearer.do(200, "GET", one, nil)
		bearer.do(401, "PUT", one, m, "Content-Type", mediaImage)
		bearer.do(401, "GET", other, nil)

		h.scopeMap("readers", "repositories/other/content/read", "repositories/other/content/write", "repositories/other/content/delete")
		check("the map was changed", ask{403, "GET", one}, ask{200, "GET", other})
		bearer.do(401, "GET", one, nil)
		k.image("other", "v2", "d")
		check("writes", ask{202, "DELETE", "/v2/other/manifests/v2"})
		for system, asks := range map[string][]ask{
			"_repositories_pull":                {{200, "GET", one}, {403, "PUT", one}, {403, "GET", "/acr/v1/other"}},
			"_repositories_pull_metadata_read":  {{200, "GET", one}, {403, "PUT", one}, {200, "GET", "/acr/v1/other"}},
			"_repositories_push":                {{201, "PUT", one}, {403, "DELETE", "/v2/other/manifests/v1"}, {403, "GET", "/acr/v1/other"}},
			"_repositories_push_metadata_write": {{201, "PUT", one}, {200, "GET", "/acr/v1/other"}, {200, "PATCH", "/acr/v1/other"}, {403, "DELETE", one}},
			"_repositories_admin":               {{201, "PUT", one}, {202, "DELETE", one}, {201, "PUT", one}, {200, "PATCH", "/acr/v1/other"}},
		} {
			w.write(func(tx *meta.Tx) (err error) {
				k.known.ScopeMap = system
				k.known, err = w.ids.PutRegistryToken(tx, h.row.ID, k.known)
				return err
			})
			check(system, asks...)
		}
	})
}

// What proved a token is refused from the next request on, its refresh and access tokens too, however it became void.
func TestRevokedTokens(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "a")
		elsewhere := w.registry("fabrikam")
		const path = "/v2/app/manifests/v1"
		for why, void := range map[string]func(tx *meta.Tx, k *token) error{
			"disabled": func(tx *meta.Tx, k *token) error {
				k.known.Enabled = false
				_, err := w.ids.PutRegistryToken(tx, h.row.ID, k.known)
				return err
			},
			"deleted": func(tx *meta.Tx, k *token) error { return w.ids.DeleteRegistryToken(tx, h.row.ID, k.known.Name) },
			"another password": func(tx *meta.Tx, k *token) error {
				_, err := w.ids.GenerateTokenPassword(tx, k.known.ID, "password1", time.Time{})
				return err
			},
			"its password removed": func(tx *meta.Tx, k *token) error {
				return w.ids.KeepTokenPasswords(tx, k.known.ID, []string{"password2"})
			},
			"expired": func(tx *meta.Tx, k *token) error {
				_, err := tx.Exec(`UPDATE token_passwords SET expires_us = $1 WHERE token = $2`, meta.Micros(time.Now().Add(-time.Second)), k.known.ID)
				return err
			},
		} {
			k := h.token(t, "ci-token", "_repositories_pull")
			bearer := k.as(w.tokenOf(k.host, "repository:app:pull"))
			k.do(200, "GET", path, nil)
			bearer.do(200, "GET", path, nil)
			stranger := *elsewhere
			stranger.user, stranger.password = k.user, k.password
			stranger.do(401, "GET", "/v2/", nil)
			w.write(func(tx *meta.Tx) error { return void(tx, k) })
			if a := k.do(401, "GET", path, nil); a.code() != "UNAUTHORIZED" {
				t.Errorf("%s: %s", why, a.body)
			}
			bearer.do(401, "GET", path, nil)
			w.write(func(tx *meta.Tx) error { return w.ids.DeleteRegistryToken(tx, h.row.ID, k.known.Name) })
			again := h.token(t, "ci-token", "_repositories_pull") // one made anew under the name is another one
			again.do(200, "GET", path, nil)
			bearer.do(401, "GET", path, nil)
			w.write(func(tx *meta.Tx) error { return w.ids.DeleteRegistryToken(tx, h.row.ID, k.known.Name) })
		}
	})
}

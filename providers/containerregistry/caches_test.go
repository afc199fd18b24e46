// SPDX-License-Identifier: Apache-2.0

package containerregistry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/providers/containerregistry/cacherules"
	"github.com/embargo-registry/embargo/providers/containerregistry/credentialsets"
	"github.com/embargo-registry/embargo/upstream"
)

// listed are the upstreams that the operator has listed here.
func listed() *upstream.Service {
	list := []upstream.Upstream{{Host: "docker.io"}, {Host: "mirror.example:5000"}, {Host: "10.1.2.3"}, {Host: "10.1.2.4", Inside: true}}
	d, err := dial.New(dial.Options{Rules: upstream.Rules(list)})
	if err != nil {
		return nil
	}
	s, err := upstream.New(upstream.Options{Dial: d, Upstreams: list})
	if err != nil {
		return nil
	}
	return s
}

// caches are the real parts behind the types of caching.
func caches(t *testing.T, s *identity.Service) (cacherules.Options, credentialsets.Options) {
	t.Helper()
	ring, err := meta.NewKeyring(filepath.Join(t.TempDir(), "caches.key"))
	if err != nil {
		t.Fatal(err)
	}
	check := listed().CheckHost
	return cacherules.Options{Identity: s, Check: check}, credentialsets.Options{Identity: s, Keyring: ring, Check: check}
}

// put makes or changes a child of a registry and tells what it was answered.
func (r *rooms) put(t *testing.T, method, registry, child, properties string) (int, string) {
	t.Helper()
	a := r.Call("owner", method, path(registry, newest, child), `{"properties":{`+properties+`}}`)
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(text)
}

func rule(source, target string) string {
	return fmt.Sprintf(`"sourceRepository":%q,"targetRepository":%q`, source, target)
}

// TestCacheRuleForms: what a cache rule can't be, each refused by its rule.
func TestCacheRuleForms(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "registryone", "Basic", "")
	for i, c := range []struct{ source, target, want string }{
		{"docker.io/library/nginx", "nginx", ""},
		{"docker.io/library/redis", "nginx", "overlaps"},
		{"docker.io/library/*", "library/*", ""},
		{"docker.io/library/redis", "library/redis", ""},
		{"mirror.example:5000/*", "*", "overlaps"},
		{"mirror.example:5000/a/*", "library/a/*", "overlaps"},
		{"mirror.example:5000/*", "mirror/*", ""},
		{"docker.io/library/*", "other", "do not match"},
		{"docker.io/library/one", "other/*", "do not match"},
		{"docker.io/library/on*", "on*", "is not a"},
		{"docker.io/*/one", "*/one", "is not a"},
		{"docker.io/Library/one", "one", "is not a"},
		{"docker.io/nginx", "hubnginx", "docker.io/library/nginx"},
		{"docker.io/library/one:latest", "one", "is not a"},
		{"docker.io", "one", "is not a"},
		{"library/one", "one", "is not a"},
		{"https://docker.io/library/one", "one", "is not a"},
		{"elsewhere.example/one", "one", "not among the upstreams"},
		{"10.1.2.3/one", "one", "inside: true"},
		{"10.1.2.4/one", "one", ""},
	} {
		status, text := r.put(t, "PUT", "registryone", fmt.Sprintf("/cacheRules/rule-%02d", i), rule(c.source, c.target))
		if c.want == "" && status != 201 || c.want != "" && (status != 400 && status != 409 || !strings.Contains(text, c.want)) {
			t.Errorf("%s to %s: %d %s", c.source, c.target, status, text)
		}
	}
	for _, change := range []string{rule("docker.io/library/redis", "nginx"), rule("docker.io/library/nginx", "redis")} {
		if status, text := r.put(t, "PATCH", "registryone", "/cacheRules/rule-00", change); status != 400 {
			t.Errorf("a changed rule: %d %s", status, text)
		}
	}
}

// TestCredentialSets: values are given as data URIs, sealed, never shown, kept by what is shown in their place; a rule asks only the upstream that its set is for.
func TestCredentialSets(t *testing.T) {
	t.Parallel()
	eachRooms(t, func(t *testing.T, r *rooms) {
		r.make(t, "registryone", "Standard", "")
		set := path("registryone", newest, "/credentialSets/set-one")
		body := func(user, password string) string {
			return fmt.Sprintf(`{"identity":{"type":"SystemAssigned"},"properties":{"loginServer":"docker.io","authCredentials":[{"name":"Credential1","usernameSecretIdentifier":%q,"passwordSecretIdentifier":%q}]}}`, user, password)
		}
		for _, wrong := range []string{"https://vault.vault.azure.net/secrets/one", "hunter2secret", "data:,", "data:,a%0Ab", "data:;base64,!!", "embargo:sealed/00"} {
			refused := r.Must(t, 400, "PUT", set, body("data:,someone", wrong))
			if text, _ := json.Marshal(refused); strings.Contains(string(text), "hunter2secret") {
				t.Errorf("a secret is told: %s", text)
			}
		}
		made := r.Must(t, 201, "PUT", set, body("data:,some%20one", "data:;base64,aHVudGVyMnNlY3JldA=="))
		one := func(doc map[string]any, member string) string {
			return fmt.Sprint(at(doc, "properties.authCredentials").([]any)[0].(map[string]any)[member])
		}
		shown := one(made, "passwordSecretIdentifier")
		if !upstream.Sealed(shown) || at(made, "identity.type") != "systemAssigned" || at(made, "identity.principalId") == nil || at(made, "properties.provisioningState") != "Succeeded" ||
			!strings.Contains(one(made, "credentialHealth"), "Healthy") {
			t.Errorf("the set is %v", made)
		}
		again := r.Must(t, 200, "PUT", set, body("data:,other", shown))
		if one(again, "passwordSecretIdentifier") != shown || at(again, "identity.principalId") != at(made, "identity.principalId") {
			t.Errorf("what was shown does not keep: %v", again)
		}
		r.holds(t, set, upstream.Credentials{User: "other", Password: "hunter2secret"})
		id := at(made, "id").(string)
		for _, c := range []struct {
			source, set string
			want        int
		}{{"mirror.example:5000/one", id, 400}, {"docker.io/library/one", id + "x", 400}, {"docker.io/library/one", id, 201}} {
			if status, text := r.put(t, "PUT", "registryone", "/cacheRules/rule-one", rule(c.source, "one")+`,"credentialSetResourceId":"`+c.set+`"`); status != c.want {
				t.Errorf("a rule with %s for %s: %d %s", c.set, c.source, status, text)
			}
		}
		if text := fmt.Sprint(r.Must(t, 409, "DELETE", set, "")); !strings.Contains(text, "rule-one") {
			t.Errorf("a set in use: %s", text)
		}
		freed := r.Must(t, 200, "PATCH", path("registryone", newest, "/cacheRules/rule-one"), `{"properties":{"credentialSetResourceId":null}}`)
		if at(freed, "properties.credentialSetResourceId") != nil || at(freed, "properties.sourceRepository") != "docker.io/library/one" {
			t.Errorf("the rule is %v", freed)
		}
		if a := r.Call("owner", "DELETE", set, ""); a.StatusCode != 204 {
			t.Errorf("delete: %d", a.StatusCode)
		}
		if text := r.dump(t); strings.Contains(text, "hunter2secret") || strings.Contains(text, upstream.SecretPrefix) || strings.Contains(text, "aHVudGVyMnNlY3JldA") {
			t.Error("a secret lies in the clear, or is left")
		}
		entries, err := r.log.Read(t.Context(), audit.Query{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := json.Marshal(entries); strings.Contains(string(text), "aHVudGVyMnNlY3JldA") || strings.Contains(string(text), "some one") || strings.Contains(string(text), "data:,other") || !strings.Contains(string(text), "set-one") {
			t.Errorf("the record has a secret, or lacks the set: %s", text)
		}
	})
}

// holds compares the sealed values of a set.
func (r *rooms) holds(t *testing.T, set string, want upstream.Credentials) {
	t.Helper()
	resource, _, _ := strings.Cut(strings.ReplaceAll(set, "{sub}", r.People.Subscription), "?")
	var got upstream.Credentials
	err := r.DB.Read(t.Context(), func(tx *meta.Tx) error {
		id, host, err := upstream.FindCredentials(tx, resource)
		if err == nil && host != "docker.io" {
			t.Errorf("the set is for %s", host)
		}
		if err == nil {
			got, err = upstream.OpenCredentials(tx, r.ring, id)
		}
		return err
	})
	if err != nil || got != want {
		t.Errorf("sealed is %v, %v", got, err)
	}
}

// TestCachesGoWithTheirRegistry: nothing of rules and sets is left of a registry that is deleted.
func TestCachesGoWithTheirRegistry(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "registryone", "Basic", "")
	if status, text := r.put(t, "PUT", "registryone", "/credentialSets/set-one", `"loginServer":"docker.io","authCredentials":[{"usernameSecretIdentifier":"data:,a","passwordSecretIdentifier":"data:,b"}]`); status != 201 {
		t.Fatalf("the set: %d %s", status, text)
	}
	made := r.Must(t, 200, "GET", path("registryone", newest, "/credentialSets/set-one"), "")
	id := at(made, "id")
	if one := fmt.Sprint(at(made, "properties.authCredentials")); !strings.Contains(one, "name:Credential1") {
		t.Errorf("without a name the credential is %s", one)
	}
	if status, text := r.put(t, "PUT", "registryone", "/cacheRules/rule-one", rule("docker.io/library/*", "*")+fmt.Sprintf(`,"credentialSetResourceId":%q`, id)); status != 201 {
		t.Fatalf("the rule: %d %s", status, text)
	}
	if a := r.Call("owner", "DELETE", path("registryone", newest), ""); a.StatusCode != 200 {
		t.Fatalf("delete: %d", a.StatusCode)
	}
	var left int
	err := r.DB.Read(t.Context(), func(tx *meta.Tx) error {
		return tx.Row(`SELECT (SELECT COUNT(*) FROM cache_rules) + (SELECT COUNT(*) FROM credential_sets) + (SELECT COUNT(*) FROM secrets WHERE name LIKE 'upstream/%')`).Scan(&left)
	})
	if err != nil || left != 0 {
		t.Errorf("%d rows are left, %v", left, err)
	}
}

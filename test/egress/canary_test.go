// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// cage is an installation with a locked registry "vaultone" that holds a canary, an open one "otherone", and a private door.
type cage struct {
	*instance.Server
	private          string // base URL of the private door
	canary, manifest []byte
}

func newCage(t *testing.T, kind string) *cage {
	t.Helper()
	door := instance.FreePort(t)
	s := instance.New(t, kind, "privateListeners:\n  - address: "+door+"\n    registry: vaultone\n    tls: false\n")
	c := &cage{Server: s, private: "http://" + door, canary: make([]byte, 256<<10)}
	if _, err := rand.Read(c.canary); err != nil {
		t.Fatal(err)
	}
	s.CreateRegistry("vaultone", nil)
	s.CreateRegistry("otherone", nil)
	var err error
	if c.manifest, err = s.PushImage("vaultone", "secret/cargo", "v1", c.canary); err != nil {
		t.Fatal(err)
	}
	if _, err = s.PushImage("otherone", "open/cargo", "v1", []byte("harmless")); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cage) lock(t *testing.T) {
	t.Helper()
	want(t, c.Lock("vaultone"), http.StatusOK)
}

// inside sends a request through the private door, as the first principal.
func (c *cage) inside(t *testing.T, method, path string) instance.Answer {
	t.Helper()
	token, a, err := c.RegistryToken(c.private, c.LoginServer("vaultone"), c.ClientID, c.ClientSecret, "repository:secret/cargo:pull")
	if err != nil || token == "" {
		t.Fatalf("no token through the private door: %v %d %s", err, a.Status, a.Body)
	}
	a, err = c.Do(method, c.private+path, nil, "Authorization", "Bearer "+token)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// held reports whether the answer lets the canary, or a window of it, or the manifest out.
func (c *cage) held(a instance.Answer) bool {
	return !bytes.Contains(a.Body, c.canary[:64]) && !bytes.Contains(a.Body, c.canary[len(c.canary)-64:]) && !bytes.Contains(a.Body, c.manifest)
}

func each(t *testing.T, fn func(t *testing.T, c *cage)) {
	t.Helper()
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) { fn(t, newCage(t, kind)) })
	}
}

// TestR1PullInsideIsServedAndRecorded: the lock does not stop authorised pulls inside the network, and each is on record.
func TestR1PullInsideIsServedAndRecorded(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		c.lock(t)
		a := c.inside(t, http.MethodGet, "/v2/secret/cargo/blobs/"+instance.Digest(c.canary))
		if a.Status != http.StatusOK || !bytes.Equal(a.Body, c.canary) {
			t.Fatalf("the private door gave %d and %d bytes", a.Status, len(a.Body))
		}
		r := c.Recorded(t.Context(), "the pull", func(r map[string]any) bool {
			source, _ := r["source"].(map[string]any)
			zone, _ := source["zone"].(string)
			return r["route"] == "R1" && r["digest"] == instance.Digest(c.canary) && r["outcome"] == "completed" && strings.HasPrefix(zone, "private/")
		})
		if r["bytes"] != float64(len(c.canary)) {
			t.Errorf("the record tells %v bytes of %d", r["bytes"], len(c.canary))
		}
	})
}

// TestR1NoTokenNoContent: inside the network too, nothing is served without a token or with another registry's.
func TestR1NoTokenNoContent(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		path := "/v2/secret/cargo/blobs/" + instance.Digest(c.canary)
		a, err := c.Do(http.MethodGet, c.private+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		want(t, a, http.StatusUnauthorized)
		other, _, err := c.RegistryToken("https://"+c.LoginServer("otherone"), c.LoginServer("otherone"), c.ClientID, c.ClientSecret, "repository:secret/cargo:pull")
		if err != nil || other == "" {
			t.Fatal("no token of the other registry", err)
		}
		a, err = c.Do(http.MethodGet, c.private+path, nil, "Authorization", "Bearer "+other)
		if err != nil {
			t.Fatal(err)
		}
		want(t, a, http.StatusUnauthorized)
	})
}

// TestR2PublicSideServesNothing: with public access disabled every path of the public login server answers the firewall's 403, before
// authentication and whatever the headers say.
func TestR2PublicSideServesNothing(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		base := "https://" + c.LoginServer("vaultone")
		token, _, err := c.RegistryToken(base, c.LoginServer("vaultone"), c.ClientID, c.ClientSecret, "repository:secret/cargo:pull")
		if err != nil || token == "" {
			t.Fatal("no token before the lock", err)
		}
		c.lock(t)
		digest := instance.Digest(c.canary)
		for _, path := range []string{
			"/v2/", "/v2/_catalog", "/v2/secret/cargo/tags/list", "/v2/secret/cargo/manifests/v1", "/v2/secret/cargo/manifests/" + instance.Digest(c.manifest),
			"/v2/secret/cargo/blobs/" + digest, "/v2/absent/blobs/" + digest, "/v2/secret/cargo/referrers/" + instance.Digest(c.manifest),
			"/oauth2/token?service=x&scope=repository:secret/cargo:pull", "/acr/v1/_catalog", "/", "/anything",
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
				a, err := c.Do(method, base+path, nil, "Authorization", "Bearer "+token, "X-Forwarded-For", "127.0.0.1", "X-Real-IP", "10.0.0.1",
					"Forwarded", "for=10.0.0.1", "X-Forwarded-Host", "localhost", "X-Azure-Private", "true")
				if err != nil {
					t.Fatal(err)
				}
				if a.Status != http.StatusForbidden || !c.held(a) {
					t.Errorf("%s %s: %d %s", method, path, a.Status, a.Body)
				}
				if method != http.MethodHead {
					want(t, a, http.StatusForbidden, "DENIED", "is not allowed access")
				}
			}
		}
	})
}

// TestR4ImportFromLockedSource: no other registry imports from it, by whatever name it is called; within itself it may.
func TestR4ImportFromLockedSource(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		open := c.Import("otherone", j{"resourceId": c.RegistryID("vaultone"), "sourceImage": "secret/cargo:v1"}, "copy:before")
		want(t, open, http.StatusOK)
		c.lock(t)
		login, id := c.LoginServer("vaultone"), c.RegistryID("vaultone")
		creds := j{"username": c.ClientID, "password": c.ClientSecret}
		digest := "secret/cargo@" + instance.Digest(c.manifest)
		for name, source := range map[string]j{
			"id":                {"resourceId": id, "sourceImage": "secret/cargo:v1"},
			"id in other case":  {"resourceId": strings.ToUpper(id), "sourceImage": "secret/cargo:v1"},
			"digest":            {"resourceId": id, "sourceImage": digest},
			"login server":      {"registryUri": login, "sourceImage": "secret/cargo:v1"},
			"upper case":        {"registryUri": strings.ToUpper(login), "sourceImage": "secret/cargo:v1"},
			"with a scheme":     {"registryUri": "https://" + login, "sourceImage": "secret/cargo:v1"},
			"with a port":       {"registryUri": login + ":443", "sourceImage": "secret/cargo:v1"},
			"trailing dot":      {"registryUri": login + ".", "sourceImage": "secret/cargo:v1"},
			"with credentials":  {"registryUri": login, "credentials": creds, "sourceImage": "secret/cargo:v1"},
			"private address":   {"registryUri": strings.TrimPrefix(c.private, "http://"), "credentials": creds, "sourceImage": "secret/cargo:v1"},
			"private by name":   {"registryUri": strings.Replace(strings.TrimPrefix(c.private, "http://"), "127.0.0.1", "localhost", 1), "credentials": creds, "sourceImage": "secret/cargo:v1"},
			"through the proxy": {"registryUri": strings.TrimPrefix(c.Proxy, "http://"), "credentials": creds, "sourceImage": "secret/cargo:v1"},
		} {
			a := c.Import("otherone", source, "copy:after")
			if a.Status < 400 || a.Status > 499 {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
		}
		a := c.Import("otherone", j{"resourceId": id, "sourceImage": "secret/cargo:v1"}, "copy:after")
		want(t, a, http.StatusBadRequest, "exports disabled", "vaultone")
		got, err := c.OCI("otherone", "copy", http.MethodGet, "/v2/copy/manifests/after", nil)
		if err != nil {
			t.Fatal(err)
		}
		want(t, got, http.StatusNotFound)
		want(t, c.Import("vaultone", j{"resourceId": id, "sourceImage": "secret/cargo:v1"}, "secret/again:v1"), http.StatusOK)
		want(t, c.Import("vaultone", j{"resourceId": c.RegistryID("otherone"), "sourceImage": "open/cargo:v1"}, "open/in:v1"), http.StatusOK)
	})
}

// TestR5NoPipelineFromLockedRegistry: an export pipeline can't be made.
func TestR5NoPipelineFromLockedRegistry(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		c.lock(t)
		want(t, c.ARM(http.MethodPut, c.RegistryID("vaultone")+"/exportPipelines/outbound"+instance.Version, pipeline()), http.StatusBadRequest, "exports disabled")
		want(t, c.ARM(http.MethodGet, c.RegistryID("vaultone")+"/exportPipelines/outbound"+instance.Version, nil), http.StatusNotFound)
	})
}

// TestR11R12R28OtherRegistriesAreStrangers: content of the locked registry is nowhere else, neither by digest, nor by mount, nor by a
// manifest that names it; an upload of the same bytes is taken in full.
func TestR11R12R28OtherRegistriesAreStrangers(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		digest := instance.Digest(c.canary)
		for _, path := range []string{"/v2/open/cargo/blobs/" + digest, "/v2/open/cargo/manifests/" + instance.Digest(c.manifest)} {
			a, err := c.OCI("otherone", "open/cargo", http.MethodGet, path, nil)
			if err != nil {
				t.Fatal(err)
			}
			want(t, a, http.StatusNotFound)
		}
		for _, from := range []string{"secret/cargo", c.LoginServer("vaultone") + "/secret/cargo", "absent/repo"} {
			a, err := c.OCI("otherone", "open/cargo", http.MethodPost, "/v2/open/cargo/blobs/uploads/?mount="+url.QueryEscape(digest)+"&from="+url.QueryEscape(from), nil)
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != http.StatusAccepted {
				t.Errorf("a mount from %s answers %d, not 202: %s", from, a.Status, a.Body)
			}
		}
		naming := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`,
			instance.ManifestType, digest, len(c.canary))
		a, err := c.OCI("otherone", "open/cargo", http.MethodPut, "/v2/open/cargo/manifests/stolen", []byte(naming), "Content-Type", instance.ManifestType)
		if err != nil {
			t.Fatal(err)
		}
		if a.Status < 400 || a.Status > 499 {
			t.Errorf("a manifest that names another registry's blob: %d %s", a.Status, a.Body)
		}
		if err := c.PushBlob("otherone", "open/cargo", c.canary); err != nil {
			t.Errorf("who has the bytes may push them: %v", err)
		}
	})
}

// TestR20OldTokensAreJudgedByThePolicyNow: a token made before the lock opens nothing on the public side after it, on a connection
// that was open all the while.
func TestR20OldTokensAreJudgedByThePolicyNow(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		base, path := "https://"+c.LoginServer("vaultone"), "/v2/secret/cargo/blobs/"+instance.Digest(c.canary)
		token, _, err := c.RegistryToken(base, c.LoginServer("vaultone"), c.ClientID, c.ClientSecret, "repository:secret/cargo:pull")
		if err != nil || token == "" {
			t.Fatal("no token", err)
		}
		a, err := c.Do(http.MethodGet, base+path, nil, "Authorization", "Bearer "+token)
		if err != nil || a.Status != http.StatusOK || !bytes.Equal(a.Body, c.canary) {
			t.Fatalf("before the lock: %v %d", err, a.Status)
		}
		c.lock(t)
		a, err = c.Do(http.MethodGet, base+path, nil, "Authorization", "Bearer "+token)
		if err != nil {
			t.Fatal(err)
		}
		want(t, a, http.StatusForbidden, "is not allowed access")
	})
}

// TestR22EveryFlipIsRecorded: who changed the policy, from where, and what.
func TestR22EveryFlipIsRecorded(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		c.lock(t)
		r := c.Recorded(t.Context(), "the flip", func(r map[string]any) bool {
			return r["kind"] == "change" && r["resource"] == c.RegistryID("vaultone") &&
				strings.Contains(fmt.Sprint(r["before"]), "exportPolicy:map[status:enabled]") &&
				strings.Contains(fmt.Sprint(r["after"]), "exportPolicy:map[status:disabled]")
		})
		source, _ := r["source"].(map[string]any)
		caller, _ := r["caller"].(map[string]any)
		if id, _ := caller["id"].(string); id == "" || !strings.HasPrefix(fmt.Sprint(source["address"]), "127.0.0.1:") {
			t.Errorf("the flip's record does not tell who and from where: %v", r)
		}
	})
}

// TestR27RecreatedRegistryIsEmpty: a registry made anew under the name has nothing of the old one, and the old one's tokens are void.
func TestR27RecreatedRegistryIsEmpty(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		base, path := "https://"+c.LoginServer("vaultone"), "/v2/secret/cargo/blobs/"+instance.Digest(c.canary)
		old, _, err := c.RegistryToken(base, c.LoginServer("vaultone"), c.ClientID, c.ClientSecret, "repository:secret/cargo:pull")
		if err != nil || old == "" {
			t.Fatal("no token", err)
		}
		c.lock(t)
		c.Wait(c.ARM(http.MethodDelete, c.RegistryID("vaultone")+instance.Version, nil))
		c.CreateRegistry("vaultone", nil)
		a, err := c.Do(http.MethodGet, base+path, nil, "Authorization", "Bearer "+old)
		if err != nil {
			t.Fatal(err)
		}
		want(t, a, http.StatusUnauthorized)
		a, err = c.OCI("vaultone", "secret/cargo", http.MethodGet, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		want(t, a, http.StatusNotFound)
	})
}

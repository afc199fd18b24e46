// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"bytes"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// newer is an api-version that has cache rules.
const newer = "?api-version=2025-11-01"

// source is another installation, with an image in its registry sourceone, and the address of a TLS door to that.
func source(t *testing.T) (s *instance.Server, at string, layer []byte) {
	t.Helper()
	at = instance.FreePort(t)
	s = instance.New(t, "sqlite", "privateListeners:\n  - address: "+at+"\n    registry: sourceone\n    tls: true\n")
	s.CreateRegistry("sourceone", nil)
	layer = []byte("a layer from outside")
	if _, err := s.PushImage("sourceone", "library/one", "v1", layer); err != nil {
		t.Fatal(err)
	}
	return s, at, layer
}

// outside is the configuration of an installation that caches: entries are the upstreams, door is a plain door to cargoone.
func outside(up *instance.Server, door string, entries ...string) string {
	list := ""
	for _, e := range entries {
		list += "    - {" + e + "}\n"
	}
	return "upstreams:\n  roots: " + up.CAFile + "\n  registries:\n" + list + "privateListeners:\n  - address: " + door + "\n    registry: cargoone\n    tls: false\n"
}

func cacheRule(s *instance.Server, name, from, to, set string) instance.Answer {
	properties := j{"sourceRepository": from, "targetRepository": to}
	if set != "" {
		properties["credentialSetResourceId"] = set
	}
	return s.ARM(http.MethodPut, s.RegistryID("cargoone")+"/cacheRules/"+name+newer, j{"properties": properties})
}

// credentialSet seals the source's credentials for an upstream and returns the set's id.
func credentialSet(t *testing.T, s, up *instance.Server, name, host string) string {
	t.Helper()
	a := s.ARM(http.MethodPut, s.RegistryID("cargoone")+"/credentialSets/"+name+newer, j{"identity": j{"type": "SystemAssigned"}, "properties": j{"loginServer": host, "authCredentials": []j{{
		"name": "Credential1", "usernameSecretIdentifier": "data:," + url.PathEscape(up.ClientID), "passwordSecretIdentifier": "data:," + url.PathEscape(up.ClientSecret)}}}})
	want(t, a, http.StatusCreated)
	if strings.Contains(string(a.Body), up.ClientSecret) {
		t.Errorf("the answer has the secret: %s", a.Body)
	}
	return a.Get("id")
}

// byDoor pulls by the plain door as the first principal.
func byDoor(t *testing.T, s *instance.Server, door, path string) instance.Answer {
	t.Helper()
	a, err := s.Do(http.MethodGet, "http://"+door+path, nil, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(s.ClientID+":"+s.ClientSecret)))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestCacheThroughTheBinary: a locked registry of one installation caches from a registry of another, with sealed credentials; what came survives the upstream and a kill.
func TestCacheThroughTheBinary(t *testing.T) {
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			up, at, layer := source(t)
			door := instance.FreePort(t)
			s := instance.New(t, kind, outside(up, door, "host: \""+at+"\", inside: true"))
			s.CreateRegistry("cargoone", nil)
			want(t, cacheRule(s, "rule-one", at+"/library/*", "cached/*", credentialSet(t, s, up, "set-one", at)), http.StatusCreated)
			want(t, s.Lock("cargoone"), http.StatusOK)
			manifest := byDoor(t, s, door, "/v2/cached/one/manifests/v1")
			want(t, manifest, http.StatusOK)
			blob := "/v2/cached/one/blobs/" + instance.Digest(layer)
			if a := byDoor(t, s, door, blob); a.Status != http.StatusOK || !bytes.Equal(a.Body, layer) {
				t.Fatalf("the layer is %d %s", a.Status, a.Body)
			}
			up.Kill()
			s.Kill()
			s.Start()
			for path, content := range map[string][]byte{"/v2/cached/one/manifests/v1": manifest.Body, blob: layer} {
				if a := byDoor(t, s, door, path); a.Status != http.StatusOK || !bytes.Equal(a.Body, content) {
					t.Errorf("%s without its upstream is %d %s", path, a.Status, a.Body)
				}
			}
			want(t, byDoor(t, s, door, "/v2/cached/other/manifests/v1"), http.StatusServiceUnavailable)
			s.Recorded(t.Context(), "what was kept", func(r map[string]any) bool {
				return r["route"] == "R10" && r["kind"] == "change" && r["digest"] == instance.Digest(layer) && r["repository"] == "cached/one"
			})
			if strings.Contains(s.Log(), up.ClientSecret) {
				t.Error("the log has the upstream's secret")
			}
		})
	}
}

// TestR10NamesStayInside: nothing is asked of an upstream that the operator has not listed, or has taken off the list, or that lies inside without being listed so, or that is this server itself.
func TestR10NamesStayInside(t *testing.T) {
	up, at, _ := source(t)
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	door, named := instance.FreePort(t), "localhost:"+port
	s := instance.New(t, "sqlite", outside(up, door, "host: \""+at+"\", inside: true", "host: \""+named+"\"", "host: \""+door+"\", inside: true", "host: \"127.0.0.1:1\""))
	s.CreateRegistry("cargoone", nil)
	for from, why := range map[string]string{"elsewhere.example/library/one": "not among the upstreams", door + "/library/one": "this server itself", "127.0.0.1:1/library/one": "inside: true"} {
		want(t, cacheRule(s, "rule-none", from, "none", ""), http.StatusBadRequest, why)
	}
	// Where a name leads is found out when it is asked.
	want(t, cacheRule(s, "rule-name", named+"/library/*", "name/*", credentialSet(t, s, up, "set-name", named)), http.StatusCreated)
	want(t, cacheRule(s, "rule-one", at+"/library/*", "one/*", credentialSet(t, s, up, "set-one", at)), http.StatusCreated)
	want(t, byDoor(t, s, door, "/v2/name/one/manifests/v1"), http.StatusServiceUnavailable)
	if !strings.Contains(s.Log(), "not an address of the public Internet") {
		t.Error("the log does not say why the name was not reached")
	}
	want(t, byDoor(t, s, door, "/v2/one/one/manifests/v1"), http.StatusOK)
	s.Recorded(t.Context(), "what was asked", func(r map[string]any) bool {
		return r["route"] == "R10" && r["outcome"] == "completed" && r["reference"] == at+"/library/one:v1"
	})
	// The operator takes the upstream off the list.
	s.Kill()
	if err := os.WriteFile(s.Config, []byte(outside(up, door, "host: \""+named+"\"")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	want(t, byDoor(t, s, door, "/v2/one/two/manifests/v1"), http.StatusForbidden, "not among the upstreams")
	want(t, byDoor(t, s, door, "/v2/one/one/manifests/v1"), http.StatusOK) // what is cached is served
	s.Recorded(t.Context(), "the refusal", func(r map[string]any) bool {
		return r["route"] == "R10" && r["outcome"] == "refused" && r["reference"] == at+"/library/two:v1"
	})
}

// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Inventory is everything that an installation answers for, as sorted lines of text: resources and their policies in two api-versions, rights,
// principals, admin passwords, repositories, tags, manifests, and each digest after its content was read and hashed. Two installations that hold the same have
// the same inventory. doors gives the base URL at which a registry's content is read; a registry without one is read at its public name.
func (s *Server) Inventory(ctx context.Context, doors map[string]string) []string {
	s.t.Helper()
	inv := &inventory{s: s, doors: doors, seen: map[string]bool{}}
	sub := "/subscriptions/" + s.SubscriptionID
	inv.one(sub + "?api-version=2022-12-01")
	inv.list(sub + "/resourcegroups?api-version=2021-04-01")
	inv.list(sub + "/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01")
	inv.list(sub + "/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-04-01&$filter=type%20eq%20'CustomRole'")
	for _, v := range []string{Version, "?api-version=2025-11-01"} {
		for _, r := range inv.list(sub + "/providers/Microsoft.ContainerRegistry/registries" + v) {
			if v != Version {
				continue
			}
			inv.list(r.ID + "/exportPipelines" + v)
			inv.list(r.ID + "/replications" + v)
			inv.registry(r.ID, r.Name)
		}
	}
	out, errs, err := s.Run(ctx, "principal", "list", "--data", s.Data, "--output", "json", "--query", "[].{name:name,type:type,app:appId,enabled:enabled,id:id}")
	if err != nil {
		s.t.Fatalf("listing the principals: %v: %s", err, errs)
	}
	var people []any
	if err := json.Unmarshal([]byte(out), &people); err != nil {
		s.t.Fatal(err)
	}
	for _, p := range people {
		inv.add("principal", p)
	}
	slices.Sort(inv.lines)
	return inv.lines
}

type inventory struct {
	s     *Server
	doors map[string]string
	lines []string
	seen  map[string]bool
}

type resource struct{ ID, Name string }

func (inv *inventory) add(what string, v any) {
	inv.s.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		inv.s.t.Fatal(err)
	}
	inv.lines = append(inv.lines, what+" "+string(b))
}

func (inv *inventory) get(path string) []byte {
	inv.s.t.Helper()
	a := inv.s.ARM(http.MethodGet, path, nil)
	if a.Status != http.StatusOK {
		inv.s.t.Fatalf("GET %s: %d %s", path, a.Status, a.Body)
	}
	return a.Body
}

func (inv *inventory) one(path string) {
	inv.s.t.Helper()
	var v any
	if err := json.Unmarshal(inv.get(path), &v); err != nil {
		inv.s.t.Fatal(err)
	}
	inv.add(path, v)
}

func (inv *inventory) list(path string) []resource {
	inv.s.t.Helper()
	var got struct{ Value []json.RawMessage }
	if err := json.Unmarshal(inv.get(path), &got); err != nil {
		inv.s.t.Fatal(err)
	}
	var all []resource
	for _, raw := range got.Value {
		var r resource
		var v any
		if json.Unmarshal(raw, &r) != nil || json.Unmarshal(raw, &v) != nil {
			inv.s.t.Fatalf("%s lists %s", path, raw)
		}
		all = append(all, r)
		inv.add(path, v)
	}
	return all
}

// registry reads a registry's content at its door.
func (inv *inventory) registry(id, name string) {
	s := inv.s
	s.t.Helper()
	if a := s.ARM(http.MethodPost, id+"/listCredentials"+Version, nil); a.Status == http.StatusOK {
		inv.add(id+"/listCredentials", a.Get("passwords"))
	}
	var catalog struct{ Repositories []string }
	inv.read(name, "registry:catalog:*", "/v2/_catalog?n=1000", &catalog)
	for _, repo := range catalog.Repositories {
		var tags struct{ Tags []string }
		inv.read(name, "repository:"+repo+":pull", "/v2/"+repo+"/tags/list?n=1000", &tags)
		for _, tag := range tags.Tags {
			inv.manifest(name, repo, tag)
		}
	}
}

// read gets a path of a registry with a token for the scope; it decodes the answer into v unless that is nil.
func (inv *inventory) read(registry, scope, path string, v any) Answer {
	s := inv.s
	s.t.Helper()
	base := inv.doors[registry]
	if base == "" {
		base = "https://" + s.LoginServer(registry)
	}
	token, a, err := s.RegistryToken(base, s.LoginServer(registry), s.ClientID, s.ClientSecret, scope)
	if err != nil || token == "" {
		s.t.Fatalf("no token of %s for %s: %v %d %s", registry, scope, err, a.Status, a.Body)
	}
	a, err = s.Do(http.MethodGet, base+path, nil, "Authorization", "Bearer "+token, "Accept", "*/*")
	if err != nil || a.Status != http.StatusOK {
		s.t.Fatalf("GET %s of %s: %v %d %s", path, registry, err, a.Status, a.Body)
	}
	if v != nil {
		if err := json.Unmarshal(a.Body, v); err != nil {
			s.t.Fatal(err)
		}
	}
	return a
}

// manifest reads a manifest, what it names, and what names it.
func (inv *inventory) manifest(registry, repo, reference string) {
	s := inv.s
	s.t.Helper()
	var m struct {
		Config            struct{ Digest string }
		Layers, Manifests []struct{ Digest string }
	}
	a := inv.read(registry, "repository:"+repo+":pull", "/v2/"+repo+"/manifests/"+reference, &m)
	digest := a.Header.Get("Docker-Content-Digest")
	if digest != Digest(a.Body) {
		s.t.Fatalf("%s/%s:%s has the digest %s and content of %s", registry, repo, reference, digest, Digest(a.Body))
	}
	if !strings.Contains(reference, ":") {
		inv.lines = append(inv.lines, fmt.Sprintf("tag %s/%s:%s %s", registry, repo, reference, digest))
	}
	key := registry + "/" + repo + "@" + digest
	if inv.seen[key] {
		return
	}
	inv.seen[key] = true
	inv.lines = append(inv.lines, "manifest "+key+" "+a.Header.Get("Content-Type"))
	for _, child := range m.Manifests {
		inv.manifest(registry, repo, child.Digest)
	}
	for _, b := range append(m.Layers, m.Config) {
		if b.Digest == "" || inv.seen[registry+"/"+repo+"@"+b.Digest] {
			continue
		}
		inv.seen[registry+"/"+repo+"@"+b.Digest] = true
		got := inv.read(registry, "repository:"+repo+":pull", "/v2/"+repo+"/blobs/"+b.Digest, nil)
		if Digest(got.Body) != b.Digest {
			s.t.Fatalf("the blob %s of %s/%s has other content", b.Digest, registry, repo)
		}
		inv.lines = append(inv.lines, fmt.Sprintf("blob %s/%s@%s %d", registry, repo, b.Digest, len(got.Body)))
	}
	var referrers struct{ Manifests []struct{ Digest string } }
	inv.read(registry, "repository:"+repo+":pull", "/v2/"+repo+"/referrers/"+digest, &referrers)
	for _, r := range referrers.Manifests {
		inv.manifest(registry, repo, r.Digest)
	}
}

// Compare fails the test for each line that one inventory has and the other lacks.
func Compare(t interface {
	Helper()
	Errorf(format string, args ...any)
}, before, after []string) {
	t.Helper()
	for _, l := range before {
		if _, ok := slices.BinarySearch(after, l); !ok {
			t.Errorf("lost or changed: %s", l)
		}
	}
	for _, l := range after {
		if _, ok := slices.BinarySearch(before, l); !ok {
			t.Errorf("came from nowhere: %s", l)
		}
	}
}

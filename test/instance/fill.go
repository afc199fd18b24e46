// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
)

// Closed and Open are the registries that Fill makes: exports disabled, and everything open.
const (
	Closed = "closedregistry"
	Open   = "openregistry"
)

// Fill gives an installation something of every kind that it keeps: registries with their policies, groups and tags, rights, principals, passwords,
// images, an index, a referrer, an import, an upload that was never finished. The registry Closed is locked at the end.
func (s *Server) Fill(ctx context.Context) {
	s.t.Helper()
	must := func(what string, a Answer, status ...int) Answer {
		s.t.Helper()
		for _, ok := range status {
			if a.Status == ok {
				return a
			}
		}
		s.t.Fatalf("%s: %d %s", what, a.Status, a.Body)
		return a
	}
	s.CreateRegistry(Closed, J{"adminUserEnabled": true, "policies": J{"retentionPolicy": J{"days": 9, "status": "disabled"}}})
	s.CreateRegistry(Open, J{"networkRuleSet": J{"defaultAction": "Allow", "ipRules": []J{{"value": "203.0.113.0/24"}}}, "anonymousPullEnabled": true})
	must("tags", s.ARM(http.MethodPatch, s.RegistryID(Open)+Version, J{"tags": J{"team": "harbour", "cost": "7"}}), 200)
	must("group", s.ARM(http.MethodPut, "/subscriptions/"+s.SubscriptionID+"/resourceGroups/empty?api-version=2021-04-01", J{"location": "westeurope", "tags": J{"a": "b"}}), 201)
	must("pipeline", s.ARM(http.MethodPut, s.RegistryID(Open)+"/exportPipelines/outbound"+Version, J{"location": "centralus", "identity": J{"type": "SystemAssigned"},
		"properties": J{"target": J{"type": "AzureStorageBlobContainer", "uri": "https://acct.blob.core.windows.net/out", "keyVaultUri": "https://kv.vault.azure.net/secrets/sas"}}}), 200, 201)

	out, errs, err := s.Run(ctx, "principal", "create", "--data", s.Data, "--name", "reader", "--output", "json")
	if err != nil {
		s.t.Fatalf("creating a principal: %v: %s", err, errs)
	}
	var reader struct{ ID string }
	if err := json.Unmarshal([]byte(out), &reader); err != nil {
		s.t.Fatal(err)
	}
	must("role", s.ARM(http.MethodPut, s.RegistryID(Closed)+"/providers/Microsoft.Authorization/roleAssignments/11111111-2222-4333-8444-555555555555?api-version=2022-04-01",
		J{"properties": J{"principalId": reader.ID, "roleDefinitionId": "/subscriptions/" + s.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/7f951dda-4ed3-4680-a7ca-43fe172d538d"}}), 201)
	must("role definition", s.ARM(http.MethodPut, "/subscriptions/"+s.SubscriptionID+"/providers/Microsoft.Authorization/roleDefinitions/11111111-2222-4333-8444-666666666666?api-version=2022-04-01",
		J{"properties": J{"roleName": "Harbour watch", "type": "CustomRole", "assignableScopes": []string{"/subscriptions/" + s.SubscriptionID},
			"permissions": []J{{"actions": []string{"Microsoft.ContainerRegistry/registries/read"}}}}}), 201)

	for _, registry := range []string{Closed, Open} {
		s.fillContent(registry, must)
	}
	must("import", s.Import(Open, J{"resourceId": s.RegistryID(Closed), "sourceImage": "app:v1"}, "imported:v1"), 200)
	if a := s.Lock(Closed); a.Status != 200 {
		s.t.Fatalf("locking: %d %s", a.Status, a.Body)
	}
}

func (s *Server) fillContent(registry string, must func(string, Answer, ...int) Answer) {
	s.t.Helper()
	var manifests [][]byte
	for _, tag := range []string{"v1", "v2"} {
		m, err := s.PushImage(registry, "app", tag, []byte(registry+" layer "+tag+strings.Repeat("\x00\x01", 500)))
		if err != nil {
			s.t.Fatal(err)
		}
		manifests = append(manifests, m)
	}
	put := func(reference string, manifest J, mediaType string) {
		s.t.Helper()
		b, err := json.Marshal(manifest)
		if err != nil {
			s.t.Fatal(err)
		}
		a, err := s.OCI(registry, "app", http.MethodPut, "/v2/app/manifests/"+strings.ReplaceAll(reference, "DIGEST", Digest(b)), b, "Content-Type", mediaType)
		if err != nil {
			s.t.Fatal(err)
		}
		must("manifest "+reference, a, 201)
	}
	child := func(i int) J {
		return J{"mediaType": ManifestType, "digest": Digest(manifests[i]), "size": len(manifests[i])}
	}
	const index = "application/vnd.oci.image.index.v1+json"
	put("both", J{"schemaVersion": 2, "mediaType": index, "manifests": []J{child(0), child(1)}}, index)
	empty := []byte("{}")
	if err := s.PushBlob(registry, "app", empty); err != nil {
		s.t.Fatal(err)
	}
	put("DIGEST", J{"schemaVersion": 2, "mediaType": ManifestType, "artifactType": "application/example.signature", "subject": child(0),
		"config": J{"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest(empty), "size": 2},
		"layers": []J{{"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest(empty), "size": 2}}, "annotations": J{"who": "harbour watch"}}, ManifestType)
	a, err := s.OCI(registry, "unfinished", http.MethodPost, "/v2/unfinished/blobs/uploads/", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	location := must("upload", a, 202).Header.Get("Location")
	if a, err = s.OCI(registry, "unfinished", http.MethodPatch, location, []byte("half of it"), "Content-Type", "application/octet-stream"); err != nil {
		s.t.Fatal(err)
	}
	must("chunk", a, 202)
}

// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

type j = instance.J

// locked is what a registry's policy looks like when both locks are shut.
var shut = j{"publicNetworkAccess": "disabled", "policies": j{"exportPolicy": j{"status": "disabled"}}}

func exports(status string) j { return j{"policies": j{"exportPolicy": j{"status": status}}} }

func pipeline() j {
	return j{"location": "centralus", "identity": j{"type": "SystemAssigned"}, "properties": j{"target": j{
		"type": "AzureStorageBlobContainer", "uri": "https://acct.blob.core.windows.net/out", "keyVaultUri": "https://kv.vault.azure.net/secrets/sas"}}}
}

// want fails the test unless the answer has the status and, in its body, each text.
func want(t *testing.T, a instance.Answer, status int, texts ...string) {
	t.Helper()
	if a.Status != status {
		t.Fatalf("status %d, want %d: %s", a.Status, status, a.Body)
	}
	for _, text := range texts {
		if !strings.Contains(string(a.Body), text) {
			t.Errorf("the answer does not say %q: %s", text, a.Body)
		}
	}
}

// state fails the test unless the registry's two locks are as said.
func state(t *testing.T, s *instance.Server, registry, exports, public string) {
	t.Helper()
	a := s.ARM(http.MethodGet, s.RegistryID(registry)+instance.Version, nil)
	if got := a.Get("properties.policies.exportPolicy.status"); got != exports {
		t.Errorf("exportPolicy is %q, want %q", got, exports)
	}
	if got := a.Get("properties.publicNetworkAccess"); got != public {
		t.Errorf("publicNetworkAccess is %q, want %q", got, public)
	}
}

// TestContract walks the rules of the export policy on the built binary, on both databases.
func TestContract(t *testing.T) {
	instance.Each(t, "", func(t *testing.T, s *instance.Server) {
		t.Run("E1-needs-Premium", func(t *testing.T) {
			s.CreateRegistry("premiumone", nil)
			a := s.ARM(http.MethodPut, s.RegistryID("standardone")+instance.Version, j{"location": "centralus", "sku": j{"name": "Standard"}, "properties": exports("disabled")})
			want(t, a, http.StatusBadRequest, "Premium", "standardone")
			a = s.ARM(http.MethodPut, s.RegistryID("standardone")+instance.Version, j{"location": "centralus", "sku": j{"name": "Standard"}, "properties": exports("enabled")})
			want(t, a, http.StatusCreated)
		})
		t.Run("E2-needs-public-access-disabled", func(t *testing.T) {
			want(t, s.Patch("premiumone", exports("disabled")), http.StatusBadRequest, "premiumone", "publicNetworkAccess")
			state(t, s, "premiumone", "enabled", "Enabled")
		})
		t.Run("E2-before-or-in-the-same-request", func(t *testing.T) {
			want(t, s.Patch("premiumone", shut), http.StatusOK)
			state(t, s, "premiumone", "disabled", "Disabled")
			s.CreateRegistry("premiumtwo", j{"publicNetworkAccess": "Disabled"})
			want(t, s.Patch("premiumtwo", exports("disabled")), http.StatusOK)
			state(t, s, "premiumtwo", "disabled", "Disabled")
		})
		t.Run("E3-public-access-stays-shut", func(t *testing.T) {
			want(t, s.Patch("premiumone", j{"publicNetworkAccess": "Enabled"}), http.StatusBadRequest,
				"Enabling public network access is not supported because the registry 'premiumone' has exports disabled.", "BadRequest")
			state(t, s, "premiumone", "disabled", "Disabled")
		})
		t.Run("E4-refused-while-a-pipeline-exists", func(t *testing.T) {
			s.CreateRegistry("premiumpipe", nil)
			want(t, s.ARM(http.MethodPut, s.RegistryID("premiumpipe")+"/exportPipelines/outbound"+instance.Version, pipeline()), http.StatusOK)
			want(t, s.Patch("premiumpipe", shut), http.StatusBadRequest, "outbound", "premiumpipe")
			state(t, s, "premiumpipe", "enabled", "Enabled")
			want(t, s.ARM(http.MethodDelete, s.RegistryID("premiumpipe")+"/exportPipelines/outbound"+instance.Version, nil), http.StatusOK)
			want(t, s.Patch("premiumpipe", shut), http.StatusOK)
		})
		t.Run("E10-no-pipeline-while-disabled", func(t *testing.T) {
			a := s.ARM(http.MethodPut, s.RegistryID("premiumpipe")+"/exportPipelines/outbound"+instance.Version, pipeline())
			want(t, a, http.StatusBadRequest, "premiumpipe", "exports disabled")
		})
		t.Run("E5-enabled-at-any-time", func(t *testing.T) {
			want(t, s.Patch("premiumone", exports("Enabled")), http.StatusOK)
			state(t, s, "premiumone", "enabled", "Disabled")
		})
		t.Run("E6-both-in-one-request", func(t *testing.T) {
			want(t, s.Patch("premiumone", shut), http.StatusOK)
			both := exports("enabled")
			both["publicNetworkAccess"] = "Enabled"
			want(t, s.Patch("premiumone", both), http.StatusOK)
			state(t, s, "premiumone", "enabled", "Enabled")
		})
		t.Run("E7-no-private-endpoint-and-open-doors-inside", func(t *testing.T) {
			want(t, s.ARM(http.MethodPatch, s.RegistryID("premiumone")+"?api-version=2025-11-01", j{"properties": j{"adminUserEnabled": true, "anonymousPullEnabled": true}}), http.StatusOK)
			want(t, s.Patch("premiumone", shut), http.StatusOK)
		})
		t.Run("E8-put-without-policies", func(t *testing.T) {
			a := s.ARM(http.MethodPut, s.RegistryID("premiumone")+instance.Version, j{"location": "centralus", "sku": j{"name": "Premium"}, "properties": j{}})
			want(t, a, http.StatusOK)
			state(t, s, "premiumone", "enabled", "Disabled")
			want(t, s.Patch("premiumone", shut), http.StatusOK)
			a = s.ARM(http.MethodPatch, s.RegistryID("premiumone")+instance.Version, j{"sku": j{"name": "Premium"}})
			want(t, a, http.StatusOK)
			state(t, s, "premiumone", "disabled", "Disabled")
		})
		t.Run("E12-downgrade-refused-delete-allowed", func(t *testing.T) {
			a := s.ARM(http.MethodPatch, s.RegistryID("premiumone")+instance.Version, j{"sku": j{"name": "Standard"}})
			want(t, a, http.StatusBadRequest)
			state(t, s, "premiumone", "disabled", "Disabled")
			a = s.Wait(s.ARM(http.MethodDelete, s.RegistryID("premiumone")+instance.Version, nil))
			if a.Status != http.StatusOK && a.Status != http.StatusNoContent {
				t.Fatalf("delete: %d %s", a.Status, a.Body)
			}
			s.CreateRegistry("premiumone", nil)
			state(t, s, "premiumone", "enabled", "Enabled")
		})
	})
}

// TestE8EveryVersionKeepsTheLocks: from a locked registry, GET then PUT with every api-version leaves both locks shut.
func TestE8EveryVersionKeepsTheLocks(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry("lockedone", nil)
	want(t, s.Lock("lockedone"), http.StatusOK)
	provider := s.ARM(http.MethodGet, "/subscriptions/"+s.SubscriptionID+"/providers/Microsoft.ContainerRegistry?api-version=2021-04-01", nil)
	versions := apiVersions(t, provider)
	if len(versions) < 20 {
		t.Fatalf("only %d api-versions are listed", len(versions))
	}
	for _, v := range append(versions, "2031-01-01", "2031-01-01-preview") {
		path := s.RegistryID("lockedone") + "?api-version=" + v
		a := s.ARM(http.MethodGet, path, nil)
		want(t, a, http.StatusOK)
		put, err := s.Do(http.MethodPut, s.ResourceManager+path, a.Body, "Authorization", "Bearer "+s.Token(), "Content-Type", "application/json")
		if err != nil {
			t.Fatal(err)
		}
		if put.Status != http.StatusOK {
			t.Errorf("%s: PUT of what GET gave: %d %s", v, put.Status, put.Body)
		}
		state(t, s, "lockedone", "disabled", "Disabled")
	}
}

// TestNeverBoth runs pairs of requests that exclude each other at the same time: never are both in force afterwards.
func TestNeverBoth(t *testing.T) {
	pairs := 1000
	if testing.Short() {
		pairs = 60
	}
	instance.Each(t, "", func(t *testing.T, s *instance.Server) {
		const lanes = 8
		for lane := range lanes {
			s.CreateRegistry(fmt.Sprintf("lane%03d", lane), nil)
		}
		token := s.Token()
		var work sync.WaitGroup
		for lane := range lanes {
			work.Add(1)
			go func() {
				defer work.Done()
				name := fmt.Sprintf("lane%03d", lane)
				for i := range pairs / lanes {
					race(t, s, token, name, i%2 == 0)
				}
			}()
		}
		work.Wait()
	})
}

// race runs {disable exports ‖ create a pipeline} or {disable exports ‖ enable public access} from a state where each alone succeeds.
func race(t *testing.T, s *instance.Server, token, name string, withPipeline bool) {
	call := func(method, path string, body any) instance.Answer {
		a, err := s.ARMAs(token, method, path, body)
		if err != nil {
			t.Error(err)
		}
		return a
	}
	id := s.RegistryID(name)
	start := j{"properties": j{"publicNetworkAccess": "Disabled", "policies": j{"exportPolicy": j{"status": "enabled"}}}}
	if a := call(http.MethodPatch, id+instance.Version, start); a.Status != http.StatusOK {
		t.Errorf("start: %d %s", a.Status, a.Body)
		return
	}
	var both sync.WaitGroup
	both.Add(2)
	go func() {
		defer both.Done()
		call(http.MethodPatch, id+instance.Version, j{"properties": exports("disabled")})
	}()
	go func() {
		defer both.Done()
		if withPipeline {
			call(http.MethodPut, id+"/exportPipelines/outbound"+instance.Version, pipeline())
		} else {
			call(http.MethodPatch, id+instance.Version, j{"properties": j{"publicNetworkAccess": "Enabled"}})
		}
	}()
	both.Wait()
	after := call(http.MethodGet, id+instance.Version, nil)
	disabled := after.Get("properties.policies.exportPolicy.status") == "disabled"
	pipe := call(http.MethodGet, id+"/exportPipelines/outbound"+instance.Version, nil).Status == http.StatusOK
	public := after.Get("properties.publicNetworkAccess") == "Enabled"
	if disabled && (pipe || public) {
		t.Errorf("both are in force: exports disabled with pipeline=%v public=%v", pipe, public)
	}
	if pipe {
		if a := call(http.MethodDelete, id+"/exportPipelines/outbound"+instance.Version, nil); a.Status != http.StatusOK {
			t.Errorf("delete: %d %s", a.Status, a.Body)
		}
	}
}

// apiVersions reads the versions of the type registries from the provider's answer.
func apiVersions(t *testing.T, provider instance.Answer) []string {
	t.Helper()
	var p struct {
		ResourceTypes []struct {
			ResourceType string   `json:"resourceType"`
			APIVersions  []string `json:"apiVersions"`
		} `json:"resourceTypes"`
	}
	if err := json.Unmarshal(provider.Body, &p); err != nil {
		t.Fatalf("%v: %s", err, provider.Body)
	}
	for _, rt := range p.ResourceTypes {
		if strings.EqualFold(rt.ResourceType, "registries") {
			return rt.APIVersions
		}
	}
	t.Fatalf("no type registries: %s", provider.Body)
	return nil
}

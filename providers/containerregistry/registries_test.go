// SPDX-License-Identifier: Apache-2.0

package containerregistry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/providers/containerregistry"
	"github.com/embargo-registry/embargo/providers/containerregistry/cacherules"
	"github.com/embargo-registry/embargo/providers/containerregistry/credentialsets"
)

const registriesType = "Microsoft.ContainerRegistry/registries"

// TestRoundTrips: for every pair of api-versions, what the one made survives a GET and PUT in the other: a locked registry, and filled ones.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	locked := []byte(`{"sku":{"name":"Premium","tier":"Premium"},"location":"westus","properties":{` + shut + `}}`)
	pipeline := []byte(`{"properties":{"target":{"type":"AzureStorageBlobContainer","uri":"https://a.blob.core.windows.net/c","storageAccessMode":"ManagedIdentity"}}}`)
	rule := []byte(`{"properties":{"credentialSetResourceId":"/a","sourceRepository":"docker.io/library/*","targetRepository":"*"}}`)
	set := []byte(`{"identity":{"type":"SystemAssigned"},"properties":{"loginServer":"docker.io","authCredentials":[{"name":"Credential1","usernameSecretIdentifier":"data:,a","passwordSecretIdentifier":"data:,b"}]}}`)
	armtest.RoundTrips(t, containerregistry.Namespace(options(nil)), []string{registriesType, registriesType + "/exportPipelines", cacherules.TypeName, credentialsets.TypeName},
		map[string][][]byte{registriesType: {locked}, registriesType + "/exportPipelines": {pipeline}, cacherules.TypeName: {rule}, credentialsets.TypeName: {set}})
}

// TestLocksOverVersions: from a locked registry, GET then PUT in each api-version leaves both locks shut, as does a PATCH of something else.
func TestLocksOverVersions(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "registryone", "Premium", shut)
	codec, err := arm.CodecOf(containerregistry.Namespace(options(nil)), registriesType)
	if err != nil {
		t.Fatal(err)
	}
	versions := append(codec.Versions(), "2031-01-01", "2031-01-01-preview")
	if len(versions) != 32 {
		t.Fatalf("%d api-versions, want 32", len(versions))
	}
	for _, v := range versions {
		body, err := json.Marshal(r.Must(t, 200, "GET", path("registryone", v), ""))
		if err != nil {
			t.Fatal(err)
		}
		r.Must(t, 200, "PUT", path("registryone", v), string(body))
		r.Must(t, 200, "PATCH", path("registryone", v), `{"tags":{"version":"`+v+`"},"properties":{"adminUserEnabled":true}}`)
		after := r.Must(t, 200, "GET", path("registryone", newest), "")
		if at(after, "properties.policies.exportPolicy.status") != "disabled" || at(after, "properties.publicNetworkAccess") != "Disabled" {
			t.Errorf("%s opened a lock: %v", v, after["properties"])
		}
		if row, _ := r.row(t, "registryone"); row.Exports || row.PublicAccess {
			t.Errorf("%s opened a lock of the row: %+v", v, row)
		}
	}
}

// TestRow: what decisions read is written with the document, has an identity for life and no other's, is rewritten only when it changes, and fenced before each answer.
func TestRow(t *testing.T) {
	t.Parallel()
	eachRooms(t, func(t *testing.T, r *rooms) {
		r.make(t, "RegistryOne", "Premium", `"adminUserEnabled":true,"networkRuleSet":{"defaultAction":"Deny","ipRules":[{"value":"203.0.113.7"},{"value":"198.51.100.0/24"}]},`+
			`"anonymousPullEnabled":true,"networkRuleBypassOptions":"None","dataEndpointEnabled":true,"roleAssignmentMode":"abacrepositorypermissions","policies":{"azureADAuthenticationAsArmPolicy":{"status":"disabled"}}`)
		row, _ := r.row(t, "registryone")
		if row.ID == "" || row.ResourceID != r.id(t, "RegistryOne").String() || row.LoginServer != "registryone.azurecr.localhost" || row.SKU != "Premium" ||
			row.Location != "westus" || !row.Exports || !row.PublicAccess || !row.DefaultDeny || fmt.Sprint(row.IPRules) != "[203.0.113.7/32 198.51.100.0/24]" ||
			row.BypassAzureServices || !row.AdminEnabled || !row.AnonymousPull || !row.AbacMode || row.ArmTokens || !row.DataEndpoint {
			t.Errorf("the row is %+v", row)
		}
		if len(r.fences) != 1 || r.fences[0] != (fence{row.ID, row.Epoch}) {
			t.Errorf("create was fenced as %v", r.fences)
		}

		r.Must(t, 200, "PATCH", path("registryone", newest), `{"tags":{"a":"b"},"properties":{"metadataSearch":"Enabled"}}`)
		if same, _ := r.row(t, "registryone"); same.Epoch != row.Epoch || len(r.fences) != 2 || r.fences[1] != (fence{row.ID, row.Epoch}) {
			t.Errorf("a change that no decision reads raised the epoch to %d: %v", same.Epoch, r.fences)
		}
		r.Must(t, 400, "PATCH", path("registryone", newest), `{"properties":{"policies":{"exportPolicy":{"status":"disabled"}}}}`)
		r.Must(t, 200, "PATCH", path("registryone", newest), `{"properties":{`+shut+`}}`)
		next, _ := r.row(t, "registryone")
		if next.ID != row.ID || next.Epoch <= row.Epoch || next.Exports || next.PublicAccess {
			t.Errorf("after the lock the row is %+v", next)
		}
		if len(r.fences) != 3 || r.fences[2] != (fence{row.ID, next.Epoch}) {
			t.Errorf("the lock was fenced as %v", r.fences)
		}

		if a := r.Call("owner", "DELETE", path("registryone", newest), ""); a.StatusCode != 200 {
			t.Fatalf("delete: %d", a.StatusCode)
		}
		if _, there := r.row(t, "registryone"); there || len(r.fences) != 4 || r.fences[3].registry != row.ID || r.fences[3].epoch <= next.Epoch {
			t.Errorf("after the delete: row %v, fences %v", there, r.fences)
		}
		r.make(t, "registryone", "Premium", "")
		if again, _ := r.row(t, "registryone"); again.ID == row.ID || !again.Exports || !again.PublicAccess || again.AdminEnabled {
			t.Errorf("the registry made anew is %+v", again)
		}
	})
}

// TestTimes: a PUT renews the times of retention and soft delete, a PATCH only those that it touches.
func TestTimes(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "registryone", "Premium", "")
	times := func() (retention, soft, created any) {
		doc := r.Must(t, 200, "GET", path("registryone", newest), "")
		return at(doc, "properties.policies.retentionPolicy.lastUpdatedTime"), at(doc, "properties.policies.softDeletePolicy.lastUpdatedTime"), at(doc, "properties.creationDate")
	}
	for _, step := range []struct {
		method, body          string
		newRetention, newSoft bool
	}{
		{"PATCH", `{"properties":{"adminUserEnabled":true,"policies":{"exportPolicy":{"status":"enabled"}}}}`, false, false},
		{"PATCH", `{"properties":{"policies":{"retentionPolicy":{"days":8}}}}`, true, false},
		{"PATCH", `{"properties":{"policies":{"softDeletePolicy":{"retentionDays":8}}}}`, false, true},
		{"PUT", `{"location":"westus","sku":{"name":"Premium"}}`, true, true},
	} {
		retention, soft, created := times()
		r.Must(t, 200, step.method, path("registryone", newest), step.body)
		retentionNow, softNow, createdNow := times()
		if retention != retentionNow != step.newRetention || soft != softNow != step.newSoft || created != createdNow {
			t.Errorf("%s %s: retention %v → %v, soft delete %v → %v, creation %v → %v", step.method, step.body, retention, retentionNow, soft, softNow, created, createdNow)
		}
	}
}

// TestRemarks: what is open inside the network while exports are disabled is accepted, and said in the record of the change that makes it so.
func TestRemarks(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "registryone", "Premium", `"anonymousPullEnabled":true`)
	var after *audit.Position
	said := func(what string, want ...string) {
		t.Helper()
		entries, err := r.Audit.Read(context.Background(), audit.Query{Resource: r.id(t, "registryone").String(), After: after})
		if err != nil || len(entries) == 0 {
			t.Fatalf("%s: %d records, %v", what, len(entries), err)
		}
		last := entries[len(entries)-1]
		after = &last.Position
		if !strings.Contains(last.Action, "registries/write") {
			t.Fatalf("%s: the last record is of %s", what, last.Action)
		}
		for _, text := range []string{"anonymous pull is on", "the admin user is on", "networkRuleBypassOptions is AzureServices"} {
			expected := false
			for _, w := range want {
				expected = expected || w == text
			}
			if strings.Contains(last.Reason, text) != expected {
				t.Errorf("%s: %q said is %v: %q", what, text, !expected, last.Reason)
			}
		}
	}
	said("create")
	r.Must(t, 200, "PATCH", path("registryone", newest), `{"properties":{`+shut+`}}`)
	said("lock", "anonymous pull is on", "networkRuleBypassOptions is AzureServices")
	r.Must(t, 200, "PATCH", path("registryone", newest), `{"properties":{"adminUserEnabled":true}}`)
	said("the admin user afterwards", "the admin user is on")
	r.Must(t, 200, "PATCH", path("registryone", newest), `{"tags":{"a":"b"}}`)
	said("something else")
}

// TestCreateRace: of two creates of one name in two groups at once, one is made and the other is told that the name is taken.
func TestCreateRace(t *testing.T) {
	t.Parallel()
	eachRooms(t, func(t *testing.T, r *rooms) {
		r.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/other?api-version=2021-04-01", `{"location":"westus"}`)
		for i := range 20 {
			var both sync.WaitGroup
			statuses := make([]int, 2)
			for n, group := range []string{"/g/", "/other/"} {
				both.Go(func() {
					a := r.Call("owner", "PUT", strings.Replace(path(fmt.Sprintf("registry%d", i), old), "/g/", group, 1), `{"location":"westus","sku":{"name":"Premium"}}`)
					statuses[n] = a.StatusCode
					if text, err := io.ReadAll(a.Body); a.StatusCode != 201 && (err != nil || !strings.Contains(string(text), "RegistryNameAlreadyInUse")) {
						t.Errorf("the loser is told %s, %v", text, err)
					}
				})
			}
			both.Wait()
			if statuses[0]+statuses[1] != 201+409 {
				t.Errorf("the creates answer %v", statuses)
			}
		}
	})
}

// TestIdentity: a managed identity gets ids, keeps them, is shown with a small first letter, and goes away as None.
func TestIdentity(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	user := "/subscriptions/" + r.People.Subscription + "/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u"
	r.make(t, "registryone", "Premium", "")
	patch := func(body string) map[string]any {
		t.Helper()
		return r.Must(t, 200, "PATCH", path("registryone", newest), `{"identity":`+body+`}`)
	}
	doc := patch(`{"type":"systemassigned"}`)
	first, _ := at(doc, "identity.principalId").(string)
	if len(first) != 36 || at(doc, "identity.tenantId") != r.People.Tenant || at(doc, "identity.type") != "systemAssigned" {
		t.Errorf("identity %v", doc["identity"])
	}
	doc = patch(`{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"` + user + `":{}}}`)
	users, _ := at(doc, "identity.userAssignedIdentities").(map[string]any)
	if at(doc, "identity.principalId") != first || at(doc, "identity.type") != "systemAssigned, UserAssigned" || len(fmt.Sprint(at(users[user], "clientId"))) != 36 {
		t.Errorf("identity %v", doc["identity"])
	}
	kept := fmt.Sprint(users[user])
	doc = patch(`{"userAssignedIdentities":{"` + user + `2":{}}}`)
	if users, _ = at(doc, "identity.userAssignedIdentities").(map[string]any); len(users) != 2 || fmt.Sprint(users[user]) != kept || fmt.Sprint(users[user+"2"]) == kept {
		t.Errorf("with a second identity: %v, the first was %s", users, kept)
	}
	doc = patch(`{"userAssignedIdentities":{"` + user + `2":null}}`)
	if users, _ = at(doc, "identity.userAssignedIdentities").(map[string]any); len(users) != 1 || fmt.Sprint(users[user]) != kept {
		t.Errorf("without the second identity: %v, the first was %s", users, kept)
	}
	doc = patch(`{"type":"UserAssigned"}`)
	if at(doc, "identity.principalId") != nil || at(doc, "identity.tenantId") != nil || at(doc, "identity.type") != "userAssigned" {
		t.Errorf("identity %v", doc["identity"])
	}
	if doc = patch(`{"type":"SystemAssigned"}`); at(doc, "identity.userAssignedIdentities") != nil || at(doc, "identity.principalId") == nil {
		t.Errorf("identity %v", doc["identity"])
	}
	if doc = patch(`{"type":"None"}`); doc["identity"] != nil {
		t.Errorf("identity %v", doc["identity"])
	}
}

// TestPipelineIdentity: an export pipeline's identity is made with it and kept.
func TestPipelineIdentity(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "registryone", "Premium", "")
	put := func() map[string]any {
		t.Helper()
		return r.Must(t, 200, "PUT", path("registryone", old, "/exportPipelines/outbound"), `{"identity":{"type":"SystemAssigned"},"properties":{"target":{`+
			`"uri":"https://acct.blob.core.windows.net/out","keyVaultUri":"https://kv.vault.azure.net/secrets/sas"}}}`)
	}
	first, again := put(), put()
	principal, _ := at(first, "identity.principalId").(string)
	if len(principal) != 36 || at(first, "identity.type") != "systemAssigned" || at(first, "identity.tenantId") != r.People.Tenant || at(again, "identity.principalId") != principal {
		t.Errorf("identity %v, then %v", first["identity"], again["identity"])
	}
}

// TestNameScope: a name that may be used again within a scope has a login server that carries the scope's hash; a check foretells it.
func TestNameScope(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	hashed := regexp.MustCompile(`^scoped[a-z]+-[a-z0-9]{16}\.azurecr\.localhost$`)
	for _, scope := range []string{"TenantReuse", "SubscriptionReuse", "ResourceGroupReuse", "NoReuse"} {
		n := "scoped" + strings.ToLower(scope)
		check := r.Must(t, 200, "POST", "/subscriptions/{sub}/providers/Microsoft.ContainerRegistry/checkNameAvailability?api-version="+newest,
			`{"name":"`+n+`","type":"Microsoft.ContainerRegistry/registries","autoGeneratedDomainNameLabelScope":"`+scope+`","resourceGroupName":"g"}`)
		doc := r.make(t, n, "Premium", `"autoGeneratedDomainNameLabelScope":"`+scope+`"`)
		server, _ := at(doc, "properties.loginServer").(string)
		if !hashed.MatchString(server) {
			t.Errorf("%s: login server %q", scope, server)
		}
		if foretold := check["availableLoginServerName"]; (foretold == server) != (scope != "NoReuse") {
			t.Errorf("%s: the check said %v, the registry has %v", scope, foretold, server)
		}
		if row, _ := r.row(t, n); row.LoginServer != server {
			t.Errorf("%s: the row has %q", scope, row.LoginServer)
		}
		r.Must(t, 200, "PATCH", path(n, newest), `{"tags":{"a":"b"}}`)
		if doc := r.Must(t, 200, "GET", path(n, old), ""); at(doc, "properties.loginServer") != server {
			t.Errorf("%s: the login server became %v", scope, at(doc, "properties.loginServer"))
		}
	}
}

// TestIPRules: a rule is kept once, an address without its /32, and there are two hundred at the most; what the public door reads is the same.
func TestIPRules(t *testing.T) {
	t.Parallel()
	eachRooms(t, func(t *testing.T, r *rooms) {
		rules := func(values ...string) string {
			var list []string
			for _, v := range values {
				list = append(list, `{"action":"allow","value":"`+v+`"}`)
			}
			return `"networkRuleSet":{"defaultAction":"Deny","ipRules":[` + strings.Join(list, ",") + `]}`
		}
		a := r.make(t, "registryone", "Premium", rules("203.0.113.7/32", "203.0.113.7", "10.0.0.0/8", "10.0.0.0/8")+`,"networkRuleBypassOptions":"none","networkRuleBypassAllowedForTasks":true`)
		if got := fmt.Sprint(at(a, "properties.networkRuleSet.ipRules")); got != "[map[action:Allow value:203.0.113.7] map[action:Allow value:10.0.0.0/8]]" {
			t.Errorf("shown: %s", got)
		}
		if at(a, "properties.networkRuleBypassOptions") != "None" || at(a, "properties.networkRuleBypassAllowedForTasks") != true {
			t.Errorf("%v", a)
		}
		if row, _ := r.row(t, "registryone"); fmt.Sprint(row.IPRules) != "[203.0.113.7/32 10.0.0.0/8]" || row.BypassAzureServices {
			t.Errorf("decisions read %v, %v", row.IPRules, row.BypassAzureServices)
		}
		var many []string
		for i := range 201 {
			many = append(many, fmt.Sprintf("198.51.100.%d", i))
		}
		r.Must(t, 200, "PATCH", path("registryone", newest), `{"properties":{`+rules(many[:200]...)+`}}`)
		r.Must(t, 400, "PATCH", path("registryone", newest), `{"properties":{`+rules(many...)+`}}`)
		r.Must(t, 400, "PATCH", path("registryone", newest), `{"properties":{`+rules("2001:db8::/32")+`}}`)
		r.Must(t, 400, "PATCH", path("registryone", newest), `{"properties":{`+rules("203.0.113.1/24")+`}}`)
		if row, _ := r.row(t, "registryone"); len(row.IPRules.List()) != 200 {
			t.Errorf("after refusals decisions read %d rules", len(row.IPRules.List()))
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	acr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerregistry/armcontainerregistry"

	"github.com/embargo-registry/embargo/test/instance"
)

// finished follows a long-running operation of the SDK to its end.
func finished[R any](t *testing.T) func(p *runtime.Poller[R], err error) R {
	t.Helper()
	return func(p *runtime.Poller[R], err error) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		done, err := p.PollUntilDone(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
}

// TestCacheRulesByGoSDK makes, changes, lists and deletes a credential set and a cache rule through the Azure SDK for Go.
func TestCacheRulesByGoSDK(t *testing.T) {
	s := instance.New(t, "sqlite", "upstreams:\n  registries: [{host: docker.io}]\n")
	s.CreateRegistry("cargoone", nil)
	cred, options := credential(t, s, "")
	sets, err := acr.NewCredentialSetsClient(s.SubscriptionID, cred, options)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := acr.NewCacheRulesClient(s.SubscriptionID, cred, options)
	if err != nil {
		t.Fatal(err)
	}
	credentials := func(user, password string) []*acr.AuthCredential {
		return []*acr.AuthCredential{{Name: to.Ptr(acr.CredentialNameCredential1), UsernameSecretIdentifier: &user, PasswordSecretIdentifier: &password}}
	}
	set := finished[acr.CredentialSetsClientCreateResponse](t)(sets.BeginCreate(t.Context(), instance.Group, "cargoone", "set-one", acr.CredentialSet{
		Identity:   &acr.IdentityProperties{Type: to.Ptr(acr.ResourceIdentityTypeSystemAssigned)},
		Properties: &acr.CredentialSetProperties{LoginServer: to.Ptr("docker.io"), AuthCredentials: credentials("data:,someone", "data:,hunter2secret")},
	}, nil))
	shown := *set.Properties.AuthCredentials[0]
	if set.Identity.PrincipalID == nil || strings.Contains(*shown.PasswordSecretIdentifier, "hunter2") || *shown.CredentialHealth.Status != acr.CredentialHealthStatusHealthy {
		t.Errorf("the set is %+v", shown)
	}
	_, err = sets.BeginUpdate(t.Context(), instance.Group, "cargoone", "set-one", acr.CredentialSetUpdateParameters{
		Properties: &acr.CredentialSetUpdateProperties{AuthCredentials: credentials(*shown.UsernameSecretIdentifier, "https://vault.vault.azure.net/secrets/one")}}, nil)
	refused(t, err, http.StatusBadRequest, "no Key Vault")
	changed := finished[acr.CredentialSetsClientUpdateResponse](t)(sets.BeginUpdate(t.Context(), instance.Group, "cargoone", "set-one", acr.CredentialSetUpdateParameters{
		Properties: &acr.CredentialSetUpdateProperties{AuthCredentials: credentials(*shown.UsernameSecretIdentifier, "data:,other")}}, nil))
	if now := changed.Properties.AuthCredentials[0]; *now.UsernameSecretIdentifier != *shown.UsernameSecretIdentifier || *now.PasswordSecretIdentifier == *shown.PasswordSecretIdentifier {
		t.Errorf("after the update: %+v", now)
	}
	rule := finished[acr.CacheRulesClientCreateResponse](t)(rules.BeginCreate(t.Context(), instance.Group, "cargoone", "rule-one", acr.CacheRule{Properties: &acr.CacheRuleProperties{
		SourceRepository: to.Ptr("docker.io/library/*"), TargetRepository: to.Ptr("library/*"), CredentialSetResourceID: azcore.NullValue[*string]()}}, nil))
	if *rule.Properties.ProvisioningState != acr.ProvisioningStateSucceeded || rule.Properties.CreationDate == nil {
		t.Errorf("the rule is %+v", rule.Properties)
	}
	with := finished[acr.CacheRulesClientUpdateResponse](t)(rules.BeginUpdate(t.Context(), instance.Group, "cargoone", "rule-one",
		acr.CacheRuleUpdateParameters{Properties: &acr.CacheRuleUpdateProperties{CredentialSetResourceID: set.ID}}, nil))
	if *with.Properties.CredentialSetResourceID != *set.ID || *with.Properties.SourceRepository != "docker.io/library/*" {
		t.Errorf("the updated rule is %+v", with.Properties)
	}
	page, err := rules.NewListPager(instance.Group, "cargoone", nil).NextPage(t.Context())
	if err != nil || len(page.Value) != 1 || *page.Value[0].Name != "rule-one" {
		t.Errorf("the list: %v %v", page.Value, err)
	}
	finished[acr.CacheRulesClientDeleteResponse](t)(rules.BeginDelete(t.Context(), instance.Group, "cargoone", "rule-one", nil))
	finished[acr.CredentialSetsClientDeleteResponse](t)(sets.BeginDelete(t.Context(), instance.Group, "cargoone", "set-one", nil))
	_, err = rules.Get(t.Context(), instance.Group, "cargoone", "rule-one", nil)
	refused(t, err, http.StatusNotFound, "ResourceNotFound")
}

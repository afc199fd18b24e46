// SPDX-License-Identifier: Apache-2.0

// Package contract drives the built binary with the clients that people have: the Azure SDKs for Go and JavaScript, az, skopeo, oras-go.
package contract

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	acr "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerregistry/armcontainerregistry"

	"github.com/embargo-registry/embargo/test/instance"
)

// sdk makes a registries client of the Azure SDK for the server. tenant "" is the server's own.
func sdk(t *testing.T, s *instance.Server, tenant string) *acr.RegistriesClient {
	t.Helper()
	cred, options := credential(t, s, tenant)
	client, err := acr.NewRegistriesClient(s.SubscriptionID, cred, options)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// credential is what a client of the Azure SDK is made with.
func credential(t *testing.T, s *instance.Server, tenant string) (azcore.TokenCredential, *arm.ClientOptions) {
	t.Helper()
	if tenant == "" {
		tenant = s.TenantID
	}
	options := policy.ClientOptions{
		Transport: s.Client,
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: s.ResourceManager + "/",
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: s.ResourceManager, Audience: s.ResourceManager + "/"}},
		},
	}
	cred, err := azidentity.NewClientSecretCredential(tenant, s.ClientID, s.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return cred, &arm.ClientOptions{ClientOptions: options, DisableRPRegistration: true}
}

func flip(t *testing.T, client *acr.RegistriesClient, name string, status acr.ExportPolicyStatus, public *acr.PublicNetworkAccess) (acr.Registry, error) {
	t.Helper()
	poller, err := client.BeginUpdate(t.Context(), instance.Group, name, acr.RegistryUpdateParameters{Properties: &acr.RegistryPropertiesUpdateParameters{
		PublicNetworkAccess: public,
		Policies:            &acr.Policies{ExportPolicy: &acr.ExportPolicy{Status: &status}},
	}}, nil)
	if err != nil {
		return acr.Registry{}, err
	}
	done, err := poller.PollUntilDone(t.Context(), nil)
	return done.Registry, err
}

// TestGoSDK flips the export policy and imports through the Azure SDK for Go, with both forms of the authority.
func TestGoSDK(t *testing.T) {
	instance.Each(t, "", func(t *testing.T, s *instance.Server) {
		s.CreateRegistry("sourceone", nil)
		s.CreateRegistry("targetone", nil)
		if _, err := s.PushImage("sourceone", "app", "v1", []byte("cargo")); err != nil {
			t.Fatal(err)
		}
		client := sdk(t, s, "")
		got, err := client.Get(t.Context(), instance.Group, "sourceone", nil)
		if err != nil {
			t.Fatal(err)
		}
		if *got.Properties.LoginServer != s.LoginServer("sourceone") || *got.SKU.Tier != acr.SKUTierPremium {
			t.Errorf("registry: %v %v", *got.Properties.LoginServer, *got.SKU.Tier)
		}
		importing := func(tag string) error {
			poller, err := client.BeginImportImage(t.Context(), instance.Group, "targetone", acr.ImportImageParameters{
				Source:     &acr.ImportSource{ResourceID: to.Ptr(s.RegistryID("sourceone")), SourceImage: to.Ptr("app:v1")},
				TargetTags: []*string{to.Ptr("app:" + tag)},
			}, nil)
			if err != nil {
				return err
			}
			_, err = poller.PollUntilDone(t.Context(), nil)
			return err
		}
		if err := importing("first"); err != nil {
			t.Fatalf("import while exports are enabled: %v", err)
		}
		after, err := flip(t, client, "sourceone", acr.ExportPolicyStatusDisabled, to.Ptr(acr.PublicNetworkAccessDisabled))
		if err != nil {
			t.Fatal(err)
		}
		if *after.Properties.Policies.ExportPolicy.Status != acr.ExportPolicyStatusDisabled || *after.Properties.PublicNetworkAccess != acr.PublicNetworkAccessDisabled {
			t.Errorf("after the flip: %v", after.Properties)
		}
		refused(t, importing("second"), http.StatusBadRequest, "exports disabled")
		_, err = flip(t, sdk(t, s, "adfs"), "sourceone", acr.ExportPolicyStatusDisabled, to.Ptr(acr.PublicNetworkAccessEnabled))
		refused(t, err, http.StatusBadRequest, "Enabling public network access is not supported because the registry 'sourceone' has exports disabled.")
		if _, err := flip(t, client, "sourceone", acr.ExportPolicyStatusEnabled, nil); err != nil {
			t.Fatal(err)
		}
		if err := importing("third"); err != nil {
			t.Errorf("import after exports are enabled again: %v", err)
		}
	})
}

func refused(t *testing.T, err error, status int, text string) {
	t.Helper()
	var answer *azcore.ResponseError
	if !errors.As(err, &answer) {
		t.Errorf("not refused: %v", err)
		return
	}
	if answer.StatusCode != status || !strings.Contains(answer.Error(), text) {
		t.Errorf("refused with %d: %v", answer.StatusCode, answer)
	}
}

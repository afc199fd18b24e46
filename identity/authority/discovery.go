// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/embargo-registry/embargo/fault"
)

// document is OpenID discovery (OpenID Connect Discovery 1.0, section 3), with what Azure's clients look for beside it.
type document struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Keys          string   `json:"jwks_uri"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	ResponseTypes []string `json:"response_types_supported"`
	ResponseModes []string `json:"response_modes_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	GrantTypes    []string `json:"grant_types_supported"`
	Scopes        []string `json:"scopes_supported"`
	Claims        []string `json:"claims_supported"`
	Cloud         string   `json:"cloud_instance_name"`
	Graph         string   `json:"cloud_graph_host_name"`
}

// issuer is the issuer that a family's discovery document and id tokens name.
func (x *exchange) issuer() string {
	switch x.family {
	case familyADFS:
		return x.base + "/adfs"
	case familyV2:
		return x.base + "/" + x.tenant + "/v2.0"
	}
	return x.base + "/" + x.tenant + "/"
}

// discovery answers the OpenID configuration of the path's family.
func (x *exchange) discovery() error {
	root, oauth, keys := x.base+"/"+x.tenant, "/oauth2", "/discovery/keys"
	switch x.family {
	case familyADFS:
		root = x.base + "/adfs"
	case familyV2:
		oauth, keys = "/oauth2/v2.0", "/discovery/v2.0/keys"
	}
	host := x.host()
	x.json(http.StatusOK, document{
		Issuer: x.issuer(), Authorization: root + oauth + "/authorize", Token: root + oauth + "/token", Keys: root + keys,
		AuthMethods:   []string{"client_secret_post", "client_secret_basic"},
		ResponseTypes: []string{"code"}, ResponseModes: []string{"query"}, SubjectTypes: []string{"public"}, Algorithms: []string{string(jose.ES256)},
		GrantTypes: []string{grantClient, grantPassword, grantRefresh},
		Scopes:     []string{"openid", "profile", "offline_access"},
		Claims:     []string{"sub", "iss", "aud", "exp", "iat", "oid", "tid", "upn", "preferred_username", "name"},
		Cloud:      host, Graph: host,
	})
	return nil
}

// host is the authority part of the URL that the client used, port included.
func (x *exchange) host() string {
	_, host, _ := strings.Cut(x.base, "://")
	return host
}

// keys answers the public keys that verify tokens.
func (x *exchange) keys() error {
	set, err := x.a.o.Identity.JWKS(x.r.Context())
	if err != nil {
		return err
	}
	x.json(http.StatusOK, set)
	return nil
}

type instances struct {
	Discovery string     `json:"tenant_discovery_endpoint"`
	Version   string     `json:"api-version"`
	Metadata  []instance `json:"metadata"`
}

type instance struct {
	Network string   `json:"preferred_network"`
	Cache   string   `json:"preferred_cache"`
	Aliases []string `json:"aliases"`
}

// instance answers the question whether an authority is genuine: only the host that it is asked of is.
// Source: Microsoft Authentication Library, instance discovery.
func (x *exchange) instance() error {
	asked := x.r.URL.Query().Get("authorization_endpoint")
	u, err := url.Parse(asked)
	if asked != "" && (err != nil || !x.a.o.Identity.OwnHost(u.Host) && !sameHost(x.base, u.Host)) {
		return refused(http.StatusBadRequest, "invalid_instance", 50049, "The authority '%s' is not one of this installation.", clip(asked))
	}
	host := x.host()
	x.json(http.StatusOK, instances{Discovery: x.base + "/" + x.tenant + "/v2.0/.well-known/openid-configuration", Version: "1.1",
		Metadata: []instance{{Network: host, Cache: host, Aliases: []string{host}}}})
	return nil
}

// interactive refuses the flows that need a browser, in words for the person who looks at it.
func (x *exchange) interactive() error {
	h := x.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	x.w.WriteHeader(http.StatusBadRequest)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write([]byte(interactivePage)) // the client has gone if it fails
	}
	return nil
}

// interactivePage holds nothing of the request.
const interactivePage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>No browser login</title>
<body style="font-family:sans-serif;max-width:40em;margin:3em auto">
<h1>This installation does not log in through a browser</h1>
<p>Log in with a service principal: <code>az login --service-principal -u CLIENT_ID -p SECRET --tenant TENANT_ID</code></p>
<p>or as a user: <code>az login -u NAME -p PASSWORD</code></p>
<p>The administrator of the installation makes both with <code>embargo principal create</code>.</p>
</body></html>
`

// flatMetadata is the first of the shapes of the metadata: what az asks when a cloud is registered by its resource manager alone.
type flatMetadata struct {
	Gallery        string             `json:"galleryEndpoint"`
	Graph          string             `json:"graphEndpoint"`
	Portal         string             `json:"portalEndpoint"`
	Authentication flatAuthentication `json:"authentication"`
}

type flatAuthentication struct {
	Login     string   `json:"loginEndpoint"`
	Audiences []string `json:"audiences"`
}

// cloud is the later shape, alone or in a list.
type cloud struct {
	Portal         string              `json:"portal"`
	Authentication cloudAuthentication `json:"authentication"`
	Media          string              `json:"media"`
	GraphAudience  string              `json:"graphAudience"`
	Graph          string              `json:"graph"`
	Name           string              `json:"name"`
	Suffixes       cloudSuffixes       `json:"suffixes"`
	Batch          string              `json:"batch"`
	Manager        string              `json:"resourceManager"`
	Images         string              `json:"vmImageAliasDoc"`
	DataLake       string              `json:"activeDirectoryDataLake"`
	SQL            string              `json:"sqlManagement"`
	MicrosoftGraph string              `json:"microsoftGraphResourceId"`
	Insights       string              `json:"appInsightsResourceId"`
	Telemetry      string              `json:"appInsightsTelemetryChannelResourceId"`
	Synapse        string              `json:"synapseAnalyticsResourceId"`
	LogAnalytics   string              `json:"logAnalyticsResourceId"`
	OSSRDBMS       string              `json:"ossrDbmsResourceId"`
	Attestation    string              `json:"attestationResourceId"`
	Gallery        string              `json:"gallery"`
}

type cloudAuthentication struct {
	Login     string   `json:"loginEndpoint"`
	Audiences []string `json:"audiences"`
	Tenant    string   `json:"tenant"`
	Provider  string   `json:"identityProvider"`
}

// cloudSuffixes are domains of services; but for the registries' they are names that nothing answers to here.
type cloudSuffixes struct {
	Registry    string `json:"acrLoginServer"`
	Vault       string `json:"keyVaultDns"`
	HSM         string `json:"mhsmDns"`
	Storage     string `json:"storage"`
	StorageSync string `json:"storageSyncEndpointSuffix"`
	SQL         string `json:"sqlServerHostname"`
	MySQL       string `json:"mysqlServerEndpoint"`
	PostgreSQL  string `json:"postgresqlServerEndpoint"`
	MariaDB     string `json:"mariadbServerEndpoint"`
	DataLake    string `json:"azureDataLakeStoreFileSystem"`
	Analytics   string `json:"azureDataLakeAnalyticsCatalogAndJob"`
	FrontDoor   string `json:"azureFrontDoorEndpointSuffix"`
	Synapse     string `json:"synapseAnalytics"`
	Attestation string `json:"attestationEndpoint"`
}

// metadata tells a client everything about the cloud that it would otherwise be configured with. The shape goes by api-version: az's register
// command reads 2015-01-01, az's ARM_CLOUD_METADATA_URL a list, Terraform one object whose authority must not be /adfs.
func (x *exchange) metadata() error {
	version := strings.TrimSuffix(x.r.URL.Query().Get("api-version"), "-preview")
	switch {
	case version == "":
		return fault.New(fault.MissingAPIVersion, "The api-version query parameter (?api-version=) is required for all requests.")
	case version == "1.0" || version < "2018-05-01" && isDate(version):
		x.json(http.StatusOK, flatMetadata{Gallery: x.base + "/", Graph: x.base + "/graph/", Portal: x.base + "/",
			Authentication: flatAuthentication{Login: x.base + "/adfs", Audiences: []string{x.base + "/"}}})
	case !isDate(version):
		return fault.New(fault.InvalidAPIVersion, "The api-version '%s' is invalid: it is a date such as 2022-09-01.", clip(version))
	case version < "2022-09-01":
		c := x.cloud()
		c.Authentication.Login += "/adfs"
		x.json(http.StatusOK, []cloud{c})
	default:
		x.json(http.StatusOK, x.cloud())
	}
	return nil
}

func (x *exchange) cloud() cloud {
	_, below, _ := strings.Cut(x.a.o.Suffix, ".")
	return cloud{
		Portal: x.base + "/", Graph: x.base + "/graph/", GraphAudience: x.base + "/graph/", MicrosoftGraph: x.base + "/graph/",
		Authentication: cloudAuthentication{Login: x.base, Audiences: []string{x.base + "/", x.base}, Tenant: "common", Provider: "AAD"},
		Media:          x.base + "/", Name: x.a.o.CloudName, Batch: x.base + "/batch/", Manager: x.base, Images: x.base + "/images", DataLake: x.base + "/datalake/",
		SQL: x.base + "/sql/", Insights: x.base + "/insights", Telemetry: x.base + "/telemetry", Synapse: x.base + "/synapse",
		LogAnalytics: x.base + "/loganalytics", OSSRDBMS: x.base + "/rdbms", Gallery: x.base + "/",
		Attestation: x.base + "/attestation",
		Suffixes: cloudSuffixes{Registry: x.a.o.Suffix, Vault: "vault." + below, HSM: "managedhsm." + below, Storage: "core." + below, StorageSync: "afs." + below,
			SQL: "database." + below, MySQL: "mysql.database." + below, PostgreSQL: "postgres.database." + below, MariaDB: "mariadb.database." + below,
			DataLake: "azuredatalakestore." + below, Analytics: "azuredatalakeanalytics." + below, FrontDoor: "azurefd." + below,
			Synapse: "dev.azuresynapse." + below, Attestation: "attest." + below},
	}
}

func isDate(s string) bool {
	if len(s) != len("2006-01-02") {
		return false
	}
	for i, c := range []byte(s) {
		if dash := i == 4 || i == 7; dash != (c == '-') || !dash && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

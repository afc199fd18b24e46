// SPDX-License-Identifier: Apache-2.0

// Package authority is the token authority and the cloud metadata over HTTP: the part of Microsoft's directory that az, the SDKs and
// Terraform talk to before they talk to the resource manager. It hides the several spellings of the same few endpoints.
//
// It promises that every grant proves the client by a secret, and that each attempt is on record. It refuses interactive flows (there
// is no page to log in on), tokens for resources of others, and tenants that are not this installation's.
package authority

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

// Options configure an Authority. All but Log are required.
type Options struct {
	Identity *identity.Service
	DB       *meta.DB
	Audit    *audit.Log
	// Suffix is the registries' domain, without a leading dot.
	Suffix string
	Log    *slog.Logger
}

// Authority answers token requests and metadata. It is safe for concurrent use.
type Authority struct{ o Options }

// New makes an authority.
func New(o Options) (*Authority, error) {
	if o.Identity == nil || o.DB == nil || o.Audit == nil || o.Suffix == "" {
		return nil, errors.New("authority: identity, database, audit log and suffix are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Authority{o}, nil
}

// adfs is the tenant segment by which clients skip the discovery of Microsoft's own cloud.
const adfs = "adfs"

// endpoint is a path of the authority: its tenant segment and what is asked of it.
type endpoint struct {
	tenant, what string
	v2           bool
}

// parse finds the endpoint of a path, in any casing.
func parse(path string) (endpoint, bool) {
	p := strings.Trim(strings.ToLower(path), "/")
	if p == "metadata/endpoints" || p == "msi/token" {
		return endpoint{what: p}, true
	}
	tenant, rest, ok := strings.Cut(p, "/")
	if !ok {
		return endpoint{}, false
	}
	e := endpoint{tenant: tenant}
	if cut := strings.TrimPrefix(rest, "v2.0/"); cut != rest {
		e.v2, rest = true, cut
	}
	if strings.Contains(rest, "/v2.0/") {
		e.v2, rest = true, strings.Replace(rest, "/v2.0/", "/", 1)
	}
	switch rest {
	case ".well-known/openid-configuration", "oauth2/token", "oauth2/authorize", "oauth2/devicecode", "discovery/keys":
		e.what = rest
	case "discovery/instance":
		e.what = rest
	default:
		return endpoint{}, false
	}
	return e, true
}

// Serves reports whether the request is the authority's.
func (a *Authority) Serves(r *http.Request) bool {
	_, ok := parse(r.URL.Path)
	return ok
}

// ServeHTTP answers one request that Serves accepts.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, ok := parse(r.URL.Path)
	if !ok {
		a.fail(w, r, fault.New(fault.NotFound, "The authority has no such endpoint."))
		return
	}
	if err := a.serve(w, r, e); err != nil {
		a.fail(w, r, err)
	}
}

func (a *Authority) serve(w http.ResponseWriter, r *http.Request, e endpoint) error {
	method := http.MethodGet
	if strings.HasSuffix(e.what, "/token") {
		method = http.MethodPost
	}
	if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) && e.what != "msi/token" {
		w.Header().Set("Allow", method)
		return fault.New(fault.MethodNotAllowed, "This endpoint takes %s.", method)
	}
	if e.tenant != "" {
		if err := a.ours(r, e.tenant); err != nil {
			return err
		}
	}
	switch e.what {
	case "metadata/endpoints":
		return a.metadata(w, r)
	case "msi/token":
		return a.managedIdentity(w, r)
	case ".well-known/openid-configuration":
		return a.discovery(w, r, e)
	case "discovery/keys":
		keys, err := a.o.Identity.JWKS(r.Context())
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, keys)
	case "discovery/instance":
		return answer(w, http.StatusOK, map[string]any{
			"tenant_discovery_endpoint": base(r) + "/" + e.tenant + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": r.Host, "preferred_cache": r.Host, "aliases": []string{r.Host}}},
		})
	case "oauth2/token":
		return a.token(w, r, e)
	}
	return refuse("unauthorized_client", 7000218, http.StatusBadRequest,
		"Interactive log-in is not offered by this installation. Log in as a service principal (az login --service-principal) or with a user name and password.")
}

// base is the scheme and authority that the client used; the door has checked that the host is the installation's.
func base(r *http.Request) string { return "https://" + r.Host }

// ours refuses tenants of others.
func (a *Authority) ours(r *http.Request, tenant string) error {
	switch tenant {
	case adfs, "common", "organizations":
		return nil
	}
	own, err := a.tenant(r)
	if err != nil {
		return err
	}
	if tenant != own {
		return refuse("invalid_request", 90002, http.StatusBadRequest, "The tenant '"+clip(tenant)+"' is not here; this installation's is "+own+".")
	}
	return nil
}

func (a *Authority) tenant(r *http.Request) (string, error) {
	var own string
	err := a.o.DB.Read(r.Context(), func(tx *meta.Tx) (err error) {
		own, err = a.o.Identity.Tenant(tx)
		return err
	})
	return own, err
}

// discovery is the OpenID Connect discovery document (OpenID Connect Discovery 1.0, section 3).
func (a *Authority) discovery(w http.ResponseWriter, r *http.Request, e endpoint) error {
	root := base(r) + "/" + e.tenant
	v2 := ""
	if e.tenant != adfs {
		v2 = "/v2.0"
	}
	issuer := root + v2
	if e.tenant == "common" || e.tenant == "organizations" {
		own, err := a.tenant(r)
		if err != nil {
			return err
		}
		issuer = base(r) + "/" + own + v2
	}
	return answer(w, http.StatusOK, map[string]any{
		"issuer":                                issuer,
		"authorization_endpoint":                root + "/oauth2" + v2 + "/authorize",
		"token_endpoint":                        root + "/oauth2" + v2 + "/token",
		"device_authorization_endpoint":         root + "/oauth2" + v2 + "/devicecode",
		"jwks_uri":                              root + "/discovery" + v2 + "/keys",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		"response_types_supported":              []string{"code", "id_token", "token"},
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"grant_types_supported":                 []string{"client_credentials", "password", "refresh_token"},
		"scopes_supported":                      []string{"openid", "profile", "offline_access"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
		"claims_supported":                      []string{"sub", "iss", "aud", "exp", "iat", "nbf", "oid", "tid", "preferred_username"},
		"cloud_instance_name":                   r.Host,
	})
}

// metadata describes the cloud, in the shape that the api-version asks: a flat object before 2018, a list before 2022-09-01, then an object.
func (a *Authority) metadata(w http.ResponseWriter, r *http.Request) error {
	arm := base(r)
	v := r.URL.Query().Get("api-version")
	if v < "2018" {
		return answer(w, http.StatusOK, map[string]any{
			"galleryEndpoint": arm + "/", "graphEndpoint": arm + "/graph/", "portalEndpoint": arm + "/",
			"authentication": map[string]any{"loginEndpoint": arm + "/" + adfs, "audiences": []string{arm + "/"}},
		})
	}
	cloud := map[string]any{
		"name": "Embargo", "resourceManager": arm, "portal": arm + "/", "gallery": arm + "/", "sqlManagement": arm + "/", "batch": arm + "/", "media": arm + "/",
		"graph": arm + "/graph/", "graphAudience": arm + "/graph/", "microsoftGraphResourceId": arm + "/graph/", "activeDirectoryDataLake": arm + "/",
		"logAnalyticsResourceId": arm + "/loganalytics", "appInsightsResourceId": arm + "/appinsights", "vmImageAliasDoc": arm + "/aliases.json",
		"synapseAnalyticsResourceId": arm + "/synapse", "attestationResourceId": arm + "/attestation",
		"suffixes": map[string]any{
			"acrLoginServer": a.o.Suffix, "keyVaultDns": "vault.localhost", "storage": "core.localhost", "sqlServerHostname": "database.localhost",
			"azureDataLakeStoreFileSystem": "azuredatalakestore.localhost", "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.localhost",
			"mysqlServerEndpoint": "mysql.database.localhost", "postgresqlServerEndpoint": "postgres.database.localhost",
			"mariadbServerEndpoint": "mariadb.database.localhost", "mhsmDns": "managedhsm.localhost", "synapseAnalytics": "dev.synapse.localhost",
			"storageSyncEndpointSuffix": "afs.localhost", "attestationEndpoint": "attest.localhost", "azureFrontDoorEndpointSuffix": "azurefd.localhost",
		},
	}
	if v < "2022-09-01" {
		cloud["authentication"] = map[string]any{"loginEndpoint": arm + "/" + adfs, "audiences": []string{arm + "/"}, "tenant": adfs, "identityProvider": "ADFS"}
		return answer(w, http.StatusOK, []any{cloud})
	}
	cloud["authentication"] = map[string]any{"loginEndpoint": arm, "audiences": []string{arm + "/", arm}, "tenant": "common", "identityProvider": "AAD"}
	return answer(w, http.StatusOK, cloud)
}

func answer(w http.ResponseWriter, status int, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that has gone needs no answer
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

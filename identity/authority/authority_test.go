// SPDX-License-Identifier: Apache-2.0

package authority_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/identity/authority"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

const (
	host     = "localhost:8443"
	base     = "https://" + host
	azure    = "04b07795-8ddb-461a-bbee-02f9e1bf7b46" // Azure CLI
	password = "correct horse battery"
)

// bench is an authority over a bootstrapped identity service.
type bench struct {
	*authority.Authority
	t     *testing.T
	db    *meta.DB
	ids   *identity.Service
	audit *audit.Log
	first identity.First
}

func each(t *testing.T, fn func(t *testing.T, b *bench)) {
	t.Helper()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) { fn(t, newBench(t, open(), "")) })
}

func newBench(t *testing.T, db *meta.DB, public string) *bench {
	t.Helper()
	keyring, err := meta.NewKeyring(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, db: db}
	if b.ids, err = identity.New(t.Context(), identity.Options{DB: db, Keyring: keyring}); err != nil {
		t.Fatal(err)
	}
	if b.first, err = b.ids.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.audit, err = audit.New(t.Context(), audit.Options{DB: db, Node: "n"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.audit.Close(); err != nil {
			t.Error(err)
		}
	})
	if b.Authority, err = authority.New(authority.Options{DB: db, Identity: b.ids, Audit: b.audit, Suffix: ".azurecr.localhost", PublicURL: public}); err != nil {
		t.Fatal(err)
	}
	b.write(func(tx *meta.Tx) error {
		_, _, err := b.ids.CreatePrincipal(tx, identity.User, "ada@example.com", password)
		return err
	})
	return b
}

func (b *bench) write(fn func(tx *meta.Tx) error) {
	b.t.Helper()
	if err := b.db.Write(b.t.Context(), fn); err != nil {
		b.t.Fatal(err)
	}
}

// answer is an exchange's answer: Body is nil when it is no JSON object.
type answer struct {
	*http.Response
	Text string
	Body map[string]any
}

// ask makes an exchange; form is a POST's body.
func (b *bench) ask(method, target string, form url.Values, headers ...string) answer {
	b.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
	r.Host, r.TLS = host, &tls.ConnectionState{}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		if r.Header.Set(k, v); k == "Host" {
			r.Host = v
		}
	}
	if !b.Serves(r) {
		b.t.Errorf("%s is not the authority's", target)
	}
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	a := answer{Response: w.Result(), Text: w.Body.String()}
	_ = json.Unmarshal([]byte(a.Text), &a.Body) // a list or a page stays nil
	return a
}

func (b *bench) clientForm(more ...string) url.Values {
	f := url.Values{"grant_type": {"client_credentials"}, "client_id": {b.first.ClientID}, "client_secret": {string(b.first.Secret)}, "scope": {base + "//.default"}}
	for i := 0; i < len(more); i += 2 {
		f.Set(more[i], more[i+1])
	}
	return f
}

func claims(t *testing.T, token any) map[string]any {
	t.Helper()
	text, _ := token.(string)
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		t.Fatalf("%v is no token", token)
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Each family of paths, with its discovery document, leads to a token that opens the resource manager.
func TestClientCredentials(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		for _, c := range []struct {
			discovery, issuer string
			form              url.Values
			audience          string
		}{
			{"/adfs/.well-known/openid-configuration", base + "/adfs", b.clientForm("client_info", "1", "claims", "{}"), base + "/"},
			{"/ADFS/.well-known/openid-configuration", base + "/adfs", b.clientForm("scope", base+"/.default"), base},
			{"/" + b.first.Tenant + "/v2.0/.well-known/openid-configuration", base + "/" + b.first.Tenant + "/v2.0", b.clientForm("scope", base+"/graph//.default"), base + "/graph/"},
			{"/" + strings.ToUpper(b.first.Tenant) + "/v2.0/.well-known/openid-configuration", base + "/" + b.first.Tenant + "/v2.0", b.clientForm(), base + "/"},
			{"/common/v2.0/.well-known/openid-configuration", base + "/" + b.first.Tenant + "/v2.0", b.clientForm("scope", "https://containerregistry.azure.net/.default"), "https://containerregistry.azure.net"},
			{"/organizations/.well-known/openid-configuration", base + "/" + b.first.Tenant + "/", b.clientForm("scope", "", "resource", base+"/"), base + "/"},
		} {
			doc := b.ask("GET", c.discovery+"?client-request-id=x", nil)
			if doc.StatusCode != 200 || doc.Body["issuer"] != c.issuer {
				t.Errorf("%s: %d %s", c.discovery, doc.StatusCode, doc.Text)
				continue
			}
			at := func(member string) string {
				u, _ := doc.Body[member].(string)
				return strings.TrimPrefix(u, base)
			}
			got := b.ask("POST", at("token_endpoint"), c.form)
			if got.StatusCode != 200 || got.Body["token_type"] != "Bearer" || got.Body["expires_in"] != 3599.0 || got.Header.Get("Cache-Control") == "" {
				t.Errorf("%s: %d %s", at("token_endpoint"), got.StatusCode, got.Text)
				continue
			}
			if got.Body["refresh_token"] != nil || got.Body["id_token"] != nil {
				t.Errorf("a service principal gets a user's tokens: %s", got.Text)
			}
			token := claims(t, got.Body["access_token"])
			if token["aud"] != c.audience || token["tid"] != b.first.Tenant || token["appid"] != b.first.ClientID {
				t.Errorf("%s: claims %v", c.discovery, token)
			}
			caller, err := b.ids.Authenticate(t.Context(), got.Body["access_token"].(string))
			if opens := strings.TrimSuffix(c.audience, "/") == base; opens != (err == nil) || opens && caller.ID != b.first.Principal {
				t.Errorf("for %s: %+v, %v", c.audience, caller, err)
			}
			keys := b.ask("GET", at("jwks_uri"), nil)
			if list, _ := keys.Body["keys"].([]any); keys.StatusCode != 200 || len(list) != 1 || strings.Contains(keys.Text, `"d"`) {
				t.Errorf("%s: %d %s", at("jwks_uri"), keys.StatusCode, keys.Text)
			}
		}
		basic := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(b.first.ClientID) + ":" + url.QueryEscape(string(b.first.Secret))))
		got := b.ask("POST", "/adfs/oauth2/token", url.Values{"grant_type": {"client_credentials"}}, "Authorization: Basic "+basic)
		if got.StatusCode != 200 || claims(t, got.Body["access_token"])["aud"] != base+"/" {
			t.Errorf("credentials in the header: %d %s", got.StatusCode, got.Text)
		}
		v1 := b.ask("POST", "/"+b.first.Tenant+"/oauth2/token", b.clientForm("scope", "", "resource", base))
		if v1.Body["resource"] != base || v1.Body["expires_on"] == nil {
			t.Errorf("version 1: %s", v1.Text)
		}
	})
}

// Every refusal is OAuth's, with a number that Azure's clients know, and tells no secret.
func TestRefusals(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		user := func(more ...string) url.Values {
			f := url.Values{"grant_type": {"password"}, "client_id": {azure}, "username": {"ada@example.com"}, "password": {password}, "scope": {base + "/.default"}}
			for i := 0; i < len(more); i += 2 {
				f.Set(more[i], more[i+1])
			}
			return f
		}
		twice := b.clientForm()
		twice["client_secret"] = []string{string(b.first.Secret), "other"}
		basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(b.first.ClientID+":"+string(b.first.Secret)))
		for what, c := range map[string]struct {
			form    url.Values
			headers []string
			status  int
			code    string
			number  string
		}{
			"wrong secret":           {b.clientForm("client_secret", "wrong"), nil, 401, "invalid_client", "AADSTS7000215: "},
			"no secret":              {b.clientForm("client_secret", ""), nil, 401, "invalid_client", "AADSTS7000218: "},
			"unknown client":         {b.clientForm("client_id", azure), nil, 401, "invalid_client", "AADSTS7000215: "},
			"no client":              {b.clientForm("client_id", ""), nil, 400, "invalid_request", "AADSTS900144: "},
			"a user as a client":     {b.clientForm("client_id", "ada@example.com", "client_secret", password), nil, 401, "invalid_client", "AADSTS7000215: "},
			"credentials twice":      {b.clientForm(), []string{basic}, 400, "invalid_request", "AADSTS90013: "},
			"a parameter twice":      {twice, nil, 400, "invalid_request", "AADSTS90100: "},
			"an assertion":           {b.clientForm("client_assertion", "x", "client_secret", ""), nil, 401, "invalid_client", "AADSTS700027: "},
			"no grant":               {b.clientForm("grant_type", ""), nil, 400, "invalid_request", "AADSTS900144: "},
			"another grant":          {b.clientForm("grant_type", "authorization_code"), nil, 400, "unsupported_grant_type", "AADSTS70003: "},
			"another's resource":     {b.clientForm("scope", "https://management.azure.com/.default"), nil, 400, "invalid_resource", "AADSTS500011: "},
			"two resources":          {b.clientForm("scope", base+"/.default https://containerregistry.azure.net/.default"), nil, 400, "invalid_scope", "AADSTS28000: "},
			"wrong password":         {user("password", "wrong"), nil, 400, "invalid_grant", "AADSTS50126: "},
			"unknown user":           {user("username", "bob@example.com"), nil, 400, "invalid_grant", "AADSTS50126: "},
			"a client as a user":     {user("username", b.first.ClientID, "password", string(b.first.Secret)), nil, 400, "invalid_grant", "AADSTS50126: "},
			"a user's other program": {user("client_id", b.first.ClientID), nil, 400, "unauthorized_client", "AADSTS700016: "},
			"no refresh token":       {user("grant_type", "refresh_token"), nil, 400, "invalid_request", "AADSTS900144: "},
			"a wrong refresh token":  {user("grant_type", "refresh_token", "refresh_token", "x"), nil, 400, "invalid_grant", "AADSTS70008: "},
			"too long":               {b.clientForm("x", strings.Repeat("x", 70<<10)), nil, 400, "invalid_request", "AADSTS90014: "},
		} {
			got := b.ask("POST", "/"+b.first.Tenant+"/oauth2/v2.0/token", c.form, c.headers...)
			text, _ := got.Body["error_description"].(string)
			if got.StatusCode != c.status || got.Body["error"] != c.code || !strings.HasPrefix(text, c.number) || got.Body["access_token"] != nil {
				t.Errorf("%s: %d %s", what, got.StatusCode, got.Text)
			}
			if strings.Contains(got.Text, string(b.first.Secret)) || strings.Contains(got.Text, password) {
				t.Errorf("%s: the answer tells the secret: %s", what, got.Text)
			}
		}
		// What stands in the query is no credential.
		got := b.ask("POST", "/adfs/oauth2/token?"+b.clientForm().Encode(), url.Values{})
		if got.StatusCode != 400 || got.Body["access_token"] != nil {
			t.Errorf("credentials in the URL: %d %s", got.StatusCode, got.Text)
		}
	})
}

// A user logs in with a password and goes on with a refresh token, until disabled.
func TestUsers(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		scope := base + "//.default offline_access openid profile"
		got := b.ask("POST", "/adfs/oauth2/token", url.Values{"grant_type": {"password"}, "client_id": {azure}, "username": {"ADA@example.com"}, "password": {password}, "scope": {scope}})
		for range 2 {
			if got.StatusCode != 200 {
				t.Fatalf("%d %s", got.StatusCode, got.Text)
			}
			caller, err := b.ids.Authenticate(t.Context(), got.Body["access_token"].(string))
			if err != nil || caller.Type != identity.User || caller.Name != "ada@example.com" {
				t.Fatalf("%+v, %v", caller, err)
			}
			id := claims(t, got.Body["id_token"])
			for k, want := range map[string]any{"aud": azure, "iss": base + "/adfs", "oid": caller.ID, "sub": caller.ID, "tid": b.first.Tenant, "preferred_username": "ada@example.com"} {
				if id[k] != want {
					t.Errorf("id token: %s is %v, want %v", k, id[k], want)
				}
			}
			info, err := base64.RawURLEncoding.DecodeString(got.Body["client_info"].(string))
			if err != nil || string(info) != `{"uid":"`+caller.ID+`","utid":"`+b.first.Tenant+`"}` {
				t.Errorf("client_info: %s, %v", info, err)
			}
			got = b.ask("POST", "/adfs/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {azure}, "refresh_token": {got.Body["refresh_token"].(string)}, "scope": {scope}})
		}
		b.write(func(tx *meta.Tx) error { _, err := b.ids.EnablePrincipal(tx, "ada@example.com", false); return err })
		got = b.ask("POST", "/adfs/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {azure}, "refresh_token": {got.Body["refresh_token"].(string)}, "scope": {scope}})
		if got.StatusCode != 400 || got.Body["error"] != "invalid_grant" {
			t.Errorf("a disabled user goes on: %d %s", got.StatusCode, got.Text)
		}
	})
}

// The endpoint of managed identities is not there until there is one, and then takes that one's secret in the header, in both spellings.
func TestManagedIdentity(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		form := url.Values{"resource": {base + "/"}}
		if got := b.ask("POST", "/msi/token", form, "Secret: "+string(b.first.Secret)); got.StatusCode != 404 {
			t.Errorf("without a managed identity: %d %s", got.StatusCode, got.Text)
		}
		var p identity.Principal
		var secret string
		b.write(func(tx *meta.Tx) (err error) {
			p, secret, err = b.ids.CreatePrincipal(tx, identity.ManagedIdentity, "vm", "")
			return err
		})
		good := func(a answer) {
			t.Helper()
			if a.StatusCode != 200 {
				t.Fatalf("%d %s", a.StatusCode, a.Text)
			}
			token := claims(t, a.Body["access_token"])
			if token["tid"] != b.first.Tenant || token["oid"] != p.ID || a.Body["client_id"] != p.AppID || a.Body["expires_on"] == "" || a.Body["resource"] != base+"/" {
				t.Errorf("%v, %s", token, a.Text)
			}
		}
		good(b.ask("POST", "/MSI/token", form, "Secret: "+secret))
		good(b.ask("GET", "/msi/token?api-version=2019-08-01&resource="+url.QueryEscape(base+"/"), nil, "X-IDENTITY-HEADER: "+secret))
		good(b.ask("GET", "/msi/token/?api-version=2017-09-01&clientid="+p.AppID+"&resource="+base+"/", nil, "Secret: "+secret))
		good(b.ask("GET", "/msi/token?client_id="+p.AppID+"&resource="+url.QueryEscape(base+"/"), nil, "X-IDENTITY-HEADER: "+secret))
		for what, a := range map[string]answer{
			"no secret":        b.ask("POST", "/msi/token", form),
			"wrong secret":     b.ask("POST", "/msi/token", form, "Secret: x"),
			"another's secret": b.ask("POST", "/msi/token", form, "Secret: "+string(b.first.Secret)),
			"another identity": b.ask("GET", "/msi/token?client_id="+azure+"&resource="+url.QueryEscape(base+"/"), nil, "Secret: "+secret),
		} {
			if a.StatusCode != 401 || a.Body["access_token"] != nil {
				t.Errorf("%s: %d %s", what, a.StatusCode, a.Text)
			}
		}
	})
}

// The metadata has the shape that the api-version's clients read.
func TestMetadata(t *testing.T) {
	b := newBench(t, metatest.Open(t, metatest.URL(t, "sqlite")), "")
	for version, login := range map[string]string{"2015-01-01": base + "/adfs", "1.0": base + "/adfs"} {
		got := b.ask("GET", "/metadata/endpoints?api-version="+version, nil)
		want := map[string]any{"galleryEndpoint": base + "/", "graphEndpoint": base + "/graph/", "portalEndpoint": base + "/",
			"authentication": map[string]any{"loginEndpoint": login, "audiences": []any{base + "/"}}}
		if got.StatusCode != 200 || !reflect.DeepEqual(got.Body, want) {
			t.Errorf("%s: %s", version, got.Text)
		}
	}
	check := func(version string, cloud map[string]any, login string) {
		t.Helper()
		auth, _ := cloud["authentication"].(map[string]any)
		suffixes, _ := cloud["suffixes"].(map[string]any)
		if auth["loginEndpoint"] != login || cloud["name"] != "Embargo" || cloud["resourceManager"] != base || suffixes["acrLoginServer"] != "azurecr.localhost" {
			t.Errorf("%s: %v", version, cloud)
		}
		if list, _ := auth["audiences"].([]any); len(list) == 0 || list[0] != base+"/" {
			t.Errorf("%s: audiences %v", version, auth["audiences"])
		}
		for k, v := range cloud {
			if v == "" {
				t.Errorf("%s: %s is empty", version, k)
			}
		}
	}
	for _, version := range []string{"2018-05-01", "2019-05-01", "2020-06-01"} {
		got := b.ask("GET", "/metadata/endpoints?api-version="+version, nil)
		var list []map[string]any
		if err := json.Unmarshal([]byte(got.Text), &list); err != nil || len(list) != 1 {
			t.Fatalf("%s: %v %s", version, err, got.Text)
		}
		check(version, list[0], base+"/adfs")
	}
	for _, version := range []string{"2022-09-01", "2024-01-01"} {
		got := b.ask("GET", "/metadata/endpoints?api-version="+version, nil)
		check(version, got.Body, base)
		auth, _ := got.Body["authentication"].(map[string]any)
		if auth["identityProvider"] != "AAD" || auth["tenant"] != "common" {
			t.Errorf("%s: Terraform would take it for Azure Stack: %v", version, auth)
		}
	}
	for _, query := range []string{"", "?api-version=newest"} {
		if got := b.ask("GET", "/metadata/endpoints"+query, nil); got.StatusCode != 400 {
			t.Errorf("%q: %d %s", query, got.StatusCode, got.Text)
		}
	}
}

// URLs are built from names of the installation alone: a Host that is none of them gets nothing.
func TestHosts(t *testing.T) {
	db := metatest.Open(t, metatest.URL(t, "sqlite"))
	b := newBench(t, db, "")
	for _, h := range []string{"evil.example.com", "localhost.example.com", "", "login.microsoftonline.com"} {
		got := b.ask("GET", "/adfs/.well-known/openid-configuration", nil, "Host: "+h)
		if got.StatusCode != 421 || h != "" && strings.Contains(got.Header.Get("Location"), h) || strings.Contains(got.Text, "https://"+h+"/") {
			t.Errorf("%q: %d %s", h, got.StatusCode, got.Text)
		}
	}
	for query, status := range map[string]int{"": 200, "https://" + host + "/x": 200, "https://login.microsoftonline.com/common/oauth2/v2.0/authorize": 400, "https://localhost.example.com/": 400} {
		got := b.ask("GET", "/common/discovery/instance?api-version=1.1&authorization_endpoint="+url.QueryEscape(query), nil)
		if got.StatusCode != status || status == 200 && !strings.HasPrefix(got.Body["tenant_discovery_endpoint"].(string), base+"/") {
			t.Errorf("instance %q: %d %s", query, got.StatusCode, got.Text)
		}
	}
	public := newBenchOn(b, "https://ARM.example.com/")
	if got := public.ask("GET", "/adfs/.well-known/openid-configuration", nil); got.Body["token_endpoint"] != "https://ARM.example.com/adfs/oauth2/token" {
		t.Errorf("with a public URL: %s", got.Text)
	}
	if got := public.ask("GET", "/adfs/.well-known/openid-configuration", nil, "Host: evil.example.com"); got.StatusCode != 421 {
		t.Errorf("with a public URL, another host: %d", got.StatusCode)
	}
	if _, err := authority.New(authority.Options{DB: db, Identity: b.ids, Audit: b.audit, Suffix: "s", PublicURL: "arm.example.com"}); err == nil {
		t.Error("a public URL without a scheme is taken")
	}
}

// newBenchOn is another authority over the same service.
func newBenchOn(b *bench, public string) *bench {
	b.t.Helper()
	c := *b
	var err error
	if c.Authority, err = authority.New(authority.Options{DB: b.db, Identity: b.ids, Audit: b.audit, Suffix: "azurecr.localhost", PublicURL: public}); err != nil {
		b.t.Fatal(err)
	}
	return &c
}

// What is no path, method or tenant of the authority is said to be none; browsers get a page.
func TestPaths(t *testing.T) {
	b := newBench(t, metatest.Open(t, metatest.URL(t, "sqlite")), "")
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/adfs", 404}, {"GET", "/adfs/nothing", 404}, {"GET", "/metadata/instance", 404}, {"GET", "/common/x/y", 404},
		{"GET", "/adfs/oauth2/token", 405}, {"POST", "/adfs/.well-known/openid-configuration", 405}, {"HEAD", "/adfs/discovery/keys", 200},
		{"GET", "/11111111-2222-3333-4444-555555555555/v2.0/.well-known/openid-configuration", 400},
		{"GET", "/consumers/v2.0/.well-known/openid-configuration", 400},
		{"GET", "//adfs//.well-known//openid-configuration", 200},
	} {
		got := b.ask(c.method, c.path, nil)
		if got.StatusCode != c.status || c.status >= 400 && got.Body["error"] == nil {
			t.Errorf("%s %s: %d %s", c.method, c.path, got.StatusCode, got.Text)
		}
	}
	for _, path := range []string{"/adfs/oauth2/authorize?x=<script>", "/common/oauth2/v2.0/authorize", "/" + b.first.Tenant + "/oauth2/v2.0/devicecode"} {
		got := b.ask("GET", path, nil)
		if got.StatusCode != 400 || !strings.Contains(got.Text, "az login --service-principal") || strings.Contains(got.Text, "<script>") {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.Text)
		}
	}
	for _, path := range []string{"/", "/subscriptions", "/tenants", "/providers/Microsoft.ContainerRegistry", "/subscriptions/" + b.first.Tenant + "/adfs/oauth2/token"} {
		if b.Serves(httptest.NewRequest("GET", path, nil)) {
			t.Errorf("%s is the resource manager's", path)
		}
	}
}

// Each attempt is on record: who, from where, by which secret, and why not; never the secret.
func TestRecords(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		b.ask("POST", "/adfs/oauth2/token", b.clientForm(), "User-Agent: az")
		b.ask("POST", "/adfs/oauth2/token", b.clientForm("client_secret", "a wrong secret"))
		if err := b.audit.Close(); err != nil {
			t.Fatal(err)
		}
		all, err := b.audit.Read(t.Context(), audit.Query{Kind: audit.Login})
		if err != nil || len(all) != 2 {
			t.Fatalf("%+v, %v", all, err)
		}
		yes, no := all[0], all[1]
		if yes.Outcome != audit.Allowed || yes.Caller.ID != b.first.Principal || !strings.HasPrefix(yes.Caller.Credential, "secret:") || yes.Source.UserAgent != "az" || yes.Source.Address == "" {
			t.Errorf("%+v", yes)
		}
		if no.Outcome != audit.Refused || no.Caller.ID != "" || no.Caller.Name != b.first.ClientID || no.Rule != "invalid_client" || no.Reason == "" {
			t.Errorf("%+v", no)
		}
		for _, e := range all {
			if strings.Contains(string(e.Leaf), string(b.first.Secret)) || strings.Contains(string(e.Leaf), "a wrong secret") {
				t.Errorf("a record tells the secret: %s", e.Leaf)
			}
		}
		// A token that can't be put on record is not given.
		if got := b.ask("POST", "/adfs/oauth2/token", b.clientForm()); got.StatusCode != 503 || got.Body["access_token"] != nil {
			t.Errorf("without a record: %d %s", got.StatusCode, got.Text)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

// The grants that are offered (RFC 6749).
const (
	grantClient   = "client_credentials"
	grantPassword = "password"
	grantRefresh  = "refresh_token"
	grantManaged  = "managed_identity"
)

// bodyLimit is the most bytes of a token request.
const bodyLimit = 64 << 10

// publicClient reports whether a client id is a program's that users log in with, which has no secret of its own: Azure CLI and Azure PowerShell.
func publicClient(id string) bool {
	return strings.EqualFold(id, "04b07795-8ddb-461a-bbee-02f9e1bf7b46") || strings.EqualFold(id, "1950a258-227b-4e31-a9cf-717495945fc2")
}

// tokenBody is the answer of the token endpoint (RFC 6749, section 5.1).
type tokenBody struct {
	Type        string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	ExtendedIn  int    `json:"ext_expires_in"`
	ExpiresOn   string `json:"expires_on,omitempty"`
	NotBefore   string `json:"not_before,omitempty"`
	Resource    string `json:"resource,omitempty"`
	AccessToken string `json:"access_token"`
	Refresh     string `json:"refresh_token,omitempty"`
	IDToken     string `json:"id_token,omitempty"`
	ClientInfo  string `json:"client_info,omitempty"`
	ClientID    string `json:"client_id,omitempty"`
}

// attempt is a request for a token on its way, and what is known of it for the record.
type attempt struct {
	form       url.Values
	grant      string
	client     string // the client id or user name as it was given
	audience   string
	principal  identity.Principal // once it is proven
	credential string
}

// token serves the token endpoint.
func (x *exchange) token() error {
	a := &attempt{}
	body, err := x.grant(a)
	return x.conclude(a, body, err)
}

// conclude puts an attempt on record and answers it. A token that could not be recorded is not given.
func (x *exchange) conclude(a *attempt, body tokenBody, err error) error {
	p := a.principal
	r := audit.Record{Kind: audit.Login, Action: "Embargo.Identity/tokens/" + a.grant + "/action", Outcome: audit.Allowed, Resource: clip(a.audience),
		Caller: audit.Caller{ID: p.ID, Name: p.Name, Type: string(p.Type), Credential: a.credential, Tenant: x.tenant},
		Source: audit.Source{Address: x.r.RemoteAddr, UserAgent: clip(x.r.UserAgent())}, Correlation: x.id}
	if x.a.o.Source != nil {
		r.Source.Address, r.Source.Zone = x.a.o.Source(x.r)
	}
	if p.ID == "" {
		r.Caller.Name = clip(a.client)
	}
	if err != nil {
		e := refusalOf(err)
		r.Outcome, r.Rule, r.Reason = audit.Refused, e.code, e.text
		x.a.o.Failed(r)
		return err
	}
	if err := x.a.o.Audit.Decide(x.r.Context(), r); err != nil {
		return fault.New(fault.Unavailable, "The login could not be recorded, so it is refused.").Because(err)
	}
	x.json(http.StatusOK, body)
	return nil
}

// grant reads the request, proves who asks, and makes the token.
func (x *exchange) grant(a *attempt) (tokenBody, error) {
	var err error
	if a.form, err = x.form(); err != nil {
		return tokenBody{}, err
	}
	a.grant = clip(a.form.Get("grant_type"))
	client, secret, err := x.client(a.form)
	a.client = client
	if err != nil {
		return tokenBody{}, err
	}
	if a.audience, err = x.audience(a.form); err != nil {
		return tokenBody{}, err
	}
	switch grant := a.form.Get("grant_type"); grant {
	case grantClient:
		return x.clientGrant(a, client, secret)
	case grantPassword:
		return x.passwordGrant(a, client)
	case grantRefresh:
		return x.refreshGrant(a, client)
	case "":
		return tokenBody{}, missing("grant_type")
	default:
		return tokenBody{}, refused(http.StatusBadRequest, "unsupported_grant_type", 70003,
			"The grant '%s' is not offered: client_credentials, password and refresh_token are.", clip(grant))
	}
}

func missing(parameter string) error {
	return refused(http.StatusBadRequest, "invalid_request", 900144, "The request body must contain the parameter '%s'.", parameter)
}

// form reads the body's parameters: what stands in the query is no credential. A parameter given twice is refused (RFC 6749, section 3.2).
func (x *exchange) form() (url.Values, error) {
	x.r.Body = http.MaxBytesReader(x.w, x.r.Body, bodyLimit)
	if err := x.r.ParseForm(); err != nil {
		return nil, refused(http.StatusBadRequest, "invalid_request", 90014, "The request's body is no form, or is too long.").because(err)
	}
	for k, v := range x.r.PostForm {
		if len(v) > 1 {
			return nil, refused(http.StatusBadRequest, "invalid_request", 90100, "The parameter '%s' is given more than once.", clip(k))
		}
	}
	return x.r.PostForm, nil
}

// client reads the client's credentials from the form or from the Authorization header (RFC 6749, section 2.3.1), not from both.
func (x *exchange) client(form url.Values) (id, secret string, err error) {
	id, secret = form.Get("client_id"), form.Get("client_secret")
	user, password, ok := x.r.BasicAuth()
	if !ok {
		return id, secret, nil
	}
	user, userErr := url.QueryUnescape(user)
	password, passwordErr := url.QueryUnescape(password)
	if userErr != nil || passwordErr != nil || secret != "" || id != "" && id != user {
		return id, "", refused(http.StatusBadRequest, "invalid_request", 90013, "The client's credentials are given twice, or can't be read.")
	}
	return user, password, nil
}

// audience is what the token is to be for: v1's resource, or the one scope that is none of OpenID's. Without either it is the resource manager.
func (x *exchange) audience(form url.Values) (string, error) {
	audience := form.Get("resource")
	for _, scope := range strings.Fields(form.Get("scope")) {
		switch scope {
		case "openid", "profile", "email", "offline_access":
			continue
		}
		of := strings.TrimSuffix(scope, ".default")
		if of == scope {
			of = strings.TrimSuffix(scope, "user_impersonation")
		}
		of = strings.TrimSuffix(of, "/")
		if audience != "" && audience != of {
			return "", refused(http.StatusBadRequest, "invalid_scope", 28000, "A token is for one resource; the request names '%s' and '%s'.", clip(audience), clip(of))
		}
		audience = of
	}
	if audience == "" {
		audience = x.base + "/"
	}
	if x.a.o.Identity.ResourceOf(audience) == identity.NoResource {
		return "", refused(http.StatusBadRequest, "invalid_resource", 500011,
			"The resource '%s' is not served here. Tokens are issued for %s/ and %s.", clip(audience), x.base, identity.ContainerRegistryResource)
	}
	return audience, nil
}

// clientGrant serves a service principal with its secret.
func (x *exchange) clientGrant(a *attempt, client, secret string) (tokenBody, error) {
	switch {
	case client == "":
		return tokenBody{}, missing("client_id")
	case a.form.Has("client_assertion"):
		return tokenBody{}, refused(http.StatusUnauthorized, "invalid_client", 700027, "Client assertions (certificates) are not offered: send client_secret.")
	case secret == "":
		return tokenBody{}, refused(http.StatusUnauthorized, "invalid_client", 7000218, "The request must contain the parameter 'client_secret'.")
	}
	p, credential, err := x.a.o.Identity.Login(x.r.Context(), client, secret)
	if isFault(err, fault.InvalidToken) || err == nil && p.Type != identity.ServicePrincipal {
		return tokenBody{}, refused(http.StatusUnauthorized, "invalid_client", 7000215,
			"The client '%s' is unknown or disabled, or its secret is not valid. Secrets are made with 'embargo principal rotate'.", clip(client)).because(err)
	}
	if err != nil {
		return tokenBody{}, err
	}
	a.principal, a.credential = p, "secret:"+credential
	return x.access(a, p)
}

// passwordGrant serves a user who gives a password to a public client.
func (x *exchange) passwordGrant(a *attempt, client string) (tokenBody, error) {
	user, password := a.form.Get("username"), a.form.Get("password")
	a.client = user
	if err := public(client); err != nil {
		return tokenBody{}, err
	}
	for parameter, v := range map[string]string{"username": user, "password": password} {
		if v == "" {
			return tokenBody{}, missing(parameter)
		}
	}
	p, credential, err := x.a.o.Identity.Login(x.r.Context(), user, password)
	if isFault(err, fault.InvalidToken) || err == nil && p.Type != identity.User {
		return tokenBody{}, refused(http.StatusBadRequest, "invalid_grant", 50126, "The user '%s' is unknown or disabled, or the password is not valid.", clip(user)).because(err)
	}
	if err != nil {
		return tokenBody{}, err
	}
	a.principal, a.credential = p, "secret:"+credential
	return x.user(a, p, client)
}

func public(client string) error {
	switch {
	case client == "":
		return missing("client_id")
	case !publicClient(client):
		return refused(http.StatusBadRequest, "unauthorized_client", 700016, "The client '%s' is not one that users log in with.", clip(client))
	}
	return nil
}

// refreshGrant serves a user's session that goes on.
func (x *exchange) refreshGrant(a *attempt, client string) (tokenBody, error) {
	token := a.form.Get("refresh_token")
	if token == "" {
		return tokenBody{}, missing("refresh_token")
	}
	if err := public(client); err != nil {
		return tokenBody{}, err
	}
	var p identity.Principal
	err := x.a.o.DB.Read(x.r.Context(), func(tx *meta.Tx) error {
		var err error
		p, err = x.a.o.Identity.Refresh(x.r.Context(), tx, token)
		return err
	})
	if isFault(err, fault.InvalidToken) {
		return tokenBody{}, refused(http.StatusBadRequest, "invalid_grant", 70008, "The refresh token is not valid any more. Log in again.").because(err)
	}
	if err != nil {
		return tokenBody{}, err
	}
	a.principal, a.credential = p, "refresh token"
	return x.user(a, p, client)
}

// user makes the answer for a user: beside the access token what a session needs.
func (x *exchange) user(a *attempt, p identity.Principal, client string) (tokenBody, error) {
	body, err := x.access(a, p)
	if err != nil {
		return body, err
	}
	ctx := x.r.Context()
	if body.Refresh, err = x.a.o.Identity.IssueRefresh(ctx, p); err != nil {
		return body, err
	}
	if body.IDToken, err = x.a.o.Identity.IssueIDToken(ctx, x.tenant, x.issuer(), client, p); err != nil {
		return body, err
	}
	info, err := json.Marshal(struct {
		User   string `json:"uid"`
		Tenant string `json:"utid"`
	}{p.ID, x.tenant})
	body.ClientInfo = base64.RawURLEncoding.EncodeToString(info)
	return body, err
}

// access makes the answer with the access token.
func (x *exchange) access(a *attempt, p identity.Principal) (tokenBody, error) {
	now := x.a.o.Clock()
	token, err := x.a.o.Identity.IssueARM(x.r.Context(), x.tenant, p, a.audience)
	seconds := int(identity.ARMTokenLife/time.Second) - 1
	body := tokenBody{Type: "Bearer", ExpiresIn: seconds, ExtendedIn: seconds, AccessToken: token}
	if x.family == familyV1 {
		body.Resource = a.audience
		body.NotBefore = strconv.FormatInt(now.Unix(), 10)
		body.ExpiresOn = strconv.FormatInt(now.Unix()+int64(seconds), 10)
	}
	return body, err
}

func isFault(err error, kind fault.Kind) bool { return err != nil && fault.Is(err, kind) }

// managedIdentity serves the endpoint by which a program that runs on a machine gets the token of that machine's identity: the header's secret
// is the identity's own. Source: Azure App Service, "Use managed identities", and the older form of it (MSI_ENDPOINT, MSI_SECRET).
func (x *exchange) managedIdentity() error {
	a := &attempt{grant: grantManaged}
	body, err := x.managed(a)
	if err != nil && refusalOf(err).status == http.StatusNotFound {
		return err // nothing is bound here: nobody tried to log in
	}
	return x.conclude(a, body, err)
}

func (x *exchange) managed(a *attempt) (tokenBody, error) {
	ctx := x.r.Context()
	if bound, err := x.a.o.Identity.HasManagedIdentity(ctx); err != nil || !bound {
		if err != nil {
			return tokenBody{}, err
		}
		return tokenBody{}, refused(http.StatusNotFound, "invalid_request", 90020, "No managed identity is bound here. 'embargo principal create --kind managedIdentity' makes one.")
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodPost {
		x.w.Header().Set("Allow", "GET, POST")
		return tokenBody{}, refused(http.StatusMethodNotAllowed, "invalid_request", 900561, "This endpoint takes GET and POST requests.")
	}
	var err error
	if a.form, err = x.form(); err != nil {
		return tokenBody{}, err
	}
	if x.r.Method == http.MethodGet {
		a.form = x.r.URL.Query()
	}
	secret := x.r.Header.Get("X-IDENTITY-HEADER")
	if secret == "" {
		secret = x.r.Header.Get("Secret")
	}
	if a.client = a.form.Get("client_id"); a.client == "" {
		a.client = a.form.Get("clientid") // the older form's spelling
	}
	p, credential, err := x.a.o.Identity.LoginManaged(ctx, secret)
	if isFault(err, fault.InvalidToken) || err == nil && a.client != "" && !strings.EqualFold(a.client, p.AppID) {
		return tokenBody{}, refused(http.StatusUnauthorized, "invalid_client", 7000215,
			"The header 'secret' (or X-IDENTITY-HEADER) does not hold the secret of the managed identity asked for.").because(err)
	}
	if err != nil {
		return tokenBody{}, err
	}
	a.principal, a.credential = p, "secret:"+credential
	if a.form.Get("resource") == "" {
		return tokenBody{}, missing("resource")
	}
	if a.audience, err = x.audience(url.Values{"resource": a.form["resource"]}); err != nil {
		return tokenBody{}, err
	}
	x.family = familyV1
	body, err := x.access(a, p)
	body.ClientID = p.AppID
	return body, err
}

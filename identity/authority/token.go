// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
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

// oauthError is a refusal in the words of RFC 6749, section 5.2, with the directory's number that clients look at.
type oauthError struct {
	code        string
	number      int
	status      int
	description string
	cause       error
}

func (e *oauthError) Error() string { return e.code + ": " + e.description }
func (e *oauthError) Unwrap() error { return e.cause }

func refuse(code string, number, status int, description string) *oauthError {
	return &oauthError{code: code, number: number, status: status, description: description}
}

// fail writes an error in the shape of the directory's.
func (a *Authority) fail(w http.ResponseWriter, r *http.Request, err error) {
	var o *oauthError
	if !errors.As(err, &o) {
		f := fault.From(err)
		o = &oauthError{"invalid_request", 900144, f.Status(), f.Message, err}
		if f.Kind == fault.Internal {
			o.code, o.number = "server_error", 90033
			a.o.Log.Error("the authority failed", "path", r.URL.Path, "err", err)
		}
	}
	id, _ := a.o.Identity.NewID() // without one the answer only lacks it
	w.Header().Set("X-Ms-Request-Id", id)
	_ = answer(w, o.status, map[string]any{
		"error": o.code, "error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s", o.number, o.description, id), "error_codes": []int{o.number},
		"timestamp": time.Now().UTC().Format("2006-01-02 15:04:05Z"), "trace_id": id, "correlation_id": id,
	})
}

// form reads a token request's parameters; each may be given once.
func form(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, refuse("invalid_request", 900144, http.StatusBadRequest, "The body must be a form (application/x-www-form-urlencoded).")
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return nil, refuse("invalid_request", 900144, http.StatusBadRequest, "The form can't be read.")
	}
	for key, values := range r.PostForm {
		if len(values) > 1 {
			return nil, refuse("invalid_request", 900144, http.StatusBadRequest, "The parameter '"+clip(key)+"' is given more than once.")
		}
	}
	return r.PostForm, nil
}

// audience is what a token is asked for: resource= of the first version, the scope that ends in /.default of the second.
func (a *Authority) audience(f url.Values) (string, error) {
	aud := f.Get("resource")
	for _, scope := range strings.Fields(f.Get("scope")) {
		if cut, ok := strings.CutSuffix(scope, "/.default"); ok {
			aud = cut
		}
	}
	if aud == "" {
		return "", refuse("invalid_scope", 70011, http.StatusBadRequest, "The scope must name a resource: <resource manager>/.default.")
	}
	if a.o.Identity.ResourceOf(aud) == identity.NoResource {
		return "", refuse("invalid_resource", 500011, http.StatusBadRequest, "The resource '"+clip(aud)+"' is none of this installation's.")
	}
	return aud, nil
}

// client reads the client's id and secret from the form, or from Basic (RFC 6749, section 2.3.1).
func client(r *http.Request, f url.Values) (id, secret string) {
	id, secret = f.Get("client_id"), f.Get("client_secret")
	if user, pass, ok := r.BasicAuth(); ok {
		u, errU := url.QueryUnescape(user)
		p, errP := url.QueryUnescape(pass)
		if errU == nil && errP == nil {
			return u, p
		}
	}
	return id, secret
}

// token is the token endpoint (RFC 6749, section 3.2).
func (a *Authority) token(w http.ResponseWriter, r *http.Request, e endpoint) error {
	f, err := form(w, r)
	if err != nil {
		return err
	}
	id, secret := client(r, f)
	grant := f.Get("grant_type")
	var p identity.Principal
	switch grant {
	case "client_credentials":
		p, err = a.prove(r, grant, id, secret, func(p identity.Principal) bool { return p.Type != identity.User })
		if err != nil {
			return wrongSecret(err, "invalid_client", 7000215, "The client secret is not valid, or the client '"+clip(id)+"' is not known or disabled.")
		}
	case "password":
		p, err = a.prove(r, grant, f.Get("username"), f.Get("password"), func(p identity.Principal) bool { return p.Type == identity.User })
		if err != nil {
			return wrongSecret(err, "invalid_grant", 50126, "The user name or password is not valid.")
		}
	case "refresh_token":
		err = a.o.DB.Read(r.Context(), func(tx *meta.Tx) (err error) {
			p, err = a.o.Identity.Refresh(r.Context(), tx, f.Get("refresh_token"))
			return err
		})
		if err != nil {
			return wrongSecret(err, "invalid_grant", 70008, "The refresh token is not valid any more. Log in again.")
		}
	default:
		return refuse("unsupported_grant_type", 70003, http.StatusBadRequest,
			"The grant type '"+clip(grant)+"' is not offered; client_credentials, password and refresh_token are.")
	}
	return a.grant(w, r, e, f, p)
}

// wrongSecret tells a refusal of a credential from a failure.
func wrongSecret(err error, code string, number int, description string) error {
	if !fault.Is(err, fault.InvalidToken) {
		return err
	}
	status := http.StatusUnauthorized
	if code == "invalid_grant" {
		status = http.StatusBadRequest
	}
	return &oauthError{code, number, status, description, err}
}

// prove checks a secret and puts the attempt on record.
func (a *Authority) prove(r *http.Request, grant, id, secret string, fits func(identity.Principal) bool) (identity.Principal, error) {
	var p identity.Principal
	credential := ""
	err := a.o.DB.Read(r.Context(), func(tx *meta.Tx) (err error) {
		p, credential, err = a.o.Identity.CheckSecret(tx, id, secret)
		return err
	})
	if err == nil && !fits(p) {
		err = fault.New(fault.InvalidToken, "The grant %s is not for principals of the type %s.", grant, p.Type)
	}
	rec := audit.Record{
		Kind: audit.Login, Action: "Embargo.Identity/tokens/" + grant + "/action", Outcome: audit.Allowed,
		Caller: audit.Caller{ID: p.ID, Name: p.Name, Type: string(p.Type), Credential: "secret:" + credential},
		Source: audit.Source{Address: r.RemoteAddr, UserAgent: clip(r.UserAgent())},
	}
	if err != nil {
		rec.Outcome, rec.Reason, rec.Caller = audit.Refused, fault.From(err).Message, audit.Caller{Name: clip(id)}
	}
	a.o.Audit.Note(rec)
	return p, err
}

// grant answers with the tokens that the request is due.
func (a *Authority) grant(w http.ResponseWriter, r *http.Request, e endpoint, f url.Values, p identity.Principal) error {
	aud, err := a.audience(f)
	if err != nil {
		return err
	}
	tenant, err := a.tenant(r)
	if err != nil {
		return err
	}
	access, err := a.o.Identity.IssueARM(r.Context(), tenant, p, aud)
	if err != nil {
		return err
	}
	life := int(identity.ARMTokenLife/time.Second) - 1
	body := map[string]any{"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": access}
	if !e.v2 {
		body["expires_on"], body["resource"] = strconv.FormatInt(time.Now().Add(identity.ARMTokenLife).Unix(), 10), aud
	}
	if p.Type == identity.User {
		if err := a.userTokens(r, e, f, p, tenant, body); err != nil {
			return err
		}
	}
	return answer(w, http.StatusOK, body)
}

// userTokens adds what a user's client keeps: an id token, a refresh token, and who it is for the client's cache.
func (a *Authority) userTokens(r *http.Request, e endpoint, f url.Values, p identity.Principal, tenant string, body map[string]any) error {
	issuer := base(r) + "/" + adfs
	if e.tenant != adfs {
		issuer = base(r) + "/" + tenant + "/v2.0"
	}
	idToken, err := a.o.Identity.IssueIDToken(r.Context(), tenant, issuer, f.Get("client_id"), p)
	if err != nil {
		return err
	}
	refresh, err := a.o.Identity.IssueRefresh(r.Context(), p)
	if err != nil {
		return err
	}
	info, err := json.Marshal(map[string]string{"uid": p.ID, "utid": tenant})
	if err != nil {
		return err
	}
	body["id_token"], body["refresh_token"], body["scope"] = idToken, refresh, f.Get("scope")
	body["client_info"] = base64.RawURLEncoding.EncodeToString(info)
	return nil
}

// managedIdentity is the endpoint that MSI_ENDPOINT names. It is there once a principal of the type managedIdentity exists; the secret header
// (MSI_SECRET, "<client id>:<secret>") says which one asks, and proves it.
func (a *Authority) managedIdentity(w http.ResponseWriter, r *http.Request) error {
	bound := false
	err := a.o.DB.Read(r.Context(), func(tx *meta.Tx) error {
		all, err := a.o.Identity.Principals(tx)
		for _, p := range all {
			bound = bound || p.Type == identity.ManagedIdentity && p.Enabled
		}
		return err
	})
	if err != nil {
		return err
	}
	if !bound {
		return fault.New(fault.NotFound, "No managed identity exists: 'embargo principal create --type managedIdentity' makes one.")
	}
	header := r.Header.Get("Secret")
	if header == "" {
		header = r.Header.Get("X-Identity-Header")
	}
	id, secret, ok := strings.Cut(header, ":")
	if !ok {
		return refuse("invalid_request", 900144, http.StatusBadRequest, "The secret header is missing: it is <client id>:<secret> of the managed identity.")
	}
	f := r.URL.Query()
	if r.Method == http.MethodPost {
		if f, err = form(w, r); err != nil {
			return err
		}
	}
	aud, err := a.audience(f)
	if err != nil {
		return err
	}
	p, err := a.prove(r, "managed_identity", id, secret, func(p identity.Principal) bool { return p.Type == identity.ManagedIdentity })
	if err != nil {
		return wrongSecret(err, "invalid_client", 7000215, "The secret header is not valid.")
	}
	tenant, err := a.tenant(r)
	if err != nil {
		return err
	}
	access, err := a.o.Identity.IssueARM(r.Context(), tenant, p, aud)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "resource": aud, "client_id": p.AppID,
		"expires_on": strconv.FormatInt(time.Now().Add(identity.ARMTokenLife).Unix(), 10),
		"expires_in": strconv.Itoa(int(identity.ARMTokenLife / time.Second)),
	})
}

// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"net/http"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

// formLimit is the most that a token request's form may have.
const formLimit = 256 << 10

// tokenAnswer is what the token endpoints answer; docker's clients read token, others access_token.
type tokenAnswer struct {
	AccessToken  string `json:"access_token,omitempty"`
	Token        string `json:"token,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	ExpiresIn    int    `json:"expires_in,omitempty"`
}

// exchangeToken makes the registry's refresh token of a token of the authority.
// Source: ACR, POST /oauth2/exchange.
func (x *exchange) exchangeToken() error {
	if err := x.form(); err != nil {
		return err
	}
	grant, access, refresh := x.r.PostForm.Get("grant_type"), x.r.PostForm.Get("access_token"), x.r.PostForm.Get("refresh_token")
	var out tokenAnswer
	err := x.s.o.DB.Read(x.r.Context(), func(tx *meta.Tx) error {
		var err error
		switch {
		case (grant == "access_token" || grant == "access_token_refresh_token") && access != "":
			out.RefreshToken, x.call.Caller, err = x.s.o.Identity.ExchangeARM(x.r.Context(), tx, x.call.Registry, access)
		case (grant == "refresh_token" || grant == "access_token_refresh_token") && refresh != "":
			var p identity.Principal
			if p, err = x.s.o.Identity.Refresh(x.r.Context(), tx, refresh); err != nil {
				return err
			}
			x.call.Caller = identity.Caller{ID: p.ID, Name: p.Name, Type: p.Type, AppID: p.AppID, Credential: "refresh"}
			if x.call.Caller.Tenant, err = x.s.o.Identity.Tenant(tx); err == nil {
				out.RefreshToken, err = x.s.o.Identity.IssueRegistryRefresh(x.r.Context(), tx, x.call.Registry, x.call.Caller)
			}
		default:
			err = fault.New(fault.BadRequest, "The exchange needs grant_type access_token with access_token, or refresh_token with refresh_token.")
		}
		return err
	})
	return x.issued("oauth2/exchange", out, err)
}

// tokenByPost makes an access token of a refresh token or a password. Without either, it is anonymous.
// Sources: ACR, POST /oauth2/token; distribution, "OAuth2 Token Authentication".
func (x *exchange) tokenByPost() error {
	if err := x.form(); err != nil {
		return err
	}
	f := x.r.PostForm
	var prove func(tx *meta.Tx) (identity.Caller, error)
	switch f.Get("grant_type") {
	case "refresh_token":
		prove = func(tx *meta.Tx) (identity.Caller, error) {
			return x.s.o.Identity.VerifyRegistryRefresh(x.r.Context(), tx, x.call.Registry, f.Get("refresh_token"))
		}
	case "password":
		prove = func(tx *meta.Tx) (identity.Caller, error) {
			if f.Get("username") == "" && f.Get("password") == "" {
				return x.nobody()
			}
			return x.s.o.Identity.Basic(x.r.Context(), tx, x.call.Registry, f.Get("username"), f.Get("password"))
		}
	default:
		return x.issued("oauth2/token", tokenAnswer{}, fault.New(fault.BadRequest, "grant_type must be refresh_token or password, not %q.", clip(f.Get("grant_type"))))
	}
	return x.access(prove, f.Get("access_type") == "offline")
}

// tokenByGet makes an access token of a password in the Authorization header; without one it is anonymous.
// Source: distribution, "Token Authentication Specification".
func (x *exchange) tokenByGet() error {
	x.w.Header().Set("Cache-Control", "no-store")
	if err := x.r.ParseForm(); err != nil {
		return fault.New(fault.BadRequest, "The query can't be read.").Because(err)
	}
	return x.access(func(tx *meta.Tx) (identity.Caller, error) {
		if x.r.Header.Get("Authorization") == "" {
			return x.nobody()
		}
		return x.authenticate(tx)
	}, false)
}

// nobody is the anonymous caller, where the registry allows one.
func (x *exchange) nobody() (identity.Caller, error) {
	if !x.call.Registry.AnonymousPull {
		return identity.Caller{}, errUnauthorized()
	}
	return identity.Nobody(x.call.Registry), nil
}

// access issues a token for what the caller may of the scopes asked.
func (x *exchange) access(prove func(tx *meta.Tx) (identity.Caller, error), offline bool) error {
	var out tokenAnswer
	err := x.s.o.DB.Read(x.r.Context(), func(tx *meta.Tx) error {
		var err error
		if x.call.Caller, err = prove(tx); err != nil {
			return err
		}
		out.AccessToken, _, err = x.s.o.Identity.IssueAccess(x.r.Context(), tx, x.call.Registry, x.call.Caller, identity.ParseScopes(x.r.Form["scope"]))
		if err == nil && offline && x.call.Caller.Type != identity.Anonymous {
			out.RefreshToken, err = x.s.o.Identity.IssueRegistryRefresh(x.r.Context(), tx, x.call.Registry, x.call.Caller)
		}
		return err
	})
	out.Token, out.ExpiresIn = out.AccessToken, int(identity.RegistryAccessLife/time.Second)
	return x.issued("oauth2/token", out, err)
}

// issued answers a token request and records it. A wrong credential of any sort is UNAUTHORIZED.
func (x *exchange) issued(action string, out tokenAnswer, err error) error {
	h := x.w.Header()
	h.Set("Cache-Control", "no-store")
	if err == nil {
		x.recordLogin(action, nil)
		return x.json(http.StatusOK, out)
	}
	f := fault.From(err)
	if f.Status() >= 500 {
		return err
	}
	x.recordLogin(action, f)
	if f.Status() != http.StatusUnauthorized {
		return err
	}
	h.Set("WWW-Authenticate", `Basic realm="`+x.call.Registry.LoginServer+`"`)
	return fault.New(fault.Unauthorized, "%s", f.Message).Because(err)
}

// form reads the body of a token request.
func (x *exchange) form() error {
	x.r.Body = http.MaxBytesReader(x.w, x.r.Body, formLimit)
	if err := x.r.ParseForm(); err != nil {
		return fault.New(fault.BadRequest, "The body is no form of at most %d bytes.", formLimit).Because(err)
	}
	return nil
}

// recordLogin puts a proof of identity, or its failure, on record.
func (x *exchange) recordLogin(action string, refusal *fault.Fault) {
	row, c := x.call.Registry, x.call.Caller
	r := audit.Record{
		Kind: audit.Login, Action: action, Outcome: audit.Allowed,
		Resource: row.ResourceID, Registry: row.ID, LoginServer: row.LoginServer, Epoch: row.Epoch,
		Caller:      audit.Caller{ID: c.ID, Name: c.Name, Type: string(c.Type), Credential: c.Credential, Tenant: c.Tenant},
		Source:      x.source(),
		Correlation: x.call.Correlation,
	}
	if refusal != nil {
		r.Outcome, r.Rule, r.Reason = audit.Refused, refusal.Kind.ARM(), refusal.Message
		x.s.o.Failed(r)
		return
	}
	x.s.o.Audit.Note(r)
}

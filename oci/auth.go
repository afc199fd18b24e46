// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// authorise finds out who is calling and whether they may do what the route asks, before anything is looked up: what is forbidden and what is
// absent answer alike.
func (x *exchange) authorise(tx *meta.Tx, need right) error {
	caller, err := x.authenticate(tx)
	if err != nil {
		f := fault.From(err)
		if f.Status() != http.StatusUnauthorized {
			return err
		}
		if x.r.Header.Get("Authorization") != "" {
			x.refusal = f
		}
		return x.challenge(need, "", f)
	}
	x.call.Caller = caller
	return x.need(tx, need)
}

// need asks for the verbs of a right.
func (x *exchange) need(tx *meta.Tx, need right) error {
	typ, of := x.scope()
	for _, verb := range need.needs {
		ok, err := x.may(tx, x.call.Caller, typ, of, verb)
		if err != nil {
			return err
		}
		if ok {
			continue
		}
		x.lacks = verb
		if x.basic {
			return fault.New(fault.Denied, "requested access to the resource is denied").Carrying(x.wanted(need))
		}
		return x.challenge(need, "insufficient_scope", nil)
	}
	return nil
}

// may asks for a verb of token scopes.
func (x *exchange) may(tx *meta.Tx, c identity.Caller, typ, of, verb string) (bool, error) {
	switch {
	case typ == "registry" && of == "deleted_catalog":
		return x.s.o.Identity.CanDeletedCatalog(tx, c, x.call.Registry)
	case typ == "registry":
		return x.s.o.Identity.CanCatalog(tx, c, x.call.Registry)
	}
	return x.s.o.Identity.CanRepository(tx, c, x.call.Registry, name.Repository(of), identity.Verb(verb))
}

// scope is the type and name of what the path asks for, in the words of token scopes.
func (x *exchange) scope() (typ, of string) {
	switch x.at.kind {
	case kindCatalog, kindAcrCatalog:
		return "registry", "catalog"
	case kindDeletedCatalog:
		return "registry", "deleted_catalog"
	}
	return "repository", string(x.at.repository)
}

// authenticate reads the Authorization header: a registry token, or a user and password. Errors: Unauthorized when it proves nobody.
func (x *exchange) authenticate(tx *meta.Tx) (identity.Caller, error) {
	header := x.r.Header.Get("Authorization")
	scheme, credential, _ := strings.Cut(header, " ")
	credential = strings.TrimSpace(credential)
	switch {
	case strings.EqualFold(scheme, "Bearer") && credential != "":
		return x.s.o.Identity.VerifyRegistryToken(x.r.Context(), tx, x.call.Registry, credential)
	case strings.EqualFold(scheme, "Basic"):
		user, password, ok := basic(credential)
		if !ok {
			return identity.Caller{}, errUnauthorized()
		}
		x.basic = true
		return x.s.o.Identity.Basic(x.r.Context(), tx, x.call.Registry, user, password)
	}
	return identity.Caller{}, errUnauthorized()
}

func errUnauthorized() *fault.Fault { return fault.New(fault.Unauthorized, "authentication required") }

// basic reads the credential of the Basic scheme. Source: RFC 7617.
func basic(credential string) (user, password string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(credential)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(b), ":")
}

// wantedAccess is a member of the detail of UNAUTHORIZED, cased as the service does.
type wantedAccess struct {
	Type, Name, Action string
}

func (x *exchange) wanted(need right) []wantedAccess {
	if x.at.kind == kindBase {
		return []wantedAccess{{"registry", "catalog", "*"}}
	}
	typ, of := x.scope()
	var list []wantedAccess
	for verb := range strings.SplitSeq(need.ask, ",") {
		list = append(list, wantedAccess{typ, of, verb})
	}
	return list
}

// mountedFrom is the scope that a mount needs beside its own: to read what it mounts from. A client that asks for what it is told would otherwise
// upload what is there. Source: distribution, which asks for both.
func (x *exchange) mountedFrom() string {
	q := x.r.URL.Query()
	from, err := name.ParseRepository(q.Get("from"))
	if x.at.kind != kindUploads || q.Get("mount") == "" || err != nil {
		return ""
	}
	return " repository:" + string(from) + ":pull"
}

// challenge answers 401 and says where to get a token. The parameters stand without spaces, because some clients split at them; the
// ping has no scope.
func (x *exchange) challenge(need right, code string, because error) error {
	typ, of := x.scope()
	h := `Bearer realm="` + x.origin() + `/oauth2/token",service="` + x.call.Registry.LoginServer + `"`
	if need.ask != "" {
		h += `,scope="` + typ + ":" + of + ":" + need.ask + x.mountedFrom() + `"`
	}
	if code != "" {
		h += `,error="` + code + `"`
	}
	x.w.Header().Set("WWW-Authenticate", h)
	return errUnauthorized().Carrying(x.wanted(need)).Because(because)
}

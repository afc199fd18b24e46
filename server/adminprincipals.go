// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

// socketCaller is who acts through the administration socket: whoever may open a file of the server's own user.
func socketCaller() audit.Caller {
	return audit.Caller{ID: "admin.sock", Name: "administrator of this machine", Type: "Local"}
}

// withSecret is a principal together with the secret that was just made for it.
type withSecret struct {
	ID     string        `json:"id"`
	AppID  string        `json:"appId"`
	Type   identity.Type `json:"type"`
	Name   string        `json:"name"`
	Secret string        `json:"secret"`
}

// principals answers /v1/principals[/REF[/VERB]]. Each change is on record in the change's own transaction.
func (a *adminSocket) principals(w http.ResponseWriter, r *http.Request, rest []string) error {
	var answer any
	var err error
	switch what := r.Method + strings.Repeat(" *", len(rest)); {
	case what == "GET":
		answer, err = a.listPrincipals(r)
	case what == "POST":
		answer, err = a.createPrincipal(r)
	case what == "DELETE *":
		answer, err = a.changePrincipal(r, "delete", rest[0])
	case what == "POST * *":
		answer, err = a.changePrincipal(r, rest[1], rest[0])
	default:
		err = fault.New(fault.NotFound, "There is no %s %s here.", r.Method, clip(r.URL.Path))
	}
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, answer)
	return nil
}

func (a *adminSocket) listPrincipals(r *http.Request) ([]identity.Principal, error) {
	all := []identity.Principal{}
	err := a.db.Read(r.Context(), func(tx *meta.Tx) error {
		list, err := a.rooms.identity.Principals(tx)
		if list != nil {
			all = list
		}
		return err
	})
	return all, err
}

func (a *adminSocket) createPrincipal(r *http.Request) (withSecret, error) {
	var asked struct{ Name, Kind, Password string }
	if err := body(r, &asked); err != nil {
		return withSecret{}, err
	}
	kind := identity.Type(asked.Kind)
	for _, t := range []identity.Type{identity.ServicePrincipal, identity.User, identity.ManagedIdentity} {
		if strings.EqualFold(asked.Kind, string(t)) {
			kind = t
		}
	}
	var out withSecret
	err := a.db.Write(r.Context(), func(tx *meta.Tx) error {
		p, secret, err := a.rooms.identity.CreatePrincipal(tx, kind, asked.Name, asked.Password)
		if err != nil {
			return err
		}
		out = withSecret{p.ID, p.AppID, p.Type, p.Name, secret}
		return a.record(tx, "create", p)
	})
	return out, err
}

func (a *adminSocket) changePrincipal(r *http.Request, verb, ref string) (any, error) {
	var out any
	err := a.db.Write(r.Context(), func(tx *meta.Tx) error {
		var p identity.Principal
		var secret string
		var err error
		switch verb {
		case "rotate":
			p, secret, err = a.rooms.identity.RotateSecret(tx, ref)
		case "enable", "disable":
			p, err = a.rooms.identity.EnablePrincipal(tx, ref, verb == "enable")
		case "delete":
			p, err = a.rooms.identity.DeletePrincipal(tx, ref)
		default:
			err = fault.New(fault.NotFound, "A principal can be rotated, disabled, enabled and deleted, not %q.", clip(verb))
		}
		if err != nil {
			return err
		}
		out = p
		if secret != "" {
			out = withSecret{p.ID, p.AppID, p.Type, p.Name, secret}
		}
		return a.record(tx, verb, p)
	})
	if made, ok := out.(withSecret); ok && err == nil {
		err = a.keep(made)
	}
	return out, err
}

// keep writes a new secret of the principal that credentials.json is about into that file.
func (a *adminSocket) keep(made withSecret) error {
	c, err := a.dir.readCredentials()
	if err != nil || c.ClientID != made.AppID {
		return err
	}
	c.ClientSecret = made.Secret
	return a.dir.writeCredentials(c)
}

// record puts a change of a principal on record.
func (a *adminSocket) record(tx *meta.Tx, verb string, p identity.Principal) error {
	after, err := json.Marshal(map[string]any{"id": p.ID, "appId": p.AppID, "type": p.Type, "name": p.Name, "enabled": p.Enabled})
	if err != nil {
		return err
	}
	return a.rooms.audit.Append(tx, audit.Record{Kind: audit.Security, Action: "Embargo.Identity/principals/" + verb + "/action", Outcome: audit.Succeeded,
		Resource: "principals/" + p.ID, Caller: socketCaller(), Source: audit.Source{Address: "admin.sock", Zone: "local"}, After: after})
}

// body reads a request's JSON into v.
func body(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fault.New(fault.BadRequest, "The request's body cannot be read.").Because(err)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package tokens declares Microsoft.ContainerRegistry/registries/tokens: users that a registry has of its own, with two passwords and a scope map.
package tokens

import (
	"errors"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.ContainerRegistry/registries/tokens"

// scopeMaps is the type of scope maps.
const scopeMaps = "Microsoft.ContainerRegistry/registries/scopeMaps"

const apis = "2019-05-01-preview..; 2022-12-01.."

type document struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	SystemData arm.SystemData `json:"systemData" api:"2020-11-01-preview..; 2022-12-01.."`
	Properties properties     `json:"properties"`
}

type properties struct {
	Created     time.Time   `json:"creationDate" arm:"readonly" time:"Z"`
	State       string      `json:"provisioningState" arm:"readonly"`
	ScopeMap    string      `json:"scopeMapId" arm:"required" stance:"acts" doc:"The id of the scope map of the same registry that says what the token may."`
	Credentials credentials `json:"credentials"`
	Status      string      `json:"status" enum:"enabled|disabled" default:"enabled" stance:"acts" doc:"disabled: what the token's passwords prove is refused from the next request on."`
}

type credentials struct {
	Certificates []certificate `json:"certificates" stance:"refused" doc:"Tokens log in with passwords."`
	Passwords    []password    `json:"passwords" stance:"acts" doc:"Which of the passwords stay; generateCredentials makes them."`
}

type certificate struct {
	Name string `json:"name"`
}

type password struct {
	Created *time.Time `json:"creationTime" arm:"readonly"`
	Expiry  *time.Time `json:"expiry" arm:"readonly"`
	Name    string     `json:"name" arm:"required,key" enum:"password1|password2"`
}

type kind struct{ ids *identity.Service }

// Type declares the type.
func Type(ids *identity.Service) arm.Resource {
	k := kind{ids}
	return &arm.Type[document]{
		Name: TypeName, Display: "Token", API: apis, Verbs: arm.ChildVerbs,
		Names: arm.Names{Min: 5, Max: 50, Pattern: `[a-zA-Z0-9\-]*`, Text: "A token's name has 5 to 50 letters, digits and '-'."},
		Admit: admit, Apply: k.apply, View: k.view,
	}
}

// mapOf is the name of the scope map that an id names, "" when it is none of the registry.
func mapOf(registry name.ResourceID, id string) string {
	at, err := name.ParseResourceID(id)
	if err != nil || !strings.EqualFold(at.Type(), scopeMaps) || !at.Parent().Equal(registry) {
		return ""
	}
	return at.Name()
}

func admit(_ arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return nil
	}
	registry := c.ID.Parent()
	if strings.EqualFold(c.ID.Name(), registry.Name()) {
		return []*fault.Fault{fault.New(fault.BadRequest, "A token can't be called '%s': this is the name of the registry's admin user.", c.ID.Name()).At("name")}
	}
	if mapOf(registry, c.Want.Properties.ScopeMap) == "" {
		return []*fault.Fault{fault.New(fault.InvalidParameter, "scopeMapId must be the id of a scope map of the registry '%s', such as %s, not %q.", registry.Name(),
			registry.Child("scopeMaps", "_repositories_pull"), c.Want.Properties.ScopeMap).At("properties.scopeMapId")}
	}
	return nil
}

func (k kind) apply(tx *arm.Tx, c arm.Change[document]) error {
	row, err := tx.Meta().RegistryByResource(c.ID.Parent().String())
	if errors.Is(err, meta.ErrNotFound) && c.Want == nil {
		return nil // it goes with its registry
	}
	if err != nil {
		return err
	}
	if c.Want == nil {
		return k.ids.DeleteRegistryToken(tx.Meta(), row.ID, c.ID.Name())
	}
	p := &c.Want.Properties
	m, err := k.ids.ScopeMap(tx.Meta(), row.ID, mapOf(c.ID.Parent(), p.ScopeMap))
	if errors.Is(err, meta.ErrNotFound) {
		return fault.New(fault.InvalidParameter, "The scope map %s was not found. Make it first: az acr scope-map create.", p.ScopeMap).At("properties.scopeMapId")
	}
	if err != nil {
		return err
	}
	t := identity.RegistryToken{Name: c.ID.Name()}
	if c.Was != nil {
		if t, err = k.ids.RegistryToken(tx.Meta(), row.ID, c.ID.Name()); err != nil {
			return err
		}
	}
	t.ScopeMap, t.Enabled = m.Name, p.Status == "enabled"
	if t, err = k.ids.PutRegistryToken(tx.Meta(), row.ID, t); err != nil {
		return err
	}
	p.Created, p.State = t.Created, "Succeeded"
	if c.Sent("properties.credentials.passwords") {
		var keep []string
		for _, pw := range p.Credentials.Passwords {
			keep = append(keep, pw.Name)
		}
		if err := k.ids.KeepTokenPasswords(tx.Meta(), t.ID, keep); err != nil {
			return err
		}
	}
	p.Credentials.Passwords = nil // what there is stands in the identity's own table
	return nil
}

// view shows which passwords there are, never their texts.
func (k kind) view(v arm.View, d *document) {
	v.Look(func(tx *meta.Tx) error {
		row, err := tx.RegistryByResource(v.ID.Parent().String())
		if errors.Is(err, meta.ErrNotFound) {
			return nil // being deleted
		}
		if err != nil {
			return err
		}
		t, err := k.ids.RegistryToken(tx, row.ID, v.ID.Name())
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		all, err := k.ids.TokenPasswords(tx, t.ID)
		d.Properties.Credentials.Passwords = nil
		for _, p := range all {
			d.Properties.Credentials.Passwords = append(d.Properties.Credentials.Passwords, password{stamp(p.Created), stamp(p.Expires), p.Name})
		}
		return err
	})
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// request is the body of generateCredentials.
type request struct {
	Token  string    `json:"tokenId" arm:"required"`
	Expiry time.Time `json:"expiry"`
	Name   string    `json:"name" enum:"password1|password2"`
}

type generated struct {
	Username  string              `json:"username"`
	Passwords []generatedPassword `json:"passwords"`
}

type generatedPassword struct {
	Created *time.Time `json:"creationTime"`
	Expiry  *time.Time `json:"expiry"`
	Name    string     `json:"name"`
	Value   string     `json:"value"`
}

// Generate is the registries' action that makes passwords of a token: one, or both.
func Generate(ids *identity.Service) arm.Action {
	return arm.Do(arm.Action{Name: "generateCredentials", API: apis, Display: "Generate passwords of a token"}, func(tx *arm.Tx, c arm.Call[request]) (generated, error) {
		id, err := name.ParseResourceID(c.Body.Token)
		if err != nil || !strings.EqualFold(id.Type(), TypeName) || !id.Parent().Equal(c.ID) {
			return generated{}, fault.New(fault.InvalidParameter, "tokenId must be the id of a token of the registry '%s', not %q.", c.ID.Name(), c.Body.Token).At("tokenId")
		}
		if !c.Body.Expiry.IsZero() && !c.Body.Expiry.After(c.Now) {
			return generated{}, fault.New(fault.InvalidParameter, "The expiry %s has passed already.", c.Body.Expiry.Format(time.RFC3339)).At("expiry")
		}
		row, err := tx.Meta().RegistryByResource(c.ID.String())
		if err != nil {
			return generated{}, err
		}
		t, err := ids.RegistryToken(tx.Meta(), row.ID, id.Name())
		if errors.Is(err, meta.ErrNotFound) {
			return generated{}, fault.New(fault.ResourceNotFound, "The resource %s could not be found.", id.Name())
		}
		if err != nil {
			return generated{}, err
		}
		names := identity.TokenPasswordNames
		if c.Body.Name != "" {
			names = []string{c.Body.Name}
		}
		out := generated{Username: t.Name}
		for _, n := range names {
			p, err := ids.GenerateTokenPassword(tx.Meta(), t.ID, n, c.Body.Expiry)
			if err != nil {
				return generated{}, err
			}
			out.Passwords = append(out.Passwords, generatedPassword{stamp(c.Now), stamp(c.Body.Expiry), n, p})
		}
		return out, nil
	})
}

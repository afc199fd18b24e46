// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/name"
)

// definition is a role definition, its members in the order in which ARM shows them.
type definition struct {
	Properties definitionProperties `json:"properties" arm:"required"`
	ID         string               `json:"id" arm:"readonly"`
	Type       string               `json:"type" arm:"readonly"`
	Name       string               `json:"name" arm:"readonly"`
}

type definitionProperties struct {
	RoleName    string       `json:"roleName" arm:"required" max:"512" stance:"acts" doc:"The role's name, unique among roles."`
	Kind        string       `json:"type" enum:"BuiltInRole|CustomRole" default:"CustomRole" stance:"echo" doc:"CustomRole of every role that clients make."`
	Description string       `json:"description" max:"2048" stance:"echo" doc:"What the role is for."`
	Scopes      []string     `json:"assignableScopes" arm:"required" min:"1" stance:"acts" doc:"Where, and below, the role may be given."`
	Permissions []permission `json:"permissions" arm:"required" min:"1" stance:"acts" doc:"What the role allows."`
	Created     *time.Time   `json:"createdOn" arm:"readonly" time:"Z"`
	Updated     *time.Time   `json:"updatedOn" arm:"readonly" time:"Z"`
}

type permission struct {
	Actions        []string `json:"actions" stance:"acts" doc:"Operations on resources that are allowed; * stands for any text."`
	NotActions     []string `json:"notActions" stance:"acts" doc:"Operations that are not, of those that actions allows."`
	DataActions    []string `json:"dataActions" stance:"acts" doc:"Operations on content that are allowed."`
	NotDataActions []string `json:"notDataActions" stance:"acts" doc:"Operations on content that are not."`
}

func (r *rights) definitions() arm.Resource {
	return &arm.Type[definition]{
		Name: namespace + "/roleDefinitions", Display: "Role definition", Scope: arm.OnAnything, Verbs: arm.AllButPatch, Names: guid,
		Answers:  arm.Answers{Created: http.StatusCreated, Updated: http.StatusCreated, DeletedBody: true},
		NotFound: missing(fault.RoleDefinitionNotFound, "role definition"),
		Admit:    admitDefinition,
		Apply:    r.applyDefinition,
		Rows:     &arm.Rows[definition]{Get: r.getDefinition, List: r.listDefinitions},
	}
}

func shownPermission(p identity.Permission) permission {
	return permission{some(p.Actions), some(p.NotActions), some(p.DataActions), some(p.NotDataActions)}
}

// some makes an empty list of none.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// shownDefinition is a role as it is answered at a scope.
func shownDefinition(role identity.Role, at name.ResourceID) definition {
	p := definitionProperties{RoleName: role.Name, Kind: "CustomRole", Description: role.Description, Scopes: role.Scopes,
		Created: stamp(role.Created), Updated: stamp(role.Updated)}
	if role.BuiltIn {
		p.Kind = "BuiltInRole"
	}
	for _, allowed := range role.Permissions {
		p.Permissions = append(p.Permissions, shownPermission(allowed))
	}
	return definition{ID: definitionID(at, role.ID).String(), Type: namespace + "/roleDefinitions", Name: role.ID, Properties: p}
}

// knownAt reports whether a role can be given at a scope, above it or below it: elsewhere it does not show.
func knownAt(role identity.Role, at name.ResourceID) bool {
	return slices.ContainsFunc(role.Scopes, func(text string) bool {
		s, err := name.ParseResourceID(text)
		return err == nil && (s.Within(at) || at.Within(s))
	})
}

func (r *rights) getDefinition(tx *arm.Tx, id name.ResourceID) (*definition, error) {
	role, err := r.identity.RoleByID(tx.Meta(), id.Name())
	if fault.Is(err, fault.RoleDefinitionNotFound) {
		return nil, nil
	}
	if err != nil || !knownAt(role, id.Scope()) {
		return nil, err
	}
	shown := shownDefinition(role, id.Scope())
	return &shown, nil
}

func (r *rights) listDefinitions(tx *arm.Tx, scope name.ResourceID, text string) ([]arm.Row[definition], error) {
	f, err := parseFilter(text, "roleName", "type", "atScope()", "atScopeAndBelow()")
	if err != nil {
		return nil, err
	}
	all, err := r.identity.Roles(tx.Meta())
	if err != nil {
		return nil, err
	}
	var list []arm.Row[definition]
	for _, role := range all {
		if !knownAt(role, scope) {
			continue
		}
		shown := shownDefinition(role, scope)
		if f.matches("roleName", role.Name) && f.matches("type", shown.Properties.Kind) {
			list = append(list, arm.Row[definition]{ID: definitionID(scope, role.ID), Doc: shown})
		}
	}
	return list, nil
}

// admitDefinition: built-in roles stay as they are; scopes and patterns must be ones.
func admitDefinition(_ arm.World, c arm.Change[definition]) []*fault.Fault {
	if c.Was != nil && c.Was.Properties.Kind == "BuiltInRole" {
		return []*fault.Fault{fault.New(fault.Conflict, "The role '%s' is built in: it can't be changed or deleted.", c.Was.Properties.RoleName)}
	}
	if c.Want == nil {
		return nil
	}
	var faults []*fault.Fault
	p := c.Want.Properties
	if p.Kind != "CustomRole" {
		faults = append(faults, fault.New(fault.InvalidParameter, "The type of a role that is made is CustomRole.").At("properties.type"))
	}
	for _, s := range p.Scopes {
		if id, err := name.ParseResourceID(s); err != nil || !strings.HasPrefix(s, "/") || id.IsRoot() && s != "/" {
			faults = append(faults, fault.New(fault.InvalidParameter, "'%s' is not a scope: it is '/', or the id of a subscription, a resource group or a resource.", clip(s)).At("properties.assignableScopes"))
		}
	}
	for _, perm := range p.Permissions {
		for at, list := range map[string][]string{"actions": perm.Actions, "notActions": perm.NotActions, "dataActions": perm.DataActions, "notDataActions": perm.NotDataActions} {
			for _, a := range list {
				if a == "" || len(a) > 512 || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
					faults = append(faults, fault.New(fault.InvalidParameter, "'%s' is not an operation, such as Microsoft.ContainerRegistry/registries/read, or a pattern of one.", clip(a)).At("properties.permissions."+at))
				}
			}
		}
	}
	return faults
}

// applyDefinition writes a role. It counts wherever it may be given, so the caller needs the right at each of those scopes, old and new.
func (r *rights) applyDefinition(tx *arm.Tx, c arm.Change[definition]) error {
	action := namespace + "/roleDefinitions/write"
	if c.Want == nil {
		action = namespace + "/roleDefinitions/delete"
	}
	for _, d := range []*definition{c.Was, c.Want} {
		if d == nil {
			continue
		}
		for _, text := range d.Properties.Scopes {
			scope, err := name.ParseResourceID(text)
			if err != nil {
				return err
			}
			if err := tx.Must(action, scope); err != nil {
				return err
			}
		}
	}
	if c.Want == nil {
		return r.identity.DeleteRole(tx.Meta(), c.ID.Name())
	}
	p := &c.Want.Properties
	role := identity.Role{ID: c.ID.Name(), Name: strings.TrimSpace(p.RoleName), Description: p.Description, Scopes: p.Scopes}
	for _, allowed := range p.Permissions {
		role.Permissions = append(role.Permissions, identity.Permission(allowed))
	}
	if err := r.identity.PutRole(tx.Meta(), role); err != nil {
		return err
	}
	stored, err := r.identity.RoleByID(tx.Meta(), role.ID)
	*c.Want = shownDefinition(stored, c.ID.Scope())
	return err
}

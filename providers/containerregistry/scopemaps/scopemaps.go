// SPDX-License-Identifier: Apache-2.0

// Package scopemaps declares Microsoft.ContainerRegistry/registries/scopeMaps: what a registry's tokens may do with which of its repositories. Those of the system come with
// every registry and can't be changed.
package scopemaps

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.ContainerRegistry/registries/scopeMaps"

type document struct {
	Type       string     `json:"type" arm:"readonly"`
	ID         string     `json:"id" arm:"readonly"`
	Name       string     `json:"name" arm:"readonly"`
	Properties properties `json:"properties" arm:"required"`
}

type properties struct {
	Description string    `json:"description" arm:"omitempty" stance:"echo" max:"256" doc:"A note."`
	Type        string    `json:"type" arm:"readonly"`
	Created     time.Time `json:"creationDate" arm:"readonly" time:"Z"`
	State       string    `json:"provisioningState" arm:"readonly"`
	Actions     []string  `json:"actions" arm:"required" max:"500" stance:"acts" doc:"repositories/{repository}/ followed by content/read, content/write, content/delete, metadata/read or metadata/write; the repository may be * or end in /*."`
}

type kind struct{ ids *identity.Service }

// Type declares the type.
func Type(ids *identity.Service) arm.Resource {
	k := kind{ids}
	return &arm.Type[document]{
		Name: TypeName, Display: "Scope map", API: "2019-05-01-preview..; 2022-12-01..", Verbs: arm.ChildVerbs,
		Names:   arm.Names{Min: 5, Max: 50, Pattern: `[a-zA-Z0-9\-_]*`, Text: "A scope map's name has 5 to 50 letters, digits, '-' and '_'."},
		Answers: arm.Answers{Created: 200},
		Admit:   admit, Apply: k.apply,
		Rows: &arm.Rows[document]{Get: k.get, List: k.list},
	}
}

// admit checks the actions, and keeps what is the system's.
func admit(_ arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Was != nil && c.Was.Properties.Type == systemDefined || c.Was == nil && strings.HasPrefix(c.ID.Name(), "_") {
		return []*fault.Fault{fault.New(fault.BadRequest, "The scope map '%s' is the system's: names that begin with '_' are. Make one with another name.", c.ID.Name()).At(c.ID.String())}
	}
	if c.Want == nil {
		return nil
	}
	var faults []*fault.Fault
	for i, a := range c.Want.Properties.Actions {
		if wrong := identity.CheckScopeAction(a); wrong != "" {
			faults = append(faults, fault.New(fault.InvalidParameter, "The action %q can't be in a scope map: %s.", a, wrong).At(fmt.Sprintf("properties.actions[%d]", i)))
		}
	}
	return faults
}

const (
	systemDefined = "SystemDefined"
	userDefined   = "UserDefined"
)

func (k kind) apply(tx *arm.Tx, c arm.Change[document]) error {
	row, err := tx.Meta().RegistryByResource(c.ID.Parent().String())
	if errors.Is(err, meta.ErrNotFound) && c.Want == nil {
		return nil // it goes with its registry
	}
	if err != nil {
		return err
	}
	if c.Want == nil {
		return k.ids.DeleteScopeMap(tx.Meta(), row.ID, c.ID.Name())
	}
	c.Want.Type, c.Want.ID, c.Want.Name = TypeName, c.ID.String(), c.ID.Name()
	p := &c.Want.Properties
	p.Type, p.State = userDefined, "Succeeded"
	if c.Was == nil {
		p.Created = c.Now
	}
	return k.ids.PutScopeMap(tx.Meta(), row.ID, identity.ScopeMap{Name: c.ID.Name(), Description: p.Description, Actions: p.Actions})
}

func (k kind) get(tx *arm.Tx, id name.ResourceID) (*document, error) {
	row, err := tx.Meta().RegistryByResource(id.Parent().String())
	if errors.Is(err, meta.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := k.ids.ScopeMap(tx.Meta(), row.ID, id.Name())
	if errors.Is(err, meta.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, d, err := shown(row, m)
	return &d, err
}

// list reads the maps of the one registry of its scope, which is how clients ask.
func (k kind) list(tx *arm.Tx, scope name.ResourceID, _ string) ([]arm.Row[document], error) {
	if !scope.IsResource() {
		return nil, nil // what belongs to a registry is not listed apart from it
	}
	row, err := tx.Meta().RegistryByResource(scope.String())
	if errors.Is(err, meta.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	maps, err := k.ids.ScopeMaps(tx.Meta(), row.ID)
	if err != nil {
		return nil, err
	}
	var out []arm.Row[document]
	for _, m := range maps {
		id, d, err := shown(row, m)
		if err != nil {
			return nil, err
		}
		out = append(out, arm.Row[document]{ID: id, Doc: d})
	}
	return out, nil
}

func shown(row meta.RegistryRow, m identity.ScopeMap) (name.ResourceID, document, error) {
	registry, err := name.ParseResourceID(row.ResourceID)
	if err != nil {
		return name.ResourceID{}, document{}, err
	}
	id := registry.Child("scopeMaps", m.Name)
	p := properties{Description: m.Description, Type: userDefined, Created: m.Created, State: "Succeeded", Actions: m.Actions}
	if m.System {
		p.Type, p.Created = systemDefined, row.TokensValidFrom // they are as old as the registry
	}
	return id, document{Type: TypeName, ID: id.String(), Name: m.Name, Properties: p}, nil
}

// SPDX-License-Identifier: Apache-2.0

// Package resources declares the namespace Microsoft.Resources: what Azure Resource Manager itself serves around the providers:
// tenants, subscriptions and locations, the list of providers, resource groups, the generic list of resources, and tags.
//
// It knows the declared types only through the engine, so that it lists exactly what exists. Deployments, moves and template exports are
// not built; they are refused by name.
package resources

import (
	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

// Options configure the namespace.
type Options struct {
	// Identity owns the tenant and its subscriptions.
	Identity *identity.Service
}

// versions that are advertised; any since the first is served, in one shape.
var versions = []string{"2025-04-01", "2024-11-01", "2024-03-01", "2023-07-01", "2022-12-01", "2022-09-01", "2021-04-01", "2021-01-01", "2020-10-01",
	"2020-06-01", "2020-01-01", "2019-11-01", "2019-10-01", "2019-05-01", "2018-05-01", "2018-02-01", "2017-05-10", "2016-09-01", "2016-06-01", "2015-11-01", "2015-01-01"}

// Namespace declares Microsoft.Resources.
func Namespace(o Options) arm.Namespace {
	s := &scopes{o.Identity}
	return arm.Namespace{
		Name: "Microsoft.Resources", Display: "Microsoft Resources",
		Versions: arm.Versions{Since: "2014-04-01", List: append([]string{}, versions...)},
		Types:    []arm.Resource{groupType()},
		Routes:   append(append(append(s.routes(), providerRoutes()...), listRoutes()...), tagRoutes()...),
	}
}

// group is a resource group, its members in the order in which ARM shows them.
type group struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location" arm:"required" stance:"echo" doc:"The region where the group's metadata is said to be."`
	Tags       map[string]string `json:"tags"`
	ManagedBy  *string           `json:"managedBy" arm:"immutable" stance:"echo"`
	Properties groupProperties   `json:"properties"`
}

type groupProperties struct {
	ProvisioningState string `json:"provisioningState" arm:"readonly"`
}

// groupTypeName is what ids of resource groups have as their type.
const groupTypeName = "Microsoft.Resources/resourceGroups"

func groupType() arm.Resource {
	return &arm.Type[group]{
		Name: groupTypeName, Right: "Microsoft.Resources/subscriptions/resourceGroups", Display: "Resource group", Scope: arm.InSubscription, Verbs: arm.AllVerbs,
		Names:     arm.Names{Min: 1, Max: 90, Pattern: `[\p{L}\p{N}_()\-.]*[\p{L}\p{N}_()\-]`, Text: "A resource group's name has 1 to 90 letters, digits, '.', '_', '-', '(' and ')', and does not end with '.'."},
		Answers:   arm.Answers{Absent: 404},
		DeleteJob: deleteGroupSpec,
		Work:      []arm.Work{{Kind: deleteGroupKind, Do: deleteGroup}},
		Actions: []arm.Action{
			notBuilt("moveResources", "Resources cannot be moved: a registry's identity, links and audit trail stay with its resource id. Create the resource in the target group and import its content."),
			notBuilt("validateMoveResources", "Resources cannot be moved."),
			notBuilt("exportTemplate", "Exporting templates is not supported."),
		},
	}
}

// notBuilt is an action that exists in ARM and not here: it says so.
func notBuilt(action, text string) arm.Action {
	return arm.Do(arm.Action{Name: action, Reads: true}, func(*arm.Tx, arm.Call[arm.None]) (arm.None, error) {
		return arm.None{}, fault.New(fault.NotSupported, "%s", text)
	})
}

// scopes serves the tenant and its subscriptions.
type scopes struct{ identity *identity.Service }

func readTags(m *meta.Tx, scope string) (string, error) {
	var text string
	err := m.Row("SELECT tags FROM scope_tags WHERE scope = $1", scope).Scan(&text)
	return text, err
}

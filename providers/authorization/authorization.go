// SPDX-License-Identifier: Apache-2.0

// Package authorization declares the namespace Microsoft.Authorization: role assignments and role definitions, as resources on any scope,
// and the caller's own permissions. The rows belong to identity, which also judges them: nobody is given a role that does not exist, and
// the last Owner of everything stays.
//
// It promises that an assignment never changes whom, what or where it grants: that takes a new one. It refuses conditions, because a
// condition that is not evaluated would grant more than was meant.
package authorization

import (
	"net/http"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/name"
)

// Options configure the namespace.
type Options struct {
	// Identity owns roles and assignments.
	Identity *identity.Service
}

// namespace is the provider's name, and what its ids have behind the scope.
const namespace = "Microsoft.Authorization"

// versions that are advertised; any since the first is served, in one shape.
var versions = []string{"2022-04-01", "2022-05-01-preview", "2020-10-01-preview", "2020-08-01-preview", "2020-04-01-preview", "2018-09-01-preview",
	"2018-07-01", "2018-01-01-preview", "2017-10-01-preview", "2016-07-01", "2015-07-01", "2015-06-01"}

// Namespace declares Microsoft.Authorization.
func Namespace(o Options) arm.Namespace {
	r := &rights{o.Identity}
	return arm.Namespace{
		Name: namespace, Display: "Microsoft Authorization",
		Versions: arm.Versions{Since: "2014-10-01-preview", List: append([]string{}, versions...)},
		Types:    []arm.Resource{r.assignments(), r.definitions()},
		Routes: []arm.Route{{Method: http.MethodGet, Path: "{scope}/providers/Microsoft.Authorization/permissions",
			Right: namespace + "/permissions/read", At: func(c *arm.RouteCall) name.ResourceID { return c.Scope }, Do: r.permissions}},
	}
}

// rights are the hooks of the namespace.
type rights struct{ identity *identity.Service }

// guid is the form of the names of both types.
var guid = arm.Names{Min: 36, Max: 36, Pattern: `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`,
	Text: "The name of a role assignment or a role definition is a GUID."}

// definitionID is the id of a role as it is shown at a scope: below the scope's subscription, if it has one. Clients compare the ids of
// assignments with those of definitions as texts.
func definitionID(at name.ResourceID, role string) name.ResourceID {
	root := name.ResourceID{}
	if s := at.Subscription(); s != "" {
		root = name.Subscription(strings.ToLower(s))
	}
	return root.In(namespace, "roleDefinitions", role)
}

// roleOf reads a role's GUID from a roleDefinitionId: a whole id at any scope, or the GUID alone.
func roleOf(id string) string { return strings.ToLower(id[strings.LastIndexByte(id, '/')+1:]) }

// stamp is a time as this namespace has it, nil for the zero time.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// permissions answers what the caller may do at a scope.
func (r *rights) permissions(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	list, err := r.identity.Permissions(tx.Meta(), c.Caller, c.Scope)
	if err != nil {
		return arm.Answer{}, err
	}
	shown := make([]permission, 0, len(list))
	for _, p := range list {
		shown = append(shown, shownPermission(p))
	}
	return arm.Answer{Body: struct {
		Value []permission `json:"value"`
	}{shown}}, nil
}

// missing makes the 404 of a resource whose rows identity has.
func missing(kind fault.Kind, what string) func(id name.ResourceID) *fault.Fault {
	return func(id name.ResourceID) *fault.Fault {
		return fault.New(kind, "The %s '%s' is not found.", what, id.Name())
	}
}

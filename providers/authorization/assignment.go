// SPDX-License-Identifier: Apache-2.0

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

// assignment is a role assignment, its members in the order in which ARM shows them.
type assignment struct {
	Properties assignmentProperties `json:"properties" arm:"required"`
	ID         string               `json:"id" arm:"readonly"`
	Type       string               `json:"type" arm:"readonly"`
	Name       string               `json:"name" arm:"readonly"`
}

type assignmentProperties struct {
	Role             string     `json:"roleDefinitionId" arm:"required" stance:"acts" doc:"The role that is given."`
	Principal        string     `json:"principalId" arm:"required" stance:"acts" doc:"Who is given it: the object id of a principal."`
	PrincipalType    string     `json:"principalType" enum:"User|Group|ServicePrincipal|ForeignGroup|Device" stance:"acts" doc:"The kind of the principal. Given, it must be the true one."`
	Scope            string     `json:"scope" arm:"readonly" doc:"Where it is given, and below."`
	Condition        string     `json:"condition" arm:"omitempty" stance:"refused" doc:"Conditions are not evaluated, so they are not accepted."`
	ConditionVersion string     `json:"conditionVersion" arm:"omitempty" stance:"refused" doc:"The version of the condition."`
	Created          *time.Time `json:"createdOn" arm:"readonly" time:"Z"`
	Updated          *time.Time `json:"updatedOn" arm:"readonly" time:"Z"`
	CreatedBy        string     `json:"createdBy" arm:"readonly"`
	UpdatedBy        string     `json:"updatedBy" arm:"readonly"`
	Delegated        string     `json:"delegatedManagedIdentityResourceId" arm:"omitempty" stance:"refused" doc:"Managed identities of other tenants are not known here."`
	Description      string     `json:"description" arm:"omitempty" stance:"echo" max:"1024" doc:"A note."`
}

func (r *rights) assignments() arm.Resource {
	return &arm.Type[assignment]{
		Name: namespace + "/roleAssignments", Display: "Role assignment", Scope: arm.OnAnything, Verbs: arm.AllButPatch, Names: guid,
		// Clients take 201 for every PUT, and 200 for none.
		Answers:  arm.Answers{Created: http.StatusCreated, Updated: http.StatusCreated, DeletedBody: true},
		NotFound: missing(fault.RoleAssignmentNotFound, "role assignment"),
		Admit:    admitAssignment,
		Apply:    r.applyAssignment,
		Rows:     &arm.Rows[assignment]{Get: r.getAssignment, List: r.listAssignments},
	}
}

// principalType is ARM's word for a kind of principal: to it a managed identity is a service principal.
func principalType(t identity.Type) string {
	if t == identity.User {
		return "User"
	}
	return "ServicePrincipal"
}

// shownAssignment is an assignment as it is answered at a scope.
func shownAssignment(a identity.Assignment, at name.ResourceID) assignment {
	id := a.Scope.In(namespace, "roleAssignments", a.ID)
	if at.Subscription() == "" {
		at = a.Scope
	}
	return assignment{ID: id.String(), Type: namespace + "/roleAssignments", Name: a.ID, Properties: assignmentProperties{
		Role: definitionID(at, a.Role).String(), Principal: a.Principal, PrincipalType: principalType(a.PrincipalType), Scope: a.Scope.String(),
		Created: stamp(a.Created), Updated: stamp(a.Created), CreatedBy: a.CreatedBy, UpdatedBy: a.CreatedBy, Description: a.Description}}
}

func (r *rights) getAssignment(tx *arm.Tx, id name.ResourceID) (*assignment, error) {
	a, err := r.identity.AssignmentByID(tx.Meta(), id.Name())
	if fault.Is(err, fault.RoleAssignmentNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !a.Scope.Equal(id.Scope()) {
		return nil, nil // it stands elsewhere, and that is nobody's business here
	}
	shown := shownAssignment(a, id.Scope())
	return &shown, nil
}

// listAssignments lists what counts at a scope: what is given there, above it and, unless the filter says atScope(), below it.
func (r *rights) listAssignments(tx *arm.Tx, scope name.ResourceID, text string) ([]arm.Row[assignment], error) {
	f, err := parseFilter(text, "principalId", "assignedTo()", "atScope()")
	if err != nil {
		return nil, err
	}
	all, err := r.identity.Assignments(tx.Meta())
	if err != nil {
		return nil, err
	}
	var list []arm.Row[assignment]
	for _, a := range all {
		here := scope.Within(a.Scope) || !f.has("atScope()") && a.Scope.Within(scope)
		if !here || !f.matches("principalId", a.Principal) || !f.matches("assignedTo()", a.Principal) {
			continue
		}
		shown := shownAssignment(a, scope)
		list = append(list, arm.Row[assignment]{ID: a.Scope.In(namespace, "roleAssignments", a.ID), Doc: shown})
	}
	return list, nil
}

// admitAssignment: an assignment is what it was made as. Only its note may change.
func admitAssignment(_ arm.World, c arm.Change[assignment]) []*fault.Fault {
	if c.Want == nil || c.Was == nil {
		return nil
	}
	was, want := c.Was.Properties, c.Want.Properties
	if roleOf(was.Role) == roleOf(want.Role) && strings.EqualFold(was.Principal, want.Principal) {
		return nil
	}
	return []*fault.Fault{fault.New(fault.RoleAssignmentUpdateNotPermitted,
		"Tenant ID, application ID, principal ID, and scope are not allowed to be updated. Delete the role assignment '%s' and make a new one.", c.ID.Name())}
}

func (r *rights) applyAssignment(tx *arm.Tx, c arm.Change[assignment]) error {
	if c.Want == nil {
		return r.identity.DeleteAssignment(tx.Meta(), c.ID.Name())
	}
	p := &c.Want.Properties
	principal, err := r.identity.FindPrincipal(tx.Meta(), p.Principal)
	if fault.Is(err, fault.PrincipalNotFound) || err == nil && !strings.EqualFold(principal.ID, p.Principal) {
		return fault.New(fault.PrincipalNotFound,
			"Principal %s does not exist in the directory of this installation. Give the object id that 'embargo principal list' shows.", p.Principal).At("properties.principalId")
	}
	if err != nil {
		return err
	}
	if p.PrincipalType != "" && p.PrincipalType != principalType(principal.Type) {
		return fault.New(fault.UnmatchedPrincipalType, "The PrincipalId '%s' has type '%s', which is different from the specified PrincipalType '%s'.",
			principal.ID, principalType(principal.Type), p.PrincipalType).At("properties.principalType")
	}
	a := identity.Assignment{ID: c.ID.Name(), Scope: c.ID.Scope(), Principal: principal.ID, Role: roleOf(p.Role), Description: p.Description, CreatedBy: c.Caller.ID}
	if err := r.identity.PutAssignment(tx.Meta(), a); err != nil {
		return err
	}
	stored, err := r.identity.AssignmentByID(tx.Meta(), a.ID)
	*c.Want = shownAssignment(stored, c.ID.Scope())
	return err
}

// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Assignment gives a principal a role at a scope and below it.
type Assignment struct {
	ID            string
	Scope         name.ResourceID
	Principal     string
	PrincipalType Type
	Role          string
	Description   string
	Created       time.Time
	CreatedBy     string
}

// assignmentDoc is what an assignment's row keeps beside its columns.
type assignmentDoc struct {
	PrincipalType Type   `json:"principalType"`
	Description   string `json:"description,omitempty"`
	CreatedBy     string `json:"createdBy,omitempty"`
}

// Can reports whether a principal may do a control-plane action at a scope by its roles there or above. Callers that are no principals, that a
// registry's token proved, or whose principal is disabled or gone may nothing here.
func (s *Service) Can(tx *meta.Tx, c Caller, action string, scope name.ResourceID) (bool, error) {
	if c.Registry != "" || c.Narrowed {
		return false, nil
	}
	return s.holds(tx, c, action, scope, false)
}

// holds asks the database every time: a right that was taken away is gone with the commit that took it, also for a reader that began before.
func (s *Service) holds(tx *meta.Tx, c Caller, action string, scope name.ResourceID, data bool) (bool, error) {
	roles, err := s.rolesAt(tx, c, scope)
	if err != nil {
		return false, err
	}
	for _, r := range roles {
		if r.allows(action, data) {
			return true, nil
		}
	}
	return false, nil
}

// rolesAt are the roles that a caller's principal has at a scope or above it: one query by index, and one more for each custom role.
func (s *Service) rolesAt(tx *meta.Tx, c Caller, scope name.ResourceID) ([]Role, error) {
	if c.Type != ServicePrincipal && c.Type != User && c.Type != ManagedIdentity {
		return nil, nil
	}
	rows, err := tx.Query(`SELECT a.scope_key, a.role_id FROM role_assignments a JOIN principals p ON p.id = a.principal WHERE a.principal = $1 AND p.enabled`, c.ID)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	key := scope.Key()
	var ids []string
	for rows.Next() {
		var at, role string
		if err := rows.Scan(&at, &role); err != nil {
			return nil, err
		}
		if at == "/" || key == at || strings.HasPrefix(key, at+"/") {
			ids = append(ids, role)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	roles := make([]Role, 0, len(ids))
	for _, id := range ids {
		r, err := s.RoleByID(tx, id)
		if fault.Is(err, fault.RoleDefinitionNotFound) {
			continue // a role that is gone permits nothing
		}
		if err != nil {
			return nil, err
		}
		roles = append(roles, r)
	}
	return roles, nil
}

// Permissions are what a caller's roles allow at a scope.
func (s *Service) Permissions(tx *meta.Tx, c Caller, scope name.ResourceID) ([]Permission, error) {
	roles, err := s.rolesAt(tx, c, scope)
	var all []Permission
	for _, r := range roles {
		all = append(all, r.Permissions...)
	}
	return all, err
}

// lockRights lets one transaction at a time change who may what, so that two can't each take away what the other counts on. It is the last
// lock that a transaction takes.
func (s *Service) lockRights(tx *meta.Tx) error {
	var id string
	err := tx.Lock(`SELECT id FROM subscriptions WHERE id = (SELECT MIN(id) FROM subscriptions)`).Scan(&id)
	if errors.Is(err, meta.ErrNotFound) {
		return nil // before Bootstrap there is nobody to exclude
	}
	return err
}

// PutAssignment gives a role; of an assignment that is there it changes the description alone. The caller of it records the change. Errors:
// RoleDefinitionNotFound, PrincipalNotFound, RoleAssignmentExists when another assignment gives the same, RoleAssignmentUpdateNotPermitted when
// the id is another assignment's, InvalidParameter where the role can't be given.
func (s *Service) PutAssignment(tx *meta.Tx, a Assignment) error {
	if err := s.lockRights(tx); err != nil {
		return err
	}
	role, err := s.RoleByID(tx, a.Role)
	if err != nil {
		return err
	}
	if !role.assignable(a.Scope) {
		return fault.New(fault.InvalidParameter, "The role '%s' can't be given at the scope '%s': its assignableScopes are %s.", role.Name, a.Scope, strings.Join(role.Scopes, ", "))
	}
	p, err := s.principal(tx, strings.ToLower(a.Principal))
	if errors.Is(err, meta.ErrNotFound) {
		return fault.New(fault.PrincipalNotFound, "Principal %s does not exist in the directory of this installation. 'embargo principal list' shows those that do.", a.Principal)
	}
	if err != nil {
		return err
	}
	was, err := s.AssignmentByID(tx, a.ID)
	if err != nil && !fault.Is(err, fault.RoleAssignmentNotFound) {
		return err
	}
	if err == nil && (!was.Scope.Equal(a.Scope) || was.Principal != p.ID || was.Role != role.ID) {
		return fault.New(fault.RoleAssignmentUpdateNotPermitted,
			"The role assignment '%s' gives something else. Tenant ID, application ID, principal ID, and scope are not allowed to be updated.", a.ID)
	}
	if err != nil {
		was = Assignment{Created: tx.Now(), CreatedBy: a.CreatedBy}
	}
	if err := s.unassigned(tx, a, p.ID, role.ID); err != nil {
		return err
	}
	doc, err := json.Marshal(assignmentDoc{p.Type, a.Description, was.CreatedBy})
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO role_assignments (id, scope, scope_key, principal, role_id, doc, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7)
 ON CONFLICT (id) DO UPDATE SET doc = excluded.doc`,
		strings.ToLower(a.ID), a.Scope.String(), a.Scope.Key(), p.ID, role.ID, string(doc), meta.Micros(was.Created))
	return err
}

// unassigned is nil when no other assignment gives the same role to the same principal at the same scope.
func (s *Service) unassigned(tx *meta.Tx, a Assignment, principal, role string) error {
	var other string
	err := tx.Row(`SELECT id FROM role_assignments WHERE principal = $1 AND scope_key = $2 AND role_id = $3 AND id <> $4`,
		principal, a.Scope.Key(), role, strings.ToLower(a.ID)).Scan(&other)
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return fault.New(fault.RoleAssignmentExists, "The role assignment already exists. The ID of the existing role assignment is %s.", strings.ReplaceAll(other, "-", ""))
}

// DeleteAssignment takes a role away. Errors: Conflict for the last Owner of everything, RoleAssignmentNotFound.
func (s *Service) DeleteAssignment(tx *meta.Tx, id string) error {
	if err := s.lockRights(tx); err != nil {
		return err
	}
	a, err := s.AssignmentByID(tx, id)
	if err != nil {
		return err
	}
	if err := s.keepOwner(tx, "", a.ID); err != nil {
		return err
	}
	_, err = tx.Exec(`DELETE FROM role_assignments WHERE id = $1`, a.ID)
	return err
}

// keepOwner refuses a change after which nobody enabled would be Owner of everything: without the principal, or without the assignment. The
// transaction holds lockRights.
func (s *Service) keepOwner(tx *meta.Tx, principal, assignment string) error {
	var all, left int
	base := `SELECT COUNT(*) FROM role_assignments a JOIN principals p ON p.id = a.principal WHERE a.scope_key = '/' AND a.role_id = $1 AND p.enabled`
	if err := tx.Row(base, RoleOwner).Scan(&all); err != nil {
		return err
	}
	if err := tx.Row(base+` AND a.principal <> $2 AND a.id <> $3`, RoleOwner, principal, assignment).Scan(&left); err != nil {
		return err
	}
	if all > 0 && left == 0 {
		return fault.New(fault.Conflict, "This is the last enabled Owner of the whole installation: without it nobody could give rights any more. Make another Owner at the scope '/' first.")
	}
	return nil
}

const assignmentColumns = `id, scope, principal, role_id, doc, created_us`

func scanAssignment(scan func(...any) error) (Assignment, error) {
	var a Assignment
	var scope, doc string
	var created int64
	if err := scan(&a.ID, &scope, &a.Principal, &a.Role, &doc, &created); err != nil {
		return a, err
	}
	var d assignmentDoc
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		return a, err
	}
	a.PrincipalType, a.Description, a.CreatedBy, a.Created = d.PrincipalType, d.Description, d.CreatedBy, meta.FromMicros(created)
	var err error
	a.Scope, err = name.ParseResourceID(scope)
	return a, err
}

// AssignmentByID reads an assignment. Errors: RoleAssignmentNotFound.
func (s *Service) AssignmentByID(tx *meta.Tx, id string) (Assignment, error) {
	a, err := scanAssignment(tx.Row(`SELECT `+assignmentColumns+` FROM role_assignments WHERE id = $1`, strings.ToLower(id)).Scan)
	if errors.Is(err, meta.ErrNotFound) {
		return a, fault.New(fault.RoleAssignmentNotFound, "The role assignment '%s' is not found.", id).Because(err)
	}
	return a, err
}

// Assignments are all assignments, oldest first.
func (s *Service) Assignments(tx *meta.Tx) ([]Assignment, error) {
	rows, err := tx.Query(`SELECT ` + assignmentColumns + ` FROM role_assignments ORDER BY created_us, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Assignment
	for rows.Next() {
		a, err := scanAssignment(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// DropScope removes the assignments at and below a scope that is being deleted, so that they don't hold for what is later made under its name.
func (s *Service) DropScope(tx *meta.Tx, scope name.ResourceID) error {
	if scope.IsRoot() {
		return errors.New("identity: the tenant is never deleted")
	}
	if err := s.lockRights(tx); err != nil {
		return err
	}
	key := scope.Key()
	_, err := tx.Exec(`DELETE FROM role_assignments WHERE scope_key = $1 OR SUBSTR(scope_key, 1, $2) = $3`, key, utf8.RuneCountInString(key)+1, key+"/")
	return err
}

// RoleByID finds a role by its GUID. Errors: RoleDefinitionNotFound.
func (s *Service) RoleByID(tx *meta.Tx, id string) (Role, error) {
	id = strings.ToLower(id)
	if r, ok := builtInByID[id]; ok {
		return r, nil
	}
	r, err := scanRole(tx.Row(`SELECT id, doc, created_us FROM role_definitions WHERE id = $1`, id).Scan)
	if errors.Is(err, meta.ErrNotFound) {
		return Role{}, fault.New(fault.RoleDefinitionNotFound, "The specified role definition with ID '%s' does not exist.", id).Because(err)
	}
	return r, err
}

func scanRole(scan func(...any) error) (Role, error) {
	var r Role
	var id, doc string
	var created int64
	if err := scan(&id, &doc, &created); err != nil {
		return r, err
	}
	err := json.Unmarshal([]byte(doc), &r)
	r.ID, r.BuiltIn, r.Created = id, false, meta.FromMicros(created)
	return r, err
}

// Roles are the built-in roles and then the custom ones, oldest first.
func (s *Service) Roles(tx *meta.Tx) ([]Role, error) {
	all := append([]Role{}, builtIn...)
	rows, err := tx.Query(`SELECT id, doc, created_us FROM role_definitions ORDER BY created_us, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanRole(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// PutRole writes a custom role. Errors: Conflict when the id or the name is another role's, or an assignment would be left where the role can't be given.
func (s *Service) PutRole(tx *meta.Tx, r Role) error {
	if err := s.lockRights(tx); err != nil {
		return err
	}
	r.ID = strings.ToLower(r.ID)
	if _, taken := builtInByID[r.ID]; taken {
		return fault.New(fault.Conflict, "The role definition '%s' is built in and can't be changed.", r.ID)
	}
	all, err := s.Roles(tx)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.ID != r.ID && strings.EqualFold(other.Name, r.Name) {
			return fault.New(fault.RoleDefinitionWithSameNameExists, "A role named '%s' exists already: its id is %s.", other.Name, other.ID)
		}
	}
	given, err := s.Assignments(tx)
	if err != nil {
		return err
	}
	for _, a := range given {
		if a.Role == r.ID && !r.assignable(a.Scope) {
			return fault.New(fault.Conflict, "The role '%s' is given at the scope '%s', which would not be one of its assignableScopes any more.", r.Name, a.Scope)
		}
	}
	r.BuiltIn, r.Created, r.Updated = false, time.Time{}, tx.Now()
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO role_definitions (id, scope_key, doc, created_us) VALUES ($1, '/', $2, $3) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc`,
		r.ID, string(doc), meta.Micros(tx.Now()))
	return err
}

// DeleteRole removes a custom role that nobody has. Errors: Conflict, RoleDefinitionNotFound.
func (s *Service) DeleteRole(tx *meta.Tx, id string) error {
	if err := s.lockRights(tx); err != nil {
		return err
	}
	id = strings.ToLower(id)
	r, err := s.RoleByID(tx, id)
	if err != nil {
		return err
	}
	var used int
	if err := tx.Row(`SELECT COUNT(*) FROM role_assignments WHERE role_id = $1`, id).Scan(&used); err != nil {
		return err
	}
	if r.BuiltIn {
		return fault.New(fault.Conflict, "The role definition '%s' is built in and can't be deleted.", id)
	}
	if used > 0 {
		return fault.New(fault.RoleDefinitionHasAssignments, "There are %d role assignments referencing the role '%s'. Delete them first.", used, r.Name)
	}
	_, err = tx.Exec(`DELETE FROM role_definitions WHERE id = $1`, id)
	return err
}

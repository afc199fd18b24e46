// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

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

// grant is an assignment as Can needs it.
type grant struct {
	scope string // key
	role  Role
}

// grantCache keeps the grants of principals while this process is the database's sole writer.
type grantCache struct {
	mu   sync.RWMutex
	of   map[string][]grant
	seen uint64
}

// forget drops the cache before and after the commit of a change: between them nobody may keep what the old state says.
func (s *Service) forget(tx *meta.Tx) {
	drop := func() {
		s.grants.mu.Lock()
		s.grants.of = nil
		s.grants.seen++
		s.grants.mu.Unlock()
	}
	drop()
	tx.OnCommit(drop)
}

// grantsOf reads a principal's grants.
func (s *Service) grantsOf(tx *meta.Tx, principal string) ([]grant, error) {
	// A transaction of this process may hold changes that are not committed: only plain reads use the cache.
	cached := s.db.SoleWriter() && tx.ReadOnly()
	var seen uint64
	if cached {
		s.grants.mu.RLock()
		got, ok := s.grants.of[principal]
		seen = s.grants.seen
		s.grants.mu.RUnlock()
		if ok {
			return got, nil
		}
	}
	rows, err := tx.Query(`SELECT scope_key, role_id FROM role_assignments WHERE principal = $1`, principal)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []grant
	for rows.Next() {
		var g grant
		if err := rows.Scan(&g.scope, &g.role.ID); err != nil {
			return nil, err
		}
		found = append(found, g)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i := range found {
		role, err := s.RoleByID(tx, found[i].role.ID)
		if err != nil && !fault.Is(err, fault.RoleDefinitionNotFound) {
			return nil, err
		}
		found[i].role = role // a role that is gone permits nothing
	}
	if cached {
		s.grants.mu.Lock()
		if s.grants.seen == seen {
			if s.grants.of == nil || len(s.grants.of) > 1<<14 {
				s.grants.of = map[string][]grant{}
			}
			s.grants.of[principal] = found
		}
		s.grants.mu.Unlock()
	}
	return found, nil
}

// Can reports whether a principal may do a control-plane action at a scope by its roles there or above. Callers that are no principals may nothing here.
func (s *Service) Can(tx *meta.Tx, c Caller, action string, scope name.ResourceID) (bool, error) {
	return s.holds(tx, c, action, scope, false)
}

func (s *Service) holds(tx *meta.Tx, c Caller, action string, scope name.ResourceID, data bool) (bool, error) {
	if c.Type != ServicePrincipal && c.Type != User && c.Type != ManagedIdentity {
		return false, nil
	}
	grants, err := s.grantsOf(tx, c.ID)
	if err != nil {
		return false, err
	}
	key := scope.Key()
	for _, g := range grants {
		if (g.scope == "/" || key == g.scope || strings.HasPrefix(key, g.scope+"/")) && g.role.allows(action, data) {
			return true, nil
		}
	}
	return false, nil
}

// PutAssignment gives a role. A scope's assignment of the same role to the same principal under another id is a RoleAssignmentExists.
func (s *Service) PutAssignment(tx *meta.Tx, a Assignment) error {
	if _, err := s.RoleByID(tx, a.Role); err != nil {
		return err
	}
	p, err := s.principal(tx, a.Principal)
	if errors.Is(err, meta.ErrNotFound) {
		return fault.New(fault.PrincipalNotFound, "Principal %s does not exist in the directory of this installation. 'embargo principal list' shows those that do.", a.Principal)
	}
	if err != nil {
		return err
	}
	var other string
	err = tx.Row(`SELECT id FROM role_assignments WHERE principal = $1 AND scope_key = $2 AND role_id = $3 AND id <> $4`,
		p.ID, a.Scope.Key(), strings.ToLower(a.Role), strings.ToLower(a.ID)).Scan(&other)
	if err == nil {
		return fault.New(fault.RoleAssignmentExists, "The role assignment already exists. The ID of the existing role assignment is %s.", other)
	}
	if !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	doc, err := json.Marshal(assignmentDoc{p.Type, a.Description, a.CreatedBy})
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO role_assignments (id, scope, scope_key, principal, role_id, doc, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7)
 ON CONFLICT (id) DO UPDATE SET scope = excluded.scope, scope_key = excluded.scope_key, principal = excluded.principal, role_id = excluded.role_id, doc = excluded.doc`,
		strings.ToLower(a.ID), a.Scope.String(), a.Scope.Key(), p.ID, strings.ToLower(a.Role), string(doc), meta.Micros(tx.Now()))
	s.forget(tx)
	return err
}

// DeleteAssignment takes a role away. Errors: Conflict for the last Owner of everything, RoleAssignmentNotFound.
func (s *Service) DeleteAssignment(tx *meta.Tx, id string) error {
	a, err := s.AssignmentByID(tx, id)
	if err != nil {
		return err
	}
	if err := s.keepOwner(tx, "", a.ID); err != nil {
		return err
	}
	_, err = tx.Exec(`DELETE FROM role_assignments WHERE id = $1`, a.ID)
	s.forget(tx)
	return err
}

// keepOwner refuses a change after which nobody enabled would be Owner of everything: without the principal, or without the assignment.
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

// DropScope removes the assignments at and below a scope that is being deleted.
func (s *Service) DropScope(tx *meta.Tx, scope name.ResourceID) error {
	key := scope.Key()
	_, err := tx.Exec(`DELETE FROM role_assignments WHERE scope_key = $1 OR SUBSTR(scope_key, 1, $2) = $3`, key, len(key)+1, key+"/")
	s.forget(tx)
	return err
}

// RoleByID finds a role by its GUID. Errors: RoleDefinitionNotFound.
func (s *Service) RoleByID(tx *meta.Tx, id string) (Role, error) {
	id = strings.ToLower(id)
	if r, ok := builtInByID[id]; ok {
		return r, nil
	}
	var doc string
	err := tx.Row(`SELECT doc FROM role_definitions WHERE id = $1`, id).Scan(&doc)
	if errors.Is(err, meta.ErrNotFound) {
		return Role{}, fault.New(fault.RoleDefinitionNotFound, "The specified role definition with ID '%s' does not exist.", id)
	}
	if err != nil {
		return Role{}, err
	}
	var r Role
	return r, json.Unmarshal([]byte(doc), &r)
}

// Roles are the built-in roles and then the custom ones, by name.
func (s *Service) Roles(tx *meta.Tx) ([]Role, error) {
	all := append([]Role{}, builtIn...)
	rows, err := tx.Query(`SELECT doc FROM role_definitions ORDER BY created_us, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var doc string
		var r Role
		if err := rows.Scan(&doc); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(doc), &r); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// PutRole writes a custom role. Errors: Conflict when the id is a built-in role's.
func (s *Service) PutRole(tx *meta.Tx, r Role) error {
	r.ID = strings.ToLower(r.ID)
	if _, taken := builtInByID[r.ID]; taken {
		return fault.New(fault.Conflict, "The role definition '%s' is built in and can't be changed.", r.ID)
	}
	r.BuiltIn = false
	doc, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO role_definitions (id, scope_key, doc, created_us) VALUES ($1, '/', $2, $3) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc`,
		r.ID, string(doc), meta.Micros(tx.Now()))
	s.forget(tx)
	return err
}

// DeleteRole removes a custom role that nobody has. Errors: Conflict, RoleDefinitionNotFound.
func (s *Service) DeleteRole(tx *meta.Tx, id string) error {
	id = strings.ToLower(id)
	r, err := s.RoleByID(tx, id)
	if err != nil {
		return err
	}
	var used int
	if err := tx.Row(`SELECT COUNT(*) FROM role_assignments WHERE role_id = $1`, id).Scan(&used); err != nil {
		return err
	}
	if r.BuiltIn || used > 0 {
		return fault.New(fault.Conflict, "The role definition '%s' can't be deleted: it is built in or has %d assignments.", id, used)
	}
	_, err = tx.Exec(`DELETE FROM role_definitions WHERE id = $1`, id)
	s.forget(tx)
	return err
}

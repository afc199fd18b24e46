// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// stored is one resource as the table has it.
type stored struct {
	id     name.ResourceID
	typ    *resource
	doc    reflect.Value // pointer to D, secrets in the clear
	state  string        // "", or what the resource is going through: Deleting, Failed
	system SystemData
}

const columns = "type, id, state, doc, created_us, created_by, created_by_type, changed_us, changed_by, changed_by_type"

// errAgain says that another transaction created the row meanwhile: the request is judged anew.
var errAgain = errors.New("arm: a concurrent create was first")

// errAbsent marks what is not there; callers turn it into the fault that fits.
var errAbsent = errors.New("arm: absent")

// load reads a resource; errAbsent when it is not there.
func (e *Engine) load(tx *Tx, r *resource, id name.ResourceID) (*stored, error) {
	if r.rows != nil {
		return r.given(tx, r.rows, id)
	}
	row := tx.m.Row("SELECT "+columns+" FROM resources WHERE key = $1", id.Key())
	s, err := e.scan(row.Scan)
	if !errors.Is(err, meta.ErrNotFound) {
		return s, err
	}
	if r.beside != nil {
		return r.given(tx, r.beside, id)
	}
	return nil, errAbsent
}

// given reads a resource that others than the engine keep.
func (r *resource) given(tx *Tx, from *rows, id name.ResourceID) (*stored, error) {
	doc, err := from.get(tx, id)
	if err != nil {
		return nil, err
	}
	if !doc.IsValid() {
		return nil, errAbsent
	}
	s := &stored{id: id, typ: r, doc: doc}
	if v := r.schema.lookup(doc, "id"); v.IsValid() && v.Kind() == reflect.String && v.String() != "" {
		if own, err := name.ParseResourceID(v.String()); err == nil {
			s.id = own
		}
	}
	return s, nil
}

// scan reads one row.
func (e *Engine) scan(scan func(...any) error) (*stored, error) {
	var typ, id, doc string
	var created, changed int64
	s := &stored{}
	err := scan(&typ, &id, &s.state, &doc, &created, &s.system.CreatedBy, &s.system.CreatedByType, &changed, &s.system.LastModifiedBy, &s.system.LastModifiedByType)
	if err != nil {
		return nil, err
	}
	s.system.CreatedAt, s.system.LastModifiedAt = meta.FromMicros(created), meta.FromMicros(changed)
	if s.id, err = name.ParseResourceID(id); err != nil {
		return nil, fmt.Errorf("stored resource %q: %w", id, err)
	}
	if s.typ = e.types[typ]; s.typ == nil {
		return nil, fmt.Errorf("stored resource %s has the undeclared type %s", id, typ)
	}
	s.doc, err = e.open(s.typ, s.id, []byte(doc))
	return s, err
}

// scanAll reads every row of a query.
func (e *Engine) scanAll(rows *meta.Rows, err error) ([]*stored, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*stored
	for rows.Next() {
		s, err := e.scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// open reads a stored document: members that it lacks (it was written before they were declared) get their defaults.
func (e *Engine) open(r *resource, id name.ResourceID, doc []byte) (reflect.Value, error) {
	v := r.fresh()
	if err := json.Unmarshal(doc, v.Interface()); err != nil {
		return v, fmt.Errorf("stored document of %s: %w", id, err)
	}
	if !r.sealed {
		return v, nil
	}
	return v, r.schema.unseal(v.Elem(), "", false, func(path, text string) (string, error) {
		sealed, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", fmt.Errorf("secret %s of %s: %w", path, id, err)
		}
		plain, err := e.keyring.Open(purpose(id, path), sealed)
		return string(plain), err
	})
}

// purpose binds a sealed secret to its place, so that it opens nowhere else.
func purpose(id name.ResourceID, path string) string { return "arm:" + id.Key() + "#" + path }

// unseal opens every secret text in v, in place.
func (s *schema) unseal(v reflect.Value, path string, secret bool, open func(path, text string) (string, error)) error {
	if s.ptr {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	switch s.kind {
	case kindString:
		if !secret || v.String() == "" {
			return nil
		}
		text, err := open(path, v.String())
		if err == nil {
			v.SetString(text)
		}
		return err
	case kindObject:
		for _, f := range s.fields {
			if err := f.schema.unseal(v.FieldByIndex(f.index), join(path, f.name), f.secret, open); err != nil {
				return err
			}
		}
	case kindArray:
		for i := range v.Len() {
			if err := s.elem.unseal(v.Index(i), path+"[]", secret, open); err != nil {
				return err
			}
		}
	case kindMap:
		for _, k := range v.MapKeys() {
			item := reflect.New(v.Type().Elem()).Elem()
			item.Set(v.MapIndex(k))
			if err := s.elem.unseal(item, path+"{}", secret, open); err != nil {
				return err
			}
			v.SetMapIndex(k, item)
		}
	}
	return nil
}

// save writes a resource. create inserts it, and is errAgain when the key exists by now.
func (e *Engine) save(tx *Tx, s *stored, create bool) error {
	s.envelope()
	enc := &encoder{shape: wholeShape, every: true, secrets: secretsSealed, seal: func(path, text string) (string, error) {
		sealed, err := e.keyring.Seal(purpose(s.id, path), []byte(text))
		return base64.StdEncoding.EncodeToString(sealed), err
	}}
	doc, err := s.typ.schema.encode(enc, s.doc)
	if err != nil {
		return fmt.Errorf("document of %s: %w", s.id, err)
	}
	y := s.system
	created, changed := meta.Micros(y.CreatedAt), meta.Micros(y.LastModifiedAt)
	if !create {
		_, err = tx.m.Exec("UPDATE resources SET location = $2, state = $3, doc = $4, changed_us = $5, changed_by = $6, changed_by_type = $7 WHERE key = $1",
			s.id.Key(), s.text("location"), s.state, string(doc), changed, y.LastModifiedBy, y.LastModifiedByType)
		return err
	}
	low := strings.ToLower
	n, err := tx.m.Exec(`INSERT INTO resources (key, type, name, root_key, parent_key, subscription, resource_group, location, id, state, doc,
		created_us, created_by, created_by_type, changed_us, changed_by, changed_by_type)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT (key) DO NOTHING`,
		s.id.Key(), low(s.typ.name), s.id.Name(), s.id.Root().Key(), s.id.Parent().Key(), low(s.id.Subscription()), low(s.id.ResourceGroup()),
		s.text("location"), s.id.String(), s.state, string(doc), created, y.CreatedBy, y.CreatedByType, changed, y.LastModifiedBy, y.LastModifiedByType)
	if err == nil && n == 0 {
		return errAgain
	}
	if err != nil || !s.typ.globalName {
		return err
	}
	return claimName(tx.m, s)
}

// claimName takes the name of a GlobalName type for the whole installation.
func claimName(m *meta.Tx, s *stored) error {
	n, err := m.Exec("INSERT INTO resource_names (type, name, key) VALUES ($1, $2, $3) ON CONFLICT (type, name) DO NOTHING",
		strings.ToLower(s.typ.name), strings.ToLower(s.id.Name()), s.id.Key())
	if err != nil || n == 1 {
		return err
	}
	kind, text := s.typ.takenFault, s.typ.takenText
	if kind == fault.Internal {
		kind = fault.Conflict
	}
	if text == "" {
		text = "The name '%s' is already in use."
	}
	return fault.New(kind, text, s.id.Name())
}

func nameTaken(m *meta.Tx, typ, n string) (bool, error) {
	var key string
	err := m.Row("SELECT key FROM resource_names WHERE type = $1 AND name = $2", strings.ToLower(typ), strings.ToLower(n)).Scan(&key)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// erase deletes the row of one resource.
func (e *Engine) erase(tx *Tx, s *stored) error {
	if s.typ.rows != nil {
		return nil
	}
	if _, err := tx.m.Exec("DELETE FROM resource_names WHERE key = $1", s.id.Key()); err != nil {
		return err
	}
	_, err := tx.m.Exec("DELETE FROM resources WHERE key = $1", s.id.Key())
	return err
}

func (e *Engine) setState(m *meta.Tx, id name.ResourceID, state string) error {
	_, err := m.Exec("UPDATE resources SET state = $2 WHERE key = $1", id.Key(), state)
	return err
}

// lock takes the root's row for the rest of the transaction, so that nothing that is judged can change meanwhile. Of a root that is
// not there yet it locks the group that would hold it.
func (e *Engine) lock(tx *Tx, id name.ResourceID) error {
	root := id.Root()
	there, err := lockRow(tx.m, root.Key())
	if err != nil || there || root.ResourceGroup() == "" {
		return err
	}
	group := name.Group(root.Subscription(), root.ResourceGroup())
	if _, err := lockRow(tx.m, group.Key()); err != nil || group.Equal(root) {
		return err
	}
	_, err = lockRow(tx.m, root.Key())
	return err
}

func lockRow(m *meta.Tx, key string) (bool, error) {
	var found string
	err := m.Lock("SELECT key FROM resources WHERE key = $1", key).Scan(&found)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// page reads resources in order of their keys, after the key given, at most limit. where is the condition, its arguments numbered from $2.
func (e *Engine) page(tx *Tx, where, after string, limit int, args ...any) ([]*stored, error) {
	query := fmt.Sprintf("SELECT %s FROM resources WHERE key > $1 AND %s ORDER BY key LIMIT %d", columns, where, limit)
	return e.scanAll(tx.m.Query(query, append([]any{after}, args...)...))
}

// scopeWhere is the condition that holds what may lie below a scope, its arguments numbered from $n; callers still ask Within.
func scopeWhere(scope name.ResourceID, n int) (string, []any) {
	low := strings.ToLower
	switch {
	case scope.IsResource():
		return fmt.Sprintf("root_key = $%d", n), []any{scope.Root().Key()}
	case scope.ResourceGroup() != "":
		return fmt.Sprintf("subscription = $%d AND resource_group = $%d", n, n+1), []any{low(scope.Subscription()), low(scope.ResourceGroup())}
	case scope.Subscription() != "":
		return fmt.Sprintf("subscription = $%d", n), []any{low(scope.Subscription())}
	}
	return "TRUE", nil
}

// below are all resources under id, of one type or ("") of any, in order of their keys.
func (e *Engine) below(tx *Tx, id name.ResourceID, typ string) ([]*stored, error) {
	where, args := scopeWhere(id, 1)
	if typ != "" {
		where += fmt.Sprintf(" AND type = $%d", len(args)+1)
		args = append(args, strings.ToLower(typ))
	}
	all, err := e.scanAll(tx.m.Query("SELECT "+columns+" FROM resources WHERE "+where+" ORDER BY key", args...))
	kept := all[:0]
	for _, s := range all {
		if s.id.Within(id) && !s.id.Equal(id) {
			kept = append(kept, s)
		}
	}
	return kept, err
}

// envelope gives the document the members that the engine owns.
func (s *stored) envelope() {
	put := func(member, text string) {
		if v := s.typ.schema.lookup(s.doc, member); v.IsValid() && v.Kind() == reflect.String {
			v.SetString(text)
		}
	}
	if s.typ.rows == nil {
		put("id", s.id.String())
		put("name", s.id.Name())
		put("type", s.typ.name)
	}
	v := s.typ.schema.lookup(s.doc, "systemData")
	switch {
	case !v.IsValid() || s.system.CreatedAt.IsZero():
	case v.Type() == systemDataType:
		v.Set(reflect.ValueOf(s.system))
	case v.Type() == reflect.PointerTo(systemDataType):
		y := s.system
		v.Set(reflect.ValueOf(&y))
	}
}

// text is a string member of the document, "" when there is none.
func (s *stored) text(path string) string {
	v := s.typ.schema.lookup(s.doc, path)
	if v.IsValid() && v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if !v.IsValid() || v.Kind() != reflect.String {
		return ""
	}
	return v.String()
}

// tags are the document's tags, nil when it has none.
func (s *stored) tags() map[string]string {
	v := s.typ.schema.lookup(s.doc, "tags")
	if !v.IsValid() {
		return nil
	}
	tags, _ := v.Interface().(map[string]string)
	return tags
}

var systemDataType = reflect.TypeFor[SystemData]()

// touch records who writes, and when.
func (s *stored) touch(tx *Tx, create bool) {
	by, kind := clientName(tx.req.Caller), createdByType(tx.req.Caller)
	now := tx.now().Truncate(time.Microsecond)
	if create {
		s.system.CreatedBy, s.system.CreatedByType, s.system.CreatedAt = by, kind, now
	}
	s.system.LastModifiedBy, s.system.LastModifiedByType, s.system.LastModifiedAt = by, kind, now
}

// createdByType is systemData's word for a kind of caller. Source: ARM common types, systemData.createdByType.
func createdByType(c identity.Caller) string {
	switch c.Type {
	case identity.User:
		return "User"
	case identity.ServicePrincipal:
		return "Application"
	case identity.ManagedIdentity:
		return "ManagedIdentity"
	}
	return "Key"
}

// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/name"
)

// resource is a Type[D] with its document's Go type erased. Documents are pointers to D in reflect.Values.
type resource struct {
	name, namespace string
	segments        []string // registries, exportPipelines
	display         string
	right           string // what permissions on it begin with: its name, mostly
	scope           Scope
	on              string
	api             ranges
	verbs           Verbs
	names           Names
	pattern         *regexp.Regexp
	globalName      bool
	takenFault      fault.Kind
	takenText       string
	answers         Answers
	notFound        func(id name.ResourceID) *fault.Fault
	capability      string

	doc    reflect.Type
	schema *schema
	sealed bool // some member is secret

	admit     func(w World, c change) []*fault.Fault
	apply     func(tx *Tx, c change) error
	deleteJob func(c change) job.Spec
	view      func(v View, doc reflect.Value)
	rows      *rows
	beside    *rows
	actions   []Action
	work      []Work

	provider *provider
}

// change is a Change[D] with D erased; was and want are invalid where they are nil.
type change struct {
	id        name.ResourceID
	was, want reflect.Value
	req       Request
}

type rows struct {
	get  func(tx *Tx, id name.ResourceID) (reflect.Value, error)
	list func(tx *Tx, scope name.ResourceID, filter string) ([]found, error)
}

type found struct {
	id  name.ResourceID
	doc reflect.Value
}

func (t *Type[D]) resource() (*resource, error) {
	r := &resource{
		name: t.Name, right: t.Right, display: t.Display, scope: t.Scope, on: t.On, verbs: t.Verbs, names: t.Names, globalName: t.GlobalName,
		takenFault: t.TakenFault, takenText: t.TakenText, answers: t.Answers, notFound: t.NotFound, capability: t.Capability,
		doc: reflect.TypeFor[D](), actions: t.Actions, work: t.Work,
	}
	if r.right == "" {
		r.right = r.name
	}
	parts := strings.Split(t.Name, "/")
	if len(parts) < 2 {
		return nil, fmt.Errorf("type %q has no namespace", t.Name)
	}
	r.namespace, r.segments = parts[0], parts[1:]
	var err error
	if r.api, err = parseRanges(t.API); err != nil {
		return nil, fmt.Errorf("type %s: %w", t.Name, err)
	}
	if r.schema, err = compileSchema(r.doc); err != nil {
		return nil, fmt.Errorf("type %s: %w", t.Name, err)
	}
	if r.schema.kind != kindObject || r.schema.ptr {
		return nil, fmt.Errorf("type %s: its document must be a struct", t.Name)
	}
	if t.Names.Pattern != "" {
		if r.pattern, err = regexp.Compile("^(?:" + t.Names.Pattern + ")$"); err != nil {
			return nil, fmt.Errorf("type %s: %w", t.Name, err)
		}
	}
	r.sealed = r.schema.hasSecrets()
	t.erase(r)
	return r, nil
}

// erase wraps the hooks.
func (t *Type[D]) erase(r *resource) {
	typed := func(c change) Change[D] {
		return Change[D]{ID: c.id, Was: document[D](c.was), Want: document[D](c.want), Request: c.req}
	}
	r.admit = func(w World, c change) []*fault.Fault {
		if t.Admit == nil {
			return nil
		}
		return t.Admit(w, typed(c))
	}
	r.apply = func(tx *Tx, c change) error {
		if t.Apply == nil {
			return nil
		}
		return t.Apply(tx, typed(c))
	}
	if t.DeleteJob != nil {
		r.deleteJob = func(c change) job.Spec { return t.DeleteJob(typed(c)) }
	}
	r.view = func(v View, doc reflect.Value) {
		if t.View != nil {
			t.View(v, document[D](doc))
		}
	}
	r.rows, r.beside = eraseRows(t.Rows), eraseRows(t.Beside)
}

func eraseRows[D any](of *Rows[D]) *rows {
	if of == nil {
		return nil
	}
	return &rows{
		get: func(tx *Tx, id name.ResourceID) (reflect.Value, error) {
			d, err := of.Get(tx, id)
			if d == nil || err != nil {
				return reflect.Value{}, err
			}
			return reflect.ValueOf(d), nil
		},
		list: func(tx *Tx, scope name.ResourceID, filter string) ([]found, error) {
			list, err := of.List(tx, scope, filter)
			out := make([]found, len(list))
			for i := range list {
				out[i] = found{list[i].ID, reflect.ValueOf(&list[i].Doc)}
			}
			return out, err
		},
	}
}

// document gives back D's pointer, nil of an invalid Value.
func document[D any](v reflect.Value) *D {
	if !v.IsValid() {
		return nil
	}
	d, _ := v.Interface().(*D)
	return d
}

// fresh is a new document with all defaults.
func (r *resource) fresh() reflect.Value {
	doc := reflect.New(r.doc)
	if err := r.schema.setDefaults(doc.Elem()); err != nil {
		doc.Elem().SetZero()
	}
	return doc
}

func (r *resource) parentType() string {
	if len(r.segments) == 1 {
		return ""
	}
	return r.namespace + "/" + strings.Join(r.segments[:len(r.segments)-1], "/")
}

// path is the type without its namespace: registries/exportPipelines.
func (r *resource) path() string { return strings.Join(r.segments, "/") }

func (r *resource) can(v Verbs) bool { return r.verbs&v != 0 }

// checkName applies the type's rule to the last name of an id that is being created.
func (r *resource) checkName(n string) *fault.Fault {
	low, high := r.names.Min, r.names.Max
	if low == 0 {
		low = 1
	}
	if high == 0 {
		high = 90
	}
	length := utf8.RuneCountInString(n)
	ok := length >= low && length <= high
	switch {
	case r.pattern != nil:
		ok = ok && r.pattern.MatchString(n)
	default:
		ok = ok && strings.Trim(n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.()") == "" && !strings.HasSuffix(n, ".")
	}
	if ok {
		return nil
	}
	text := r.names.Text
	if text == "" {
		text = fmt.Sprintf("It must have %d to %d characters", low, high)
		if r.pattern == nil {
			text += ", letters, digits, '-', '_', '.', '(' and ')', and not end with '.'"
		} else {
			text += " and match " + r.names.Pattern
		}
		text += "."
	}
	return fault.New(fault.InvalidResourceName, "Resource name '%s' is invalid. %s", clip(n), text).At("name")
}

func (s *schema) hasSecrets() bool {
	if s.elem != nil && s.elem.hasSecrets() {
		return true
	}
	return slices.ContainsFunc(s.fields, func(f *field) bool { return f.secret || f.schema.hasSecrets() })
}

// provider is a compiled Namespace.
type provider struct {
	name, display string
	served        served
	types         []*resource // as declared
	actions       []Action
	routes        []Route
}

func compileNamespace(n Namespace) (*provider, error) {
	p := &provider{name: n.Name, display: n.Display, actions: n.Actions, routes: n.Routes}
	if p.display == "" {
		p.display = n.Name
	}
	var err error
	if p.served, err = compileVersions(n.Versions); err != nil {
		return nil, fmt.Errorf("namespace %s: %w", n.Name, err)
	}
	for _, declared := range n.Types {
		r, err := declared.resource()
		if err != nil {
			return nil, err
		}
		if !strings.EqualFold(r.namespace, n.Name) {
			return nil, fmt.Errorf("type %s is declared in the namespace %s", r.name, n.Name)
		}
		r.provider = p
		p.types = append(p.types, r)
	}
	for _, r := range p.types {
		parent := r.parentType()
		if parent != "" && !slices.ContainsFunc(p.types, func(o *resource) bool { return strings.EqualFold(o.name, parent) }) {
			return nil, fmt.Errorf("type %s has no declared parent %s", r.name, parent)
		}
		for _, a := range r.actions {
			if a.body == nil || a.At != AtResource {
				return nil, fmt.Errorf("type %s: the action %s needs Do or Begin, and to be AtResource", r.name, a.Name)
			}
		}
	}
	for _, a := range p.actions {
		if a.body == nil || a.At == AtResource {
			return nil, fmt.Errorf("namespace %s: the action %s needs Do or Begin, and a scope", n.Name, a.Name)
		}
	}
	return p, nil
}

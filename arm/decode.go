// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/embargo-registry/embargo/fault"
)

// decoder merges a request's body into a document. It collects every fault, each at its JSON path.
type decoder struct {
	shape  shape
	patch  bool
	inside bool // written by the engine's own hooks: read-only members are taken too
	action bool // an action's body: it has no envelope of the engine's
	sent   map[string]bool
	faults []*fault.Fault
}

func (d *decoder) refuse(f *fault.Fault) { d.faults = append(d.faults, f) }

func (d *decoder) wrongType(path string, s *schema, got any) {
	d.refuse(invalidContent(path, "a value must be %s and is %s", kindNames[s.kind], describe(got)))
}

func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case json.Number:
		return "the number " + clip(v.String())
	case []any:
		return "an array"
	}
	return "an object"
}

// members matches an object's members to the declared fields, without regard to case, as ARM does. A member given in two casings is refused.
func (d *decoder) members(s *schema, tree map[string]any, path string) map[*field]any {
	given := map[*field]any{}
	for _, key := range sortedKeys(tree) {
		f := s.folded[strings.ToLower(key)]
		if f == nil {
			continue // unknown members are ignored
		}
		if _, twice := given[f]; twice {
			d.refuse(invalidContent(join(path, f.name), "a member is given twice, in two casings"))
			continue
		}
		given[f] = tree[key]
		d.sent[join(path, f.name)] = true
	}
	return given
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// engineOwned are the envelope members that come from the URL and the storage, never from a body.
func engineOwned(path string) bool {
	return path == "id" || path == "name" || path == "type" || path == "systemData"
}

// replace makes dst what PUT says: members that the shape can express come from the tree or get their default, others keep what
// stored has. stored is invalid when there is nothing. absent says that the object itself was omitted: nothing in it is then required.
func (d *decoder) replace(s *schema, tree map[string]any, dst, stored reflect.Value, path string, absent bool) {
	given := d.members(s, tree, path)
	for _, f := range s.fields {
		at, to := join(path, f.name), dst.FieldByIndex(f.index)
		from := reflect.Value{}
		if stored.IsValid() {
			from = stored.FieldByIndex(f.index)
		}
		if !d.action && engineOwned(at) || f.readonly && !d.inside || !f.api.hold(d.shape) {
			f.keepOrDefault(to, from)
			continue
		}
		v, ok := given[f]
		switch {
		case ok && v != nil:
			d.value(f, v, to, from, at)
		case (f.keep || f.immutable) && from.IsValid():
			to.Set(clone(from))
		case f.required && !absent && !f.readonly:
			d.refuse(fault.New(fault.InvalidParameter, "The property '%s' is required.", at).At(at))
		case f.schema.kind == kindObject && !f.schema.ptr:
			d.replace(f.schema, nil, to, from, at, true)
		default:
			f.mustDefault(to)
		}
	}
}

// merge makes of dst, a copy of the stored document, what PATCH says: only members of the tree change (RFC 7396).
func (d *decoder) merge(s *schema, tree map[string]any, dst reflect.Value, path string) {
	given := d.members(s, tree, path)
	for _, f := range s.fields {
		v, ok := given[f]
		at := join(path, f.name)
		if !ok || !d.action && engineOwned(at) || f.nopatch || f.readonly && !d.inside || !f.api.hold(d.shape) {
			continue
		}
		to := dst.FieldByIndex(f.index)
		switch {
		case v == nil && f.required:
			d.refuse(fault.New(fault.InvalidParameter, "The property '%s' is required and cannot be null.", at).At(at))
		case v == nil && f.schema.kind == kindObject && !f.schema.ptr:
			d.replace(f.schema, nil, to, clone(to), at, true)
		case v == nil:
			f.mustDefault(to)
		default:
			d.value(f, v, to, to, at)
		}
	}
}

// keepOrDefault keeps the stored value, or sets the default where nothing is stored.
func (f *field) keepOrDefault(to, from reflect.Value) {
	if from.IsValid() {
		to.Set(clone(from))
		return
	}
	f.mustDefault(to)
}

// mustDefault sets the default; compileTags has proved that it can be set.
func (f *field) mustDefault(to reflect.Value) {
	if err := f.setDefault(to); err != nil {
		to.SetZero()
	}
}

// value reads v, which is not null, into dst under the field's rules. from is the stored value, for what the shape cannot express.
func (d *decoder) value(f *field, v any, dst, from reflect.Value, path string) {
	s := f.schema
	if s.ptr {
		if d.patch && !dst.IsNil() {
			dst.Set(clone(dst))
		} else {
			dst.Set(reflect.New(s.typ.Elem()))
		}
		fresh := !from.IsValid() || from.IsNil()
		dst = dst.Elem()
		if fresh {
			from = reflect.Value{}
		} else {
			from = from.Elem()
		}
	}
	switch s.kind {
	case kindObject:
		tree, ok := v.(map[string]any)
		if !ok {
			d.wrongType(path, s, v)
			return
		}
		if d.patch && from.IsValid() {
			d.merge(s, tree, dst, path)
		} else {
			d.replace(s, tree, dst, from, path, false)
		}
	case kindArray:
		d.array(f, v, dst, from, path)
	case kindMap:
		d.object(f, v, dst, path)
	case kindAny:
		dst.Set(reflect.ValueOf(plain(v)))
	default:
		d.scalar(f, s, v, dst, path)
	}
}

// plain turns the numbers of free JSON into what encoding/json makes of them.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return n
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = plain(v[k])
		}
		return out
	}
	return v
}

// array replaces a list. Elements with the key of a stored element are that element, so that what the shape cannot express survives.
func (d *decoder) array(f *field, v any, dst, from reflect.Value, path string) {
	list, ok := v.([]any)
	if !ok {
		d.wrongType(path, f.schema, v)
		return
	}
	d.bound(f, float64(len(list)), "has %s elements", path)
	elem := f.schema.elem
	out := reflect.MakeSlice(dst.Type(), len(list), len(list))
	whole := *d
	whole.patch = false
	for i, item := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item == nil {
			d.wrongType(at, elem, nil)
			continue
		}
		one := &field{name: f.name, schema: elem, enum: f.enum}
		stored := reflect.Value{}
		if tree, ok := item.(map[string]any); ok && from.IsValid() && elem.kind == kindObject {
			stored = elem.find(from, tree)
		}
		whole.faults = nil
		whole.value(one, item, out.Index(i), stored, at)
		d.faults = append(d.faults, whole.faults...)
	}
	dst.Set(out)
}

// find looks for the stored element whose key members equal the tree's.
func (s *schema) find(list reflect.Value, tree map[string]any) reflect.Value {
	for i := range list.Len() {
		item := list.Index(i)
		v := item
		if s.ptr {
			if item.IsNil() {
				continue
			}
			v = item.Elem()
		}
		keyed, equal := false, true
		for _, f := range s.fields {
			if !f.key || f.schema.kind != kindString || f.schema.ptr {
				continue
			}
			keyed = true
			for name, given := range tree {
				if strings.EqualFold(name, f.name) {
					text, _ := given.(string)
					equal = equal && strings.EqualFold(text, v.FieldByIndex(f.index).String())
				}
			}
		}
		if keyed && equal {
			return item
		}
	}
	return reflect.Value{}
}

// object reads a map. PATCH merges into it, null removes; tags are replaced whole.
func (d *decoder) object(f *field, v any, dst reflect.Value, path string) {
	tree, ok := v.(map[string]any)
	if !ok {
		d.wrongType(path, f.schema, v)
		return
	}
	merging := d.patch && path != "tags" && dst.Len() > 0
	out := reflect.MakeMap(dst.Type())
	if merging {
		for _, k := range dst.MapKeys() {
			out.SetMapIndex(k, dst.MapIndex(k))
		}
	}
	whole := *d
	whole.patch = false
	for _, key := range sortedKeys(tree) {
		at, k := join(path, key), reflect.ValueOf(key).Convert(dst.Type().Key())
		if tree[key] == nil {
			if d.patch {
				out.SetMapIndex(k, reflect.Value{})
			} else if f.schema.elem.ptr || f.schema.elem.kind == kindAny {
				out.SetMapIndex(k, reflect.Zero(dst.Type().Elem()))
			} else {
				d.wrongType(at, f.schema.elem, nil)
			}
			continue
		}
		slot := reflect.New(dst.Type().Elem()).Elem()
		whole.faults = nil
		whole.value(&field{name: key, schema: f.schema.elem, enum: f.enum}, tree[key], slot, reflect.Value{}, at)
		d.faults = append(d.faults, whole.faults...)
		out.SetMapIndex(k, slot)
	}
	d.bound(f, float64(out.Len()), "has %s members", path)
	dst.Set(out)
}

func (d *decoder) scalar(f *field, s *schema, v any, dst reflect.Value, path string) {
	switch s.kind {
	case kindString:
		text, ok := v.(string)
		if !ok {
			d.wrongType(path, s, v)
			return
		}
		if len(f.enum) > 0 {
			if text, ok = d.canonical(f, text, path); !ok {
				return
			}
		}
		d.bound(f, float64(utf8.RuneCountInString(text)), "has %s characters", path)
		if f.required && text == "" {
			d.refuse(fault.New(fault.InvalidParameter, "The property '%s' is required and cannot be empty.", path).At(path))
		}
		dst.SetString(text)
	case kindBool:
		b, ok := v.(bool)
		if !ok {
			d.wrongType(path, s, v)
			return
		}
		dst.SetBool(b)
	case kindInt, kindFloat:
		d.number(f, s, v, dst, path)
	case kindTime:
		text, _ := v.(string)
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || t.Year() < 1 || t.Year() > 9999 {
			d.wrongType(path, s, v)
			return
		}
		dst.Set(reflect.ValueOf(t.UTC()))
	}
}

// canonical finds the declared spelling of an enum's value.
func (d *decoder) canonical(f *field, text, path string) (string, bool) {
	i := slices.IndexFunc(f.enum, func(e string) bool { return enumEqual(e, text) })
	if i < 0 {
		d.refuse(fault.New(fault.InvalidParameter, "The value '%s' of '%s' is none of: %s.", clip(text), path, strings.Join(f.enum, ", ")).At(path))
		return "", false
	}
	return f.enum[i], true
}

// enumEqual compares without regard to case and to the blank after a comma: "SystemAssigned,UserAssigned" is "SystemAssigned, UserAssigned".
func enumEqual(a, b string) bool {
	return strings.EqualFold(strings.ReplaceAll(a, ", ", ","), strings.ReplaceAll(b, ", ", ","))
}

func (d *decoder) number(f *field, s *schema, v any, dst reflect.Value, path string) {
	num, ok := v.(json.Number)
	if !ok {
		d.wrongType(path, s, v)
		return
	}
	x, err := num.Float64()
	if err != nil {
		d.wrongType(path, s, v)
		return
	}
	if s.kind == kindFloat {
		d.bound(f, x, "is %s", path)
		dst.SetFloat(x)
		return
	}
	n, err := strconv.ParseInt(num.String(), 10, 64)
	if err != nil { // 7.0 and 1e2 are integers too
		if x != math.Trunc(x) || math.Abs(x) > 1<<53 {
			d.wrongType(path, s, v)
			return
		}
		n = int64(x)
	}
	d.bound(f, float64(n), "is %s", path)
	dst.SetInt(n)
}

// bound refuses what lies outside min and max.
func (d *decoder) bound(f *field, n float64, is, path string) {
	text := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
	var rule string
	switch {
	case f.min != nil && f.max != nil && (n < *f.min || n > *f.max):
		rule = fmt.Sprintf("between %s and %s", text(*f.min), text(*f.max))
	case f.min != nil && n < *f.min:
		rule = "at least " + text(*f.min)
	case f.max != nil && n > *f.max:
		rule = "at most " + text(*f.max)
	default:
		return
	}
	d.refuse(fault.New(fault.InvalidParameter, "The value of '%s' "+is+"; it must be %s.", path, text(n), rule).At(path))
}

// clone copies a value so deeply that changing one leaves the other alone.
func clone(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(clone(v.Elem()))
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				out.Index(i).Set(clone(v.Index(i)))
			}
		}
	case reflect.Map:
		if !v.IsNil() {
			out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
			for _, k := range v.MapKeys() {
				out.SetMapIndex(k, clone(v.MapIndex(k)))
			}
		}
	case reflect.Struct:
		out.Set(v)
		if v.Type() == timeType {
			break
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(clone(v.Field(i)))
			}
		}
	default: // free JSON is never changed in place
		out.Set(v)
	}
	return out
}

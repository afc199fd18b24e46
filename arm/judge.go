// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"reflect"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/fault"
)

// judge checks a merged document against the rules that the tags state: immutable members, SKU gates, refused members. was is
// invalid on create. It looks at the final state, whatever the request could express.
func (s *schema) judge(was, want reflect.Value) []*fault.Fault {
	sku := ""
	if v := s.lookup(want, "sku.name"); v.IsValid() && v.Kind() == reflect.String {
		sku = v.String()
	}
	var faults []*fault.Fault
	s.judgeObject(was, want, sku, "", &faults)
	return faults
}

func (s *schema) judgeObject(was, want reflect.Value, sku, path string, faults *[]*fault.Fault) {
	for _, f := range s.fields {
		at := join(path, f.name)
		if f.readonly || engineOwned(at) {
			continue
		}
		now := want.FieldByIndex(f.index)
		before := reflect.Value{}
		if was.IsValid() {
			before = was.FieldByIndex(f.index)
		}
		if f.immutable && before.IsValid() && !f.schema.same(before, now) {
			*faults = append(*faults, fault.New(fault.PropertyImmutable,
				"The property '%s' is immutable: it is set when the resource is created and cannot be changed.", at).At(at))
		}
		if f.gated(sku) && !f.isDefault(now) {
			*faults = append(*faults, fault.New(fault.SKUNotSupported, "The property '%s' is not supported for the SKU %s. It needs the SKU %s.",
				at, sku, strings.Join(f.sku, " or ")).At(at))
		}
		if f.stance == "refused" && !f.isDefault(now) {
			text := f.doc
			if text == "" {
				text = "It is accepted only with its default value."
			}
			*faults = append(*faults, fault.New(fault.NotSupported, "The property '%s' is not supported here. %s", at, text).At(at))
		}
		if f.schema.kind == kindObject {
			f.schema.judgeNested(before, now, sku, at, faults)
		}
	}
}

func (s *schema) judgeNested(before, now reflect.Value, sku, at string, faults *[]*fault.Fault) {
	if s.ptr {
		if now.IsNil() {
			return
		}
		now = now.Elem()
		if before.IsValid() && before.IsNil() {
			before = reflect.Value{}
		}
		if before.IsValid() {
			before = before.Elem()
		}
	}
	s.judgeObject(before, now, sku, at, faults)
}

func (f *field) gated(sku string) bool {
	return len(f.sku) > 0 && !slices.ContainsFunc(f.sku, func(s string) bool { return strings.EqualFold(s, sku) })
}

// isDefault reports whether a value is the member's default, its read-only members apart.
func (f *field) isDefault(v reflect.Value) bool {
	def := reflect.New(v.Type()).Elem()
	f.mustDefault(def)
	return f.schema.same(def, v)
}

// same compares two values of the schema, read-only members apart; an empty list or map is as good as none.
func (s *schema) same(a, b reflect.Value) bool {
	if s.ptr {
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		a, b = a.Elem(), b.Elem()
	}
	switch s.kind {
	case kindObject:
		for _, f := range s.fields {
			if !f.readonly && !f.schema.same(a.FieldByIndex(f.index), b.FieldByIndex(f.index)) {
				return false
			}
		}
		return true
	case kindArray:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !s.elem.same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case kindMap:
		if a.Len() != b.Len() {
			return false
		}
		for _, k := range a.MapKeys() {
			if other := b.MapIndex(k); !other.IsValid() || !s.elem.same(a.MapIndex(k), other) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

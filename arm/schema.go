// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is the JSON kind of a member.
type kind int

const (
	kindString kind = iota
	kindBool
	kindInt
	kindFloat
	kindTime
	kindObject
	kindArray
	kindMap
	kindAny
)

var kindNames = map[kind]string{kindString: "a string", kindBool: "a boolean", kindInt: "an integer", kindFloat: "a number",
	kindTime: "an RFC 3339 time", kindObject: "an object", kindArray: "an array", kindMap: "an object", kindAny: "any value"}

// schema is a Go type read as JSON.
type schema struct {
	kind   kind
	ptr    bool // the Go type is a pointer to it
	typ    reflect.Type
	fields []*field // of an object
	elem   *schema  // of an array or map
	folded map[string]*field
}

// field is one member of an object.
type field struct {
	name   string
	index  []int
	schema *schema
	api    ranges

	readonly, required, immutable, nopatch, keep, secret, key, omitEmpty, null, timeZ bool

	def         string
	hasDef      bool
	enum        []string
	min, max    *float64
	sku, shown  []string
	stance, doc string
}

var timeType = reflect.TypeFor[time.Time]()

// compileSchema reads a document's type and its tags. outer guards against types that hold themselves.
func compileSchema(t reflect.Type, outer ...reflect.Type) (*schema, error) {
	s := &schema{typ: t}
	if t.Kind() == reflect.Pointer {
		s.ptr = true
		t = t.Elem()
	}
	if slices.Contains(outer, t) {
		return nil, fmt.Errorf("type %s holds itself", t)
	}
	switch {
	case t == timeType:
		s.kind = kindTime
	case t.Kind() == reflect.String:
		s.kind = kindString
	case t.Kind() == reflect.Bool:
		s.kind = kindBool
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		s.kind = kindInt
	case t.Kind() == reflect.Float64:
		s.kind = kindFloat
	case t.Kind() == reflect.Interface && t.NumMethod() == 0:
		s.kind = kindAny
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		s.kind = kindArray
		if t.Kind() == reflect.Map {
			s.kind = kindMap
		}
		var err error
		if s.elem, err = compileSchema(t.Elem(), append(outer, t)...); err != nil {
			return nil, err
		}
	case t.Kind() == reflect.Struct:
		s.kind = kindObject
		if err := s.compileFields(t, nil, append(outer, t)); err != nil {
			return nil, err
		}
		s.folded = map[string]*field{}
		for _, f := range s.fields {
			low := strings.ToLower(f.name)
			if s.folded[low] != nil {
				return nil, fmt.Errorf("type %s has the member %s twice", t, f.name)
			}
			s.folded[low] = f
		}
	default:
		return nil, fmt.Errorf("type %s cannot be a member", t)
	}
	return s, nil
}

// compileFields adds the fields of struct type t; embedded structs stand in line, as in encoding/json.
func (s *schema) compileFields(t reflect.Type, index []int, outer []reflect.Type) error {
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(slices.Clone(index), i)
		tag, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if sf.Anonymous && tag == "" && sf.Type.Kind() == reflect.Struct {
			if err := s.compileFields(sf.Type, at, outer); err != nil {
				return err
			}
			continue
		}
		if !sf.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			return fmt.Errorf("field %s of %s has no json tag", sf.Name, t)
		}
		f := &field{name: tag, index: at}
		var err error
		if f.schema, err = compileSchema(sf.Type, outer...); err == nil {
			err = f.compileTags(sf.Tag)
		}
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t, sf.Name, err)
		}
		s.fields = append(s.fields, f)
	}
	return nil
}

func (f *field) compileTags(tag reflect.StructTag) error {
	var err error
	if f.api, err = parseRanges(tag.Get("api")); err != nil {
		return err
	}
	flags := map[string]*bool{"readonly": &f.readonly, "required": &f.required, "immutable": &f.immutable, "nopatch": &f.nopatch, "keep": &f.keep,
		"secret": &f.secret, "key": &f.key, "omitempty": &f.omitEmpty, "null": &f.null}
	if text := tag.Get("arm"); text != "" {
		for word := range strings.SplitSeq(text, ",") {
			flag, ok := flags[strings.TrimSpace(word)]
			if !ok {
				return fmt.Errorf("arm tag %q is not known", word)
			}
			*flag = true
		}
	}
	f.def, f.hasDef = tag.Lookup("default")
	f.enum, f.sku, f.shown = alternatives(tag.Get("enum")), alternatives(tag.Get("sku")), alternatives(tag.Get("shown"))
	f.stance, f.doc, f.timeZ = tag.Get("stance"), tag.Get("doc"), tag.Get("time") == "Z"
	if f.stance != "" && f.stance != "acts" && f.stance != "echo" && f.stance != "refused" {
		return fmt.Errorf("stance %q is none of acts, echo, refused", f.stance)
	}
	for key, bound := range map[string]**float64{"min": &f.min, "max": &f.max} {
		if text, ok := tag.Lookup(key); ok {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return fmt.Errorf("%s %q is no number", key, text)
			}
			*bound = &n
		}
	}
	if f.secret && !f.schema.sealable() {
		return fmt.Errorf("only strings, and slices and maps of them, can be secret")
	}
	if f.hasDef {
		if err := f.checkDefault(); err != nil {
			return err
		}
	}
	return nil
}

func alternatives(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "|")
}

// sealable reports whether the member is text, or a list or map of it.
func (s *schema) sealable() bool {
	return s.kind == kindString || (s.kind == kindArray || s.kind == kindMap) && s.elem.kind == kindString && !s.elem.ptr
}

func (f *field) checkDefault() error {
	if len(f.enum) > 0 && f.schema.kind == kindString && !slices.Contains(f.enum, f.def) {
		return fmt.Errorf("default %q is none of %q", f.def, f.enum)
	}
	v := reflect.New(f.schema.typ).Elem()
	return f.setDefault(v)
}

// setDefault gives dst the member's default, recursively.
func (f *field) setDefault(dst reflect.Value) error {
	dst.SetZero()
	s := f.schema
	if !f.hasDef {
		if s.kind == kindObject && !s.ptr {
			return s.setDefaults(dst)
		}
		return nil
	}
	v := dst
	if s.ptr {
		dst.Set(reflect.New(s.typ.Elem()))
		v = dst.Elem()
	}
	var err error
	switch s.kind {
	case kindString:
		v.SetString(f.def)
	case kindBool:
		var b bool
		b, err = strconv.ParseBool(f.def)
		v.SetBool(b)
	case kindInt:
		var n int64
		n, err = strconv.ParseInt(f.def, 10, 64)
		v.SetInt(n)
	case kindFloat:
		var n float64
		n, err = strconv.ParseFloat(f.def, 64)
		v.SetFloat(n)
	case kindObject:
		if f.def != "{}" {
			return fmt.Errorf("the default of an object can only be {}")
		}
		return s.setDefaults(v)
	default:
		return fmt.Errorf("%s has no default", kindNames[s.kind])
	}
	return err
}

// setDefaults gives every member of an object its default.
func (s *schema) setDefaults(dst reflect.Value) error {
	for _, f := range s.fields {
		if err := f.setDefault(dst.FieldByIndex(f.index)); err != nil {
			return err
		}
	}
	return nil
}

// at finds the field at a dotted path, nil when there is none.
func (s *schema) at(path string) *field {
	head, tail, more := strings.Cut(path, ".")
	f := s.folded[strings.ToLower(head)]
	if f == nil || !more {
		return f
	}
	return f.schema.at(tail)
}

// lookup gives the value at a dotted path of document v, the zero Value when a pointer on the way is nil or a member is missing.
func (s *schema) lookup(v reflect.Value, path string) reflect.Value {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return reflect.Value{}
		}
		v = v.Elem()
	}
	head, tail, more := strings.Cut(path, ".")
	f := s.folded[strings.ToLower(head)]
	if f == nil {
		return reflect.Value{}
	}
	v = v.FieldByIndex(f.index)
	if !more {
		return v
	}
	return f.schema.lookup(v, tail)
}

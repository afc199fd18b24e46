// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/fault"
)

// Codec reads and writes the documents of one declared type without an engine: what tests and tools need to see how an
// api-version shows a document, and what a request would make of it. Documents are JSON in the newest shape, secrets in the clear.
type Codec struct {
	r *resource
}

// CodecOf makes the codec of a type of the namespace, by its full name.
func CodecOf(n Namespace, typ string) (*Codec, error) {
	p, err := compileNamespace(n)
	if err != nil {
		return nil, err
	}
	for _, r := range p.types {
		if strings.EqualFold(r.name, typ) {
			return &Codec{r}, nil
		}
	}
	return nil, fmt.Errorf("type %s is not declared in %s", typ, n.Name)
}

// Versions are the api-versions that serve the type, newest first.
func (c *Codec) Versions() []string { return c.r.provider.served.within(c.r.api) }

func (c *Codec) shape(apiVersion string) (shape, error) {
	v, ok := parseVersion(apiVersion)
	if !ok {
		return shape{}, fmt.Errorf("%q is no api-version", apiVersion)
	}
	s, ok := c.r.provider.served.resolve(v)
	if !ok {
		return shape{}, fmt.Errorf("api-version %s is not served", apiVersion)
	}
	return s, nil
}

func (c *Codec) parse(doc []byte) (reflect.Value, error) {
	v := c.r.fresh()
	return v, json.Unmarshal(doc, v.Interface())
}

func (c *Codec) print(v reflect.Value) ([]byte, error) {
	return c.r.schema.encode(&encoder{shape: wholeShape, every: true, secrets: secretsClear}, v)
}

// Whole is the document with the defaults of all members that it lacks.
func (c *Codec) Whole(doc []byte) ([]byte, error) {
	v, err := c.parse(doc)
	if err != nil {
		return nil, err
	}
	return c.print(v)
}

// Show is the document as an answer in the api-version has it, without what View adds.
func (c *Codec) Show(apiVersion string, doc []byte) ([]byte, error) {
	return c.show(apiVersion, doc, secretsHidden)
}

// WriteBack is Show with the secrets in the clear: what a client that knows them sends when it changes nothing.
func (c *Codec) WriteBack(apiVersion string, doc []byte) ([]byte, error) {
	return c.show(apiVersion, doc, secretsClear)
}

func (c *Codec) show(apiVersion string, doc []byte, secrets secrecy) ([]byte, error) {
	s, err := c.shape(apiVersion)
	if err != nil {
		return nil, err
	}
	v, err := c.parse(doc)
	if err != nil {
		return nil, err
	}
	return c.r.schema.encode(&encoder{shape: s, secrets: secrets}, v)
}

// Merge is the document that a PUT, or a PATCH, of body in the api-version makes of the stored one; was is nil on create. Errors are the
// faults of the request, as the engine would answer them before Admit.
func (c *Codec) Merge(apiVersion string, was, body []byte, patch bool) ([]byte, error) {
	s, err := c.shape(apiVersion)
	if err != nil {
		return nil, err
	}
	tree, err := ParseJSON(body)
	if err != nil {
		return nil, err
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return nil, invalidContent("", "the content must be an object and is %s", describe(tree))
	}
	d := &decoder{shape: s, patch: patch, sent: map[string]bool{}}
	want, before := c.r.fresh(), reflect.Value{}
	if was != nil {
		stored, err := c.parse(was)
		if err != nil {
			return nil, err
		}
		before = stored.Elem()
		want.Elem().Set(clone(before))
	}
	if patch {
		d.merge(c.r.schema, object, want.Elem(), "")
	} else {
		d.replace(c.r.schema, object, want.Elem(), before, "", false)
	}
	if len(d.faults) == 0 {
		d.faults = c.r.schema.judge(before, want.Elem())
	}
	if err := fault.Join(d.faults); err != nil {
		return nil, err
	}
	return c.print(want)
}

// Filled is a document in which every member that a client may write has another value than its default, as far as its rules
// allow, for tests of what versions lose. SKU gates are met by the first SKU that every gate allows.
func (c *Codec) Filled() ([]byte, error) {
	v := c.r.fresh()
	c.r.schema.fill(v.Elem(), "")
	if sku := c.r.schema.lookup(v, "sku.name"); sku.IsValid() && sku.Kind() == reflect.String {
		if want := c.r.schema.gates(nil); len(want) > 0 {
			sku.SetString(want[0])
		}
	}
	return c.print(v)
}

// gates are the SKUs that every gate below allows.
func (s *schema) gates(so []string) []string {
	for _, f := range s.fields {
		if len(f.sku) > 0 {
			if so == nil {
				so = slices.Clone(f.sku)
			}
			so = slices.DeleteFunc(so, func(x string) bool { return !slices.Contains(f.sku, x) })
		}
		if f.schema.kind == kindObject {
			so = f.schema.gates(so)
		}
	}
	return so
}

func (s *schema) fill(v reflect.Value, path string) {
	for _, f := range s.fields {
		at := join(path, f.name)
		if f.readonly || engineOwned(at) || f.stance == "refused" {
			continue
		}
		f.fill(v.FieldByIndex(f.index), at)
	}
}

func (f *field) fill(v reflect.Value, at string) {
	s := f.schema
	if s.ptr {
		v.Set(reflect.New(s.typ.Elem()))
		v = v.Elem()
		if s.kind == kindObject {
			_ = s.setDefaults(v) // proved by compileTags
		}
	}
	n := 3.0
	if f.min != nil {
		n = max(n, *f.min)
	}
	if f.max != nil {
		n = min(n, *f.max)
	}
	switch s.kind {
	case kindString:
		text := strings.Repeat("x", int(n))
		if at == "location" {
			text = "westus"
		}
		for i, e := range f.enum {
			if i == 0 || e != f.def {
				text = e
			}
		}
		v.SetString(text)
	case kindBool:
		v.SetBool(f.def != "true")
	case kindInt:
		v.SetInt(int64(n))
	case kindFloat:
		v.SetFloat(n)
	case kindTime:
		v.Set(reflect.ValueOf(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)))
	case kindObject:
		s.fill(v, at)
	case kindArray:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		(&field{schema: s.elem, enum: f.enum}).fill(v.Index(0), at+"[]")
	case kindMap:
		item := reflect.New(v.Type().Elem()).Elem()
		(&field{schema: s.elem, enum: f.enum}).fill(item, at+"{}")
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("x").Convert(v.Type().Key()), item)
	case kindAny:
		v.Set(reflect.ValueOf("x"))
	}
}

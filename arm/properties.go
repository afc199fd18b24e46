// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PropertiesDoc renders the reference page of the declared types: of each property its api-versions, values, default, who may write it,
// and whether it acts, is only echoed, or is refused. A type whose declaration is wrong is named with its error.
func PropertiesDoc(types ...Resource) []byte {
	var b bytes.Buffer
	b.WriteString("# Properties\n\nGenerated from the declarations; do not edit.\n\n" +
		"**acts**: Embargo enforces or performs it. **echo**: it is checked, stored and shown, and changes nothing. **refused**: only its default is accepted.\n")
	for _, t := range types {
		r, err := t.resource()
		if err != nil {
			fmt.Fprintf(&b, "\n## (invalid declaration)\n\n%s\n", err)
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", r.name)
		if r.display != "" {
			fmt.Fprintf(&b, "%s. ", r.display)
		}
		if len(r.api) > 0 {
			fmt.Fprintf(&b, "api-versions `%s`. ", r.api)
		}
		fmt.Fprintf(&b, "Methods: %s.\n\n", strings.Join(r.methods(), ", "))
		b.WriteString("| property | type | default | written | api-versions | stance | what it does |\n|---|---|---|---|---|---|---|\n")
		r.schema.document(&b, "", false, "")
		for _, a := range r.actions {
			fmt.Fprintf(&b, "\nAction `%s %s`, permission `%s`.", a.method(), a.Name, a.right(r.right))
		}
		if len(r.actions) > 0 {
			b.WriteString("\n")
		}
	}
	return b.Bytes()
}

func (r *resource) methods() []string {
	m := []string{"GET", "HEAD"}
	for _, v := range []struct {
		verb Verbs
		name string
	}{{Put, "PUT"}, {Patch, "PATCH"}, {Delete, "DELETE"}, {List, "LIST"}} {
		if r.can(v.verb) {
			m = append(m, v.name)
		}
	}
	return m
}

// document writes the rows of an object's members; a stance and read-only-ness hold for what lies below, unless it says otherwise.
func (s *schema) document(b *bytes.Buffer, path string, readonly bool, stance string) {
	for _, f := range s.fields {
		at := join(path, f.name)
		ro := readonly || f.readonly || engineOwned(at)
		own := f.stance
		if own == "" {
			own = stance
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s | %s | %s |\n", at, f.documentType(), f.documentDefault(ro), f.documentWriting(ro), cell(f.api.String()), own, cell(f.doc))
		inner := f.schema
		for inner.kind == kindArray || inner.kind == kindMap {
			at += map[kind]string{kindArray: "[]", kindMap: ".*"}[inner.kind]
			inner = inner.elem
		}
		if inner.kind == kindObject && at != "systemData" {
			inner.document(b, at, ro, own)
		}
	}
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

func (f *field) documentType() string {
	s, suffix := f.schema, ""
	for s.kind == kindArray || s.kind == kindMap {
		suffix = map[kind]string{kindArray: " (list)", kindMap: " (map)"}[s.kind] + suffix
		s = s.elem
	}
	text := strings.TrimPrefix(strings.TrimPrefix(kindNames[s.kind], "a "), "an ")
	if len(f.enum) > 0 {
		text = "`" + strings.Join(f.enum, "`, `") + "`"
	}
	if f.min != nil || f.max != nil {
		num := func(n *float64) string {
			if n == nil {
				return ""
			}
			return strconv.FormatFloat(*n, 'f', -1, 64)
		}
		text += " " + num(f.min) + "…" + num(f.max)
	}
	return text + suffix
}

func (f *field) documentDefault(readonly bool) string {
	if !f.hasDef || readonly {
		return ""
	}
	return "`" + f.def + "`"
}

func (f *field) documentWriting(readonly bool) string {
	if readonly {
		return "read-only"
	}
	var words []string
	for _, w := range []struct {
		on   bool
		text string
	}{{f.required, "required"}, {f.immutable, "at create only"}, {f.nopatch, "not by PATCH"}, {f.keep, "kept when a PUT omits it"}, {f.secret, "secret"}} {
		if w.on {
			words = append(words, w.text)
		}
	}
	if len(f.sku) > 0 {
		words = append(words, "needs "+strings.Join(f.sku, " or "))
	}
	if len(words) == 0 {
		return "yes"
	}
	return strings.Join(words, ", ")
}

// Unsaid are the writable leaf properties of the types for which the declarations state no stance, as type#path.
func Unsaid(types ...Resource) []string {
	var out []string
	for _, t := range types {
		r, err := t.resource()
		if err != nil {
			continue
		}
		r.schema.unsaid(r.name+"#", "", "", &out)
	}
	slices.Sort(out)
	return out
}

func (s *schema) unsaid(prefix, path, stance string, out *[]string) {
	for _, f := range s.fields {
		at := join(path, f.name)
		own := f.stance
		if own == "" {
			own = stance
		}
		if f.readonly || engineOwned(at) {
			continue
		}
		inner := f.schema
		for inner.kind == kindArray || inner.kind == kindMap {
			inner = inner.elem
		}
		if inner.kind == kindObject {
			inner.unsaid(prefix, at, own, out)
		} else if own == "" && at != "location" && at != "tags" {
			*out = append(*out, prefix+at)
		}
	}
}

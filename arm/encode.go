// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// secrecy is what an encoder does with secret members.
type secrecy int

const (
	secretsHidden secrecy = iota // answers: not written
	secretsNamed                 // audit records: "(secret)" in the place of each text
	secretsSealed                // storage
	secretsClear                 // hooks' own reading
)

// encoder writes a document in the order of its fields.
type encoder struct {
	buf     bytes.Buffer
	shape   shape
	sku     string
	every   bool // storage: `shown` gates and null are of no account
	secrets secrecy
	seal    func(path, text string) (string, error)
	err     error
}

// encode writes document v (a struct or a pointer to one).
func (s *schema) encode(e *encoder, v reflect.Value) ([]byte, error) {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if sku := s.lookup(v, "sku.name"); sku.IsValid() && sku.Kind() == reflect.String {
		e.sku = sku.String()
	}
	if s.kind == kindObject {
		e.object(s, v, "")
	} else {
		e.plain(&field{schema: s}, v, "")
	}
	return e.buf.Bytes(), e.err
}

func (e *encoder) object(s *schema, v reflect.Value, path string) {
	e.buf.WriteByte('{')
	first := true
	for _, f := range s.fields {
		fv := v.FieldByIndex(f.index)
		if e.omits(f, fv) {
			continue
		}
		if !first {
			e.buf.WriteByte(',')
		}
		first = false
		e.text(f.name)
		e.buf.WriteByte(':')
		e.value(f, fv, join(path, f.name))
	}
	e.buf.WriteByte('}')
}

func (e *encoder) omits(f *field, v reflect.Value) bool {
	if !f.api.hold(e.shape) || f.secret && e.secrets == secretsHidden {
		return true
	}
	if !e.every && len(f.shown) > 0 && !slices.ContainsFunc(f.shown, func(s string) bool { return strings.EqualFold(s, e.sku) }) {
		return true
	}
	if f.schema.ptr && v.IsNil() || f.schema.kind == kindAny && v.IsNil() {
		return e.every || !f.null
	}
	if f.schema.kind == kindTime && !f.schema.ptr && v.IsZero() {
		return true
	}
	if !f.omitEmpty {
		return false
	}
	if (f.schema.kind == kindArray || f.schema.kind == kindMap) && !f.schema.ptr {
		return v.Len() == 0
	}
	return v.IsZero()
}

func (e *encoder) value(f *field, v reflect.Value, path string) {
	s := f.schema
	if s.ptr {
		if v.IsNil() {
			e.buf.WriteString("null")
			return
		}
		v = v.Elem()
	}
	switch s.kind {
	case kindObject:
		e.object(s, v, path)
	case kindArray:
		e.buf.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				e.buf.WriteByte(',')
			}
			e.value(&field{schema: s.elem, secret: f.secret, timeZ: f.timeZ}, v.Index(i), fmt.Sprintf("%s[]", path))
		}
		e.buf.WriteByte(']')
	case kindMap:
		e.object2(f, v, path)
	default:
		e.plain(f, v, path)
	}
}

// object2 writes a map, its keys sorted.
func (e *encoder) object2(f *field, v reflect.Value, path string) {
	keys := make([]string, 0, v.Len())
	for _, k := range v.MapKeys() {
		keys = append(keys, k.String())
	}
	slices.Sort(keys)
	e.buf.WriteByte('{')
	for i, k := range keys {
		if i > 0 {
			e.buf.WriteByte(',')
		}
		e.text(k)
		e.buf.WriteByte(':')
		e.value(&field{schema: f.schema.elem, secret: f.secret, timeZ: f.timeZ},
			v.MapIndex(reflect.ValueOf(k).Convert(v.Type().Key())), path+"{}")
	}
	e.buf.WriteByte('}')
}

func (e *encoder) plain(f *field, v reflect.Value, path string) {
	switch f.schema.kind {
	case kindString:
		e.string(f, v.String(), path)
	case kindBool:
		e.buf.WriteString(strconv.FormatBool(v.Bool()))
	case kindInt:
		e.buf.WriteString(strconv.FormatInt(v.Int(), 10))
	case kindTime:
		t, _ := v.Interface().(time.Time)
		e.text(formatTime(t, f.timeZ))
	default:
		data, err := marshal(v.Interface())
		if err != nil {
			e.err = err
			data = []byte("null")
		}
		e.buf.Write(data)
	}
}

func (e *encoder) string(f *field, text, path string) {
	if f.secret && text != "" {
		switch e.secrets {
		case secretsNamed:
			text = "(secret)"
		case secretsSealed:
			sealed, err := e.seal(path, text)
			if err != nil {
				e.err = err
			}
			text = sealed
		}
	}
	e.text(text)
}

func (e *encoder) text(s string) {
	data, err := marshal(s)
	if err != nil {
		e.err = err
	}
	e.buf.Write(data)
}

// marshal is json.Marshal without the escaping of <, > and &.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}

// formatTime writes a time as ACR does: seven digits of fraction, and +00:00, or Z where the member says so.
func formatTime(t time.Time, z bool) string {
	text := t.UTC().Format("2006-01-02T15:04:05.0000000")
	if z {
		return text + "Z"
	}
	return text + "+00:00"
}

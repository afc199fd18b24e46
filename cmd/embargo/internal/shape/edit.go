// SPDX-License-Identifier: Apache-2.0

// Package shape works on resources as plain JSON values: it applies the --set, --add and --remove arguments of Azure's
// command line, gives a resource the members that command line prints, and writes json, yaml, tsv and tables.
//
// It knows no server. It refuses a path that does not lead to something that exists, and says what does.
package shape

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Edit is one argument that changes a resource. Words are what followed the flag.
type Edit struct {
	Op    Op
	Words []string
}

// Op is the kind of an Edit.
type Op string

// The kinds: set "path=value", add to the list at a path, remove a member or a list's element.
const (
	Set    Op = "set"
	Add    Op = "add"
	Remove Op = "remove"
)

// Apply makes the edits in their order. texts keeps every value as the string it was written as.
func Apply(doc map[string]any, edits []Edit, texts bool) error {
	for _, e := range edits {
		var err error
		switch e.Op {
		case Set:
			for _, w := range e.Words {
				if err = set(doc, w, texts); err != nil {
					break
				}
			}
		case Add:
			err = add(doc, e.Words, texts)
		case Remove:
			err = remove(doc, e.Words)
		default:
			err = fmt.Errorf("there is no edit %q", e.Op)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func set(doc map[string]any, word string, texts bool) error {
	path, value, ok := cut(word)
	if !ok || path == "" {
		return fmt.Errorf("usage: --set property1.property2=value: %q has no value", word)
	}
	steps, err := split(path)
	if err != nil {
		return err
	}
	return at(doc, steps, func(holder any, last step) (any, error) {
		if list, ok := holder.([]any); ok {
			i, err := last.index(list)
			if err != nil {
				return nil, err
			}
			list[i] = parse(value, texts)
			return list, nil
		}
		m := holder.(map[string]any)
		m[member(m, last.text)] = parse(value, texts)
		return m, nil
	})
}

// cut splits "path=value" at the first equals sign that is not within brackets.
func cut(word string) (path, value string, ok bool) {
	depth := 0
	for i, c := range []byte(word) {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == '=' && depth <= 0:
			return word[:i], word[i+1:], true
		}
	}
	return word, "", false
}

func add(doc map[string]any, words []string, texts bool) error {
	if len(words) < 2 {
		return fmt.Errorf("usage: --add property.listProperty <key=value, string or JSON string>")
	}
	steps, err := split(words[0])
	if err != nil {
		return err
	}
	return at(doc, steps, func(holder any, last step) (any, error) {
		m, ok := holder.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("--add: %q is not a member of an object", words[0])
		}
		key := member(m, last.text)
		list, ok := m[key].([]any)
		if !ok && m[key] != nil {
			return nil, fmt.Errorf("--add: %q is not a list", words[0])
		}
		pairs := map[string]any{}
		for _, w := range words[1:] {
			k, v, ok := strings.Cut(w, "=")
			if ok && k != "" && !strings.ContainsAny(w[:1], `{["`) {
				pairs[k] = parse(v, texts)
				continue
			}
			list = append(list, parse(w, texts))
		}
		if len(pairs) > 0 {
			list = append(list, pairs)
		}
		m[key] = list
		return m, nil
	})
}

func remove(doc map[string]any, words []string) error {
	if len(words) == 0 || len(words) > 2 {
		return fmt.Errorf("usage: --remove property.listProperty <indexToRemove> OR --remove propertyToRemove")
	}
	path := words[0]
	if len(words) == 2 {
		path += "[" + words[1] + "]"
	}
	steps, err := split(path)
	if err != nil {
		return err
	}
	return at(doc, steps, func(holder any, last step) (any, error) {
		if list, ok := holder.([]any); ok {
			i, err := last.index(list)
			if err != nil {
				return nil, err
			}
			return slices.Delete(list, i, i+1), nil
		}
		m := holder.(map[string]any)
		key := member(m, last.text)
		if _, ok := m[key]; !ok {
			return nil, missing(m, last.text)
		}
		delete(m, key)
		return m, nil
	})
}

// step is a member's name, or an index of a list when list is set.
type step struct {
	text string
	list bool
}

func (s step) index(list []any) (int, error) {
	if k, v, ok := strings.Cut(s.text, "="); ok {
		for i, e := range list {
			if m, ok := e.(map[string]any); ok && fmt.Sprint(m[k]) == v {
				return i, nil
			}
		}
		return 0, fmt.Errorf("no element of the list has %s", s.text)
	}
	i, err := strconv.Atoi(s.text)
	if err != nil {
		return 0, fmt.Errorf("%q is not an index of a list", s.text)
	}
	if i < 0 {
		i += len(list)
	}
	if i < 0 || i >= len(list) {
		return 0, fmt.Errorf("the index %s is outside the list of %d", s.text, len(list))
	}
	return i, nil
}

// split takes "a.b[0].c" apart. A dot may be escaped by a backslash, and a name with dots may stand in "['…']".
func split(path string) ([]step, error) {
	var steps []step
	var name strings.Builder
	flush := func() error {
		if name.Len() == 0 {
			return fmt.Errorf("%q is not a path of members", path)
		}
		steps = append(steps, step{text: name.String()})
		name.Reset()
		return nil
	}
	for i := 0; i < len(path); i++ {
		switch c := path[i]; c {
		case '\\':
			if i+1 == len(path) {
				return nil, fmt.Errorf("%q ends in a backslash", path)
			}
			i++
			name.WriteByte(path[i])
		case '.':
			if name.Len() == 0 && i > 0 && path[i-1] == ']' {
				continue
			}
			if err := flush(); err != nil {
				return nil, err
			}
		case '[':
			if name.Len() > 0 {
				if err := flush(); err != nil {
					return nil, err
				}
			}
			end := strings.IndexByte(path[i:], ']')
			if end < 2 {
				return nil, fmt.Errorf("%q has an unclosed or empty bracket", path)
			}
			inner := path[i+1 : i+end]
			i += end
			if q := inner[0]; (q == '\'' || q == '"') && len(inner) > 2 && inner[len(inner)-1] == q {
				steps = append(steps, step{text: inner[1 : len(inner)-1]})
				continue
			}
			steps = append(steps, step{text: inner, list: true})
		default:
			name.WriteByte(c)
		}
	}
	if name.Len() > 0 {
		if err := flush(); err != nil {
			return nil, err
		}
	} else if len(steps) == 0 || strings.HasSuffix(path, ".") {
		return nil, fmt.Errorf("%q is not a path of members", path)
	}
	return steps, nil
}

// at walks to the holder of the last step and replaces it by what change makes of it.
func at(holder any, steps []step, change func(holder any, last step) (any, error)) error {
	_, err := walk(holder, steps, change)
	return err
}

func walk(holder any, steps []step, change func(any, step) (any, error)) (any, error) {
	s := steps[0]
	switch h := holder.(type) {
	case map[string]any:
		if s.list {
			return nil, fmt.Errorf("[%s] is asked of an object", s.text)
		}
		if len(steps) == 1 {
			return change(h, s)
		}
		key := member(h, s.text)
		next, ok := h[key]
		if !ok {
			return nil, missing(h, s.text)
		}
		if next == nil && !steps[1].list {
			next = map[string]any{}
		}
		changed, err := walk(next, steps[1:], change)
		if err != nil {
			return nil, err
		}
		h[key] = changed
		return h, nil
	case []any:
		if len(steps) == 1 {
			return change(h, s)
		}
		i, err := s.index(h)
		if err != nil {
			return nil, err
		}
		h[i], err = walk(h[i], steps[1:], change)
		return h, err
	}
	return nil, fmt.Errorf("couldn't find '%s': what is there has no members", s.text)
}

// member is the name under which m holds what the user wrote, whose case may differ.
func member(m map[string]any, name string) string {
	if _, ok := m[name]; ok {
		return name
	}
	for k := range m {
		if strings.EqualFold(k, name) {
			return k
		}
	}
	return name
}

func missing(m map[string]any, name string) error {
	return fmt.Errorf("couldn't find '%s'. Available options: %s", name, strings.Join(slices.Sorted(maps.Keys(m)), ", "))
}

// parse takes a value as JSON when it is JSON, and as text when it is not.
func parse(s string, texts bool) any {
	if texts {
		return s
	}
	v, err := Decode([]byte(s))
	if err != nil {
		return s
	}
	return v
}

// Decode reads one JSON value and keeps its numbers as they are written.
func Decode(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("there is more than one JSON value")
	}
	return v, nil
}

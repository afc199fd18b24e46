// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// Filter is a parsed $filter of a list of resources. The nil Filter holds everything.
type Filter struct {
	op    string // or, and, eq, ne
	kids  []*Filter
	field string // lower-case
	value string
}

// filterFields are what a resource can be chosen by. Source: ARM, "Resources - List", parameter $filter.
var filterFields = map[string]bool{"resourcetype": true, "resourcegroup": true, "name": true, "location": true, "tagname": true, "tagvalue": true}

// ParseFilter reads the grammar of ARM's resource lists: comparisons (eq, ne) of resourceType, resourceGroup, name, location, tagName and
// tagValue with a quoted text, joined by and, or and parentheses. Anything else is refused with InvalidParameter. "" is nil.
func ParseFilter(text string) (*Filter, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if len(text) > 4096 {
		return nil, badFilter(text, "it is too long")
	}
	p := &filterParser{text: text, rest: text}
	f, err := p.either(0)
	if err == nil && p.peek() != "" {
		err = badFilter(text, "'"+clip(p.peek())+"' is not understood")
	}
	return f, err
}

func badFilter(text, why string) *fault.Fault {
	return fault.New(fault.InvalidParameter,
		"The $filter '%s' is not supported: %s. Supported are comparisons (eq, ne) of resourceType, resourceGroup, name, location, tagName and tagValue with a quoted text, joined by and, or and parentheses.",
		clip(text), why).At("$filter")
}

type filterParser struct{ text, rest string }

// peek is the next token: a word, a parenthesis, or a quoted text with its quotes; "" at the end.
func (p *filterParser) peek() string {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	switch {
	case p.rest == "":
		return ""
	case p.rest[0] == '(' || p.rest[0] == ')':
		return p.rest[:1]
	case p.rest[0] == '\'':
		for i := 1; i < len(p.rest); i++ {
			if p.rest[i] != '\'' {
				continue
			}
			if i+1 < len(p.rest) && p.rest[i+1] == '\'' {
				i++
				continue
			}
			return p.rest[:i+1]
		}
		return p.rest
	}
	if i := strings.IndexAny(p.rest, " \t\r\n()'"); i > 0 {
		return p.rest[:i]
	}
	return p.rest
}

func (p *filterParser) take() string {
	token := p.peek()
	p.rest = p.rest[len(token):]
	return token
}

func (p *filterParser) either(depth int) (*Filter, error) {
	return p.joined("or", func() (*Filter, error) {
		return p.joined("and", func() (*Filter, error) { return p.term(depth) })
	})
}

func (p *filterParser) joined(word string, next func() (*Filter, error)) (*Filter, error) {
	first, err := next()
	if err != nil {
		return nil, err
	}
	all := &Filter{op: word, kids: []*Filter{first}}
	for strings.EqualFold(p.peek(), word) {
		p.take()
		kid, err := next()
		if err != nil {
			return nil, err
		}
		all.kids = append(all.kids, kid)
	}
	if len(all.kids) == 1 {
		return first, nil
	}
	return all, nil
}

func (p *filterParser) term(depth int) (*Filter, error) {
	if p.peek() == "(" {
		if depth > 16 {
			return nil, badFilter(p.text, "it is nested too deeply")
		}
		p.take()
		f, err := p.either(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.take() != ")" {
			return nil, badFilter(p.text, "a parenthesis is not closed")
		}
		return f, nil
	}
	field, op, value := p.take(), strings.ToLower(p.take()), p.take()
	if !filterFields[strings.ToLower(field)] {
		return nil, badFilter(p.text, "'"+clip(field)+"' is no property that it can compare")
	}
	if op != "eq" && op != "ne" {
		return nil, badFilter(p.text, "'"+clip(op)+"' is neither eq nor ne")
	}
	if len(value) < 2 || value[0] != '\'' || value[len(value)-1] != '\'' {
		return nil, badFilter(p.text, "'"+clip(field)+"' is not compared with a quoted text")
	}
	return &Filter{op: op, field: strings.ToLower(field), value: strings.ReplaceAll(value[1:len(value)-1], "''", "'")}, nil
}

// Only is the one resource type that a filter can match, "" when it is not bound to one.
func (f *Filter) Only() string {
	if f == nil {
		return ""
	}
	if f.op == "eq" && f.field == "resourcetype" {
		return f.value
	}
	if f.op == "and" {
		for _, k := range f.kids {
			if t := k.Only(); t != "" {
				return t
			}
		}
	}
	return ""
}

// Match reports whether a resource with these tags and location fits. A tagName and a tagValue that are joined by "and" speak of one tag.
func (f *Filter) Match(id name.ResourceID, location string, tags map[string]string) bool {
	if f == nil {
		return true
	}
	switch f.op {
	case "or":
		for _, k := range f.kids {
			if k.Match(id, location, tags) {
				return true
			}
		}
		return false
	case "and":
		return f.matchAll(id, location, tags)
	}
	return f.compare(id, location, tags) == (f.op == "eq")
}

func (f *Filter) matchAll(id name.ResourceID, location string, tags map[string]string) bool {
	var tagName, tagValue *Filter
	for _, k := range f.kids {
		switch {
		case k.op == "eq" && k.field == "tagname":
			tagName = k
		case k.op == "eq" && k.field == "tagvalue":
			tagValue = k
		}
		if !k.Match(id, location, tags) {
			return false
		}
	}
	if tagName == nil || tagValue == nil {
		return true
	}
	for k, v := range tags {
		if strings.EqualFold(k, tagName.value) && v == tagValue.value {
			return true
		}
	}
	return false
}

func (f *Filter) compare(id name.ResourceID, location string, tags map[string]string) bool {
	switch f.field {
	case "resourcetype":
		return strings.EqualFold(id.Type(), f.value)
	case "resourcegroup":
		return strings.EqualFold(id.ResourceGroup(), f.value)
	case "name":
		return strings.EqualFold(id.Name(), f.value)
	case "location":
		return normalLocation(location) == normalLocation(f.value)
	}
	for k, v := range tags {
		if f.field == "tagname" && strings.EqualFold(k, f.value) || f.field == "tagvalue" && v == f.value {
			return true
		}
	}
	return false
}

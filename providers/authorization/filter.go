// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/fault"
)

// filter is a parsed $filter of this namespace's lists: terms that all hold. A term is "field eq 'text'", "function()" or "function('text')".
type filter map[string]string

// parseFilter reads a filter. allowed names the fields, and the functions with "()". Anything else is refused with InvalidParameter: a term
// that is passed over would list more than was asked.
func parseFilter(text string, allowed ...string) (filter, error) {
	f := filter{}
	rest := strings.TrimSpace(text)
	for rest != "" {
		key, value, after, ok := term(rest)
		i := slices.IndexFunc(allowed, func(a string) bool { return strings.EqualFold(a, key) })
		if !ok || i < 0 {
			return nil, badFilter(text, allowed)
		}
		if was, twice := f[allowed[i]]; twice && was != value {
			return nil, badFilter(text, allowed)
		}
		f[allowed[i]] = value
		if after == "" {
			return f, nil
		}
		word, next, _ := strings.Cut(after, " ")
		if rest = strings.TrimSpace(next); !strings.EqualFold(word, "and") || rest == "" {
			return nil, badFilter(text, allowed)
		}
	}
	return f, nil
}

// term reads one term and gives what follows it.
func term(text string) (key, value, rest string, ok bool) {
	end := strings.IndexAny(text, " (")
	if end <= 0 {
		return "", "", "", false
	}
	key = text[:end]
	if text[end] == ' ' {
		op, after, found := strings.Cut(strings.TrimLeft(text[end:], " "), " ")
		if !found || !strings.EqualFold(op, "eq") {
			return "", "", "", false
		}
		value, rest, ok = quoted(strings.TrimLeft(after, " "))
		return key, value, strings.TrimSpace(rest), ok
	}
	inside := strings.TrimLeft(text[end+1:], " ")
	if !strings.HasPrefix(inside, ")") {
		if value, inside, ok = quoted(inside); !ok {
			return "", "", "", false
		}
		inside = strings.TrimLeft(inside, " ")
	}
	rest, ok = strings.CutPrefix(inside, ")")
	return key + "()", value, strings.TrimSpace(rest), ok
}

// quoted reads a text in single quotes, in which a doubled quote is one.
func quoted(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, "'") {
		return "", "", false
	}
	for i := 1; i < len(text); i++ {
		if text[i] != '\'' {
			continue
		}
		if i+1 < len(text) && text[i+1] == '\'' {
			i++
			continue
		}
		return strings.ReplaceAll(text[1:i], "''", "'"), text[i+1:], true
	}
	return "", "", false
}

func badFilter(text string, allowed []string) *fault.Fault {
	return fault.New(fault.InvalidParameter, "The $filter '%s' is not supported. Supported are terms joined by 'and', each \"field eq 'text'\" or a function, of: %s.",
		clip(text), strings.Join(allowed, ", ")).At("$filter")
}

// has reports whether the filter has a term.
func (f filter) has(key string) bool { _, ok := f[key]; return ok }

// matches reports whether a value passes the term of a key, if there is one. A function without a text holds of everything.
func (f filter) matches(key, value string) bool {
	want, ok := f[key]
	return !ok || want == "" && strings.HasSuffix(key, "()") || strings.EqualFold(want, value)
}

// clip makes a client's text fit for a message.
func clip(s string) string {
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

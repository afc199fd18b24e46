// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"testing"

	"github.com/embargo-registry/embargo/fault"
)

func TestParseFilter(t *testing.T) {
	allowed := []string{"roleName", "type", "atScope()", "assignedTo()"}
	for _, c := range []struct {
		in   string
		want filter
	}{
		{"", filter{}},
		{"  ", filter{}},
		{"rolename EQ 'AcrPull'", filter{"roleName": "AcrPull"}},
		{"roleName  eq  'it''s'", filter{"roleName": "it's"}},
		{"atScope()", filter{"atScope()": ""}},
		{"atScope( ) and assignedTo( 'x' ) and type eq 'CustomRole'", filter{"atScope()": "", "assignedTo()": "x", "type": "CustomRole"}},
		{"roleName eq 'a and b'", filter{"roleName": "a and b"}},
	} {
		got, err := parseFilter(c.in, allowed...)
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%q: %v, %v", c.in, got, err)
		}
		for k, v := range c.want {
			if got[k] != v || !got.has(k) {
				t.Errorf("%q: %v, want %v", c.in, got, c.want)
			}
		}
	}
	for _, in := range []string{"x", "x eq 'y'", "roleName", "roleName eq", "roleName eq AcrPull", "roleName eq 'a", "roleName ne 'a'", "atScope(", "atScope", "atScope() or type eq 'x'",
		"roleName eq 'a' and", "and", "roleName eq 'a' type eq 'b'", "type eq 'a' and type eq 'b'", "()", "roleName()"} {
		if got, err := parseFilter(in, allowed...); !fault.Is(err, fault.InvalidParameter) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

// Whatever the text, the answer is a filter of allowed terms, or InvalidParameter.
func FuzzParseFilter(f *testing.F) {
	f.Add("atScope() and principalId eq 'x'")
	f.Add("assignedTo('it''s')")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFilter(text, "principalId", "assignedTo()", "atScope()")
		if err != nil && !fault.Is(err, fault.InvalidParameter) {
			t.Error(err)
		}
		for k := range got {
			if k != "principalId" && k != "assignedTo()" && k != "atScope()" {
				t.Errorf("%q: %v", text, got)
			}
		}
	})
}

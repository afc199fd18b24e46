// SPDX-License-Identifier: Apache-2.0

package webhook

import "testing"

func TestScope(t *testing.T) {
	for _, c := range []struct {
		scope, repository string
		tags              []string
		covers            bool
	}{
		{"", "app", nil, true},
		{"", "app", []string{"v1"}, true},
		{"app:*", "app", []string{"v1"}, true},
		{"app:*", "app", nil, true},
		{"app:*", "app/web", []string{"v1"}, false},
		{"app:v1", "app", []string{"v1"}, true},
		{"app:v1", "app", []string{"v2", "v1"}, true},
		{"app:v1", "app", []string{"v10"}, false},
		{"app:v1", "app", nil, false},
		{"app:v1*", "app", []string{"v10"}, true},
		{"app:v1*", "app", nil, false},
		{"app", "app", []string{"latest"}, true},
		{"app", "app", []string{"v1"}, false},
		{"team/*", "team/app", []string{"v1"}, true},
		{"team/*", "team/app", nil, true},
		{"team/*", "teams/app", []string{"v1"}, false},
		{"team/*:v1", "team/app", []string{"v2"}, false},
	} {
		if got := parseScope(c.scope).covers(c.repository, c.tags); got != c.covers {
			t.Errorf("%q covers %s %v: %v", c.scope, c.repository, c.tags, got)
		}
	}
	for text, good := range map[string]bool{"": true, "app": true, "app:*": true, "app:v1": true, "team/*": true, "*": true, "a/b*:1.*": true,
		"App": false, "app:": false, "app:v 1": false, "a*b": false, "app:*1": false, ":v1": false, "app@sha256:1": false} {
		if err := CheckScope(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

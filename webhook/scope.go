// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// scope says which names a webhook hears of. Source: ACR, "webhook scope": foo:* is every tag of foo, foo:bar that tag, foo is foo:latest, the empty
// scope is everything. A star at the end of the repository's or the tag's part stands for any rest.
type scope struct{ repository, tag string }

func parseScope(text string) scope {
	repository, tag, tagged := strings.Cut(text, ":")
	switch {
	case text == "":
		return scope{"*", "*"}
	case tagged:
	case strings.HasSuffix(repository, "*"):
		tag = "*"
	default:
		tag = "latest"
	}
	return scope{repository, tag}
}

// covers reports whether the scope holds a repository under one of the tags; what has no tag is in the scopes of every tag alone.
func (s scope) covers(repository string, tags []string) bool {
	if !fits(s.repository, repository) {
		return false
	}
	if s.tag == "*" {
		return true
	}
	for _, t := range tags {
		if fits(s.tag, t) {
			return true
		}
	}
	return false
}

func fits(pattern, text string) bool {
	if start, open := strings.CutSuffix(pattern, "*"); open {
		return strings.HasPrefix(text, start)
	}
	return pattern == text
}

// CheckScope tells whether a text is a scope. Errors: InvalidParameter.
func CheckScope(text string) error {
	if text == "" {
		return nil
	}
	s := parseScope(text)
	// A pattern is right when it is a name with something in the place of its star.
	repository, tag := s.repository, s.tag
	if start, open := strings.CutSuffix(repository, "*"); open {
		repository = start + "a"
	}
	if start, open := strings.CutSuffix(tag, "*"); open {
		tag = start + "a"
	}
	_, err := name.ParseRepository(repository)
	if err == nil {
		_, err = name.ParseTag(tag)
	}
	if err != nil {
		return fault.New(fault.InvalidParameter,
			"The scope %.200q names no repository or tag. It is empty, or one of the forms repository:tag, repository:* and repository (which is repository:latest); either part may end in '*'.", text).
			At("properties.scope").Because(err)
	}
	return nil
}

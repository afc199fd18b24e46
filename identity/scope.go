// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/name"
)

// Access is one scope of a registry token. Source: distribution token specification, "access" claim; ACR adds verbs of its own.
type Access struct {
	// Type is repository, registry or artifact-repository.
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// Verb is what a token scope can ask on a repository.
type Verb string

// The verbs of token scopes that rights stand behind.
const (
	Pull          Verb = "pull"
	Push          Verb = "push"
	Delete        Verb = "delete"
	MetadataRead  Verb = "metadata_read"
	MetadataWrite Verb = "metadata_write"
	// DeletedRead and DeletedRestore are of what was deleted for a while.
	DeletedRead    Verb = "deleted_read"
	DeletedRestore Verb = "deleted_restore"
)

// verbs in the order in which a granted "*" lists them.
var verbs = []Verb{Pull, Push, Delete, MetadataRead, MetadataWrite}

// maxScopes is how many scopes one token may be asked for.
const maxScopes = 100

// ParseScopes reads the values of scope parameters: each holds one or more scopes separated by blanks, "type:name:action,action". What it can't
// read, or would be no repository, is left out, as the token specification has it: the token then simply lacks it.
func ParseScopes(values []string) []Access {
	var all []Access
	for _, v := range values {
		for _, one := range strings.Fields(v) {
			a, ok := parseScope(one)
			if ok && len(all) < maxScopes {
				all = append(all, a)
			}
		}
	}
	return all
}

func parseScope(s string) (Access, bool) {
	typ, rest, ok := strings.Cut(s, ":")
	i := strings.LastIndexByte(rest, ':')
	if !ok || i < 0 {
		return Access{}, false
	}
	a := Access{Type: typ, Name: rest[:i]}
	for action := range strings.SplitSeq(rest[i+1:], ",") {
		if action != "" && len(action) <= 32 && !slices.Contains(a.Actions, action) {
			a.Actions = append(a.Actions, action)
		}
	}
	switch typ {
	case "repository":
		if _, err := name.ParseRepository(a.Name); err != nil {
			return Access{}, false
		}
	case "registry":
		if a.Name != "catalog" && a.Name != "deleted_catalog" {
			return Access{}, false
		}
	default:
		return Access{}, false
	}
	return a, len(a.Actions) > 0
}

// Within reports whether the scope of the caller's token, if it has one, leaves room for a verb on a repository. The right to it is another question.
func (c Caller) Within(repo name.Repository, verb Verb) bool {
	return narrowedTo(c, "repository", string(repo), string(verb))
}

// narrowedTo reports whether a token's own scope leaves room for an action.
func narrowedTo(c Caller, typ, name, action string) bool {
	if !c.Narrowed {
		return true
	}
	for _, a := range c.Access {
		if a.Type == typ && a.Name == name && (slices.Contains(a.Actions, action) || slices.Contains(a.Actions, "*")) {
			return true
		}
	}
	return false
}

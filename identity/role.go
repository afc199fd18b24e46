// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"slices"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/name"
)

// Role is a set of permissions. Source: Azure RBAC, "Understand Azure role definitions".
type Role struct {
	// ID is the role definition's GUID; a built-in role has the same everywhere.
	ID, Name, Description string
	Permissions           []Permission
	// Scopes are where it may be assigned; "/" is everywhere.
	Scopes  []string
	BuiltIn bool
	// Created and Updated are zero for built-in roles.
	Created, Updated time.Time
}

// Permission allows Actions less NotActions on the control plane, and DataActions less NotDataActions on content. '*' stands for any text.
type Permission struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
}

// assignable reports whether the role may be given at a scope.
func (r Role) assignable(scope name.ResourceID) bool {
	return slices.ContainsFunc(r.Scopes, func(text string) bool {
		at, err := name.ParseResourceID(text)
		return err == nil && scope.Within(at)
	})
}

// allows reports whether the role permits an action; data says on which side.
func (r Role) allows(action string, data bool) bool {
	for _, p := range r.Permissions {
		yes, no := p.Actions, p.NotActions
		if data {
			yes, no = p.DataActions, p.NotDataActions
		}
		if anyMatch(yes, action) && !anyMatch(no, action) {
			return true
		}
	}
	return false
}

func anyMatch(patterns []string, action string) bool {
	for _, p := range patterns {
		if match(strings.ToLower(p), strings.ToLower(action)) {
			return true
		}
	}
	return false
}

// match compares with a pattern in which '*' stands for any text, slashes included.
func match(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}

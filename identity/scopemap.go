// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// ScopeMap says what the tokens that name it may do with which repositories of their registry.
type ScopeMap struct {
	Name        string
	Description string
	// Actions are "repositories/{repository}/{action}"; the repository may end in *, which stands for any rest.
	Actions []string
	// System says that the map comes with every registry and can't be changed.
	System  bool
	Created time.Time
}

// scopeActions are the actions of scope maps and the verbs that they allow.
var scopeActions = map[string]Verb{
	"content/read": Pull, "content/write": Push, "content/delete": Delete, "metadata/read": MetadataRead, "metadata/write": MetadataWrite,
}

// systemMaps are the scope maps of every registry. Source: ACR, "az acr scope-map list" of a new registry.
var systemMaps = []ScopeMap{
	systemMap("_repositories_admin", "Can perform all read, write and delete operations on the registry", "metadata/read metadata/write content/read content/write content/delete"),
	systemMap("_repositories_pull", "Can pull any repository of the registry", "content/read"),
	systemMap("_repositories_pull_metadata_read", "Can perform all read operations on the registry", "content/read metadata/read"),
	systemMap("_repositories_push", "Can push to any repository of the registry", "content/read content/write"),
	systemMap("_repositories_push_metadata_write", "Can perform all read and write operations on the registry", "metadata/read metadata/write content/read content/write"),
}

func systemMap(called, description, actions string) ScopeMap {
	m := ScopeMap{Name: called, Description: description, System: true}
	for a := range strings.FieldsSeq(actions) {
		m.Actions = append(m.Actions, "repositories/*/"+a)
	}
	return m
}

func findSystemMap(called string) (ScopeMap, bool) {
	i := slices.IndexFunc(systemMaps, func(m ScopeMap) bool { return strings.EqualFold(m.Name, called) })
	if i < 0 {
		return ScopeMap{}, false
	}
	return systemMaps[i], true
}

// CheckScopeAction says what is wrong with an action of a scope map; "" is nothing.
func CheckScopeAction(action string) string {
	repository, verb, ok := splitScopeAction(action)
	if strings.HasPrefix(action, "gateway/") {
		return "gateway actions are for connected registries, which do not exist here"
	}
	if !ok || scopeActions[verb] == "" {
		return "an action is repositories/{repository}/ followed by content/read, content/write, content/delete, metadata/read or metadata/write"
	}
	prefix, wild := strings.CutSuffix(repository, "*")
	switch {
	case repository == "*":
	case wild && strings.HasSuffix(prefix, "/"):
		repository = strings.TrimSuffix(prefix, "/")
	case wild:
		return "a * stands alone or behind a slash at the end: repositories/team/*/content/read"
	}
	if repository != "*" {
		if _, err := name.ParseRepository(repository); err != nil {
			return strings.TrimSuffix(fault.From(err).Message, ".")
		}
	}
	return ""
}

// splitScopeAction reads repositories/{repository}/{content|metadata}/{word}.
func splitScopeAction(action string) (repository, verb string, ok bool) {
	rest, ok := strings.CutPrefix(action, "repositories/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return "", "", false
	}
	j := strings.LastIndexByte(rest[:i], '/')
	if j <= 0 {
		return "", "", false
	}
	return rest[:j], rest[j+1:], true
}

// allowsVerb reports whether actions of a scope map allow a verb on a repository.
func allowsVerb(actions []string, repo name.Repository, verb Verb) bool {
	for _, a := range actions {
		repository, word, ok := splitScopeAction(a)
		if !ok || scopeActions[word] != verb {
			continue
		}
		if prefix, wild := strings.CutSuffix(repository, "*"); wild && strings.HasPrefix(string(repo), prefix) || repository == string(repo) {
			return true
		}
	}
	return false
}

func scanScopeMap(scan func(...any) error) (ScopeMap, error) {
	var m ScopeMap
	var actions string
	var created int64
	if err := scan(&m.Name, &m.Description, &actions, &created); err != nil {
		return m, err
	}
	m.Created = meta.FromMicros(created)
	return m, json.Unmarshal([]byte(actions), &m.Actions)
}

// ScopeMap finds a scope map of a registry, in any casing; Created of a system map is zero. Errors: meta.ErrNotFound.
func (s *Service) ScopeMap(tx *meta.Tx, registry, called string) (ScopeMap, error) {
	if m, ok := findSystemMap(called); ok {
		return m, nil
	}
	return scanScopeMap(tx.Row(`SELECT name, description, actions, created_us FROM scope_maps WHERE registry = $1 AND name_key = $2`, registry, strings.ToLower(called)).Scan)
}

// ScopeMaps are a registry's scope maps, those of the system first.
func (s *Service) ScopeMaps(tx *meta.Tx, registry string) ([]ScopeMap, error) {
	all := slices.Clone(systemMaps)
	rows, err := tx.Query(`SELECT name, description, actions, created_us FROM scope_maps WHERE registry = $1 ORDER BY name_key`, registry)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m, err := scanScopeMap(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

// PutScopeMap makes or changes a scope map; the tokens that name it may what it says from the next request on.
func (s *Service) PutScopeMap(tx *meta.Tx, registry string, m ScopeMap) error {
	actions, err := json.Marshal(m.Actions)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO scope_maps (registry, name_key, name, description, actions, created_us) VALUES ($1, $2, $3, $4, $5, $6)
 ON CONFLICT (registry, name_key) DO UPDATE SET description = excluded.description, actions = excluded.actions`,
		registry, strings.ToLower(m.Name), m.Name, m.Description, string(actions), meta.Micros(tx.Now()))
	return err
}

// DeleteScopeMap removes a scope map. Errors: Conflict while a token names it.
func (s *Service) DeleteScopeMap(tx *meta.Tx, registry, called string) error {
	var token string
	err := tx.Row(`SELECT name FROM registry_tokens WHERE registry = $1 AND scope_map = $2 ORDER BY name_key LIMIT 1`, registry, strings.ToLower(called)).Scan(&token)
	if err == nil {
		return fault.New(fault.Conflict, "The scope map '%s' is in use by the token '%s'. Delete the token, or give it another scope map, first.", called, token)
	}
	if !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	_, err = tx.Exec(`DELETE FROM scope_maps WHERE registry = $1 AND name_key = $2`, registry, strings.ToLower(called))
	return err
}

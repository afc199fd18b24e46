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

// RegistryToken is a registry's own user: a name, up to two passwords, and what its scope map says.
type RegistryToken struct {
	// ID is random and never used again.
	ID       string
	Name     string
	ScopeMap string // its name, in lower case
	Enabled  bool
	Created  time.Time
}

// TokenPassword is a password of a registry's token without its text. Expires is zero when it has no end.
type TokenPassword struct {
	Name             string
	Created, Expires time.Time
}

// TokenPasswordNames are the names of a token's passwords.
var TokenPasswordNames = []string{"password1", "password2"}

const tokenColumns = `id, name, scope_map, enabled, created_us`

func scanRegistryToken(scan func(...any) error) (RegistryToken, error) {
	var t RegistryToken
	var created int64
	err := scan(&t.ID, &t.Name, &t.ScopeMap, &t.Enabled, &created)
	t.Created = meta.FromMicros(created)
	return t, err
}

// RegistryToken finds a token of a registry, in any casing. Errors: meta.ErrNotFound.
func (s *Service) RegistryToken(tx *meta.Tx, registry, called string) (RegistryToken, error) {
	return scanRegistryToken(tx.Row(`SELECT `+tokenColumns+` FROM registry_tokens WHERE registry = $1 AND name_key = $2`, registry, strings.ToLower(called)).Scan)
}

// CountRegistryTokens is how many tokens and scope maps of its own a registry has.
func (s *Service) CountRegistryTokens(tx *meta.Tx, registry string) (tokens, maps int64, err error) {
	err = tx.Row(`SELECT (SELECT COUNT(*) FROM registry_tokens WHERE registry = $1), (SELECT COUNT(*) FROM scope_maps WHERE registry = $1)`, registry).Scan(&tokens, &maps)
	return tokens, maps + int64(len(systemMaps)), err
}

// PutRegistryToken makes a token (ID "") or changes one, and returns it.
func (s *Service) PutRegistryToken(tx *meta.Tx, registry string, t RegistryToken) (RegistryToken, error) {
	if t.ID == "" {
		var err error
		if t.ID, err = s.NewID(); err != nil {
			return t, err
		}
		t.Created = tx.Now()
	}
	t.ScopeMap = strings.ToLower(t.ScopeMap)
	_, err := tx.Exec(`INSERT INTO registry_tokens (id, registry, name_key, name, scope_map, enabled, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7)
 ON CONFLICT (id) DO UPDATE SET scope_map = excluded.scope_map, enabled = excluded.enabled`,
		t.ID, registry, strings.ToLower(t.Name), t.Name, t.ScopeMap, t.Enabled, meta.Micros(t.Created))
	return t, err
}

// DeleteRegistryToken removes a token with its passwords: what they proved is refused from the next request on.
func (s *Service) DeleteRegistryToken(tx *meta.Tx, registry, called string) error {
	if _, err := tx.Exec(`DELETE FROM token_passwords WHERE token IN (SELECT id FROM registry_tokens WHERE registry = $1 AND name_key = $2)`, registry, strings.ToLower(called)); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM registry_tokens WHERE registry = $1 AND name_key = $2`, registry, strings.ToLower(called))
	return err
}

// TokenPasswords are a token's passwords, without their texts.
func (s *Service) TokenPasswords(tx *meta.Tx, token string) ([]TokenPassword, error) {
	rows, err := tx.Query(`SELECT name, created_us, expires_us FROM token_passwords WHERE token = $1 ORDER BY name`, token)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []TokenPassword
	for rows.Next() {
		var p TokenPassword
		var created, expires int64
		if err := rows.Scan(&p.Name, &created, &expires); err != nil {
			return nil, err
		}
		p.Created, p.Expires = meta.FromMicros(created), meta.FromMicros(expires)
		all = append(all, p)
	}
	return all, rows.Err()
}

// GenerateTokenPassword makes one of a token's passwords anew. The old one of that name is void from then on. It is told once; expires may be zero.
func (s *Service) GenerateTokenPassword(tx *meta.Tx, token, called string, expires time.Time) (string, error) {
	if !slices.Contains(TokenPasswordNames, called) {
		return "", fault.New(fault.InvalidParameter, "There is no token password %q: password1 and password2 are their names.", called)
	}
	p, err := s.generate(39)
	if err != nil {
		return "", err
	}
	_, err = tx.Exec(`INSERT INTO token_passwords (token, name, hash, created_us, expires_us) VALUES ($1, $2, $3, $4, $5)
 ON CONFLICT (token, name) DO UPDATE SET hash = excluded.hash, created_us = excluded.created_us, expires_us = excluded.expires_us`,
		token, called, hashGenerated(p), meta.Micros(tx.Now()), meta.Micros(expires))
	return p, err
}

// KeepTokenPasswords removes the passwords of a token that are not named.
func (s *Service) KeepTokenPasswords(tx *meta.Tx, token string, keep []string) error {
	for _, n := range TokenPasswordNames {
		if slices.Contains(keep, n) {
			continue
		}
		if _, err := tx.Exec(`DELETE FROM token_passwords WHERE token = $1 AND name = $2`, token, n); err != nil {
			return err
		}
	}
	return nil
}

// basicToken finds the token of a registry that a name and password prove. Errors: InvalidToken; meta.ErrNotFound when the registry has no such token.
func (s *Service) basicToken(tx *meta.Tx, row meta.RegistryRow, user, password string) (Caller, error) {
	t, err := s.RegistryToken(tx, row.ID, user)
	if err != nil {
		return Caller{}, err
	}
	print := hashGenerated(password)
	if err := s.tokenProof(tx, row, t.ID, print); err != nil {
		return Caller{}, err
	}
	return Caller{ID: t.ID, Name: t.Name, Type: TokenUser, Credential: "password:" + print, Registry: row.ID}, nil
}

// tokenProof checks that a token is enabled and that one of its passwords has the hash and has not expired. Errors: InvalidToken.
func (s *Service) tokenProof(tx *meta.Tx, row meta.RegistryRow, id, hash string) error {
	var enabled bool
	var expires int64
	err := tx.Row(`SELECT t.enabled, p.expires_us FROM registry_tokens t JOIN token_passwords p ON p.token = t.id WHERE t.id = $1 AND t.registry = $2 AND p.hash = $3`,
		id, row.ID, hash).Scan(&enabled, &expires)
	if errors.Is(err, meta.ErrNotFound) {
		return errSecret()
	}
	if err != nil {
		return err
	}
	switch {
	case !enabled:
		return fault.New(fault.InvalidToken, "The token is disabled. Set its status to enabled: az acr token update --status enabled.")
	case expires != 0 && expires <= meta.Micros(s.clock()):
		return fault.New(fault.InvalidToken, "The token's password has expired. Make a new one: az acr token credential generate.")
	}
	return nil
}

// tokenMay reports whether a registry's token may do a verb on a repository, by its scope map as it is now. The repository "" asks whether it may anything at all.
func (s *Service) tokenMay(tx *meta.Tx, c Caller, row meta.RegistryRow, repo name.Repository, verb Verb) (bool, error) {
	if c.Registry != row.ID {
		return false, nil
	}
	var called string
	var enabled bool
	err := tx.Row(`SELECT scope_map, enabled FROM registry_tokens WHERE id = $1 AND registry = $2`, c.ID, row.ID).Scan(&called, &enabled)
	if errors.Is(err, meta.ErrNotFound) || err == nil && !enabled {
		return false, nil
	}
	if err != nil || repo == "" {
		return err == nil, err
	}
	if m, ok := findSystemMap(called); ok {
		return allowsVerb(m.Actions, repo, verb), nil
	}
	var text string
	err = tx.Row(`SELECT actions FROM scope_maps WHERE registry = $1 AND name_key = $2`, row.ID, called).Scan(&text)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	var list []string
	if err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	return err == nil && allowsVerb(list, repo, verb), err
}

func (s *Service) registryTokenName(tx *meta.Tx, id string) (string, error) {
	var n string
	err := tx.Row(`SELECT name FROM registry_tokens WHERE id = $1`, id).Scan(&n)
	return n, err
}

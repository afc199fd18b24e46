// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// Principal is somebody who can be given rights.
type Principal struct {
	ID      string    `json:"id"`
	AppID   string    `json:"appId"`
	Type    Type      `json:"type"`
	Name    string    `json:"name"`
	Enabled bool      `json:"enabled"`
	Created time.Time `json:"created"`
	Secrets []Secret  `json:"secrets"`
}

// Secret is a principal's secret as it may be shown: never the secret itself.
type Secret struct {
	ID      string    `json:"id"`
	Hint    string    `json:"hint"`
	Created time.Time `json:"created"`
	// Expires is zero for a secret without an end.
	Expires time.Time `json:"expires,omitzero"`
}

// liveSecrets is how many secrets a principal has at the most: the one in use and the one that takes over.
const liveSecrets = 2

// secretBytes is the entropy of a generated secret: 320 bits.
const secretBytes = 40

// CreatePrincipal makes a principal and its first secret, which is told this once. name is unique without regard to case; a user's is the user
// principal name. password is a user's own choice (at least 12 characters); "" generates. Whoever calls it puts it on record, in the same
// transaction; so with every function here that changes a principal. Errors: InvalidParameter, Conflict when the name is taken.
func (s *Service) CreatePrincipal(tx *meta.Tx, t Type, name, password string) (Principal, string, error) {
	name = strings.TrimSpace(name)
	switch {
	case t != ServicePrincipal && t != User && t != ManagedIdentity:
		return Principal{}, "", fault.New(fault.InvalidParameter, "%q is no type of principal: servicePrincipal, user and managedIdentity are.", t)
	case name == "" || len(name) > 120 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Principal{}, "", fault.New(fault.InvalidParameter, "A principal's name has 1 to 120 printable characters.")
	case password != "" && t != User:
		return Principal{}, "", fault.New(fault.InvalidParameter, "Only a user chooses a password; the secrets of other principals are generated.")
	}
	if isGUID(name) {
		return Principal{}, "", fault.New(fault.InvalidParameter, "A principal's name is not a GUID: it would be taken for an id.")
	}
	p := Principal{Type: t, Name: name, Enabled: true, Created: tx.Now(), Secrets: []Secret{}}
	var err error
	for _, id := range []*string{&p.ID, &p.AppID} {
		if *id, err = s.NewID(); err != nil {
			return Principal{}, "", err
		}
	}
	n, err := tx.Exec(`INSERT INTO principals (id, app_id, kind, name, name_key, enabled, created_us) VALUES ($1, $2, $3, $4, $5, TRUE, $6)
 ON CONFLICT (name_key) DO NOTHING`, p.ID, p.AppID, string(t), name, strings.ToLower(name), meta.Micros(tx.Now()))
	if err != nil {
		return Principal{}, "", err
	}
	if n == 0 {
		return Principal{}, "", fault.New(fault.Conflict, "There is a principal named %q already.", name)
	}
	secret, err := s.addSecret(tx, p.ID, password, time.Time{})
	return p, secret, err
}

// RotateSecret adds a generated secret to a principal, and drops the oldest beyond two. It is told this once. Errors: PrincipalNotFound.
func (s *Service) RotateSecret(tx *meta.Tx, ref string) (Principal, string, error) {
	return s.RotateSecretUntil(tx, ref, time.Time{})
}

// RotateSecretUntil is RotateSecret with a secret that ends; the zero time is never.
func (s *Service) RotateSecretUntil(tx *meta.Tx, ref string, expires time.Time) (Principal, string, error) {
	p, err := s.FindPrincipal(tx, ref)
	if err != nil {
		return Principal{}, "", err
	}
	secret, err := s.addSecret(tx, p.ID, "", expires)
	if err != nil {
		return Principal{}, "", err
	}
	_, err = tx.Exec(`DELETE FROM principal_secrets WHERE principal = $1 AND id NOT IN
 (SELECT id FROM principal_secrets WHERE principal = $1 ORDER BY created_us DESC, id DESC LIMIT `+fmt.Sprint(liveSecrets)+`)`, p.ID)
	return p, secret, err
}

func (s *Service) addSecret(tx *meta.Tx, principal, chosen string, expires time.Time) (string, error) {
	secret, hashed := chosen, ""
	if chosen == "" {
		var err error
		if secret, err = s.generate(secretBytes); err != nil {
			return "", err
		}
		hashed = hashGenerated(secret)
	} else {
		if len(chosen) < 12 || len(chosen) > 256 {
			return "", fault.New(fault.InvalidParameter, "A password has 12 to 256 characters.")
		}
		salt := make([]byte, 16)
		if _, err := io.ReadFull(s.random, salt); err != nil {
			return "", err
		}
		hashed = hashChosen(chosen, salt)
	}
	id, err := s.NewID()
	if err != nil {
		return "", err
	}
	hint := secret[:3]
	if chosen != "" {
		hint = ""
	}
	var last int64
	if err := tx.Row(`SELECT COALESCE(MAX(created_us), 0) FROM principal_secrets WHERE principal = $1`, principal).Scan(&last); err != nil {
		return "", err
	}
	// Two secrets made within one instant keep their order.
	_, err = tx.Exec(`INSERT INTO principal_secrets (id, principal, hash, hint, created_us, expires_us) VALUES ($1, $2, $3, $4, $5, $6)`,
		id, principal, hashed, hint, max(meta.Micros(tx.Now()), last+1), meta.Micros(expires))
	return secret, err
}

// generate makes a secret of n random bytes, as unpadded base64url (RFC 4648, section 5). Its first character is a letter from A to f: a leading "-" is an option to the command
// lines that secrets are given to, az's among them.
func (s *Service) generate(n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.random, b); err != nil {
		return "", err
	}
	b[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// hashGenerated suits secrets of full entropy: nobody guesses one, so a fast hash is enough.
func hashGenerated(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hashChosen suits what a person thought of: argon2id, 19 MiB, two passes (OWASP's second choice).
func hashChosen(password string, salt []byte) string {
	key := argon2.IDKey([]byte(password), salt, 2, 19<<10, 1, 32)
	return "argon2id:" + hex.EncodeToString(salt) + ":" + hex.EncodeToString(key)
}

// matches compares a secret with what is kept of one. A text longer than any secret fits none: it is not worth the hash.
func matches(hashed, secret string) bool {
	if len(secret) > 1024 {
		return false
	}
	kind, rest, _ := strings.Cut(hashed, ":")
	got := hashGenerated(secret)
	if kind == "argon2id" {
		salt, err := hex.DecodeString(strings.SplitN(rest, ":", 2)[0])
		if err != nil {
			return false
		}
		got = hashChosen(secret, salt)
	}
	return subtle.ConstantTimeCompare([]byte(got), []byte(hashed)) == 1
}

// errSecret is the one answer for an unknown principal, a disabled one and a wrong secret.
func errSecret() error {
	return fault.New(fault.InvalidToken, "The client or its secret is not valid.")
}

// candidate is a secret of a principal as it is kept.
type candidate struct {
	id, hashed string
	expires    int64
}

// candidates finds the principal behind a condition on principals, and its secrets. One that does not exist is the zero Principal.
func (s *Service) candidates(tx *meta.Tx, where string, args ...any) (Principal, []candidate, error) {
	p, err := scanPrincipal(tx.Row(`SELECT `+principalColumns+` FROM principals WHERE `+where, args...).Scan)
	if errors.Is(err, meta.ErrNotFound) {
		return Principal{}, nil, nil
	}
	if err != nil {
		return Principal{}, nil, err
	}
	rows, err := tx.Query(`SELECT id, hash, expires_us FROM principal_secrets WHERE principal = $1`, p.ID)
	if err != nil {
		return Principal{}, nil, err
	}
	defer rows.Close()
	var all []candidate
	for rows.Next() {
		var c candidate
		if err := rows.Scan(&c.id, &c.hashed, &c.expires); err != nil {
			return Principal{}, nil, err
		}
		all = append(all, c)
	}
	return p, all, rows.Err()
}

// prove compares a secret with each candidate, and with one that never fits when there is none: its time tells nothing about who exists.
func (s *Service) prove(p Principal, all []candidate, secret, nobody string) (string, error) {
	if len(all) == 0 {
		all = []candidate{{hashed: nobody}}
	}
	found := ""
	for _, c := range all {
		if matches(c.hashed, secret) && (c.expires == 0 || s.clock().Before(meta.FromMicros(c.expires))) {
			found = c.id
		}
	}
	if found == "" || !p.Enabled {
		return "", errSecret()
	}
	return found, nil
}

// CheckSecret finds the service principal of an application id and a secret, and the secret's id. Errors: InvalidToken, the same whatever is wrong.
func (s *Service) CheckSecret(tx *meta.Tx, client, secret string) (Principal, string, error) {
	p, all, err := s.candidates(tx, `app_id = $1 AND kind = 'ServicePrincipal'`, strings.ToLower(client))
	if err != nil {
		return Principal{}, "", err
	}
	id, err := s.prove(p, all, secret, fastNobody)
	if err != nil {
		return Principal{}, "", err
	}
	return p, id, nil
}

// fastNobody is a hash of the fast kind that nothing has.
const fastNobody = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// Login finds the principal of a client id (a service principal's application id, a user's name) and a secret, and the secret's id. Slow hashes
// are computed outside of any transaction, and few at a time. Errors: InvalidToken, the same whatever is wrong.
func (s *Service) Login(ctx context.Context, client, secret string) (Principal, string, error) {
	nobody := s.nobody
	if isGUID(client) { // no user has such a name, so nobody's slow hash is to be imitated
		nobody = fastNobody
	}
	return s.login(ctx, secret, nobody, `app_id = $1 AND kind = 'ServicePrincipal' OR name_key = $1 AND kind = 'User'`, strings.ToLower(client))
}

// LoginManaged finds the managed identity that a secret belongs to. Errors: InvalidToken.
func (s *Service) LoginManaged(ctx context.Context, secret string) (Principal, string, error) {
	return s.login(ctx, secret, fastNobody, `kind = 'ManagedIdentity' AND id IN (SELECT principal FROM principal_secrets WHERE hash = $1)`, hashGenerated(secret))
}

func (s *Service) login(ctx context.Context, secret, nobody, where string, args ...any) (Principal, string, error) {
	var p Principal
	var all []candidate
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		var err error
		p, all, err = s.candidates(tx, where, args...)
		return err
	})
	if err != nil {
		return Principal{}, "", err
	}
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return Principal{}, "", fault.New(fault.Unavailable, "The request ended before its secret could be checked.").Because(ctx.Err())
	}
	id, err := s.prove(p, all, secret, nobody)
	if err != nil {
		return Principal{}, "", err
	}
	return p, id, nil
}

// HasManagedIdentity reports whether there is an enabled managed identity.
func (s *Service) HasManagedIdentity(ctx context.Context) (bool, error) {
	var n int
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		return tx.Row(`SELECT COUNT(*) FROM principals WHERE kind = 'ManagedIdentity' AND enabled`).Scan(&n)
	})
	return n > 0, err
}

const principalColumns = `id, app_id, kind, name, enabled, created_us`

func scanPrincipal(scan func(...any) error) (Principal, error) {
	p := Principal{Secrets: []Secret{}}
	var created int64
	err := scan(&p.ID, &p.AppID, &p.Type, &p.Name, &p.Enabled, &created)
	p.Created = meta.FromMicros(created)
	return p, err
}

func (s *Service) principal(tx *meta.Tx, id string) (Principal, error) {
	return scanPrincipal(tx.Row(`SELECT `+principalColumns+` FROM principals WHERE id = $1`, id).Scan)
}

// FindPrincipal finds a principal by object id, application id or name. Errors: PrincipalNotFound.
func (s *Service) FindPrincipal(tx *meta.Tx, ref string) (Principal, error) {
	p, err := scanPrincipal(tx.Row(`SELECT `+principalColumns+` FROM principals WHERE id = $1 OR app_id = $1 OR name_key = $1`, strings.ToLower(ref)).Scan)
	if errors.Is(err, meta.ErrNotFound) {
		return p, fault.New(fault.PrincipalNotFound, "There is no principal with the object id, application id or name %q.", ref).Because(err)
	}
	return p, err
}

// Principals are all principals with what may be shown of their secrets, by name.
func (s *Service) Principals(tx *meta.Tx) ([]Principal, error) {
	rows, err := tx.Query(`SELECT ` + principalColumns + ` FROM principals ORDER BY name_key`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Principal
	at := map[string]int{}
	for rows.Next() {
		p, err := scanPrincipal(rows.Scan)
		if err != nil {
			return nil, err
		}
		at[p.ID] = len(all)
		all = append(all, p)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	secrets, err := tx.Query(`SELECT id, principal, hint, created_us, expires_us FROM principal_secrets ORDER BY created_us`)
	if err != nil {
		return nil, err
	}
	defer secrets.Close()
	for secrets.Next() {
		var sec Secret
		var of string
		var created, expires int64
		if err := secrets.Scan(&sec.ID, &of, &sec.Hint, &created, &expires); err != nil {
			return nil, err
		}
		sec.Created, sec.Expires = meta.FromMicros(created), meta.FromMicros(expires)
		if i, ok := at[of]; ok {
			all[i].Secrets = append(all[i].Secrets, sec)
		}
	}
	return all, secrets.Err()
}

// EnablePrincipal switches a principal on or off; off, its tokens are refused from the next request on. Errors: PrincipalNotFound, Conflict
// for the last Owner of everything.
func (s *Service) EnablePrincipal(tx *meta.Tx, ref string, enabled bool) (Principal, error) {
	if err := s.lockRights(tx); err != nil {
		return Principal{}, err
	}
	p, err := s.FindPrincipal(tx, ref)
	if err != nil {
		return p, err
	}
	if !enabled {
		if err := s.keepOwner(tx, p.ID, ""); err != nil {
			return p, err
		}
	}
	p.Enabled = enabled
	_, err = tx.Exec(`UPDATE principals SET enabled = $1 WHERE id = $2`, enabled, p.ID)
	return p, err
}

// DeletePrincipal removes a principal, its secrets and its role assignments. Errors: as EnablePrincipal.
func (s *Service) DeletePrincipal(tx *meta.Tx, ref string) (Principal, error) {
	if err := s.lockRights(tx); err != nil {
		return Principal{}, err
	}
	p, err := s.FindPrincipal(tx, ref)
	if err != nil {
		return p, err
	}
	if err := s.keepOwner(tx, p.ID, ""); err != nil {
		return p, err
	}
	for _, text := range []string{
		`DELETE FROM principal_secrets WHERE principal = $1`, `DELETE FROM role_assignments WHERE principal = $1`, `DELETE FROM principals WHERE id = $1`,
	} {
		if _, err := tx.Exec(text, p.ID); err != nil {
			return p, err
		}
	}
	return p, nil
}

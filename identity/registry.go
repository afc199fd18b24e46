// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// NullUser is the user name under which docker-type clients send a refresh token as the password.
const NullUser = "00000000-0000-0000-0000-000000000000"

const (
	grantRefresh = "refresh_token"
	grantAccess  = "access_token"
)

// actions are the ARM actions behind a verb: in the legacy mode, and the dataAction in the mode of repository permissions.
var actions = map[Verb]struct{ legacy, data string }{
	Pull:          {acr + "pull/read", acr + "repositories/content/read"},
	Push:          {acr + "push/write", acr + "repositories/content/write"},
	Delete:        {acr + "artifacts/delete", acr + "repositories/content/delete"},
	MetadataRead:  {acr + "pull/read", acr + "repositories/metadata/read"},
	MetadataWrite: {acr + "push/write", acr + "repositories/metadata/write"},
	// No built-in role names these but those that name everything. In the mode of repository permissions who may delete may look into the bin and bring back.
	DeletedRead:    {acr + "deleted/read", acr + "repositories/content/delete"},
	DeletedRestore: {acr + "deleted/restore/action", acr + "repositories/content/delete"},
}

// CanRepository reports whether the caller may do the verb on a repository of the registry, by its rights now and within its token's scope.
func (s *Service) CanRepository(tx *meta.Tx, c Caller, row meta.RegistryRow, repo name.Repository, verb Verb) (bool, error) {
	act, known := actions[verb]
	if !known || c.Registry != "" && c.Registry != row.ID || !narrowedTo(c, "repository", string(repo), string(verb)) {
		return false, nil
	}
	switch c.Type {
	case AdminUser:
		return c.Registry == row.ID && row.AdminEnabled, nil
	case Anonymous:
		return row.AnonymousPull && (verb == Pull || verb == MetadataRead), nil
	case TokenUser:
		return s.tokenMay(tx, c, row, repo, verb)
	}
	scope, err := name.ParseResourceID(row.ResourceID)
	if err != nil {
		return false, err
	}
	if row.AbacMode {
		return s.holds(tx, c, act.data, scope, true)
	}
	return s.holds(tx, c, act.legacy, scope, false)
}

// CanQuarantine reports whether the caller may read content in quarantine, or change its state. A token's scope can't say so: it is a matter of the caller's rights alone, which the
// admin user and the registry's own tokens do not have. Whether a token reaches the repository is asked besides: to change the state takes metadata_write.
func (s *Service) CanQuarantine(tx *meta.Tx, c Caller, row meta.RegistryRow, write bool) (bool, error) {
	switch c.Type {
	case AdminUser, Anonymous, TokenUser:
		return false, nil
	}
	if c.Registry != "" && c.Registry != row.ID {
		return false, nil
	}
	scope, err := name.ParseResourceID(row.ResourceID)
	if err != nil {
		return false, err
	}
	action, data := acr+"quarantine/read", acr+"quarantinedArtifacts/read"
	if write {
		action, data = acr+"quarantine/write", acr+"quarantinedArtifacts/write"
	}
	if row.AbacMode {
		return s.holds(tx, c, data, scope, true)
	}
	return s.holds(tx, c, action, scope, false)
}

// CanSign reports whether the caller is a signer of content: it has both rights of the role AcrImageSigner, as in Azure, where neither Owner nor Contributor, which have no dataActions, may
// sign. CanQuarantine's words on tokens and the admin user hold here too.
func (s *Service) CanSign(tx *meta.Tx, c Caller, row meta.RegistryRow) (bool, error) {
	if c.Registry != "" && c.Registry != row.ID {
		return false, nil
	}
	scope, err := name.ParseResourceID(row.ResourceID)
	if err != nil {
		return false, err
	}
	action, err := s.holds(tx, c, acr+"sign/write", scope, false)
	if err != nil || !action {
		return false, err
	}
	return s.holds(tx, c, acr+"trustedCollections/write", scope, true)
}

// CanDeletedCatalog reports whether the caller may list the repositories that hold something deleted.
func (s *Service) CanDeletedCatalog(tx *meta.Tx, c Caller, row meta.RegistryRow) (bool, error) {
	if !narrowedTo(c, "registry", "deleted_catalog", "*") {
		return false, nil
	}
	whole := c
	whole.Access, whole.Narrowed = nil, false
	return s.CanRepository(tx, whole, row, "any", DeletedRead)
}

// CanCatalog reports whether the caller may list the registry's repositories.
func (s *Service) CanCatalog(tx *meta.Tx, c Caller, row meta.RegistryRow) (bool, error) {
	if c.Registry != "" && c.Registry != row.ID || !narrowedTo(c, "registry", "catalog", "*") {
		return false, nil
	}
	switch c.Type {
	case AdminUser:
		return c.Registry == row.ID && row.AdminEnabled, nil
	case Anonymous:
		return false, nil
	case TokenUser: // the list holds what it may read
		return s.tokenMay(tx, c, row, "", Pull)
	}
	scope, err := name.ParseResourceID(row.ResourceID)
	if err != nil {
		return false, err
	}
	if row.AbacMode {
		return s.holds(tx, c, acr+"catalog/read", scope, true)
	}
	return s.holds(tx, c, acr+"pull/read", scope, false)
}

// ExchangeARM makes a registry's refresh token of an access token of the authority: one for the container registry, or one for the resource manager
// where the registry's azureADAuthenticationAsArmPolicy allows it. Errors: InvalidToken, Denied when the principal has no right on the registry.
func (s *Service) ExchangeARM(ctx context.Context, tx *meta.Tx, row meta.RegistryRow, token string) (string, Caller, error) {
	c, err := s.armClaims(ctx, tx, token)
	if err != nil {
		return "", Caller{}, err
	}
	switch s.ResourceOf(c.Audience) {
	case ContainerRegistry:
	case ResourceManager:
		if !row.ArmTokens {
			return "", Caller{}, fault.New(fault.InvalidToken,
				"The registry '%s' does not take tokens of the resource manager (policies.azureADAuthenticationAsArmPolicy is disabled). Ask a token for %s.", row.Name, ContainerRegistryResource)
		}
	default:
		return "", Caller{}, errToken("is for another audience than a container registry")
	}
	caller, err := s.principalCaller(tx, c)
	if err != nil {
		return "", Caller{}, err
	}
	refresh, err := s.IssueRegistryRefresh(ctx, tx, row, caller)
	return refresh, caller, err
}

// IssueRegistryRefresh makes a registry's refresh token for a caller. It tells what the caller may now; what it may later is judged later.
// Errors: InvalidToken for a caller whose own token is narrowed, as the new one would not be.
func (s *Service) IssueRegistryRefresh(ctx context.Context, tx *meta.Tx, row meta.RegistryRow, c Caller) (string, error) {
	if c.Narrowed {
		return "", errToken("is for another purpose")
	}
	rights := &acrRights{Actions: []string{}, NotActions: []string{}}
	for _, r := range []struct {
		verb Verb
		word string
	}{{Pull, "read"}, {Push, "write"}, {Delete, "delete"}} {
		ok, err := s.CanRepository(tx, c, row, "any", r.verb)
		if err != nil {
			return "", err
		}
		if ok {
			rights.Actions = append(rights.Actions, r.word)
		}
	}
	cl := registryClaims(row, c, grantRefresh)
	cl.Rights, cl.Roles = rights, []string{}
	return s.issue(ctx, tx, typeRegistry, cl, RegistryTokenLife)
}

func registryClaims(row meta.RegistryRow, c Caller, grant string) claims {
	cl := claims{Subject: c.ID, Issuer: issuerRegistry, Audience: row.LoginServer, ACRVersion: "1.0", GrantType: grant, ACRTenant: c.Tenant,
		AppID: c.AppID, Registry: row.ID, Kind: c.Type}
	if !c.Expires.IsZero() {
		cl.Expires = c.Expires.Unix() // a token can't be made to last by exchanging it again and again
	}
	if print, ok := strings.CutPrefix(c.Credential, "password:"); ok && (c.Type == AdminUser || c.Type == TokenUser) {
		cl.Password = print
	}
	return cl
}

// IssueAccess makes a registry's access token for those of the scopes asked that the caller may. A scope of which nothing is left is in the token
// with no actions, as docker expects.
func (s *Service) IssueAccess(ctx context.Context, tx *meta.Tx, row meta.RegistryRow, c Caller, asked []Access) (string, []Access, error) {
	granted := []Access{}
	for _, a := range asked {
		g := Access{Type: a.Type, Name: a.Name, Actions: []string{}}
		for _, action := range a.Actions {
			var err error
			if g.Actions, err = s.grantAction(tx, row, c, a, action, g.Actions); err != nil {
				return "", nil, err
			}
		}
		granted = append(granted, g)
	}
	cl := registryClaims(row, c, grantAccess)
	cl.Access = granted
	token, err := s.issue(ctx, tx, typeRegistry, cl, RegistryAccessLife)
	return token, granted, err
}

// grantAction adds to have what an asked action comes to.
func (s *Service) grantAction(tx *meta.Tx, row meta.RegistryRow, c Caller, a Access, action string, have []string) ([]string, error) {
	if a.Type == "registry" {
		can := s.CanCatalog
		if a.Name == "deleted_catalog" {
			can = s.CanDeletedCatalog
		}
		ok, err := can(tx, c, row)
		if ok && action == "*" {
			have = append(have, "*")
		}
		return have, err
	}
	wanted := []Verb{Verb(action)}
	if action == "*" {
		wanted = verbs
	}
	for _, v := range wanted {
		ok, err := s.CanRepository(tx, c, row, name.Repository(a.Name), v)
		if err == nil && !ok && v == MetadataWrite { // the state of quarantine is metadata, which another right changes
			ok, err = s.CanQuarantine(tx, c, row, true)
		}
		if err != nil {
			return nil, err
		}
		if ok {
			have = append(have, string(v))
		}
	}
	return have, nil
}

// VerifyRegistryToken finds the caller of a registry's access token, narrowed to its scope. Errors: InvalidToken.
func (s *Service) VerifyRegistryToken(ctx context.Context, tx *meta.Tx, row meta.RegistryRow, token string) (Caller, error) {
	return s.registryCaller(ctx, tx, row, token, grantAccess)
}

// VerifyRegistryRefresh finds the caller of a registry's refresh token. Errors: InvalidToken.
func (s *Service) VerifyRegistryRefresh(ctx context.Context, tx *meta.Tx, row meta.RegistryRow, token string) (Caller, error) {
	return s.registryCaller(ctx, tx, row, token, grantRefresh)
}

func (s *Service) registryCaller(ctx context.Context, tx *meta.Tx, row meta.RegistryRow, token, grant string) (Caller, error) {
	c, err := s.read(ctx, tx, token, typeRegistry, issuerRegistry)
	if err != nil {
		return Caller{}, err
	}
	switch {
	case c.GrantType != grant:
		return Caller{}, errToken("is for another purpose")
	case c.Registry != row.ID || c.Audience != row.LoginServer:
		return Caller{}, errToken("belongs to another registry, or to one that was deleted and made again")
	case c.issued().Before(row.TokensValidFrom):
		return Caller{}, errToken("was made void")
	}
	caller := Caller{ID: c.Subject, Name: c.Subject, Type: c.Kind, Tenant: c.ACRTenant, Issued: c.issued()}
	switch c.Kind {
	case AdminUser:
		if _, err := s.adminByPrint(tx, row, c.Password); err != nil {
			return Caller{}, err
		}
	case TokenUser:
		if err := s.tokenProof(tx, row, c.Subject, c.Password); err != nil {
			return Caller{}, err
		}
		var err error
		if caller.Name, err = s.registryTokenName(tx, c.Subject); err != nil {
			return Caller{}, err
		}
	case Anonymous:
		if !row.AnonymousPull {
			return Caller{}, errToken("was made for anonymous pull, which is off now")
		}
	default:
		if caller, err = s.principalCaller(tx, c); err != nil {
			return Caller{}, err
		}
	}
	caller.Credential, caller.Registry, caller.Expires = "token:"+c.ID, row.ID, time.Unix(c.Expires, 0).UTC()
	if grant == grantAccess {
		caller.Access, caller.Narrowed = c.Access, true
	}
	if (c.Kind == AdminUser || c.Kind == TokenUser) && grant == grantRefresh {
		caller.Credential = "password:" + c.Password
	}
	return caller, nil
}

// Basic finds the caller of a user name and password at a registry: the null user with a refresh token, the admin user, or a service principal
// by its application id and a secret. Users log in at the authority. Errors: InvalidToken.
func (s *Service) Basic(ctx context.Context, tx *meta.Tx, row meta.RegistryRow, user, password string) (Caller, error) {
	// A name that no database keeps (meta.Tx) is nobody's, and is told nothing else than any other wrong one.
	user = strings.ReplaceAll(strings.ToValidUTF8(user, "\uFFFD"), "\x00", "\uFFFD")
	switch {
	case user == NullUser:
		return s.VerifyRegistryRefresh(ctx, tx, row, password)
	case strings.EqualFold(user, row.Name):
		if !row.AdminEnabled {
			return Caller{}, fault.New(fault.InvalidToken, "The admin user of the registry '%s' is disabled. Log in with a principal, or have adminUserEnabled set.", row.Name)
		}
		which, err := s.adminByPrint(tx, row, fingerprint(password))
		if err != nil {
			return Caller{}, err
		}
		return Caller{ID: row.Name, Name: row.Name, Type: AdminUser, Credential: "password:" + which, Registry: row.ID}, nil
	}
	if c, err := s.basicToken(tx, row, user, password); !errors.Is(err, meta.ErrNotFound) {
		return c, err
	}
	p, secret, err := s.CheckSecret(tx, user, password)
	if err != nil {
		return Caller{}, err
	}
	tenant, err := s.Tenant(tx)
	return Caller{ID: p.ID, Name: p.Name, Type: p.Type, Tenant: tenant, AppID: p.AppID, Credential: "secret:" + secret}, err
}

// Nobody is the caller without a credential at a registry that allows anonymous pull.
func Nobody(row meta.RegistryRow) Caller {
	return Caller{Name: "anonymous", Type: Anonymous, Registry: row.ID}
}

// adminPasswordNames are the names of the admin user's two passwords.
var adminPasswordNames = []string{"password", "password2"}

func adminPurpose(registry, name string) string { return "admin:" + registry + "/" + name }

// fingerprint names a password without telling it.
func fingerprint(password string) string {
	sum := sha256.Sum256([]byte("embargo admin " + password))
	return hex.EncodeToString(sum[:])
}

// adminByPrint finds the admin password with a fingerprint. Errors: InvalidToken.
func (s *Service) adminByPrint(tx *meta.Tx, row meta.RegistryRow, print string) (string, error) {
	if !row.AdminEnabled {
		return "", errToken("is the admin user's, which is disabled now")
	}
	for _, n := range adminPasswordNames {
		p, err := s.adminPassword(tx, row.ID, n)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		if subtle.ConstantTimeCompare([]byte(fingerprint(p)), []byte(print)) == 1 {
			return print, nil
		}
	}
	return "", errSecret()
}

func (s *Service) adminPassword(tx *meta.Tx, registry, name string) (string, error) {
	var sealed []byte
	if err := tx.Row(`SELECT sealed FROM admin_passwords WHERE registry = $1 AND name = $2`, registry, name).Scan(&sealed); err != nil {
		return "", err
	}
	plain, err := s.keyring.Open(adminPurpose(registry, name), sealed)
	return string(plain), err
}

// AdminPasswords are the two passwords of a registry's admin user, made when they are first asked for in a transaction that writes. Errors:
// meta.ErrNotFound in one that reads while they are not there.
func (s *Service) AdminPasswords(tx *meta.Tx, registry string) (string, string, error) {
	var both [2]string
	for i, n := range adminPasswordNames {
		p, err := s.adminPassword(tx, registry, n)
		if errors.Is(err, meta.ErrNotFound) && !tx.ReadOnly() {
			p, err = s.RegenerateAdminPassword(tx, registry, n)
		}
		if err != nil {
			return "", "", err
		}
		both[i] = p
	}
	return both[0], both[1], nil
}

// RegenerateAdminPassword replaces one of the passwords; what the old one proved is refused from the next request on. Errors: InvalidParameter.
func (s *Service) RegenerateAdminPassword(tx *meta.Tx, registry, name string) (string, error) {
	if name != adminPasswordNames[0] && name != adminPasswordNames[1] {
		return "", fault.New(fault.InvalidParameter, "There is no admin password %q: password and password2 are their names.", name)
	}
	p, err := s.generate(30)
	if err != nil {
		return "", err
	}
	sealed, err := s.keyring.Seal(adminPurpose(registry, name), []byte(p))
	if err != nil {
		return "", err
	}
	_, err = tx.Exec(`INSERT INTO admin_passwords (registry, name, sealed, created_us) VALUES ($1, $2, $3, $4)
 ON CONFLICT (registry, name) DO UPDATE SET sealed = excluded.sealed, created_us = excluded.created_us`, registry, name, sealed, meta.Micros(tx.Now()))
	return p, err
}

// DropRegistry removes what belongs to a registry that is being deleted.
func (s *Service) DropRegistry(tx *meta.Tx, registry string) error {
	for _, query := range []string{
		`DELETE FROM admin_passwords WHERE registry = $1`,
		`DELETE FROM token_passwords WHERE token IN (SELECT id FROM registry_tokens WHERE registry = $1)`,
		`DELETE FROM registry_tokens WHERE registry = $1`,
		`DELETE FROM scope_maps WHERE registry = $1`,
	} {
		if _, err := tx.Exec(query, registry); err != nil {
			return err
		}
	}
	return nil
}

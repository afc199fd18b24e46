// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/embargo-registry/embargo/meta"
)

// leeway is how far apart the clocks of the installation and of token checks may be.
const leeway = 5 * time.Minute

// The lives of tokens.
const (
	ARMTokenLife       = time.Hour
	RefreshTokenLife   = 24 * time.Hour // of the authority, for users
	RegistryTokenLife  = 3 * time.Hour  // the registry's refresh token
	RegistryAccessLife = 75 * time.Minute
)

// Issuers tell tokens of different planes apart: a token is taken only where its issuer is expected.
const (
	issuerARM      = "https://sts.embargo/"
	issuerRefresh  = "https://sts.embargo/refresh/"
	issuerRegistry = "Azure Container Registry"
)

// ContainerRegistryResource is the audience that data-plane clients ask a token for.
const ContainerRegistryResource = "https://containerregistry.azure.net"

// claims are the members of every token of the installation. Their order is the payload's.
type claims struct {
	ID         string     `json:"jti"`
	Subject    string     `json:"sub"`
	NotBefore  int64      `json:"nbf"`
	Expires    int64      `json:"exp"`
	IssuedAt   int64      `json:"iat"`
	Issuer     string     `json:"iss"`
	Audience   string     `json:"aud"`
	Version    string     `json:"ver,omitempty"`
	ACRVersion string     `json:"version,omitempty"`
	Tenant     string     `json:"tid,omitempty"`
	ObjectID   string     `json:"oid,omitempty"`
	AppID      string     `json:"appid,omitempty"`
	IDType     string     `json:"idtyp,omitempty"`
	UPN        string     `json:"upn,omitempty"`
	UniqueName string     `json:"unique_name,omitempty"`
	Preferred  string     `json:"preferred_username,omitempty"`
	Name       string     `json:"name,omitempty"`
	GrantType  string     `json:"grant_type,omitempty"`
	ACRTenant  string     `json:"tenant,omitempty"`
	Rights     *acrRights `json:"permissions,omitempty"`
	Roles      []string   `json:"roles,omitempty"`
	Access     []Access   `json:"access,omitempty"`
	Registry   string     `json:"registry,omitempty"` // the registry's identity
	Kind       Type       `json:"kind,omitempty"`
	Password   string     `json:"password,omitempty"` // the admin password that proved the caller, as a fingerprint
	// IssuedMicros is iat without its rounding: what is made void within a second is told apart from what was issued after it.
	IssuedMicros int64 `json:"iat_us"`

	kid string // the key that signed it
}

// issued is when the token was made.
func (c claims) issued() time.Time { return meta.FromMicros(c.IssuedMicros) }

// The types of tokens (RFC 7515, typ): a token of one type is never taken for one of another, whatever it says.
const (
	typeAccess   = "at+jwt"
	typeID       = "JWT"
	typeRefresh  = "rt+jwt"
	typeRegistry = "acr+jwt"
)

// acrRights is how the registry's refresh tokens tell what they may be exchanged for.
type acrRights struct {
	Actions    []string `json:"actions"`
	NotActions []string `json:"notActions"`
}

// issue signs claims that hold from now for life, or until c.Expires if that is set and earlier.
func (s *Service) issue(ctx context.Context, tx *meta.Tx, typ string, c claims, life time.Duration) (string, error) {
	now := s.clock()
	var err error
	if c.ID, err = s.NewID(); err != nil {
		return "", err
	}
	c.IssuedAt, c.NotBefore = now.Unix(), now.Unix()
	if end := now.Add(life).Unix(); c.Expires == 0 || c.Expires > end {
		c.Expires = end
	}
	c.IssuedMicros = meta.Micros(now)
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	return s.sign(ctx, tx, typ, plain(payload))
}

// plain writes JSON in ASCII without '>', '?', '~' and DEL (json.Marshal has seen to '>'): no group of six bits is then 62 or 63, so that the
// payload reads the same in base64's two alphabets. The data-plane client for Go reads it in the wrong one.
func plain(payload []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(payload) {
		switch {
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		case r >= 0x7f || r == '?' || r == '~' || r == '>':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteByte(byte(r))
		}
	}
	return b.Bytes()
}

// read verifies a token of a type and an issuer, and its times. What was verified is remembered by the SHA-256 of its text; times, the
// liveness of the key and, by the callers, rows are checked at every use.
func (s *Service) read(ctx context.Context, tx *meta.Tx, token, typ, issuer string) (claims, error) {
	key := sha256.Sum256([]byte(token))
	c, known := s.verified.Get(verifiedKey{key, typ})
	if known {
		set, err := s.live(ctx, tx, c.kid)
		if err != nil {
			return claims{}, err
		}
		if set.keys[c.kid] == nil {
			return claims{}, errToken("is signed by a key that is not live any more")
		}
	} else {
		payload, kid, err := s.verify(ctx, tx, token, typ)
		if err != nil {
			return claims{}, err
		}
		var said claims // so that those of a known token need no memory
		if err := json.Unmarshal(payload, &said); err != nil {
			return claims{}, errToken("can't be read").Because(err)
		}
		c, c.kid = said, kid
	}
	now := s.clock()
	switch {
	case c.Issuer != issuer:
		return claims{}, errToken("is for another purpose")
	case !now.Before(time.Unix(c.Expires, 0).Add(leeway)):
		return claims{}, errToken("has expired")
	case now.Before(time.Unix(max(c.NotBefore, c.IssuedAt), 0).Add(-leeway)):
		return claims{}, errToken("is not valid yet")
	}
	if !known {
		s.verified.Add(verifiedKey{key, typ}, c)
	}
	return c, nil
}

// verifiedKey is what a verified token is remembered by.
type verifiedKey struct {
	sum [32]byte
	typ string
}

// Resource is what a token is asked for.
type Resource int

// The resources that tokens are issued for.
const (
	NoResource Resource = iota
	ResourceManager
	Graph
	ContainerRegistry
)

// ResourceOf tells what an audience means: one of this installation's hosts is its resource manager, below /graph the directory that Terraform
// asks a token for.
func (s *Service) ResourceOf(audience string) Resource {
	if strings.EqualFold(strings.TrimSuffix(audience, "/"), ContainerRegistryResource) {
		return ContainerRegistry
	}
	u, err := url.Parse(audience)
	if err != nil || u.Scheme != "https" || u.User != nil || strings.ContainsAny(audience, "?#") || !s.hosts[hostname(u.Host)] {
		return NoResource
	}
	switch strings.Trim(u.Path, "/") {
	case "":
		return ResourceManager
	case "graph":
		return Graph
	}
	return NoResource
}

// IssueARM makes an access token of a principal for an audience that ResourceOf knows.
func (s *Service) IssueARM(ctx context.Context, tenant string, p Principal, audience string) (string, error) {
	c := claims{Subject: p.ID, Issuer: issuerARM + tenant + "/", Audience: audience, Version: "1.0", Tenant: tenant, ObjectID: p.ID, AppID: p.AppID, IDType: "app"}
	if p.Type == User {
		c.IDType, c.UPN, c.UniqueName, c.Name, c.AppID = "user", p.Name, p.Name, p.Name, ""
	}
	return s.issue(ctx, nil, typeAccess, c, ARMTokenLife)
}

// IssueIDToken makes an OpenID Connect id token of a user for a client. issuer is the discovery document's.
func (s *Service) IssueIDToken(ctx context.Context, tenant, issuer, client string, p Principal) (string, error) {
	return s.issue(ctx, nil, typeID, claims{Subject: p.ID, Issuer: issuer, Audience: client, Version: "2.0", Tenant: tenant, ObjectID: p.ID,
		UPN: p.Name, UniqueName: p.Name, Preferred: p.Name, Name: p.Name}, ARMTokenLife)
}

// IssueRefresh makes the authority's refresh token of a principal.
func (s *Service) IssueRefresh(ctx context.Context, p Principal) (string, error) {
	return s.issue(ctx, nil, typeRefresh, claims{Subject: p.ID, Issuer: issuerRefresh, Audience: issuerRefresh}, RefreshTokenLife)
}

// Refresh finds the principal of the authority's refresh token. Errors: InvalidToken.
func (s *Service) Refresh(ctx context.Context, tx *meta.Tx, token string) (Principal, error) {
	c, err := s.read(ctx, tx, token, typeRefresh, issuerRefresh)
	if err != nil {
		return Principal{}, err
	}
	return s.alive(tx, c)
}

// alive reads the principal that a token names: it must be there and enabled now.
func (s *Service) alive(tx *meta.Tx, c claims) (Principal, error) {
	p, err := s.principal(tx, c.Subject)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return p, errToken("names a principal that does not exist any more")
	case err != nil:
		return p, err
	case !p.Enabled:
		return p, errToken("names a principal that is disabled")
	}
	return p, nil
}

// Authenticate finds the caller of an ARM access token. Errors: InvalidToken.
func (s *Service) Authenticate(ctx context.Context, token string) (Caller, error) {
	var caller Caller
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		c, err := s.armClaims(ctx, tx, token)
		if err != nil {
			return err
		}
		if s.ResourceOf(c.Audience) != ResourceManager {
			return errToken("is for another audience than this resource manager")
		}
		caller, err = s.principalCaller(tx, c)
		return err
	})
	return caller, err
}

// armClaims verifies a token that the authority issued for this tenant.
func (s *Service) armClaims(ctx context.Context, tx *meta.Tx, token string) (claims, error) {
	tenant, err := s.Tenant(tx)
	if err != nil {
		return claims{}, err
	}
	return s.read(ctx, tx, token, typeAccess, issuerARM+tenant+"/")
}

func (s *Service) principalCaller(tx *meta.Tx, c claims) (Caller, error) {
	p, err := s.alive(tx, c)
	if err != nil {
		return Caller{}, err
	}
	tenant, err := s.Tenant(tx)
	if err != nil {
		return Caller{}, err
	}
	return Caller{ID: p.ID, Name: p.Name, Type: p.Type, Tenant: tenant, AppID: p.AppID, Credential: "token:" + c.ID, Issued: c.issued()}, nil
}

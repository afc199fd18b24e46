// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// An ARM token says who asks in Azure's claims, holds an hour, and is judged by the principal's row at every use.
func TestARMTokens(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		p, _ := b.principal(identity.ServicePrincipal, "ci", "", name.ResourceID{})
		token := b.token(p, armAudience)
		c := payload(t, token)
		for k, want := range map[string]any{"aud": armAudience, "tid": b.first.Tenant, "oid": p.ID, "sub": p.ID, "appid": p.AppID, "idtyp": "app", "ver": "1.0"} {
			if c[k] != want {
				t.Errorf("claim %s is %v, want %v", k, c[k], want)
			}
		}
		if iat, exp := c["iat"].(float64), c["exp"].(float64); exp-iat != 3600 || c["nbf"] != c["iat"] {
			t.Errorf("iat %v, nbf %v, exp %v", c["iat"], c["nbf"], c["exp"])
		}
		caller, err := b.Authenticate(t.Context(), token)
		if err != nil || caller.ID != p.ID || caller.Type != identity.ServicePrincipal || caller.Tenant != b.first.Tenant || caller.Narrowed {
			t.Errorf("%+v, %v", caller, err)
		}
		b.write(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, p.ID, false); return err })
		_, err = b.Authenticate(t.Context(), token)
		wantFault(t, err, fault.InvalidToken)
		b.write(func(tx *meta.Tx) error { _, err := b.EnablePrincipal(tx, p.ID, true); return err })
		b.pass(time.Hour + 4*time.Minute)
		if _, err = b.Authenticate(t.Context(), token); err != nil {
			t.Error("clocks may be five minutes apart:", err)
		}
		b.pass(2 * time.Minute)
		_, err = b.Authenticate(t.Context(), token)
		wantFault(t, err, fault.InvalidToken)
		token = b.token(p, armAudience)
		b.pass(-4 * time.Minute)
		if _, err = b.Authenticate(t.Context(), token); err != nil {
			t.Error("clocks may be five minutes apart:", err)
		}
		b.pass(-2 * time.Minute)
		_, err = b.Authenticate(t.Context(), token)
		wantFault(t, err, fault.InvalidToken)
		b.pass(6 * time.Minute)
		b.write(func(tx *meta.Tx) error { _, err := b.DeletePrincipal(tx, p.ID); return err })
		_, err = b.Authenticate(t.Context(), token)
		wantFault(t, err, fault.InvalidToken)
	})
}

// Only tokens for the resource manager's own names open it: with and without a slash, on any port.
func TestAudiences(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		p, _ := b.principal(identity.User, "ada@example.com", "", name.ResourceID{})
		for audience, want := range map[string]identity.Resource{
			"https://localhost:8443/": identity.ResourceManager, "https://localhost:8443": identity.ResourceManager, "https://LOCALHOST": identity.ResourceManager,
			"https://arm.example.com/": identity.ResourceManager, "https://127.0.0.1:9": identity.ResourceManager,
			"https://localhost/graph/": identity.Graph, "https://containerregistry.azure.net": identity.ContainerRegistry,
			"https://containerregistry.azure.net/": identity.ContainerRegistry,
			"http://localhost/":                    identity.NoResource, "https://localhost.example.com/": identity.NoResource, "https://example.com/": identity.NoResource,
			"https://localhost/other": identity.NoResource, "https://x@localhost:1/": identity.NoResource, "https://localhost/?x": identity.NoResource, "": identity.NoResource, "::": identity.NoResource,
		} {
			if got := b.ResourceOf(audience); got != want {
				t.Errorf("ResourceOf(%q) is %v, want %v", audience, got, want)
			}
			_, err := b.Authenticate(t.Context(), b.token(p, audience))
			if opens := err == nil; opens != (want == identity.ResourceManager) {
				t.Errorf("a token for %q: %v", audience, err)
			}
		}
	})
}

// No token is taken for one of another purpose.
func TestPurposes(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		row := b.registry("contoso")
		p, _ := b.principal(identity.User, "ada@example.com", identity.RoleOwner, name.ResourceID{})
		ctx := t.Context()
		tokens := map[string]string{"access": b.token(p, armAudience)}
		for what, make := range map[string]func() (string, error){
			"refresh": func() (string, error) { return b.IssueRefresh(ctx, p) },
			"id": func() (string, error) {
				return b.IssueIDToken(ctx, b.first.Tenant, "https://sts.embargo/"+b.first.Tenant+"/", armAudience, p)
			},
			"registry refresh": func() (string, error) {
				var token string
				err := b.read(func(tx *meta.Tx) (err error) {
					token, err = b.IssueRegistryRefresh(ctx, tx, row, b.caller(p))
					return err
				})
				return token, err
			},
			"registry access": func() (string, error) {
				var token string
				err := b.read(func(tx *meta.Tx) (err error) {
					token, _, err = b.IssueAccess(ctx, tx, row, b.caller(p), identity.ParseScopes([]string{"repository:app:*"}))
					return err
				})
				return token, err
			},
		} {
			var err error
			if tokens[what], err = make(); err != nil {
				t.Fatal(what, err)
			}
		}
		takers := map[string]func(token string) error{
			"access": func(token string) error { _, err := b.Authenticate(ctx, token); return err },
			"refresh": func(token string) error {
				return b.read(func(tx *meta.Tx) error { _, err := b.Refresh(ctx, tx, token); return err })
			},
			"registry refresh": func(token string) error {
				return b.read(func(tx *meta.Tx) error { _, err := b.VerifyRegistryRefresh(ctx, tx, row, token); return err })
			},
			"registry access": func(token string) error {
				return b.read(func(tx *meta.Tx) error { _, err := b.VerifyRegistryToken(ctx, tx, row, token); return err })
			},
		}
		for taker, take := range takers {
			for what, token := range tokens {
				err := take(token)
				if what == taker {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					continue
				}
				if !fault.Is(err, fault.InvalidToken) {
					t.Errorf("a token of the kind %s is taken for one of the kind %s: %v", what, taker, err)
				}
			}
		}
		for what, token := range tokens {
			if what == "access" {
				continue
			}
			err := b.read(func(tx *meta.Tx) error { _, _, err := b.ExchangeARM(ctx, tx, row, token); return err })
			wantFault(t, err, fault.InvalidToken)
		}
	})
}

// Whoever does not hold the installation's key makes no token, whatever the header says.
func TestForgedTokens(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		p, _ := b.principal(identity.User, "ada@example.com", "", name.ResourceID{})
		genuine := b.token(p, armAudience)
		parts := strings.Split(genuine, ".")
		body, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		set, err := b.JWKS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kid := set.Keys[0].KeyID
		public, err := x509.MarshalPKIXPublicKey(set.Keys[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signed := func(alg jose.SignatureAlgorithm, key any, o *jose.SignerOptions) string {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o.WithType("at+jwt"))
			if err != nil {
				t.Fatal(err)
			}
			jws, err := signer.Sign(body)
			if err != nil {
				t.Fatal(err)
			}
			token, err := jws.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt","kid":"` + kid + `"}`))
		var changed map[string]any
		if err := json.Unmarshal(body, &changed); err != nil {
			t.Fatal(err)
		}
		changed["oid"], changed["sub"] = b.first.Principal, b.first.Principal
		other, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		for what, token := range map[string]string{
			"nothing":                       "",
			"no token":                      "a.b.c",
			"another key under our kid":     signed(jose.ES256, jose.JSONWebKey{Key: own, KeyID: kid}, &jose.SignerOptions{}),
			"another key, unknown kid":      signed(jose.ES256, jose.JSONWebKey{Key: own, KeyID: "x"}, &jose.SignerOptions{}),
			"another key, which it brings":  signed(jose.ES256, own, &jose.SignerOptions{EmbedJWK: true}),
			"no kid":                        signed(jose.ES256, own, &jose.SignerOptions{}),
			"our public key as HMAC secret": signed(jose.HS256, jose.JSONWebKey{Key: public, KeyID: kid}, &jose.SignerOptions{}),
			"no signature":                  unsigned + "." + parts[1] + ".",
			"no algorithm, our signature":   unsigned + "." + parts[1] + "." + parts[2],
			"another payload":               parts[0] + "." + base64.RawURLEncoding.EncodeToString(other) + "." + parts[2],
			"cut":                           genuine[:len(genuine)-4],
			"too long":                      genuine + strings.Repeat("A", 20<<10),
		} {
			if _, err := b.Authenticate(t.Context(), token); !fault.Is(err, fault.InvalidToken) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := b.Authenticate(t.Context(), genuine); err != nil {
			t.Error(err)
		}
	})
}

// Rotation keeps the tokens of the keys before until they have all expired, however often it is done; revoking ends them at once, also where they were seen
// before, and on other nodes.
func TestRotateKeys(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		services := []*identity.Service{b.Service}
		if !b.db.SoleWriter() {
			services = append(services, b.another(b.db))
		}
		p, _ := b.principal(identity.User, "ada@example.com", "", name.ResourceID{})
		good := func(token string, want bool) {
			t.Helper()
			for _, s := range services {
				if _, err := s.Authenticate(t.Context(), token); (err == nil) != want {
					t.Errorf("%v, want %v", err, want)
				}
			}
		}
		recorded := ""
		rotate := func(revoke bool) {
			kid, err := b.RotateKeys(t.Context(), revoke, func(_ *meta.Tx, kid string) error { recorded = kid; return nil })
			if err != nil || kid != recorded {
				t.Fatal(kid, recorded, err)
			}
			b.pass(time.Minute)
		}
		var tokens []string
		for range 3 {
			tokens = append(tokens, b.token(p, armAudience))
			for _, token := range tokens {
				good(token, true)
			}
			rotate(false)
		}
		for _, token := range tokens {
			good(token, true)
		}
		// As if all that had been more than a day ago: at the next rotation the keys whose last token has expired go, and the one that signed until now stays.
		err := b.db.Write(t.Context(), func(tx *meta.Tx) error {
			_, err := tx.Exec(`UPDATE signing_keys SET created_us = created_us - $1`, (25 * time.Hour).Microseconds())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		last := b.token(p, armAudience)
		rotate(false)
		good(tokens[0], false)
		good(tokens[2], false)
		good(last, true)
		before := recorded
		rotate(true)
		good(last, false)
		if recorded == before {
			t.Error("revoking made no new key")
		}
		rotate(false)
		set, err := b.JWKS(t.Context())
		if err != nil || len(set.Keys) != 2 || set.Keys[0].KeyID != recorded {
			t.Fatalf("%+v, %v", set, err)
		}
		text, err := json.Marshal(set)
		if err != nil || strings.Contains(string(text), `"d"`) {
			t.Errorf("the published keys hold the private half: %s, %v", text, err)
		}
	})
}

// A key that lies in the database is sealed: without the installation key there are no tokens.
func TestKeysAreSealed(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		stranger, err := meta.NewKeyring(t.TempDir() + "/other")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := identity.New(t.Context(), identity.Options{DB: b.db, Keyring: stranger}); err == nil || !strings.Contains(err.Error(), b.keyring.KeyID()) {
			t.Errorf("a service opened with another installation key: %v", err)
		}
	})
}

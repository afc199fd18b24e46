// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// keySet is the signing keys that are live, newest first: the first signs, all verify.
type keySet struct {
	read time.Time
	kids []string
	keys map[string]*ecdsa.PrivateKey
}

const (
	// oldestToken is how long after a key's last use something that it signed may still be valid.
	oldestToken = RefreshTokenLife + 2*leeway
	// keysFresh is how long a set read from the database is believed: other nodes rotate too.
	keysFresh = 15 * time.Second
)

func keyPurpose(kid string) string { return "signing-key:" + kid }

// loadKeys reads the live keys and makes the first one.
func (s *Service) loadKeys(ctx context.Context) error {
	set, err := s.readKeys(ctx, nil)
	if err != nil {
		return err
	}
	if len(set.kids) == 0 {
		err := s.db.Write(ctx, func(tx *meta.Tx) error {
			var n int
			if err := tx.Row(`SELECT COUNT(*) FROM signing_keys`).Scan(&n); err != nil || n > 0 {
				return err
			}
			return s.addKey(tx)
		})
		if err != nil {
			return err
		}
		if set, err = s.readKeys(ctx, nil); err != nil {
			return err
		}
	}
	s.keys.Store(set)
	return nil
}

// readKeys reads the live keys in tx, or in a transaction of its own when tx is nil.
func (s *Service) readKeys(ctx context.Context, tx *meta.Tx) (*keySet, error) {
	set := &keySet{read: s.clock(), keys: map[string]*ecdsa.PrivateKey{}}
	read := func(tx *meta.Tx) error {
		set.kids = nil
		rows, err := tx.Query(`SELECT kid, sealed FROM signing_keys ORDER BY created_us DESC, kid`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var kid string
			var sealed []byte
			if err := rows.Scan(&kid, &sealed); err != nil {
				return err
			}
			der, err := s.keyring.Open(keyPurpose(kid), sealed)
			if err != nil {
				return err
			}
			key, err := x509.ParseECPrivateKey(der)
			if err != nil {
				return err
			}
			set.kids, set.keys[kid] = append(set.kids, kid), key
		}
		return rows.Err()
	}
	if tx != nil {
		return set, read(tx)
	}
	return set, s.db.Read(ctx, read)
}

func (s *Service) addKey(tx *meta.Tx) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(public)
	kid := base64.RawURLEncoding.EncodeToString(sum[:12])
	sealed, err := s.keyring.Seal(keyPurpose(kid), der)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO signing_keys (kid, sealed, state, created_us) VALUES ($1, $2, 'live', $3)`, kid, sealed, meta.Micros(tx.Now()))
	return err
}

// RotateKeys makes a new signing key. Those before it verify on until what they signed has expired; revoke removes them at once, so that every token is void. It
// returns the new key's id; also runs in the same transaction.
func (s *Service) RotateKeys(ctx context.Context, revoke bool, also func(tx *meta.Tx, kid string) error) (string, error) {
	kid := ""
	err := s.db.Write(ctx, func(tx *meta.Tx) error {
		if revoke {
			if _, err := tx.Exec(`DELETE FROM signing_keys`); err != nil {
				return err
			}
		}
		if err := s.addKey(tx); err != nil {
			return err
		}
		if err := tx.Row(`SELECT kid FROM signing_keys ORDER BY created_us DESC, kid LIMIT 1`).Scan(&kid); err != nil {
			return err
		}
		// A key's last use was when its successor was made.
		if _, err := tx.Exec(`DELETE FROM signing_keys WHERE created_us < (SELECT MAX(n.created_us) FROM signing_keys n WHERE n.created_us < $1)`,
			meta.Micros(tx.Now().Add(-oldestToken))); err != nil {
			return err
		}
		if also == nil {
			return nil
		}
		return also(tx, kid)
	})
	if err != nil {
		return "", err
	}
	s.verified.Purge()
	return kid, s.loadKeys(ctx)
}

// live gives the keys, read anew when they may have changed elsewhere.
func (s *Service) live(ctx context.Context, tx *meta.Tx, kid string) (*keySet, error) {
	set := s.keys.Load()
	if _, known := set.keys[kid]; (kid == "" || known) && (s.db.SoleWriter() || s.clock().Sub(set.read) < keysFresh) {
		return set, nil
	}
	if kid != "" && set.keys[kid] == nil && s.clock().Sub(set.read) < time.Second {
		return set, nil // an unknown kid must not make every request read
	}
	set, err := s.readKeys(ctx, tx)
	if err != nil {
		return nil, err
	}
	s.keys.Store(set)
	return set, nil
}

// JWKS is the public half of the live keys (RFC 7517).
func (s *Service) JWKS(ctx context.Context) (jose.JSONWebKeySet, error) {
	set, err := s.live(ctx, nil, "")
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	var out jose.JSONWebKeySet
	for _, kid := range set.kids {
		out.Keys = append(out.Keys, jose.JSONWebKey{Key: &set.keys[kid].PublicKey, KeyID: kid, Algorithm: string(jose.ES256), Use: "sig"})
	}
	return out, nil
}

// sign makes a compact JWS of a payload with the newest key.
func (s *Service) sign(ctx context.Context, tx *meta.Tx, typ string, payload []byte) (string, error) {
	set, err := s.live(ctx, tx, "")
	if err != nil {
		return "", err
	}
	if len(set.kids) == 0 {
		return "", errors.New("identity: there is no signing key")
	}
	kid := set.kids[0]
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: set.keys[kid], KeyID: kid}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// verify checks a compact JWS of a type: ES256 only, by a live key named in it. It gives the payload and the key's id. Errors: InvalidToken.
func (s *Service) verify(ctx context.Context, tx *meta.Tx, token, typ string) ([]byte, string, error) {
	if len(token) > 16<<10 {
		return nil, "", errToken("is too long to be one of this installation's")
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, "", errToken("can't be read").Because(err)
	}
	header := jws.Signatures[0].Protected
	kid := header.KeyID
	if kid == "" {
		return nil, "", errToken("names no key")
	}
	if header.ExtraHeaders[jose.HeaderType] != typ {
		return nil, "", errToken("is for another purpose")
	}
	set, err := s.live(ctx, tx, kid)
	if err != nil {
		return nil, "", err
	}
	key := set.keys[kid]
	if key == nil {
		return nil, "", errToken("is signed by a key that is not live any more")
	}
	payload, err := jws.Verify(&key.PublicKey)
	if err != nil {
		return nil, "", errToken("has a wrong signature").Because(err)
	}
	return payload, kid, nil
}

func errToken(what string) *fault.Fault {
	return fault.New(fault.InvalidToken, "The access token %s. Log in again.", what)
}

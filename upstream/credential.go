// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// Credentials are a user name and password for one upstream.
type Credentials struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// SecretPrefix begins the names of the secrets that this package keeps.
const SecretPrefix = "upstream/"

// SealedPrefix begins what is shown in place of a value that was given and sealed.
const SealedPrefix = "embargo:sealed/"

// Sealed reports whether an identifier stands for a value that was sealed before.
func Sealed(identifier string) bool { return strings.HasPrefix(identifier, SealedPrefix) }

// ReadIdentifier reads the value that a secret identifier carries: a data URI (RFC 2397), since there is no Key Vault to ask. Errors: InvalidParameter.
func ReadIdentifier(identifier, at string) (string, error) {
	media, value, ok := strings.Cut(identifier, ",")
	media, data := strings.CutPrefix(media, "data:")
	if !ok || !data {
		return "", fault.New(fault.InvalidParameter, "The secret can't be read: this installation has no Key Vault. Give the value itself as a data URI, such as 'data:,my-user' (percent-encoded) or "+
			"'data:;base64,bXktdXNlcg=='; it is sealed and never shown again.").At(at)
	}
	var plain string
	var err error
	if strings.HasSuffix(media, ";base64") {
		var b []byte
		b, err = base64.StdEncoding.DecodeString(value)
		plain = string(b)
	} else {
		plain, err = url.PathUnescape(value)
	}
	if err != nil || plain == "" || len(plain) > 16<<10 || strings.ContainsAny(plain, "\r\n\x00") {
		return "", fault.New(fault.InvalidParameter, "The data URI holds no value that can be a user name or a password: it is empty, too long, has line breaks, or is not encoded as it says.").At(at)
	}
	return plain, nil
}

// PutCredentials seals the credentials of a set (its ARM id) for an upstream. id is the set's identity.
func PutCredentials(tx *meta.Tx, ring *meta.Keyring, id, resource, host string, c Credentials) error {
	plain, err := json.Marshal(c)
	if err != nil {
		return err
	}
	sealed, err := ring.Seal(SecretPrefix+id, plain)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO credential_sets (id, resource_key, host) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET host = excluded.host`, id, strings.ToLower(resource), host)
	if err != nil {
		return err
	}
	return tx.PutSecret(SecretPrefix+id, sealed)
}

// FindCredentials gives the identity of a set and the upstream that it is for, by its ARM id. Errors: meta.ErrNotFound.
func FindCredentials(tx *meta.Tx, resource string) (id, host string, err error) {
	err = tx.Row(`SELECT id, host FROM credential_sets WHERE resource_key = $1`, strings.ToLower(resource)).Scan(&id, &host)
	return id, host, err
}

// OpenCredentials opens a set's credentials by its identity. Errors: meta.ErrNotFound when they were lost with an installation key.
func OpenCredentials(tx *meta.Tx, ring *meta.Keyring, id string) (c Credentials, err error) {
	sealed, err := tx.Secret(SecretPrefix + id)
	if err != nil {
		return c, err
	}
	plain, err := ring.Open(SecretPrefix+id, sealed)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(plain, &c)
}

// RemoveCredentials takes a set away with its secret.
func RemoveCredentials(tx *meta.Tx, resource string) error {
	id, _, err := FindCredentials(tx, resource)
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	}
	if err == nil {
		_, err = tx.Exec(`DELETE FROM credential_sets WHERE id = $1`, id)
	}
	if err == nil {
		err = tx.DeleteSecret(SecretPrefix + id)
	}
	return err
}

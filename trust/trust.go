// SPDX-License-Identifier: Apache-2.0

// Package trust is whom a registry's content is trusted from: the stores of certificates and identities, and the verification of Notary Project signatures by them.
// It hides the table of the stores and both envelopes, and opens no connection: neither revocation lists nor time-stamp authorities are asked.
//
// It promises that what does not verify by one store alone does not verify, and that a verdict ends no later than any certificate that it rests on.
package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/embargo-registry/embargo/meta"
)

// MostStores is how many stores a registry may have, MostCertificates how many certificates are in one, MostIdentities how many identities.
const (
	MostStores       = 20
	MostCertificates = 100
	MostIdentities   = 100
)

// Row is a store as it is kept.
type Row struct {
	// Registry is the identity of the registry that the store is of, Resource its own ARM id.
	Registry, Resource string
	// Certificates are PEM texts, Identities as ParseIdentities takes them.
	Certificates, Identities []string
}

// Store is a store as it verifies.
type Store struct {
	Name         string
	Certificates []*x509.Certificate
	Identities   []Identity
}

// Put writes a store.
func Put(tx *meta.Tx, r Row) error {
	certificates, err := json.Marshal(r.Certificates)
	if err != nil {
		return err
	}
	identities, err := json.Marshal(r.Identities)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s", strings.ToLower(r.Resource), certificates, identities))
	_, err = tx.Exec(`INSERT INTO trust_stores (resource_key, resource_id, registry, certificates, identities, generation) VALUES ($1, $2, $3, $4, $5, $6)
 ON CONFLICT (resource_key) DO UPDATE SET resource_id = excluded.resource_id, registry = excluded.registry, certificates = excluded.certificates,
  identities = excluded.identities, generation = excluded.generation`,
		strings.ToLower(r.Resource), r.Resource, r.Registry, string(certificates), string(identities), hex.EncodeToString(sum[:]))
	return err
}

// Remove takes a store away; one that is not there is no error.
func Remove(tx *meta.Tx, resource string) error {
	_, err := tx.Exec(`DELETE FROM trust_stores WHERE resource_key = $1`, strings.ToLower(resource))
	return err
}

// Generation names the content of all stores of a registry together: another content has another name. "" is that there is no store.
func Generation(tx *meta.Tx, registry string) (string, error) {
	rows, err := tx.Query(`SELECT generation FROM trust_stores WHERE registry = $1 ORDER BY generation`, registry)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	all := sha256.New()
	some := false
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			return "", err
		}
		some = true
		if _, err := all.Write([]byte(one)); err != nil {
			return "", err
		}
	}
	if !some {
		return "", rows.Err()
	}
	return hex.EncodeToString(all.Sum(nil)), rows.Err()
}

// Stores reads the stores of a registry.
func Stores(tx *meta.Tx, registry string) ([]Store, error) {
	rows, err := tx.Query(`SELECT resource_id, certificates, identities FROM trust_stores WHERE registry = $1 ORDER BY resource_key`, registry)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Store
	for rows.Next() {
		var resource, certificates, identities string
		if err := rows.Scan(&resource, &certificates, &identities); err != nil {
			return nil, err
		}
		s, err := read(resource, certificates, identities)
		if err != nil {
			return nil, fmt.Errorf("trust store %s: %w", resource, err)
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

func read(resource, certificates, identities string) (Store, error) {
	s := Store{Name: resource[strings.LastIndexByte(resource, '/')+1:]}
	var texts, subjects []string
	if err := json.Unmarshal([]byte(certificates), &texts); err != nil {
		return s, err
	}
	for _, text := range texts {
		list, err := ParseCertificates(text)
		if err != nil {
			return s, err
		}
		s.Certificates = append(s.Certificates, list...)
	}
	if err := json.Unmarshal([]byte(identities), &subjects); err != nil {
		return s, err
	}
	var err error
	s.Identities, err = ParseIdentities(subjects)
	return s, err
}

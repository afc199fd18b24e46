// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"

	"github.com/embargo-registry/embargo/meta"
)

// sealedRow is a secret of this package as its row has it.
type sealedRow struct {
	table, key, name string // name is "" but for admin passwords
	purpose          string
	sealed           []byte
}

func sealedRows(tx *meta.Tx) ([]sealedRow, error) {
	var all []sealedRow
	for table, query := range map[string]string{
		"signing_keys":    `SELECT kid, '', sealed FROM signing_keys ORDER BY kid`,
		"admin_passwords": `SELECT registry, name, sealed FROM admin_passwords ORDER BY registry, name`,
	} {
		rows, err := tx.Query(query)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			r := sealedRow{table: table}
			if err := rows.Scan(&r.key, &r.name, &r.sealed); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			if r.purpose = keyPurpose(r.key); table == "admin_passwords" {
				r.purpose = adminPurpose(r.key, r.name)
			}
			all = append(all, r)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Sealed says what of this package ring does not open, in words; a nil ring opens nothing.
func Sealed(tx *meta.Tx, ring *meta.Keyring) (lost []string, err error) {
	rows, err := sealedRows(tx)
	if err != nil {
		return nil, err
	}
	keys := 0
	registries := map[string]bool{}
	for _, r := range rows {
		switch {
		case ring.Opens(r.purpose, r.sealed):
		case r.table == "signing_keys":
			keys++
		default:
			registries[r.key] = true
		}
	}
	if keys > 0 {
		lost = append(lost, fmt.Sprintf("%d signing keys: tokens are void, and everyone logs in again", keys))
	}
	all, err := tx.Registries()
	for _, r := range all {
		if registries[r.ID] {
			lost = append(lost, fmt.Sprintf("the admin user's passwords of the registry '%s': new ones are made, and its users must get them", r.Name))
		}
	}
	return lost, err
}

// ForgetSealed removes what ring does not open: signing keys and admin passwords, which are made anew when they are needed.
func ForgetSealed(tx *meta.Tx, ring *meta.Keyring) error {
	rows, err := sealedRows(tx)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if ring.Opens(r.purpose, r.sealed) {
			continue
		}
		if r.table == "signing_keys" {
			_, err = tx.Exec(`DELETE FROM signing_keys WHERE kid = $1`, r.key)
		} else {
			_, err = tx.Exec(`DELETE FROM admin_passwords WHERE registry = $1 AND name = $2`, r.key, r.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Reseal seals what this package keeps by the ring's newest key.
func Reseal(tx *meta.Tx, ring *meta.Keyring) error {
	rows, err := sealedRows(tx)
	if err != nil {
		return err
	}
	for _, r := range rows {
		again, err := ring.Reseal(r.purpose, r.sealed)
		if err != nil {
			return err
		}
		if r.table == "signing_keys" {
			_, err = tx.Exec(`UPDATE signing_keys SET sealed = $1 WHERE kid = $2`, again, r.key)
		} else {
			_, err = tx.Exec(`UPDATE admin_passwords SET sealed = $1 WHERE registry = $2 AND name = $3`, again, r.key, r.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

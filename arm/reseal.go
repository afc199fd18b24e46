// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"strings"

	"github.com/embargo-registry/embargo/meta"
)

// Reseal writes every document that holds secrets anew, sealed by the keyring's newest key. Nothing else of it changes.
func (e *Engine) Reseal(m *meta.Tx) error {
	tx := &Tx{e: e, m: m}
	tx.world = e.worldOf(tx)
	for _, r := range e.types {
		if !r.sealed || r.rows != nil {
			continue
		}
		list, err := e.scanAll(m.Query("SELECT "+columns+" FROM resources WHERE type = $1 ORDER BY key", strings.ToLower(r.name)))
		if err != nil {
			return err
		}
		for _, s := range list {
			if err := e.save(tx, s, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"context"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// The epoch of a registry's row grows with every write, whatever the writer says.
func TestRegistryEpochGrows(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		err := db.Write(context.Background(), func(tx *meta.Tx) error {
			for i := range 3 {
				e, err := tx.PutRegistry(meta.RegistryRow{ID: "x", ResourceID: "/A", Name: "n", LoginServer: "l"})
				if err != nil {
					return err
				}
				if e != int64(i+1) {
					t.Errorf("write %d has epoch %d", i+1, e)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

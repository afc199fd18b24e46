// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// Nodes that share a database share the authority, a restart keeps it, and without the installation's key it stays shut.
func TestAuthorityIsShared(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		hosts, err := NewHosts([]string{"localhost"}, "azurecr.localhost")
		if err != nil {
			t.Fatal(err)
		}
		ring, err := meta.NewKeyring(filepath.Join(t.TempDir(), "key"))
		if err != nil {
			t.Fatal(err)
		}
		db := open()
		one, made, err := LoadAuthority(context.Background(), db, ring, hosts, time.Now)
		if err != nil || !made {
			t.Fatal(made, err)
		}
		two, made, err := LoadAuthority(context.Background(), db, ring, hosts, time.Now)
		if err != nil || made {
			t.Fatal(made, err)
		}
		if !bytes.Equal(one.PEM(), two.PEM()) {
			t.Error("the second load gave another authority")
		}
		if left := time.Until(one.cert.NotAfter); left < 9*365*24*time.Hour {
			t.Errorf("the authority lives for %v", left)
		}
		other, err := meta.NewKeyring(filepath.Join(t.TempDir(), "key"))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := LoadAuthority(context.Background(), db, other, hosts, time.Now); err == nil {
			t.Error("another key opened the authority")
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"testing"

	"github.com/embargo-registry/embargo/network"
)

func TestMemberHost(t *testing.T) {
	for _, c := range []struct{ server, member, host string }{
		{"mine.azurecr.localhost", "registry", "mine.azurecr.localhost"},
		{"Mine.azurecr.localhost", "registry_data_WestUS", "mine.westus.data.azurecr.localhost"},
		{"mine-0123456789abcdef.registry.example.com", "registry_data_westus", "mine-0123456789abcdef.westus.data.registry.example.com"},
		{"mine.azurecr.localhost", "registry_data_", ""}, {"mine.azurecr.localhost", "blob", ""}, {"mine", "registry_data_westus", ""},
	} {
		if got := network.MemberHost(c.server, c.member); got != c.host {
			t.Errorf("%s of %s: %q, want %q", c.member, c.server, got, c.host)
		}
	}
}

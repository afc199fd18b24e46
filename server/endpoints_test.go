// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/netip"
	"testing"

	"github.com/embargo-registry/embargo/network"
)

// A door at an address of the machine's own needs an interface, or clients that are not everybody.
func TestOutside(t *testing.T) {
	own := addresses{device: map[string]string{"10.0.0.5": "eth1"}}
	for _, c := range []struct {
		address, device string
		clients         []string
		refused         bool
	}{
		{address: "10.0.0.5:443", refused: true},
		{address: "10.0.0.6:443"},
		{address: "10.0.0.5:443", device: "eth1"},
		{address: "10.0.0.5:443", clients: []string{"10.0.0.0/24"}},
		{address: "10.0.0.5:443", clients: []string{"10.0.0.0/24", "0.0.0.0/0"}, refused: true},
		{address: "10.0.0.5:443", clients: []string{"::/0"}, refused: true},
		{address: "10.0.0.5:443", clients: []string{"::ffff:0.0.0.0/96"}, refused: true},
	} {
		var l network.Limits
		for _, p := range c.clients {
			l.Clients = append(l.Clients, netip.MustParsePrefix(p))
		}
		if err := own.outside(wanted{address: c.address, device: c.device}, l); (err != nil) != c.refused {
			t.Errorf("%s by %q for %v: %v", c.address, c.device, c.clients, err)
		}
	}
}

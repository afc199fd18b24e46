// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/embargo-registry/embargo/meta"
)

// BenchmarkDecision is all that the network adds to a request: finding its connection and deciding twice, before the caller is known and by the gate. The registry has
// 200 IP rules, the most there can be, of which the last fits, or as many private endpoints.
func BenchmarkDecision(b *testing.B) {
	var rules []netip.Prefix
	row := meta.RegistryRow{Name: "factory", PublicAccess: true, DefaultDeny: true}
	for n := range 199 {
		rules = append(rules, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}), 32))
		row.Endpoints = append(row.Endpoints, fmt.Sprintf("00000000-0000-0000-0000-%012d", n))
	}
	row.IPRules = meta.NewRanges(append(rules, netip.MustParsePrefix("127.0.0.1/32"))...)
	row.Endpoints = append(row.Endpoints, "00000000-0000-0000-0000-999999999999")
	for _, zone := range []Zone{{Kind: Public, Door: "public"}, {Kind: Private, Door: "pe", Registry: "factory", Endpoint: row.Endpoints[199]}} {
		b.Run(zone.Kind.String(), func(b *testing.B) {
			doors, err := NewDoors(nil)
			if err != nil {
				b.Fatal(err)
			}
			d, err := doors.Listen(b.Context(), "127.0.0.1:0", DoorOptions{Zone: zone})
			if err != nil {
				b.Fatal(err)
			}
			client, err := net.Dial("tcp", d.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			socket, err := d.accept()
			if err != nil {
				b.Fatal(err)
			}
			c := d.admit(socket, nil)
			defer func() { _ = c.Close(); d.Stop() }()
			r := &http.Request{RemoteAddr: c.RemoteAddr().String()}
			for b.Loop() {
				p := doors.Peer(r)
				for range 2 {
					if err := Enter(row, p); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

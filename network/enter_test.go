// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

func TestEnter(t *testing.T) {
	rules := func(s ...string) meta.Ranges {
		var out []netip.Prefix
		for _, r := range s {
			out = append(out, netip.MustParsePrefix(r))
		}
		return meta.NewRanges(out...)
	}
	open := meta.RegistryRow{Name: "mine", PublicAccess: true}
	closed := meta.RegistryRow{Name: "mine", IPRules: rules("203.0.113.0/24"), Endpoints: []string{"e0", "e1"}}
	deny := meta.RegistryRow{Name: "mine", PublicAccess: true, DefaultDeny: true, IPRules: rules("203.0.113.0/24", "2001:db8::/32", "::ffff:198.51.100.0/120")}
	public := Zone{Kind: Public, Door: "public"}
	for _, c := range []struct {
		name  string
		row   meta.RegistryRow
		zone  Zone
		addr  string
		enter bool
	}{
		{"open registry", open, public, "192.0.2.1:1", true},
		{"closed registry", closed, public, "192.0.2.1:1", false},
		{"closed registry, address in a rule", closed, public, "203.0.113.7:1", false},
		{"deny, address in a rule", deny, public, "203.0.113.7:1", true},
		{"deny, mapped address in a rule", deny, public, "[::ffff:203.0.113.7]:1", true},
		{"deny, address in a mapped rule", deny, public, "198.51.100.9:1", true},
		{"deny, IPv6 address in a rule", deny, public, "[2001:db8::5]:1", true},
		{"deny, address outside", deny, public, "203.0.114.1:1", false},
		{"deny, IPv6 outside", deny, public, "[2001:db9::5]:1", false},
		{"allow by default ignores rules", meta.RegistryRow{Name: "mine", PublicAccess: true, IPRules: rules("203.0.113.0/24")}, public, "192.0.2.1:1", true},
		{"private door of the registry, closed", closed, Zone{Kind: Private, Registry: "mine"}, "10.0.0.1:1", true},
		{"private door of the registry, deny", deny, Zone{Kind: Private, Registry: "mine"}, "10.0.0.1:1", true},
		{"private door of another", open, Zone{Kind: Private, Registry: "other"}, "10.0.0.1:1", false},
		{"private door of none, nameless row", meta.RegistryRow{PublicAccess: true}, Zone{Kind: Private}, "10.0.0.1:1", false},
		{"private endpoint that is approved", closed, Zone{Kind: Private, Registry: "mine", Endpoint: "e1"}, "10.0.0.1:1", true},
		{"private endpoint that is not", closed, Zone{Kind: Private, Registry: "mine", Endpoint: "e2"}, "10.0.0.1:1", false},
		{"private endpoint, a registry made anew under the name", open, Zone{Kind: Private, Registry: "mine", Endpoint: "e1"}, "10.0.0.1:1", false},
		{"an endpoint's id in no zone", closed, Zone{Endpoint: "e1"}, "10.0.0.1:1", false},
		{"an endpoint's id on a public door", closed, Zone{Kind: Public, Endpoint: "e1"}, "10.0.0.1:1", false},
		{"no zone", open, Zone{}, "10.0.0.1:1", false},
	} {
		err := Enter(c.row, &Peer{Zone: c.zone, Addr: netip.MustParseAddrPort(c.addr)})
		if (err == nil) != c.enter {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && !fault.Is(err, fault.FirewallDenied) {
			t.Errorf("%s: not a firewall fault: %v", c.name, err)
		}
	}
	if err := Enter(open, nil); !fault.Is(err, fault.FirewallDenied) {
		t.Errorf("no peer at all: %v", err)
	}
	foreign := &Peer{Zone: public, Addr: netip.MustParseAddrPort("203.0.113.7:1"), by: "vpce-unknown"}
	if Enter(deny, foreign) == nil || Enter(open, foreign) != nil {
		t.Error("by a link that nobody knows: an address of a foreign network fits a rule, or what is open is closed")
	}
	err := Enter(closed, &Peer{Zone: public, Addr: netip.MustParseAddrPort("[::ffff:203.0.113.7]:1")})
	want := "client with IP '203.0.113.7' is not allowed access. Refer https://aka.ms/acr/firewall to grant access."
	if got := fault.From(err).Message; got != want || strings.Contains(got, "ffff") {
		t.Errorf("the text is %q", got)
	}
}

func TestWidened(t *testing.T) {
	row := func(public, deny bool, rules ...string) meta.RegistryRow {
		var out []netip.Prefix
		for _, r := range rules {
			out = append(out, netip.MustParsePrefix(r))
		}
		return meta.RegistryRow{PublicAccess: public, DefaultDeny: deny, IPRules: meta.NewRanges(out...)}
	}
	for _, c := range []struct {
		name        string
		before, now meta.RegistryRow
		want        bool
	}{
		{"nothing changed", row(true, true, "203.0.113.0/24"), row(true, true, "203.0.113.0/24"), true},
		{"a rule more", row(true, true, "203.0.113.0/24"), row(true, true, "192.0.2.0/24", "203.0.113.0/24"), true},
		{"a rule less", row(true, true, "192.0.2.0/24", "203.0.113.0/24"), row(true, true, "203.0.113.0/24"), false},
		{"a narrower rule", row(true, true, "203.0.113.0/24"), row(true, true, "203.0.113.0/25"), false},
		{"no rule any more", row(true, true, "203.0.113.0/24"), row(true, false), true},
		{"rules where there was none", row(true, false), row(true, true, "0.0.0.0/0", "::/0"), false},
		{"rules that were not in force", row(true, false, "203.0.113.0/24"), row(true, true, "203.0.113.0/24"), false},
		{"closed", row(true, false), row(false, false), false},
		{"closed, with the rules", row(true, true, "203.0.113.0/24"), row(false, true, "203.0.113.0/24"), false},
	} {
		if got := Widened(c.before, c.now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

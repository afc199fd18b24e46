// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"slices"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// Enter says whether the connection may reach the registry at all, before anyone asks who is calling. It is pure. A private
// door enters its own registry and no other; the door of a private endpoint enters the registry that has approved this endpoint, by identity and not by name. On a public door publicNetworkAccess Disabled refuses everyone, whatever the
// IP rules say; defaultAction Deny admits only the addresses of the rules. Errors: fault.FirewallDenied with the service's text.
func Enter(row meta.RegistryRow, p *Peer) error {
	if p == nil {
		p = &Peer{}
	}
	switch p.Kind {
	case Private:
		if p.Endpoint != "" {
			if _, approved := slices.BinarySearch(row.Endpoints, p.Endpoint); approved {
				return nil
			}
			break
		}
		if p.Registry != "" && p.Registry == row.Name {
			return nil
		}
	case Public:
		// Whoever came by a private link that nobody knows has an address of a foreign network, which its owner numbers as he likes.
		if row.PublicAccess && (!row.DefaultDeny || p.by == "" && row.IPRules.Contain(p.Addr.Addr())) {
			return nil
		}
	}
	return denied(row, p)
}

// Widened reports whether now lets in every address that before let in, on the public side.
func Widened(before, now meta.RegistryRow) bool {
	return now.PublicAccess && (!now.DefaultDeny || before.DefaultDeny && now.IPRules.Cover(before.IPRules))
}

// Refusal is the rule that let a connection in no further, as the cause of the fault: "publicNetworkAccess", "networkRuleSet.ipRules" or "privateEndpointConnections". It is for records; the client is not
// told.
type Refusal string

func (r Refusal) Error() string { return "refused by " + string(r) }

func refusal(row meta.RegistryRow, p *Peer) Refusal {
	switch {
	case p.Kind == Private:
		return "privateEndpointConnections"
	case p.Kind == Public && row.PublicAccess:
		return "networkRuleSet.ipRules"
	}
	return "publicNetworkAccess"
}

func denied(row meta.RegistryRow, p *Peer) error {
	ip := "unknown"
	if p.Addr.IsValid() {
		ip = p.Addr.Addr().Unmap().WithZone("").String()
	}
	return fault.New(fault.FirewallDenied,
		"client with IP '%s' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.", ip).Because(refusal(row, p))
}

// listed compares as the address family of the client: a rule written in IPv4-mapped form means the IPv4 range.
func listed(rules []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, rule := range rules {
		if rule.Addr().Is4In6() && rule.Bits() >= 96 {
			rule = netip.PrefixFrom(rule.Addr().Unmap(), rule.Bits()-96)
		}
		if rule.Contains(addr) {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

// Package space reckons with the addresses of virtual networks: prefixes, what lies in them, and which address is given out next. It is pure, and
// knows IPv4 alone.
package space

import (
	"net/netip"

	"github.com/embargo-registry/embargo/fault"
)

// Prefix reads an address prefix of the resource id. Errors, with no target: InvalidPrefix, InvalidCIDR when the address has bits beyond its length, NotSupported for IPv6.
func Prefix(text, id string) (netip.Prefix, *fault.Fault) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fault.New(fault.InvalidPrefix, "The address prefix %.100q of the resource %s is not formatted correctly. It is an IPv4 address, a slash and a length, such as 10.0.0.0/24.", text, id)
	case !p.Addr().Is4():
		return p, fault.New(fault.NotSupported, "The address prefix %s of the resource %s is of IPv6. Virtual networks have IPv4 addresses alone here: leave it out.", text, id)
	case p.Masked() != p:
		return p, fault.New(fault.InvalidCIDR, "The address prefix %s in resource %s has an invalid CIDR notation. For the given prefix length, the address prefix should be %s.", text, id, p.Masked())
	}
	return p, nil
}

// unusable are the ranges that a virtual network can't have addresses of. Source: Azure Virtual Network FAQ, "What address ranges can I use in my virtual networks"; "This network" and "Reserved" of RFC 6890
// besides. Loopback is not among them: a trial on one machine has nothing else.
var unusable = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("168.63.129.16/32"), "the platform's own address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved addresses, broadcast"},
}

// Usable refuses a prefix of the resource id that has an address which no virtual network can have. Errors, with no target: InvalidParameter.
func Usable(p netip.Prefix, id string) *fault.Fault {
	for _, r := range unusable {
		if r.prefix.Overlaps(p) {
			return fault.New(fault.InvalidParameter, "The address prefix %s of the resource %s has addresses of %s (%s), which virtual networks can't have. Choose another one, such as 10.0.0.0/16.", p, id, r.prefix, r.what)
		}
	}
	return nil
}

// The lengths that a subnet's prefix may have. Source: Azure Virtual Network, "How small and how large can subnets be".
const (
	Shortest = 2
	Longest  = 29
)

// Within reports whether one of the prefixes holds p.
func Within(p netip.Prefix, all []netip.Prefix) bool {
	for _, a := range all {
		if a.Bits() <= p.Bits() && a.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// Reserved reports whether an address is one of the first four of a subnet, or its last. Source: Azure Virtual Network, "Are there any restrictions on
// using IP addresses within these subnets".
func Reserved(p netip.Prefix, a netip.Addr) bool {
	n, first := number(a), number(p.Addr())
	last := first | (1<<(32-p.Bits()) - 1)
	return n-first < 4 || n == last
}

// Free are the first n addresses of a subnet that are neither reserved nor taken, fewer where there are no more.
func Free(p netip.Prefix, n int, taken map[netip.Addr]bool) []netip.Addr {
	var free []netip.Addr
	for a := p.Addr(); len(free) < n && p.Contains(a); a = a.Next() {
		if !Reserved(p, a) && !taken[a] {
			free = append(free, a)
		}
	}
	return free
}

func number(a netip.Addr) uint64 {
	b := a.As4()
	return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
}

// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// Ranges are ranges of addresses, made to be asked at each request. The zero value has none. They never change.
type Ranges struct {
	list []netip.Prefix
	set  *netipx.IPSet
}

// NewRanges takes the ranges in their order. A range in IPv4-mapped form means the IPv4 range; one that is not valid has no address.
func NewRanges(list ...netip.Prefix) Ranges {
	if len(list) == 0 {
		return Ranges{}
	}
	var b netipx.IPSetBuilder
	for _, p := range list {
		if !p.IsValid() {
			continue
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		b.AddPrefix(p)
	}
	set, _ := b.IPSet() // only what is not valid could make it fail
	return Ranges{slices.Clone(list), set}
}

// List are the ranges as they were given.
func (r Ranges) List() []netip.Prefix { return slices.Clone(r.list) }

// Contain reports whether an address is in one of the ranges. An IPv4-mapped address is the IPv4 address.
func (r Ranges) Contain(a netip.Addr) bool {
	return r.set != nil && r.set.Contains(a.Unmap().WithZone(""))
}

// Cover reports whether each address in the ranges of o is in one of these.
func (r Ranges) Cover(o Ranges) bool {
	if o.set == nil || r.Equal(o) {
		return true
	}
	return !slices.ContainsFunc(o.set.Prefixes(), func(p netip.Prefix) bool { return r.set == nil || !r.set.ContainsPrefix(p) })
}

// Equal reports whether both are the same ranges in the same order.
func (r Ranges) Equal(o Ranges) bool { return slices.Equal(r.list, o.list) }

// String lists the ranges.
func (r Ranges) String() string { return fmt.Sprint(r.list) }

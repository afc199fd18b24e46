// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/embargo-registry/embargo/meta"
)

func TestRanges(t *testing.T) {
	t.Parallel()
	list := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/25"), netip.MustParsePrefix("198.51.100.7/32"), {}, netip.MustParsePrefix("203.0.113.16/28"),
		netip.MustParsePrefix("::ffff:192.0.2.0/120"), netip.MustParsePrefix("2001:db8::/32")}
	r := meta.NewRanges(list...)
	for address, in := range map[string]bool{
		"203.0.113.0": true, "203.0.113.127": true, "203.0.113.128": false, "203.0.112.255": false, "203.0.113.20": true, "::ffff:203.0.113.20": true,
		"198.51.100.7": true, "198.51.100.8": false, "192.0.2.255": true, "::ffff:192.0.2.1": true, "192.0.3.0": false,
		"2001:db8::5": true, "2001:db8::5%eth0": true, "2001:db9::": false, "0.0.0.0": false, "::": false,
	} {
		if got := r.Contain(netip.MustParseAddr(address)); got != in {
			t.Errorf("%s: %v", address, got)
		}
	}
	if r.Contain(netip.Addr{}) || (meta.Ranges{}).Contain(netip.MustParseAddr("203.0.113.1")) {
		t.Error("no address, or no ranges")
	}
	if fmt.Sprint(r) != fmt.Sprint(list) || !r.Equal(meta.NewRanges(list...)) || r.Equal(meta.NewRanges(list[1:]...)) {
		t.Error(r)
	}
	halves := meta.NewRanges(netip.MustParsePrefix("203.0.113.0/26"), netip.MustParsePrefix("203.0.113.64/26"))
	none := meta.Ranges{}
	if !r.Cover(halves) || !halves.Cover(meta.NewRanges(list[0])) || halves.Cover(r) || !r.Cover(r) || !r.Cover(none) || none.Cover(halves) || !none.Cover(none) ||
		r.Cover(meta.NewRanges(netip.MustParsePrefix("203.0.113.0/24"))) {
		t.Error("which ranges are within others")
	}
	r.List()[0], list[0] = netip.Prefix{}, netip.Prefix{}
	if !r.List()[0].IsValid() {
		t.Error("they changed")
	}
}

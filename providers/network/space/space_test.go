// SPDX-License-Identifier: Apache-2.0

package space_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/providers/network/space"
)

func TestPrefix(t *testing.T) {
	for text, kind := range map[string]fault.Kind{
		"10.0.0.0/16": -1, "0.0.0.0/0": -1, "10.0.0.4/30": -1, "10.1.2.3/32": -1,
		"10.0.0.1/16": fault.InvalidCIDR, "10.0.0.0": fault.InvalidPrefix, "10.0.0.0/33": fault.InvalidPrefix, "": fault.InvalidPrefix, "10.0.0.0/08": fault.InvalidPrefix,
		"010.0.0.0/8": fault.InvalidPrefix, "fd00::/8": fault.NotSupported, "::ffff:10.0.0.0/104": fault.NotSupported,
	} {
		p, f := space.Prefix(text, "/v")
		if kind == -1 && (f != nil || p.String() != text) || kind != -1 && (f == nil || f.Kind != kind) {
			t.Errorf("%q: %v, %v", text, p, f)
		}
	}
}

// What Azure refuses is refused, also as a part of a larger prefix, but for loopback.
func TestUsable(t *testing.T) {
	for text, usable := range map[string]bool{
		"10.0.0.0/8": true, "127.0.0.0/8": true, "192.0.2.0/24": true, "64.0.0.0/2": true, "168.63.129.0/28": true,
		"0.0.0.0/0": false, "0.0.0.0/8": false, "0.1.0.0/16": false, "169.254.0.0/16": false, "169.254.169.0/24": false, "169.0.0.0/8": false, "168.63.129.16/32": false, "168.63.129.0/24": false,
		"224.0.0.0/4": false, "239.1.0.0/16": false, "240.0.0.0/8": false, "255.255.255.255/32": false,
	} {
		f := space.Usable(netip.MustParsePrefix(text), "/v")
		if usable && f != nil || !usable && (f == nil || f.Kind != fault.InvalidParameter) {
			t.Errorf("%s: %v", text, f)
		}
	}
}

// Of each subnet the first four addresses and the last are never given out, and none that is taken.
func TestFree(t *testing.T) {
	for _, c := range []struct {
		prefix string
		n      int
		taken  []string
		free   string
	}{
		{"10.0.0.0/29", 5, nil, "[10.0.0.4 10.0.0.5 10.0.0.6]"},
		{"10.0.0.8/29", 2, nil, "[10.0.0.12 10.0.0.13]"},
		{"10.0.0.0/29", 2, []string{"10.0.0.4"}, "[10.0.0.5 10.0.0.6]"},
		{"10.0.0.0/29", 2, []string{"10.0.0.4", "10.0.0.6"}, "[10.0.0.5]"},
		{"255.255.255.248/29", 9, nil, "[255.255.255.252 255.255.255.253 255.255.255.254]"},
		{"10.0.0.0/24", 1, []string{"10.0.0.4", "10.0.0.5", "10.0.1.6"}, "[10.0.0.6]"},
		{"0.0.0.0/2", 1, nil, "[0.0.0.4]"},
	} {
		taken := map[netip.Addr]bool{}
		for _, a := range c.taken {
			taken[netip.MustParseAddr(a)] = true
		}
		if got := fmt.Sprint(space.Free(netip.MustParsePrefix(c.prefix), c.n, taken)); got != c.free {
			t.Errorf("%s: %s, want %s", c.prefix, got, c.free)
		}
	}
}

func TestWithin(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.2.0.0/24")}
	for text, in := range map[string]bool{"10.0.0.0/16": true, "10.0.255.0/24": true, "10.2.0.128/25": true, "10.2.0.0/23": false, "10.0.0.0/15": false, "10.1.0.0/24": false} {
		if space.Within(netip.MustParsePrefix(text), all) != in {
			t.Errorf("%s: it should be %v", text, in)
		}
	}
}

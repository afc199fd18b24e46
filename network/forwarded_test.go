// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// X-Forwarded-For counts from a trusted proxy alone, for the address alone, and only as far as trusted proxies wrote it.
func TestForwardedFor(t *testing.T) {
	h := newHouse(t)
	public := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "public"}}, h.says())
	private := h.open(t, DoorOptions{Zone: Zone{Kind: Private, Door: "p", Registry: "mine"}}, h.says())
	for _, c := range []struct {
		trusted string
		door    *Door
		header  []string
		want    string
	}{
		{"10.0.0.0/8", public, []string{"192.0.2.1"}, "public/public||127.0.0.1:"},
		{"127.0.0.1/32", public, nil, "public/public||127.0.0.1:"},
		{"127.0.0.1/32", public, []string{"192.0.2.1"}, "public/public||192.0.2.1:0"},
		{"127.0.0.1/32", public, []string{"10.0.0.1, 192.0.2.1"}, "public/public||192.0.2.1:0"},
		{"127.0.0.1/32", public, []string{"10.0.0.1", "::ffff:192.0.2.9"}, "public/public||192.0.2.9:0"},
		{"127.0.0.0/8", public, []string{"192.0.2.1, 127.0.0.7"}, "public/public||192.0.2.1:0"},
		{"127.0.0.1/32", public, []string{"192.0.2.1, private"}, "public/public||[::]:0"},
		{"127.0.0.1/32", public, []string{"unknown"}, "public/public||[::]:0"},
		{"127.0.0.1/32", public, []string{""}, "public/public||[::]:0"},
		{"127.0.0.1/32", public, []string{"192.0.2.1, "}, "public/public||[::]:0"},
		{"127.0.0.1/32", public, []string{"10.0.0.1, 192.0.2.1:4711"}, "public/public||192.0.2.1:0"},
		{"127.0.0.1/32", public, []string{"[2001:db8::1]:443"}, "public/public||[2001:db8::1]:0"},
		{"127.0.0.1/32", public, []string{"[2001:db8::1]"}, "public/public||[2001:db8::1]:0"},
		{"127.0.0.1/32", private, []string{"192.0.2.1"}, "private/p|mine|127.0.0.1:"},
	} {
		h.doors.Trust([]netip.Prefix{netip.MustParsePrefix(c.trusted)})
		got, _ := get(t, h.client(""), "http://"+c.door.Addr().String(), func(r *http.Request) { r.Header["X-Forwarded-For"] = c.header })
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s trusted, %q: %s, want %s", c.trusted, c.header, got, c.want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
)

// forwardedKept bounds the callers that are told apart on one connection of a trusted proxy; beyond, they are made anew.
const forwardedKept = 256

// Trust says which reverse proxies' X-Forwarded-For counts on public doors: for the caller's address and for nothing else. The zone stays the connection's.
func (ds *Doors) Trust(proxies []netip.Prefix) { ds.trusted.Store(&proxies) }

// callers are the peers of one connection of a trusted proxy, by their address.
type callers struct {
	mu  sync.Mutex
	all map[netip.Addr]*Peer
}

// forwarded is the peer that a trusted proxy speaks for; p itself when p is none, or speaks for itself (no header). A header that can't be read gives a caller without an address
// ("::"), whom no IP rule names: it is not the proxy.
func (ds *Doors) forwarded(p *Peer, r *http.Request) *Peer {
	trusted := ds.trusted.Load()
	if trusted == nil || len(*trusted) == 0 || p.Kind != Public || p.link == nil || !listed(*trusted, p.Addr.Addr()) {
		return p
	}
	caller := p.Addr.Addr()
	header := r.Header.Values("X-Forwarded-For")
	if len(header) == 0 {
		return p
	}
	names := strings.Split(strings.Join(header, ","), ",")
	for i := len(names) - 1; i >= 0 && listed(*trusted, caller); i-- {
		caller = forwardedAddr(strings.TrimSpace(names[i]))
	}
	if caller == p.Addr.Addr() {
		return p
	}
	c := &p.link.callers
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.all[caller]; known != nil {
		return known
	}
	if c.all == nil || len(c.all) >= forwardedKept {
		c.all = map[netip.Addr]*Peer{}
	}
	q := *p
	q.Addr, q.ID = netip.AddrPortFrom(caller, 0), p.ID+"/"+caller.String()
	c.all[caller] = &q
	return &q
}

// forwardedAddr is the address of an entry of X-Forwarded-For, as proxies write it: alone, in brackets, or with a port; :: when it is none.
func forwardedAddr(text string) netip.Addr {
	if with, err := netip.ParseAddrPort(text); err == nil {
		return with.Addr().Unmap().WithZone("")
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text = strings.TrimSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return a.Unmap().WithZone("")
}

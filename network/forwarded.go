// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// forwardedKept bounds the callers that are told apart on one connection of a trusted proxy; beyond, they are made anew.
const forwardedKept = 256

// Trust says which reverse proxies' X-Forwarded-For counts on public doors: for the caller's address and for nothing else. The zone stays the connection's. A connection on which a proxy
// was believed that is trusted no longer is reset, with what is under way on it.
func (ds *Doors) Trust(proxies []netip.Prefix) {
	ds.trusted.Store(&proxies)
	ds.mu.Lock()
	var gone []*Peer
	for _, p := range ds.live {
		if p.link.callers.doubtful(p.Addr.Addr(), proxies) {
			gone = append(gone, p)
		}
	}
	ds.mu.Unlock()
	for _, p := range gone {
		p.Reset()
	}
}

// callers are the peers of one connection of a trusted proxy, by their address.
type callers struct {
	mu  sync.Mutex
	all map[netip.Addr]*Peer
	// through are the proxies before the connection's own that were believed too, as many as forwardedKept; more: there were more.
	through []netip.Addr
	more    bool
}

// doubtful reports whether somebody was believed on the connection of proxy who is not trusted.
func (c *callers) doubtful(proxy netip.Addr, trusted []netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all) > 0 && (c.more || !listed(trusted, proxy) || slices.ContainsFunc(c.through, func(a netip.Addr) bool { return !listed(trusted, a) }))
}

func (c *callers) believe(through netip.Addr) {
	switch {
	case slices.Contains(c.through, through):
	case len(c.through) == forwardedKept:
		c.more = true
	default:
		c.through = append(c.through, through)
	}
}

// forwarded is the peer that a trusted proxy speaks for; p itself when p is none, or speaks for itself (no header). A header that can't be read gives a caller without an address
// ("::"), whom no IP rule names: it is not the proxy. The address that a load balancer tells is none of a trusted proxy's: it may be of a network that is numbered alike.
func (ds *Doors) forwarded(p *Peer, r *http.Request) *Peer {
	for {
		trusted := ds.trusted.Load()
		q := forwarded(trusted, p, r)
		if ds.trusted.Load() == trusted {
			return q
		}
		// Trust may have passed over what this connection was believed.
	}
}

func forwarded(trusted *[]netip.Prefix, p *Peer, r *http.Request) *Peer {
	if trusted == nil || len(*trusted) == 0 || p.Kind != Public || p.link == nil || p.via.IsValid() || !listed(*trusted, p.Addr.Addr()) {
		return p
	}
	caller := p.Addr.Addr()
	var through []netip.Addr
	header := r.Header.Values("X-Forwarded-For")
	if len(header) == 0 {
		return p
	}
	names := strings.Split(strings.Join(header, ","), ",")
	for i := len(names) - 1; i >= 0 && listed(*trusted, caller); i-- {
		if caller != p.Addr.Addr() {
			through = append(through, caller)
		}
		caller = forwardedAddr(strings.TrimSpace(names[i]))
	}
	if caller == p.Addr.Addr() {
		return p
	}
	c := &p.link.callers
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range through {
		c.believe(a)
	}
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

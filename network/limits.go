// SPDX-License-Identifier: Apache-2.0

package network

import "net/netip"

// Limits bound who may connect to a door, and how many at a time.
type Limits struct {
	// MaxConnections is how many connections may be open (default 16384); further ones are closed at once.
	MaxConnections int
	// Clients are the addresses that may connect; none: all. Others are closed at once.
	Clients []netip.Prefix
	// From are the load balancers of a door with Links; none: nobody.
	From []netip.Prefix
	// Closed, when it is set, is why every connection is closed at once.
	Closed string
}

func (l Limits) complete() *Limits {
	if l.MaxConnections == 0 {
		l.MaxConnections = 16384
	}
	return &l
}

// Lets reports whether an address is among the clients.
func (l Limits) Lets(addr netip.Addr) bool { return len(l.Clients) == 0 || listed(l.Clients, addr) }

// admits reports why an address may not connect; "" when it may.
func (l *Limits) admits(addr netip.Addr, open int64) string {
	switch {
	case l.Closed != "":
		return l.Closed
	case !l.Lets(addr):
		return "client"
	case open > int64(l.MaxConnections):
		return "limit"
	}
	return ""
}

// keeps reports why a connection that stands may stay no longer.
func (l *Limits) keeps(p *Peer, open int64) string {
	if p.via.IsValid() && !listed(l.From, p.via.Addr()) {
		return "proxy-source"
	}
	if p.via == p.Addr {
		l = &Limits{MaxConnections: l.MaxConnections, Closed: l.Closed} // a load balancer's own connection is no client's
	}
	return l.admits(p.Addr.Addr(), open)
}

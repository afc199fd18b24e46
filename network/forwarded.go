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

// forwarded is the peer that a trusted proxy speaks for; p itself when it is none, or names nobody.
func (ds *Doors) forwarded(p *Peer, r *http.Request) *Peer {
	trusted := ds.trusted.Load()
	if trusted == nil || len(*trusted) == 0 || p.Kind != Public || p.link == nil || !listed(*trusted, p.Addr.Addr()) {
		return p
	}
	caller := p.Addr.Addr()
	names := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(names) - 1; i >= 0 && listed(*trusted, caller); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(names[i]))
		if err != nil {
			return p
		}
		caller = next.Unmap().WithZone("")
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

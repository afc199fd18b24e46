// SPDX-License-Identifier: Apache-2.0

// Package network knows by which door a connection came in, and who may enter a registry.
//
// It hides listeners, TLS certificates, the CONNECT proxy and the bookkeeping of live connections. It promises that a
// connection's zone and address are facts of the accepted socket: no header, no server name and no byte a client sends can
// change them. It refuses whatever it cannot place: a connection it does not know is in no zone and enters nothing.
//
// On a plain-text door the connection that net/http writes to still is an io.ReaderFrom onto *net.TCPConn, so that a file
// copied to a response leaves by sendfile.
//
// Because net/http repeats nothing of a connection but its remote address, doors make that text unique per connection
// ("192.0.2.7:5123#41"). Request.RemoteAddr is therefore a key and not an address: ask Doors.Peer for the address.
package network

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// ZoneKind says from which side of the perimeter a connection came.
type ZoneKind int

// The kinds of zone. The zero value is in no zone and enters nothing.
const (
	Unknown ZoneKind = iota
	Public
	Private
)

// String is the word used in logs and audit records.
func (k ZoneKind) String() string {
	switch k {
	case Public:
		return "public"
	case Private:
		return "private"
	}
	return "unknown"
}

// Zone is where a connection stands. Door is the listener's name; Registry is the lower-case name of the one registry that
// a private door serves, "" on a public door. Endpoint is the id of the private endpoint that the door stands for, "" elsewhere: such a
// connection reaches the registry that has approved this endpoint, and no other that has come to the name since. Resource is that endpoint's ARM id.
type Zone struct {
	Kind     ZoneKind
	Door     string
	Registry string
	Endpoint string
	Resource string
}

// String is "public", "private" or "unknown", and the door: "private/factory".
func (z Zone) String() string {
	if z.Door == "" {
		return z.Kind.String()
	}
	return z.Kind.String() + "/" + z.Door
}

// Peer is one live connection: its zone and its client's address, taken from the accepted socket. Addr is unmapped (an
// IPv4 client is IPv4 on every socket). TLS says that the client speaks TLS, to us or to the terminator that the door's
// configuration names. ID is unique among all connections of all nodes. Safe for concurrent use.
type Peer struct {
	Zone
	Addr netip.AddrPort
	TLS  bool
	ID   string

	door *Door
	link *link
	via  netip.AddrPort // the load balancer's address where Addr is from its PROXY header
	by   string         // the private link that the header names
}

// link is what can be done to a peer's connection.
type link struct {
	reset func()
	once  sync.Once
	gone  chan struct{}
	end   sync.Once
	// waits says that no handler has begun since the last request was answered, cut that the connection was reset.
	waits, cut atomic.Bool

	callers callers
}

// Reset closes the connection beneath TLS with SO_LINGER 0: bytes that the kernel has not sent are discarded and the
// client sees a reset. It returns when the socket is closed. Calling it again, or on a peer without a connection, is harmless.
func (p *Peer) Reset() {
	if p == nil || p.link == nil {
		return
	}
	p.link.once.Do(p.link.reset)
}

// Gone is closed when the connection is closed, by either side. On a peer without a connection it is nil.
func (p *Peer) Gone() <-chan struct{} {
	if p == nil || p.link == nil {
		return nil
	}
	return p.link.gone
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/netip"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/network"
)

// actionConnect is the action in the record of a connection that was closed, or of a request that was refused, before anyone asked whose it is.
const actionConnect = "Embargo.Containment/connect/action"

// refusals say why a connection was closed, by its reason.
var refusals = map[string]string{
	"limit":        "The listener holds as many connections as it may (maxConnections).",
	"client":       "The client's address is not among those that may connect (clients).",
	"interface":    "The connection came in by a network interface that is not its virtual network's (interfaces).",
	"host":         "The TLS handshake names a host that is none of this installation's.",
	"proxy-source": "The door is for load balancers, and the address is not one of them (from).",
	"proxy-header": "The load balancer sent no whole header of the PROXY protocol, version 2.",
	"proxy-slots":  "Too many connections have not said yet where they want to go.",
	"connect":      "The CONNECT proxy tunnels to the installation's own names only.",
}

// refusedConnection counts and records a connection that was closed before it was served.
func (s *Server) refusedConnection(z network.Zone, client netip.AddrPort, reason string) {
	s.metrics.refused.WithLabelValues(label(z), reason).Inc()
	s.put(client, audit.Record{Kind: audit.Decision, Action: actionConnect, Outcome: audit.Refused, Rule: reason, Reason: refusals[reason],
		Source: audit.Source{Address: client.String(), Zone: z.String(), Endpoint: s.endpointOf(z)}})
}

// refusedRequest counts and records a request that was refused by the rules of the network.
func (s *Server) refusedRequest(address string, r audit.Record) {
	s.metrics.rules.WithLabelValues(r.Rule).Inc()
	if t := s.tally.Load(); t != nil {
		t.Refused(address, r)
	}
}

// failedLogin records a login that proved nobody, with the others of its address.
func (s *Server) failedLogin(r audit.Record) {
	address := r.Source.Address
	if at, err := netip.ParseAddrPort(address); err == nil {
		address = at.Addr().String()
	}
	if t := s.tally.Load(); t != nil {
		t.Refused(address, r)
	}
}

func (s *Server) put(client netip.AddrPort, r audit.Record) {
	s.metrics.rules.WithLabelValues(r.Rule).Inc()
	if t := s.tally.Load(); t != nil { // nothing is accepted before it is there
		t.Refused(client.Addr().String(), r)
	}
}

// misdirected records a request for a host that is not served on its connection.
func (s *Server) misdirected(p *network.Peer, reason string) {
	s.put(p.Addr, audit.Record{Kind: audit.Decision, Action: actionConnect, Outcome: audit.Refused, Rule: "host", Reason: reason,
		Source: audit.Source{Address: p.Addr.String(), Zone: p.Zone.String(), Endpoint: s.endpointOf(p.Zone)}})
}

// endpointOf is the private endpoint of a zone, "" where it is none's.
func (s *Server) endpointOf(z network.Zone) string {
	e := s.entrances.Load().find(func(e entrance) bool { return z.Endpoint != "" && e.zone.Endpoint == z.Endpoint })
	if e == nil {
		return ""
	}
	return e.resource
}

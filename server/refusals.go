// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net"
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
	"connect":      "The CONNECT proxy tunnels to the installation's own names, and does nothing else.",
	"tls":          "No TLS handshake was completed: the client speaks something else, or only an older TLS, or did not take the certificate.",
	"request":      "What came is not a whole request that HTTP allows: one Host, and a header within the bounds.",
	"dns":          "The resolver answers single questions for the installation's own names, and those of a virtual network are for its clients.",
}

// refusedConnection counts and records a connection that was closed before it was served.
func (s *Server) refusedConnection(z network.Zone, client netip.AddrPort, reason string) {
	s.metrics.refused.WithLabelValues(label(z), reason).Inc()
	s.put(client, audit.Record{Kind: audit.Decision, Action: actionConnect, Outcome: audit.Refused, Rule: reason, Reason: refusals[reason],
		Source: audit.Source{Address: client.String(), Zone: z.String(), Endpoint: z.Resource}})
}

// questionsApart is how many addresses are kept apart that ask a resolver what it does not answer: whoever sends a question by UDP may give any address, and each would be a record.
const questionsApart = 64

// refusedQuestion counts and records a question that a resolver did not answer: one of everybody's, or of a virtual network.
func (s *Server) refusedQuestion(id string, client net.Addr, rule, reason string) {
	s.metrics.rules.WithLabelValues(rule).Inc()
	t := s.questions.Load()
	from, err := netip.ParseAddrPort(client.String())
	if err != nil || t == nil {
		return
	}
	z, o := network.Zone{Kind: network.Public, Door: "dns"}, s.options()
	if v := o.virtualNetwork(id); v != nil {
		z.Door = "dns/" + v.name()
	}
	t.Refused(from.Addr().Unmap().String(), audit.Record{Kind: audit.Decision, Action: actionConnect, Outcome: audit.Refused, Rule: rule, Reason: reason,
		Source: audit.Source{Address: from.String(), Zone: z.String()}})
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

// refusedAt counts and records a request that was refused before it was asked whose it is.
func (s *Server) refusedAt(p *network.Peer, rule, reason string) {
	s.put(p.Addr, audit.Record{Kind: audit.Decision, Action: actionConnect, Outcome: audit.Refused, Rule: rule, Reason: reason,
		Source: audit.From(p, "")})
}

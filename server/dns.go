// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/providers/containerregistry/registries"
)

// DNS says how the installation answers for its names itself. The zero value answers nowhere.
type DNS struct {
	// Listen is where everybody is answered; "" or "off": nowhere. Public are the addresses that the names of registries have there; none: NXDOMAIN.
	Listen string
	Public []netip.Addr
	// Networks are the resolver addresses of virtual networks.
	Networks []DNSNetwork
	// TTL is how long an answer may be kept (0: 10 s).
	TTL time.Duration
}

// DNSNetwork is the resolver address of a virtual network.
type DNSNetwork struct{ Network, Listen string }

// The bounds of the DNS server: how many questions are answered at a time, how long an answer may take, and a connection over TCP wait.
const (
	dnsAtATime = 256
	dnsAnswer  = 2 * time.Second
	dnsIdle    = 5 * time.Second
	dnsSize    = 1232 // bytes of a message by UDP, where the client takes so many: no way is too narrow for it
)

func (o *Options) completeDNS() error {
	d := &o.DNS
	if d.TTL == 0 {
		d.TTL = 10 * time.Second
	}
	if d.TTL < 0 || d.TTL > time.Hour {
		return option("dns", "ttl: %s is not between 0 and 1h: a name that was taken away would live on", d.TTL)
	}
	d.Networks = slices.Clone(d.Networks)
	taken := map[string]bool{}
	listen := func(address string) error {
		if err := bindable(address); err != nil {
			return &OptionError{"dns", err}
		}
		if taken[address] {
			return option("dns", "%s is given twice", address)
		}
		taken[address] = true
		return nil
	}
	if !off(d.Listen) {
		if err := listen(d.Listen); err != nil {
			return err
		}
	}
	for i, n := range d.Networks {
		d.Networks[i].Network = strings.ToLower(n.Network)
		if !slices.ContainsFunc(o.VirtualNetworks, func(v VirtualNetwork) bool { return v.ID == d.Networks[i].Network }) {
			return option("dns", "networks: %q is not among virtualNetworks", n.Network)
		}
		if err := listen(n.Listen); err != nil {
			return err
		}
	}
	return nil
}

// inside reports whether a client is of the resolver's network as the options have it now: they may have changed since it was bound to its interface.
func (r *resolver) inside(client net.Addr) bool {
	o := r.s.options()
	v := o.virtualNetwork(r.network)
	from, err := netip.ParseAddrPort(client.String())
	return v != nil && err == nil && (len(v.Interfaces) == 0 || slices.Contains(v.Interfaces, r.device)) && network.Limits{Clients: v.Clients}.Lets(from.Addr())
}

// question takes in whatever is no answer.
func question(h dns.Header) dns.MsgAcceptAction {
	const answer = 1 << 15 // RFC 1035, section 4.1.1: QR
	if h.Bits&answer != 0 {
		return dns.MsgIgnore
	}
	return dns.MsgAccept
}

// full tells of what came when the resolver had enough.
func (r *resolver) full(client net.Addr) {
	r.s.refusedQuestion(r.network, client, "limit", "The resolver answers as many questions at a time, and holds as many connections, as it may.")
}

// ServeDNS answers one question.
func (r *resolver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	if r.bound() != nil {
		return // it came by another interface
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		r.full(w.RemoteAddr())
		return // the client asks again
	}
	ctx, cancel := context.WithTimeout(context.Background(), dnsAnswer)
	defer cancel()
	a := r.answer(ctx, q, w.RemoteAddr())
	switch a.Rcode {
	case dns.RcodeRefused, dns.RcodeNotImplemented, dns.RcodeFormatError, dns.RcodeBadVers:
		r.s.refusedQuestion(r.network, w.RemoteAddr(), "dns", refusals["dns"])
	}
	size := dns.MinMsgSize
	if theirs := q.IsEdns0(); theirs != nil { // RFC 6891, section 7
		size = min(max(int(theirs.UDPSize()), size), dnsSize)
		a.SetEdns0(dnsSize, false)
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		a.Truncate(size)
	}
	_ = w.WriteMsg(a)
}

// answer is what is said to a client's q. Recursion is not offered, and zones are not handed out. At the address of a virtual network, who is not of it is told what everybody is.
func (r *resolver) answer(ctx context.Context, q *dns.Msg, client net.Addr) *dns.Msg {
	a := new(dns.Msg)
	a.SetReply(q)
	switch theirs := q.IsEdns0(); {
	case q.Opcode != dns.OpcodeQuery:
		a.Rcode = dns.RcodeNotImplemented
		return a
	case len(q.Question) != 1:
		a.Rcode = dns.RcodeFormatError
		return a
	case theirs != nil && theirs.Version() != 0:
		a.Rcode = dns.RcodeBadVers
		return a
	}
	ask := q.Question[0]
	inside := r.network != "" && r.inside(client)
	switch {
	case ask.Qtype == dns.TypeAXFR || ask.Qtype == dns.TypeIXFR || ask.Qclass != dns.ClassINET || !dns.IsSubDomain(dns.Fqdn(r.s.hosts.Suffix()), strings.ToLower(ask.Name)),
		r.network != "" && !inside && off(r.s.options().DNS.Listen):
		a.Rcode = dns.RcodeRefused
		return a
	}
	a.Authoritative = true
	addresses, exists, err := r.look(ctx, inside, strings.TrimSuffix(strings.ToLower(ask.Name), "."))
	if err != nil {
		r.s.log.Warn("a DNS question was not answered", "error", err)
		a.Authoritative, a.Rcode = false, dns.RcodeServerFailure
		return a
	}
	ttl := uint32(r.s.options().DNS.TTL / time.Second)
	zone := dns.Fqdn(r.s.hosts.Suffix())
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl}, Ns: zone, Mbox: "hostmaster." + zone,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl}
	if !exists {
		a.Rcode = dns.RcodeNameError
	}
	for _, address := range addresses {
		head := dns.RR_Header{Name: ask.Name, Class: dns.ClassINET, Ttl: ttl}
		switch {
		case (ask.Qtype == dns.TypeA || ask.Qtype == dns.TypeANY) && address.Is4():
			head.Rrtype = dns.TypeA
			a.Answer = append(a.Answer, &dns.A{Hdr: head, A: address.AsSlice()})
		case (ask.Qtype == dns.TypeAAAA || ask.Qtype == dns.TypeANY) && address.Is6():
			head.Rrtype = dns.TypeAAAA
			a.Answer = append(a.Answer, &dns.AAAA{Hdr: head, AAAA: address.AsSlice()})
		}
	}
	switch {
	case (ask.Qtype == dns.TypeSOA || ask.Qtype == dns.TypeANY) && strings.EqualFold(ask.Name, zone):
		a.Answer = append(a.Answer, soa)
	case len(a.Answer) == 0:
		a.Ns = append(a.Ns, soa)
	}
	return a
}

// look finds the addresses of a name: inside a virtual network those of its endpoint, elsewhere the public ones. exists says that the name is there, be it without an
// address. A registry may be called privatelink: its name is also above others.
func (r *resolver) look(ctx context.Context, inside bool, name string) (addresses []netip.Addr, exists bool, err error) {
	addresses, exists, err = r.registry(ctx, inside, r.s.hosts.Lookup(name))
	return addresses, exists || r.s.above(name), err
}

// registry is look for a name of a registry.
func (r *resolver) registry(ctx context.Context, inside bool, t network.Target) (addresses []netip.Addr, exists bool, err error) {
	if t.Registry == "" {
		return nil, false, nil
	}
	if t.Role == network.DataHost {
		_, there, err := r.s.region(ctx, t)
		if errors.Is(err, meta.ErrNotFound) {
			err = nil
		}
		if err != nil || !there {
			return nil, false, err
		}
	}
	if inside {
		if e := r.s.entrances.Load().find(func(e entrance) bool { return e.network == r.network && e.host == t.Registry }); e != nil {
			member := "registry"
			if t.Role == network.DataHost {
				member = dataMember(t.Region)
			}
			for _, a := range e.addresses {
				if a.Member == member {
					addresses = append(addresses, a.Address)
				}
			}
			return addresses, len(addresses) > 0, nil
		}
	}
	public := r.s.options().DNS.Public
	if t.Private || len(public) == 0 {
		return nil, false, nil
	}
	err = r.s.db.Read(ctx, func(tx *meta.Tx) error {
		_, err := tx.RegistryByLabel(t.Registry)
		return err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil, false, nil
	}
	return public, err == nil, err
}

// region is the row of the registry of the target's name, and whether it has the target's region: as its home, or by a replication. Errors: meta.ErrNotFound.
func (s *Server) region(ctx context.Context, t network.Target) (row meta.RegistryRow, there bool, err error) {
	err = s.rooms.engine.Read(ctx, identity.Caller{}, func(tx *arm.Tx) (err error) {
		if row, err = tx.Meta().RegistryByLabel(t.Registry); err != nil {
			return err
		}
		id, err := name.ParseResourceID(row.ResourceID)
		if err != nil {
			return err
		}
		there = slices.Contains(registries.Members(tx.World(), id, row.Location), dataMember(t.Region))
		return nil
	})
	return row, there, err
}

// dataMember is the member of a private endpoint that a region's data endpoint is.
func dataMember(region string) string { return "registry_data_" + region }

// above reports whether a name has names of registries below it and nothing else: the suffix, and [REGION.]data and privatelink under it. It is there, without addresses: a resolver that asks label by label
// would take its absence for that of all below it (RFC 8020).
func (s *Server) above(name string) bool {
	if name == s.hosts.Suffix() {
		return true
	}
	name, below := strings.CutSuffix(name, "."+s.hosts.Suffix())
	if !below {
		return false
	}
	if name == "privatelink" {
		return true
	}
	name = strings.TrimSuffix(name, ".privatelink")
	region, data := strings.CutSuffix(name, ".data")
	return name == "data" || data && !strings.Contains(region, ".")
}

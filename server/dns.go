// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
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

// place is where a resolver listens.
type place struct {
	network string // the virtual network that it is for; "" for everybody
	listen  string
	device  string // the network interface that it hears; "" for all
}

// resolvers are the places where the options want answers.
func (o *Options) resolvers() (all []place) {
	for _, n := range o.DNS.Networks {
		devices := []string{""}
		if v := o.virtualNetwork(n.Network); v != nil && len(v.Interfaces) > 0 {
			devices, _ = v.devices()
		}
		for _, device := range devices {
			all = append(all, place{n.Network, n.Listen, device})
		}
	}
	if !off(o.DNS.Listen) {
		all = append(all, place{listen: o.DNS.Listen})
	}
	return all
}

// resolver answers at one place, over UDP and TCP.
type resolver struct {
	place
	s       *Server
	address string // that it listens on
	slots   chan struct{}
	packets net.PacketConn
	stream  net.Listener
	servers []*dns.Server
	err     error // why it has no sockets
}

// openDNS binds the resolvers of the options.
func (s *Server) openDNS(ctx context.Context) error {
	s.closers = append(s.closers, func() error {
		for _, r := range s.resolvers {
			r.close()
		}
		return nil
	})
	for _, at := range s.o.resolvers() {
		r := &resolver{place: at, s: s, address: at.listen}
		s.resolvers = append(s.resolvers, r)
		if err := r.bind(ctx); err != nil {
			return &OptionError{"dns", err}
		}
	}
	return nil
}

func (r *resolver) bind(ctx context.Context) error {
	lc := net.ListenConfig{}
	if r.device != "" {
		lc.Control = network.OnInterface(r.device)
		lc.SetMultipathTCP(false)
	}
	var err error
	if r.packets, err = lc.ListenPacket(ctx, "udp", r.address); err != nil {
		return r.cannot(err)
	}
	r.address = r.packets.LocalAddr().String() // port 0: TCP has the one that UDP got
	if r.stream, err = lc.Listen(ctx, "tcp", r.address); err != nil {
		return r.cannot(err)
	}
	r.slots = make(chan struct{}, dnsAtATime)
	idle := func() time.Duration { return dnsIdle }
	r.servers = []*dns.Server{
		{PacketConn: r.packets, Handler: r, MsgAcceptFunc: question, UDPSize: dnsSize},
		{Listener: &capped{Listener: r.stream, slots: make(chan struct{}, dnsAtATime), full: r.full}, Handler: r, MsgAcceptFunc: question, ReadTimeout: dnsAnswer, WriteTimeout: dnsAnswer, IdleTimeout: idle, MaxTCPQueries: 128},
	}
	return nil
}

func (r *resolver) close() {
	if r.packets != nil {
		_ = r.packets.Close()
	}
	if r.stream != nil {
		_ = r.stream.Close()
	}
}

// bound is why the resolver does not hear the interface of its name.
func (r *resolver) bound() error {
	if r.device == "" || r.err != nil {
		return r.err
	}
	return errors.Join(network.StillOn(r.packets.(*net.UDPConn), r.device), network.StillOn(r.stream.(*net.TCPListener), r.device))
}

// reconcileResolvers binds the resolvers of the options that are not bound to an interface of its name: it was made anew, or has not been there yet, or is new in the options. Others end. The caller
// holds endpointsMu.
func (s *Server) reconcileResolvers(ctx context.Context) {
	s.mu.Lock()
	start, want := s.start, s.o.resolvers()
	s.mu.Unlock()
	if start == nil {
		return
	}
	stays, goes := map[place]*resolver{}, map[place]*resolver{}
	for _, r := range s.resolvers {
		if r.bound() == nil && slices.Contains(want, r.place) {
			stays[r.place] = r
			continue
		}
		goes[r.place] = r
		ending, cancel := context.WithTimeout(ctx, dnsAnswer)
		r.stop(ending)
		cancel()
	}
	var next []*resolver
	for _, w := range want {
		if r := stays[w]; r != nil {
			next = append(next, r)
			continue
		}
		r, was := &resolver{place: w, s: s, address: w.listen}, goes[w]
		if was != nil {
			r.address = was.address
		}
		if r.err = r.bind(ctx); r.err != nil {
			r.close()
		}
		next = append(next, r)
		switch {
		case r.err == nil:
			r.serve(start)
			s.log.Info("a resolver of a virtual network was bound", "network", r.network, "address", r.address, "interface", r.device)
		case was == nil || was.err == nil || was.err.Error() != r.err.Error():
			s.log.Error("a resolver of a virtual network could not be bound to its interface; the server goes on without it", "network", r.network, "address", r.address, "error", r.err)
		}
	}
	s.mu.Lock()
	s.resolvers = next
	s.mu.Unlock()
}

// resolversAstray reports whether a resolver is not bound to the interface of its name.
func (s *Server) resolversAstray() bool {
	s.mu.Lock()
	all := slices.Clone(s.resolvers)
	s.mu.Unlock()
	return slices.ContainsFunc(all, func(r *resolver) bool { return r.bound() != nil })
}

// resolversFailed is why resolvers do not answer.
func (s *Server) resolversFailed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, r := range s.resolvers {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("the resolver %s: %w", r.address, r.err))
		}
	}
	return errors.Join(errs...)
}

func (r *resolver) cannot(err error) error {
	if r.device == "" {
		return err
	}
	return fmt.Errorf("by the interface %s: %w", r.device, err)
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

// capped is a listener that holds so many connections at a time as it has slots; full hears of further ones, which are closed.
type capped struct {
	net.Listener
	slots chan struct{}
	full  func(client net.Addr)
}

type cappedConn struct {
	net.Conn
	leave func()
}

func (l *capped) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &cappedConn{c, sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			_ = c.Close()
			l.full(c.RemoteAddr())
		}
	}
}

func (c *cappedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
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
		if there, err := r.s.hasRegion(ctx, t); err != nil || !there {
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

// hasRegion reports whether there is a registry of the target's name that has the target's region: as its home, or by a replication.
func (s *Server) hasRegion(ctx context.Context, t network.Target) (there bool, err error) {
	err = s.rooms.engine.Read(ctx, identity.Caller{}, func(tx *arm.Tx) error {
		there = false
		row, err := tx.Meta().RegistryByLabel(t.Registry)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		id, err := name.ParseResourceID(row.ResourceID)
		if err != nil {
			return err
		}
		there = slices.Contains(registries.Members(tx.World(), id, row.Location), dataMember(t.Region))
		return nil
	})
	return there, err
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

// serve answers until the sockets are closed.
func (r *resolver) serve(start func(func() error)) {
	for _, server := range r.servers {
		start(func() error {
			if err := server.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("DNS: %w", err)
			}
			return nil
		})
	}
}

// stopDNS ends the answering.
func (s *Server) stopDNS(ctx context.Context) {
	s.mu.Lock()
	all := slices.Clone(s.resolvers)
	s.mu.Unlock()
	for _, r := range all {
		r.stop(ctx)
	}
}

// stop ends the answering, also where it has not begun yet.
func (r *resolver) stop(ctx context.Context) {
	for _, server := range r.servers {
		_ = server.ShutdownContext(ctx)
	}
	r.close()
}

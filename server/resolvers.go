// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/embargo-registry/embargo/network"
)

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

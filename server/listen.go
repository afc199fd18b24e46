// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/embargo-registry/embargo/network"
)

// The names of the doors that there is one of.
const (
	doorPublic = "public"
	doorProxy  = "proxy"
	doorAdmin  = "admin"
)

// is reports whether a listener is the one of that name. A private one never is: its door is named after its registry, which may have any name.
func (w wanted) is(door string) bool { return w.registry == "" && w.network == "" && w.door == door }

// label names a door in the metrics.
func label(z network.Zone) string {
	if z.Kind == network.Private {
		return "private/" + z.Door
	}
	return z.Door
}

// listener is a door with what answers there.
type listener struct {
	want    wanted
	door    *network.Door
	handler http.Handler
}

// wanted is a listener as the configuration has it: what makes it another one when it changes. Its limits may change while it is open.
type wanted struct {
	door       string // public, proxy, admin, or the registry of a private one
	address    string
	registry   string // of a private door
	tls        bool
	terminated bool
	network    string // the virtual network that it is for; "" on others
	links      bool   // load balancers connect there
	endpoint   string // the private endpoint whose door it is
	resource   string // its ARM id
	device     string // the network interface that it is bound to
	shared     bool   // others listen on the address by other interfaces
	closed     bool   // it takes in what no interface fits, and refuses it
	clash      string // the private endpoint, made before, that has the address: this one has no door
}

// wanted lists the listeners of the options, the public one first, with their limits.
func (o *Options) wanted() (all []wanted, limits []network.Limits) {
	add := func(w wanted, l network.Limits) {
		all, limits = append(all, w), append(limits, l)
	}
	usual := network.Limits{MaxConnections: o.MaxConnections}
	add(wanted{door: doorPublic, address: o.Listen, tls: true}, usual)
	if !off(o.ProxyListen) {
		add(wanted{door: doorProxy, address: o.ProxyListen, tls: true}, usual)
	}
	if !off(o.AdminListen) {
		add(wanted{door: doorAdmin, address: o.AdminListen}, network.Limits{MaxConnections: 64})
	}
	for _, p := range o.PrivateListeners {
		add(wanted{door: p.Registry, address: p.Address, registry: p.Registry, tls: p.TLS, terminated: p.TLSTerminated},
			network.Limits{MaxConnections: o.MaxConnections, Clients: p.Clients})
	}
	for _, v := range o.VirtualNetworks {
		if v.Door == DoorProxy {
			add(wanted{door: "network/" + v.name(), address: v.Listen, network: v.ID, links: true, tls: v.TLS, terminated: v.TLSTerminated},
				network.Limits{MaxConnections: o.MaxConnections, Clients: v.Clients, From: v.From})
		}
		if !off(v.ProxyListen) {
			add(wanted{door: "network/" + v.name(), address: v.ProxyListen, network: v.ID, tls: true}, network.Limits{MaxConnections: o.MaxConnections, Clients: v.Clients})
		}
	}
	return all, limits
}

// doorOptions are a listener's. TLS is configured late: certificates need the database, the database's dialer must know the listeners, and both change.
func (s *Server) doorOptions(w wanted, l network.Limits) network.DoorOptions {
	o := network.DoorOptions{Log: s.log, Limits: l, Zone: network.Zone{Kind: network.Public, Door: w.door}, Terminated: w.terminated}
	switch {
	case w.closed:
		o.Zone, o.Shared, o.Free = network.Zone{Kind: network.Private, Door: w.door}, true, true
	case w.registry != "":
		o.Zone = network.Zone{Kind: network.Private, Door: w.door, Registry: w.registry, Endpoint: w.endpoint, Resource: w.resource}
		o.Interface, o.Shared, o.Free = w.device, w.shared, w.endpoint != ""
		if w.tls {
			o.TLS = late(func() *tls.Config { return s.certificates.Load().private }, "http/1.1")
		}
	case w.tls:
		o.TLS = late(func() *tls.Config { return s.certificates.Load().public }, "h2", "http/1.1")
	}
	o.Refused = s.refusedConnection
	if w.is(doorAdmin) {
		o.RequestTimeout = 30 * time.Second
	}
	if w.is(doorProxy) || w.network != "" && !w.links {
		o.Connect = func(host string) bool { return s.hosts.Lookup(host).Role != network.Foreign }
	}
	switch {
	case w.links:
		o.Links = s.linked(w.network, o.Zone)
	case w.network != "":
		o.Place = s.placed(w.network, o.Zone)
	}
	return o
}

// listen opens one listener.
func (s *Server) listen(ctx context.Context, w wanted, l network.Limits) (*listener, error) {
	door, err := s.doors.Listen(ctx, w.address, s.doorOptions(w, l))
	if err != nil && w.registry != "" && w.endpoint == "" {
		err = fmt.Errorf("private listener for the registry %s: %w", w.registry, err)
	}
	if err != nil {
		return nil, err
	}
	return &listener{want: w, door: door}, nil
}

// takeOver opens a listener at the address of one that goes.
func (s *Server) takeOver(old *listener, w wanted, l network.Limits) (*listener, error) {
	door, err := s.doors.TakeOver(old.door, s.doorOptions(w, l))
	if err != nil {
		return nil, err
	}
	return &listener{want: w, door: door}, nil
}

// bind opens all listeners.
func (s *Server) bind(ctx context.Context) error {
	var err error
	if s.doors, err = network.NewDoors(nil); err != nil {
		return err
	}
	s.doors.Trust(s.o.TrustedProxies)
	all, limits := s.o.wanted()
	for i, w := range all {
		l, err := s.listen(ctx, w, limits[i])
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// doorsNow are the listeners that are open.
func (s *Server) doorsNow() []*listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.listeners)
	for _, d := range s.endpointDoors {
		if d.listener != nil {
			all = append(all, d.listener)
		}
	}
	return all
}

// equip gives a listener what answers there.
func (s *Server) equip(l *listener) {
	if l.want.is(doorAdmin) {
		l.handler = s.rooms.ready
		return
	}
	l.handler = &front{hosts: s.hosts, door: l.door, log: s.log, management: s.rooms.management, data: s.regional(s.checked(s.rooms.data)), metrics: s.metrics, limits: &s.limits, live: s.rooms.lease.Valid, label: s.label, refused: s.refusedAt}
}

// startable serves the doors and resolvers that are open, and says by what later ones are started; nil: nothing is served, and nothing can be reloaded.
func (s *Server) startable(start func(serve func() error)) {
	s.endpointsMu.Lock()
	defer s.endpointsMu.Unlock()
	if start != nil {
		for _, l := range s.doorsNow() {
			start(func() error { return l.door.Serve(l.handler) })
		}
		for _, r := range s.resolvers {
			r.serve(start)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start = start
}

// closeDoors closes listeners that serve nothing yet.
func (s *Server) closeDoors() error {
	var errs []error
	for _, l := range s.doorsNow() {
		errs = append(errs, l.door.Shutdown(context.Background()))
	}
	return errors.Join(errs...)
}

// late is a configuration that is looked up at each handshake.
func late(now func() *tls.Config, protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c := now()
			if c.GetConfigForClient == nil {
				return c, nil
			}
			return c.GetConfigForClient(hello)
		}}
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/network"
)

// doorsAgain is how often doors that could not be opened are tried again, and open ones are asked whether they may be.
const doorsAgain = 10 * time.Second

// entrance is an approved private endpoint as connections are placed by it.
type entrance struct {
	zone      network.Zone
	host      string // the first label of the registry's login server
	network   string
	addresses []meta.EndpointAddress
}

// entrances are all approved endpoints whose registry is there and not held, and whose address none that was made before has too. They are replaced whole, before the change that made them so is answered.
type entrances []entrance

// find is the endpoint that fits; nil when none does.
func (all entrances) find(fits func(e entrance) bool) *entrance {
	if at := slices.IndexFunc(all, fits); at >= 0 {
		return &all[at]
	}
	return nil
}

// endpointDoor is the door of an address of an endpoint on one interface, or why there is none.
type endpointDoor struct {
	want     wanted
	limits   network.Limits
	listener *listener // nil: it could not be opened, or may not be open
	err      error
}

// bound reports whether the door, if it is open, is still at the interface of its name.
func (d *endpointDoor) bound() bool { return d.listener == nil || d.listener.door.Bound() == nil }

// Reconcile makes the doors be those of the private endpoints that are approved now, and the resolvers those of the options: missing ones are opened, and those of endpoints that are gone or rejected are
// closed and their connections reset, as is one whose address has become the machine's own; one whose interface was made anew is opened anew. It is called after each commit that changes an endpoint or a registry, before the change is answered. A door
// that can't be opened is no error: it is tried again, and readiness, log and metrics say so. Errors: the endpoints could not be read, which is tried again; doors that are open stay and
// have the limits of the options, those that the options don't have any more close, and nothing enters that the registry's row does not let in.
func (s *Server) Reconcile(ctx context.Context) error {
	s.endpointsMu.Lock()
	defer s.endpointsMu.Unlock()
	s.mu.Lock()
	done := s.reloaded // before the options are looked at
	s.mu.Unlock()
	err := s.reconcileDoors(context.WithoutCancel(ctx))
	s.reconcileResolvers(context.WithoutCancel(ctx))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread = err
	if err == nil && done != nil && done == s.reloaded {
		s.log.Info("configuration reloaded", "listenersOpened", done.opened, "listenersClosed", done.closed)
		s.reloaded = nil
	}
	return err
}

func (s *Server) reconcileDoors(ctx context.Context) error {
	o := s.options()
	if len(o.VirtualNetworks) == 0 && len(s.endpointDoors) == 0 && len(*s.entrances.Load()) == 0 {
		return nil
	}
	reading, cancel := context.WithTimeout(ctx, entrancesTime)
	all, unread := s.readEntrances(reading, o)
	cancel()
	if unread != nil {
		unread = fmt.Errorf("the private endpoints could not be read: %w", unread)
		all = slices.DeleteFunc(slices.Clone(*s.entrances.Load()), func(e entrance) bool { return o.virtualNetwork(e.network) == nil })
	}
	clashes := o.clashes(all)
	open := slices.DeleteFunc(slices.Clone(all), func(e entrance) bool { return clashes[e.zone.Endpoint] != "" })
	s.entrances.Store(&open)
	want, limits := o.wantedEndpoints(all, clashes)
	s.closeEndpoints(func(d *endpointDoor) bool { return slices.Contains(want, d.want) && d.bound() })
	s.cutEndpoints(o, open)
	own := machine()
	for i, w := range want {
		if unread == nil || slices.ContainsFunc(s.endpointDoors, func(d *endpointDoor) bool { return d.want == w }) {
			s.openEndpoint(ctx, w, limits[i], own)
		}
	}
	return unread
}

// entrancesTime is how long a database may take to tell the private endpoints, before the doors are seen to without it.
const entrancesTime = 5 * time.Second

// readEntrances reads the approved endpoints of the networks of the configuration, in the order in which they were made.
func (s *Server) readEntrances(ctx context.Context, o Options) (all entrances, err error) {
	err = s.db.Read(ctx, func(tx *meta.Tx) error {
		all = entrances{}
		rows, err := tx.Endpoints()
		if err != nil {
			return err
		}
		for _, e := range rows {
			if e.Status != meta.EndpointApproved || !slices.ContainsFunc(o.VirtualNetworks, func(v VirtualNetwork) bool { return v.ID == strings.ToLower(e.Network) }) {
				continue
			}
			row, err := tx.RegistryByID(e.Registry)
			if errors.Is(err, meta.ErrNotFound) || row.Held {
				continue
			}
			if err != nil {
				return err
			}
			host, _, _ := strings.Cut(row.LoginServer, ".")
			all = append(all, entrance{network.Zone{Kind: network.Private, Door: lastSegment(e.ResourceID), Registry: row.Name, Endpoint: e.ID, Resource: e.ResourceID},
				host, strings.ToLower(e.Network), e.Addresses})
		}
		return nil
	})
	return all, err
}

// clashes are the endpoints, by id, that have an address which one made before them has on the same interface, with the name of that one. They have no door and no name: which of two is served is
// a matter of the rows, and not of which was opened first.
func (o *Options) clashes(all entrances) map[string]string {
	type holder struct {
		e       entrance
		devices []string
	}
	found, held := map[string]string{}, map[string][]holder{}
	for _, e := range all {
		at := slices.IndexFunc(o.VirtualNetworks, func(v VirtualNetwork) bool { return v.ID == e.network })
		if at < 0 || o.VirtualNetworks[at].Door != DoorAddress {
			continue
		}
		v := o.VirtualNetworks[at]
		_, devices := v.devices()
		meets := func(h holder) bool {
			return len(h.devices) == 0 || len(devices) == 0 || slices.ContainsFunc(h.devices, func(d string) bool { return slices.Contains(devices, d) })
		}
		var sockets []string
		for _, a := range e.addresses {
			socket := net.JoinHostPort(a.Address.String(), strconv.Itoa(v.Port))
			sockets = append(sockets, socket)
			if i := slices.IndexFunc(held[socket], meets); i >= 0 && found[e.zone.Endpoint] == "" {
				found[e.zone.Endpoint] = held[socket][i].e.zone.Door
			}
		}
		if found[e.zone.Endpoint] != "" {
			continue
		}
		for _, socket := range sockets {
			held[socket] = append(held[socket], holder{e, devices})
		}
	}
	return found
}

// wantedEndpoints are the doors that the endpoints should have, in the order in which they are opened. An address that is bound to interfaces has one more, which takes in what comes in by any other, to
// refuse it. Among listeners that share an address the kernel takes the newest, so that one comes first. (Of IPv6, which private endpoints have no addresses of, it takes the oldest.)
func (o *Options) wantedEndpoints(all entrances, clashes map[string]string) (want []wanted, limits []network.Limits) {
	add := func(w wanted, l network.Limits) {
		want, limits = append(want, w), append(limits, l)
	}
	refuse := network.Limits{Closed: "interface"}
	for _, e := range all {
		at := slices.IndexFunc(o.VirtualNetworks, func(v VirtualNetwork) bool { return v.ID == e.network })
		if at < 0 || o.VirtualNetworks[at].Door != DoorAddress {
			continue
		}
		v := o.VirtualNetworks[at]
		usual := network.Limits{MaxConnections: o.MaxConnections, Clients: v.Clients}
		for _, a := range e.addresses {
			w := wanted{door: e.zone.Door, address: net.JoinHostPort(a.Address.String(), strconv.Itoa(v.Port)), registry: e.zone.Registry, endpoint: e.zone.Endpoint, resource: e.zone.Resource,
				tls: v.TLS, terminated: v.TLSTerminated, shared: len(v.Interfaces) > 0, clash: clashes[e.zone.Endpoint]}
			if w.clash != "" {
				add(w, usual)
				continue
			}
			rest := wanted{door: a.Address.String(), address: w.address, shared: true, closed: true}
			switch {
			case !w.shared:
				add(w, usual)
			case !slices.Contains(want, rest):
				add(rest, refuse)
			}
			names, _ := v.devices()
			for _, name := range names {
				w.device = name
				add(w, usual)
			}
		}
	}
	return want, limits
}

// closeEndpoints closes the doors that don't stay and resets their connections.
func (s *Server) closeEndpoints(stays func(d *endpointDoor) bool) {
	var stay []*endpointDoor
	for _, d := range s.endpointDoors {
		switch {
		case stays(d):
			stay = append(stay, d)
		case d.listener != nil:
			d.listener.door.Stop()
			if !d.want.closed {
				s.log.Info("the door of a private endpoint was closed", "endpoint", d.want.door, "address", d.want.address, "interface", d.want.device)
			}
		}
	}
	s.mu.Lock()
	s.endpointDoors = stay
	s.mu.Unlock()
}

// cutEndpoints resets the connections of load balancers and CONNECT proxies that stand for endpoints no longer, or for another one.
func (s *Server) cutEndpoints(o Options, all entrances) {
	for _, l := range s.doorsNow() {
		if l.want.network == "" {
			continue
		}
		l.door.Cut(func(p *network.Peer) bool {
			if p.Link() != "" {
				return s.linked(l.want.network, l.door.Zone())(p.Link()) != p.Zone
			}
			return p.Endpoint != "" && all.find(func(e entrance) bool { return e.zone == p.Zone }) == nil
		})
	}
}

// openEndpoint opens a door that is not there, and closes one that may not be open. The caller holds endpointsMu.
func (s *Server) openEndpoint(ctx context.Context, w wanted, l network.Limits, own addresses) {
	at := slices.IndexFunc(s.endpointDoors, func(d *endpointDoor) bool { return d.want == w })
	d := &endpointDoor{want: w, limits: l}
	if at >= 0 && s.endpointDoors[at].listener != nil {
		d.listener = s.endpointDoors[at].listener
		if own.unread == nil {
			d.err = own.outside(w, l)
		}
		if d.err != nil {
			d.listener.door.Stop()
			d.listener = nil
			s.log.Error("the door of a private endpoint was closed and its connections reset; its other doors, and the server, go on without it", "endpoint", w.door, "address", w.address, "error", d.err)
		} else {
			d.listener.door.Limit(l)
		}
		s.mu.Lock()
		s.endpointDoors[at] = d
		s.mu.Unlock()
		return
	}
	if !w.tls && !w.terminated && !w.closed && !loopback(w.address) {
		d.err = fmt.Errorf("%s would serve plain HTTP beyond loopback: set tls: true for its virtual network, or tlsTerminated: true if a TLS terminator stands before it", w.address)
	} else if err := own.outside(w, l); err != nil {
		d.err = err
	} else if w.clash != "" {
		d.err = fmt.Errorf("the address %s belongs to the private endpoint %s, which was made before: give the virtual networks different interfaces, or prefixes that do not overlap", w.address, w.clash)
	} else if w.shared && !w.closed && !slices.ContainsFunc(s.endpointDoors, func(d *endpointDoor) bool { return d.want.closed && d.want.address == w.address && d.listener != nil }) {
		d.err = fmt.Errorf("the address %s can't be listened on for what comes in by other interfaces", w.address)
	} else if d.listener, d.err = s.listen(ctx, w, l); d.err != nil && w.device != "" {
		d.err = fmt.Errorf("by the interface %s: %w", w.device, d.err)
	}
	s.mu.Lock()
	if at >= 0 {
		before := s.endpointDoors[at].err
		s.endpointDoors[at] = d
		if d.err != nil && before != nil && before.Error() == d.err.Error() {
			s.mu.Unlock()
			return // it has been said
		}
	} else {
		s.endpointDoors = append(s.endpointDoors, d)
	}
	start := s.start
	s.mu.Unlock()
	if d.err != nil {
		s.log.Error("the door of a private endpoint could not be opened; its other doors, and the server, go on without it", "endpoint", w.door, "address", w.address, "interface", w.device, "error", d.err)
		return
	}
	s.equip(d.listener)
	if start != nil {
		start(func() error { return d.listener.door.Serve(d.listener.handler) })
	}
	if w.closed {
		s.log.Info("what comes to a private endpoint by an interface that is not its network's is refused", "address", w.address)
		return
	}
	s.log.Info("the door of a private endpoint was opened", "endpoint", w.door, "registry", w.registry, "address", w.address, "interface", w.device)
}

// addresses are the machine's own, loopback's left out, each with the name of its network interface.
type addresses struct {
	device map[string]string
	unread error // they could not be read
}

func machine() addresses {
	failed := func(err error) addresses {
		return addresses{unread: fmt.Errorf("whether its address is the machine's own could not be read: %w", err)}
	}
	all, err := net.Interfaces()
	if err != nil {
		return failed(err)
	}
	device := map[string]string{}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		of, err := i.Addrs()
		if err != nil {
			return failed(err)
		}
		for _, a := range of {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				device[prefix.Addr().Unmap().WithZone("").String()] = i.Name
			}
		}
	}
	return addresses{device: device}
}

// outside is why a door may not be open: it is bound to no interface, its virtual network names no clients, and its address is the machine's own.
func (own addresses) outside(w wanted, l network.Limits) error {
	host, _, err := net.SplitHostPort(w.address)
	if err != nil || w.device != "" || w.closed || loopback(w.address) || limited(l.Clients) {
		return nil
	}
	where, is := own.device[host]
	if !is {
		return own.unread
	}
	return fmt.Errorf("%s is the machine's own address on %s, and its virtual network names neither interfaces nor clients: whoever reaches the machine would be inside. Name the interface, or the clients, of the virtual network",
		w.address, where)
}

// doorsAstray reports whether a door is open that may not be, or at an interface that is gone.
func (s *Server) doorsAstray() bool {
	s.mu.Lock()
	all := slices.DeleteFunc(slices.Clone(s.endpointDoors), func(d *endpointDoor) bool { return d.listener == nil })
	s.mu.Unlock()
	if len(all) == 0 {
		return false
	}
	if slices.ContainsFunc(all, func(d *endpointDoor) bool { return !d.bound() }) {
		return true
	}
	own := machine()
	return own.unread == nil && slices.ContainsFunc(all, func(d *endpointDoor) bool { return own.outside(d.want, d.limits) != nil })
}

// retryDoors tries doors and resolvers again that could not be opened, and sees to those that may not be open any more, until ctx ends.
func (s *Server) retryDoors(ctx context.Context) {
	tick := time.NewTicker(doorsAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.doorsFailed() == nil && !s.doorsAstray() && !s.resolversAstray() {
			continue
		}
		if err := s.Reconcile(ctx); err != nil {
			s.log.Error("private endpoints", "error", err)
		}
	}
}

// doorsFailed is why doors of endpoints are not open.
func (s *Server) doorsFailed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.unread}
	for _, d := range s.endpointDoors {
		if d.err != nil {
			errs = append(errs, fmt.Errorf("private endpoint %s: %w", d.want.door, d.err))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) endpointDoorsCount() (opened, failed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.endpointDoors {
		if d.err != nil {
			failed++
		} else {
			opened++
		}
	}
	return opened, failed
}

// linked says where a connection stands that came by a private link of a network's load balancers.
func (s *Server) linked(id string, outside network.Zone) func(link string) network.Zone {
	return func(link string) network.Zone {
		o := s.options()
		at := slices.IndexFunc(o.VirtualNetworks, func(v VirtualNetwork) bool { return v.ID == id })
		if at < 0 || link == "" {
			return outside
		}
		resource := o.VirtualNetworks[at].Links[link]
		e := s.entrances.Load().find(func(e entrance) bool {
			return resource != "" && strings.EqualFold(e.zone.Resource, resource) && e.network == id
		})
		if e == nil {
			return outside
		}
		return e.zone
	}
}

// placed says where a connection stands that asked a network's CONNECT proxy for a host.
func (s *Server) placed(id string, outside network.Zone) func(host string) network.Zone {
	return func(host string) network.Zone {
		t := s.hosts.Lookup(host)
		e := s.entrances.Load().find(func(e entrance) bool { return t.Registry != "" && e.network == id && e.host == t.Registry })
		if e == nil {
			return outside
		}
		return e.zone
	}
}

// label is the first label of the login server of an approved endpoint's registry.
func (s *Server) label(endpoint string) string {
	e := s.entrances.Load().find(func(e entrance) bool { return e.zone.Endpoint == endpoint })
	if e == nil {
		return ""
	}
	return e.host
}

// options are those in force.
func (s *Server) options() Options {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o
}

// fence makes a committed change of a registry's row hold for what is under way, doors of private endpoints among it.
func (s *Server) fence(ctx context.Context, registry string, epoch int64) error {
	return errors.Join(s.rooms.gate.Fence(ctx, registry, epoch), s.Reconcile(ctx))
}

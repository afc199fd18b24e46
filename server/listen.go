// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/embargo-registry/embargo/network"
)

// The names of the doors that there is one of.
const (
	doorPublic = "public"
	doorProxy  = "proxy"
	doorAdmin  = "admin"
)

// bind opens all listeners, the public one first. TLS is configured late: certificates need the
// database, and the database's dialer must know the listeners.
func (s *Server) bind(ctx context.Context) (*network.Doors, error) {
	doors, err := network.NewDoors(nil)
	if err != nil {
		return nil, err
	}
	open := func(address string, o network.DoorOptions) error {
		o.Log = s.log
		door, err := doors.Listen(ctx, address, o)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, &listener{door: door})
		s.closers = append(s.closers, func() error { return door.Shutdown(context.Background()) })
		return nil
	}
	secure := late(func() *tls.Config { return s.tls }, "h2", "http/1.1")
	if err := open(s.o.Listen, network.DoorOptions{Zone: network.Zone{Kind: network.Public, Door: doorPublic}, TLS: secure}); err != nil {
		return nil, err
	}
	if !off(s.o.ProxyListen) {
		ours := func(host string) bool { return s.hosts.Lookup(host).Role != network.Foreign }
		if err := open(s.o.ProxyListen, network.DoorOptions{Zone: network.Zone{Kind: network.Public, Door: doorProxy}, TLS: secure, Connect: ours}); err != nil {
			return nil, err
		}
	}
	if !off(s.o.AdminListen) {
		if err := open(s.o.AdminListen, network.DoorOptions{Zone: network.Zone{Kind: network.Public, Door: doorAdmin}}); err != nil {
			return nil, err
		}
	}
	names := map[string]int{}
	for _, p := range s.o.PrivateListeners {
		names[p.Registry]++
		name := p.Registry
		if n := names[p.Registry]; n > 1 {
			name = fmt.Sprintf("%s-%d", name, n)
		}
		o := network.DoorOptions{Zone: network.Zone{Kind: network.Private, Door: name, Registry: p.Registry}, Terminated: p.TLSTerminated}
		if p.TLS {
			o.TLS = late(func() *tls.Config { return s.privateTLS }, "http/1.1")
		}
		if err := open(p.Address, o); err != nil {
			return nil, fmt.Errorf("private listener for the registry %s: %w", p.Registry, err)
		}
	}
	return doors, nil
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

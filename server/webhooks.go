// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net"
	"strings"

	"github.com/embargo-registry/embargo/providers/containerregistry"
	"github.com/embargo-registry/embargo/providers/containerregistry/cacherules"
	"github.com/embargo-registry/embargo/providers/containerregistry/credentialsets"
	"github.com/embargo-registry/embargo/providers/containerregistry/registries"
	"github.com/embargo-registry/embargo/providers/containerregistry/webhooks"
	"github.com/embargo-registry/embargo/upstream"
	"github.com/embargo-registry/embargo/webhook"
)

// Webhooks says where the events of registries may go besides the public Internet, and while exports are disabled.
type Webhooks struct {
	// Destinations are hosts, with or without a port.
	Destinations []string
	// Roots is a PEM file of authorities that receivers' certificates are checked by, besides the system's; "" is none.
	Roots string
}

// check checks the form of the destinations.
func (w Webhooks) check() error {
	for _, d := range w.Destinations {
		host := d
		if h, _, err := net.SplitHostPort(d); err == nil {
			host = h
		}
		if host == "" || strings.ContainsAny(host, "/*@ ") {
			return option("webhooks", "%q is not a destination: it is a host name or an address, with or without a port", d)
		}
	}
	return nil
}

// openWebhooks makes what delivers the events of registries.
func (s *Server) openWebhooks() (*webhook.Service, error) {
	d, err := s.dialer()
	if err != nil {
		return nil, err
	}
	roots, err := moreRoots("webhooks", s.o.Webhooks.Roots)
	if err != nil {
		return nil, err
	}
	return webhook.New(webhook.Options{DB: s.db, Keyring: s.ring, Dial: d, Roots: roots, Release: s.rooms.registry.ReleaseEvent, Agent: "Embargo/" + s.o.Version, Log: s.log})
}

// namespace is what the types of the registries' namespace are made with.
func (s *Server) namespace(hooks *webhook.Service, outside *upstream.Service) containerregistry.Options {
	r := s.rooms
	return containerregistry.Options{
		Options:  registries.Options{Identity: r.identity, Suffix: s.hosts.Suffix(), Fence: s.fence, AskImport: r.registry.AskImport, Ours: s.ours, Quota: s.o.RegistryQuota},
		Webhooks: webhooks.Options{Keyring: s.ring, Check: hooks.Check},

		CacheRules:     cacherules.Options{Identity: r.identity, Check: outside.CheckHost},
		CredentialSets: credentialsets.Options{Identity: r.identity, Keyring: s.ring, Check: outside.CheckHost},
	}
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/x509"
	"net"
	"os"
	"strings"

	"github.com/embargo-registry/embargo/providers/containerregistry"
	"github.com/embargo-registry/embargo/providers/containerregistry/registries"
	"github.com/embargo-registry/embargo/providers/containerregistry/webhooks"
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
	var roots *x509.CertPool
	if file := s.o.Webhooks.Roots; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, &OptionError{"webhooks", err}
		}
		if roots, err = x509.SystemCertPool(); err != nil {
			return nil, err
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, option("webhooks", "%s holds no certificate", file)
		}
	}
	return webhook.New(webhook.Options{DB: s.db, Keyring: s.ring, Dial: d, Roots: roots, Release: s.rooms.registry.ReleaseEvent, Agent: "Embargo/" + s.o.Version, Log: s.log})
}

// namespace is what the types of the registries' namespace are made with.
func (s *Server) namespace(hooks *webhook.Service) containerregistry.Options {
	r := s.rooms
	return containerregistry.Options{
		Options:  registries.Options{Identity: r.identity, Suffix: s.hosts.Suffix(), Fence: r.gate.Fence, AskImport: r.registry.AskImport, Ours: s.ours},
		Webhooks: webhooks.Options{Keyring: s.ring, Check: hooks.Check},
	}
}

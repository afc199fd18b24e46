// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/x509"
	"os"

	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/upstream"
)

// Upstreams says which registries cache rules may fetch from: these, and no other.
type Upstreams struct {
	Registries []upstream.Upstream
	// Roots is a PEM file of authorities that their certificates are checked by, besides the system's; "" is none.
	Roots string
}

// check checks the form of the list, and that none of it is a registry of this installation: from one to another content goes by import, which asks the source.
func (u Upstreams) check(hosts network.Hosts) error {
	if err := upstream.Check(u.Registries); err != nil {
		return &OptionError{"upstreams", err}
	}
	for _, r := range u.Registries {
		for _, h := range []string{r.Host, r.At} {
			if t := hosts.Lookup(h); h != "" && (t.Role == network.RegistryHost || t.Role == network.DataHost) {
				return option("upstreams", "%s is a registry of this installation: content goes from one of its registries to another by import", h)
			}
		}
	}
	return nil
}

// moreRoots are the system's authorities and those of a PEM file; nil, the system's, for no file.
func moreRoots(key, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, &OptionError{key, err}
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, option(key, "%s holds no certificate", file)
	}
	return roots, nil
}

// openUpstreams makes what asks the registries outside.
func (s *Server) openUpstreams() (*upstream.Service, error) {
	d, err := s.dialer()
	if err != nil {
		return nil, err
	}
	roots, err := moreRoots("upstreams", s.o.Upstreams.Roots)
	if err != nil {
		return nil, err
	}
	return upstream.New(upstream.Options{Dial: d, Upstreams: s.o.Upstreams.Registries, Roots: roots, Agent: "Embargo/" + s.o.Version, Clock: s.o.Clock})
}

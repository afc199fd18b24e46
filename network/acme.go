// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/embargo-registry/embargo/meta"
)

// ACME says from where certificates are got (RFC 8555).
type ACME struct {
	// Directory is the https URL of the server's directory; "" asks for no certificates.
	Directory string
	// Email is told to the server; "" is nobody's.
	Email string
	// Roots is a PEM file of the authorities that the server's own certificate is checked by; "": the system's.
	Roots string
}

// Check finds out whether the options could work.
func (a ACME) Check() error {
	if a.Directory == "" {
		if a != (ACME{}) {
			return errors.New("directory is needed: the https URL of the ACME server's directory")
		}
		return nil
	}
	u, err := url.Parse(a.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is not the https URL of an ACME server's directory", a.Directory)
	}
	return nil
}

// Host is the server's host:port.
func (a ACME) Host() string {
	u, err := url.Parse(a.Directory)
	if err != nil {
		return ""
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}

// Certifier gets certificates for the installation's own names from an ACME server, by the challenge tls-alpn-01 on the public door (RFC 8737), and renews them. It
// keeps them in the database, sealed.
type Certifier struct {
	hosts   Hosts
	manager *autocert.Manager
	log     *slog.Logger
}

// NewCertifier makes one. client reaches the ACME server; exists reports whether a registry whose login server has that first label does.
func NewCertifier(o ACME, client *http.Client, hosts Hosts, db *meta.DB, ring *meta.Keyring, exists func(ctx context.Context, label string) (bool, error), log *slog.Logger) *Certifier {
	c := &Certifier{hosts: hosts, log: log}
	c.manager = &autocert.Manager{
		Prompt: autocert.AcceptTOS, Email: o.Email, Cache: sealedCache{db, ring},
		Client: &acme.Client{DirectoryURL: o.Directory, HTTPClient: client, UserAgent: "embargo"},
		HostPolicy: func(ctx context.Context, host string) error {
			switch t := hosts.Lookup(host); t.Role {
			case Management:
				if net.ParseIP(host) == nil && slices.Contains(hosts.Management(), Normal(host)) && Normal(host) != "localhost" {
					return nil
				}
			case RegistryHost, DataHost:
				if t.Private {
					break // an ACME server can't reach it
				}
				if there, err := exists(ctx, t.Registry); err != nil || there {
					return err
				}
			}
			return fmt.Errorf("no certificate is asked for the name %q", clip(host))
		},
	}
	return c
}

// certificate answers a handshake: with the certificate for the name, or with what proves to the ACME server that the name is ours. nil: there is none.
func (c *Certifier) certificate(hello *tls.ClientHelloInfo) *tls.Certificate {
	if c == nil || hello.ServerName == "" || c.manager.HostPolicy(hello.Context(), Normal(hello.ServerName)) != nil {
		return nil
	}
	cert, err := c.manager.GetCertificate(hello)
	if err != nil {
		c.log.Warn("no certificate was got from the ACME server; the installation's own serves", "name", clip(hello.ServerName), "error", err)
		return nil
	}
	return cert
}

// proves reports whether a handshake is the ACME server's, checking that a name is ours.
func (c *Certifier) proves(hello *tls.ClientHelloInfo) bool {
	return c != nil && slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto})
}

// sealedCache keeps account key and certificates among the database's secrets.
type sealedCache struct {
	db   *meta.DB
	ring *meta.Keyring
}

func secretOf(key string) string { return "network/acme/" + key }

// Get reads; autocert.ErrCacheMiss when there is nothing.
func (c sealedCache) Get(ctx context.Context, key string) (plain []byte, err error) {
	var sealed []byte
	err = c.db.Read(ctx, func(tx *meta.Tx) error {
		sealed, err = tx.Secret(secretOf(key))
		return err
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil, autocert.ErrCacheMiss
	}
	if err != nil {
		return nil, err
	}
	return c.ring.Open(secretOf(key), sealed)
}

// Put stores.
func (c sealedCache) Put(ctx context.Context, key string, plain []byte) error {
	sealed, err := c.ring.Seal(secretOf(key), plain)
	if err != nil {
		return err
	}
	return c.db.Write(ctx, func(tx *meta.Tx) error { return tx.PutSecret(secretOf(key), sealed) })
}

// Delete removes.
func (c sealedCache) Delete(ctx context.Context, key string) error {
	return c.db.Write(ctx, func(tx *meta.Tx) error { return tx.DeleteSecret(secretOf(key)) })
}

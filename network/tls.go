// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// CertificateFile is a certificate of the operator's own: PEM files with the chain and the key.
type CertificateFile struct{ Cert, Key string }

// Files serves certificates from files and follows their changes: a handshake looks at most once a second whether a file
// changed. A file that cannot be read or does not fit its key is logged, and the certificate before it stays in service.
type Files struct {
	clock func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	looked  time.Time
	entries []*fileEntry
}

type fileEntry struct {
	CertificateFile
	mark string
	cert *tls.Certificate
}

// OpenFiles reads the certificates. Here, unlike later, a bad file is an error.
func OpenFiles(files []CertificateFile, clock func() time.Time, log *slog.Logger) (*Files, error) {
	f := &Files{clock: clock, log: log, looked: clock()}
	for _, c := range files {
		e := &fileEntry{CertificateFile: c}
		if err := e.load(); err != nil {
			return nil, err
		}
		f.entries = append(f.entries, e)
	}
	return f, nil
}

// Certificate is the first certificate that names serverName; nil when none does.
func (f *Files) Certificate(serverName string) *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.clock(); now.Sub(f.looked) >= time.Second || now.Before(f.looked) {
		f.looked = now
		for _, e := range f.entries {
			f.follow(e)
		}
	}
	for _, e := range f.entries {
		if serverName != "" && e.cert.Leaf.VerifyHostname(serverName) == nil {
			return e.cert
		}
	}
	return nil
}

func (f *Files) follow(e *fileEntry) {
	mark, err := e.look()
	if err == nil && mark == e.mark {
		return
	}
	if err == nil {
		err = e.load()
	}
	if err != nil {
		if e.mark != "bad "+mark {
			f.log.Error("the certificate was not renewed; the one before stays in service", "file", e.Cert, "error", err)
		}
		e.mark = "bad " + mark
		return
	}
	f.log.Info("certificate renewed", "file", e.Cert, "until", e.cert.Leaf.NotAfter)
}

// look is what tells a changed file from an unchanged one.
func (e *fileEntry) look() (string, error) {
	mark := ""
	for _, path := range []string{e.Cert, e.Key} {
		st, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		mark += fmt.Sprintf("%d/%d/", st.ModTime().UnixNano(), st.Size())
	}
	return mark, nil
}

func (e *fileEntry) load() error {
	mark, err := e.look()
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	chain, err := os.ReadFile(e.Cert)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	key, err := os.ReadFile(e.Key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", e.Cert, e.Key, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return fmt.Errorf("certificate %s: %w", e.Cert, err)
		}
	}
	if e.cert != nil && bytes.Equal(e.cert.Leaf.Raw, pair.Leaf.Raw) {
		e.mark = mark
		return nil
	}
	e.mark, e.cert = mark, &pair
	return nil
}

// PrivateTLS is TLS for a private door: it serves content alone, so it speaks HTTP/1.1 whatever name is asked for.
func PrivateTLS(hosts Hosts, authority *Authority, files *Files) *tls.Config {
	return serverTLS(hosts, authority, files, nil, func(string) bool { return false })
}

// TLS is the server's side of TLS for a public door: at least version 1.2, the operator's certificates before the
// authority's own, and HTTP/2 for the management hosts alone, because the data plane is faster without it.
// A handshake for a name that is none of the installation's, and on no certificate of the operator's, is refused, and its door's Refused hears of it. files and certifier may be nil.
func TLS(hosts Hosts, authority *Authority, files *Files, certifier *Certifier) *tls.Config {
	return serverTLS(hosts, authority, files, certifier, func(name string) bool { return name == "" || hosts.Lookup(name).Role == Management })
}

// serverTLS speaks HTTP/2 for the names for which two is true.
func serverTLS(hosts Hosts, authority *Authority, files *Files, certifier *Certifier, two func(name string) bool) *tls.Config {
	given := func(hello *tls.ClientHelloInfo) *tls.Certificate {
		if files != nil {
			if c := files.Certificate(hello.ServerName); c != nil {
				return c
			}
		}
		return certifier.certificate(hello)
	}
	get := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := given(hello); c != nil {
			return c, nil
		}
		return authority.Certificate(hello.ServerName)
	}
	data := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get, NextProtos: []string{"http/1.1"}}
	management := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get, NextProtos: []string{"h2", "http/1.1"}}
	// A session that began under another name is not resumed under one of nobody's.
	foreign := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c, ok := hello.Conn.(*conn); ok {
				c.refused("host")
			}
			return nil, nil // which crypto/tls answers with the alert unrecognized_name
		}}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: get,
		NextProtos:     management.NextProtos,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			switch {
			case certifier.proves(hello):
				return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certifier.manager.GetCertificate, NextProtos: hello.SupportedProtos}, nil
			case hello.ServerName != "" && hosts.Lookup(hello.ServerName).Role == Foreign && given(hello) == nil:
				return foreign, nil
			case two(hello.ServerName):
				return management, nil
			}
			return data, nil
		},
	}
}

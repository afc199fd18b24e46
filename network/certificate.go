// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/embargo-registry/embargo/meta"
)

// How long certificates live. Clients trust the authority's; servers' are made anew when a third of their time is left.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	// mintedKept bounds the certificates kept for names below the suffix, so that a client cannot fill the memory with names.
	mintedKept = 256
)

// Authority is an installation's own certificate authority. It makes server certificates for the installation's own names
// and for no other. Safe for concurrent use.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	hosts Hosts
	clock func() time.Time

	mu     sync.Mutex
	minted map[string]*tls.Certificate
}

const authoritySecret = "network/authority"

// LoadAuthority reads the authority that all nodes share from the database, where the keyring has sealed it, and makes it
// first when there is none yet. made says that this call made it.
func LoadAuthority(ctx context.Context, db *meta.DB, ring *meta.Keyring, hosts Hosts, clock func() time.Time) (a *Authority, made bool, err error) {
	fresh, err := makeAuthority(clock())
	if err != nil {
		return nil, false, err
	}
	own, err := ring.Seal(authoritySecret, fresh)
	if err != nil {
		return nil, false, err
	}
	var sealed []byte
	err = db.Write(ctx, func(tx *meta.Tx) error {
		made = false
		stored, err := tx.Secret(authoritySecret)
		if errors.Is(err, meta.ErrNotFound) {
			made, sealed = true, own
			return tx.PutSecret(authoritySecret, own)
		}
		sealed = stored
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("the certificate authority: %w", err)
	}
	text, err := ring.Open(authoritySecret, sealed)
	if err != nil {
		return nil, false, fmt.Errorf("the certificate authority: %w", err)
	}
	a, err = parseAuthority(text)
	if err != nil {
		return nil, false, fmt.Errorf("the certificate authority: %w", err)
	}
	a.hosts, a.clock = hosts, clock
	return a, made, nil
}

// HasAuthority says whether an authority, which the keyring has sealed, is in the database.
func HasAuthority(tx *meta.Tx) (bool, error) {
	_, err := tx.Secret(authoritySecret)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// PEM is the authority's certificate, which clients are to trust.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pool trusts this authority and nothing else.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Certificate is the server certificate for the name a client asked for: the common one for the management hosts and the
// registries, one of its own for a deeper name. A name that is not ours is an error.
func (a *Authority) Certificate(serverName string) (*tls.Certificate, error) {
	names, cacheKey := a.common(), ""
	if serverName != "" {
		switch t := a.hosts.Lookup(serverName); t.Role {
		case Foreign:
			return nil, fmt.Errorf("the server name %q is not one of this installation", clip(serverName))
		case DataHost:
			cacheKey = t.Region
			names = []string{"*." + t.Region + ".data." + a.hosts.suffix}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock()
	if c := a.minted[cacheKey]; c != nil && c.Leaf.NotAfter.Sub(now) > serverLife/3 {
		return c, nil
	}
	c, err := a.issue(names, now)
	if err != nil {
		return nil, err
	}
	if a.minted == nil || len(a.minted) >= mintedKept {
		a.minted = map[string]*tls.Certificate{}
	}
	a.minted[cacheKey] = c
	return c, nil
}

// common are the names that the one certificate for everyday use carries.
func (a *Authority) common() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	names = append(names, a.hosts.management...)
	return append(names, "*."+a.hosts.suffix)
}

func (a *Authority) issue(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := blank(now, serverLife)
	if err != nil {
		return nil, err
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.Subject = pkix.Name{CommonName: names[len(names)-1]}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	seen := map[string]bool{}
	for _, n := range names {
		if seen[n] {
			continue
		}
		seen[n] = true
		if addr, err := netip.ParseAddr(n); err == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// makeAuthority is a new authority as PEM text: certificate, then key.
func makeAuthority(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := blank(now, authorityLife)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{Organization: []string{"Embargo"}, CommonName: fmt.Sprintf("Embargo installation %x", template.SerialNumber.Bytes()[:4])}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

// blank is a certificate template with its serial number and times. It is valid from an hour ago: clocks differ.
func blank(now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	serial.SetBit(serial, 126, 1) // sixteen bytes, whatever was drawn
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}, nil
}

func parseAuthority(text []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key cannot sign")
	}
	return &Authority{cert: pair.Leaf, key: key}, nil
}

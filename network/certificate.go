// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/embargo-registry/embargo/fault"
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
	hosts Hosts
	clock func() time.Time

	mu sync.Mutex
	issuer
	// next is the authority that will be in use: published for clients to trust, and signing nothing yet.
	next   *issuer
	minted map[string]*tls.Certificate
}

// issuer is an authority's certificate with its key.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

const (
	authoritySecret = "network/authority"
	nextSecret      = "network/authority-next"
)

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
	var sealed, next []byte
	err = db.Write(ctx, func(tx *meta.Tx) error {
		made = false
		var err error
		if next, err = tx.Secret(nextSecret); err != nil && !errors.Is(err, meta.ErrNotFound) {
			return err
		}
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
	a = &Authority{hosts: hosts, clock: clock}
	now, err := openIssuer(ring, authoritySecret, sealed)
	if err != nil {
		return nil, false, err
	}
	a.issuer = *now
	if next != nil {
		a.next, err = openIssuer(ring, nextSecret, next)
	}
	return a, made, err
}

func openIssuer(ring *meta.Keyring, secret string, sealed []byte) (*issuer, error) {
	text, err := ring.Open(secret, sealed)
	if err != nil {
		return nil, fmt.Errorf("the certificate authority: %w", err)
	}
	i, err := parseIssuer(text)
	if err != nil {
		return nil, fmt.Errorf("the certificate authority: %w", err)
	}
	return i, nil
}

// PEM is the authority's certificate, which clients are to trust, and the next one's when there is one.
func (a *Authority) PEM() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	if a.next != nil {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.next.cert.Raw})...)
	}
	return text
}

// Until is when the authority's certificate ends.
func (a *Authority) Until() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cert.NotAfter
}

// Pool trusts this authority and nothing else.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM())
	return pool
}

// Prepare makes the next authority, for clients to trust before it signs anything; one that is prepared already is kept. also runs in the same transaction with the
// SHA-256 of its certificate, in hex, which is returned.
func (a *Authority) Prepare(ctx context.Context, db *meta.DB, ring *meta.Keyring, also func(tx *meta.Tx, fingerprint string) error) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next != nil {
		return fingerprint(a.next.cert), nil
	}
	text, err := makeAuthority(a.clock())
	if err != nil {
		return "", err
	}
	next, err := parseIssuer(text)
	if err != nil {
		return "", err
	}
	sealed, err := ring.Seal(nextSecret, text)
	if err != nil {
		return "", err
	}
	err = db.Write(ctx, func(tx *meta.Tx) error {
		return errors.Join(tx.PutSecret(nextSecret, sealed), also(tx, fingerprint(next.cert)))
	})
	if err == nil {
		a.next = next
	}
	return fingerprint(next.cert), err
}

// Finish puts the next authority in use: certificates are signed by it from the next handshake on. Connections that stand stay. Errors: Conflict when none is prepared.
func (a *Authority) Finish(ctx context.Context, db *meta.DB, ring *meta.Keyring, also func(tx *meta.Tx, fingerprint string) error) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		return "", fault.New(fault.Conflict, "No next authority is prepared: run 'embargo keys rotate authority' first, and give clients the new ca.pem.")
	}
	err := db.Write(ctx, func(tx *meta.Tx) error {
		stored, err := tx.Secret(nextSecret)
		if err != nil {
			return err
		}
		text, err := ring.Open(nextSecret, stored)
		if err != nil {
			return err
		}
		sealed, err := ring.Seal(authoritySecret, text)
		if err != nil {
			return err
		}
		return errors.Join(tx.PutSecret(authoritySecret, sealed), tx.DeleteSecret(nextSecret), also(tx, fingerprint(a.next.cert)))
	})
	if err != nil {
		return "", err
	}
	a.issuer, a.next, a.minted = *a.next, nil, nil
	return fingerprint(a.cert), nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
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

func parseIssuer(text []byte) (*issuer, error) {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key cannot sign")
	}
	return &issuer{cert: pair.Leaf, key: key}, nil
}

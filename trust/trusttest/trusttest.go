// SPDX-License-Identifier: Apache-2.0

// Package trusttest makes authorities, signers and signatures for tests, with the library that the notation client signs with.
package trusttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature"

	"github.com/embargo-registry/embargo/trust"
)

// The media types of envelopes.
const (
	JWS  = "application/jose+json"
	COSE = "application/cose"
)

// Authority is a self-signed authority.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
	next        int64
}

// Subject is a subject with all that an identity must give.
func Subject(common string) pkix.Name {
	return pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Contoso"}, CommonName: common}
}

// NewAuthority makes an authority that is valid for a century around now.
func NewAuthority(t testing.TB, common string) *Authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: Subject(common), NotBefore: time.Now().AddDate(-50, 0, 0), NotAfter: time.Now().AddDate(50, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return &Authority{Certificate: certificate(t, template, template, key, key), key: key, next: 2}
}

// Signer is who signs: a key, and its certificate chain.
type Signer struct {
	Chain []*x509.Certificate
	key   crypto.PrivateKey
}

// Signer makes a signer with a certificate of the authority that is valid from one time to another.
func (a *Authority) Signer(t testing.TB, subject pkix.Name, from, to time.Time) *Signer {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(a.next), Subject: subject, NotBefore: from, NotAfter: to, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
	a.next++
	return &Signer{[]*x509.Certificate{certificate(t, template, a.Certificate, key, a.key), a.Certificate}, key}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificate(t testing.TB, template, parent *x509.Certificate, key, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// PEM is a certificate as text.
func PEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// Sign signs a target in an envelope of a media type; change may alter what is asked of the library.
func (s *Signer) Sign(t testing.TB, media string, of trust.Target, change ...func(*signature.SignRequest)) []byte {
	t.Helper()
	payload, err := json.Marshal(map[string]any{"targetArtifact": map[string]any{"mediaType": of.MediaType, "digest": of.Digest, "size": of.Size}})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.NewLocalSigner(s.Chain, s.key)
	if err != nil {
		t.Fatal(err)
	}
	request := &signature.SignRequest{Payload: signature.Payload{ContentType: "application/vnd.cncf.notary.payload.v1+json", Content: payload}, Signer: signer,
		SigningTime: s.Chain[0].NotBefore.Add(time.Second), SigningScheme: signature.SigningSchemeX509}
	for _, fn := range change {
		fn(request)
	}
	e, err := signature.NewEnvelope(media)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := e.Sign(request)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/trust"
	"github.com/embargo-registry/embargo/trust/trusttest"
)

// TestVerifyIsBounded: a chain whose verification would cost much is refused before it is computed with.
func TestVerifyIsBounded(t *testing.T) {
	now := time.Now()
	ours := trusttest.NewAuthority(t, "ours")
	builds := ours.Signer(t, trusttest.Subject("builds"), now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))
	stores := []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 200_000, 1), E: 65537}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: trusttest.Subject("huge"), NotBefore: now, NotAfter: now.AddDate(1, 0, 0)}
	heavy, err := x509.CreateCertificate(rand.Reader, template, template, huge, key)
	if err != nil {
		t.Fatal(err)
	}
	for why, chain := range map[string][][]byte{
		"RSA key of 200001 bits": {builds.Chain[0].Raw, heavy},
		"with 11 certificates":   slices.Repeat([][]byte{builds.Chain[0].Raw}, 11),
		"with 0 certificates":    {},
		"can't be read":          {[]byte("certificate")},
	} {
		var e map[string]any
		if err := json.Unmarshal(builds.Sign(t, trusttest.JWS, target), &e); err != nil {
			t.Fatal(err)
		}
		e["header"].(map[string]any)["x5c"] = chain
		envelope, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Verify(trusttest.JWS, envelope, target, stores, now); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %q", err, why)
		}
	}
}

// TestIdentities: the text form of names, and which subjects they hold for.
func TestIdentities(t *testing.T) {
	now := time.Now()
	ours := trusttest.NewAuthority(t, "ours")
	subject := trusttest.Subject("builds, and tests")
	subject.OrganizationalUnit = []string{" a+b "}
	by := ours.Signer(t, subject, now.Add(-time.Hour), now.Add(time.Hour))
	envelope := by.Sign(t, trusttest.COSE, target)
	for identity, holds := range map[string]bool{
		`x509.subject: C=US, ST=WA, O=Contoso`:                                   true,
		`x509.subject:C=US,S=WA,O=Contoso`:                                       true,
		`x509.subject: o = Contoso , c=US, st=WA, cn=builds\, and tests`:         true,
		`x509.subject: C=US, ST=WA, O=Contoso, OU=\ a\+b\ `:                      true,
		`x509.subject: C=US, ST=WA, O=Conto\73o`:                                 true,
		`x509.subject: C=US, ST=WA, O=Contoso, OU=a\+b`:                          false,
		`x509.subject: C=US, ST=WA, O=contoso`:                                   false,
		`x509.subject: C=US, ST=WA, O=Contoso, L=Seattle`:                        false,
		`x509.subject: C=US, ST=WA, O=Contoso, CN=builds\, and tests, OU=\ a\+b`: false,
	} {
		_, err := trust.Verify(trusttest.COSE, envelope, target, []trust.Store{store(t, "s", []string{identity}, ours.Certificate)}, now)
		if (err == nil) != holds {
			t.Errorf("%s: %v", identity, err)
		}
	}
	for _, wrong := range []string{"", `x509.subject: C=US, ST=WA, O=a\`, `x509.subject: C=US, ST=WA, O=a\zz`, `x509.subject: C=US, ST=WA, O=#0c01`, `x509.subject: C=US, ST=WA, O="a"`,
		`x509.subject: C=US, ST=WA, O=a,`, `x509.subject: C=US, ST=WA, S=WA, O=a`, `x509.subject: C=US, ST=WA, O=` + strings.Repeat("a", 3000)} {
		if _, err := trust.ParseIdentities([]string{wrong}); err == nil {
			t.Errorf("%.80q is taken", wrong)
		}
	}
}

// TestCertificates: what is not wholly PEM certificates is refused.
func TestCertificates(t *testing.T) {
	one := trusttest.PEM(trusttest.NewAuthority(t, "one").Certificate)
	two := "\n" + one + "\n" + strings.ReplaceAll(trusttest.PEM(trusttest.NewAuthority(t, "two").Certificate), "\n", "\r\n")
	if list, err := trust.ParseCertificates(two); err != nil || len(list) != 2 {
		t.Errorf("two certificates: %d, %v", len(list), err)
	}
	cut := one[:len(one)/2]
	for _, wrong := range []string{"", "text", one + "text", cut, cut + "\n" + one, one + cut, strings.ReplaceAll(one, "CERTIFICATE", "PUBLIC KEY"), strings.Repeat(one, 200)} {
		if _, err := trust.ParseCertificates(wrong); err == nil {
			t.Errorf("%.120q is taken", wrong)
		}
	}
}

// FuzzVerify: no envelope does harm, and one that counts for a manifest counts for no other.
func FuzzVerify(f *testing.F) {
	now := time.Now()
	ours := trusttest.NewAuthority(f, "ours")
	builds := ours.Signer(f, trusttest.Subject("builds"), now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))
	stores := []trust.Store{store(f, "s", []string{"*"}, ours.Certificate)}
	other := trust.Target{Digest: name.DigestOf([]byte("other")), MediaType: target.MediaType, Size: 5}
	for _, of := range []trust.Target{target, other} {
		f.Add(true, builds.Sign(f, trusttest.JWS, of))
		f.Add(false, builds.Sign(f, trusttest.COSE, of))
	}
	f.Add(true, []byte(`{"payload":"e30","protected":"e30","header":{"x5c":[]},"signature":"AA"}`))
	f.Fuzz(func(t *testing.T, json bool, envelope []byte) {
		media := trusttest.COSE
		if json {
			media = trusttest.JWS
		}
		before := bytes.Clone(envelope)
		_, one := trust.Verify(media, envelope, target, stores, now)
		_, two := trust.Verify(media, envelope, other, stores, now)
		if one == nil && two == nil {
			t.Errorf("it counts for two manifests: %q", envelope)
		}
		if !bytes.Equal(before, envelope) {
			t.Error("reading changed it")
		}
	})
}

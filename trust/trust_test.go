// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature"

	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/trust"
	"github.com/embargo-registry/embargo/trust/trusttest"
)

var target = trust.Target{Digest: name.DigestOf([]byte("{}")), MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 2}

func store(t testing.TB, label string, identities []string, certificates ...*x509.Certificate) trust.Store {
	t.Helper()
	list, err := trust.ParseIdentities(identities)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Store{Name: label, Certificates: certificates, Identities: list}
}

// TestVerify: a signature counts if it is whole, of the target, by whom one store trusts, and every certificate and the signature itself are in force.
func TestVerify(t *testing.T) {
	now := time.Now()
	ours, foreign := trusttest.NewAuthority(t, "ours"), trusttest.NewAuthority(t, "foreign")
	month := func(a *trusttest.Authority, s pkix.Name) *trusttest.Signer {
		return a.Signer(t, s, now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))
	}
	builds := month(ours, trusttest.Subject("builds"))
	builder := "x509.subject: CN=builds, C=US, ST=WA, O=Contoso"
	two := trusttest.Subject("builds")
	two.Organization = []string{"Contoso", "Fabrikam"}
	other := target
	other.Digest = name.DigestOf([]byte("other"))
	typed, sized := target, target
	typed.MediaType, sized.Size = "application/vnd.oci.image.index.v1+json", 3
	for what, c := range map[string]struct {
		by     *trusttest.Signer
		of     trust.Target
		stores []trust.Store
		change func(*signature.SignRequest)
		why    string // "" counts
	}{
		"by an authority":                     {builds, target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, nil, ""},
		"by its own certificate":              {builds, target, []trust.Store{store(t, "s", []string{builder}, builds.Chain[0])}, nil, ""},
		"by the second store":                 {builds, target, []trust.Store{store(t, "a", []string{"*"}, foreign.Certificate), store(t, "b", []string{builder}, ours.Certificate)}, nil, ""},
		"no store":                            {builds, target, nil, nil, "no certificate chain to a certificate of a trust store"},
		"another authority":                   {month(foreign, trusttest.Subject("builds")), target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, nil, "no certificate chain"},
		"another identity":                    {month(ours, trusttest.Subject("else")), target, []trust.Store{store(t, "s", []string{builder}, ours.Certificate)}, nil, "none of the trusted identities of the trust store 's'"},
		"authority and identity of two":       {builds, target, []trust.Store{store(t, "a", []string{"x509.subject: C=US, ST=WA, O=Else"}, ours.Certificate), store(t, "b", []string{builder}, foreign.Certificate)}, nil, "trust store 'a'"},
		"two organizations":                   {month(ours, two), target, []trust.Store{store(t, "s", []string{"x509.subject: C=US, ST=WA, O=Contoso"}, ours.Certificate)}, nil, "none of the trusted identities"},
		"of another digest":                   {builds, other, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, nil, "it is of another manifest"},
		"of another media type":               {builds, typed, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, nil, "media type"},
		"of another size":                     {builds, sized, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, nil, "3 bytes"},
		"an expired certificate":              {ours.Signer(t, trusttest.Subject("builds"), now.AddDate(0, -2, 0), now.AddDate(0, -1, 0)), target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, nil, "expired at"},
		"a certificate that is not valid yet": {ours.Signer(t, trusttest.Subject("builds"), now.AddDate(0, 1, 0), now.AddDate(0, 2, 0)), target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, nil, "not valid before"},
		"an expired signature": {builds, target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, func(r *signature.SignRequest) { r.Expiry = now.AddDate(0, 0, -1) },
			"as its signer has set it"},
		"another scheme": {builds, target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, func(r *signature.SignRequest) { r.SigningScheme = signature.SigningSchemeX509SigningAuthority },
			"signing scheme"},
		"another payload": {builds, target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, func(r *signature.SignRequest) { r.Payload.ContentType = "application/json" }, "payload"},
		"a plugin is demanded": {builds, target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, func(r *signature.SignRequest) {
			r.ExtendedSignedAttributes = []signature.Attribute{{Key: "io.cncf.notary.verificationPlugin", Critical: true, Value: "plugin"}}
		}, "critical attribute"},
		"a note": {builds, target, []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}, func(r *signature.SignRequest) {
			r.ExtendedSignedAttributes = []signature.Attribute{{Key: "note", Value: "text"}}
		}, ""},
	} {
		for _, media := range []string{trusttest.JWS, trusttest.COSE} {
			var change []func(*signature.SignRequest)
			if c.change != nil {
				change = append(change, c.change)
			}
			until, err := trust.Verify(media, c.by.Sign(t, media, c.of, change...), target, c.stores, now)
			switch {
			case c.why == "" && err != nil:
				t.Errorf("%s (%s): %v", what, media, err)
			case c.why == "" && !until.Equal(c.by.Chain[0].NotAfter):
				t.Errorf("%s (%s): it counts until %v, and its certificate until %v", what, media, until, c.by.Chain[0].NotAfter)
			case c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)):
				t.Errorf("%s (%s): %v, want %q", what, media, err, c.why)
			}
		}
	}
}

// TestVerifyForgery: what was changed after signing does not verify, and neither do an envelope of another form and one that is too long.
func TestVerifyForgery(t *testing.T) {
	now := time.Now()
	ours := trusttest.NewAuthority(t, "ours")
	builds := ours.Signer(t, trusttest.Subject("builds"), now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))
	stores := []trust.Store{store(t, "s", []string{"*"}, ours.Certificate)}
	end := now.Add(time.Hour).Truncate(time.Second)
	for media, wrong := range map[string]string{trusttest.JWS: trusttest.COSE, trusttest.COSE: trusttest.JWS} {
		whole := builds.Sign(t, media, target, func(r *signature.SignRequest) { r.Expiry = end })
		if until, err := trust.Verify(media, whole, target, stores, now); err != nil || !until.Equal(end) {
			t.Errorf("%s: it counts until %v, %v; it is made to expire at %v", media, until, err, end)
		}
		if _, err := trust.Verify(media, whole, target, stores, end); err == nil {
			t.Errorf("%s: it counts at its end", media)
		}
		for _, other := range []string{wrong, "application/json", ""} {
			if _, err := trust.Verify(other, whole, target, stores, now); err == nil {
				t.Errorf("%s is read as %q", media, other)
			}
		}
		if _, err := trust.Verify(media, append(whole, make([]byte, trust.EnvelopeLimit)...), target, stores, now); err == nil || !strings.Contains(err.Error(), "at most") {
			t.Errorf("%s: an envelope of more than a megabyte: %v", media, err)
		}
		forged := builds.Sign(t, media, trust.Target{Digest: name.DigestOf([]byte("other")), MediaType: target.MediaType, Size: target.Size})
		if a, b := strings.Index(string(whole), "\"payload\":\""), strings.Index(string(forged), "\"payload\":\""); a >= 0 && b >= 0 {
			payload := string(whole[a : a+strings.IndexByte(string(whole[a:]), ',')])
			swapped := string(forged[:b]) + payload + string(forged[b+strings.IndexByte(string(forged[b:]), ','):])
			if _, err := trust.Verify(media, []byte(swapped), target, stores, now); err == nil || !strings.Contains(err.Error(), "does not verify") {
				t.Errorf("a payload under another's signature: %v", err)
			}
		} else if media == trusttest.JWS {
			t.Error("the payload is not found in the envelope")
		} else {
			swapped := strings.Replace(string(forged), string(name.DigestOf([]byte("other"))), string(target.Digest), 1)
			if _, err := trust.Verify(media, []byte(swapped), target, stores, now); swapped == string(forged) || err == nil || !strings.Contains(err.Error(), "does not verify") {
				t.Errorf("a payload under another's signature: %v", err)
			}
		}
	}
}

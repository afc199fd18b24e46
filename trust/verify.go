// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	gocose "github.com/veraison/go-cose"

	"github.com/embargo-registry/embargo/name"
)

// ArtifactType is what a manifest says that holds a signature. Source: Notary Project, "OCI Signature Specification".
const ArtifactType = "application/vnd.cncf.notary.signature"

const (
	// EnvelopeLimit is the most bytes of a signature that are read.
	EnvelopeLimit = 1 << 20

	payloadType = "application/vnd.cncf.notary.payload.v1+json"
	// chainLimit and keyLimit bound what a certificate chain that anyone may have pushed costs: bits of an RSA key.
	chainLimit = 10
	keyLimit   = 8192
)

// Target is what a signature must be of.
type Target struct {
	Digest    name.Digest
	MediaType string
	Size      int64
}

// Verify checks a signature's envelope of a media type: that it is of the target, in force now, and by a signer that one of the stores trusts. It gives the time from which on
// that must be asked again. An error says, for a person, why the signature does not count.
func Verify(mediaType string, envelope []byte, of Target, stores []Store, now time.Time) (time.Time, error) {
	if len(envelope) > EnvelopeLimit {
		return time.Time{}, fmt.Errorf("its envelope has %d bytes, and at most %d are read", len(envelope), EnvelopeLimit)
	}
	read, chain := jws.ParseEnvelope, jwsChain
	switch mediaType {
	case jws.MediaTypeEnvelope:
	case cose.MediaTypeEnvelope:
		read, chain = cose.ParseEnvelope, coseChain
	default:
		return time.Time{}, fmt.Errorf("its envelope has the media type %.80q, which is neither %s nor %s", mediaType, jws.MediaTypeEnvelope, cose.MediaTypeEnvelope)
	}
	certificates, err := chain(envelope)
	if err == nil {
		err = bounded(certificates)
	}
	if err != nil {
		return time.Time{}, err
	}
	parsed, err := read(envelope)
	if err != nil {
		return time.Time{}, fmt.Errorf("its envelope can't be read: %w", err)
	}
	content, err := parsed.Verify()
	if err != nil {
		return time.Time{}, fmt.Errorf("it does not verify: %w", err)
	}
	if err := inForm(content); err != nil {
		return time.Time{}, err
	}
	if err := of.isIn(content.Payload.Content); err != nil {
		return time.Time{}, err
	}
	if err := trusted(content.SignerInfo.CertificateChain, stores); err != nil {
		return time.Time{}, err
	}
	return inForce(&content.SignerInfo, now)
}

// bounded refuses a chain before it is computed with.
func bounded(chain [][]byte) error {
	if len(chain) == 0 || len(chain) > chainLimit {
		return fmt.Errorf("it comes with %d certificates, and must have 1 to %d", len(chain), chainLimit)
	}
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("a certificate of its chain can't be read: %w", err)
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > keyLimit {
			return fmt.Errorf("a certificate of its chain has an RSA key of %d bits, and at most %d are taken", key.N.BitLen(), keyLimit)
		}
	}
	return nil
}

// jwsChain is the certificate chain of an envelope of JSON, as notation-core-go finds it.
func jwsChain(envelope []byte) ([][]byte, error) {
	var e struct {
		Header struct {
			Chain [][]byte `json:"x5c"`
		} `json:"header"`
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return nil, fmt.Errorf("its envelope can't be read: %w", err)
	}
	return e.Header.Chain, nil
}

// coseChain is the certificate chain of an envelope of CBOR, as notation-core-go finds it.
func coseChain(envelope []byte) ([][]byte, error) {
	var m gocose.Sign1Message
	if err := m.UnmarshalCBOR(envelope); err != nil {
		return nil, fmt.Errorf("its envelope can't be read: %w", err)
	}
	list, ok := m.Headers.Unprotected[gocose.HeaderLabelX5Chain].([]any)
	if !ok {
		return nil, errors.New("it comes without a certificate chain")
	}
	var chain [][]byte
	for _, c := range list {
		der, ok := c.([]byte)
		if !ok {
			return nil, errors.New("its certificate chain holds something else than certificates")
		}
		chain = append(chain, der)
	}
	return chain, nil
}

// inForm: the scheme is the one that is judged here, and nothing is demanded of a verifier that is not done.
func inForm(c *signature.EnvelopeContent) error {
	attributes := c.SignerInfo.SignedAttributes
	if attributes.SigningScheme != signature.SigningSchemeX509 {
		return fmt.Errorf("its signing scheme is %.60q, and only %s is verified", string(attributes.SigningScheme), signature.SigningSchemeX509)
	}
	if c.Payload.ContentType != payloadType {
		return fmt.Errorf("its payload has the type %.80q, which is not %s", c.Payload.ContentType, payloadType)
	}
	for _, a := range attributes.ExtendedAttributes {
		if a.Critical {
			return fmt.Errorf("it has the critical attribute %.80q, which is not known here: signatures that need a plugin are not verified", fmt.Sprint(a.Key))
		}
	}
	return nil
}

// isIn: what was signed is the target, in every respect.
func (t Target) isIn(payload []byte) error {
	var p struct {
		Target struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
			Size      int64  `json:"size"`
		} `json:"targetArtifact"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return fmt.Errorf("its payload can't be read: %w", err)
	}
	switch {
	case p.Target.Digest != string(t.Digest):
		return fmt.Errorf("it is of another manifest (%.80s)", p.Target.Digest)
	case p.Target.MediaType != t.MediaType || p.Target.Size != t.Size:
		return fmt.Errorf("it is of a manifest of the media type %.80q and %d bytes, and this one has %q and %d", p.Target.MediaType, p.Target.Size, t.MediaType, t.Size)
	}
	return nil
}

// trusted: one store has a certificate of the chain, and the signer's subject among its identities.
func trusted(chain []*x509.Certificate, stores []Store) error {
	known := ""
	for _, s := range stores {
		if !s.anchors(chain) {
			continue
		}
		for _, i := range s.Identities {
			if i.holds(chain[0]) {
				return nil
			}
		}
		known = s.Name
	}
	if known != "" {
		return fmt.Errorf("its signer %.200q is none of the trusted identities of the trust store '%s'", chain[0].Subject.String(), known)
	}
	return fmt.Errorf("its signer %.200q has no certificate chain to a certificate of a trust store", chain[0].Subject.String())
}

func (s Store) anchors(chain []*x509.Certificate) bool {
	for _, c := range chain {
		for _, mine := range s.Certificates {
			if mine.Equal(c) {
				return true
			}
		}
	}
	return false
}

// inForce: without a time-stamp that is verified, the time of signing is the signer's word alone, so every certificate must be valid now.
func inForce(info *signature.SignerInfo, now time.Time) (until time.Time, err error) {
	for _, c := range info.CertificateChain {
		switch {
		case now.Before(c.NotBefore):
			return until, fmt.Errorf("the certificate %.200q of its chain is not valid before %s", c.Subject.String(), c.NotBefore.UTC().Format(time.RFC3339))
		case now.After(c.NotAfter):
			return until, fmt.Errorf("the certificate %.200q of its chain expired at %s; time-stamps are not verified here, so sign again with a certificate that is valid", c.Subject.String(), c.NotAfter.UTC().Format(time.RFC3339))
		}
		if until.IsZero() || c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	if end := info.SignedAttributes.Expiry; !end.IsZero() {
		if !now.Before(end) {
			return time.Time{}, fmt.Errorf("it expired at %s, as its signer has set it: sign again", end.UTC().Format(time.RFC3339))
		}
		if end.Before(until) {
			until = end
		}
	}
	return until, nil
}

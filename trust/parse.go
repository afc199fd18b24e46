// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// certificateLimit bounds one PEM text, identityLimit one identity.
const (
	certificateLimit = 64 << 10
	identityLimit    = 2 << 10
)

// ParseCertificates reads a PEM text of one or more certificates and nothing else. Expired ones are read: they verify nothing.
func ParseCertificates(text string) ([]*x509.Certificate, error) {
	if len(text) > certificateLimit {
		return nil, fmt.Errorf("it has %d bytes, and at most %d are taken", len(text), certificateLimit)
	}
	var list []*x509.Certificate
	for rest := []byte(text); strings.TrimSpace(string(rest)) != ""; {
		if !strings.HasPrefix(strings.TrimSpace(string(rest)), "-----BEGIN ") {
			return nil, errors.New("it holds something beside PEM blocks: give -----BEGIN CERTIFICATE----- and so on, and nothing else")
		}
		block, after := pem.Decode(rest)
		switch {
		case block == nil:
			return nil, errors.New("it is no whole PEM block")
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return nil, errors.New("it holds a private key, which must not be here: give certificates alone, and take the key for known to others")
		case block.Type != "CERTIFICATE":
			return nil, fmt.Errorf("it holds a PEM block of the type %.60q: give certificates alone", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("it is no X.509 certificate (%w)", err)
		}
		list, rest = append(list, c), after
	}
	if len(list) == 0 {
		return nil, errors.New("it is empty")
	}
	if strings.Count(text, "-----BEGIN ") != len(list) { // a block that is not whole is passed over
		return nil, errors.New("it holds a PEM block that is not whole")
	}
	return list, nil
}

// Identity is a subject that a signing certificate may have: every attribute given must be the subject's own. One without attributes is anybody's.
type Identity struct{ attributes []attribute }

type attribute struct {
	word string
	oid  asn1.ObjectIdentifier
	text string
}

// words are the attributes that an identity may give, with their object identifiers. Source: RFC 4519; RFC 4514 §3.
var words = map[string]asn1.ObjectIdentifier{
	"C": {2, 5, 4, 6}, "ST": {2, 5, 4, 8}, "S": {2, 5, 4, 8}, "L": {2, 5, 4, 7}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3},
	"STREET": {2, 5, 4, 9}, "POSTALCODE": {2, 5, 4, 17}, "SERIALNUMBER": {2, 5, 4, 5},
}

const identityPrefix = "x509.subject:"

// ParseIdentities reads trusted identities in the form of a Notary Project trust policy: "x509.subject: C=…, ST=…, O=…" with these three and more attributes, or "*" alone.
func ParseIdentities(texts []string) ([]Identity, error) {
	if len(texts) == 0 {
		return nil, errors.New(`there is none: give "x509.subject: C=…, ST=…, O=…", or "*" for whoever has a certificate of the store's`)
	}
	if slices.Contains(texts, "*") {
		if len(texts) > 1 {
			return nil, errors.New(`"*" trusts every subject and stands alone: leave it out, or leave out the others`)
		}
		return []Identity{{}}, nil
	}
	var list []Identity
	for _, text := range texts {
		i, err := parseIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("%.200q: %w", text, err)
		}
		list = append(list, i)
	}
	return list, nil
}

func parseIdentity(text string) (Identity, error) {
	var i Identity
	if len(text) > identityLimit {
		return i, fmt.Errorf("it has %d bytes, and at most %d are taken", len(text), identityLimit)
	}
	subject, ok := strings.CutPrefix(text, identityPrefix)
	if !ok {
		return i, fmt.Errorf("it does not begin with %q", identityPrefix)
	}
	parts, err := split(subject)
	if err != nil {
		return i, err
	}
	for _, p := range parts {
		oid, known := words[strings.ToUpper(p.word)]
		if !known {
			return i, fmt.Errorf("the attribute %.40q is none of C, ST, L, O, OU, CN, STREET, POSTALCODE, SERIALNUMBER", p.word)
		}
		if p.text == "" {
			return i, fmt.Errorf("the attribute %s has no value", p.word)
		}
		if i.has(oid) {
			return i, fmt.Errorf("the attribute %s is there twice", p.word)
		}
		i.attributes = append(i.attributes, attribute{strings.ToUpper(p.word), oid, p.text})
	}
	for _, must := range []string{"C", "ST", "O"} {
		if !i.has(words[must]) {
			return i, fmt.Errorf("the attribute %s is missing: C, ST and O must be given, so that an identity does not hold for too many", must)
		}
	}
	return i, nil
}

func (i Identity) has(oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(i.attributes, func(a attribute) bool { return a.oid.Equal(oid) })
}

// holds reports whether a certificate's subject has all attributes of the identity, each once and alike.
func (i Identity) holds(c *x509.Certificate) bool {
	for _, a := range i.attributes {
		count, alike := 0, false
		for _, n := range c.Subject.Names {
			if n.Type.Equal(a.oid) {
				text, isText := n.Value.(string)
				count, alike = count+1, isText && text == a.text
			}
		}
		if count != 1 || !alike {
			return false
		}
	}
	return true
}

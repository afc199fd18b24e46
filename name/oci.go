// SPDX-License-Identifier: Apache-2.0

package name

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"

	"github.com/embargo-registry/embargo/fault"
)

// Repository is a repository's name: lower-case path components, 1 to 255 characters in all.
// Source: OCI distribution 1.1, section "Pulling manifests".
type Repository string

// Tag is a tag: 1 to 128 of [a-zA-Z0-9_.-], beginning with none of "." and "-".
// Source: OCI distribution 1.1, section "Pulling manifests".
type Tag string

// Digest is algorithm:hex, of sha256 or sha512, in lower case.
// Source: OCI image spec 1.1, section "Digests".
type Digest string

// Reference names a manifest in a repository: by Digest when it is set, else by Tag.
type Reference struct {
	Repository Repository
	Tag        Tag
	Digest     Digest
}

// ParseRepository checks a repository's name. Errors: NameInvalid.
func ParseRepository(s string) (Repository, error) {
	if len(s) == 0 || len(s) > 255 {
		return "", fault.New(fault.NameInvalid, "A repository's name has 1 to 255 characters; this one has %d.", len(s))
	}
	for comp := range strings.SplitSeq(s, "/") {
		if !component(comp) {
			return "", fault.New(fault.NameInvalid,
				"%q is not a repository name: each part between slashes is lower-case letters and digits, joined by one '.', one or two '_', or any number of '-'.", clip(s))
		}
	}
	return Repository(s), nil
}

// component checks [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func component(s string) bool {
	alnum := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	if s == "" || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if alnum(s[i]) {
			i++
			continue
		}
		j := i
		for j < len(s) && !alnum(s[j]) {
			j++
		}
		sep := s[i:j]
		if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		i = j
	}
	return true
}

// ParseTag checks a tag. Errors: TagInvalid.
func ParseTag(s string) (Tag, error) {
	ok := len(s) > 0 && len(s) <= 128 && s[0] != '.' && s[0] != '-'
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-'
	}
	if !ok {
		return "", fault.New(fault.TagInvalid, "%q is not a tag: 1 to 128 letters, digits, '_', '.', '-', not beginning with '.' or '-'.", clip(s))
	}
	return Tag(s), nil
}

// ParseDigest checks a digest. Errors: DigestInvalid.
func ParseDigest(s string) (Digest, error) {
	alg, hexed, found := strings.Cut(s, ":")
	want := 0
	switch {
	case found && alg == "sha256":
		want = sha256.Size * 2
	case found && alg == "sha512":
		want = sha512.Size * 2
	default:
		return "", fault.New(fault.DigestInvalid, "%q is not a digest: it must begin with sha256: or sha512:.", clip(s))
	}
	if len(hexed) != want || strings.ToLower(hexed) != hexed {
		return "", fault.New(fault.DigestInvalid, "%q is not a digest: %s needs %d lower-case hexadecimal digits.", clip(s), alg, want)
	}
	if _, err := hex.DecodeString(hexed); err != nil {
		return "", fault.New(fault.DigestInvalid, "%q is not a digest: %s needs %d lower-case hexadecimal digits.", clip(s), alg, want)
	}
	return Digest(s), nil
}

// Algorithm is sha256 or sha512.
func (d Digest) Algorithm() string { alg, _, _ := strings.Cut(string(d), ":"); return alg }

// Hex is the part after the colon.
func (d Digest) Hex() string { _, h, _ := strings.Cut(string(d), ":"); return h }

// NewHash is a fresh hash of the digest's algorithm.
func (d Digest) NewHash() hash.Hash {
	if d.Algorithm() == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// DigestOf is the sha256 digest of content.
func DigestOf(content []byte) Digest {
	sum := sha256.Sum256(content)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// DigestFrom is the digest of a finished hash: algorithm is sha256 or sha512.
func DigestFrom(algorithm string, h hash.Hash) Digest {
	return Digest(algorithm + ":" + hex.EncodeToString(h.Sum(nil)))
}

// IsDigest reports whether a manifest reference of the distribution protocol is a digest rather than a tag: a tag holds no colon.
func IsDigest(s string) bool { return strings.Contains(s, ":") }

// ParseReference reads repository[:tag][@digest]. Neither tag nor digest is supplied by default: callers say what its absence means.
// Errors: NameInvalid, TagInvalid, DigestInvalid.
func ParseReference(s string) (Reference, error) {
	var ref Reference
	var err error
	rest, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if ref.Digest, err = ParseDigest(digest); err != nil {
			return Reference{}, err
		}
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		if ref.Tag, err = ParseTag(rest[i+1:]); err != nil {
			return Reference{}, err
		}
		rest = rest[:i]
	}
	if ref.Repository, err = ParseRepository(rest); err != nil {
		return Reference{}, err
	}
	return ref, nil
}

// String is repository[:tag][@digest].
func (r Reference) String() string {
	s := string(r.Repository)
	if r.Tag != "" {
		s += ":" + string(r.Tag)
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

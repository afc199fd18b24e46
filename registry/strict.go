// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
)

const (
	// valuesLimit is how many values the JSON of a manifest may hold: what is read into memory is many times as large as its text.
	valuesLimit = 100_000
	// depthLimit is how deep they may lie in each other.
	depthLimit = 64
	// typeLimit is the length of the longest media type. Source: RFC 6838, section 4.2: two names of 127 characters.
	typeLimit = 255
)

// unambiguous refuses JSON that two readers could understand in two ways: a member that stands twice in an object, and in the objects that this registry reads one that differs from a member of
// theirs in case alone. It bounds what reading it can take. Errors: ManifestInvalid.
func unambiguous(content []byte) error {
	s := strict{in: json.NewDecoder(bytes.NewReader(content))}
	s.in.UseNumber()
	return s.value(readDocument, 0)
}

// reads is what the members of an object mean to this registry.
type reads int

const (
	readNothing reads = iota
	readDocument
	readDescriptor
)

// members are those that are read of each object. Encoding/json takes them in any case.
var members = map[reads][]string{
	readDocument:   {"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs", "fsLayers", "subject", "annotations"},
	readDescriptor: {"mediaType", "digest", "size", "urls"},
}

type strict struct {
	in     *json.Decoder
	values int
}

// value reads one value, to its end.
func (s *strict) value(as reads, depth int) error {
	if s.values++; s.values > valuesLimit {
		return invalid("The manifest holds more than %d values of JSON.", valuesLimit)
	}
	if depth > depthLimit {
		return invalid("The JSON of the manifest is nested more than %d deep.", depthLimit)
	}
	token, err := s.in.Token()
	if err != nil {
		return noJSON(err)
	}
	switch token {
	case json.Delim('{'):
		return s.object(as, depth)
	case json.Delim('['):
		for s.in.More() {
			if err := s.value(as, depth+1); err != nil {
				return err
			}
		}
		if _, err := s.in.Token(); err != nil {
			return noJSON(err)
		}
	}
	return nil
}

func (s *strict) object(as reads, depth int) error {
	seen := map[string]struct{}{}
	for s.in.More() {
		token, err := s.in.Token()
		if err != nil {
			return noJSON(err)
		}
		name, _ := token.(string)
		if _, twice := seen[name]; twice {
			return invalid("The member %q stands twice in one object of the manifest: a client could read it in another way.", clip(name))
		}
		seen[name] = struct{}{}
		for _, m := range members[as] {
			if m != name && strings.EqualFold(m, name) {
				return invalid("The member %q of the manifest must be written %q: a client could read it in another way.", clip(name), m)
			}
		}
		if err := s.value(within(as, name), depth+1); err != nil {
			return err
		}
	}
	if _, err := s.in.Token(); err != nil {
		return noJSON(err)
	}
	return nil
}

// within is how a member of an object is read.
func within(as reads, name string) reads {
	if as == readDocument {
		switch name {
		case "config", "layers", "manifests", "subject":
			return readDescriptor
		}
	}
	return readNothing
}

// kindOfContent refuses what can be no media type. Errors: ManifestInvalid.
func kindOfContent(what, text string) error {
	if len(text) > typeLimit || strings.ContainsFunc(text, unicode.IsControl) {
		return invalid("The %s %q is no media type: it has more than %d characters, or control characters.", what, clip(text), typeLimit)
	}
	return nil
}

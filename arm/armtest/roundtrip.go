// SPDX-License-Identifier: Apache-2.0

// Package armtest checks declarations of resource types: that no api-version loses what another one wrote.
package armtest

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/embargo-registry/embargo/arm"
)

// RoundTrips checks for every pair of api-versions of every type of the namespace that a document created in the one, then read and
// written back in the other as clients do it (GET, then PUT of what GET gave), is the same document afterwards. The documents are
// filled ones; samples adds documents by the type's full name where a filled one would not be valid or says too little.
func RoundTrips(t *testing.T, n arm.Namespace, types []string, samples map[string][][]byte) {
	t.Helper()
	for _, typ := range types {
		t.Run(typ, func(t *testing.T) {
			codec, err := arm.CodecOf(n, typ)
			if err != nil {
				t.Fatal(err)
			}
			filled, err := codec.Filled()
			if err != nil {
				t.Fatal(err)
			}
			for _, sample := range append([][]byte{filled}, samples[typ]...) {
				doc, err := codec.Whole(sample)
				if err != nil {
					t.Fatal(err)
				}
				for _, first := range codec.Versions() {
					for _, second := range codec.Versions() {
						pair(t, codec, doc, first, second)
					}
				}
			}
		})
	}
}

// pair creates doc in the first version and passes it through the second; then it passes the whole doc through the second.
func pair(t *testing.T, codec *arm.Codec, doc []byte, first, second string) {
	t.Helper()
	body := show(t, codec, first, doc)
	created, err := codec.Merge(first, nil, body, false)
	if err != nil {
		t.Errorf("create in %s: %v\n%s", first, err, body)
		return
	}
	for what, stored := range map[string][]byte{"created in " + first: created, "whole": doc} {
		body := show(t, codec, second, stored)
		after, err := codec.Merge(second, stored, body, false)
		if err != nil {
			t.Errorf("%s, GET and PUT in %s: %v", what, second, err)
			continue
		}
		if !bytes.Equal(canonical(t, stored), canonical(t, after)) {
			t.Errorf("%s, GET and PUT in %s changed it\nbefore %s\nafter  %s", what, second, stored, after)
		}
		patched, err := codec.Merge(second, stored, []byte("{}"), true)
		if err != nil || !bytes.Equal(canonical(t, stored), canonical(t, patched)) {
			t.Errorf("%s, an empty PATCH in %s changed it: %v\nbefore %s\nafter  %s", what, second, err, stored, patched)
		}
	}
}

func show(t *testing.T, codec *arm.Codec, version string, doc []byte) []byte {
	t.Helper()
	body, err := codec.WriteBack(version, doc)
	if err != nil {
		t.Fatalf("show in %s: %v", version, err)
	}
	return body
}

func canonical(t *testing.T, doc []byte) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

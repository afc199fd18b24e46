// SPDX-License-Identifier: Apache-2.0

package name

import (
	"strings"
	"testing"
)

const sub = "/subscriptions/5f0e0000-0000-0000-0000-000000000001"

func TestResourceID(t *testing.T) {
	for _, c := range []struct{ in, out, typ, name, parent, root, scope string }{
		{"/", "/", "Microsoft.Resources/tenants", "", "/", "/", "/"},
		{sub, sub, "Microsoft.Resources/subscriptions", "5f0e0000-0000-0000-0000-000000000001", "/", sub, "/"},
		{sub + "/resourcegroups/G", sub + "/resourceGroups/G", "Microsoft.Resources/resourceGroups", "G", sub, sub + "/resourceGroups/G", sub},
		{sub + "/resourcegroups/g/providers/Microsoft.ContainerRegistry//registries/Reg",
			sub + "/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/Reg",
			"Microsoft.ContainerRegistry/registries", "Reg", sub + "/resourceGroups/g",
			sub + "/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/Reg", sub + "/resourceGroups/g"},
		{sub + "/resourceGroups/g/PROVIDERS/A.B/rs/r/kids/k", sub + "/resourceGroups/g/providers/A.B/rs/r/kids/k",
			"A.B/rs/kids", "k", sub + "/resourceGroups/g/providers/A.B/rs/r", sub + "/resourceGroups/g/providers/A.B/rs/r", sub + "/resourceGroups/g"},
		{sub + "/resourceGroups/g/providers/A.B/rs/r/providers/Microsoft.Resources/tags/default",
			sub + "/resourceGroups/g/providers/A.B/rs/r/providers/Microsoft.Resources/tags/default",
			"Microsoft.Resources/tags", "default", sub + "/resourceGroups/g/providers/A.B/rs/r",
			sub + "/resourceGroups/g/providers/A.B/rs/r", sub + "/resourceGroups/g/providers/A.B/rs/r"},
		{"/providers/Microsoft.Authorization/roleDefinitions/x", "/providers/Microsoft.Authorization/roleDefinitions/x",
			"Microsoft.Authorization/roleDefinitions", "x", "/", "/providers/Microsoft.Authorization/roleDefinitions/x", "/"},
	} {
		id, err := ParseResourceID(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		got := []string{id.String(), id.Type(), id.Name(), id.Parent().String(), id.Root().String(), id.Scope().String()}
		want := []string{c.out, c.typ, c.name, c.parent, c.root, c.scope}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: part %d is %q, want %q", c.in, i, got[i], want[i])
			}
		}
	}
}

func TestResourceIDRefuses(t *testing.T) {
	for _, in := range []string{
		"/subscriptions", "/resourceGroups/g", sub + "/resourceGroups/g/providers/A.B/rs", sub + "/resourceGroups/g/providers/A.B/rs/r/kids",
		sub + "/resourceGroups/g/providers/A.B/rs/..", sub + "/resourceGroups/%2e%2e", sub + "/resourceGroups/a\x00b",
	} {
		if id, err := ParseResourceID(in); err == nil {
			t.Errorf("%q was read as %s", in, id)
		}
	}
}

func TestSplitLeavesCollectionsAndActions(t *testing.T) {
	id, rest, err := Split(Segments(sub + "/resourceGroups/g/providers/A.B/rs/r/importImage"))
	if err != nil || id.Name() != "r" || len(rest) != 1 || rest[0] != "importImage" {
		t.Errorf("action: %v %v %v", id, rest, err)
	}
	id, rest, err = Split(Segments(sub + "/providers/A.B/rs"))
	if err != nil || id.String() != sub || strings.Join(rest, "/") != "providers/A.B/rs" {
		t.Errorf("collection: %v %v %v", id, rest, err)
	}
}

func TestWithinRespectsSegments(t *testing.T) {
	g, _ := ParseResourceID(sub + "/resourceGroups/g")
	gg, _ := ParseResourceID(sub + "/resourceGroups/gg/providers/A.B/rs/r")
	in, _ := ParseResourceID(sub + "/resourcegroups/G/providers/A.B/rs/r")
	if gg.Within(g) {
		t.Error("a resource of group gg lies within group g")
	}
	if !in.Within(g) || !in.Within(ResourceID{}) || !g.Within(g) {
		t.Error("a resource does not lie within its own group, itself or the root")
	}
}

func TestReferences(t *testing.T) {
	hex64 := strings.Repeat("a1", 32)
	for in, ok := range map[string]bool{
		"app": true, "a/b/c": true, "a__b/c-d--e.f": true, "a/b:v1": true, "a@sha256:" + hex64: true, "a:v@sha256:" + hex64: true,
		"": false, "A": false, "a//b": false, "/a": false, "a/": false, "a..b": false, "a___b": false, "-a": false, "a_": false, "a._b": false,
		"a:": false, "a:-x": false, "a@sha256:" + hex64[1:]: false, "a@sha256:" + strings.ToUpper(hex64): false, "a@md5:" + hex64: false,
		"a:" + strings.Repeat("x", 129): false, strings.Repeat("a", 256): false, "a b": false, "a\n": false, "../a": false,
	} {
		ref, err := ParseReference(in)
		if (err == nil) != ok {
			t.Errorf("%q: %v %v", in, ref, err)
		}
		if err == nil && ref.String() != in {
			t.Errorf("%q came back as %q", in, ref)
		}
	}
}

func FuzzResourceID(f *testing.F) {
	f.Add(sub + "/resourcegroups/g/providers/A.B//rs/r/providers/C.D/es/e")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseResourceID(s)
		if err != nil {
			return
		}
		again, err := ParseResourceID(id.String())
		if err != nil || again != id {
			t.Fatalf("%q → %q → %q, %v", s, id, again, err)
		}
		if !id.Within(id.Parent()) || !id.Within(id.Root()) && id.IsResource() {
			t.Fatalf("%q lies outside its parent or root", id)
		}
	})
}

func FuzzReference(f *testing.F) {
	f.Add("a/b:v1@sha256:" + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseReference(s)
		if err == nil && ref.String() != s {
			t.Fatalf("%q came back as %q", s, ref)
		}
	})
}

func FuzzDigest(f *testing.F) {
	f.Add("sha512:" + strings.Repeat("0", 128))
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err == nil && (d.Algorithm()+":"+d.Hex() != s || len(d.Hex()) != d.NewHash().Size()*2) {
			t.Fatalf("%q was read as %s %s", s, d.Algorithm(), d.Hex())
		}
	})
}

// A UUID has its version and variant, whatever the random bits are.
func TestUUID(t *testing.T) {
	if got := UUID([16]byte{}); got != "00000000-0000-4000-8000-000000000000" {
		t.Error(got)
	}
	all := [16]byte{0, 1, 2, 3, 4, 5, 0xff, 7, 0xff, 9, 10, 11, 12, 13, 14, 15}
	if got := UUID(all); got != "00010203-0405-4f07-bf09-0a0b0c0d0e0f" {
		t.Error(got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

func TestFilter(t *testing.T) {
	t.Parallel()
	id := name.Group("s", "Group1").In("Microsoft.ContainerRegistry", "registries", "reg'1")
	tags := map[string]string{"Env": "prod", "team": "a"}
	for text, want := range map[string]bool{
		"": true,
		"resourceType eq 'microsoft.containerregistry/registries'":  true,
		"resourceType eq 'Microsoft.Network/virtualNetworks'":       false,
		"resourceType ne 'Microsoft.Network/virtualNetworks'":       true,
		"resourceGroup eq 'GROUP1' and name eq 'reg''1'":            true,
		"name eq 'x' or location eq 'West US'":                      true,
		"tagName eq 'env' and tagValue eq 'prod'":                   true,
		"tagName eq 'env' and tagValue eq 'a'":                      false, // both are there, of different tags
		"tagname eq 'ENV'":                                          true,
		"(name eq 'x' or name eq 'reg''1') and (tagName eq 'team')": true,
		"name eq 'x' and tagName eq 'env' or tagName eq 'team'":     true,
	} {
		f, err := arm.ParseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := f.Match(id, "westus", tags); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{"name", "name eq", "name eq x", "name gt 'x'", "kind eq 'x'", "name eq 'x' and", "(name eq 'x'", "name eq 'x')", "name eq 'x",
		"substringof('x', name)", "'name' eq 'x'", "name eq 'x' name eq 'y'"} {
		if _, err := arm.ParseFilter(text); !fault.Is(err, fault.InvalidParameter) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("(name eq 'x''y' or tagName ne 'a') and resourceType eq 'b'")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := arm.ParseFilter(text)
		if err != nil {
			if !fault.Is(err, fault.InvalidParameter) {
				t.Fatal(err)
			}
			return
		}
		p.Match(name.Group("s", "g"), "westus", map[string]string{"a": "b"})
	})
}

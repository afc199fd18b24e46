// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/fault"
)

func codec(t testing.TB) *arm.Codec {
	t.Helper()
	c, err := arm.CodecOf(bank(), vaults)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every pair of api-versions: what the one created survives GET and PUT in the other.
func TestNoVersionLosesWhatAnotherWrote(t *testing.T) {
	t.Parallel()
	armtest.RoundTrips(t, bank(), []string{vaults, doors}, map[string][][]byte{
		vaults: {[]byte(`{"sku":{"name":"Basic"},"location":"westus","properties":{"lock":"enabled","public":"Disabled","old":"x","color":"blue"}}`)},
	})
}

const locked = `{"sku":{"name":"Premium"},"location":"westus","tags":{"a":"1","b":"2"},"properties":{"lock":"enabled","public":"Disabled","color":"blue","zone":"Enabled",
	"policies":{"retention":{"days":30,"status":"enabled"},"trust":{"status":"enabled","kind":"Other"}},"rules":{"default":"Deny","ips":[{"value":"10.0.0.1","note":"n"}]},"key":"k"}}`

// The rules of PUT and PATCH, member by member: what the result has at a path.
func TestMerging(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, version, body string
		patch               bool
		want                map[string]any
	}{
		{"PUT resets what it can say and omits", "2026-03-01-preview", `{"sku":{"name":"Premium"},"location":"westus"}`, false, map[string]any{
			"properties.zone": "Enabled", "properties.lock": "disabled", "properties.color": "grey", "properties.policies.retention.days": 7.0, "properties.policies.trust.kind": "Notary", "properties.rules.default": "Allow"}},
		{"PUT keeps what is marked so", "2026-03-01-preview", `{"sku":{"name":"Premium"},"location":"westus","properties":{"zone":"Enabled"}}`, false, map[string]any{
			"properties.public": "Disabled", "properties.key": "k", "properties.zone": "Enabled"}},
		{"PUT keeps what its version cannot say, deep down too", "2021-06-01-preview", `{"sku":{"name":"Premium"},"location":"westus","properties":{"zone":"Enabled"}}`, false, map[string]any{
			"properties.color": "blue", "properties.policies.trust.kind": "Other", "properties.policies.trust.status": "disabled", "properties.lock": "disabled"}},
		{"PUT of a list keeps of an equal element what its version cannot say", "2021-09-01",
			`{"sku":{"name":"Premium"},"location":"westus","properties":{"zone":"Enabled","rules":{"ips":[{"value":"10.0.0.1"},{"value":"10.0.0.2"}]}}}`, false, map[string]any{
				"properties.rules.ips": []any{map[string]any{"value": "10.0.0.1", "action": "Allow", "note": "n"}, map[string]any{"value": "10.0.0.2", "action": "Allow"}}}},
		{"null is as good as omitted", "2026-03-01-preview", `{"sku":{"name":"Premium"},"location":"westus","tags":null,"properties":{"zone":"Enabled","lock":null,"policies":null}}`, false, map[string]any{
			"properties.lock": "disabled", "properties.policies.retention.days": 7.0, "tags": map[string]any{}}},
		{"PATCH leaves what it omits", "2026-03-01-preview", `{"properties":{"policies":{"trust":{"status":"disabled"}}}}`, true, map[string]any{
			"properties.lock": "enabled", "properties.policies.trust.status": "disabled", "properties.policies.trust.kind": "Other", "properties.policies.retention.days": 30.0}},
		{"PATCH replaces tags whole", "2026-03-01-preview", `{"tags":{"c":"3"}}`, true, map[string]any{"tags": map[string]any{"c": "3"}}},
		{"PATCH with null is the default", "2026-03-01-preview", `{"properties":{"color":null,"policies":{"retention":null}}}`, true, map[string]any{
			"properties.color": "grey", "properties.policies.retention.days": 7.0}},
		{"PATCH passes over what it may not say", "2026-03-01-preview", `{"id":"/x","name":"y","properties":{"zone":"Disabled","host":"evil","unknown":{"a":1}}}`, true, map[string]any{
			"properties.zone": "Enabled", "properties.host": ""}},
		{"values and names are read in any casing", "2026-03-01-preview", `{"PROPERTIES":{"Public":"dIsAbLeD","lock":"DISABLED"}}`, true, map[string]any{
			"properties.public": "Disabled", "properties.lock": "disabled"}},
		{"a member that the version lacks is unknown", "2021-06-01-preview", `{"properties":{"color":"red","old":"o"}}`, true, map[string]any{
			"properties.color": "blue", "properties.old": "o"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			created, err := codec(t).Merge("2026-03-01-preview", nil, []byte(locked), false)
			if err != nil {
				t.Fatal(err)
			}
			created, err = codec(t).Merge("2025-11-01", created, []byte(`{"properties":{"rules":{"ips":[{"value":"10.0.0.1","note":"n"}]}}}`), true)
			if err != nil {
				t.Fatal(err)
			}
			got, err := codec(t).Merge(c.version, created, []byte(c.body), c.patch)
			if err != nil {
				t.Fatal(err)
			}
			for path, want := range c.want {
				have, _ := json.Marshal(dig(t, got, path))
				need, _ := json.Marshal(want)
				if string(have) != string(need) {
					t.Errorf("%s is %s, want %s", path, have, need)
				}
			}
		})
	}
}

func dig(t *testing.T, doc []byte, path string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[part]
	}
	return v
}

// What a body may not hold is refused with the path, and all of it at once.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const head = `"sku":{"name":"Premium"},"location":"westus"`
	for _, c := range []struct {
		name, body string
		update     bool
		targets    string
	}{
		{"nothing given", `{}`, false, "sku,location"},
		{"half given", `{"sku":{},"location":""}`, false, "sku.name,location"},
		{"wrong types", `{` + head + `,"tags":[],"properties":{"lock":1,"policies":{"retention":{"days":"7"}}}}`, false, "tags,properties.lock,properties.policies.retention.days"},
		{"fraction", `{` + head + `,"properties":{"policies":{"retention":{"days":7.5}}}}`, false, "properties.policies.retention.days"},
		{"out of bounds", `{` + head + `,"properties":{"policies":{"retention":{"days":366}}}}`, false, "properties.policies.retention.days"},
		{"too many", `{` + head + `,"properties":{"rules":{"ips":[{"value":"1"},{"value":"2"},{"value":"3"},{"value":"4"}]}}}`, false, "properties.rules.ips"},
		{"enum", `{` + head + `,"properties":{"public":"Maybe"}}`, false, "properties.public"},
		{"enum with a blank", `{` + head + `,"properties":{"public":"Enabled "}}`, false, "properties.public"},
		{"in a list", `{` + head + `,"properties":{"rules":{"ips":[{},5,null]}}}`, false, "properties.rules.ips[0].value,properties.rules.ips[1],properties.rules.ips[2]"},
		{"two casings", `{` + head + `,"properties":{"public":"Disabled","Public":"Enabled"}}`, false, "properties.public"},
		{"SKU gate", `{"sku":{"name":"basic"},"location":"westus","properties":{"rules":{"default":"Deny"}}}`, false, "properties.rules"},
		{"refused", `{` + head + `,"properties":{"search":"Enabled"}}`, false, "properties.search"},
		{"immutable", `{` + head + `,"properties":{"zone":"Enabled"}}`, true, "properties.zone"},
		{"downgrade", `{"sku":{"name":"Basic"},"location":"westus","properties":{"rules":{"default":"Deny"}}}`, true, "properties.rules"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var was []byte
			if c.update {
				var err error
				if was, err = codec(t).Merge("2025-11-01", nil, []byte(`{`+head+`}`), false); err != nil {
					t.Fatal(err)
				}
			}
			_, err := codec(t).Merge("2025-11-01", was, []byte(c.body), false)
			if err == nil {
				t.Fatal("it was taken")
			}
			f := fault.From(err)
			if f.Status() != 400 {
				t.Errorf("status %d", f.Status())
			}
			targets := f.Target
			if len(f.Details) > 0 {
				var all []string
				for _, d := range f.Details {
					all = append(all, d.Target)
				}
				targets = strings.Join(all, ",")
			}
			if targets != c.targets {
				t.Errorf("faults at %s, want %s: %v", targets, c.targets, err)
			}
		})
	}
}

// Members come out in the declared order, as their version has them; gates, secrets and empty members are left out.
func TestShowing(t *testing.T) {
	t.Parallel()
	doc, err := codec(t).Merge("2026-03-01-preview", nil, []byte(locked), false)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"2019-05-01":         `{"sku":{"name":"Premium","tier":""},"type":"","id":"","name":"","location":"westus","tags":{"a":"1","b":"2"},"systemData":{"createdBy":"","createdByType":"","lastModifiedBy":"","lastModifiedByType":""},"properties":{"host":"","provisioningState":"","lock":"enabled","public":"Disabled","zone":"Enabled","policies":{"retention":{"days":30,"status":"enabled"},"trust":{"status":"enabled"}},"rules":{"default":"Deny","ips":[{"value":"10.0.0.1","action":"Allow"}]},"search":"Disabled","doors":[]}}`,
		"2026-03-01-preview": `{"sku":{"name":"Premium","tier":""},"type":"","id":"","name":"","location":"westus","tags":{"a":"1","b":"2"},"systemData":{"createdBy":"","createdByType":"","lastModifiedBy":"","lastModifiedByType":""},"properties":{"host":"","provisioningState":"","lock":"enabled","public":"Disabled","zone":"Enabled","policies":{"retention":{"days":30,"status":"enabled"},"trust":{"status":"enabled","kind":"Other"},"soft":{"status":"disabled","kind":"Notary"}},"rules":{"default":"Deny","ips":[{"value":"10.0.0.1","action":"Allow"}]},"color":"blue","search":"Disabled","doors":[]}}`,
	} {
		got, err := codec(t).Show(version, doc)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s\n got %s\nwant %s", version, got, want)
		}
	}
	basic, err := codec(t).Merge("2021-09-01", nil, []byte(`{"sku":{"name":"Basic"},"location":"westus"}`), false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := codec(t).Show("2021-09-01", basic)
	if err != nil || strings.Contains(string(got), `"rules"`) {
		t.Errorf("a Basic vault shows its rules: %s %v", got, err)
	}
}

func TestPropertiesDocSaysEachStance(t *testing.T) {
	t.Parallel()
	page := string(arm.PropertiesDoc(bank().Types...))
	for _, want := range []string{
		"| `properties.lock` | `enabled`, `disabled` | `disabled` | yes |  | acts | A locked vault has no doors. |",
		"| `properties.zone` | `Enabled`, `Disabled` | `Disabled` | at create only, not by PATCH |  | echo |  |",
		"| `properties.search` | `Enabled`, `Disabled` | `Disabled` | yes |  | refused | Search is not built. |",
		"| `properties.host` | string |  | read-only |",
		"| `properties.policies.retention.days` | integer 0…365 | `7` |",
		"Action `POST showKey`, permission `Fake.Bank/vaults/showKey/action`.",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if got := arm.Unsaid(bank().Types...); len(got) != 0 {
		t.Errorf("no stance for %v", got)
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(locked), true, uint8(1))
	f.Add([]byte(`{"properties":{"rules":{"ips":[{"value":"1"}]},"policies":null},"tags":{"a":null}}`), true, uint8(2))
	c := codec(f)
	versions := c.Versions()
	f.Fuzz(func(t *testing.T, body []byte, patch bool, n uint8) {
		version := versions[int(n)%len(versions)]
		was, err := c.Merge("2026-03-01-preview", nil, []byte(locked), false)
		if err != nil {
			t.Fatal(err)
		}
		after, err := c.Merge(version, was, body, patch)
		if err != nil {
			if fault.From(err).Kind == fault.Internal {
				t.Fatalf("a client's mistake became %v", err)
			}
			return
		}
		// What was taken can be read back and written again, unchanged.
		shown, err := c.WriteBack(version, after)
		if err != nil {
			t.Fatal(err)
		}
		again, err := c.Merge(version, after, shown, false)
		if err != nil || string(again) != string(after) {
			t.Fatalf("GET and PUT changed it: %v\n%s\n%s", err, after, again)
		}
	})
}

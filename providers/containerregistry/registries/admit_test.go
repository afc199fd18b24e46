// SPDX-License-Identifier: Apache-2.0

package registries

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/name"
)

const (
	e3       = "Enabling public network access is not supported because the registry 'registryone' has exports disabled."
	noPublic = "Disabling public network access is not supported for the SKU Standard. For more information, please visit https://aka.ms/acr/private-link."
)

// at is a registry in a state: its SKU, its export policy and its public network access.
func at(plan, exports, public string, change ...func(d *document)) *document {
	d := &document{SKU: sku{Name: plan}}
	d.Properties.Policies.Export.Status, d.Properties.PublicAccess = exports, public
	for _, f := range change {
		f(d)
	}
	return d
}

func open(d *document) {
	d.Properties.AnonymousPull, d.Properties.AdminUserEnabled, d.Properties.Bypass = true, true, "AzureServices"
}

// TestAdmit walks the contract of the export policy: each rule by the state before, the merged state after, and the pipelines there are.
// Every text of says must stand in a refusal, and without says nothing may be refused.
func TestAdmit(t *testing.T) {
	for _, c := range []struct {
		rule      string
		was, want *document
		pipelines []string
		says      []string
	}{
		{"E1: disabled at create needs Premium", nil, at("Standard", disabled, "Disabled"), nil, []string{"'registryone' can't have exports disabled", "SKU Standard", "Use the SKU Premium", noPublic}},
		{"E1: Basic", nil, at("Basic", disabled, "Enabled"), nil, []string{"exports disabled", "SKU Basic"}},
		{"E1: enabled on Basic", nil, at("Basic", enabled, "Enabled"), nil, nil},
		{"E1: enabled on Standard", nil, at("Standard", enabled, "Enabled"), nil, nil},
		{"E1: enabled on Premium", nil, at("Premium", enabled, "Disabled"), nil, nil},
		{"E2: at create, with public access", nil, at("Premium", disabled, "Enabled"), nil, []string{"'registryone'", "publicNetworkAccess"}},
		{"E2: later, with public access", at("Premium", enabled, "Enabled"), at("Premium", disabled, "Enabled"), nil,
			[]string{"'registryone'", "properties.publicNetworkAccess to 'Disabled'", "--set properties.publicNetworkAccess=disabled"}},
		{"E2: public access was disabled before", at("Premium", enabled, "Disabled"), at("Premium", disabled, "Disabled"), nil, nil},
		{"E2: in the same request", at("Premium", enabled, "Enabled"), at("Premium", disabled, "Disabled"), nil, nil},
		{"E2: at create", nil, at("Premium", disabled, "Disabled"), nil, nil},
		{"E3: public access stays shut", at("Premium", disabled, "Disabled"), at("Premium", disabled, "Enabled"), nil, []string{e3}},
		{"E4: a pipeline is in the way", at("Premium", enabled, "Disabled"), at("Premium", disabled, "Disabled"), []string{"outbound"}, []string{"'registryone'", "'outbound'", "Delete"}},
		{"E4: all are named", at("Premium", enabled, "Enabled"), at("Premium", disabled, "Disabled"), []string{"outbound", "second"}, []string{"'outbound', 'second'", "/exportPipelines/second"}},
		{"E4: a pipeline with exports enabled", at("Premium", enabled, "Enabled"), at("Premium", enabled, "Disabled"), []string{"outbound"}, nil},
		{"E4: what does not make it so is not judged again", at("Premium", disabled, "Disabled"), at("Premium", disabled, "Disabled", open), []string{"outbound"}, nil},
		{"E5: enabled at any time", at("Premium", disabled, "Disabled"), at("Premium", enabled, "Disabled"), nil, nil},
		{"E6: both open in one request", at("Premium", disabled, "Disabled"), at("Premium", enabled, "Enabled"), nil, nil},
		{"E7: open doors inside", at("Premium", enabled, "Disabled"), at("Premium", disabled, "Disabled", open), nil, nil},
		{"E12: downgrade", at("Premium", disabled, "Disabled"), at("Standard", disabled, "Disabled"), nil, []string{"exports disabled", "to 'enabled' before you leave the SKU Premium", noPublic}},
		{"E12: downgrade with public access", at("Premium", disabled, "Disabled"), at("Standard", disabled, "Enabled"), nil, []string{"exports disabled", e3}},
		{"E12: downgrade after both locks were opened", at("Premium", disabled, "Disabled"), at("Standard", enabled, "Enabled"), nil, nil},
		{"E12: delete", at("Premium", disabled, "Disabled"), nil, nil, nil},
		{"public access on Standard", at("Standard", enabled, "Enabled"), at("Standard", enabled, "Disabled"), nil, []string{noPublic}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			id, err := name.ParseResourceID("/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/g/providers/" + TypeName + "/registryone")
			if err != nil {
				t.Fatal(err)
			}
			var items []arm.Item
			for _, p := range c.pipelines {
				items = append(items, arm.Document(id.Child("exportPipelines", p), map[string]string{}))
			}
			var said []string
			for _, f := range admit(arm.NewWorld(time.Unix(0, 0), items...), arm.Change[document]{ID: id, Was: c.was, Want: c.want}) {
				if f.Status() != 400 || f.Target == "" {
					t.Errorf("a refusal must be a 400 that names its property: %d %q: %s", f.Status(), f.Target, f.Message)
				}
				said = append(said, f.Message)
			}
			if len(c.says) == 0 && len(said) > 0 {
				t.Errorf("refused: %q", said)
			}
			for _, text := range c.says {
				if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, text) }) {
					t.Errorf("no refusal says %q: %q", text, said)
				}
			}
		})
	}
}

// TestE3Verbatim: the text is the service's own, alone and to the letter.
func TestE3Verbatim(t *testing.T) {
	id, err := name.ParseResourceID("/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/g/providers/" + TypeName + "/registryone")
	if err != nil {
		t.Fatal(err)
	}
	faults := admit(arm.NewWorld(time.Unix(0, 0)), arm.Change[document]{ID: id, Was: at("Premium", disabled, "Disabled"), Want: at("Premium", disabled, "Enabled")})
	if len(faults) != 1 || faults[0].Message != e3 || faults[0].Kind.ARM() != "BadRequest" {
		t.Errorf("got %v", faults)
	}
}

func TestPrefix(t *testing.T) {
	for value, want := range map[string]string{
		"203.0.113.7": "203.0.113.7/32", "203.0.113.7/32": "203.0.113.7/32", "203.0.113.0/24": "203.0.113.0/24", "0.0.0.0/0": "0.0.0.0/0",
		"203.0.113.7/24": "", "2001:db8::1": "", "2001:db8::/32": "", "::ffff:203.0.113.7": "", "203.0.113": "", "": "", "203.0.113.7/33": "", "a.example": "",
	} {
		p, err := prefix(value)
		if (err != nil) != (want == "") || err == nil && p.String() != want {
			t.Errorf("%q: %v, %v; want %q", value, p, err, want)
		}
	}
}

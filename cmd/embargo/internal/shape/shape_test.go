// SPDX-License-Identifier: Apache-2.0

package shape

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestEdits(t *testing.T) {
	const doc = `{"location":"centralus","tags":null,"sku":{"name":"Premium"},"properties":{"publicNetworkAccess":"Enabled","days":7,
		"policies":{"exportPolicy":{"status":"enabled"}},"ipRules":[{"action":"Allow","value":"1.1.1.1"},{"action":"Allow","value":"2.2.2.2"}],"names":["a"],"empty":null}}`
	for _, c := range []struct {
		name  string
		edits []Edit
		texts bool
		path  string // JMESPath of what is looked at
		want  string
		err   string
	}{
		{name: "the mission's text", edits: []Edit{{Set, []string{"properties.policies.exportPolicy.status=disabled"}}, {Set, []string{"properties.publicNetworkAccess=disabled"}}},
			path: "[properties.policies.exportPolicy.status,properties.publicNetworkAccess]", want: `["disabled","disabled"]`},
		{name: "several words", edits: []Edit{{Set, []string{"location=x", "sku.name=Basic"}}}, path: "[location,sku.name]", want: `["x","Basic"]`},
		{name: "JSON values", edits: []Edit{{Set, []string{"properties.days=9", "properties.flag=true", `properties.list=[1,"b"]`}}},
			path: "[properties.days,properties.flag,properties.list]", want: `[9,true,[1,"b"]]`},
		{name: "as text", edits: []Edit{{Set, []string{"properties.days=9"}}}, texts: true, path: "properties.days", want: `"9"`},
		{name: "null", edits: []Edit{{Set, []string{"properties.days=null"}}}, path: "properties.days", want: `null`},
		{name: "value with an equals sign", edits: []Edit{{Set, []string{"location=a=b"}}}, path: "location", want: `"a=b"`},
		{name: "below a null", edits: []Edit{{Set, []string{"tags.team=data"}}}, path: "tags", want: `{"team":"data"}`},
		{name: "name with dots", edits: []Edit{{Set, []string{`tags.a\.b=1`, `tags['c.d']=2`}}}, path: "tags", want: `{"a.b":1,"c.d":2}`},
		{name: "another case", edits: []Edit{{Set, []string{"properties.PublicNetworkAccess=Disabled"}}}, path: "properties.publicNetworkAccess", want: `"Disabled"`},
		{name: "in a list", edits: []Edit{{Set, []string{"properties.ipRules[1].value=3.3.3.3", "properties.names[-1]=z"}}}, path: "[properties.ipRules[1].value,properties.names]", want: `["3.3.3.3",["z"]]`},
		{name: "found in a list", edits: []Edit{{Set, []string{"properties.ipRules[value=1.1.1.1].action=Deny"}}}, path: "properties.ipRules[0].action", want: `"Deny"`},
		{name: "unknown member on the way", edits: []Edit{{Set, []string{"properties.polices.exportPolicy.status=disabled"}}}, err: "couldn't find 'polices'. Available options: days, empty, "},
		{name: "no value", edits: []Edit{{Set, []string{"location"}}}, err: "usage: --set"},
		{name: "index outside", edits: []Edit{{Set, []string{"properties.names[3]=z"}}}, err: "outside the list of 1"},
		{name: "member of a text", edits: []Edit{{Set, []string{"location.x.y=z"}}}, err: "has no members"},
		{name: "add text", edits: []Edit{{Add, []string{"properties.names", "b", "c"}}}, path: "properties.names", want: `["a","b","c"]`},
		{name: "add pairs", edits: []Edit{{Add, []string{"properties.ipRules", "action=Allow", "value=9.9.9.9"}}}, path: "properties.ipRules[2]", want: `{"action":"Allow","value":"9.9.9.9"}`},
		{name: "add JSON", edits: []Edit{{Add, []string{"properties.ipRules", `{"value":"9"}`}}}, path: "properties.ipRules[2]", want: `{"value":"9"}`},
		{name: "add to nothing", edits: []Edit{{Add, []string{"properties.empty", "x"}}}, path: "properties.empty", want: `["x"]`},
		{name: "add to no list", edits: []Edit{{Add, []string{"location", "x"}}}, err: "is not a list"},
		{name: "add nothing", edits: []Edit{{Add, []string{"properties.names"}}}, err: "usage: --add"},
		{name: "remove a member", edits: []Edit{{Remove, []string{"properties.days"}}}, path: "properties.days", want: `null`},
		{name: "remove an element", edits: []Edit{{Remove, []string{"properties.ipRules", "0"}}}, path: "properties.ipRules[].value", want: `["2.2.2.2"]`},
		{name: "remove what is not there", edits: []Edit{{Remove, []string{"properties.nothing"}}}, err: "couldn't find 'nothing'"},
		{name: "in order", edits: []Edit{{Add, []string{"properties.names", "b"}}, {Remove, []string{"properties.names", "0"}}, {Set, []string{"properties.names[0]=c"}}}, path: "properties.names", want: `["c"]`},
		{name: "empty path", edits: []Edit{{Set, []string{".a=b"}}}, err: "not a path"},
		{name: "empty bracket", edits: []Edit{{Set, []string{"a[]=b"}}}, err: "bracket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := Decode([]byte(doc))
			if err != nil {
				t.Fatal(err)
			}
			err = Apply(v.(map[string]any), c.edits, c.texts)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := Write(&b, v, "json", c.path); err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := json.Compact(&got, b.Bytes()); err != nil {
				t.Fatal(err)
			}
			if got.String() != c.want {
				t.Errorf("%s = %s, want %s", c.path, got.String(), c.want)
			}
		})
	}
}

// A resource is printed with the members that Azure's command line prints of it, in alphabetical order.
func TestResource(t *testing.T) {
	v, err := Decode([]byte(`{"id":"/subscriptions/s/resourceGroups/myResourceGroup/providers/Microsoft.ContainerRegistry/registries/r","name":"r","type":"t",
		"location":"centralus","sku":{"name":"Premium","tier":"Premium"},"properties":{"days":7,"a<b":1.0},"systemData":{"createdBy":"x"}}`))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, Resource(v.(map[string]any)), "json", ""); err != nil {
		t.Fatal(err)
	}
	const want = `{
  "extendedLocation": null,
  "id": "/subscriptions/s/resourceGroups/myResourceGroup/providers/Microsoft.ContainerRegistry/registries/r",
  "identity": null,
  "kind": null,
  "location": "centralus",
  "managedBy": null,
  "name": "r",
  "plan": null,
  "properties": {
    "a<b": 1.0,
    "days": 7
  },
  "resourceGroup": "myResourceGroup",
  "sku": {
    "capacity": null,
    "family": null,
    "model": null,
    "name": "Premium",
    "size": null,
    "tier": "Premium"
  },
  "systemData": {
    "createdBy": "x"
  },
  "tags": null,
  "type": "t"
}
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	body := Body(Resource(v.(map[string]any)))
	for _, gone := range []string{"id", "name", "type", "systemData", "resourceGroup", "tags", "identity", "plan"} {
		if _, ok := body[gone]; ok {
			t.Errorf("%s is sent back", gone)
		}
	}
	if sku := body["sku"].(map[string]any); len(sku) != 2 {
		t.Errorf("the SKU is sent back with nulls: %v", sku)
	}
	if body["location"] != "centralus" || body["properties"] == nil {
		t.Errorf("the body lost something: %v", body)
	}
}

func TestFormats(t *testing.T) {
	v, err := Decode([]byte(`[{"name":"a","id":"/x","count":2,"on":true,"tags":{"k":"v"}},{"name":"bcd","id":"/y","count":10,"on":false,"tags":null}]`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ format, query, want string }{
		{"table", "", "Count  Name  On\n-----  ----  -----\n2      a     true\n10     bcd   false\n"},
		{"tsv", "[].name", "a\nbcd\n"},
		{"tsv", "[].[name,count]", "a\t2\nbcd\t10\n"},
		{"tsv", "[?count>`5`].name", "bcd\n"},
		{"tsv", "[0].missing", ""},
		{"yaml", "[0].{n:name,c:count}", "c: 2\n\"n\": a\n"},
		{"none", "", ""},
		{"json", "[0].count", "2\n"},
	} {
		var b bytes.Buffer
		if err := Write(&b, v, c.format, c.query); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("-o %s --query %q:\n%s\nwant\n%s", c.format, c.query, b.String(), c.want)
		}
	}
	if err := Write(&bytes.Buffer{}, v, "xml", ""); err == nil {
		t.Error("an unknown format was accepted")
	}
	if err := Write(&bytes.Buffer{}, v, "json", "[?"); err == nil {
		t.Error("a broken query was accepted")
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"a.b[0].c", `a\.b`, "['x.y'].z", "a[", "a]", "[[", ".", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		steps, err := split(path)
		if err == nil && len(steps) == 0 {
			t.Errorf("%q has no steps and no error", path)
		}
		for _, s := range steps {
			if err == nil && s.text == "" {
				t.Errorf("%q has an empty step", path)
			}
		}
	})
}

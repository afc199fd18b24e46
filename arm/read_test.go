// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/fault"
)

func TestParseJSONRefusesWithThePath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, target, says string }{
		{"twice", `{"a":{"b":1,"b":2}}`, "a.b", "given twice"},
		{"in a list", `{"a":[{"x":1},{"x":1,"x":2}]}`, "a[1].x", "given twice"},
		{"escaped twice", `{"a":1,"\u0061":2}`, "a", "given twice"},
		{"syntax", `{"a":{"b":nope}}`, "a.b", "not JSON"},
		{"cut", `{"a":{"b":`, "a.b", "ends before"},
		{"empty", ``, "", "ends before"},
		{"more", `{} {}`, "", "follows"},
		{"bad UTF-8", "{\"a\":\"\xff\"}", "", "UTF-8, from byte 6"},
		{"deep", strings.Repeat("[", 65) + strings.Repeat("]", 65), "[0]", "nested deeper than 64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseJSON([]byte(c.in))
			f := fault.From(err)
			if err == nil || f.Kind != fault.InvalidRequestContent || !strings.HasPrefix(f.Target, c.target) || !strings.Contains(f.Message, c.says) {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := ParseJSON([]byte(strings.Repeat("[", 64) + strings.Repeat("]", 64))); err != nil {
		t.Errorf("64 levels are refused: %v", err)
	}
	if _, err := ParseJSON([]byte(`"` + strings.Repeat("x", maxBody) + `"`)); !fault.Is(err, fault.InvalidRequestContent) {
		t.Errorf("more than 4 MiB: %v", err)
	}
	v, err := ParseJSON([]byte("\xef\xbb\xbf{\"a\":[1,\"x\",null,true]}"))
	if err != nil {
		t.Fatalf("a byte order mark is refused: %v", err)
	}
	if data, _ := json.Marshal(v); string(data) != `{"a":[1,"x",null,true]}` {
		t.Errorf("read as %s", data)
	}
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":{"b":[1,2.5e3,"\ud800",null]}}`, `[[[]]]`, "\xef\xbb\xbf{}", `{"a":1,"a":2}`, `"\u0000"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseJSON(data)
		if err != nil {
			if !fault.Is(err, fault.InvalidRequestContent) {
				t.Fatalf("a client's mistake became %v", err)
			}
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := ParseJSON(again); err != nil && len(again) <= maxBody {
			t.Fatalf("%q was read and written as %q, which is refused: %v", data, again, err)
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("/subscriptions/s/resourcegroups/g/providers/A.B//rs/r%20x/act")
	f.Add("/%2e%2e/%2F/a%zz")
	f.Fuzz(func(t *testing.T, path string) {
		segments, err := pathSegments(path)
		if err != nil {
			return
		}
		for _, s := range segments {
			if strings.Contains(s, "/") {
				t.Fatalf("%q gave the segment %q", path, s)
			}
		}
	})
}

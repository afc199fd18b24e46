// SPDX-License-Identifier: Apache-2.0

package arm

import "testing"

func TestVersionsResolveInTheirLane(t *testing.T) {
	t.Parallel()
	s, err := compileVersions(Versions{List: []string{"2021-06-01-preview", "2019-05-01", "2021-09-01", "2025-11-01", "2026-03-01-preview"}, Newer: true})
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{
		"2019-05-01": "2019-05-01", "2021-06-01-preview": "2021-06-01-preview", "2021-06-01-PREVIEW": "2021-06-01-preview",
		"2027-01-01": "2026-03-01-preview", "2027-01-01-preview": "2026-03-01-preview", // newer than all: the newest shape
		"2026-01-01": "2025-11-01", // newer than its lane only
		"2021-06-01": "", "2020-01-01": "", "2022-01-01-preview": "", "2019-05-01-preview": "",
	} {
		v, ok := parseVersion(asked)
		if !ok {
			t.Fatalf("%s is not read", asked)
		}
		got, ok := s.resolve(v)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s is served as %v %v, want %q", asked, got, ok, want)
		}
	}
	for _, bad := range []string{"", "2021", "2021-13-01", "2021-02-30", "2021-06-01-beta", "latest", "2021-06-01-preview-preview"} {
		if _, ok := parseVersion(bad); ok {
			t.Errorf("%q is read as a version", bad)
		}
	}
}

func TestSinceServesOneShape(t *testing.T) {
	t.Parallel()
	s, err := compileVersions(Versions{Since: "2014-04-01"})
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]bool{"2014-04-01": true, "2021-04-01": true, "2014-04-01-preview": true, "2014-03-31": false} {
		v, _ := parseVersion(asked)
		if got, ok := s.resolve(v); ok != want || ok && !got.all {
			t.Errorf("%s: %v %v", asked, got, ok)
		}
	}
}

func TestRangesHoldByLane(t *testing.T) {
	t.Parallel()
	rs, err := parseRanges("2022-02-01-preview..; 2025-11-01..")
	if err != nil {
		t.Fatal(err)
	}
	until, err := parseRanges("..2021-12-01-preview")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][2]bool{
		"2021-09-01": {false, false}, "2023-07-01": {false, false}, "2025-11-01": {true, false},
		"2021-06-01-preview": {false, true}, "2022-02-01-preview": {true, false}, "2026-03-01-preview": {true, false},
	} {
		v, _ := parseVersion(text)
		if got := [2]bool{rs.hold(shape{version: v}), until.hold(shape{version: v})}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if v, _ := parseVersion("2022-01-31-preview"); rs.since(v) {
		t.Error("a version older than the first of a type is one of its namespace of one shape")
	}
	if v, _ := parseVersion("2022-02-01"); !rs.since(v) {
		t.Error("the first version of a type is not served")
	}
	for _, bad := range []string{"2021-09-01", "..", "x..", "2021-09-01..2022-02-01-preview", "2021-09-01..;"} {
		if _, err := parseRanges(bad); err == nil {
			t.Errorf("%q is read as ranges", bad)
		}
	}
}

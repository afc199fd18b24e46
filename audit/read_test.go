// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// clocked opens a database of the kind whose time is now.
func clocked(t *testing.T, kind string, now func() time.Time) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{URL: metatest.URL(t, kind), Dial: metatest.Dial, Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func appendTo(t *testing.T, db *meta.DB, l *audit.Log, records ...audit.Record) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *meta.Tx) error {
		for _, r := range records {
			if err := l.Append(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The leaf's bytes are a promise: whoever proves a record later computes over exactly these.
func TestLeafVersion1(t *testing.T) {
	full := audit.Record{
		Kind: audit.Decision, Action: "pull", Outcome: audit.Refused, Decision: "d1", Rule: "exportPolicy", Reason: "not <here> & now",
		Resource: "/subscriptions/s", Registry: "r", LoginServer: "my.azurecr.localhost", Epoch: 7, Route: "import", Repository: "team/app",
		Reference: "v1", Digest: "sha256:00", MediaType: "application/json", Bytes: 42,
		Caller: audit.Caller{ID: "i", Name: "Zoë", Type: "user", Credential: "c", Tenant: "t"},
		Source: audit.Source{Address: "127.0.0.1:1", Zone: "public", UserAgent: "az"}, Correlation: "k",
		Before: json.RawMessage(`{ "a": [1, 2] }`), After: json.RawMessage(`{"a":"<b>"}`),
	}
	want := []string{
		`{"v":1,"node":"n","seq":1,"time":"2025-03-04T05:06:07.089000Z","kind":"decision","action":"pull","outcome":"refused","decision":"d1",` +
			`"rule":"exportPolicy","reason":"not <here> & now","resource":"/subscriptions/s","registry":"r","loginServer":"my.azurecr.localhost","epoch":7,` +
			`"route":"import","repository":"team/app","reference":"v1","digest":"sha256:00","mediaType":"application/json","bytes":42,` +
			`"caller":{"id":"i","name":"Zoë","type":"user","credential":"c","tenant":"t"},"source":{"address":"127.0.0.1:1","zone":"public","userAgent":"az"},` +
			`"correlation":"k","before":{"a":[1,2]},"after":{"a":"<b>"}}`,
		`{"v":1,"node":"n","seq":2,"time":"2025-03-04T05:06:07.089000Z","kind":"change","action":"write","outcome":"succeeded","caller":{},"source":{}}`,
	}
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			// The clock's zone and nanoseconds are not the record's.
			at := time.Date(2025, 3, 4, 6, 6, 7, 89000999, time.FixedZone("", 3600))
			db := clocked(t, kind, func() time.Time { return at })
			l := newLog(t, db, "n")
			appendTo(t, db, l, full, audit.Record{Kind: audit.Change, Action: "write", Outcome: audit.Succeeded})
			for n, e := range read(t, l, audit.Query{}) {
				if string(e.Leaf) != want[n] {
					t.Errorf("leaf %d:\n got %s\nwant %s", n+1, e.Leaf, want[n])
				}
				if e.Node != "n" || e.Seq != int64(n+1) || !e.Time.Equal(at.Truncate(time.Microsecond)) {
					t.Errorf("leaf %d has the position %+v", n+1, e.Position)
				}
			}
		})
	}
}

// A client that puts a secret into its name has not put it on record.
func TestAgentWithASecret(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		l := newLog(t, open(), "n")
		r := decision("pull")
		r.Source.UserAgent = "tool/1 (Authorization: Bearer c2VjcmV0LXRva2Vu0123456789)"
		r.Reason = "The host 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl' is none of this installation's."
		if err := l.Decide(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		got := read(t, l, audit.Query{})[0]
		if agent := got.Source.UserAgent; agent != "tool/1 (Authorization: Bearer [redacted])" {
			t.Errorf("the record has the agent %q", agent)
		}
		if got.Reason != "The host '[redacted]' is none of this installation's." {
			t.Errorf("the record has the reason %q", got.Reason)
		}
	})
}

// What cannot be encoded fails its change.
func TestAppendRefusesBrokenJSON(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l := newLog(t, db, "n")
		err := db.Write(t.Context(), func(tx *meta.Tx) error { return l.Append(tx, audit.Record{After: json.RawMessage(`{`)}) })
		if err == nil || len(read(t, l, audit.Query{})) != 0 {
			t.Errorf("a record with broken JSON: %v", err)
		}
	})
}

// filtered are the records of TestFilters: each differs from the first in what one filter looks at, and is a second younger than the one before.
func filtered() []audit.Record {
	base := audit.Record{Kind: audit.Decision, Action: "Pull", Outcome: audit.Allowed, Route: "import", Resource: "/subscriptions/S/Registries/One",
		Registry: "r", Repository: "team/app", Digest: "sha256:00", Caller: audit.Caller{ID: "id", Name: "name"}}
	with := func(change func(r *audit.Record)) audit.Record { r := base; change(&r); return r }
	return []audit.Record{
		base,
		with(func(r *audit.Record) { r.Kind = audit.Login }),
		with(func(r *audit.Record) { r.Action = "Pulled" }),
		with(func(r *audit.Record) { r.Outcome = audit.Refused }),
		with(func(r *audit.Record) { r.Route = "imports" }),
		with(func(r *audit.Record) { r.Resource += "more" }),
		with(func(r *audit.Record) { r.Resource += "/pipelines/p" }),
		with(func(r *audit.Record) { r.Registry = "R" }),
		with(func(r *audit.Record) { r.Repository = "team" }),
		with(func(r *audit.Record) { r.Digest = "sha256:0" }),
		with(func(r *audit.Record) { r.Caller = audit.Caller{ID: "name", Name: "other"} }),
	}
}

func at(n int) time.Time { return time.Date(2025, 1, 1, 0, 0, n, 0, time.UTC) }

// Each filter chooses the records that it should, and no others.
func TestFilters(t *testing.T) {
	records := filtered()
	but := func(not ...int) []int {
		var rest []int
		for n := range records {
			if !slices.Contains(not, n) {
				rest = append(rest, n)
			}
		}
		return rest
	}
	cases := map[string]struct {
		q    audit.Query
		want []int
	}{
		"all":             {audit.Query{}, but()},
		"kind":            {audit.Query{Kind: audit.Decision}, but(1)},
		"action":          {audit.Query{Action: "pULL"}, but(2)},
		"outcome":         {audit.Query{Outcome: audit.Refused}, []int{3}},
		"route":           {audit.Query{Route: "import"}, but(4)},
		"resource":        {audit.Query{Resource: "/SUBSCRIPTIONS/s/registries/one/"}, but(5)},
		"child":           {audit.Query{Resource: "/subscriptions/s/registries/one/pipelines"}, []int{6}},
		"registry":        {audit.Query{Registry: "r"}, but(7)},
		"repository":      {audit.Query{Repository: "team/app"}, but(8)},
		"digest":          {audit.Query{Digest: "sha256:00"}, but(9)},
		"caller's id":     {audit.Query{Caller: "id"}, but(10)},
		"caller's name":   {audit.Query{Caller: "name"}, but()},
		"since":           {audit.Query{Since: at(8)}, []int{8, 9, 10}},
		"until":           {audit.Query{Until: at(2)}, []int{0, 1}},
		"both":            {audit.Query{Since: at(2), Until: at(4)}, []int{2, 3}},
		"limit":           {audit.Query{Limit: 2}, []int{9, 10}},
		"limit of chosen": {audit.Query{Limit: 2, Until: at(9), Kind: audit.Decision}, []int{7, 8}},
		"after":           {audit.Query{After: &audit.Position{Time: at(6), Node: "n", Seq: 7}, Limit: 2}, []int{7, 8}},
		"none":            {audit.Query{Repository: "nobody/s"}, nil},
	}
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			var now time.Time
			db := clocked(t, kind, func() time.Time { return now })
			l := newLog(t, db, "n")
			for n, r := range records {
				now = at(n)
				appendTo(t, db, l, r)
			}
			for name, c := range cases {
				var got []int
				for _, e := range read(t, l, c.q) {
					got = append(got, int(e.Seq)-1)
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("%s: got %v, want %v", name, got, c.want)
				}
			}
		})
	}
}

// Many records, of several nodes at one instant, come whole and in order through any number of pages; 100 is the limit nobody asked for.
func TestReadPages(t *testing.T) {
	const perNode = 700
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			at := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
			db := clocked(t, kind, func() time.Time { return at })
			var want []string
			for _, node := range []string{"a", "b"} {
				l := newLog(t, db, node)
				appendTo(t, db, l, slices.Repeat([]audit.Record{decision("pull")}, perNode)...)
				for n := range perNode {
					want = append(want, fmt.Sprint(node, n+1))
				}
			}
			l := newLog(t, db, "reader")
			check := func(what string, entries []audit.Entry, want []string) {
				t.Helper()
				var got []string
				for _, e := range entries {
					got = append(got, fmt.Sprint(e.Node, e.Seq))
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: got %d records %v, want %d", what, len(got), got, len(want))
				}
			}
			check("all", read(t, l, audit.Query{}), want)
			check("all from the front", read(t, l, audit.Query{After: &audit.Position{}}), want)
			entries, err := l.Read(t.Context(), audit.Query{})
			if err != nil {
				t.Fatal(err)
			}
			check("the newest hundred", entries, want[len(want)-100:])
			var walked []audit.Entry
			for from := (audit.Position{}); ; from = walked[len(walked)-1].Position {
				page := read(t, l, audit.Query{After: &from, Limit: 333})
				if len(page) == 0 {
					break
				}
				walked = append(walked, page...)
			}
			check("walked by After", walked, want)
		})
	}
}

// A leaf that was tampered with is an error that names it.
func TestDamagedLeafIsNamed(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		l := newLog(t, db, "n")
		appendTo(t, db, l, decision("one"), decision("two"))
		err := db.Write(t.Context(), func(tx *meta.Tx) error {
			_, err := tx.Exec(`UPDATE audit SET leaf = $1 WHERE node_seq = 2`, []byte("{"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Read(t.Context(), audit.Query{}); err == nil || !strings.Contains(err.Error(), "n/2") {
			t.Errorf("reading a damaged leaf: %v", err)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// median is how long a request takes, and its last answer. Each is another one, so that none is answered from memory.
func (w *world) median(request func(i int) instance.Answer) (time.Duration, instance.Answer) {
	w.t.Helper()
	var took []time.Duration
	var last instance.Answer
	for i := range 100 {
		began := time.Now()
		last = request(i)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], last
}

// TestCrowds: 100 000 tags, 10 000 referrers and 50 000 repositories are served in pages as a few are, in bounded memory. How long that takes is logged and not judged.
func TestCrowds(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	each(t, func(t *testing.T, w *world) {
		m := w.image("app", "v1")
		want(t, "the first tag", w.put("/v2/app/manifests/v1", string(m), instance.ManifestType), 201, "")
		medians := func(of int) (all map[string]time.Duration) {
			w.login("repository:app:pull,push,delete,metadata_read", "registry:catalog:*")
			all = map[string]time.Duration{}
			for _, c := range []struct {
				what    string
				status  int
				entries int
				request func(i int) instance.Answer
			}{
				{"a tag's manifest", 200, 0, func(i int) instance.Answer {
					return w.send(http.MethodGet, fmt.Sprintf("/v2/app/manifests/tag-%d", i*of/101), nil)
				}},
				{"a push of a tag", 201, 0, func(i int) instance.Answer {
					return w.put(fmt.Sprintf("/v2/app/manifests/pushed-%d-%d", of, i), string(m), instance.ManifestType)
				}},
				{"100 tags", 200, 100, func(i int) instance.Answer {
					return w.send(http.MethodGet, fmt.Sprintf("/v2/app/tags/list?n=100&last=tag-%d", 100+i), nil)
				}},
				{"100 tags of ACR, by time", 200, 100, func(i int) instance.Answer {
					return w.send(http.MethodGet, fmt.Sprintf("/acr/v1/app/_tags?n=100&orderby=timedesc&last=tag-%d", of/2-i), nil)
				}},
				{"100 repositories", 200, 100, func(i int) instance.Answer {
					return w.send(http.MethodGet, fmt.Sprintf("/v2/_catalog?n=100&last=crowd/%d", 100+i), nil)
				}},
				{"the last 500 referrers", 200, 500, func(int) instance.Answer {
					return w.send(http.MethodGet, "/v2/app/referrers/"+instance.Digest(m)+"?last="+instance.Referrer(min(of, 10_000)-501), nil)
				}},
			} {
				took, a := w.median(c.request)
				entries := max(strings.Count(string(a.Body), `"tag-`)+strings.Count(string(a.Body), `"crowd/`), strings.Count(string(a.Body), `"artifactType"`))
				if a.Status != c.status || entries < c.entries {
					t.Errorf("%s of %d: %d, %d entries: %.200s", c.what, of, a.Status, entries, a.Body)
				}
				all[c.what] = took
			}
			return all
		}
		instance.Crowd{Tags: 1000, Referrers: 1000, Repositories: 1000}.Fill(w.Server)
		few := medians(1000)
		instance.Crowd{From: 1000, Tags: 100_000, Referrers: 10_000, Repositories: 50_000}.Fill(w.Server)
		began := time.Now()
		if err := w.Stop(); err != nil {
			t.Fatal(err)
		}
		stopped := time.Now()
		w.Start()
		t.Logf("stop %v, start %v, %d MiB after it", stopped.Sub(began).Round(time.Millisecond), time.Since(stopped).Round(time.Millisecond), w.proc("VmRSS")>>20)
		w.bounded(200<<20, func() {
			for what, took := range medians(100_000) {
				t.Logf("%-28s %8v of few, %8v of many: %.2f", what, few[what].Round(time.Microsecond), took.Round(time.Microsecond), float64(took)/float64(few[what]))
			}
			referrers := "/v2/app/referrers/" + instance.Digest(m)
			for _, list := range []struct {
				of, entry string
				n         int
			}{
				{"/v2/app/tags/list", `"tag-`, 100_000},
				{referrers, `"digest"`, 10_000},
				{referrers + "?artifactType=application/vnd.none", `"digest"`, 0},
			} {
				n := 0
				for next := list.of; next != ""; {
					a := w.send(http.MethodGet, next, nil)
					want(t, "a page of "+list.of, a, 200, "")
					n += strings.Count(string(a.Body), list.entry)
					_, next, _ = strings.Cut(a.Header.Get("Link"), "<")
					next, _, _ = strings.Cut(next, ">")
				}
				if n != list.n {
					t.Errorf("%s lists %d, want %d", list.of, n, list.n)
				}
			}
		})
	})
}

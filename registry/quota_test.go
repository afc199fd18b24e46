// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/registry"
)

// A registry takes what fits in its quota, each content counted once, and refuses the rest whichever way it comes; what is deleted makes room, other registries have their own.
func TestQuota(t *testing.T) {
	metatest.EachAlone(t, func(t *testing.T, db *meta.DB) {
		const most = 10 << 10
		w := newWorld(t, db, func(o *registry.Options) { o.Quota = most })
		h, other := w.registry("full"), w.registry("other")
		content := bytes.Repeat([]byte("x"), 6<<10)
		push := func(h *host, repo string, content []byte) answer {
			return h.send(h.request("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(name.DigestOf(content)), bytes.NewReader(content)))
		}
		refused := func(a answer, of string) {
			t.Helper()
			if a.status != 403 || a.code() != "DENIED" || !strings.Contains(string(a.body), "registryQuota") || !strings.Contains(string(a.body), of) {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		for range 4 { // the same content again, in two repositories, takes no more
			h.blob("a", content)
			h.blob("b", content)
		}
		more := bytes.Repeat([]byte("y"), 5<<10)
		refused(push(h, "a", more), "full")
		h.do(404, "HEAD", "/v2/a/blobs/"+string(name.DigestOf(more)), nil)
		other.blob("a", more)
		m := imageOf(`,"annotations":{"a":"`+strings.Repeat("z", 5<<10)+`"}`, content)
		refused(h.send(h.request("PUT", "/v2/a/manifests/v1", bytes.NewReader(m), "Content-Type", mediaImage)), "full")
		h.blob("a", bytes.Repeat([]byte("k"), 3<<10))

		w.runJobs()
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleContributor)
		other.image("app", "v1", strings.Repeat("s", 1<<10))
		st := w.imported(registry.Import{Source: other.row.ID, Target: h.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "imported:v1")}}, w.caller(p))
		if st.Status != job.Failed || !strings.Contains(st.FaultMessage, "registryQuota") {
			t.Errorf("an import beyond the quota: %s %s", st.Status, st.FaultMessage)
		}
		for _, repo := range []string{"a", "b"} {
			h.do(202, "DELETE", "/v2/"+repo+"/blobs/"+string(name.DigestOf(content)), nil)
		}
		h.blob("a", more)

		// What is not finished yet counts too, apart.
		begin := func(h *host) string { return h.do(202, "POST", "/v2/a/blobs/uploads/", nil).Get("Location") }
		part := func(h *host, at string) answer { return h.send(h.request("PATCH", at, bytes.NewReader(content))) }
		first, second := begin(h), begin(h)
		if a := part(h, first); a.status != 202 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		refused(part(h, second), "full")
		refused(h.send(h.request("PUT", begin(h)+"?digest="+string(name.DigestOf(content)), bytes.NewReader(content))), "full")
		if a := part(other, begin(other)); a.status != 202 {
			t.Errorf("another registry's: %d %s", a.status, a.body)
		}
		h.do(202, "DELETE", "/v2/a/blobs/"+string(name.DigestOf(more)), nil)
		h.do(201, "PUT", first+"?digest="+string(name.DigestOf(content)), nil) // what has come is finished whatever else is unfinished
		h.do(204, "DELETE", second, nil)
		if a := part(h, begin(h)); a.status != 202 {
			t.Errorf("after one was finished: %d %s", a.status, a.body)
		}

		// Parts that come in at the same time, all begun before any of them had a byte.
		fresh := w.registry("fresh")
		var bodies [2]*io.PipeWriter
		answers := make(chan answer, len(bodies))
		for i := range bodies {
			r, body := io.Pipe()
			bodies[i] = body
			q := fresh.request("PATCH", begin(fresh), r)
			go func() {
				answers <- fresh.send(q)
				r.Close()
			}()
		}
		for _, n := range []int{0, 1, 0, 1} {
			bodies[n].Write(content[:3<<10]) // one of them is refused
		}
		for _, b := range bodies {
			b.Close()
		}
		a, b := <-answers, <-answers
		if a.status == 202 {
			a, b = b, a
		}
		refused(a, "fresh")
		if b.status != 202 {
			t.Errorf("of two parts that fit one by one, the one: %d %s", b.status, b.body)
		}

		// What other nodes have taken counts.
		nodes := w.registry("nodes")
		one := w.oci
		w.restart()
		two := w.oci
		for _, p := range []struct {
			node *oci.Server
			size int
			fits bool
		}{{one, 1 << 10, true}, {two, 1 << 10, true}, {one, 8 << 10, true}, {two, 1 << 10, false}, {one, 1 << 10, false}} {
			w.oci = p.node
			if a := nodes.send(nodes.request("PATCH", begin(nodes), bytes.NewReader(make([]byte, p.size)))); p.fits && a.status != 202 {
				t.Errorf("%d bytes: %d %s", p.size, a.status, a.body)
			} else if !p.fits {
				refused(a, "nodes")
			}
		}

		// What is there already takes no room, whoever pushes it at the same time.
		present := w.registry("present")
		present.blob("a", content)
		for i := range bodies {
			r, body := io.Pipe()
			bodies[i] = body
			q := present.request("PUT", begin(present)+"?digest="+string(name.DigestOf(content)), r)
			go func() { answers <- present.send(q) }()
		}
		for _, body := range bodies {
			body.Write(content)
		}
		for _, body := range bodies {
			body.Close()
			if a := <-answers; a.status != 201 {
				t.Errorf("present content, pushed by two: %d %s", a.status, a.body)
			}
		}
	})
}

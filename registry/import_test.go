// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/registry"
)

func ref(t testing.TB, s string) name.Reference {
	t.Helper()
	return must[name.Reference](t)(name.ParseReference(s))
}

// enqueue begins an import as the action of the resource manager does.
func (w *world) enqueue(i registry.Import, c identity.Caller) string {
	w.t.Helper()
	var id string
	err := w.db.Write(context.Background(), func(tx *meta.Tx) (err error) {
		id, err = registry.EnqueueImport(tx, "registries-"+randomHex(), i, c, "corr-12345678")
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// imported runs an import to its end.
func (w *world) imported(i registry.Import, c identity.Caller) job.State {
	w.t.Helper()
	return w.ended(w.enqueue(i, c))
}

// multi pushes an index of two platforms and returns it.
func (h *host) multi(repo, tag string) []byte {
	h.w.t.Helper()
	idx := indexOf(h.image(repo, "", "amd64 "+tag), h.image(repo, "", "arm64 "+tag))
	h.manifest(repo, tag, mediaIndex, idx)
	return idx
}

// whole pulls an image with everything below it.
func (h *host) whole(t *testing.T, repo, reference string) {
	t.Helper()
	a := h.do(200, "GET", "/v2/"+repo+"/manifests/"+reference, nil)
	var m struct {
		Config            *struct{ Digest string }
		Layers, Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Manifests {
		h.whole(t, repo, c.Digest)
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, l := range m.Layers {
		if b := h.do(200, "GET", "/v2/"+repo+"/blobs/"+l.Digest, nil); string(name.DigestOf(b.body)) != l.Digest {
			t.Errorf("%s reads otherwise", l.Digest)
		}
	}
}

func TestImport(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, dst := w.registry("source"), w.registry("target")
		w.runJobs()
		idx := src.multi("lib/app", "v1")
		d := string(name.DigestOf(idx))
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleContributor)
		caller := w.caller(p)
		blobs := w.count("blobs")
		st := w.imported(registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "lib/app:v1"),
			Tags: []name.Reference{ref(t, "app:v1"), ref(t, "app:stable"), ref(t, "mirror/app")}, Untagged: []name.Repository{"bare"}}, caller)
		if st.Status != job.Succeeded {
			t.Fatalf("%s: %s", st.Status, st.FaultMessage)
		}
		for _, at := range [][2]string{{"app", "v1"}, {"app", "stable"}, {"mirror/app", "v1"}, {"bare", d}} {
			dst.do(200, "GET", "/v2/"+at[0]+"/manifests/"+at[1], nil).want(t, "Docker-Content-Digest", d)
			dst.whole(t, at[0], at[1])
		}
		if a := dst.do(200, "GET", "/v2/bare/tags/list", nil); string(a.body) != `{"name":"bare","tags":[]}` {
			t.Errorf("an untagged target has tags: %s", a.body)
		}
		if n := w.count("blobs"); n != blobs {
			t.Errorf("%d contents became %d: it was copied", blobs, n)
		}
		// The source's side: every piece of content asked for, by whom, for whom. The target's side: a change per target.
		asked := map[string]bool{}
		for _, r := range w.records(src.row.ID, func(r audit.Record) bool { return r.Route == "R4" && r.Outcome == audit.Allowed }) {
			if r.Caller.ID != p.ID || r.Repository != "lib/app" || r.Correlation != "corr-12345678" {
				t.Errorf("the source's record: %+v", r)
			}
			asked[r.Digest] = true
		}
		if len(asked) != 1+2+2*2 {
			t.Errorf("%d contents were asked for, of an index, 2 images, 2 configs and 2 layers", len(asked))
		}
		changes := w.records(dst.row.ID, func(r audit.Record) bool { return r.Kind == audit.Change && r.Outcome == audit.Succeeded })
		if len(changes) != 4 || !strings.Contains(string(changes[0].After), src.row.ResourceID) {
			t.Errorf("the target's records: %+v", changes)
		}

		t.Run("by digest, without a tag anywhere", func(t *testing.T) {
			st := w.imported(registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "lib/app@"+d), Tags: []name.Reference{ref(t, "bydigest")}}, caller)
			if st.Status != job.Succeeded {
				t.Fatal(st.FaultMessage)
			}
			dst.whole(t, "bydigest", "latest")
		})
		t.Run("within one registry, its exports off", func(t *testing.T) {
			src.change(func(r *meta.RegistryRow) { r.Exports = false })
			defer src.change(func(r *meta.RegistryRow) { r.Exports = true })
			st := w.imported(registry.Import{Source: src.row.ID, Target: src.row.ID, Image: ref(t, "lib/app:v1"), Tags: []name.Reference{ref(t, "copy:v2")}}, caller)
			if st.Status != job.Succeeded {
				t.Fatal(st.FaultMessage)
			}
			src.whole(t, "copy", "v2")
		})
		t.Run("tags that exist", func(t *testing.T) {
			other := src.image("lib/app", "v2", "other")
			i := registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "lib/app:v2"), Tags: []name.Reference{ref(t, "app:new"), ref(t, "app:v1")}}
			id := w.enqueue(i, caller)
			st := w.ended(id)
			want := "Operation " + id + " failed. Resource " + dst.row.ResourceID + " app:v1 Tag app:v1 already exists in target registry."
			if st.Status != job.Failed || st.FaultMessage != want || st.FaultCode != "Conflict" {
				t.Errorf("%s %s %q, want %q", st.Status, st.FaultCode, st.FaultMessage, want)
			}
			dst.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/new", nil)
			dst.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/"+string(name.DigestOf(other)), nil)
			i.Force = true
			if st := w.imported(i, caller); st.Status != job.Succeeded {
				t.Fatal(st.FaultMessage)
			}
			dst.do(200, "GET", "/v2/app/manifests/v1", nil).want(t, "Docker-Content-Digest", string(name.DigestOf(other)))
			moved := w.records(dst.row.ID, func(r audit.Record) bool { return r.Reference == "v1" && strings.Contains(string(r.Before), d) })
			if len(moved) != 1 {
				t.Errorf("a moved tag tells %d times where it was", len(moved))
			}
		})
		t.Run("what is not there", func(t *testing.T) {
			for _, image := range []string{"lib/app:none", "absent", "lib/app@" + string(name.DigestOf([]byte("none")))} {
				st := w.imported(registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, image), Tags: []name.Reference{ref(t, "x:y")}}, caller)
				if st.Status != job.Failed || st.FaultCode != "InvalidParameters" || !strings.Contains(st.FaultMessage, "Resource "+src.row.ResourceID) {
					t.Errorf("%s: %s %s %s", image, st.Status, st.FaultCode, st.FaultMessage)
				}
			}
			h := src.image("broken", "v1", "broken")
			src.do(202, "DELETE", "/v2/broken/blobs/"+string(name.DigestOf([]byte("layer of broken"))), nil)
			st := w.imported(registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "broken:v1"), Tags: []name.Reference{ref(t, "broken")}}, caller)
			if st.Status != job.Failed || !strings.Contains(st.FaultMessage, "not whole") {
				t.Errorf("%s %s", st.Status, st.FaultMessage)
			}
			dst.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/broken/manifests/"+string(name.DigestOf(h)), nil)
		})
		t.Run("rights", func(t *testing.T) {
			for i, c := range []struct {
				at     string
				role   string
				denied string
			}{
				{w.id("target"), identity.RoleContributor, src.row.LoginServer},
				{w.id("source"), identity.RoleContributor, dst.row.LoginServer},
			} {
				p, _ := w.principal(fmt.Sprint("half", i), c.at, c.role)
				st := w.imported(registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "lib/app:v1"), Tags: []name.Reference{ref(t, "denied:v1")}}, w.caller(p))
				if st.Status != job.Failed || !strings.Contains(st.FaultMessage, "Access to "+c.denied+" denied") {
					t.Errorf("%s: %s %s", c.at, st.Status, st.FaultMessage)
				}
			}
			dst.refused(t, 404, "NAME_UNKNOWN", "GET", "/v2/denied/tags/list", nil)
			// With the source's credentials, their holder reads it and the one who asks writes.
			pusher, _ := w.principal("pusher", w.id("target"), identity.RoleContributor)
			admin := identity.Caller{ID: src.name, Name: src.name, Type: identity.AdminUser, Registry: src.row.ID}
			st := w.imported(registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "lib/app:v1"), Tags: []name.Reference{ref(t, "lent:v1")}, As: &admin}, w.caller(pusher))
			if st.Status != job.Succeeded {
				t.Error(st.FaultMessage)
			}
		})
	})
}

// TestImportAsksTheSource (R4, R21): the source's policy decides, and refuses in its own name.
func TestImportAsksTheSource(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, dst := w.registry("source"), w.registry("target")
		w.runJobs()
		m := src.image("app", "v1", "a")
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleOwner)
		try := func(tag string) job.State {
			t.Helper()
			return w.imported(registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "app:"+tag)}}, w.caller(p))
		}
		refused := func(tag, code, says string) {
			t.Helper()
			st := try(tag)
			if st.Status != job.Failed || st.FaultCode != code || !strings.Contains(st.FaultMessage, says) {
				t.Errorf("%s: %s %s %s; want %s that says %q", tag, st.Status, st.FaultCode, st.FaultMessage, code, says)
			}
			dst.refused(t, 404, "NAME_UNKNOWN", "GET", "/v2/app/tags/list", nil)
			dst.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/app/blobs/"+string(name.DigestOf([]byte("layer of a"))), nil)
			dst.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/"+string(name.DigestOf(m)), nil)
		}
		src.change(func(r *meta.RegistryRow) { r.Exports, r.PublicAccess = false, false })
		refused("x1", "BadRequest", "Resource "+src.row.ResourceID+" Importing from the registry 'source' is not supported because it has exports disabled")
		src.change(func(r *meta.RegistryRow) { r.Exports, r.BypassAzureServices = true, false })
		refused("x2", "Forbidden", "Resource "+src.row.ResourceID)
		src.change(func(r *meta.RegistryRow) { r.BypassAzureServices = true })
		dst.change(func(r *meta.RegistryRow) { r.PublicAccess, r.BypassAzureServices = false, false })
		refused("x3", "Forbidden", "Resource "+dst.row.ResourceID)
		for _, h := range []*host{src, dst} {
			if len(w.records(h.row.ID, func(r audit.Record) bool { return r.Outcome == audit.Refused || r.Outcome == audit.Failed })) == 0 {
				t.Errorf("%s has no record of the refusal", h.name)
			}
		}
		dst.change(func(r *meta.RegistryRow) { r.BypassAzureServices = true })
		if st := try("ok"); st.Status != job.Succeeded {
			t.Errorf("both trust the services: %s", st.FaultMessage)
		}
	})
}

// TestImportStopsAtAFlip (R6): exports disabled while an import runs: it leaves no tag and no link.
func TestImportStopsAtAFlip(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, dst := w.registry("source"), w.registry("target")
		idx := src.multi("app", "v1")
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleOwner)
		i := registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "app:v1")}, Untagged: []name.Repository{"bare"}}
		ctx := context.Background()
		second := must[func() error](t)(w.reg.Halves(ctx, i, w.caller(p)))
		src.change(func(r *meta.RegistryRow) { r.Exports, r.PublicAccess = false, false })
		if err := second(); !fault.Is(err, fault.ExportsDisabled) {
			t.Errorf("it went on: %v", err)
		}
		for _, repo := range []string{"app", "bare"} {
			dst.refused(t, 404, "NAME_UNKNOWN", "GET", "/v2/"+repo+"/tags/list", nil)
			dst.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/"+repo+"/manifests/"+string(name.DigestOf(idx)), nil)
			dst.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/"+repo+"/blobs/"+string(name.DigestOf([]byte("layer of amd64 v1"))), nil)
		}
		// Enabled again, the same import goes through; one whose source was deleted meanwhile does not.
		src.change(func(r *meta.RegistryRow) { r.Exports = true })
		second = must[func() error](t)(w.reg.Halves(ctx, i, w.caller(p)))
		if err := second(); err != nil {
			t.Error(err)
		}
		dst.whole(t, "app", "v1")
		i.Force = true
		second = must[func() error](t)(w.reg.Halves(ctx, i, w.caller(p)))
		w.drop(src)
		if err := second(); !fault.Is(err, fault.InvalidParameters) {
			t.Errorf("its source is gone: %v", err)
		}
	})
}

// What readEnabled=false keeps is not carried out by an image that names it, whenever the lock came; and who lost the right to import meanwhile imports nothing.
func TestImportOfLockedContent(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, dst := w.registry("source"), w.registry("target")
		idx := src.multi("app", "v1")
		kept := string(name.DigestOf(imageOf("", []byte(`{"seed":"arm64 v1"}`), []byte("layer of arm64 v1"))))
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleContributor)
		ctx := context.Background()
		lock := func(read bool) {
			src.do(200, "PATCH", "/acr/v1/app/_manifests/"+kept, []byte(fmt.Sprintf(`{"readEnabled":%t}`, read)))
		}
		for _, to := range []*host{dst, src} {
			i := registry.Import{Source: src.row.ID, Target: to.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "copy:v1")}}
			lock(true)
			second := must[func() error](t)(w.reg.Halves(ctx, i, w.caller(p)))
			lock(false)
			if err := second(); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), kept) || fault.From(err).Target != src.row.ResourceID {
				t.Errorf("locked between the halves, into %s: %v", to.name, err)
			}
			if _, err := w.reg.Halves(ctx, i, w.caller(p)); !fault.Is(err, fault.Unsupported) {
				t.Errorf("locked, into %s: %v", to.name, err)
			}
		}
		lock(true)
		i := registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app@"+string(name.DigestOf(idx))), Tags: []name.Reference{ref(t, "copy:v1")}}
		second := must[func() error](t)(w.reg.Halves(ctx, i, w.caller(p)))
		w.write(func(tx *meta.Tx) error {
			_, err := tx.Exec(`DELETE FROM role_assignments WHERE principal = $1`, p.ID)
			return err
		})
		if err := second(); !fault.Is(err, fault.Forbidden) {
			t.Errorf("its caller has no right any more: %v", err)
		}
		dst.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/copy/manifests/v1", nil)
	})
}

// TestImportAgainstFlips: imports and flips at once: no tag appears between the answer of a disabling and the next enabling.
func TestImportAgainstFlips(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, dst := w.registry("source"), w.registry("target")
		src.image("app", "v1", "a")
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleOwner)
		rounds := 40
		if testing.Short() {
			rounds = 8
		}
		stopped, passed := 0, 0
		for n := range rounds {
			src.change(func(r *meta.RegistryRow) { r.Exports = true })
			var wg sync.WaitGroup
			surveyed := make(chan struct{}, 4)
			for k := range 4 {
				wg.Go(func() {
					i := registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, fmt.Sprintf("app:t%d-%d", n, k))}}
					second, err := w.reg.Halves(context.Background(), i, w.caller(p))
					surveyed <- struct{}{}
					if err == nil {
						err = second()
					}
					if err != nil && !fault.Is(err, fault.ExportsDisabled) {
						t.Error(err)
					}
				})
			}
			for range n % 5 {
				<-surveyed
			}
			src.change(func(r *meta.RegistryRow) { r.Exports = false })
			at := w.count("tags")
			wg.Wait()
			if after := w.count("tags"); after != at {
				t.Fatalf("%d tags appeared after exports were disabled", after-at)
			}
			passed = at - 1
			stopped = 4*(n+1) - passed
		}
		t.Logf("%d imports passed, %d were stopped", passed, stopped)
	})
}

// TestImportAgain: an operation that is run again after it had linked everything succeeds, and its tags are no obstacle to itself.
func TestImportAgain(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, dst := w.registry("source"), w.registry("target")
		src.multi("app", "v1")
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleOwner)
		id := w.enqueue(registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "app:v1")}}, w.caller(p))
		w.runJobs()
		if st := w.ended(id); st.Status != job.Succeeded {
			t.Fatal(st.FaultMessage)
		}
		// As a process leaves it that died between the last transaction of the work and the end of the job.
		err := w.db.Write(context.Background(), func(tx *meta.Tx) error {
			_, err := tx.Exec(`UPDATE jobs SET status = 'Running', lease_until = 0, ended_us = 0 WHERE id = $1`, id)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if st := w.ended(id); st.Status != job.Succeeded || st.Attempt != 2 {
			t.Errorf("again: %s, attempt %d: %s", st.Status, st.Attempt, st.FaultMessage)
		}
		dst.whole(t, "app", "v1")
	})
}

func TestImportJob(t *testing.T) {
	t.Parallel()
	for what, i := range map[string]registry.Import{
		"no target":         {Image: ref(t, "app:v1")},
		"a target's digest": {Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "app@"+string(name.DigestOf(nil)))}},
	} {
		if _, err := registry.ImportJob(i); !fault.Is(err, fault.InvalidParameters) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

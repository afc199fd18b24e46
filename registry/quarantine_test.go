// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/registry"
)

// The roles for content in quarantine, by their ids in Azure.
const (
	roleQuarantineReader = "cdda3590-29a3-44f6-95f2-9f980659eb04"
	roleQuarantineWriter = "c8d4ff99-41c3-41a8-9f60-21dfdad59608"
)

// logged is the registry as a principal with roles on it reaches it.
func (h *host) logged(label string, roles ...string) *host {
	p, secret := h.w.principal(label, h.row.ResourceID, roles...)
	as := *h
	as.user, as.password = p.AppID, secret
	return &as
}

// What is pushed under quarantinePolicy is there for nobody but those who may read content in quarantine, whatever door and list it is asked by, until one who may write
// it says that it passed.
func TestQuarantine(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("old", "v1", "before the policy")
		h.change(func(r *meta.RegistryRow) { r.Quarantine = true })
		pusher := h.logged("pusher", identity.RoleAcrPush)
		reader := h.logged("scanner", identity.RoleAcrPull, roleQuarantineReader)
		writer := h.logged("judge", identity.RoleAcrPull, roleQuarantineWriter)
		m := pusher.platformImage("app", "v1", "amd64")
		index := indexOf(m)
		pusher.manifest("app", "all", mediaIndex, index)
		d, di, layer := string(name.DigestOf(m)), string(name.DigestOf(index)), string(name.DigestOf([]byte("layer for amd64")))
		signature := imageOf(`,"artifactType":"a/b","subject":`+descriptor(mediaImage, m), []byte(`{"architecture":"amd64","os":"linux"}`))
		pusher.manifest("app", "", mediaImage, signature)

		paths := []string{"/v2/app/manifests/v1", "/v2/app/manifests/" + d, "/v2/app/manifests/all", "/v2/app/blobs/" + layer, "/acr/v1/app", "/acr/v1/app/_tags", "/acr/v1/app/_tags/v1",
			"/acr/v1/app/_manifests", "/acr/v1/app/_manifests/" + d}
		unseen := func(who string, as *host) {
			t.Helper()
			for _, path := range paths {
				if a := as.send(as.request("GET", path, nil)); a.status != 404 {
					t.Errorf("%s sees %s: %d %.200s", who, path, a.status, a.body)
				}
			}
			for path, hidden := range map[string]string{"/v2/_catalog": `"app"`, "/v2/app/tags/list": `"v1"`, "/v2/app/referrers/" + d: "sha256:"} {
				if a := as.send(as.request("GET", path, nil)); strings.Contains(string(a.body), hidden) {
					t.Errorf("%s sees in %s: %s", who, path, a.body)
				}
			}
			as.do(200, "GET", "/v2/old/manifests/v1", nil)
		}
		seen := func(who string, as *host) {
			t.Helper()
			for _, path := range paths {
				if a := as.send(as.request("GET", path, nil)); a.status != 200 {
					t.Errorf("%s does not see %s: %d %.200s", who, path, a.status, a.body)
				}
			}
		}
		unseen("who pushed it", pusher)
		unseen("the admin user", h)
		unseen("a token", h.token(t, "ci-token", "_repositories_pull_metadata_read").host)
		seen("who reads quarantine", reader)
		seen("who writes quarantine", writer)
		pusher.do(200, "HEAD", "/v2/app/blobs/"+layer, nil) // or it would be pushed again and again
		if a := reader.do(200, "GET", "/acr/v1/app/_manifests/"+d, nil); !strings.Contains(string(a.body), `"quarantineState":"Quarantined"`) {
			t.Errorf("its state: %s", a.body)
		}

		const at = "/acr/v1/app/_manifests/"
		pass := []byte(`{"quarantineState":"Passed","quarantineDetails":"{\"scanner\":\"clean\"}"}`)
		for who, as := range map[string]*host{"who pushed it": pusher, "who reads quarantine": reader, "the admin user": h} {
			if a := as.send(as.request("PATCH", at+di, strings.NewReader(string(pass)))); a.status != 403 {
				t.Errorf("%s passes it: %d %s", who, a.status, a.body)
			}
		}
		writer.do(400, "PATCH", at+di, []byte(`{"quarantineState":"Perhaps"}`))
		writer.do(403, "PATCH", at+di, []byte(`{"quarantineState":"Passed","writeEnabled":false}`)) // a lock takes another right
		writer.do(200, "PATCH", at+di, []byte(`{"quarantineState":"Failed"}`))
		unseen("after it failed, who pushed it", pusher)
		if a := writer.do(200, "PATCH", at+di, pass); !strings.Contains(string(a.body), `"quarantineState":"Passed"`) || !strings.Contains(string(a.body), "clean") {
			t.Errorf("passed: %s", a.body)
		}
		seen("after it passed, who pushed it", pusher) // the index, and what it names
		if a := pusher.do(200, "GET", "/v2/app/referrers/"+d, nil); strings.Contains(string(a.body), "a/b") {
			t.Errorf("what refers to it is in quarantine still: %s", a.body)
		}
		if marks := w.records(h.row.ID, func(r audit.Record) bool { return strings.HasSuffix(r.Action, "quarantine/write") }); len(marks) != 3 {
			t.Errorf("%d changes of state are on record, of an index that failed and passed, and of what it names", len(marks))
		}
	})
}

// The state of an index is that of what it names, each on record and told, but of what failed: that is said of a manifest alone.
func TestQuarantineOfWhatAnIndexNames(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Quarantine = true })
		l := listen(t, w)
		l.hook(t, h, "all", "", "push", "quarantine")
		writer := h.logged("judge", identity.RoleAcrPull, roleQuarantineWriter)
		good, evil := h.platformImage("app", "good", "amd64"), h.platformImage("app", "evil", "arm64")
		inner := indexOf(good, evil)
		h.manifest("app", "inner", mediaIndex, inner)
		index := indexOf(inner, good)
		h.manifest("app", "all", mediaIndex, index)
		dg, di := string(name.DigestOf(good)), string(name.DigestOf(index))
		set := func(digest, state string) {
			t.Helper()
			writer.do(200, "PATCH", "/acr/v1/app/_manifests/"+digest, []byte(`{"quarantineState":"`+state+`","quarantineDetails":"said of `+digest+`"}`))
		}
		tags := func(all, inner, good int) {
			t.Helper()
			for tag, status := range map[string]int{"all": all, "inner": inner, "good": good, "evil": 404} {
				h.do(status, "GET", "/v2/app/manifests/"+tag, nil)
			}
		}
		set(string(name.DigestOf(evil)), "Failed")
		set(di, "Passed")
		tags(200, 200, 200)
		set(di, "Failed") // nobody has said that of what it names
		tags(404, 404, 404)
		set(dg, "Passed")
		tags(404, 404, 200)
		set(di, "Passed")
		tags(200, 200, 200)

		var marks []string
		for _, r := range w.records(h.row.ID, func(r audit.Record) bool { return strings.HasSuffix(r.Action, "quarantine/write") && r.Digest == dg }) {
			var before, after struct{ QuarantineState string }
			if err := errors.Join(json.Unmarshal(r.Before, &before), json.Unmarshal(r.After, &after)); err != nil {
				t.Fatal(err)
			}
			marks = append(marks, before.QuarantineState+" "+after.QuarantineState+" "+r.Reference)
		}
		slices.Sort(marks)
		by := " named by " + di
		if want := []string{"Passed Quarantined" + by, "Quarantined Passed ", "Quarantined Passed" + by}; !slices.Equal(marks, want) {
			t.Errorf("on record of what the index names: %q, want %q", marks, want)
		}
		l.deliver(t)
		pushes := map[string]int{}
		for range 4 + 3 + 3 { // four are put into quarantine, three pass, twice
			if p := l.next(t); p.Action == "push" {
				pushes[p.Target.Tag]++
			}
		}
		if want := map[string]int{"all": 2, "inner": 2, "good": 2}; !maps.Equal(pushes, want) {
			t.Errorf("told as pushed: %v, want %v", pushes, want)
		}
		l.quiet(t)
		if len(l.got) != 0 {
			t.Errorf("%d more events", len(l.got))
		}
	})
}

// A token changes the state of quarantine within its scope alone, and its answer describes nothing that the token may not read.
func TestQuarantineOfATokensScope(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Quarantine = true })
		at := "/acr/v1/app/_manifests/" + string(name.DigestOf(h.image("app", "v1", "a")))
		writer := h.logged("judge", identity.RoleAcrPull, roleQuarantineWriter)
		passed := []byte(`{"quarantineState":"Passed"}`)
		for _, scope := range []string{"", "repository:other:metadata_write", "repository:app:pull,metadata_read"} {
			a := h.as(w.tokenOf(writer, scope)).do(401, "PATCH", at, passed)
			if c := a.Get("WWW-Authenticate"); !strings.Contains(c, `scope="repository:app:metadata_write",error="insufficient_scope"`) {
				t.Errorf("of the scope %q: %s", scope, c)
			}
		}
		const write = "repository:app:metadata_write"
		for scope, shown := range map[string]bool{write: false, write + ",metadata_read": true} {
			marker := h.as(w.tokenOf(writer, scope))
			if a := marker.do(200, "PATCH", at, passed); strings.Contains(string(a.body), "sha256:") != shown {
				t.Errorf("of the scope %s: %s", scope, a.body)
			}
			if a := marker.send(marker.request("PATCH", at, strings.NewReader(`{"writeEnabled":false}`))); a.status == 200 {
				t.Errorf("the scope %s locks: %s", scope, a.body)
			}
		}
	})
}

// A repository that holds nothing but content in quarantine answers as an absent one, and so does the bin.
func TestQuarantineHidesRepositories(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 })
		old := h.image("old", "v1", "before the policy")
		h.change(func(r *meta.RegistryRow) { r.Quarantine = true })
		m := h.image("app", "v1", "a")
		reader := h.logged("scanner", identity.RoleOwner, roleQuarantineReader)
		h.refused(t, 404, "NAME_UNKNOWN", "GET", "/v2/app/tags/list", nil)
		reader.do(200, "GET", "/v2/app/tags/list", nil)
		bin := func(as *host, repo string, want [3]int) { // whether it is in the catalog, its manifests, its tags
			t.Helper()
			got := [3]int{0, len(as.bin(t, repo+"/_manifests").Manifests), len(as.bin(t, repo+"/_tags").Tags)}
			if slices.Contains(as.bin(t, "_catalog").Repositories, repo) {
				got[0] = 1
			}
			if got != want {
				t.Errorf("%s sees %v of %s in the bin, want %v", as.user, got, repo, want)
			}
		}
		reader.do(202, "DELETE", "/acr/v1/app/_tags/v1", nil)
		bin(h, "app", [3]int{})
		bin(reader, "app", [3]int{0, 0, 1})
		reader.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(m)), nil)
		bin(h, "app", [3]int{})
		bin(reader, "app", [3]int{1, 1, 1})
		h.do(202, "DELETE", "/v2/old/manifests/"+string(name.DigestOf(old)), nil)
		bin(h, "old", [3]int{1, 1, 1})
	})
}

// No import carries out what is in quarantine: not as an image, not as what an image names, not when it failed between the halves.
func TestImportOfHeldContent(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, dst := w.registry("source", func(r *meta.RegistryRow) { r.Quarantine = true }), w.registry("target")
		writer := src.logged("judge", identity.RoleAcrPull, roleQuarantineWriter)
		set := func(d name.Digest, state string) {
			t.Helper()
			writer.do(200, "PATCH", "/acr/v1/app/_manifests/"+string(d), []byte(`{"quarantineState":"`+state+`"}`))
		}
		good, evil := src.image("app", "", "good"), src.image("app", "evil", "evil")
		index := indexOf(good, evil)
		src.manifest("app", "all", mediaIndex, index)
		di, de := name.DigestOf(index), name.DigestOf(evil)
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleContributor)
		begin := func(tag string) (func() error, error) {
			i := registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app:"+tag), Tags: []name.Reference{ref(t, "app:"+tag)}}
			return w.reg.Halves(context.Background(), i, w.caller(p))
		}
		for tag, d := range map[string]name.Digest{"all": di, "evil": de} {
			if _, err := begin(tag); !fault.Is(err, fault.InvalidParameters) {
				t.Errorf("%s, held: %v", tag, err)
			}
			set(d, "Passed")
			second := must[func() error](t)(begin(tag))
			set(de, "Failed")
			if err := second(); !fault.Is(err, fault.InvalidParameters) {
				t.Errorf("%s, failed between the halves: %v", tag, err)
			}
			if _, err := begin(tag); !fault.Is(err, fault.InvalidParameters) || !strings.Contains(err.Error(), string(de)) && tag == "all" {
				t.Errorf("%s, after it failed: %v", tag, err)
			}
			dst.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/"+string(de), nil)
			set(de, "Quarantined")
		}
		set(de, "Passed")
		if err := must[func() error](t)(begin("all"))(); err != nil {
			t.Error(err)
		}
		dst.whole(t, "app", "all")
	})
}

// What names content that has come since it passed is looked at again, and a note about an index says nothing of what it names.
func TestQuarantineOfWhatCameLate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Quarantine = true })
		writer := h.logged("judge", identity.RoleAcrPull, roleQuarantineWriter)
		mark := func(m []byte, change string) {
			t.Helper()
			writer.do(200, "PATCH", "/acr/v1/app/_manifests/"+string(name.DigestOf(m)), []byte(change))
		}
		config, layer := []byte(`{"architecture":"amd64","os":"linux"}`), []byte("nobody has looked at it")
		h.blob("app", config)
		m := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, mediaImage, descriptor(mediaConfig, config),
			descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", layer)))
		h.manifest("app", "v1", mediaImage, m)
		mark(m, `{"quarantineState":"Passed"}`)
		h.do(200, "GET", "/v2/app/manifests/v1", nil)
		at := "/v2/app/blobs/" + string(h.blob("app", layer))
		h.manifest("app", "v1", mediaImage, m)
		h.do(404, "GET", at, nil)
		h.do(404, "GET", "/v2/app/manifests/v1", nil)
		again := func(h *host) { // it is on record
			t.Helper()
			list := w.records(h.row.ID, func(r audit.Record) bool {
				return strings.HasSuffix(r.Action, "/quarantine/write") && strings.Contains(r.Reference, "come since")
			})
			if len(list) != 1 || list[0].Digest != string(name.DigestOf(m)) || list[0].Repository != "app" || list[0].Caller.ID == "" ||
				!strings.Contains(string(list[0].Before), oci.Passed) || !strings.Contains(string(list[0].After), oci.Quarantined) {
				t.Errorf("on record: %+v", list)
			}
		}
		again(h)
		mark(m, `{"quarantineState":"Passed"}`)
		h.do(200, "GET", at, nil)

		// An import brings what comes late just as well.
		other := w.registry("other", func(r *meta.RegistryRow) { r.Quarantine = true })
		judge := other.logged("judge of the other", identity.RoleAcrPull, roleQuarantineWriter)
		other.blob("app", config)
		other.manifest("app", "v1", mediaImage, m)
		judge.do(200, "PATCH", "/acr/v1/app/_manifests/"+string(name.DigestOf(m)), []byte(`{"quarantineState":"Passed"}`))
		w.runJobs()
		p, _ := w.principal("importer", "/subscriptions/"+w.first.Subscription, identity.RoleContributor)
		st := w.imported(registry.Import{Source: h.row.ID, Target: other.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "app:v2")}}, w.caller(p))
		if st.Status != job.Succeeded {
			t.Fatal(st.FaultMessage)
		}
		other.do(404, "GET", at, nil)
		other.do(404, "GET", "/v2/app/manifests/v1", nil)
		again(other)

		index := indexOf(m)
		h.manifest("app", "all", mediaIndex, index)
		mark(index, `{"quarantineState":"Passed"}`)
		mark(m, `{"quarantineState":"Quarantined"}`)
		mark(index, `{"quarantineDetails":"a note"}`)
		h.do(404, "GET", "/v2/app/manifests/v1", nil)
	})
}

// Who does not see what is in quarantine can't lock it, and is not told of it by a deletion.
func TestQuarantineHidesFromChanges(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Quarantine = true })
		writer := h.logged("judge", identity.RoleOwner, roleQuarantineWriter)
		seen, held := h.image("app", "seen", "seen"), h.image("app", "held", "held")
		writer.do(200, "PATCH", "/acr/v1/app/_manifests/"+string(name.DigestOf(seen)), []byte(`{"quarantineState":"Passed"}`))
		for _, at := range []string{"_manifests/" + string(name.DigestOf(held)), "_tags/held"} {
			h.do(404, "PATCH", "/acr/v1/app/"+at, []byte(`{"deleteEnabled":false,"writeEnabled":false}`))
		}
		a := h.send(h.request("DELETE", "/acr/v1/app", nil)) // nothing is locked
		if a.status != 202 || !strings.Contains(string(a.body), string(name.DigestOf(seen))) || strings.Contains(string(a.body), string(name.DigestOf(held))) || strings.Contains(string(a.body), `"held"`) {
			t.Errorf("%d %s", a.status, a.body)
		}
		if n := w.count("manifests"); n != 0 {
			t.Errorf("%d manifests are left", n)
		}

		// What there is besides, locked or not, is as if it were not there.
		d := string(name.DigestOf(h.image("alone", "secret", "held")))
		for _, at := range []string{"/v2/alone/manifests/" + d, "/v2/alone/manifests/secret", "/acr/v1/alone/_tags/secret", "/acr/v1/alone"} {
			h.do(404, "DELETE", at, nil)
		}
		admin := h.logged("keeper", identity.RoleOwner, roleQuarantineWriter)
		for _, at := range []string{"_manifests/" + d, "_tags/secret", ""} { // also when something of it is locked, or all of it
			at = strings.TrimSuffix("alone/"+at, "/")
			admin.do(200, "PATCH", "/acr/v1/"+at, []byte(`{"deleteEnabled":false}`))
			for _, at := range []string{"/v2/alone/manifests/" + d, "/acr/v1/alone/_tags/secret", "/acr/v1/alone"} {
				h.do(404, "DELETE", at, nil)
			}
			h.do(404, "PATCH", "/acr/v1/alone", []byte(`{"writeEnabled":false}`))
			if a := admin.do(200, "GET", "/acr/v1/alone", nil); !strings.Contains(string(a.body), `"writeEnabled":true`) {
				t.Errorf("who does not see it has locked it: %s", a.body)
			}
			admin.do(200, "PATCH", "/acr/v1/"+at, []byte(`{"deleteEnabled":true}`))
		}
		seen = h.image("beside", "seen", "beside")
		writer.do(200, "PATCH", "/acr/v1/beside/_manifests/"+string(name.DigestOf(seen)), []byte(`{"quarantineState":"Passed"}`))
		h.image("beside", "secret", "held")
		for _, at := range []string{"_manifests/" + d, "_tags/secret"} {
			writer.do(200, "PATCH", "/acr/v1/beside/"+at, []byte(`{"deleteEnabled":false}`))
			if a := h.do(405, "DELETE", "/acr/v1/beside", nil); strings.Contains(string(a.body), d) || strings.Contains(string(a.body), "secret") || !strings.Contains(string(a.body), "quarantine") {
				t.Errorf("a lock on %s: %s", at, a.body)
			}
			writer.do(200, "PATCH", "/acr/v1/beside/"+at, []byte(`{"deleteEnabled":true}`))
		}
		hidden := imageOf(`,"artifactType":"a/b","subject":`+descriptor(mediaImage, seen), []byte(`{"seed":"beside"}`))
		h.manifest("beside", "topsecret", mediaImage, hidden)
		d = string(name.DigestOf(hidden))
		for _, at := range []string{"_manifests/" + d, "_tags/topsecret"} {
			writer.do(200, "PATCH", "/acr/v1/beside/"+at, []byte(`{"deleteEnabled":false}`))
			for _, path := range []string{"manifests/" + string(name.DigestOf(seen)), "blobs/" + string(name.DigestOf([]byte(`{"seed":"beside"}`)))} {
				if a := h.do(405, "DELETE", "/v2/beside/"+path, nil); strings.Contains(string(a.body), d) || strings.Contains(string(a.body), "topsecret") || !strings.Contains(string(a.body), "quarantine") {
					t.Errorf("a lock on %s: %s", at, a.body)
				}
			}
			writer.do(200, "PATCH", "/acr/v1/beside/"+at, []byte(`{"deleteEnabled":true}`))
		}
	})
}

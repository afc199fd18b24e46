// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/registry"
	"github.com/embargo-registry/embargo/trust"
	"github.com/embargo-registry/embargo/trust/trusttest"
)

// The roles that bear on content trust, by their ids in Azure.
const (
	roleImageSigner      = "6cef56e8-d556-48e5-a04f-b8e64114680f"
	roleRepositoryReader = "b93aa761-3e63-49ed-ac28-beffa264f7ac"
)

// trusts makes a trust store of the registry, or changes it.
func (h *host) trusts(store string, a *trusttest.Authority, identities ...string) {
	h.w.t.Helper()
	h.w.write(func(tx *meta.Tx) error {
		return trust.Put(tx, trust.Row{Registry: h.row.ID, Resource: h.row.ResourceID + "/providers/Embargo.Containment/trustStores/" + store,
			Certificates: []string{trusttest.PEM(a.Certificate)}, Identities: identities})
	})
}

func (h *host) distrusts(store string) {
	h.w.t.Helper()
	h.w.write(func(tx *meta.Tx) error {
		return trust.Remove(tx, h.row.ResourceID+"/providers/Embargo.Containment/trustStores/"+store)
	})
}

// month is a signer whose certificate is valid now.
func month(t *testing.T, a *trusttest.Authority, common string) *trusttest.Signer {
	return a.Signer(t, trusttest.Subject(common), time.Now().AddDate(0, -1, 0), time.Now().AddDate(0, 1, 0))
}

func targetOf(media string, manifest []byte) trust.Target {
	return trust.Target{Digest: name.DigestOf(manifest), MediaType: media, Size: int64(len(manifest))}
}

// sign pushes an envelope as the notation client does, as a referrer of a manifest, and returns the signature's own manifest.
func (h *host) sign(repo, media string, manifest []byte, envelopeMedia string, envelope []byte) []byte {
	h.w.t.Helper()
	h.blob(repo, []byte("{}"))
	h.blob(repo, envelope)
	m := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s],"subject":%s,"annotations":{"io.cncf.notary.x509chain.thumbprint#S256":"[]"}}`,
		mediaImage, descriptor(trust.ArtifactType, []byte("{}")), descriptor(envelopeMedia, envelope), descriptor(media, manifest)))
	h.manifest(repo, "", mediaImage, m)
	return m
}

// TestTrustPolicy: a tag is refused to all but signers unless a trusted signature of what it names now is there, and everything else is as ever.
func TestTrustPolicy(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Trust, r.AnonymousPull = true, true })
		ours, foreign := trusttest.NewAuthority(t, "ours"), trusttest.NewAuthority(t, "foreign")
		builds := month(t, ours, "builds")
		m := h.image("app", "v1", "one")
		d := string(name.DigestOf(m))
		pullers := map[string]*host{"a puller": h.logged("puller", identity.RoleAcrPull), "a pusher": h.logged("pusher", identity.RoleAcrPush), "an owner": h.logged("owner", identity.RoleOwner), "the admin user": h,
			"a token": h.token(t, "ci-token", "_repositories_pull_metadata_read").host, "nobody": h.as(h.nobody("repository:app:pull"))}
		signer := h.logged("signer", identity.RoleAcrPull, roleImageSigner)
		refused := func(why string) {
			t.Helper()
			for who, as := range pullers {
				a := as.send(as.request("GET", "/v2/app/manifests/v1", nil))
				for _, part := range []string{"trustPolicy of the registry 'contoso'", "the tag 'v1'", why} {
					if a.status != 403 || a.code() != "DENIED" || !strings.Contains(string(a.body), part) {
						t.Errorf("%s: %d %s, want %q", who, a.status, a.body, part)
					}
				}
				as.do(403, "HEAD", "/v2/app/manifests/v1", nil)
				for _, path := range []string{"/v2/app/manifests/" + d, "/v2/app/tags/list", "/v2/app/referrers/" + d} {
					as.do(200, "GET", path, nil)
				}
				as.do(200, "HEAD", "/v2/app/manifests/"+d, nil)
			}
			signer.do(200, "GET", "/v2/app/manifests/v1", nil)
			signer.do(200, "HEAD", "/v2/app/manifests/v1", nil)
		}
		allowed := func() {
			t.Helper()
			for _, as := range pullers {
				as.do(200, "GET", "/v2/app/manifests/v1", nil)
				as.do(200, "HEAD", "/v2/app/manifests/v1", nil)
			}
		}
		refused("has no trust store")
		h.do(200, "GET", "/acr/v1/app/_tags/v1", nil)
		h.trusts("release", ours, "x509.subject: C=US, ST=WA, O=Contoso, CN=builds")
		refused("it has no signature")
		for _, c := range []struct {
			by  *trusttest.Signer
			of  trust.Target
			why string
		}{
			{month(t, foreign, "builds"), targetOf(mediaImage, m), "no certificate chain to a certificate of a trust store"},
			{month(t, ours, "else"), targetOf(mediaImage, m), "none of the trusted identities of the trust store 'release'"},
			{builds, targetOf(mediaImage, []byte("other")), "it is of another manifest"},
			{ours.Signer(t, trusttest.Subject("builds"), time.Now().AddDate(0, -2, 0), time.Now().AddDate(0, -1, 0)), targetOf(mediaImage, m), "expired at"},
		} {
			s := h.sign("app", mediaImage, m, trusttest.JWS, c.by.Sign(t, trusttest.JWS, c.of))
			refused(c.why)
			h.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(s)), nil)
		}
		signature := h.sign("app", mediaImage, m, trusttest.JWS, builds.Sign(t, trusttest.JWS, targetOf(mediaImage, m)))
		allowed()
		moved := h.image("app", "v1", "two")
		refused("it has no signature")
		h.sign("app", mediaImage, moved, trusttest.COSE, builds.Sign(t, trusttest.COSE, targetOf(mediaImage, moved)))
		allowed()
		h.manifest("app", "v1", mediaImage, m)
		allowed()
		h.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(signature)), nil)
		refused("it has no signature")
		h.sign("app", mediaImage, m, trusttest.JWS, builds.Sign(t, trusttest.JWS, targetOf(mediaImage, m)))
		allowed()
		h.distrusts("release")
		refused("has no trust store")
		h.trusts("release", foreign, "*")
		refused("no certificate chain")
		h.trusts("second", ours, "*")
		allowed()
		h.distrusts("second")
		refused("no certificate chain")
		h.change(func(r *meta.RegistryRow) { r.Trust = false })
		allowed()
		if n := len(w.records(h.row.ID, func(r audit.Record) bool {
			return r.Rule == "trustPolicy" && r.Outcome == audit.Refused && r.Reference == "v1"
		})); n == 0 {
			t.Error("no refusal is on record")
		}
	})
}

// TestTrustOfAnIndex: what is signed is what the tag names; what it names in turn is asked by digest. The signer's rights are the same in the mode of repository permissions, and a
// signature that is locked from sight, or in quarantine, does not count.
func TestTrustOfAnIndex(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Trust, r.AbacMode = true, true })
		ours := trusttest.NewAuthority(t, "ours")
		builds := month(t, ours, "builds")
		h.trusts("release", ours, "*")
		child := h.image("app", "amd64", "amd64")
		index := indexOf(child)
		h.manifest("app", "v1", mediaIndex, index)
		reader, signer := h.logged("reader", roleRepositoryReader), h.logged("signer", roleRepositoryReader, roleImageSigner)
		h.sign("app", mediaImage, child, trusttest.COSE, builds.Sign(t, trusttest.COSE, targetOf(mediaImage, child)))
		reader.do(200, "GET", "/v2/app/manifests/amd64", nil)
		reader.do(403, "GET", "/v2/app/manifests/v1", nil)
		signer.do(200, "GET", "/v2/app/manifests/v1", nil)
		s := h.sign("app", mediaIndex, index, trusttest.COSE, builds.Sign(t, trusttest.COSE, targetOf(mediaIndex, index)))
		reader.whole(t, "app", "v1")
		at := "/acr/v1/app/_manifests/" + string(name.DigestOf(s))
		for _, lock := range []string{"listEnabled", "readEnabled"} {
			h.do(200, "PATCH", at, []byte(`{"`+lock+`":false}`))
			reader.do(403, "GET", "/v2/app/manifests/v1", nil)
			h.do(200, "PATCH", at, []byte(`{"`+lock+`":true}`))
			reader.do(200, "GET", "/v2/app/manifests/v1", nil)
		}
		h.change(func(r *meta.RegistryRow) { r.Quarantine = true })
		h.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(s)), nil)
		h.sign("app", mediaIndex, index, trusttest.JWS, builds.Sign(t, trusttest.JWS, targetOf(mediaIndex, index)))
		reader.do(403, "GET", "/v2/app/manifests/v1", nil)
		h.change(func(r *meta.RegistryRow) { r.Quarantine = false })
		reader.do(200, "GET", "/v2/app/manifests/v1", nil)
	})
}

// TestReferrersTag: the list of a digest's referrers, which clients keep under a tag, is read as the referrers API is; another index under such a tag is refused.
func TestReferrersTag(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso", func(r *meta.RegistryRow) { r.Trust = true })
		m, other := h.image("app", "v1", "one"), h.image("app", "v2", "two")
		s := h.sign("app", mediaImage, m, trusttest.JWS, []byte("none"))
		tag := strings.Replace(string(name.DigestOf(m)), ":", "-", 1)
		config := []byte(`{"os":"linux"}`)
		runs := imageOf(`,"subject":`+descriptor(mediaImage, m), config)
		h.blob("app", config)
		h.manifest("app", string(name.DigestOf(runs)), mediaImage, runs)
		inner := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s],"subject":%s}`, mediaIndex, descriptor(mediaImage, other), descriptor(mediaImage, m)))
		h.manifest("app", string(name.DigestOf(inner)), mediaIndex, inner)
		outer := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, mediaIndex, descriptor(mediaIndex, inner)))
		for _, c := range []struct {
			status int
			tag    string
			index  []byte
		}{{200, tag, indexOf(s)}, {200, tag, indexOf()}, {403, tag, indexOf(s, other)}, {403, tag, indexOf(other)}, {403, tag, indexOf(s, runs)}, {403, tag, outer}, {403, "list", indexOf(s)},
			{403, strings.Replace(string(name.DigestOf(other)), ":", "-", 1), indexOf(s)}} {
			h.manifest("app", c.tag, mediaIndex, c.index)
			h.do(c.status, "GET", "/v2/app/manifests/"+c.tag, nil)
		}
		h.manifest("app", tag, mediaImage, s)
		h.do(403, "GET", "/v2/app/manifests/"+tag, nil)
	})
}

// TestTrustEndsWithTheCertificate: what was found trusted is so no longer than the signer's certificate is valid.
func TestTrustEndsWithTheCertificate(t *testing.T) {
	t.Parallel()
	db, passed := metatest.Passing(t)
	w := newWorld(t, db)
	h := w.registry("contoso", func(r *meta.RegistryRow) { r.Trust = true })
	ours := trusttest.NewAuthority(t, "ours")
	h.trusts("release", ours, "*")
	m := h.image("app", "v1", "one")
	soon := ours.Signer(t, trusttest.Subject("builds"), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	h.sign("app", mediaImage, m, trusttest.JWS, soon.Sign(t, trusttest.JWS, targetOf(mediaImage, m)))
	h.do(200, "GET", "/v2/app/manifests/v1", nil)
	passed.Store(int64(2 * time.Hour))
	if a := h.do(403, "GET", "/v2/app/manifests/v1", nil); !strings.Contains(string(a.body), "expired at") {
		t.Errorf("%s", a.body)
	}
}

// TestManySignatures: the newest signatures are looked at, so many and no more, and what is none does no harm.
func TestManySignatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	h := w.registry("contoso", func(r *meta.RegistryRow) { r.Trust = true })
	ours := trusttest.NewAuthority(t, "ours")
	builds := month(t, ours, "builds")
	h.trusts("release", ours, "*")
	m := h.image("app", "v1", "one")
	h.sign("app", mediaImage, m, trusttest.JWS, builds.Sign(t, trusttest.JWS, targetOf(mediaImage, m)))
	for i, none := range [][]byte{[]byte("none"), make([]byte, trust.EnvelopeLimit+1), []byte("{}"), {0xd2, 0x84}} {
		for _, media := range []string{trusttest.JWS, trusttest.COSE, "text/plain"} {
			h.sign("app", mediaImage, m, media, append(none, byte(i)))
		}
	}
	two := imageOf(`,"artifactType":"`+trust.ArtifactType+`","subject":`+descriptor(mediaImage, m), []byte("{}"), []byte("none\x00"), []byte("{}\x02"))
	h.manifest("app", "", mediaImage, two)
	h.do(200, "GET", "/v2/app/manifests/v1", nil)
	for i := range 50 {
		h.sign("app", mediaImage, m, trusttest.JWS, fmt.Appendf(nil, "junk %d", i))
	}
	if a := h.do(403, "GET", "/v2/app/manifests/v1", nil); !strings.Contains(string(a.body), "none of the newest 50 of its signatures counts") || len(a.body) > 4000 {
		t.Errorf("%d bytes: %s", len(a.body), a.body)
	}
	h.sign("app", mediaImage, m, trusttest.COSE, builds.Sign(t, trusttest.COSE, targetOf(mediaImage, m)))
	h.do(200, "GET", "/v2/app/manifests/v1", nil)
}

// TestImportOfATag: an import by a tag is a pull by it, at its begin and at its end; by digest it names exact content.
func TestImportOfATag(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		src, dst := w.registry("source", func(r *meta.RegistryRow) { r.Trust = true }), w.registry("target")
		w.runJobs()
		ours := trusttest.NewAuthority(t, "ours")
		src.trusts("release", ours, "*")
		idx := src.multi("app", "v1")
		p, _ := w.principal("importer", src.row.ResourceID, identity.RoleAcrPull)
		w.write(func(tx *meta.Tx) error {
			at, err := name.ParseResourceID(dst.row.ResourceID)
			if err != nil {
				return err
			}
			return w.ids.PutAssignment(tx, identity.Assignment{ID: "0a1c1c0e-0000-4000-8000-000000000001", Scope: at, Principal: p.ID, PrincipalType: p.Type, Role: identity.RoleAcrPush})
		})
		caller := w.caller(p)
		byTag := registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app:v1"), Tags: []name.Reference{ref(t, "app:v1")}, Force: true}
		if st := w.imported(byTag, caller); st.Status != job.Failed || !strings.Contains(st.FaultMessage, "trustPolicy") || !strings.Contains(st.FaultMessage, src.row.ResourceID) {
			t.Errorf("unsigned: %s %s", st.Status, st.FaultMessage)
		}
		if asked := w.records(src.row.ID, func(r audit.Record) bool { return r.Route == "R4" && r.Outcome == audit.Allowed }); len(asked) > 0 {
			t.Errorf("%d pieces of it were let go", len(asked))
		}
		byDigest := byTag
		byDigest.Image = ref(t, "app@"+string(name.DigestOf(idx)))
		if st := w.imported(byDigest, caller); st.Status != job.Succeeded {
			t.Errorf("by digest: %s %s", st.Status, st.FaultMessage)
		}
		s := src.sign("app", mediaIndex, idx, trusttest.COSE, month(t, ours, "builds").Sign(t, trusttest.COSE, targetOf(mediaIndex, idx)))
		if st := w.imported(byTag, caller); st.Status != job.Succeeded {
			t.Errorf("signed: %s %s", st.Status, st.FaultMessage)
		}
		second, err := w.reg.Halves(context.Background(), byTag, caller)
		if err != nil {
			t.Fatal(err)
		}
		src.do(202, "DELETE", "/v2/app/manifests/"+string(name.DigestOf(s)), nil)
		if err := second(); err == nil || !strings.Contains(err.Error(), "trustPolicy") {
			t.Errorf("its signature was deleted while it ran: %v", err)
		}
		signer, _ := w.principal("signer", "/subscriptions/"+w.first.Subscription, identity.RoleAcrPush, roleImageSigner)
		if st := w.imported(byTag, w.caller(signer)); st.Status != job.Succeeded {
			t.Errorf("by a signer: %s %s", st.Status, st.FaultMessage)
		}
		dst.change(func(r *meta.RegistryRow) { r.Trust = true })
		dst.trusts("release", ours, "*")
		dst.do(403, "GET", "/v2/app/manifests/v1", nil)
		s = src.sign("app", mediaIndex, idx, trusttest.JWS, month(t, ours, "builds").Sign(t, trusttest.JWS, targetOf(mediaIndex, idx)))
		signature := registry.Import{Source: src.row.ID, Target: dst.row.ID, Image: ref(t, "app@"+string(name.DigestOf(s))), Untagged: []name.Repository{"app"}}
		if st := w.imported(signature, caller); st.Status != job.Succeeded {
			t.Errorf("the signature: %s %s", st.Status, st.FaultMessage)
		}
		dst.whole(t, "app", "v1")
	})
}

// TestTrustOfACachedTag: a tag that a cache rule maps is a tag, fetched now or before.
func TestTrustOfACachedTag(t *testing.T) {
	t.Parallel()
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), library())
	m := c.from.image("library/one", "v1", "one")
	ours := trusttest.NewAuthority(t, "ours")
	c.trusts("release", ours, "*")
	c.change(func(r *meta.RegistryRow) { r.Trust = true })
	for range 2 {
		if a := c.do(403, "GET", "/v2/app/one/manifests/v1", nil); !strings.Contains(string(a.body), "it has no signature") {
			t.Errorf("%s", a.body)
		}
	}
	c.do(200, "GET", "/v2/app/one/manifests/"+string(name.DigestOf(m)), nil)
	c.sign("app/one", mediaImage, m, trusttest.JWS, month(t, ours, "builds").Sign(t, trusttest.JWS, targetOf(mediaImage, m)))
	c.do(200, "GET", "/v2/app/one/manifests/v1", nil)
}

// A pull that waits for its upstream obeys the policies that are there when it is answered, and not those of its beginning.
func TestPoliciesWhileAPullWaits(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"trust", "quarantine"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), library())
			c.from.image("library/one", "v1", "one")
			asked, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			c.answer(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == "GET" && strings.Contains(r.URL.Path, "/manifests/") {
					once.Do(func() { close(asked); <-goOn })
				}
				return false
			})
			got := make(chan answer, 1)
			go func() { got <- c.send(c.request("GET", "/v2/app/one/manifests/v1", nil)) }()
			<-asked
			c.change(func(r *meta.RegistryRow) { r.Trust, r.Quarantine = what == "trust", what == "quarantine" })
			close(goOn)
			if a, now := <-got, c.send(c.request("GET", "/v2/app/one/manifests/v1", nil)); a.status == 200 || a.status != now.status {
				t.Errorf("the pull that waited: %d %.200s; one that begins now: %d", a.status, a.body, now.status)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/upstream"
)

// TestFetchedOnce: who pulls a thing that is on its way waits for it.
func TestFetchedOnce(t *testing.T) {
	t.Parallel()
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), library())
	m := c.from.image("library/one", "v1", "one")
	layer := string(name.DigestOf([]byte("layer of one")))
	c.do(200, "GET", "/v2/app/one/manifests/v1", nil)
	c.took()
	held, arrived := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, layer) {
			once.Do(func() { close(arrived) })
			<-held
		}
		return false
	})
	const pullers = 8
	var entered, all sync.WaitGroup
	entered.Add(pullers)
	door := *c.host
	door.base = "http://" + c.w.serve(network.DoorOptions{Zone: network.Zone{Kind: network.Private, Door: "counted", Registry: "cacheone"}},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			entered.Done()
			c.w.oci.ServeHTTP(w, r)
		}))
	answers := make([]answer, pullers)
	for i := range pullers {
		all.Go(func() { answers[i] = door.send(door.request("GET", "/v2/app/one/blobs/"+layer, nil)) })
	}
	<-arrived
	entered.Wait()
	close(held)
	all.Wait()
	for _, a := range answers {
		if a.status != 200 || string(a.body) != "layer of one" {
			t.Errorf("a puller got %d %s", a.status, a.body)
		}
	}
	c.asks(t, "GET /v2/library/one/blobs/"+layer)
	c.answer(nil)
	c.do(200, "GET", "/v2/app/one/manifests/"+string(name.DigestOf(m)), nil)
}

// TestWhoMayFetch: nothing is asked of the upstream for who may not pull, for who has no credential, for a registry that can't be reached from where the caller is, and for content that nobody names.
func TestWhoMayFetch(t *testing.T) {
	t.Parallel()
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), library())
	c.from.image("library/one", "v1", "one")
	c.from.blob("library/one", []byte("stray"))
	const tag = "/v2/app/one/manifests/v1"
	stranger, secret := c.w.principal("stranger", c.w.id("otherone"), identity.RoleAcrPull)
	other := *c.host
	other.user, other.password = stranger.AppID, secret
	other.do(403, "GET", tag, nil)
	c.as("").do(401, "GET", tag, nil)
	c.change(func(r *meta.RegistryRow) { r.AnonymousPull = true })
	nobody := c.nobody("repository:app/one:pull")
	c.as(nobody).do(404, "GET", tag, nil)
	c.change(func(r *meta.RegistryRow) { r.PublicAccess, r.Exports = false, false })
	c.publicly().do(403, "GET", tag, nil)
	c.do(404, "GET", "/v2/app/one/blobs/"+string(name.DigestOf([]byte("stray"))), nil)
	c.asks(t)
	c.do(200, "GET", tag, nil) // a locked registry lets in what its operator lets it ask for
	c.do(404, "GET", "/v2/app/one/blobs/"+string(name.DigestOf([]byte("stray"))), nil)
	c.asks(t, "GET /v2/library/one/manifests/v1")
	c.as(nobody).do(200, "GET", tag, nil) // what is there is served
}

// nobody is an access token without a credential.
func (h *host) nobody(scope string) string {
	h.w.t.Helper()
	a := h.as("").do(200, "GET", "/oauth2/token?service="+h.row.LoginServer+"&scope="+scope, nil)
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(a.body, &token); err != nil || token.AccessToken == "" {
		h.w.t.Fatalf("no token for nobody: %s", a.body)
	}
	return token.AccessToken
}

// TestUpstreamIsNotTrusted: what does not have its digest or its size is not kept.
func TestUpstreamIsNotTrusted(t *testing.T) {
	t.Parallel()
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), library())
	for i, v := range []struct {
		what, path, body string
		status           int
	}{
		{"another manifest than the digest", "/manifests/", `{"schemaVersion":2,"mediaType":"` + mediaIndex + `","manifests":[]}`, 503},
		{"another blob", "/blobs/", "layer of two", 503},
		{"a blob that goes on", "/blobs/", "layer of one and more", 200}, // no more than its size is taken

		{"a blob that is short", "/blobs/", "layer", 503},
		{"no manifest", "/manifests/", "<html>", 503},
	} {
		t.Run(v.what, func(t *testing.T) {
			repo := fmt.Sprint("r", i)
			m := c.from.image("library/"+repo, "v1", "one")
			path := "/v2/app/" + repo + "/manifests/" + string(name.DigestOf(m))
			if v.path == "/blobs/" {
				c.do(200, "GET", path, nil)
				path = "/v2/app/" + repo + "/blobs/" + string(name.DigestOf([]byte("layer of one")))
			}
			c.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, v.path) {
					return false
				}
				w.Header().Set("Content-Type", mediaIndex)
				_, _ = w.Write([]byte(v.body)) // a client that has gone away is its own affair
				return true
			})
			before := c.w.count("blobs")
			c.do(v.status, "GET", path, nil)
			if n := c.w.count("blobs"); v.status == 503 && n != before || c.w.count("uploads") != 0 {
				t.Errorf("%d blobs and %d uploads are kept", n-before, c.w.count("uploads"))
			}
			c.answer(nil)
			c.do(200, "GET", path, nil)
		})
	}
}

// TestR10UpstreamsOwnHosts: a token is asked of the upstream's own hosts alone, and a redirect followed to those alone, though another host is listed for another upstream.
func TestR10UpstreamsOwnHosts(t *testing.T) {
	t.Parallel()
	elsewhere := newWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	cert, _ := authority(t)
	var heard atomic.Int64
	at := elsewhere.serve(network.DoorOptions{Zone: network.Zone{Kind: network.Private, Door: "elsewhere", Registry: "none"}, TLS: tlsOf(cert)},
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			heard.Add(1)
			_, _ = w.Write([]byte("layer of one"))
		}))
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), library(), upstream.Upstream{Host: at, Inside: true})
	c.from.image("library/one", "v1", "one")
	c.answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+at+`/oauth2/token",service="upstream"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	c.do(503, "GET", "/v2/app/one/manifests/v1", nil)
	c.answer(nil)
	c.do(200, "GET", "/v2/app/one/manifests/v1", nil)
	c.answer(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "https://"+at+"/content", http.StatusTemporaryRedirect)
		return true
	})
	c.do(503, "GET", "/v2/app/one/blobs/"+string(name.DigestOf([]byte("layer of one"))), nil)
	if n := heard.Load(); n != 0 {
		t.Errorf("the other host heard %d requests", n)
	}
}

// TestRedirectsOfAnUpstream: content comes from a host that is listed for the upstream's redirects, which gets no credential.
func TestRedirectsOfAnUpstream(t *testing.T) {
	t.Parallel()
	store := newWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	cert, roots := authority(t)
	var credentials atomic.Int64
	at := store.serve(network.DoorOptions{Zone: network.Zone{Kind: network.Private, Door: "store", Registry: "none"}, TLS: tlsOf(cert)},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				credentials.Add(1)
			}
			_, _ = w.Write([]byte("layer of one"))
		}))
	c := newCachingFrom(t, metatest.Open(t, metatest.URL(t, "sqlite")), library(), cert, roots, []string{at})
	c.from.image("library/one", "v1", "one")
	c.do(200, "GET", "/v2/app/one/manifests/v1", nil)
	c.answer(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "https://"+at+"/content", http.StatusTemporaryRedirect)
		return true
	})
	a := c.do(200, "GET", "/v2/app/one/blobs/"+string(name.DigestOf([]byte("layer of one"))), nil)
	if !bytes.Equal(a.body, []byte("layer of one")) || credentials.Load() != 0 {
		t.Errorf("the blob is %q; the store got %d credentials", a.body, credentials.Load())
	}
}

// TestUpstreamNotListed: an upstream that the operator has taken off the list is not asked, and the refusal is on record.
func TestUpstreamNotListed(t *testing.T) {
	t.Parallel()
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), upstream.Rule{Source: "elsewhere.example/library/*", Target: "app/*"})
	if a := c.do(403, "GET", "/v2/app/one/manifests/v1", nil); !strings.Contains(string(a.body), "not among the upstreams") {
		t.Errorf("refused with %s", a.body)
	}
	c.asks(t)
	deadline := time.Now().Add(10 * time.Second)
	for len(c.w.records(c.row.ID, func(r audit.Record) bool { return r.Route == "R10" && r.Outcome == audit.Refused })) != 1 {
		if time.Now().After(deadline) {
			t.Fatal("the refusal is not on record")
		}
	}
}

// TestRestoredCopyAsksNobody: while the installation runs on a copy that nobody has confirmed, upstreams are not asked, and what is there is served.
func TestRestoredCopyAsksNobody(t *testing.T) {
	t.Parallel()
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), library())
	c.from.image("library/one", "v1", "one")
	c.from.image("library/two", "v1", "two")
	c.do(200, "GET", "/v2/app/one/manifests/v1", nil)
	c.took()
	hold := func(held bool) {
		err := c.w.db.Write(t.Context(), func(tx *meta.Tx) error {
			_, err := tx.HoldRegistry(c.row.ID, held, 0)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	hold(true)
	if a := c.do(403, "GET", "/v2/app/two/manifests/v1", nil); !strings.Contains(string(a.body), "restored copy") {
		t.Errorf("refused with %s", a.body)
	}
	c.do(200, "GET", "/v2/app/one/manifests/v1", nil)
	c.asks(t)
	hold(false)
	c.do(200, "GET", "/v2/app/two/manifests/v1", nil)
}

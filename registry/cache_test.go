// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/registry"
	"github.com/embargo-registry/embargo/upstream"
)

// caching is a registry of one world that caches from one of another world, over TLS.
type caching struct {
	*host        // the registry that caches
	from  *host  // the upstream, by a plain door
	at    string // the upstream's address
	mu    sync.Mutex
	asked []string // what the upstream was asked, but for tokens
	// before may answer in the upstream's stead; it tells whether it did.
	before func(w http.ResponseWriter, r *http.Request) bool
}

// authority is a certificate for 127.0.0.1 and who vouches for it.
func authority(t *testing.T) (tls.Certificate, *x509.CertPool) {
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.TLS.Certificates[0], roots
}

func tlsOf(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }

func newCaching(t *testing.T, db *meta.DB, rule upstream.Rule, more ...upstream.Upstream) *caching {
	t.Helper()
	cert, roots := authority(t)
	return newCachingFrom(t, db, rule, cert, roots, nil, more...)
}

// newCachingFrom is newCaching with a certificate of the upstream and hosts that it may redirect to.
func newCachingFrom(t *testing.T, db *meta.DB, rule upstream.Rule, cert tls.Certificate, roots *x509.CertPool, redirects []string, more ...upstream.Upstream) *caching {
	t.Helper()
	c := &caching{}
	there := newWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	c.from = there.registry("upstreamone")
	c.at = there.serve(network.DoorOptions{Zone: network.Zone{Kind: network.Private, Door: "tls", Registry: "upstreamone"}, TLS: tlsOf(cert)},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.mu.Lock()
			before := c.before
			if r.URL.Path != "/oauth2/token" && r.Header.Get("Authorization") != "" {
				c.asked = append(c.asked, r.Method+" "+r.URL.Path)
			}
			c.mu.Unlock()
			if before == nil || !before(w, r) {
				there.oci.ServeHTTP(w, r)
			}
		}))
	list := append(more, upstream.Upstream{Host: c.at, Redirects: redirects, Inside: true})
	w := newWorld(t, db, func(o *registry.Options) {
		d := must[*dial.Dialer](t)(dial.New(dial.Options{Rules: upstream.Rules(list)}))
		o.Upstream = must[*upstream.Service](t)(upstream.New(upstream.Options{Dial: d, Upstreams: list, Roots: roots, Agent: "test"}))
	})
	c.host = w.registry("cacheone")
	rule.ID, rule.Registry, rule.Resource = "rule", c.row.ID, c.row.ResourceID+"/cacheRules/rule"
	const set = "/credentialSets/set"
	if strings.Contains(rule.Source, "UP") {
		rule.Source, rule.Credentials = strings.ReplaceAll(rule.Source, "UP", c.at), c.row.ResourceID+set
	}
	err := w.db.Write(context.Background(), func(tx *meta.Tx) error {
		if err := upstream.PutCredentials(tx, w.ring, "set", c.row.ResourceID+set, c.at, upstream.Credentials{User: c.from.user, Password: c.from.password}); err != nil {
			return err
		}
		return upstream.PutRule(tx, rule)
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// library maps app/* to library/* of the upstream.
func library() upstream.Rule { return upstream.Rule{Source: "UP/library/*", Target: "app/*"} }

// took is what the upstream was asked since the last time.
func (c *caching) took() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = nil
	return asked
}

func (c *caching) asks(t *testing.T, want ...string) {
	t.Helper()
	if got := c.took(); !slices.Equal(got, want) {
		t.Errorf("the upstream was asked %q, want %q", got, want)
	}
}

func (c *caching) answer(fn func(w http.ResponseWriter, r *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = fn
}

// out is an upstream that is out of order.
func out(w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusBadGateway)
	return true
}

// TestPullThrough: what a rule maps comes from the upstream when it is pulled, once, with the rule's credentials; it is kept like a push and recorded under R10; what is there is served when the
// upstream is out of order.
func TestPullThrough(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		c := newCaching(t, open(), library())
		m := c.from.image("library/one", "v1", "one")
		config, layer := []byte(`{"seed":"one"}`), []byte("layer of one")
		digest := string(name.DigestOf(m))
		first := c.do(200, "GET", "/v2/app/one/manifests/v1", nil)
		if !bytes.Equal(first.body, m) || first.Get("Docker-Content-Digest") != digest || first.Get("Content-Type") != mediaImage {
			t.Errorf("the manifest is %s, %v", first.body, first.Header)
		}
		c.asks(t, "GET /v2/library/one/manifests/v1")
		for _, b := range [][]byte{config, layer} {
			path := "/blobs/" + string(name.DigestOf(b))
			c.do(200, "HEAD", "/v2/app/one"+path, nil)
			c.asks(t, "GET /v2/library/one"+path)
			if got := c.do(200, "GET", "/v2/app/one"+path, nil); !bytes.Equal(got.body, b) {
				t.Errorf("the blob is %q", got.body)
			}
		}
		c.answer(out)
		for _, path := range []string{"manifests/v1", "manifests/" + digest, "blobs/" + string(name.DigestOf(layer))} {
			c.do(200, "GET", "/v2/app/one/"+path, nil)
		}
		c.asks(t)
		if a := c.do(503, "GET", "/v2/app/two/manifests/v1", nil); !strings.Contains(string(a.body), "could not be asked") {
			t.Errorf("what is not there, of an upstream out of order: %s", a.body)
		}
		c.answer(nil)
		c.do(404, "GET", "/v2/app/two/manifests/v1", nil)
		c.do(404, "GET", "/v2/library/one/manifests/v1", nil) // no rule maps it
		list := c.w.records(c.row.ID, func(r audit.Record) bool { return r.Route == "R10" })
		var kinds []string
		for _, r := range list {
			kinds = append(kinds, string(r.Kind)+" "+string(r.Outcome))
			if r.Caller.Name != "cacheone" || r.Kind == audit.Decision && !strings.HasPrefix(r.Reference, c.at+"/library/") {
				t.Errorf("recorded is %+v", r)
			}
		}
		slices.Sort(kinds)
		want := "change succeeded,change succeeded,change succeeded,decision aborted,decision allowed,decision allowed,decision allowed,decision allowed,decision allowed,decision completed,decision completed,decision completed,decision completed"
		if got := strings.Join(kinds, ","); got != want {
			t.Errorf("recorded is %s", got)
		}
	})
}

// TestIndexThrough: of an image with several platforms, what is pulled comes, and the rest does not.
func TestIndexThrough(t *testing.T) {
	t.Parallel()
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), upstream.Rule{Source: "UP/library/one", Target: "mine"})
	a, b := c.from.image("library/one", "", "a"), c.from.image("library/one", "", "b")
	index := indexOf(a, b)
	c.from.manifest("library/one", "multi", mediaIndex, index)
	c.do(200, "GET", "/v2/mine/manifests/"+string(name.DigestOf(index)), nil)
	c.do(200, "GET", "/v2/mine/manifests/"+string(name.DigestOf(a)), nil)
	c.asks(t, "GET /v2/library/one/manifests/"+string(name.DigestOf(index)), "GET /v2/library/one/manifests/"+string(name.DigestOf(a)))
	if n := c.w.count("manifests"); n != 2 {
		t.Errorf("%d manifests are kept", n)
	}
	config := []byte(`{"architecture":"arm64","os":"linux"}`)
	c.from.blob("library/one", config)
	c.from.manifest("library/one", "arm", mediaImage, imageOf("", config))
	c.do(200, "GET", "/v2/mine/manifests/arm", nil)
	c.do(200, "GET", "/v2/mine/blobs/"+string(name.DigestOf(config)), nil)
	if n := c.w.count("manifests WHERE architecture = 'arm64' AND os = 'linux'"); n != 1 {
		t.Errorf("%d manifests have their platform", n)
	}
}

// TestTagsAreAskedAgain: a tag that came from the upstream is asked for again when it is old, by HEAD; it moves with the upstream's, stays while the upstream is out of order, and one that was
// pushed here is left alone.
func TestTagsAreAskedAgain(t *testing.T) {
	t.Parallel()
	db, passed := metatest.Passing(t)
	c := newCaching(t, db, library())
	pull := func(want []byte, asked ...string) {
		t.Helper()
		if got := c.do(200, "GET", "/v2/app/one/manifests/v1", nil); !bytes.Equal(got.body, want) {
			t.Errorf("pulled is %s, want %s", got.body, want)
		}
		c.asks(t, asked...)
	}
	const head, get = "HEAD /v2/library/one/manifests/v1", "GET /v2/library/one/manifests/v1"
	one := c.from.image("library/one", "v1", "one")
	pull(one, get)
	passed.Add(int64(4 * time.Minute))
	pull(one)
	passed.Add(int64(2 * time.Minute))
	pull(one, head)
	pull(one)
	two := c.from.image("library/one", "v1", "two")
	passed.Add(int64(6 * time.Minute))
	c.answer(out)
	pull(one, head)
	pull(one) // not asked again at once
	c.answer(nil)
	passed.Add(int64(time.Minute))
	pull(two, head, get)
	c.from.do(202, "DELETE", "/v2/library/one/manifests/"+string(name.DigestOf(two)), nil)
	passed.Add(int64(6 * time.Minute))
	pull(two, head)
	mine := c.image("app/one", "v1", "mine")
	passed.Add(int64(6 * time.Minute))
	pull(mine)
}

// Cached content that a scrub found damaged is fetched again.
func TestDamagedCacheIsFetchedAgain(t *testing.T) {
	t.Parallel()
	c := newCaching(t, metatest.Open(t, metatest.URL(t, "sqlite")), library())
	manifest := c.from.image("library/one", "v1", "one")
	layer := []byte("layer of one")
	w := c.host.w
	for _, content := range [][]byte{layer, manifest} {
		at := "/v2/app/one/blobs/" + string(name.DigestOf(layer))
		if bytes.Equal(content, manifest) {
			at = "/v2/app/one/manifests/" + string(name.DigestOf(manifest))
		}
		c.do(200, "GET", "/v2/app/one/manifests/v1", nil)
		c.do(200, "GET", at, nil)
		for _, f := range w.files() {
			if is, err := os.ReadFile(f); err != nil || bytes.Equal(is, content) {
				if err := errors.Join(err, os.WriteFile(f, bytes.ToUpper(content), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
		}
		found, err := w.reg.Scrub(t.Context(), func(blob.Scrubbed) {})
		if err != nil || len(found.Damaged) != 1 {
			t.Fatalf("the scrub found %+v: %v", found, err)
		}
		if got := c.do(200, "GET", at, nil); !bytes.Equal(got.body, content) {
			t.Errorf("%q came", got.body)
		}
	}
}

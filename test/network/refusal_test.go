// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/embargo-registry/embargo/test/instance"
)

// Whatever is asked of a registry that refuses the caller's network has one answer, the service's, with or without credentials and whether what is asked for is there or not.
// A registry that does not exist has another.
func TestRefusalIsOne(t *testing.T) {
	h := newHouse(t, "")
	h.CreateRegistry("factory", nil)
	manifest, err := h.PushImage("factory", "app", "v1", []byte("cargo"))
	if err != nil {
		t.Fatal(err)
	}
	token := h.bearer("factory")
	there, absent := instance.Digest(manifest), instance.Digest([]byte("absent"))
	asked := []string{"GET /v2/", "HEAD /v2/", "GET /v2", "POST /v2/", "GET /v2/_catalog", "GET /acr/v1/_catalog", "GET /acr/v1/_deleted/_catalog", "GET /", "GET /v1/", "GET /favicon.ico", "DELETE /",
		"GET /oauth2/token", "POST /oauth2/token", "POST /oauth2/exchange", "GET /v2/app/manifests/%00", "GET /v2/APP/manifests/v1", "TRACE /v2/", "OPTIONS /v2/"}
	for _, repository := range []string{"app", "nothing/here"} {
		for _, what := range []string{"manifests/v1", "manifests/v2", "manifests/" + there, "manifests/" + absent, "blobs/" + instance.Digest([]byte("cargo")), "blobs/" + absent, "tags/list", "referrers/" + there} {
			asked = append(asked, "GET /v2/"+repository+"/"+what, "HEAD /v2/"+repository+"/"+what, "DELETE /v2/"+repository+"/"+what)
		}
		asked = append(asked, "PUT /v2/"+repository+"/manifests/v1", "POST /v2/"+repository+"/blobs/uploads/", "PATCH /v2/"+repository+"/blobs/uploads/1", "POST /v2/"+repository+"/blobs/uploads/?mount="+there+"&from=app",
			"GET /acr/v1/"+repository, "GET /acr/v1/"+repository+"/_tags/v1", "GET /acr/v1/"+repository+"/_manifests/"+there, "DELETE /acr/v1/"+repository, "PATCH /acr/v1/"+repository)
	}
	const want = `{"errors":[{"code":"DENIED","message":"client with IP '127.0.0.1' is not allowed access. Refer https://aka.ms/acr/firewall to grant access."}]}`
	for _, policy := range []instance.J{
		{"networkRuleSet": instance.J{"defaultAction": "Deny", "ipRules": []any{instance.J{"action": "Allow", "value": "203.0.113.7"}}}},
		{"publicNetworkAccess": "Disabled"},
	} {
		if a := h.Patch("factory", policy); a.Status != http.StatusOK {
			t.Fatal(a)
		}
		headers := map[string]string{}
		for _, q := range asked {
			for _, authorization := range []string{"", "Bearer " + token, "Bearer x", "Basic eDp5"} {
				method, path, _ := strings.Cut(q, " ")
				a, err := h.Do(method, "https://"+h.LoginServer("factory")+path, nil, "Authorization", authorization)
				body := want
				if method == http.MethodHead {
					body = ""
				}
				if got := strings.TrimSpace(string(a.Body)); err != nil || a.Status != http.StatusForbidden || strings.ReplaceAll(got, `\u0027`, "'") != body {
					t.Errorf("%s with %q: %v %d %.300s", q, authorization, err, a.Status, a.Body)
				}
				if seen := fmt.Sprint(names(a.Header)); headers[body] == "" {
					headers[body] = seen
				} else if headers[body] != seen {
					t.Errorf("%s with %q has the headers %s, and others have %s", q, authorization, seen, headers[body])
				}
			}
		}
	}
	for _, path := range []string{"/v2/", "/v2/app/manifests/v1", "/oauth2/token"} {
		a, err := h.Do(http.MethodGet, "https://"+h.LoginServer("nosuchregistry")+path, nil)
		if err != nil || a.Status != http.StatusNotFound || !strings.Contains(string(a.Body), "NAME_UNKNOWN") {
			t.Errorf("%s of no registry: %v %d %s", path, err, a.Status, a.Body)
		}
	}
}

// names are those of an answer's headers.
func names(h http.Header) (all []string) {
	for n := range h {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// A request of HTTP/2 that names one host in :authority and another in Host is served under neither.
func TestTwoHostsOfHTTP2(t *testing.T) {
	h := newHouse(t, "")
	public := h.Listening(t).Public
	ask := func(more ...string) string {
		c, err := tls.Dial("tcp", public, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, http2.ClientPreface)
		f := http2.NewFramer(c, c)
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		fields := append([]string{":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/metadata/endpoints?api-version=2022-09-01"}, more...)
		for i := 0; i < len(fields); i += 2 {
			if err := enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
				t.Fatal(err)
			}
		}
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if err := errors.Join(f.WriteSettings(), f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})); err != nil {
			t.Fatal(err)
		}
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if m, ok := frame.(*http2.MetaHeadersFrame); ok {
				return m.PseudoValue("status")
			}
		}
	}
	for want, more := range map[string][]string{"200": {"host", "LOCALHOST:443"}, "421": {"host", "factory.azurecr.localhost"}} {
		if got := ask(more...); got != want {
			t.Errorf("with %q it is answered %s, want %s", more, got, want)
		}
	}
}

// oneSession offers each server the same session.
type oneSession struct{ tls.ClientSessionCache }

func (o oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.ClientSessionCache.Get("") }
func (o oneSession) Put(_ string, s *tls.ClientSessionState)    { o.ClientSessionCache.Put("", s) }

// A TLS handshake for a name that is none of the installation's ends with the alert that says so, on public and private doors; it is counted and on record as a refusal.
func TestUnknownServerName(t *testing.T) {
	inside := instance.FreePort(t)
	h := newHouse(t, "privateListeners: [{address: \""+inside+"\", registry: factory}]\n")
	h.CreateRegistry("factory", nil)
	doors := map[string]string{"public": h.Listening(t).Public, "private/factory": inside}
	for door, at := range doors {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			_, err := tls.Dial("tcp", at, &tls.Config{ServerName: "example.com", InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
			if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%s, %s: %v", door, tls.VersionName(version), err)
			}
			// Nor does a session help that began under our name.
			c := &tls.Config{ServerName: "factory.azurecr.localhost", InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, ClientSessionCache: oneSession{tls.NewLRUClientSessionCache(1)}}
			resumed := false
			for range 2 {
				conn, err := tls.Dial("tcp", at, c)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: factory.azurecr.localhost\r\nConnection: close\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn) // the ticket comes with the answer
				resumed = conn.ConnectionState().DidResume
				_ = conn.Close()
			}
			c = c.Clone()
			c.ServerName = "example.com"
			if _, err := tls.Dial("tcp", at, c); !resumed || err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%s, %s, resumed (%v): %v", door, tls.VersionName(version), resumed, err)
			}
		}
		h.Recorded(t.Context(), "a refused handshake at "+door, func(r map[string]any) bool {
			return r["rule"] == "host" && r["outcome"] == "refused" && strings.Contains(fmt.Sprint(r["source"]), "zone:"+strings.Replace(door, "public", "public/public", 1))
		})
	}
	a := h.admin("/metrics")
	for _, want := range []string{`embargo_network_refusals_total{rule="host"} 8`, `embargo_connections_refused_total{door="public",reason="host"} 4`, `embargo_connections_refused_total{door="private/factory",reason="host"} 4`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (h *house) ours(host string) bool { return h.hosts.Lookup(host).Role != Foreign }

func (h *house) proxy(t *testing.T) *Door {
	return h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "proxy"}, TLS: TLS(h.hosts, h.authority, nil, nil), Connect: h.ours,
		HeaderTimeout: 2 * time.Second, MaxHeaderBytes: 8 << 10}, h.says())
}

// exchange writes raw bytes and reads one response.
func exchange(t *testing.T, address, raw string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, "" // the tunnel is open
	}
	body, _ := io.ReadAll(resp.Body)
	return resp, string(body)
}

func TestProxyOpensOwnNamesOnly(t *testing.T) {
	h := newHouse(t)
	d := h.proxy(t)
	for _, c := range []struct {
		request string
		status  int
	}{
		{"CONNECT localhost:8443 HTTP/1.1\r\nHost: localhost:8443\r\n\r\n", 200},
		{"CONNECT myregistry.azurecr.localhost:443 HTTP/1.0\r\n\r\n", 200},
		{"CONNECT myregistry.azurecr.localhost:1 HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"CONNECT MYREGISTRY.azurecr.localhost.:443 HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"CONNECT r.centralus.data.azurecr.localhost:443 HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"CONNECT [::1]:8443 HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"CONNECT login.microsoftonline.com:443 HTTP/1.1\r\nHost: localhost:8443\r\n\r\n", 403},
		{"CONNECT azurecr.localhost:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403},
		{"CONNECT evilazurecr.localhost:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403},
		{"CONNECT a.b.azurecr.localhost:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403},
		{"CONNECT x.azurecr.localhost.evil.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403},
		{"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n", 403},
		{"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 403},
		{"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 403},
		{"CONNECT localhost:8443 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 400},
		{"CONNECT localhost:8443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"nonsense\r\n\r\n", 400},
		{"CONNECT localhost:8443 HTTP/1.1\r\nX: " + strings.Repeat("a", 9<<10) + "\r\n\r\n", 400},
	} {
		resp, body := exchange(t, d.Addr().String(), c.request)
		if resp.StatusCode != c.status {
			t.Errorf("%.70q: status %d, want %d", c.request, resp.StatusCode, c.status)
		}
		if c.status == 403 && !strings.Contains(body, "Embargo installation") {
			t.Errorf("%.70q: the refusal does not say why: %q", c.request, body)
		}
	}
}

// The connection served is the client's own, so that its address is the client's and its zone the proxy's.
func TestProxyCarriesAddressAndZone(t *testing.T) {
	h := newHouse(t)
	d := h.proxy(t)
	c, err := net.Dial("tcp", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "CONNECT myregistry.azurecr.localhost:443 HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
	head := make([]byte, len("HTTP/1.1 200 Connection established\r\n\r\n"))
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	inner := tls.Client(c, &tls.Config{ServerName: "myregistry.azurecr.localhost", RootCAs: h.authority.Pool()})
	_, _ = io.WriteString(inner, "GET / HTTP/1.1\r\nHost: myregistry.azurecr.localhost\r\nConnection: close\r\n\r\n")
	all, err := io.ReadAll(inner)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("public/proxy||%s|true|HTTP/1.1", c.LocalAddr())
	if !strings.HasSuffix(string(all), want) {
		t.Errorf("got %q, want it to end in %q", all, want)
	}
	if body, _ := get(t, h.client(d.Addr().String()), "https://myregistry.azurecr.localhost/", nil); !strings.HasPrefix(body, "public/proxy||127.0.0.1:") {
		t.Errorf("through a real client: %s", body)
	}
}

// early is a connection whose first write is sent together with the CONNECT before it.
type early struct {
	net.Conn
	before []byte
}

func (e *early) Write(b []byte) (int, error) {
	if e.before != nil {
		both := append(e.before, b...)
		e.before = nil
		_, err := e.Conn.Write(both)
		return len(b), err
	}
	return e.Conn.Write(b)
}

// stripped is a reader that takes the proxy's answer away before TLS sees the stream.
type stripped struct {
	*early
	r *bufio.Reader
	n int
}

func (s *stripped) Read(b []byte) (int, error) {
	for s.n > 0 {
		n, err := s.r.Discard(s.n)
		s.n -= n
		if err != nil {
			return 0, err
		}
	}
	return s.r.Read(b)
}

// A client may send its first TLS record in the same segment as the CONNECT: those bytes belong to the tunnel.
func TestProxyKeepsBytesThatCameEarly(t *testing.T) {
	h := newHouse(t)
	d := h.proxy(t)
	c, err := net.Dial("tcp", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	e := &early{Conn: c, before: []byte("CONNECT localhost:1 HTTP/1.1\r\nHost: x\r\n\r\n")}
	inner := tls.Client(&stripped{e, bufio.NewReader(c), len("HTTP/1.1 200 Connection established\r\n\r\n")},
		&tls.Config{ServerName: "localhost", RootCAs: h.authority.Pool()})
	_, _ = io.WriteString(inner, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	all, err := io.ReadAll(inner)
	if err != nil || !strings.Contains(string(all), "public/proxy") {
		t.Errorf("%q, %v", all, err)
	}
}

// A connection that says nothing is closed after the header timeout.
func TestProxyDoesNotWaitForEver(t *testing.T) {
	h := newHouse(t)
	d := h.proxy(t)
	c, err := net.Dial("tcp", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "CONNECT localhost"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the proxy did not close the connection: %v", err)
	}
}

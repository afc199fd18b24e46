// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// house is a set of doors on free ports with an authority made for the test.
type house struct {
	doors     *Doors
	hosts     Hosts
	authority *Authority
}

func newHouse(t *testing.T) *house {
	t.Helper()
	hosts, err := NewHosts([]string{"localhost", "127.0.0.1", "::1"}, "azurecr.localhost")
	if err != nil {
		t.Fatal(err)
	}
	text, err := makeAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	i, err := parseIssuer(text)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{issuer: *i, hosts: hosts, clock: time.Now}
	doors, err := NewDoors(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &house{doors, hosts, a}
}

func (h *house) open(t *testing.T, o DoorOptions, handler http.Handler) *Door {
	t.Helper()
	d, err := h.doors.Listen(context.Background(), "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- d.Serve(handler) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return d
}

// says answers with what the doors know of the connection.
func (h *house) says() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := h.doors.Peer(r)
		_, _ = fmt.Fprintf(w, "%s|%s|%s|%v|%s", p.Zone, p.Registry, p.Addr, p.TLS, r.Proto)
	})
}

func (h *house) client(proxy string) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.authority.Pool()}, ForceAttemptHTTP2: true}
	if proxy != "" {
		tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})
	}
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func get(t *testing.T, c *http.Client, url string, change func(*http.Request)) (string, int) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body), resp.StatusCode
}

// The zone is the accepting socket's. Nothing a client can write into a request moves it.
func TestZoneComesFromTheSocketAlone(t *testing.T) {
	h := newHouse(t)
	public := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "public"}}, h.says())
	private := h.open(t, DoorOptions{Zone: Zone{Kind: Private, Door: "factory", Registry: "myregistry"}, Terminated: true}, h.says())
	headers := []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Real-IP", "X-Original-Forwarded-For",
		"Forwarded", "Via", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Zone", "X-Embargo-Zone", "X-Ms-Private-Endpoint", "X-Azure-ClientIP", "Proxy-Connection"}
	for _, header := range append([]string{"Host", ""}, headers...) {
		body, _ := get(t, h.client(""), "http://"+public.Addr().String(), func(r *http.Request) {
			switch header {
			case "":
			case "Host":
				r.Host = private.Addr().String()
			default:
				r.Header.Set(header, "for=10.0.0.1;private")
			}
		})
		if !strings.HasPrefix(body, "public/public||127.0.0.1:") || !strings.HasSuffix(body, "|false|HTTP/1.1") {
			t.Errorf("with header %q the connection became %s", header, body)
		}
	}
	if body, _ := get(t, h.client(""), "http://"+private.Addr().String(), nil); !strings.HasPrefix(body, "private/factory|myregistry|127.0.0.1:") || !strings.Contains(body, "|true|") {
		t.Errorf("private door: %s", body)
	}
}

// A PROXY header is no request here: without configuration nobody may speak for another address.
func TestProxyHeaderIsNotBelieved(t *testing.T) {
	h := newHouse(t)
	d := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "public"}}, h.says())
	c, err := net.Dial("tcp", d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestUnknownConnectionsAreNowhere(t *testing.T) {
	h := newHouse(t)
	r, _ := http.NewRequest(http.MethodGet, "http://localhost/", nil)
	r.RemoteAddr = "127.0.0.1:1"
	if p := h.doors.Peer(r); p == nil || p.Kind != Unknown || p.ID != "" {
		t.Errorf("%+v", p)
	}
	(&Peer{}).Reset()
	(*Peer)(nil).Reset()
	if _, err := h.doors.Listen(context.Background(), "127.0.0.1:0", DoorOptions{}); err == nil {
		t.Error("a door without a zone was opened")
	}
}

// A door answers for its own connections only, and the set forgets a connection when it ends.
func TestPeersOfOtherDoorsAndClosedConnections(t *testing.T) {
	h := newHouse(t)
	var first, second *Door
	seen := make(chan *Peer, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := second.Peer(r); p.Kind != Unknown {
			t.Errorf("the other door knows it: %+v", p)
		}
		// A clone of the request is still the same connection.
		seen <- first.Peer(r.Clone(context.Background()))
	})
	first = h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "a"}}, handler)
	second = h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "b"}}, handler)
	c := h.client("")
	get(t, c, "http://"+first.Addr().String(), nil)
	get(t, c, "http://"+first.Addr().String(), nil)
	p, again := <-seen, <-seen
	if p.ID == "" || p != again {
		t.Errorf("one connection is two peers: %+v, %+v", p, again)
	}
	c.CloseIdleConnections()
	select {
	case <-p.Gone():
	case <-time.After(10 * time.Second):
		t.Fatal("the connection's end was not noticed")
	}
	h.doors.mu.Lock()
	defer h.doors.mu.Unlock()
	if len(h.doors.live) != 0 {
		t.Errorf("%d closed connections are remembered", len(h.doors.live))
	}
}

// Reset throws away what the client has not received: it sees a reset, and fewer bytes than were written.
func TestResetDiscardsUnsentBytes(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			h := newHouse(t)
			full := make(chan *Peer)
			o := DoorOptions{Zone: Zone{Kind: Public, Door: "public"}}
			scheme := "http"
			if secure {
				o.TLS, scheme = TLS(h.hosts, h.authority, nil, nil), "https"
			}
			stopped := make(chan error, 1)
			d := h.open(t, o, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				go func() { full <- h.doors.Peer(r) }()
				block := make([]byte, 1<<20)
				for {
					if _, err := w.Write(block); err != nil {
						stopped <- err
						return
					}
				}
			}))
			c := h.client("")
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = false
			c.Transport.(*http.Transport).TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
			resp, err := c.Get(scheme + "://" + d.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			p := <-full
			p.Reset()
			p.Reset()
			if err := <-stopped; err == nil {
				t.Error("the writer went on")
			}
			if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client saw %v, want a connection reset", err)
			}
		})
	}
}

// What net/http writes plain responses to must be an io.ReaderFrom that is the socket's own, or files leave by copying.
func TestPlainConnectionsKeepSendfile(t *testing.T) {
	h := newHouse(t)
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var inner net.Conn
	d := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "public"}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		inner = c
		defer func() { _ = c.Close() }()
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = f.Close() }()
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", 4<<20)
		if n, err := c.(io.ReaderFrom).ReadFrom(f); n != 4<<20 || err != nil {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
	}))
	if body, _ := get(t, h.client(""), "http://"+d.Addr().String(), nil); len(body) != 4<<20 {
		t.Errorf("%d bytes came", len(body))
	}
	c, ok := inner.(*conn)
	if !ok || c.TCPConn == nil {
		t.Fatalf("net/http writes to a %T", inner)
	}
}

func TestProtocolsByServerName(t *testing.T) {
	h := newHouse(t)
	d := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "public"}, TLS: TLS(h.hosts, h.authority, nil, nil)}, h.says())
	for name, want := range map[string]string{
		"localhost": "h2", "127.0.0.1": "h2", "myregistry.azurecr.localhost": "http/1.1", "MyRegistry.AzureCR.localhost": "http/1.1",
		"myregistry.centralus.data.azurecr.localhost": "http/1.1",
	} {
		c, err := tls.Dial("tcp", d.Addr().String(), &tls.Config{ServerName: name, RootCAs: h.authority.Pool(), NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := c.ConnectionState().NegotiatedProtocol; got != want {
			t.Errorf("%s speaks %s, want %s", name, got, want)
		}
		_ = c.Close()
	}
	private := h.open(t, DoorOptions{Zone: Zone{Kind: Private, Door: "p", Registry: "mine"}, TLS: PrivateTLS(h.hosts, h.authority, nil)}, h.says())
	if body, _ := get(t, h.client(""), "https://"+private.Addr().String(), nil); !strings.HasSuffix(body, "|true|HTTP/1.1") {
		t.Errorf("a private door answered %s", body)
	}
	if c, err := tls.Dial("tcp", d.Addr().String(), &tls.Config{ServerName: "localhost", RootCAs: h.authority.Pool(), MaxVersion: tls.VersionTLS11}); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 was accepted")
	}
	if c, err := tls.Dial("tcp", d.Addr().String(), &tls.Config{ServerName: "example.com", InsecureSkipVerify: true}); err == nil {
		_ = c.Close()
		t.Error("a certificate was made for a foreign name")
	}
	body, _ := get(t, h.client(""), "https://"+d.Addr().String(), nil)
	if !strings.HasSuffix(body, "|true|HTTP/2.0") {
		t.Errorf("over HTTP/2 the peer is %s", body)
	}
}

func TestMintedNamesAreBounded(t *testing.T) {
	h := newHouse(t)
	for i := range mintedKept + 10 {
		name := fmt.Sprintf("r.region%d.data.azurecr.localhost", i)
		c, err := h.authority.Certificate(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: h.authority.Pool()}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(h.authority.minted); n > mintedKept {
		t.Errorf("%d certificates are kept", n)
	}
	one, _ := h.authority.Certificate("a.azurecr.localhost")
	two, _ := h.authority.Certificate("b.azurecr.localhost")
	if one != two {
		t.Error("the common certificate was made twice")
	}
	h.authority.clock = func() time.Time { return time.Now().Add(serverLife * 3 / 4) }
	three, _ := h.authority.Certificate("a.azurecr.localhost")
	if three == one || !three.Leaf.NotAfter.After(one.Leaf.NotAfter) {
		t.Error("a certificate near its end was not renewed")
	}
}

// Whoever chooses the connections to cut may wait for others who wait for the doors: a reload does.
func TestCutHoldsNobodyUp(t *testing.T) {
	h := newHouse(t)
	d := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "public"}}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	c := &http.Client{}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://" + d.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	asked := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Cut(func(*Peer) bool {
			asked++
			h.doors.Trust(nil)
			return false
		})
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the doors are locked while a connection is judged")
	}
	if asked != 1 {
		t.Errorf("%d connections were judged", asked)
	}
}

// A stop answers what is in flight and takes nothing new; when its time is over it cuts what is left.
func TestShutdownDrains(t *testing.T) {
	for _, patient := range []bool{true, false} {
		t.Run(fmt.Sprintf("patient=%v", patient), func(t *testing.T) {
			h := newHouse(t)
			entered, leave := make(chan struct{}), make(chan struct{})
			d, err := h.doors.Listen(context.Background(), "127.0.0.1:0", DoorOptions{Zone: Zone{Kind: Public, Door: "public"}})
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() {
				served <- d.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(entered)
					select {
					case <-leave:
					case <-r.Context().Done():
					}
					_, _ = io.WriteString(w, "whole")
				}))
			}()
			answer := make(chan error, 1)
			go func() {
				resp, err := h.client("").Get("http://" + d.Addr().String())
				if err == nil {
					var b []byte
					if b, err = io.ReadAll(resp.Body); err == nil && string(b) != "whole" {
						err = fmt.Errorf("got %q", b)
					}
					_ = resp.Body.Close()
				}
				answer <- err
			}()
			<-entered
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			down := make(chan error, 1)
			go func() { down <- d.Shutdown(ctx) }()
			for { // the listener is closed before anything is waited for
				c, err := net.Dial("tcp", d.Addr().String())
				if err != nil {
					break
				}
				_ = c.Close()
			}
			if !patient {
				cancel()
				if err := <-down; err == nil || !strings.Contains(err.Error(), "cut off") {
					t.Errorf("a cut was not told: %v", err)
				}
				if err := <-answer; err == nil {
					t.Error("the request was answered after the cut")
				}
			} else {
				close(leave)
				if err := <-answer; err != nil {
					t.Error(err)
				}
				if err := <-down; err != nil {
					t.Error(err)
				}
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

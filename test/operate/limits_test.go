// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// resident is the memory of the server's process, in bytes.
func resident(t *testing.T, s *instance.Server) int64 {
	t.Helper()
	var st struct{ PID int }
	if err := json.Unmarshal([]byte(must(t, s, "status", "--data", s.Data, "--output", "json")), &st); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", st.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// connected waits until the public listener has at most that many connections.
func connected(t *testing.T, s *instance.Server, most float64) {
	t.Helper()
	var got float64
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = sum(t, s, "embargo_connections", `door="public"`); got <= most {
			return
		}
	}
	t.Fatalf("%v connections are open, want %v at the most", got, most)
}

// Ten thousand idle connections cost memory that is bounded, and others are served as before. When they end, nothing of them stays.
func TestManyIdleConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	before := resident(t, s)
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	const all, dialers = 10000, 16
	idle := make([]net.Conn, all)
	var wg sync.WaitGroup
	address := strings.TrimPrefix(s.ResourceManager, "https://localhost")
	for d := range dialers {
		wg.Go(func() {
			config := &tls.Config{RootCAs: roots, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
			from := &tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(d+1))}}, Config: config}
			for i := d; i < all; i += dialers {
				c, err := from.DialContext(t.Context(), "tcp", "127.0.0.1"+address)
				if err != nil {
					t.Error(err)
					return
				}
				idle[i] = c
				if _, err := io.WriteString(c, "GET /metadata/endpoints?api-version=2015-01-01 HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
					t.Error(err)
					return
				}
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("connection %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if open := sum(t, s, "embargo_connections", `door="public"`); open < all {
		t.Fatalf("%v connections are open", open)
	}
	with := resident(t, s)
	t.Logf("%d MiB before, %d MiB with %d idle connections: %d KiB each", before>>20, with>>20, all, (with-before)>>10/all)
	if per := (with - before) / all; per > 80<<10 {
		t.Errorf("an idle connection takes %d bytes", per)
	}
	if _, err := s.PushImage(instance.Open, "app", "v1", []byte("a layer")); err != nil {
		t.Errorf("beside idle connections: %v", err)
	}
	for _, c := range idle {
		wg.Go(func() { _ = c.Close() })
	}
	wg.Wait()
	connected(t, s, 70) // the suite's own client keeps some
}

// Who sends a header byte by byte, or half a handshake, is cut off when a header's time is over, however many do so.
func TestSlowHeaders(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	public, proxy := s.Listening(t).Public, s.Listening(t).Proxy
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			address, say := public, "\x16\x03\x01" // a handshake's beginning
			switch i % 3 {
			case 1:
				address, say = proxy, "CONNECT "
			case 2:
				address, say = s.Listening(t).Admin, "GET / HTTP/1.1\r\nHost: x\r\nX: "
			}
			c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err != nil {
				if i%3 != 2 { // the administrator's listener has room for few
					t.Error(err)
				}
				return
			}
			defer func() { _ = c.Close() }()
			over, _ := ctx.Deadline()
			_ = c.SetReadDeadline(over)
			go func() {
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for err := error(nil); err == nil; <-tick.C {
					if len(say) > 0 {
						_, err = io.WriteString(c, say[:1])
						say = say[1:]
					} else {
						_, err = io.WriteString(c, "x")
					}
				}
			}()
			began := time.Now()
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s still waits after %v for the rest of %q", address, time.Since(began), say)
			}
		})
	}
	if _, err := s.PushImage(instance.Open, "app", "v1", []byte("a layer")); err != nil {
		t.Errorf("beside slow clients: %v", err)
	}
	wg.Wait()
}

// The listeners' limits are the configuration's: one connection too many is closed at once and counted, one request too many is told so.
func TestConfiguredLimits(t *testing.T) {
	s := instance.New(t, "sqlite", "maxConnections: 5\nmaxRequests: 1\nstallTimeout: 1s\n")
	u, err := url.Parse(s.ResourceManager)
	if err != nil {
		t.Fatal(err)
	}
	s.Client.CloseIdleConnections()
	connected(t, s, 0)
	var held []net.Conn
	for range 5 {
		c, err := net.Dial("tcp", "127.0.0.1:"+u.Port())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		held = append(held, c)
	}
	for sum(t, s, "embargo_connections", `door="public"`) < 5 {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Do(http.MethodGet, s.ResourceManager+"/metadata/endpoints?api-version=2015-01-01", nil); err == nil {
		t.Error("a sixth connection was served")
	}
	if n := sum(t, s, "embargo_connections_refused_total", `door="public"`, `reason="limit"`); n < 1 {
		t.Error("a refused connection was not counted")
	}
	for _, c := range held {
		_ = c.Close()
	}
	connected(t, s, 0)
	s.CreateRegistry(instance.Open, nil)
	a, err := s.OCI(instance.Open, "app", http.MethodPost, "/v2/app/blobs/uploads/", nil)
	if err != nil || a.Status != 202 {
		t.Fatalf("%v %d %s", err, a.Status, a.Body)
	}
	token, _, err := s.RegistryToken("https://"+s.LoginServer(instance.Open), s.LoginServer(instance.Open), s.ClientID, s.ClientSecret, "repository:app:pull,push")
	if err != nil {
		t.Fatal(err)
	}
	body, more := io.Pipe()
	r, err := http.NewRequest(http.MethodPatch, a.Header.Get("Location"), body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answered := make(chan string, 1)
	go func() {
		resp, err := s.Client.Do(r)
		if err != nil {
			answered <- err.Error()
			return
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		answered <- fmt.Sprint(resp.StatusCode, string(text))
	}()
	if _, err := io.WriteString(more, "a part, and no more"); err != nil {
		t.Fatal(err)
	}
	for sum(t, s, "embargo_http_requests_in_flight") < 1 {
		time.Sleep(time.Millisecond)
	}
	before := sum(t, s, "embargo_network_refusals_total", `rule="limit"`)
	if a, err := s.Do(http.MethodGet, s.ResourceManager+"/metadata/endpoints?api-version=2015-01-01", nil); err != nil || a.Status != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("a second request at a time: %v %d %s", err, a.Status, a.Body)
	}
	if n := sum(t, s, "embargo_network_refusals_total", `rule="limit"`); n != before+1 {
		t.Errorf("it is counted as %v refusals", n-before)
	}
	if got := <-answered; !strings.HasPrefix(got, "408") || !strings.Contains(got, "can be resumed") {
		t.Errorf("an upload that stalls: %s", got)
	}
	_ = more.Close()
	a, err = s.Do(http.MethodGet, a.Header.Get("Location"), nil, "Authorization", "Bearer "+token)
	if err != nil || a.Status != 204 {
		t.Errorf("the upload that stalled is gone: %v %d %s", err, a.Status, a.Body)
	}
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/network"
)

// safe is a log that may be read while it is written.
type safe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safe) Write(b []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(b) }
func (s *safe) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// fronted opens a door with a front whose two sides are the given handlers.
func fronted(t *testing.T, zone network.Zone, secure bool, management, data http.HandlerFunc) (*network.Door, *safe) {
	t.Helper()
	hosts, err := network.NewHosts([]string{"localhost", "127.0.0.1"}, "azurecr.localhost")
	if err != nil {
		t.Fatal(err)
	}
	doors, err := network.NewDoors(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := network.DoorOptions{Zone: zone}
	if secure {
		ts := httptest.NewUnstartedServer(nil)
		ts.StartTLS() // for its certificate
		ts.Close()
		o.TLS = &tls.Config{Certificates: ts.TLS.Certificates, NextProtos: []string{"http/1.1"}}
	}
	door, err := doors.Listen(context.Background(), "127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	log := &safe{}
	f := &front{hosts: hosts, door: door, log: slog.New(slog.NewTextHandler(log, nil)), management: management, data: data, metrics: newMetrics("test"), limits: &limits{}}
	f.limits.set(Options{MaxRequests: 100, StallTimeout: time.Minute})
	done := make(chan error, 1)
	go func() { done <- door.Serve(f) }()
	t.Cleanup(func() {
		_ = door.Shutdown(context.Background())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return door, log
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func TestHostRules(t *testing.T) {
	public, _ := fronted(t, network.Zone{Kind: network.Public, Door: "public"}, true, says("management"), says("data"))
	private, _ := fronted(t, network.Zone{Kind: network.Private, Door: "p", Registry: "mine"}, true, says("management"), says("data"))
	for _, c := range []struct {
		door      *network.Door
		sni, host string
		status    int
		body      string
	}{
		{public, "localhost", "localhost:8443", 200, "management"},
		{public, "", "127.0.0.1:8443", 200, "management"},
		{public, "mine.azurecr.localhost", "MINE.azurecr.localhost.:443", 200, "data"},
		{public, "mine.eastus.data.azurecr.localhost", "mine.eastus.data.azurecr.localhost", 200, "data"},
		{public, "mine.azurecr.localhost", "other.azurecr.localhost", 421, `{"errors":[{"code":"`},
		{public, "mine.azurecr.localhost", "localhost", 421, `{"error":{"code":"MisdirectedRequest"`},
		{public, "localhost", "mine.azurecr.localhost", 421, `{"errors":[{"code":"`},
		{public, "", "mine.azurecr.localhost", 421, `{"errors":[{"code":"`},
		{public, "localhost", "example.com", 421, "example.com"},
		{public, "example.com", "example.com", 421, "example.com"},
		{public, "mine.azurecr.localhost", "mine.azurecr.localhost.example.com", 421, ""},
		{private, "localhost", "localhost", 200, "data"},
		{private, "", "10.1.2.3", 200, "data"},
		{private, "mine.azurecr.localhost", "other.azurecr.localhost", 200, "data"},
		{private, "example.com", "example.com", 200, "data"},
	} {
		conn, err := tls.Dial("tcp", c.door.Addr().String(), &tls.Config{ServerName: c.sni, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		status, body := speak(t, conn, "GET / HTTP/1.1\r\nHost: "+c.host+"\r\nConnection: close\r\n\r\n")
		if status != c.status || !strings.Contains(body, c.body) {
			t.Errorf("SNI %q, Host %q: %d %s; want %d %s", c.sni, c.host, status, body, c.status, c.body)
		}
	}
}

// speak writes a request and reads the answer to the connection's end.
func speak(t *testing.T, conn net.Conn, request string) (int, string) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	var status int
	if _, err := fmt.Sscanf(string(all), "HTTP/1.1 %d", &status); err != nil {
		t.Fatalf("%v in %q", err, all)
	}
	_, body, _ := strings.Cut(string(all), "\r\n\r\n")
	return status, body
}

// A panic is a 500 with an id that the log has, its text stays inside, and the server goes on.
func TestPanics(t *testing.T) {
	fail := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.Header().Set("Docker-Content-Digest", "sha256:secret")
			fill := func(m map[string]int) { m["secret text"] = 1 }
			fill(nil)
		case "/late":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			var none []int
			_ = none[len(r.URL.Path)]
		}
		_, _ = io.WriteString(w, "fine")
	}
	door, log := fronted(t, network.Zone{Kind: network.Public, Door: "public"}, false, fail, fail)
	base := "http://" + door.Addr().String()
	resp, err := http.Get(base + "/early")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	id := resp.Header.Get("X-Ms-Request-Id")
	var wire struct {
		Error struct{ Code, Message string } `json:"error"`
	}
	if err := json.Unmarshal(text, &wire); err != nil || resp.StatusCode != 500 || id == "" || !strings.Contains(wire.Error.Message, id) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	if strings.Contains(string(text), "nil map") || strings.Contains(string(text), "secret") || resp.Header.Get("Docker-Content-Digest") != "" {
		t.Errorf("the cause leaked: %s", text)
	}
	if got := log.String(); !strings.Contains(got, id) || !strings.Contains(got, "nil map") || !strings.Contains(got, "front_test.go") {
		t.Errorf("the log does not tell: %s", got)
	}
	resp, err = http.Get(base + "/late")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("an answer that broke off looks whole")
	}
	_ = resp.Body.Close()
	if resp, err = http.Get(base + "/fine"); err != nil || resp.StatusCode != 200 {
		t.Errorf("after the panics: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
}

// No header and no query reaches the log: tokens and passwords stand there.
func TestRequestLogKeepsSecretsOut(t *testing.T) {
	door, log := fronted(t, network.Zone{Kind: network.Public, Door: "public"}, false, says("ok"), says("ok"))
	r, err := http.NewRequest(http.MethodGet, "http://"+door.Addr().String()+"/a/path?access_token=hunter2", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer hunter2")
	r.Header.Set("Cookie", "hunter2")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	line := ""
	for end := time.Now().Add(5 * time.Second); line == "" && time.Now().Before(end); time.Sleep(time.Millisecond) {
		line = log.String() // the line is written after the answer
	}
	if !strings.Contains(line, "path=/a/path") || !strings.Contains(line, "status=200") || !strings.Contains(line, "zone=public/public") {
		t.Errorf("the line is %q", line)
	}
	if strings.Contains(line, "hunter2") {
		t.Errorf("a secret is in the log: %s", line)
	}
}

// Below the front a file still reaches the socket's own ReadFrom.
func TestFrontKeepsReaderFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	door, _ := fronted(t, network.Zone{Kind: network.Public, Door: "public"}, false, func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = f.Close() }()
		to, ok := w.(io.ReaderFrom)
		if !ok {
			t.Error("the writer is no io.ReaderFrom")
			return
		}
		if n, err := to.ReadFrom(f); n != 1<<20 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}, says(""))
	resp, err := http.Get("http://" + door.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

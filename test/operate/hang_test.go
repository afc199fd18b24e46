// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// line forwards connections to a server, and nothing of them while it is held.
type line struct {
	address string
	mu      sync.RWMutex // held for writing while nothing passes
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &line{address: l.Addr().String()}
	t.Cleanup(func() { _ = l.Close() })
	pass := func(dst, src net.Conn) {
		piece := make([]byte, 32<<10)
		for {
			n, err := src.Read(piece)
			w.mu.RLock()
			_, failed := dst.Write(piece[:n])
			w.mu.RUnlock()
			if err != nil || failed != nil {
				_, _ = dst.Close(), src.Close()
				return
			}
		}
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			go pass(out, in)
			go pass(in, out)
		}
	}()
	return w
}

// TestDatabaseHangs: once a database that does not answer has cost the node its lease, nobody waits for it: requests are answered at once, with what is wrong, until it answers again.
func TestDatabaseHangs(t *testing.T) {
	u, err := url.Parse(metatest.URL(t, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	w := newLine(t, u.Host)
	u.Host = w.address
	s := instance.At(t, filepath.Join(t.TempDir(), "data"), u.String(), "")
	s.Start()
	s.CreateRegistry(instance.Open, nil)
	ask := func(target string) (status int, body string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body) // a body that is cut short lacks what is looked for
		return resp.StatusCode, string(b)
	}
	until := func(want int, contains string, targets ...string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for _, target := range targets {
			for {
				status, body := ask(target)
				if status == want && strings.Contains(body, contains) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %d %s, want %d", target, status, body, want)
				}
			}
		}
	}
	ping, arm := "https://"+s.LoginServer(instance.Open)+"/v2/", s.ResourceManager+"/subscriptions?api-version=2022-12-01"
	until(401, "", ping, arm)
	w.mu.Lock()
	until(503, "lease", ping, arm)
	w.mu.Unlock()
	until(401, "", ping, arm)
}

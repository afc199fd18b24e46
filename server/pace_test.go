// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/network"
)

// paceDoor opens a door whose requests are bounded so, and may speak HTTP/2.
func paceDoor(t *testing.T, o Options, handler http.HandlerFunc) (*network.Door, *front) {
	t.Helper()
	hosts, err := network.NewHosts([]string{"localhost", "127.0.0.1"}, "azurecr.localhost")
	if err != nil {
		t.Fatal(err)
	}
	doors, err := network.NewDoors(nil)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS() // for its certificate
	ts.Close()
	door, err := doors.Listen(context.Background(), "127.0.0.1:0", network.DoorOptions{Zone: network.Zone{Kind: network.Public, Door: "public"},
		TLS: &tls.Config{Certificates: ts.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}})
	if err != nil {
		t.Fatal(err)
	}
	f := &front{hosts: hosts, door: door, log: slog.New(slog.DiscardHandler), management: handler, data: handler, metrics: newMetrics("test"), limits: &limits{}}
	f.limits.set(o)
	done := make(chan error, 1)
	go func() { done <- door.Serve(f) }()
	t.Cleanup(func() {
		_ = door.Shutdown(context.Background())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return door, f
}

// caller speaks HTTP/1.1 or HTTP/2 to any certificate.
func caller(t *testing.T, h2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// drops is a body that comes in drops.
type drops struct {
	left  int
	every time.Duration
}

func (d *drops) Read(b []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	d.left--
	time.Sleep(d.every) // the client's slowness is what is tested
	return copy(b, "drop"), nil
}

// swallow reads the whole body, and answers an error as the registry does.
func swallow(ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		ended <- err
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestTimeout)
			return
		}
		_, _ = fmt.Fprint(w, n)
	}
}

// A body that stops, or that comes in drops, is given up with 408; one that comes slowly and steadily, and a handler that takes its time, are not.
func TestSlowBodies(t *testing.T) {
	const stall = 200 * time.Millisecond
	for _, h2 := range []bool{false, true} {
		for name, c := range map[string]struct {
			body   io.Reader
			status int
			words  string
		}{
			"stops":           {silent(64 << 10), 408, "No more of the request's body came"},
			"never begins":    {silent(0), 408, "No more of the request's body came"},
			"drops":           {&drops{100000, stall / 20}, 408, "less than 1024 bytes a second"},
			"slow and steady": {io.MultiReader(strings.NewReader(strings.Repeat("x", 8<<10)), &drops{10, stall / 4}), 200, fmt.Sprint(8<<10 + 40)},
			"at once":         {strings.NewReader("all"), 200, "3"},
		} {
			t.Run(fmt.Sprintf("%s h2=%v", name, h2), func(t *testing.T) {
				t.Parallel()
				ended := make(chan error, 1)
				door, _ := paceDoor(t, Options{MaxRequests: 10, StallTimeout: stall}, swallow(ended))
				resp, err := caller(t, h2).Post("https://"+door.Addr().String()+"/", "application/octet-stream", c.body)
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != c.status || !strings.Contains(string(text), c.words) {
					t.Errorf("%d %s", resp.StatusCode, text)
				}
				if err := <-ended; (err != nil) != (c.status != 200) {
					t.Errorf("the handler read to %v", err)
				}
			})
		}
	}
}

// silence is a body of which no more comes than its beginning.
type silence struct {
	io.Reader
	closed chan struct{}
	once   sync.Once
}

func silent(after int) *silence {
	return &silence{Reader: strings.NewReader(strings.Repeat("x", after)), closed: make(chan struct{})}
}

func (s *silence) Read(b []byte) (int, error) {
	if n, err := s.Reader.Read(b); err == nil {
		return n, nil
	}
	<-s.closed
	return 0, io.EOF
}

func (s *silence) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// A client that stops to read is dropped, its handler ends, and its connection is gone.
func TestStoppedReaders(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			door, _ := paceDoor(t, Options{MaxRequests: 10, StallTimeout: 200 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
				for block := make([]byte, 1<<20); ; {
					if _, err := w.Write(block); err != nil {
						ended <- err
						return
					}
				}
			})
			resp, err := caller(t, h2).Get("https://" + door.Addr().String() + "/")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the handler wrote without an end")
				}
			case <-time.After(30 * time.Second):
				t.Fatal("who reads nothing is waited for")
			}
			if _, err := io.Copy(io.Discard, resp.Body); err == nil {
				t.Error("the answer looks whole")
			}
		})
	}
}

// A handler that thinks longer than a stall lasts, and a reader that pauses for less, keep their exchange and their connection.
func TestPatience(t *testing.T) {
	const stall = 300 * time.Millisecond
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			t.Parallel()
			door, _ := paceDoor(t, Options{MaxRequests: 10, StallTimeout: stall}, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(w, "begun")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(3 * stall) // the handler's slowness is what is tested
				_, _ = io.WriteString(w, " and done")
			})
			c := caller(t, h2)
			for range 2 { // on one connection
				resp, err := c.Post("https://"+door.Addr().String()+"/", "text/plain", strings.NewReader("all of it"))
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(resp.Body)
				if err = errors.Join(err, resp.Body.Close()); err != nil || string(text) != "begun and done" {
					t.Errorf("%q, %v", text, err)
				}
			}
			if door.Open() != 1 {
				t.Errorf("%d connections are open", door.Open())
			}
		})
	}
}

// Beyond maxRequests the answer is 429 with Retry-After in the host's envelope; places come back however a request ends.
func TestMaxRequests(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	door, f := paceDoor(t, Options{MaxRequests: 2, StallTimeout: time.Minute}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/wait":
			entered <- struct{}{}
			<-leave
		case "/panic":
			panic("on purpose")
		}
	})
	base := "https://" + door.Addr().String()
	get := func(path string) *http.Response {
		resp, err := caller(t, false).Get(base + path)
		if err != nil {
			t.Error(err)
			return &http.Response{}
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		resp.Body = io.NopCloser(strings.NewReader(string(text)))
		return resp
	}
	for range 5 {
		if got := get("/panic").StatusCode; got != 500 {
			t.Errorf("a panic: %d", got)
		}
	}
	waited := make(chan int, 2)
	for range 2 {
		go func() { waited <- get("/wait").StatusCode }()
		<-entered
	}
	resp := get("/")
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || !strings.Contains(string(text), `"code":"TooManyRequests"`) || !strings.Contains(string(text), "maxRequests") {
		t.Errorf("one too many: %d %v %s", resp.StatusCode, resp.Header, text)
	}
	f.limits.set(Options{MaxRequests: 3, StallTimeout: time.Minute})
	if got := get("/").StatusCode; got != 200 {
		t.Errorf("under a higher limit: %d", got)
	}
	f.limits.set(Options{MaxRequests: 2, StallTimeout: time.Minute})
	close(leave)
	for range 2 {
		if got := <-waited; got != 200 {
			t.Errorf("a request that was there: %d", got)
		}
	}
	if got := get("/").StatusCode; got != 200 {
		t.Errorf("when places are free again: %d", got)
	}
	if n := f.limits.answered.Load(); n != 0 {
		t.Errorf("%d requests are counted, and none is there", n)
	}
}

// An answer does not wait for the rest of a body that nobody reads.
func TestUnreadBodies(t *testing.T) {
	for _, writes := range []bool{false, true} {
		door, _ := paceDoor(t, Options{MaxRequests: 2, StallTimeout: 200 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
			if writes {
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, "no")
			}
		})
		c, err := tls.Dial("tcp", door.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nten bytes."); err != nil {
			t.Fatal(err)
		}
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Errorf("writes=%v: %v", writes, err)
		} else if resp.StatusCode != 200 && !writes || resp.StatusCode != 403 && writes {
			t.Errorf("writes=%v: %s", writes, resp.Status)
		}
		_ = c.Close()
	}
}

// A kept-alive connection on which a body stalled does not poison what follows: it is closed.
func TestStalledConnectionIsClosed(t *testing.T) {
	ended := make(chan error, 1)
	door, _ := paceDoor(t, Options{MaxRequests: 2, StallTimeout: 100 * time.Millisecond}, swallow(ended))
	c, err := tls.Dial("tcp", door.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nten bytes."); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 408 {
		t.Fatalf("%v, %v", resp, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection stands: %v", err)
	}
}

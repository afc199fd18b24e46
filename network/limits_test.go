// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// line is one client connection, written and read by hand.
type line struct {
	*net.TCPConn
	in *bufio.Reader
}

// dialFrom connects from a loopback address.
func dialFrom(t *testing.T, from string, d *Door) *line {
	t.Helper()
	c, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(from)}, net.TCPAddrFromAddrPort(d.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &line{c, bufio.NewReader(c)}
}

// ask makes one exchange and keeps the connection.
func (l *line) ask(request string) error {
	if _, err := io.WriteString(l, request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

const hello = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

// closed reports that the other side has closed or reset the connection.
func (l *line) closed(t *testing.T) {
	t.Helper()
	if n, err := l.in.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection was not closed: %d, %v", n, err)
	}
}

// until waits until the door has n connections.
func until(t *testing.T, d *Door, n int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); d.Open() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are open, want %d", d.Open(), n)
		}
	}
}

func fine(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") }

// A full door closes what comes at once, says so, and takes a new connection as soon as one has ended.
func TestFullDoor(t *testing.T) {
	h := newHouse(t)
	refused := make(chan string, 1)
	d := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "public"}, Limits: Limits{MaxConnections: 3},
		Refused: func(z Zone, _ netip.AddrPort, reason string) { refused <- z.Door + " " + reason }}, http.HandlerFunc(fine))
	var all []*line
	for range 3 {
		l := dialFrom(t, "127.0.0.1", d)
		if err := l.ask(hello); err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	dialFrom(t, "127.0.0.1", d).closed(t)
	if got := <-refused; got != "public limit" {
		t.Errorf("it was refused as %q", got)
	}
	for _, l := range all {
		if err := l.ask(hello); err != nil {
			t.Errorf("a connection that was there: %v", err)
		}
	}
	_ = all[0].Close()
	until(t, d, 2)
	if err := dialFrom(t, "127.0.0.1", d).ask(hello); err != nil {
		t.Errorf("a place that became free: %v", err)
	}
	d.Limit(Limits{MaxConnections: 1})
	if err := all[1].ask(hello); err != nil {
		t.Errorf("a lower limit cut a connection: %v", err)
	}
	dialFrom(t, "127.0.0.1", d).closed(t)
	<-refused
	d.Limit(Limits{MaxConnections: 4})
	if err := dialFrom(t, "127.0.0.1", d).ask(hello); err != nil {
		t.Errorf("under a higher limit: %v", err)
	}
}

// What is no request, and what does not speak TLS where it must, is heard of once. Who is served, says nothing or is cut off is not.
func TestRefusedByHTTP(t *testing.T) {
	h := newHouse(t)
	refused := make(chan string, 100)
	hears := func(z Zone, _ netip.AddrPort, reason string) { refused <- z.Door + " " + reason }
	plain := h.open(t, DoorOptions{Zone: Zone{Kind: Private, Door: "plain", Registry: "r"}, HeaderTimeout: time.Second, Refused: hears}, http.HandlerFunc(fine))
	secure := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "secure"}, TLS: TLS(h.hosts, h.authority, nil, nil), Refused: hears}, http.HandlerFunc(fine))

	served := dialFrom(t, "127.0.0.1", plain)
	for range 2 {
		if err := served.ask(hello); err != nil {
			t.Fatal(err)
		}
	}
	_ = served.Close()
	_ = dialFrom(t, "127.0.0.1", plain).Close()
	dialFrom(t, "127.0.0.1", plain).closed(t) // it says nothing until it is given up
	for _, two := range []bool{true, false} {
		c := h.client("")
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = two
		if _, status := get(t, c, fmt.Sprintf("https://localhost:%d", secure.Addr().Port()), nil); status != http.StatusOK {
			t.Fatal(status)
		}
		c.CloseIdleConnections()
	}
	cut := dialFrom(t, "127.0.0.1", plain)
	_, _ = io.WriteString(cut, hello[:20])
	for there := false; !there; time.Sleep(time.Millisecond) {
		plain.Cut(func(*Peer) bool { there = true; return true })
	}
	cut.closed(t)

	heard := func() string {
		select {
		case s := <-refused:
			return s
		case <-time.After(20 * time.Second):
			return "nothing"
		}
	}
	for _, c := range []struct {
		d           *Door
		says, heard string
	}{
		{plain, "GET / HTTP/1.1\r\n\r\n", "plain request"},
		{plain, hello[:20], "plain request"}, // and nothing more
		{plain, hello + "GET / HTTP/1.1\r\n\r\n", "plain request"},
		{plain, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "plain request"},
		{plain, "GET / HTTP/1.1\r\nHost: a\r\nExpect: else\r\n\r\n", "plain request"},
		{secure, hello, "secure tls"},
		{secure, "\x00", "secure tls"},
	} {
		for _, before := range []int{0, 1, 2} { // what is kept alive counts as well
			l := dialFrom(t, "127.0.0.1", c.d)
			for range before {
				if c.d == plain {
					if err := l.ask(hello); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, _ = io.WriteString(l, c.says)
			_ = l.CloseWrite()
			if got := heard(); got != c.heard {
				t.Errorf("%q is refused as %q, want %q", c.says, got, c.heard)
			}
		}
	}
	for n := range 50 {
		l := tls.Client(dialFrom(t, "127.0.0.1", secure), &tls.Config{ServerName: "localhost", RootCAs: h.authority.Pool()})
		in := bufio.NewReader(l)
		for range n % 3 {
			_, _ = io.WriteString(l, hello)
			resp, err := http.ReadResponse(in, nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatal(resp, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		_, _ = io.WriteString(l, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Fatal(resp, err)
		}
		if got := heard(); got != "secure request" {
			t.Fatalf("a request of two hosts behind %d good ones is refused as %q", n%3, got)
		}
		_ = l.Close()
	}
	if len(refused) > 0 {
		t.Errorf("and %q", <-refused)
	}
}

// However a connection to the proxy ends, and at whatever stage, it counts no longer.
func TestTunnelsAreCountedUntilTheyEnd(t *testing.T) {
	h := newHouse(t)
	d := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "proxy"}, Connect: func(host string) bool { return host == "ours:443" }, HeaderTimeout: 300 * time.Millisecond},
		http.HandlerFunc(fine))
	for stage, say := range map[string]string{
		"nothing": "", "half a line": "CONN", "no HTTP": "hello\r\n\r\n", "another method": hello, "a foreign host": "CONNECT theirs:443 HTTP/1.1\r\nHost: theirs:443\r\n\r\n",
		"a body": "CONNECT ours:443 HTTP/1.1\r\nHost: ours:443\r\nContent-Length: 3\r\n\r\nabc", "a tunnel": "CONNECT ours:443 HTTP/1.1\r\nHost: ours:443\r\n\r\n",
		"a request in a tunnel": "CONNECT ours:443 HTTP/1.1\r\nHost: ours:443\r\n\r\n" + hello,
	} {
		for _, reset := range []bool{false, true} {
			l := dialFrom(t, "127.0.0.1", d)
			if _, err := io.WriteString(l, say); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(say, "\r\n\r\n") { // an answer comes
				if _, err := http.ReadResponse(l.in, &http.Request{Method: http.MethodConnect}); err != nil {
					t.Errorf("%s: %v", stage, err)
				}
			}
			if reset {
				_ = l.SetLinger(0)
			}
			_ = l.Close()
		}
	}
	silent := dialFrom(t, "127.0.0.1", d)
	silent.in = bufio.NewReader(silent)
	_, _ = io.Copy(io.Discard, silent.in) // who says nothing is sent away
	until(t, d, 0)
	h.doors.mu.Lock()
	defer h.doors.mu.Unlock()
	if n := len(h.doors.live); n != 0 {
		t.Errorf("%d connections are remembered", n)
	}
}

// Only a door's clients may connect to it.
func TestClientsOfADoor(t *testing.T) {
	for _, c := range []struct {
		clients string
		from    string
		ok      bool
	}{
		{"", "127.0.0.1", true},
		{"127.0.0.1/32", "127.0.0.1", true},
		{"127.0.0.1/32", "127.0.0.2", false},
		{"10.0.0.0/8 127.0.0.0/30", "127.0.0.3", true},
		{"10.0.0.0/8 127.0.0.0/30", "127.0.0.4", false},
		{"::ffff:127.0.0.2/128", "127.0.0.2", true},
		{"::ffff:127.0.0.2/128", "127.0.0.1", false},
		{"::/0", "127.0.0.1", false},
		{"::1/128", "127.0.0.1", false},
	} {
		h := newHouse(t)
		var l Limits
		for _, p := range strings.Fields(c.clients) {
			l.Clients = append(l.Clients, netip.MustParsePrefix(p))
		}
		refused := make(chan string, 1)
		d := h.open(t, DoorOptions{Zone: Zone{Kind: Private, Door: "p", Registry: "mine"}, Limits: l, Refused: func(_ Zone, _ netip.AddrPort, reason string) { refused <- reason }}, http.HandlerFunc(fine))
		from := dialFrom(t, c.from, d)
		if c.ok {
			if err := from.ask(hello); err != nil {
				t.Errorf("%s from %s: %v", c.clients, c.from, err)
			}
			continue
		}
		from.closed(t)
		if got := <-refused; got != "client" {
			t.Errorf("%s from %s was refused as %q", c.clients, c.from, got)
		}
		until(t, d, 0)
	}
}

// New limits reset the connections of clients that may no longer connect, a download in flight too, and no others.
func TestNarrowedClients(t *testing.T) {
	h := newHouse(t)
	begun := make(chan struct{}, 2)
	d := h.open(t, DoorOptions{Zone: Zone{Kind: Private, Door: "p", Registry: "mine"}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/endless" {
			fine(w, r)
			return
		}
		begun <- struct{}{}
		for block := make([]byte, 1<<20); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	kept, gone, idle := dialFrom(t, "127.0.0.1", d), dialFrom(t, "127.0.0.2", d), dialFrom(t, "127.0.0.2", d)
	for _, l := range []*line{kept, gone, idle} {
		if err := l.ask(hello); err != nil {
			t.Fatal(err)
		}
	}
	endless := "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for _, l := range []*line{kept, gone} {
		if _, err := io.WriteString(l, endless); err != nil {
			t.Fatal(err)
		}
		<-begun
	}
	d.Limit(Limits{Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	if n, err := io.Copy(io.Discard, gone.in); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who may no longer connect read %d bytes and then met %v", n, err)
	}
	idle.closed(t)
	if _, err := io.CopyN(io.Discard, kept.in, 64<<20); err != nil {
		t.Errorf("who may connect was cut: %v", err)
	}
	dialFrom(t, "127.0.0.2", d).closed(t)
	d.Limit(Limits{})
	if err := dialFrom(t, "127.0.0.2", d).ask(hello); err != nil {
		t.Errorf("widened again: %v", err)
	}
	_ = kept.SetLinger(0)
	_ = kept.Close()
}

// A door that is stopped resets what is in flight and what is idle; other doors hear nothing of it.
func TestStop(t *testing.T) {
	h := newHouse(t)
	begun := make(chan struct{})
	other := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "public"}}, http.HandlerFunc(fine))
	d, err := h.doors.Listen(context.Background(), "127.0.0.1:0", DoorOptions{Zone: Zone{Kind: Private, Door: "p", Registry: "mine"}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- d.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			begun <- struct{}{}
			<-r.Context().Done()
		}))
	}()
	there, busy, idle := dialFrom(t, "127.0.0.1", other), dialFrom(t, "127.0.0.1", d), dialFrom(t, "127.0.0.1", d)
	if err := there.ask(hello); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(busy, hello); err != nil {
		t.Fatal(err)
	}
	<-begun
	until(t, d, 2)
	d.Stop()
	if _, err := io.Copy(io.Discard, busy.in); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what was in flight met %v", err)
	}
	idle.closed(t)
	if err := <-served; err != nil {
		t.Error(err)
	}
	until(t, d, 0)
	if err := there.ask(hello); err != nil {
		t.Errorf("another door's connection: %v", err)
	}
	if c, err := net.Dial("tcp", d.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("a stopped door still listens")
	}
}

// While one door takes over the address of another, every client is answered, by the one or by the other.
func TestTakeOver(t *testing.T) {
	h := newHouse(t)
	doors := make(map[string]*atomic.Int64)
	serve := func(name string) http.Handler {
		n := &atomic.Int64{}
		doors[name] = n
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.Add(1); fine(w, r) })
	}
	first, err := h.doors.Listen(context.Background(), "127.0.0.1:0", DoorOptions{Zone: Zone{Kind: Public, Door: "first"}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 2)
	one, two := serve("first"), serve("second")
	go func() { served <- first.Serve(one) }()
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + first.Addr().String())
				if err != nil {
					t.Errorf("a client was not answered: %v", err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	for doors["first"].Load() < 50 {
		time.Sleep(time.Millisecond)
	}
	second, err := h.doors.TakeOver(first, DoorOptions{Zone: Zone{Kind: Private, Door: "second", Registry: "mine"}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { served <- second.Serve(two) }()
	if err := first.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for doors["second"].Load() < 50 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	stop()
	clients.Wait()
	if second.Addr() != first.Addr() || second.Zone().Registry != "mine" {
		t.Errorf("the second listens at %v as %+v", second.Addr(), second.Zone())
	}
	if _, err := h.doors.TakeOver(first, DoorOptions{Zone: Zone{Kind: Public, Door: "third"}}); err == nil {
		t.Error("a door that is closed was taken over")
	}
	if err := second.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-served; err != nil {
			t.Error(fmt.Errorf("serving ended with %w", err))
		}
	}
}

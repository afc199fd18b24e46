// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// wire is a connection to a private listener, driven by hand, on which a download is in flight or nothing.
type wire struct {
	net.Conn
	in   *bufio.Reader
	left int64 // bytes of the answer that are still to come
}

// dialIn connects to a private listener from a loopback address and asks for a page, so that the connection is known to be served.
func dialIn(t *testing.T, from, address string) *wire {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	w := &wire{Conn: c, in: bufio.NewReader(c)}
	if err := w.ping(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *wire) ping() error {
	if _, err := io.WriteString(w, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	if err == nil && resp.StatusCode != http.StatusUnauthorized {
		err = fmt.Errorf("it answered %s", resp.Status)
	}
	return err
}

// download begins to fetch a blob and reads its first bytes.
func (w *wire) download(t *testing.T, s *instance.Server, registry, address string, blob []byte) {
	t.Helper()
	token, a, err := s.RegistryToken("http://"+address, s.LoginServer(registry), s.ClientID, s.ClientSecret, "repository:app:pull")
	if err != nil || token == "" {
		t.Fatalf("%v %d %s", err, a.Status, a.Body)
	}
	if _, err := fmt.Fprintf(w, "GET /v2/app/blobs/%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", instance.Digest(blob), token); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the download did not begin: %v %v", resp, err)
	}
	w.left = resp.ContentLength
	w.read(t, 1<<20)
}

func (w *wire) read(t *testing.T, n int64) {
	t.Helper()
	got, err := io.CopyN(io.Discard, w.in, n)
	w.left -= got
	if err != nil {
		t.Errorf("a download in flight broke off: %v", err)
	}
}

// cut reports how the rest of a download ends that must be reset.
func (w *wire) cut(t *testing.T, why string) {
	t.Helper()
	n, err := io.CopyN(io.Discard, w.in, w.left)
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) || n == w.left {
		t.Errorf("%s: %d of %d bytes came, and then %v", why, n, w.left, err)
	}
}

// large is more than the kernel's buffers hold, so that a download of it is in flight until it is read.
func large() []byte { return []byte(strings.Repeat("0123456789abcdef", 4<<20)) }

func listeners(entries ...string) string {
	return "privateListeners: [" + strings.Join(entries, ", ") + "]\n"
}

func entry(address, registry string, clients ...string) string {
	return fmt.Sprintf("{address: %q, registry: %q, tls: false, clients: [%s]}", address, registry, strings.Join(clients, ", "))
}

// answers reports whether anybody listens at an address.
func answers(address string) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// Listeners come and go with SIGHUP. Connections that remain allowed are not dropped; a download on a private listener that is gone, or that may not be had any
// more, is.
func TestReloadListeners(t *testing.T) {
	stays, goes, turns, comes := instance.FreePort(t), instance.FreePort(t), instance.FreePort(t), instance.FreePort(t)
	const one, two = "oneregistry", "tworegistry"
	s := instance.New(t, "sqlite", listeners(entry(stays, one), entry(goes, one), entry(turns, one)))
	blob := large()
	for _, r := range []string{one, two} {
		s.CreateRegistry(r, nil)
		if err := s.PushBlob(r, "app", blob); err != nil {
			t.Fatal(err)
		}
	}
	kept, keptIdle := dialIn(t, "127.0.0.1", stays), dialIn(t, "127.0.0.1", stays)
	kept.download(t, s, one, stays, blob)
	narrowed := dialIn(t, "127.0.0.2", stays)
	narrowed.download(t, s, one, stays, blob)
	gone, turned := dialIn(t, "127.0.0.1", goes), dialIn(t, "127.0.0.1", turns)
	gone.download(t, s, one, goes, blob)
	turned.download(t, s, one, turns, blob)

	if said := s.Configure("logLevel: debug\nmaxConnections: 100\n" + listeners(entry(stays, one, "127.0.0.1/32"), entry(turns, two), entry(comes, two))); said != "" {
		t.Fatal(said)
	}
	gone.cut(t, "a listener that is gone")
	turned.cut(t, "a listener that serves another registry now")
	narrowed.cut(t, "a client that may not connect any more")
	if err := keptIdle.ping(); err != nil {
		t.Errorf("an idle connection that may stay: %v", err)
	}
	kept.read(t, kept.left)
	if err := kept.ping(); err != nil {
		t.Errorf("after the download: %v", err)
	}
	if answers(goes) {
		t.Error("a listener that is gone still listens")
	}
	for _, address := range []string{turns, comes} {
		w := dialIn(t, "127.0.0.1", address)
		w.download(t, s, two, address, blob)
	}
	if c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(t.Context(), "tcp", stays); err == nil {
		if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
			t.Error("a client that may not connect is served")
		}
		_ = c.Close()
	}
	for end := time.Now().Add(20 * time.Second); !debugged(s); { // a handshake that fails is logged at that level
		if time.Now().After(end) {
			t.Fatal("the log level did not change")
		}
		if c, err := net.Dial("tcp", s.Listening(t).Public); err == nil {
			_, _ = io.WriteString(c, hello)
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}
}

// hello is no TLS handshake.
const hello = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

func debugged(s *instance.Server) bool {
	return slices.ContainsFunc(s.Lines(), func(l map[string]any) bool { return l["level"] == "DEBUG" })
}

// Certificates change with SIGHUP: who connects gets the new one, who is connected stays.
func TestReloadCertificates(t *testing.T) {
	s := instance.New(t, "sqlite", "logLevel: info\n")
	address := s.Listening(t).Public
	shake := func() (*tls.Conn, string) {
		t.Helper()
		c, err := tls.Dial("tcp", address, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, c.ConnectionState().PeerCertificates[0].Issuer.String()
	}
	old, first := shake()
	cert, key := selfSigned(t, "localhost")
	if said := s.Configure(fmt.Sprintf("certificates: [{cert: %q, key: %q}]\n", cert, key)); said != "" {
		t.Fatal(said)
	}
	_, second := shake()
	if first == second {
		t.Errorf("the certificate is still of %s", first)
	}
	if _, err := io.WriteString(old, "GET /metadata/endpoints?api-version=2015-01-01 HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(old), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("who was connected: %v, %v", resp, err)
	}
	if said := s.Configure(""); said != "" {
		t.Fatal(said)
	}
	if _, third := shake(); third != first {
		t.Errorf("without certificates of its own the server shows one of %s", third)
	}
}

// A file that is wrong in any way changes nothing, and the log says once what is wrong, with file, line and key; 'config check' says the same.
func TestReloadOfABadFile(t *testing.T) {
	door, taken := instance.FreePort(t), instance.FreePort(t)
	s := instance.New(t, "sqlite", listeners(entry(door, instance.Open)))
	s.CreateRegistry(instance.Open, nil)
	blob := large()
	if err := s.PushBlob(instance.Open, "app", blob); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	w := dialIn(t, "127.0.0.1", door)
	w.download(t, s, instance.Open, door, blob)
	nothing := filepath.Join(t.TempDir(), "nothing.pem")
	for what, c := range map[string]struct {
		config, key string
		line        int
		running     bool // only a running server can know it
	}{
		"an unknown key":        {"maxConnections: 9\nmaxConections: 9\n", "unknown key maxConections", 2, false},
		"no YAML":               {"logLevel: [\n", "", 0, false},
		"no number":             {"\n\nmaxConnections: many\n", "maxConnections", 3, false},
		"too small":             {"maxRequests: -1\n", "maxRequests", 1, false},
		"no level":              {"logLevel: chatty\n", "logLevel", 1, false},
		"no address":            {listeners(entry("nowhere", instance.Open)), "privateListeners", 1, false},
		"no clients":            {listeners(entry(door, instance.Open, "everybody")), "privateListeners", 1, false},
		"an address twice":      {listeners(entry(door, instance.Open), entry(door, instance.Closed)), "privateListeners", 1, false},
		"a name of no registry": {listeners(entry(door, "my registry")), "privateListeners", 1, false},
		"roots that are gone":   {fmt.Sprintf("acme: {directory: \"https://127.0.0.1:1/\", roots: %q}\n", nothing), "acme", 1, false},
		"a broken URL":          {"database: \"postgres://u:a b%zz@h/db\"\n", "database", 1, false},
		"a URL for a host":      {"host: [\"https://foo\"]\n", "host", 1, false},
		"a key's place":         {"installationKey: /nonexistent/dir/key\n", "installationKey", 1, false},
		"an address taken":      {"logLevel: debug\n" + listeners(entry(taken, instance.Open)), "privateListeners", 2, true},
		"a missing certificate": {fmt.Sprintf("certificates: [{cert: %q, key: %q}]\n", nothing, nothing), "certificates", 1, false},
		"a restart is needed":   {"minFreeDisk: 7\n", "minFreeDisk", 1, true},
		"the log's format":      {"acme: {directory: \"https://127.0.0.1:1/\"}\n", "acme", 1, true},
	} {
		said := s.Configure(c.config)
		place := s.Config
		if c.line > 0 {
			place = fmt.Sprintf("%s:%d: %s", s.Config, c.line, c.key)
		}
		if !strings.Contains(said, place) {
			t.Errorf("%s: the log says %q, and not %q", what, said, place)
		}
		if _, errs, err := s.Run(t.Context(), "config", "check", "--config", s.Config, "--data", s.Data); !c.running && (err == nil || !strings.Contains(errs, place)) {
			t.Errorf("%s: config check says %v %s", what, err, errs)
		}
		w.read(t, 1<<20)
		if err := dialIn(t, "127.0.0.1", door).ping(); err != nil {
			t.Errorf("%s: the listener: %v", what, err)
		}
	}
	if c, err := net.Dial("tcp", s.Listening(t).Public); err == nil {
		_, _ = io.WriteString(c, hello)
		_, _ = io.Copy(io.Discard, c) // until it has been noticed, and might have been logged
		_ = c.Close()
	}
	w.read(t, w.left)
	if debugged(s) {
		t.Error("a file that is wrong changed the log level")
	}
	if err := os.Remove(s.Config); err != nil {
		t.Fatal(err)
	}
	fails(t, s, s.Config, "config", "check", "--config", s.Config)
}

// Fifty reloads drop no request of those whose listener stays, while another comes and goes.
func TestReloadsUnderLoad(t *testing.T) {
	stays, flickers := instance.FreePort(t), instance.FreePort(t)
	with, without := listeners(entry(stays, instance.Open), entry(flickers, instance.Open)), listeners(entry(stays, instance.Open))
	s := instance.New(t, "sqlite", without)
	s.CreateRegistry(instance.Open, nil)
	blob := []byte(strings.Repeat("x", 64<<10))
	if err := s.PushBlob(instance.Open, "app", blob); err != nil {
		t.Fatal(err)
	}
	token, _, err := s.RegistryToken("http://"+stays, s.LoginServer(instance.Open), s.ClientID, s.ClientSecret, "repository:app:pull")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var pullers sync.WaitGroup
	var pulled atomic.Int64
	for i := range 8 {
		base := []string{"http://" + stays, "https://" + s.LoginServer(instance.Open)}[i%2]
		pullers.Go(func() {
			for ctx.Err() == nil {
				a, err := s.Do(http.MethodGet, base+"/v2/app/blobs/"+instance.Digest(blob), nil, "Authorization", "Bearer "+token)
				if err != nil || a.Status != 200 || len(a.Body) != len(blob) {
					t.Errorf("a pull from %s during reloads: %v %d", base, err, a.Status)
					return
				}
				pulled.Add(1)
			}
		})
	}
	for i := range 50 {
		config := []string{with, without, "nonsense: 1\n"}[i%3]
		if said := s.Configure(config); (said != "") != (i%3 == 2) {
			t.Errorf("reload %d: %q", i, said)
		}
		if there := answers(flickers); there != (i%3 == 0) {
			t.Errorf("after reload %d the listener is there: %v", i, there)
		}
	}
	stop()
	pullers.Wait()
	if pulled.Load() < 50 {
		t.Errorf("only %d pulls were made", pulled.Load())
	}
	if n := sum(t, s, "embargo_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
}

// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
)

func listen(t *testing.T) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	return ln.Addr().String()
}

func TestRules(t *testing.T) {
	there := listen(t)
	_, port, _ := net.SplitHostPort(there)
	for _, c := range []struct {
		name    string
		rule    *Rule
		own     string
		address string
		refused bool
	}{
		{"no rule", nil, "", there, true},
		{"empty rule", &Rule{Inside: true}, "", there, true},
		{"declared, inside allowed", &Rule{To: []string{there}, Inside: true}, "", there, false},
		{"declared by host alone", &Rule{To: []string{"127.0.0.1"}, Inside: true}, "", there, false},
		{"declared, mapped form of the same address", &Rule{To: []string{there}, Inside: true}, "", "[::ffff:127.0.0.1]:" + port, false},
		{"declared, but inside", &Rule{To: []string{there}}, "", there, true},
		{"a name that resolves inside", &Rule{To: []string{"localhost:" + port}}, "", "localhost:" + port, true},
		{"other port", &Rule{To: []string{"127.0.0.1:1"}, Inside: true}, "", there, true},
		{"other host", &Rule{To: []string{"localhost:" + port}, Inside: true}, "", there, true},
		{"own listener", &Rule{To: []string{there}, Inside: true}, there, there, true},
		{"own listener under another name", &Rule{To: []string{"localhost"}, Inside: true}, there, "localhost:" + port, true},
		{"own wildcard listener", &Rule{To: []string{there}, Inside: true}, "0.0.0.0:" + port, there, true},
		{"anywhere, but inside", &Rule{Anywhere: true}, "", there, true},
		{"anywhere, inside allowed", &Rule{Anywhere: true, Inside: true}, "", there, false},
		{"anywhere, but a name that resolves inside", &Rule{Anywhere: true}, "", "localhost:" + port, true},
		{"anywhere, inside allowed, own listener", &Rule{Anywhere: true, Inside: true}, there, there, true},
		{"own listener on another port", &Rule{To: []string{there}, Inside: true}, "127.0.0.1:1", there, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{Rules: map[Purpose]Rule{}}
			if c.rule != nil {
				o.Rules[PostgreSQL] = *c.rule
			}
			if c.own != "" {
				o.Own = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(c.own)} }
			}
			d, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			// Of a literal address nothing is found out later; a name's address is not known yet.
			vetted := d.Vet(PostgreSQL, c.address)
			if literal := !strings.HasPrefix(c.address, "localhost"); literal && errors.Is(vetted, ErrRefused) != c.refused {
				t.Errorf("vetted: %v", vetted)
			} else if !literal && vetted != nil && c.name != "no rule" && !strings.HasPrefix(c.name, "other") {
				t.Errorf("a name vetted: %v", vetted)
			}
			conn, err := d.Func(PostgreSQL)(context.Background(), "tcp", c.address)
			if c.refused {
				if !errors.Is(err, ErrRefused) {
					t.Fatalf("got %v, want a refusal", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		})
	}
}

func TestInside(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "10.1.2.3": true, "172.16.0.1": true, "192.168.1.1": true, "169.254.169.254": true, "100.64.0.1": true,
		"0.0.0.0": true, "0.1.2.3": true, "168.63.129.16": true, "224.0.0.1": true, "255.255.255.255": true, "240.0.0.1": true,
		"::1": true, "::": true, "fe80::1": true, "fc00::1": true, "fd00:ec2::254": true, "ff02::1": true, "64:ff9b::7f00:1": true,
		"64:ff9b::a9fe:a9fe": true, "2002:7f00:1::": true, "2002:a00:1::1": true, "fec0::1": true,
		"8.8.8.8": false, "20.50.1.1": false, "2606:4700::1": false, "64:ff9b::808:808": false, "2002:808:808::1": false,
	} {
		if got := inside(netip.MustParseAddr(addr)); got != want {
			t.Errorf("inside(%s) = %v", addr, got)
		}
	}
}

// A redirect is a way to another destination: the rule judges it too.
func TestRedirectIsJudged(t *testing.T) {
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }))
	defer secret.Close()
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, secret.URL, http.StatusFound)
	}))
	defer open.Close()
	d, err := New(Options{Rules: map[Purpose]Rule{ResourceManager: {To: []string{open.Listener.Addr().String()}, Inside: true}}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client(ResourceManager, ClientOptions{}).Get(open.URL)
	if err == nil {
		_ = resp.Body.Close()
	}
	if !errors.Is(err, ErrRefused) {
		t.Fatalf("the redirect was followed: %v", err)
	}
}

func TestRefuseDefaults(t *testing.T) {
	transport, client := http.DefaultTransport, http.DefaultClient
	defer func() { http.DefaultTransport, http.DefaultClient = transport, client }()
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	RefuseDefaults()
	for name, get := range map[string]func(string) (*http.Response, error){"http.Get": http.Get, "a zero client": new(http.Client).Get} {
		resp, err := get(s.URL)
		if err == nil {
			_ = resp.Body.Close()
		}
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Outside this package nothing makes connections: the names by which the standard library makes them do not occur.
func TestNobodyElseDials(t *testing.T) {
	forbidden := map[string]bool{
		"net.Dial": true, "net.DialTimeout": true, "net.DialTCP": true, "net.DialUDP": true, "net.DialIP": true, "net.DialUnix": true, "net.Dialer": true,
		"tls.Dial": true, "tls.DialWithDialer": true, "tls.Dialer": true, "net.Resolver": true, "net.LookupHost": true, "net.LookupIP": true, "net.LookupAddr": true,
		"http.Get": true, "http.Post": true, "http.PostForm": true, "http.Head": true, "http.DefaultClient": true, "http.DefaultTransport": true,
		"http.Client": true, "http.Transport": true,
	}
	root := ".."
	seen := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == "dial" || e.Name() == "testdata" || strings.HasPrefix(e.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/test/") || strings.HasSuffix(filepath.Dir(path), "test") {
			return nil
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		seen++
		ast.Inspect(f, func(n ast.Node) bool {
			// &http.Client{} and new uses make connections; a *http.Client that is handed in is fine.
			if star, ok := n.(*ast.StarExpr); ok {
				if sel, ok := star.X.(*ast.SelectorExpr); ok && sel.Sel.Name == "Client" {
					return false
				}
			}
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			if forbidden[pkg.Name+"."+sel.Sel.Name] {
				t.Errorf("%s: %s.%s makes connections past package dial", files.Position(n.Pos()), pkg.Name, sel.Sel.Name)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Fatal("no source was read")
	}
}

// SPDX-License-Identifier: Apache-2.0

package blobtest

import (
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/dial"
)

// Valve stands between a test and the server of a storage.
type Valve struct {
	l  net.Listener
	to func() (net.Conn, error)

	mu    sync.Mutex
	shut  bool
	limit int64 // what a connection hands back before it breaks; 0: all
	sent  int64
	conns map[net.Conn]bool
}

// Behind puts a valve before an object storage; the place given is reached through it.
func Behind(t testing.TB, place Place) (*Valve, Place) {
	t.Helper()
	v := &Valve{conns: map[net.Conn]bool{}}
	var err error
	if v.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.l.Close() // the test is over
		v.Shut()
	})
	through := func(endpoint string) string {
		u, err := url.Parse(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		d, err := dial.New(dial.Options{Rules: map[dial.Purpose]dial.Rule{dial.Storage: {To: []string{u.Host, v.l.Addr().String()}, Inside: true}}})
		if err != nil {
			t.Fatal(err)
		}
		host := u.Host
		v.to = func() (net.Conn, error) { return d.Func(dial.Storage)(t.Context(), "tcp", host) }
		u.Host = v.l.Addr().String()
		place.Dial = d
		place.URL = strings.ReplaceAll(place.URL, url.QueryEscape(host), url.QueryEscape(u.Host))
		return u.String()
	}
	if place.S3 != nil {
		o := *place.S3
		o.Endpoint = through(o.Endpoint)
		place.S3 = &o
	} else {
		o := *place.Azure
		o.Endpoint = through(o.Endpoint)
		place.Azure = &o
	}
	go v.serve()
	return v, place
}

func (v *Valve) serve() {
	for {
		c, err := v.l.Accept()
		if err != nil {
			return
		}
		go v.forward(c)
	}
}

func (v *Valve) forward(c net.Conn) {
	defer c.Close()
	server, err := v.to()
	if err != nil {
		return
	}
	defer server.Close()
	v.mu.Lock()
	if v.shut {
		v.mu.Unlock()
		return
	}
	v.conns[c] = true
	var back io.Reader = server
	if v.limit > 0 {
		back = io.LimitReader(server, v.limit)
	}
	v.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, c) // the other direction ends the connection
		_ = server.Close()
	}()
	_, _ = io.Copy(counted{v, c}, back)
	v.mu.Lock()
	delete(v.conns, c)
	v.mu.Unlock()
}

// counted is a connection whose bytes the valve counts.
type counted struct {
	v *Valve
	c net.Conn
}

func (w counted) Write(b []byte) (int, error) {
	n, err := w.c.Write(b)
	w.v.mu.Lock()
	w.v.sent += int64(n)
	w.v.mu.Unlock()
	return n, err
}

// Shut breaks all connections and refuses further ones.
func (v *Valve) Shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shut = true
	for c := range v.conns {
		_ = c.Close()
	}
}

// Open lets connections through; each breaks off when it has handed back limit bytes (0: none does).
func (v *Valve) Open(limit int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shut, v.limit = false, limit
	for c := range v.conns {
		_ = c.Close()
	}
}

// Sent is how many bytes have come back through the valve.
func (v *Valve) Sent() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sent
}

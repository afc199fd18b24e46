// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Doors is the set of one installation's listeners and of their live connections.
type Doors struct {
	node string

	mu   sync.Mutex
	next uint64
	live map[string]*Peer
}

// NewDoors makes an empty set. random (nil: the system's) makes connection ids unique among nodes and restarts.
func NewDoors(random io.Reader) (*Doors, error) {
	if random == nil {
		random = rand.Reader
	}
	node := make([]byte, 8)
	if _, err := io.ReadFull(random, node); err != nil {
		return nil, fmt.Errorf("making connection ids: %w", err)
	}
	return &Doors{node: hex.EncodeToString(node), live: map[string]*Peer{}}, nil
}

// Peer is the connection that r came on. A request that came through none of these doors gets a Peer of zone Unknown,
// which enters nothing; the answer is never nil.
func (ds *Doors) Peer(r *http.Request) *Peer {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if p := ds.live[r.RemoteAddr]; p != nil {
		return p
	}
	return &Peer{}
}

// DoorOptions describe one listener.
type DoorOptions struct {
	// Zone of every connection accepted here. Its Door is the listener's name in logs and records.
	Zone Zone
	// TLS is served when it is set; nil serves plain HTTP/1.1.
	TLS *tls.Config
	// Terminated says that a TLS terminator stands before this plain door: Peer.TLS is then true.
	Terminated bool
	// Connect turns the door into a CONNECT proxy that ends its tunnels here: a connection must first ask to be connected
	// to a host for which Connect is true, whatever the port, and is then served in process. Every other request gets 403.
	Connect func(host string) bool
	// Log gets what goes wrong below HTTP. Nil discards it.
	Log *slog.Logger
	// HeaderTimeout bounds the reading of a request's header, of a CONNECT and of a TLS handshake (default 10 s).
	HeaderTimeout time.Duration
	// IdleTimeout closes a kept-alive connection without requests (default 2 min).
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's header (default 64 KiB).
	MaxHeaderBytes int
}

// Door is one listener with its zone. Connections are told apart by the socket that accepted them and by nothing else.
type Door struct {
	doors  *Doors
	o      DoorOptions
	socket *net.TCPListener

	mu     sync.Mutex
	server *http.Server
	closed bool
}

// Listen binds a door to address (host:port; port 0 picks a free one). Connections wait in the kernel's queue until Serve.
func (ds *Doors) Listen(ctx context.Context, address string, o DoorOptions) (*Door, error) {
	if o.Zone.Kind != Public && o.Zone.Kind != Private {
		return nil, fmt.Errorf("the listener at %s has no zone", address)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.HeaderTimeout == 0 {
		o.HeaderTimeout = 10 * time.Second
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = 2 * time.Minute
	}
	if o.MaxHeaderBytes == 0 {
		o.MaxHeaderBytes = 64 << 10
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone() // net/http completes the configuration it is given, each door its own
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", o.Zone.Door, err)
	}
	return &Door{doors: ds, o: o, socket: ln.(*net.TCPListener)}, nil
}

// Addr is the bound address.
func (d *Door) Addr() netip.AddrPort { return d.socket.Addr().(*net.TCPAddr).AddrPort() }

// Zone is the zone of every connection accepted here.
func (d *Door) Zone() Zone { return d.o.Zone }

// Peer is the connection that r came on, if it came through this door; else a Peer of zone Unknown. Never nil.
func (d *Door) Peer(r *http.Request) *Peer {
	if p := d.doors.Peer(r); p.Zone == d.o.Zone {
		return p
	}
	return &Peer{}
}

// Serve answers requests with h until Shutdown or Close, then returns nil. It may be called once.
func (d *Door) Serve(h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		TLSConfig:         d.o.TLS,
		ReadHeaderTimeout: d.o.HeaderTimeout,
		IdleTimeout:       d.o.IdleTimeout,
		MaxHeaderBytes:    d.o.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(d.o.Log.With("door", d.o.Zone.Door).Handler(), slog.LevelDebug),
	}
	d.mu.Lock()
	if d.closed || d.server != nil {
		d.mu.Unlock()
		return nil
	}
	d.server = server
	d.mu.Unlock()

	var ln net.Listener = directListener{d}
	if d.o.Connect != nil {
		ln = newTunnelListener(d)
	}
	var err error
	if d.o.TLS != nil {
		err = server.ServeTLS(ln, "", "")
	} else {
		err = server.Serve(ln)
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting at once and waits until the requests in flight have been answered or ctx ends; connections
// still open then are closed.
func (d *Door) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	server := d.server
	d.mu.Unlock()
	_ = d.socket.Close()
	if server == nil {
		return nil
	}
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close()
		return fmt.Errorf("listener %s: requests were cut off: %w", d.o.Zone.Door, err)
	}
	return nil
}

// admit registers an accepted socket. first holds bytes already read from it that belong to the inner stream.
func (d *Door) admit(socket *net.TCPConn, first []byte) *conn {
	remote := socket.RemoteAddr().(*net.TCPAddr).AddrPort()
	addr := netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	ds := d.doors
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.next++
	n := strconv.FormatUint(ds.next, 10)
	c := &conn{TCPConn: socket, doors: ds, first: first, remote: key(addr.String() + "#" + n)}
	c.peer = &Peer{Zone: d.o.Zone, Addr: addr, TLS: d.o.TLS != nil || d.o.Terminated, ID: ds.node + "-" + n,
		link: &link{gone: make(chan struct{}), reset: c.reset}}
	ds.live[string(c.remote)] = c.peer
	return c
}

// directListener accepts a door's connections as they are.
type directListener struct{ d *Door }

func (l directListener) Accept() (net.Conn, error) {
	socket, err := l.d.socket.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return l.d.admit(socket, nil), nil
}

func (l directListener) Close() error {
	if err := l.d.socket.Close(); err != nil && !closedSocket(err) {
		return err
	}
	return nil
}

func (l directListener) Addr() net.Addr { return l.d.socket.Addr() }

// key is a remote address made unique per connection.
type key string

func (key) Network() string  { return "tcp" }
func (k key) String() string { return string(k) }

// conn is an accepted socket. The methods it does not name are the socket's own, ReadFrom (sendfile) among them.
type conn struct {
	*net.TCPConn
	doors  *Doors
	peer   *Peer
	remote key
	first  []byte
}

func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.TCPConn.Read(b)
}

// WriteTo exists because the socket's own would pass over the bytes in first.
func (c *conn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{c}) }

func (c *conn) Close() error {
	c.peer.link.end.Do(func() {
		c.doors.mu.Lock()
		delete(c.doors.live, string(c.remote))
		c.doors.mu.Unlock()
		close(c.peer.link.gone)
	})
	return c.TCPConn.Close()
}

// reset discards what the kernel still holds. Close waits for a write that another goroutine has in the kernel, so no
// byte is handed over after it returns.
func (c *conn) reset() {
	_ = c.TCPConn.SetLinger(0)
	_ = c.TCPConn.Close()
}

func closedSocket(err error) bool { return errors.Is(err, net.ErrClosed) }

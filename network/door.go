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
	"sync/atomic"
	"syscall"
	"time"
)

// Doors is the set of one installation's listeners and of their live connections.
type Doors struct {
	node string

	mu   sync.Mutex
	next uint64
	live map[string]*Peer

	trusted atomic.Pointer[[]netip.Prefix]
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
	p := ds.live[r.RemoteAddr]
	ds.mu.Unlock()
	if p == nil {
		return &Peer{}
	}
	return ds.forwarded(p, r)
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
	// RequestTimeout bounds a whole exchange. Zero bounds none: who serves paces it.
	RequestTimeout time.Duration
	// MaxHeaderBytes bounds a request's header (default 64 KiB).
	MaxHeaderBytes int
	// Limits are what may change while the door is open.
	Limits
	// Place, on a door with Connect, says in which zone a connection stands that asked for that host. Nil: in the door's.
	Place func(host string) Zone
	// Links makes the door one for load balancers that speak the PROXY protocol, version 2: the private link that the header names (an AWS VPC endpoint, an Azure
	// link id, a GCP connection id; "" for none) says in which zone the connection stands. Limits.From says which load balancers.
	Links func(link string) Zone
	// Interface accepts what comes in by that network interface alone (SO_BINDTODEVICE). A second door of the same address that is Shared gets the rest.
	Interface string
	// Free lets the address be one that this machine does not have yet (IP_FREEBIND); Shared lets doors that differ in their interface listen at one address.
	Free, Shared bool
	// Refused hears of each connection that is closed before it is served, with its client's address and the reason: "limit", "client" (not among the clients), "interface"
	// (a closed door, or one whose interface is gone), "host" (the name in the TLS handshake), "proxy-source", "proxy-header", "proxy-slots", "connect", "tls" (no handshake was completed), "request" (no request that HTTP allows). Nil: nobody listens.
	Refused func(z Zone, client netip.AddrPort, reason string)
}

// complete checks the options and fills in what is left out.
func (o DoorOptions) complete(address string) (DoorOptions, error) {
	if o.Zone.Kind != Public && o.Zone.Kind != Private {
		return o, fmt.Errorf("the listener at %s has no zone", address)
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
	return o, nil
}

// OnInterface makes a socket hear of what comes in by one network interface alone, whatever its protocol ("": by any). It is the Control of a net.ListenConfig.
func OnInterface(name string) func(network, address string, raw syscall.RawConn) error {
	return DoorOptions{Interface: name}.control
}

// Door is one listener with its zone. Connections are told apart by the socket that accepted them and by nothing else.
type Door struct {
	doors  *Doors
	o      DoorOptions
	socket *net.TCPListener
	limits atomic.Pointer[Limits]
	open   atomic.Int64
	fresh  atomic.Int64 // connections whose first request is not answered yet
	served atomic.Int64 // requests whose handler has not returned

	mu     sync.Mutex
	server *http.Server
	closed bool
	deaf   chan struct{} // closed when nothing more is accepted
}

// Listen binds a door to address (host:port; port 0 picks a free one). Connections wait in the kernel's queue until Serve.
func (ds *Doors) Listen(ctx context.Context, address string, o DoorOptions) (*Door, error) {
	o, err := o.complete(address)
	if err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: o.control}
	if o.Interface != "" || o.Shared {
		lc.SetMultipathTCP(false) // the kernel picks among listeners of one address by their interface only for plain TCP
	}
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", o.Zone.Door, err)
	}
	return ds.door(ln.(*net.TCPListener), o), nil
}

// TakeOver opens a door with other options at the address of one that will be stopped; the address is never without a listener.
func (ds *Doors) TakeOver(old *Door, o DoorOptions) (*Door, error) {
	o, err := o.complete(old.Addr().String())
	if err != nil {
		return nil, err
	}
	file, err := old.socket.File()
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", o.Zone.Door, err)
	}
	ln, err := net.FileListener(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("listener %s: %w", o.Zone.Door, err)
	}
	return ds.door(ln.(*net.TCPListener), o), nil
}

func (ds *Doors) door(socket *net.TCPListener, o DoorOptions) *Door {
	d := &Door{doors: ds, o: o, socket: socket, deaf: make(chan struct{})}
	d.limits.Store(o.Limits.complete())
	return d
}

// Open is the number of connections that are open.
func (d *Door) Open() int64 { return d.open.Load() }

// Limit changes the door's limits. Connections of clients that may no longer connect are reset; all others stay.
func (d *Door) Limit(l Limits) {
	next := l.complete()
	d.limits.Store(next)
	d.cut(func(p *Peer) bool { return next.keeps(p, 0) != "" })
}

// Cut resets the door's connections that are as said. which may ask the doors.
func (d *Door) Cut(which func(p *Peer) bool) { d.cut(which) }

// Link is the private link that the connection's load balancer named; "" where there is none.
func (p *Peer) Link() string { return p.by }

// Stop closes the door and resets its connections: bytes that the kernel has not sent are discarded. It returns when nothing more is handed over on any of them.
func (d *Door) Stop() {
	d.mu.Lock()
	d.closed = true
	server := d.server
	d.mu.Unlock()
	_ = d.socket.Close()
	d.limits.Store(&Limits{}) // what is accepted and not yet registered is reset as it is
	d.cut(func(*Peer) bool { return true })
	if server != nil {
		_ = server.Close()
	}
}

func (d *Door) cut(which func(p *Peer) bool) {
	d.doors.mu.Lock()
	var own []*Peer
	for _, p := range d.doors.live {
		if p.door == d {
			own = append(own, p)
		}
	}
	d.doors.mu.Unlock()
	for _, p := range own { // without the lock: which may wait for who waits for it
		if which(p) {
			p.Reset()
		}
	}
}

// Addr is the bound address.
func (d *Door) Addr() netip.AddrPort { return d.socket.Addr().(*net.TCPAddr).AddrPort() }

// Bound is why the door's interface is no longer the one that has its name.
func (d *Door) Bound() error {
	if d.o.Interface == "" {
		return nil
	}
	return StillOn(d.socket, d.o.Interface)
}

// Zone is the zone of every connection accepted here.
func (d *Door) Zone() Zone { return d.o.Zone }

// Peer is the connection that r came on, if it came through this door; else a Peer of zone Unknown. Never nil.
func (d *Door) Peer(r *http.Request) *Peer {
	if p := d.doors.Peer(r); p.door == d {
		return p
	}
	return &Peer{}
}

// Serve answers requests with h until Shutdown or Close, then returns nil. It may be called once.
func (d *Door) Serve(h http.Handler) error {
	server := &http.Server{
		Handler:           d.counting(h),
		TLSConfig:         d.o.TLS,
		ReadHeaderTimeout: d.o.HeaderTimeout,
		IdleTimeout:       d.o.IdleTimeout,
		ReadTimeout:       d.o.RequestTimeout,
		WriteTimeout:      d.o.RequestTimeout,
		MaxHeaderBytes:    d.o.MaxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 128, SendPingTimeout: time.Minute, PingTimeout: 15 * time.Second, WriteByteTimeout: time.Minute},
		ConnState:         d.settle,
		// OPTIONS of the whole server is judged by its host as any other request.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(d.o.Log.With("door", d.o.Zone.Door).Handler(), slog.LevelDebug),
	}
	d.mu.Lock()
	if d.closed || d.server != nil {
		d.mu.Unlock()
		return nil
	}
	d.server = server
	d.mu.Unlock()

	defer close(d.deaf)
	var ln net.Listener = directListener{d}
	switch {
	case d.o.Connect != nil:
		ln = newTunnelListener(d, (*tunnelListener).open)
	case d.o.Links != nil:
		ln = newTunnelListener(d, (*tunnelListener).unwrap)
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

// cutWait is how long a door that cuts its requests off waits for their handlers, which put on record what was sent.
const cutWait = 2 * time.Second

// counting knows when no handler runs any more: net/http does not wait for those that it cuts off. It also knows that a request has found its handler.
func (d *Door) counting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.served.Add(1)
		defer d.served.Add(-1)
		d.doors.mu.Lock()
		p := d.doors.live[r.RemoteAddr]
		d.doors.mu.Unlock()
		if p != nil {
			p.link.waits.Store(false)
		}
		h.ServeHTTP(w, r)
	})
}

// Shutdown stops accepting at once and waits until the requests in flight have been answered or ctx ends; connections
// still open then are closed, which is an error, and their handlers have a moment to end.
func (d *Door) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	server := d.server
	d.mu.Unlock()
	_ = d.socket.Close()
	if server == nil {
		return nil
	}
	d.greet(ctx, server)
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close()
		for end := time.Now().Add(cutWait); d.served.Load() > 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // between two looks
		}
		return fmt.Errorf("listener %s: requests were cut off: %w", d.o.Zone.Door, err)
	}
	return nil
}

// greet waits until each connection has had the answer to its first request: net/http would drop a request that it reads while it shuts down, and its client can't
// know that it may ask again. Who says nothing is waited for no longer than net/http waits for it.
func (d *Door) greet(ctx context.Context, server *http.Server) {
	server.SetKeepAlivesEnabled(false)
	patience := time.NewTimer(min(d.o.HeaderTimeout, 5*time.Second))
	defer patience.Stop()
	select {
	case <-d.deaf: // the last connection that was accepted is counted now
	case <-patience.C:
		return
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for d.fresh.Load() > 0 {
		select {
		case <-tick.C:
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// settle follows a connection's states, to know when it is fresh no longer, when it waits for a request, and that no handshake was completed.
func (d *Door) settle(nc net.Conn, state http.ConnState) {
	two, shaken := false, true
	if t, ok := nc.(*tls.Conn); ok {
		s := t.ConnectionState()
		two, shaken = s.NegotiatedProtocol == "h2", s.HandshakeComplete
		nc = t.NetConn()
	}
	c := nc.(*conn)
	switch state {
	case http.StateNew:
		d.fresh.Add(1)
	case http.StateActive:
		c.peer.link.waits.Store(!two) // HTTP/2 writes of its own
	case http.StateIdle, http.StateHijacked, http.StateClosed:
		c.peer.link.waits.Store(state == http.StateIdle && !two)
		if state == http.StateClosed && !shaken && c.spoke {
			c.refused("tls")
		}
		if c.settled.CompareAndSwap(false, true) {
			d.fresh.Add(-1)
		}
	}
}

// address is the client's, unmapped.
func address(socket *net.TCPConn) netip.AddrPort {
	remote := socket.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
}

// accept takes the next connection that the limits admit. It counts until it is closed: by conn.Close, or by leave.
func (d *Door) accept() (*net.TCPConn, error) {
	for {
		socket, err := d.socket.AcceptTCP()
		if err != nil {
			return nil, err
		}
		open, limits := d.open.Add(1), d.limits.Load()
		from := address(socket)
		reason := ""
		if d.o.Links != nil {
			// Clients are judged by the address in the header.
			reason = (&Limits{MaxConnections: limits.MaxConnections, Closed: limits.Closed}).admits(from.Addr(), open)
			if reason == "" && !listed(limits.From, from.Addr()) {
				reason = "proxy-source"
			}
		} else {
			reason = limits.admits(from.Addr(), open)
		}
		if reason == "" && d.o.Interface != "" && StillOn(socket, d.o.Interface) != nil {
			reason = "interface"
		}
		if reason == "" {
			return socket, nil
		}
		d.leave(socket)
		d.refused(d.o.Zone, from, reason)
	}
}

// refused tells of a connection that is refused. A door that has been closed refuses nobody: it drops what it reads.
func (d *Door) refused(z Zone, client netip.AddrPort, reason string) {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if !closed && d.o.Refused != nil {
		d.o.Refused(z, client, reason)
	}
}

// leave closes a socket that became no conn.
func (d *Door) leave(socket *net.TCPConn) {
	_ = socket.Close()
	d.open.Add(-1)
}

// admit registers an accepted socket. first holds bytes already read from it that belong to the inner stream.
func (d *Door) admit(socket *net.TCPConn, first []byte) *conn {
	return d.enter(socket, first, Peer{Zone: d.o.Zone, Addr: address(socket)})
}

// enter registers an accepted socket as the connection that p describes.
func (d *Door) enter(socket *net.TCPConn, first []byte, p Peer) *conn {
	ds := d.doors
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.next++
	n := strconv.FormatUint(ds.next, 10)
	c := &conn{TCPConn: socket, door: d, first: first, remote: key(p.Addr.String() + "#" + n)}
	p.door, p.TLS, p.ID = d, d.o.TLS != nil || d.o.Terminated, ds.node+"-"+n
	p.link = &link{gone: make(chan struct{}), reset: c.reset}
	c.peer = &p
	ds.live[string(c.remote)] = c.peer
	if d.limits.Load().keeps(c.peer, 1) != "" {
		defer c.peer.Reset() // the limits changed since it was accepted, and the change has passed over it
	}
	return c
}

// directListener accepts a door's connections as they are.
type directListener struct{ d *Door }

func (l directListener) Accept() (net.Conn, error) {
	socket, err := l.d.accept()
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

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// tunnelsOpening bounds the connections that have not yet said where they want to go.
const tunnelsOpening = 1024

// tunnelListener accepts connections that say something before the inner stream begins: to a CONNECT proxy, which of our own names they want; to a door for load
// balancers, for whom they are. What it hands on is the accepted socket itself.
type tunnelListener struct {
	d     *Door
	begin func(l *tunnelListener, socket *net.TCPConn)
	ready chan *conn
	slots chan struct{}

	once sync.Once
	done chan struct{}
	err  error

	mu      sync.Mutex
	opening map[*net.TCPConn]bool // nil: the listener has been closed
}

func newTunnelListener(d *Door, begin func(*tunnelListener, *net.TCPConn)) *tunnelListener {
	l := &tunnelListener{d: d, begin: begin, ready: make(chan *conn), slots: make(chan struct{}, tunnelsOpening), done: make(chan struct{}), opening: map[*net.TCPConn]bool{}}
	go l.accept()
	return l
}

func (l *tunnelListener) accept() {
	for {
		socket, err := l.d.accept()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				continue
			}
			if !closedSocket(err) {
				l.d.o.Log.Warn("proxy: accept failed", "error", err)
				select {
				case <-time.After(50 * time.Millisecond): // out of file descriptors: give others time to close some
					continue
				case <-l.done:
				}
			}
			l.stop(err)
			return
		}
		select {
		case l.slots <- struct{}{}:
			go func() {
				defer func() { <-l.slots }()
				if !l.opens(socket) {
					l.d.leave(socket)
					return
				}
				defer l.opened(socket)
				l.begin(l, socket)
			}()
		default:
			from := address(socket)
			l.d.leave(socket)
			l.d.refused(l.d.o.Zone, from, "proxy-slots")
		}
	}
}

// listening knows whether anything has been read.
type listening struct {
	io.Reader
	anything bool
}

func (l *listening) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	l.anything = l.anything || n > 0
	return n, err
}

// opens keeps a socket until opened, to be closed with the listener. It says whether that is open.
func (l *tunnelListener) opens(socket *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opening == nil {
		return false
	}
	l.opening[socket] = true
	return true
}

func (l *tunnelListener) opened(socket *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.opening, socket)
}

// open reads one CONNECT and answers it.
func (l *tunnelListener) open(socket *net.TCPConn) {
	_ = socket.SetDeadline(time.Now().Add(l.d.o.HeaderTimeout))
	heard := &listening{Reader: io.LimitReader(socket, int64(l.d.o.MaxHeaderBytes))}
	head := bufio.NewReader(heard)
	r, err := http.ReadRequest(head)
	if err != nil && !heard.anything {
		l.d.leave(socket) // who says nothing asks for nothing
		return
	}
	switch {
	case err != nil:
		l.refuse(socket, http.StatusBadRequest, "This is the CONNECT proxy of an Embargo installation. The request could not be read.")
		return
	case r.Method != http.MethodConnect:
		l.refuse(socket, http.StatusForbidden, "This is the CONNECT proxy of an Embargo installation. It opens tunnels to the installation's own names and does nothing else.")
		return
	case r.ContentLength > 0 || len(r.TransferEncoding) > 0:
		l.refuse(socket, http.StatusBadRequest, "A CONNECT request has no body.")
		return
	case r.RequestURI != r.Host:
		l.refuse(socket, http.StatusBadRequest, "A CONNECT request names a host and a port, and nothing else.")
		return
	case !l.d.o.Connect(r.Host):
		l.d.o.Log.Info("proxy: refused a tunnel", "host", clip(r.Host), "client", socket.RemoteAddr().String())
		l.refuse(socket, http.StatusForbidden, fmt.Sprintf("This proxy tunnels only to the names of its own Embargo installation. %q is not one of them.", clip(r.Host)))
		return
	}
	first, _ := head.Peek(head.Buffered())
	if _, err := io.WriteString(socket, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		l.d.leave(socket)
		return
	}
	place := func() Zone { return l.d.o.Zone }
	if l.d.o.Place != nil {
		place = func() Zone { return l.d.o.Place(r.Host) }
	}
	l.hand(socket, first, Peer{Zone: place(), Addr: address(socket)}, place)
}

// hand passes a connection on to be served. place says where it stands now.
func (l *tunnelListener) hand(socket *net.TCPConn, first []byte, p Peer, place func() Zone) {
	l.opened(socket)
	_ = socket.SetDeadline(time.Time{})
	c := l.d.enter(socket, first, p)
	if place() != p.Zone {
		c.peer.Reset() // that changed before it was registered, and the change has passed over it
	}
	select {
	case l.ready <- c:
	case <-l.done:
		_ = c.Close()
	}
}

// refuse answers and closes. It reads on for a moment, so that the close does not reset the answer away.
func (l *tunnelListener) refuse(socket *net.TCPConn, status int, text string) {
	defer l.d.leave(socket)
	l.d.refused(l.d.o.Zone, address(socket), "connect")
	body := text + "\n"
	if _, err := fmt.Fprintf(socket, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(body), body); err != nil {
		return
	}
	_ = socket.CloseWrite()
	_ = socket.SetDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, socket, 256<<10)
}

func (l *tunnelListener) stop(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.done)
		l.mu.Lock()
		defer l.mu.Unlock()
		for socket := range l.opening {
			_ = socket.SetLinger(0)
			_ = socket.Close()
		}
		l.opening = nil
	})
}

func (l *tunnelListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.done:
		return nil, l.err
	}
}

func (l *tunnelListener) Close() error {
	l.stop(net.ErrClosed)
	return directListener{l.d}.Close()
}

func (l *tunnelListener) Addr() net.Addr { return l.d.socket.Addr() }

// clip makes a client's text fit for a log line and an answer.
func clip(s string) string {
	if len(s) > 128 {
		s = s[:128] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

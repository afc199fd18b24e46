// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
)

// key is a remote address made unique per connection.
type key string

func (key) Network() string  { return "tcp" }
func (k key) String() string { return string(k) }

// conn is an accepted socket. The methods it does not name are the socket's own, ReadFrom (sendfile) among them.
type conn struct {
	*net.TCPConn
	door   *Door
	peer   *Peer
	remote key
	first  []byte

	settled atomic.Bool // its first request has been answered, or never came
	spoke   bool        // something has come
	told    bool        // that it is refused
}

func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Read(b []byte) (n int, err error) {
	if len(c.first) > 0 {
		n = copy(b, c.first)
		c.first = c.first[n:]
	} else {
		n, err = c.TCPConn.Read(b)
	}
	if n > 0 {
		c.spoke = true
	}
	return n, err
}

// byItself is more than crypto/tls writes of its own after the handshake: an alert, or a new key.
const byItself = 64

// Write also hears net/http refuse what is no request, which it does without a word to anybody: it writes while no handler has begun.
func (c *conn) Write(b []byte) (int, error) {
	if len(b) > byItself && c.peer.link.waits.Load() {
		c.refused("request")
	}
	return c.TCPConn.Write(b)
}

// refused tells of the connection's being refused, once.
func (c *conn) refused(reason string) {
	if !c.told && !c.peer.link.cut.Load() {
		c.told = true
		c.door.refused(c.peer.Zone, c.peer.Addr, reason)
	}
}

// WriteTo exists because the socket's own would pass over the bytes in first.
func (c *conn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{c}) }

func (c *conn) Close() error {
	c.peer.link.end.Do(func() {
		ds := c.door.doors
		ds.mu.Lock()
		delete(ds.live, string(c.remote))
		ds.mu.Unlock()
		c.door.open.Add(-1)
		close(c.peer.link.gone)
	})
	return c.TCPConn.Close()
}

// reset discards what the kernel still holds. Close waits for a write that another goroutine has in the kernel, so no
// byte is handed over after it returns.
func (c *conn) reset() {
	c.peer.link.cut.Store(true)
	_ = c.TCPConn.SetLinger(0)
	_ = c.TCPConn.Close()
}

func closedSocket(err error) bool { return errors.Is(err, net.ErrClosed) }

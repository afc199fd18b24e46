// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

func aws(id string) proxyproto.TLV {
	return proxyproto.TLV{Type: proxyproto.PP2Type(0xEA), Value: append([]byte{1}, id...)}
}

func azure(id uint32) proxyproto.TLV {
	return proxyproto.TLV{Type: proxyproto.PP2Type(0xEE), Value: binary.LittleEndian.AppendUint32([]byte{1}, id)}
}

func gcp(id uint64) proxyproto.TLV {
	return proxyproto.TLV{Type: proxyproto.PP2Type(0xE0), Value: binary.BigEndian.AppendUint64(nil, id)}
}

// header is a PROXY header of version 2 for a client at 192.0.2.7:1234.
func header(t *testing.T, tlvs ...proxyproto.TLV) []byte {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1234}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443})
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// summed is a header with the checksum that is right, and one more value behind it.
func summed(t *testing.T, local bool, tlvs ...proxyproto.TLV) []byte {
	t.Helper()
	b := header(t, append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_CRC32C, Value: make([]byte, 4)}, proxyproto.TLV{Type: proxyproto.PP2_TYPE_NOOP, Value: []byte("more")})...)
	if local {
		b[12] = 0x20
	}
	binary.BigEndian.PutUint32(b[len(b)-7-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// flipped is a header with one bit of a byte, counted from its end, changed.
func flipped(head []byte, back int) []byte {
	head = bytes.Clone(head)
	head[len(head)-back] ^= 1
	return head
}

// The link in the header of a listed load balancer places the connection, and the client's address is the header's. Everything that is no whole header of version 2 from
// such an address is closed without an answer.
func TestLinkPlacesTheConnection(t *testing.T) {
	h := newHouse(t)
	refused := make(chan string, 100)
	mine := Zone{Kind: Private, Door: "pe", Registry: "mine", Endpoint: "e1"}
	public := Zone{Kind: Public, Door: "balancer"}
	d := h.open(t, DoorOptions{Zone: public, HeaderTimeout: 300 * time.Millisecond,
		Links: func(link string) Zone {
			switch link {
			case "vpce-08d2bf15fac5001c9", "4026531839", "18446744073709551615":
				return mine
			}
			return public
		},
		Limits:  Limits{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}},
		Refused: func(_ Zone, a netip.AddrPort, reason string) { refused <- reason + " " + a.Addr().String() }}, h.says())

	ask := func(from string, head []byte) string {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
		c, err := dialer.Dial("tcp", d.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write(append(bytes.Clone(head), "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"...))
		b, _ := io.ReadAll(c)
		_, body, _ := strings.Cut(string(b), "\r\n\r\n")
		return body
	}
	const private, outside = "private/pe|mine|192.0.2.7:1234|false|HTTP/1.1", "public/balancer||192.0.2.7:1234|false|HTTP/1.1"
	local := append(bytes.Clone(signature), 0x20, 0, 0, 0)
	whole := header(t, aws("vpce-08d2bf15fac5001c9"))
	long := bytes.Clone(whole)
	binary.BigEndian.PutUint16(long[14:], 60000)
	udp, unix, version3, command := bytes.Clone(whole), bytes.Clone(whole), bytes.Clone(whole), bytes.Clone(whole)
	udp[13], unix[13], version3[12], command[12] = 0x12, 0x31, 0x31, 0x22
	overrun := bytes.Clone(whole)
	overrun[len(overrun)-25] = 0xff // a value that is longer than the header
	for _, c := range []struct {
		name, from string
		head       []byte
		want, why  string
	}{
		{"AWS", "127.0.0.2", whole, private, ""},
		{"Azure", "127.0.0.2", header(t, azure(4026531839)), private, ""},
		{"GCP", "127.0.0.2", header(t, gcp(18446744073709551615)), private, ""},
		{"a link nobody knows", "127.0.0.2", header(t, aws("vpce-0")), outside, ""},
		{"no link", "127.0.0.2", header(t), outside, ""},
		{"a link with more behind it", "127.0.0.2", header(t, aws("vpce-08d2bf15fac5001c9\x00")), "", "proxy-header 127.0.0.2"},
		{"an empty link", "127.0.0.2", header(t, aws("")), "", "proxy-header 127.0.0.2"},
		{"a value of AWS that is no link", "127.0.0.2", header(t, proxyproto.TLV{Type: 0xEA, Value: []byte("\x02vpce-0")}), "", "proxy-header 127.0.0.2"},
		{"a link of Azure that is too long", "127.0.0.2", header(t, proxyproto.TLV{Type: 0xEE, Value: []byte{1, 77, 0, 0, 0, 0}}), "", "proxy-header 127.0.0.2"},
		{"a link of GCP that is too short", "127.0.0.2", header(t, proxyproto.TLV{Type: 0xE0, Value: []byte{0, 0, 0, 0, 0, 0, 77}}), "", "proxy-header 127.0.0.2"},
		{"a link, and one that can't be read", "127.0.0.2", header(t, aws("vpce-08d2bf15fac5001c9"), aws("")), "", "proxy-header 127.0.0.2"},
		{"two links", "127.0.0.2", header(t, aws("vpce-0"), aws("vpce-08d2bf15fac5001c9")), "", "proxy-header 127.0.0.2"},
		{"two kinds of link", "127.0.0.2", header(t, azure(1), gcp(18446744073709551615)), "", "proxy-header 127.0.0.2"},
		{"from an address that is not listed", "127.0.0.3", whole, "", "proxy-source 127.0.0.3"},
		{"no header", "127.0.0.2", nil, "", "proxy-header 127.0.0.2"},
		{"no header, and not listed", "127.0.0.3", nil, "", "proxy-source 127.0.0.3"},
		{"version 1", "127.0.0.2", []byte("PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n"), "", "proxy-header 127.0.0.2"},
		{"version 3", "127.0.0.2", version3, "", "proxy-header 127.0.0.2"},
		{"an unknown command", "127.0.0.2", command, "", "proxy-header 127.0.0.2"},
		{"a header that promises more than may be", "127.0.0.2", long, "", "proxy-header 127.0.0.2"},
		{"a value that runs over the end", "127.0.0.2", overrun, "", "proxy-header 127.0.0.2"},
		{"a checksum that is right", "127.0.0.2", summed(t, false, aws("vpce-08d2bf15fac5001c9")), private, ""},
		{"a checksum that is wrong", "127.0.0.2", flipped(summed(t, false, aws("vpce-08d2bf15fac5001c9")), 7+1), "", "proxy-header 127.0.0.2"},
		{"a value that the checksum is not of", "127.0.0.2", flipped(summed(t, false, aws("vpce-08d2bf15fac5001c9")), 1), "", "proxy-header 127.0.0.2"},
		{"a checksum of another length", "127.0.0.2", header(t, proxyproto.TLV{Type: proxyproto.PP2_TYPE_CRC32C, Value: make([]byte, 5)}), "", "proxy-header 127.0.0.2"},
		{"two checksums, one of them wrong", "127.0.0.2", summed(t, false, proxyproto.TLV{Type: proxyproto.PP2_TYPE_CRC32C, Value: make([]byte, 4)}), "", "proxy-header 127.0.0.2"},
		{"LOCAL with a checksum that is wrong", "127.0.0.2", flipped(summed(t, true), 7+1), "", "proxy-header 127.0.0.2"},
		{"UDP", "127.0.0.2", udp, "", "proxy-header 127.0.0.2"},
		{"a UNIX socket", "127.0.0.2", unix, "", "proxy-header 127.0.0.2"},
	} {
		if got := ask(c.from, c.head); got != c.want {
			t.Errorf("%s: it was answered %q, want %q", c.name, got, c.want)
		}
		if c.why != "" {
			if got := <-refused; got != c.why {
				t.Errorf("%s: it was refused as %q, want %q", c.name, got, c.why)
			}
		}
	}
	for what, head := range map[string][]byte{"LOCAL": local, "LOCAL with a checksum": summed(t, true)} {
		if got := ask("127.0.0.2", head); !strings.HasPrefix(got, "public/balancer||127.0.0.2:") {
			t.Errorf("%s: %q", what, got)
		}
	}
	// A look whether the door is there is no refusal, nor is a load balancer's own connection that of a client.
	_ = dialFrom(t, "127.0.0.2", d).Close()
	rude := dialFrom(t, "127.0.0.2", d)
	_ = rude.SetLinger(0)
	_ = rude.Close()
	dialFrom(t, "127.0.0.2", d).closed(t)
	d.Limit(Limits{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Clients: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	if got := ask("127.0.0.2", local); !strings.HasPrefix(got, "public/balancer||127.0.0.2:") {
		t.Errorf("LOCAL, where clients are named: %q", got)
	}
	if got := ask("127.0.0.2", whole); got != "" {
		t.Errorf("no client: %q", got)
	}
	if got := <-refused; got != "client 192.0.2.7" {
		t.Errorf("no client is refused as %q", got)
	}
	d.Limit(Limits{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	truncated(t, d, whole)

	// Who is listed no more is cut, and whose link is taken away can be.
	l := dialFrom(t, "127.0.0.2", d)
	if err := l.ask(string(whole) + hello); err != nil {
		t.Fatal(err)
	}
	d.Cut(func(p *Peer) bool { return p.Link() == "vpce-08d2bf15fac5001c9" })
	l.closed(t)
	l = dialFrom(t, "127.0.0.2", d)
	if err := l.ask(string(whole) + hello); err != nil {
		t.Fatal(err)
	}
	d.Limit(Limits{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}})
	l.closed(t)
}

// Where a link, or a name that a proxy is asked for, leads may change between the look and the connection's registration: what is cut by then is cut all the same.
func TestPlaceChangesMeanwhile(t *testing.T) {
	mine, public := Zone{Kind: Private, Door: "pe", Registry: "mine", Endpoint: "e1"}, Zone{Kind: Public, Door: "balancer"}
	for name, says := range map[string]string{"link": string(header(t, aws("vpce-0"))), "name": "CONNECT mine:443 HTTP/1.1\r\nHost: mine\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			var now atomic.Pointer[Zone]
			now.Store(&mine)
			looked, changed := make(chan bool, 1), make(chan bool)
			place := func(string) Zone {
				z := *now.Load()
				select {
				case looked <- true: // the first time
					<-changed
				default:
				}
				return z
			}
			o := DoorOptions{Zone: public, Limits: Limits{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}, Links: place}
			if name == "name" {
				o = DoorOptions{Zone: public, Connect: func(string) bool { return true }, Place: place}
			}
			d := h.open(t, o, h.says())
			l := dialFrom(t, "127.0.0.2", d)
			_, _ = io.WriteString(l, says)
			for len(looked) == 0 {
				time.Sleep(time.Millisecond)
			}
			now.Store(&public)
			d.Cut(func(p *Peer) bool { return p.Zone != public })
			close(changed)
			_ = l.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.WriteString(l, "GET / HTTP/1.1\r\nHost: mine\r\nConnection: close\r\n\r\n")
			if b, _ := io.ReadAll(l); strings.Contains(string(b), "private/pe") {
				t.Errorf("a connection that stands there no more is served: %s", b)
			}
		})
	}
}

// A door that stops cuts off who is about to say where he wants to go, and that is no refusal.
func TestStopWhileTheyOpen(t *testing.T) {
	public := Zone{Kind: Public, Door: "balancer"}
	for name, c := range map[string]struct {
		o    DoorOptions
		says string
	}{
		"link": {DoorOptions{Zone: public, Limits: Limits{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}, Links: func(string) Zone { return public }}, string(header(t, aws("vpce-0"))[:20])},
		"name": {DoorOptions{Zone: public, Connect: func(string) bool { return true }}, "CONNECT mine:443 HT"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			refused := make(chan string, 10)
			c.o.HeaderTimeout, c.o.Refused = time.Minute, func(_ Zone, _ netip.AddrPort, reason string) { refused <- reason }
			d := h.open(t, c.o, h.says())
			l := dialFrom(t, "127.0.0.2", d)
			_, _ = io.WriteString(l, c.says)
			until(t, d, 1)
			d.Stop()
			l.closed(t)
			until(t, d, 0)
			if len(refused) > 0 {
				t.Errorf("it is refused as %q", <-refused)
			}
		})
	}
}

// truncated sends each beginning of a header and nothing more: the door gives it up after its time and keeps nothing of it.
func truncated(t *testing.T, d *Door, whole []byte) {
	t.Helper()
	var all []net.Conn
	for n := range len(whole) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
		c, err := dialer.Dial("tcp", d.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(whole[:n])
		all = append(all, c)
	}
	for n, c := range all {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("%d bytes of a header were answered %q", n, got)
		}
		_ = c.Close()
	}
	until(t, d, 0)
}

// What asks a proxy of a virtual network for a name of one of its endpoints stands in that endpoint's zone.
func TestProxyPlacesByTheNameAsked(t *testing.T) {
	h := newHouse(t)
	d := h.open(t, DoorOptions{Zone: Zone{Kind: Public, Door: "proxy"}, Connect: func(string) bool { return true },
		Place: func(host string) Zone {
			if Normal(host) == "mine" {
				return Zone{Kind: Private, Door: "pe", Registry: "mine", Endpoint: "e1"}
			}
			return Zone{Kind: Public, Door: "proxy"}
		}}, h.says())
	for host, want := range map[string]string{"mine:443": "private/pe|mine|", "other:443": "public/proxy||"} {
		l := dialFrom(t, "127.0.0.1", d)
		_ = l.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = fmt.Fprintf(l, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\nGET / HTTP/1.1\r\nHost: mine\r\nConnection: close\r\n\r\n", host, host)
		b, _ := io.ReadAll(l)
		if !strings.Contains(string(b), "\r\n\r\n"+want) {
			t.Errorf("%s: %s", host, b)
		}
	}
}

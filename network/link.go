// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// A PROXY header of version 2: its fixed part, and how long the rest may be.
const (
	headFixed = 16
	headMost  = 4096
)

var (
	errHead    = errors.New("no PROXY header of version 2 that is whole")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	signature  = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// unwrap reads the PROXY header of a load balancer's connection and places the connection by it. It reads not a byte more, so that the socket stays the connection's own.
func (l *tunnelListener) unwrap(socket *net.TCPConn) {
	balancer := address(socket)
	_ = socket.SetDeadline(time.Now().Add(l.d.o.HeaderTimeout))
	heard := &listening{Reader: socket}
	client, link, err := readHead(heard)
	if err != nil && !heard.anything {
		l.d.leave(socket) // a look whether the door is there
		return
	}
	if err != nil {
		l.close(socket, l.d.o.Zone, balancer, "proxy-header")
		return
	}
	place := func() Zone { return l.d.o.Links(link) }
	p := Peer{Zone: place(), Addr: balancer, via: balancer, by: link}
	if client.IsValid() {
		p.Addr = client
	}
	if reason := l.d.limits.Load().keeps(&p, 1); reason != "" {
		l.close(socket, p.Zone, p.Addr, reason)
		return
	}
	l.hand(socket, nil, p, place)
}

func (l *tunnelListener) close(socket *net.TCPConn, z Zone, client netip.AddrPort, reason string) {
	_ = socket.SetLinger(0)
	l.d.leave(socket)
	l.d.refused(z, client, reason)
}

// readHead reads one header: whose connection it is, and the private link that it came by. For a connection of the load balancer's own (LOCAL) both are empty.
func readHead(r io.Reader) (client netip.AddrPort, link string, err error) {
	head := make([]byte, headFixed, headFixed+headMost)
	if _, err := io.ReadFull(r, head); err != nil {
		return client, "", err
	}
	rest := int(binary.BigEndian.Uint16(head[14:]))
	if !bytes.Equal(head[:len(signature)], signature) || rest > headMost {
		return client, "", errHead
	}
	head = head[:headFixed+rest]
	if _, err := io.ReadFull(r, head[headFixed:]); err != nil {
		return client, "", err
	}
	if !checks(head) {
		return client, "", errHead
	}
	switch head[12] {
	case byte(proxyproto.LOCAL):
		return client, "", nil
	case byte(proxyproto.PROXY):
	default:
		return client, "", errHead
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(head), len(head)+1))
	if err != nil {
		return client, "", err
	}
	source, _, ok := h.TCPAddrs()
	if !ok {
		return client, "", errHead
	}
	client = source.AddrPort()
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	tlvs, err := h.TLVs()
	if err != nil || !client.Addr().IsValid() {
		return client, "", errHead
	}
	link, err = linkOf(tlvs)
	return client, link, err
}

// checks reports whether the checksum of a whole header is right, where it has one: a value of type CRC32C, computed over the header with zeroes in its place. Values that run over the end are
// for others to judge.
func checks(head []byte) bool {
	at := headFixed
	switch head[13] >> 4 {
	case 1: // IPv4
		at += 2*4 + 2*2
	case 2: // IPv6
		at += 2*16 + 2*2
	case 3: // UNIX
		at += 2 * 108
	}
	for at+3 <= len(head) {
		end := at + 3 + int(binary.BigEndian.Uint16(head[at+1:]))
		if end > len(head) {
			break
		}
		if head[at] == byte(proxyproto.PP2_TYPE_CRC32C) {
			if end-at != 3+4 {
				return false
			}
			blank := bytes.Clone(head)
			clear(blank[at+3 : end])
			if crc32.Checksum(blank, castagnoli) != binary.BigEndian.Uint32(head[at+3:]) {
				return false
			}
		}
		at = end
	}
	return true
}

// linkOf is the private link that the values of a header name, as text. A header that names two is in error, for nobody could say which one is meant, and so is one that names a link
// which can't be read: whoever came by it has an address of a foreign network.
func linkOf(tlvs []proxyproto.TLV) (string, error) {
	var links []string
	for i := range tlvs {
		one, before := tlvs[i:i+1], len(links)
		if id := tlvparse.FindAWSVPCEndpointID(one); id != "" {
			links = append(links, id)
		}
		if id, ok := tlvparse.FindAzurePrivateEndpointLinkID(one); ok {
			links = append(links, strconv.FormatUint(uint64(id), 10))
		}
		if id, ok := tlvparse.ExtractPSCConnectionID(one); ok {
			links = append(links, strconv.FormatUint(id, 10))
		}
		switch tlvs[i].Type {
		case tlvparse.PP2_TYPE_AWS, tlvparse.PP2_TYPE_AZURE, tlvparse.PP2_TYPE_GCP:
			if len(links) == before {
				return "", errHead
			}
		}
	}
	switch len(links) {
	case 0:
		return "", nil
	case 1:
		return links[0], nil
	}
	return "", errHead
}

// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask asks a resolver; the answer as text: code, then addresses.
func ask(t *testing.T, network, address, name string, kind uint16) string {
	t.Helper()
	said, err := askFrom(t, "", network, address, name, kind)
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// askFrom is ask from an address of this machine.
func askFrom(t *testing.T, from, network, address, name string, kind uint16) (string, error) {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	switch {
	case from != "" && network == "udp":
		dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	case from != "":
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	a, _, err := (&dns.Client{Net: network, Dialer: dialer, Timeout: 10 * time.Second}).Exchange(q, address)
	if err != nil {
		return "", err
	}
	var all []string
	for _, r := range a.Answer {
		switch r := r.(type) {
		case *dns.A:
			all = append(all, r.A.String())
		default:
			all = append(all, dns.TypeToString[r.Header().Rrtype])
		}
	}
	if a.RecursionAvailable {
		t.Error("recursion is offered")
	}
	return strings.TrimSpace(dns.RcodeToString[a.Rcode] + " " + strings.Join(all, ",")), nil
}

func (c *closed) names(t *testing.T) {
	const suffix = ".azurecr.localhost"
	for _, q := range []struct {
		at, name string
		kind     uint16
		want     string
	}{
		{c.dns, "factory" + suffix, dns.TypeA, "NOERROR 127.20.1.4"},
		{c.dns, "FACTORY" + suffix, dns.TypeA, "NOERROR 127.20.1.4"},
		{c.dns, "factory.privatelink" + suffix, dns.TypeA, "NOERROR 127.20.1.4"},
		{c.dns, "factory.centralus.data" + suffix, dns.TypeA, "NOERROR 127.20.1.5"},
		{c.dns, "factory.centralus.data.privatelink" + suffix, dns.TypeA, "NOERROR 127.20.1.5"},
		{c.dns, "factory.westus.data" + suffix, dns.TypeA, "NXDOMAIN"},
		{c.dns, "factory" + suffix, dns.TypeAAAA, "NOERROR"},
		{c.dns, "factory" + suffix, dns.TypeTXT, "NOERROR"},
		{c.dns, "others" + suffix, dns.TypeA, "NOERROR 192.0.2.80"},
		{c.dns, "nobody" + suffix, dns.TypeA, "NXDOMAIN"},
		{c.dns, "azurecr.localhost", dns.TypeSOA, "NOERROR SOA"},
		{c.dns, "azurecr.localhost", dns.TypeNS, "NOERROR"},
		{c.dns, "azurecr.localhost", dns.TypeANY, "NOERROR SOA"},
		{c.dns, "factory" + suffix, dns.TypeANY, "NOERROR 127.20.1.4"},
		{c.dns, "factory" + suffix, dns.TypeHTTPS, "NOERROR"},
		{c.dns, "data" + suffix, dns.TypeA, "NOERROR"},
		{c.dns, "centralus.data" + suffix, dns.TypeA, "NOERROR"},
		{c.dns, "privatelink" + suffix, dns.TypeA, "NOERROR"},
		{c.dns, "data.privatelink" + suffix, dns.TypeA, "NOERROR"},
		{c.dns, "centralus.data.privatelink" + suffix, dns.TypeA, "NOERROR"},
		{c.dns, "x.centralus.data" + suffix, dns.TypeA, "NXDOMAIN"},
		{c.dns, "x.factory" + suffix, dns.TypeA, "NXDOMAIN"},
		{c.dns, "factory.data" + suffix, dns.TypeA, "NOERROR"},
		{c.dns, "*" + suffix, dns.TypeA, "NXDOMAIN"},
		{c.dns, "factory\\000" + suffix, dns.TypeA, "NXDOMAIN"},
		{c.dns, "factory\\.x" + suffix, dns.TypeA, "NXDOMAIN"},
		{c.dns, "localhost", dns.TypeA, "REFUSED"},
		{c.dns, ".", dns.TypeNS, "REFUSED"},
		{c.dns, "xazurecr.localhost", dns.TypeA, "REFUSED"},
		{c.dns, "factory" + suffix + ".example.com", dns.TypeA, "REFUSED"},
		{c.dns, strings.Repeat(strings.Repeat("x", 63)+".", 3) + "azurecr.localhost", dns.TypeA, "NXDOMAIN"},
		{c.dns, "example.com", dns.TypeA, "REFUSED"},
		{c.dnsPublic, "factory" + suffix, dns.TypeA, "NOERROR 192.0.2.80"},
		{c.dnsPublic, "factory.privatelink" + suffix, dns.TypeA, "NXDOMAIN"},
		{c.dnsPublic, "nobody.privatelink" + suffix, dns.TypeA, "NXDOMAIN"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := ask(t, network, q.at, q.name, q.kind); got != q.want {
				t.Errorf("%s %s %s at %s: %q, want %q", network, dns.TypeToString[q.kind], q.name, q.at, got, q.want)
			}
		}
	}
	// At the network's address, who is not among its clients is told what everybody is.
	for name, want := range map[string]string{"factory": "NOERROR 192.0.2.80", "factory.privatelink": "NXDOMAIN", "nobody": "NXDOMAIN"} {
		for _, network := range []string{"udp", "tcp"} {
			if got, err := askFrom(t, "127.0.0.9", network, c.dns, name+suffix, dns.TypeA); got != want {
				t.Errorf("%s %s asked by a stranger: %q, %v, want %q", network, name, got, err, want)
			}
		}
	}
	for _, kind := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
		if got := ask(t, "tcp", c.dns, "azurecr.localhost", kind); got != "REFUSED" {
			t.Errorf("a transfer: %q", got)
		}
	}
	c.strange(t)
	c.crowd(t)
}

// crowd: connections beyond those that a resolver holds are closed, and counted.
func (c *closed) crowd(t *testing.T) {
	const beyond = 20
	count := func() float64 {
		m := regexp.MustCompile(`embargo_network_refusals_total\{rule="limit"\} (\S+)`).FindStringSubmatch(c.admin("/metrics").body)
		if m == nil {
			return 0
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	for range 256 + beyond {
		conn, err := net.Dial("tcp", c.dns)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	for end := time.Now().Add(20 * time.Second); count() < before+beyond; time.Sleep(10 * time.Millisecond) { // until they have been accepted
		if time.Now().After(end) {
			t.Fatalf("of %d connections too many %v were refused", beyond, count()-before)
		}
	}
}

// strange: messages that are no questions get no more than an error, and none at all where an answer would be answered.
func (c *closed) strange(t *testing.T) {
	message := func(change func(m *dns.Msg)) []byte {
		m := new(dns.Msg)
		m.SetQuestion("factory.azurecr.localhost.", dns.TypeA)
		change(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain := message(func(*dns.Msg) {})
	loop := slices.Concat(plain[:12], []byte{0xc0, 12, 0, 1, 0, 1})
	for what, w := range map[string]struct {
		message []byte
		want    int // -1: nothing
	}{
		"a question":     {plain, dns.RcodeSuccess},
		"an answer":      {message(func(m *dns.Msg) { m.Response = true }), -1},
		"two questions":  {message(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		"no question":    {message(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		"an update":      {message(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		"a notification": {message(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		"the server's name": {message(func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
		}), dns.RcodeRefused},
		"any class":           {message(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		"recursion asked for": {message(func(m *dns.Msg) { m.Question[0].Name = "example.com."; m.RecursionDesired = true }), dns.RcodeRefused},
		"a large EDNS buffer": {message(func(m *dns.Msg) { m.SetEdns0(65535, true) }), dns.RcodeSuccess},
		"a version of EDNS that is not there": {message(func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			m.IsEdns0().SetVersion(1)
		}), dns.RcodeBadVers},
		"a name that is itself": {loop, dns.RcodeFormatError},
		"half a question":       {plain[:20], dns.RcodeFormatError},
		"half a header":         {plain[:7], -1},
	} {
		conn, err := net.Dial("udp", c.dns)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(w.message)
		if w.want < 0 { // what is asked after it is answered first
			_, _ = conn.Write(message(func(m *dns.Msg) { m.Id = 4711 }))
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 65535)
		n, err := conn.Read(b)
		var a dns.Msg
		if err == nil {
			err = a.Unpack(b[:n])
		}
		var q dns.Msg
		if q.Unpack(w.message) == nil && w.want >= 0 && (q.IsEdns0() == nil) != (a.IsEdns0() == nil) {
			t.Errorf("%s: whether it has EDNS is not answered in kind: %v", what, &a)
		}
		if err != nil || w.want >= 0 && a.Rcode != w.want || w.want < 0 && a.Id != 4711 || n > dns.MinMsgSize {
			t.Errorf("%s: %v, %d bytes, %v", what, err, n, &a)
		}
		_ = conn.Close()
	}
}

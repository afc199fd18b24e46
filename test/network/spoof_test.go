// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// An address in a rule is the client's own, or told by who may tell it: of all that say that they come from there, those alone enter.
func TestSpoofedAddresses(t *testing.T) {
	balancer := instance.FreePort(t)
	h := newHouse(t, fmt.Sprintf("virtualNetworks:\n- {id: %s, door: proxy, listen: %q, tls: true, from: [127.0.0.2], links: {vpce-1: %s}}\ntrustedProxies: [127.0.0.6, 10.0.0.6]\n", vnet2, balancer, resource("balanced")))
	h.CreateRegistry("factory", nil)
	h.put("factory", "balanced", vnet2, meta.EndpointApproved, "127.21.4.4")
	if a := h.Patch("factory", instance.J{"networkRuleSet": instance.J{"defaultAction": "Deny", "ipRules": []any{instance.J{"action": "Allow", "value": "203.0.113.0/24"}}}}); a.Status != http.StatusOK {
		t.Fatal(a)
	}
	public := h.Listening(t).Public
	const (
		forwarded = "X-Forwarded-For: "
		nothing   = 0x04 // PP2_TYPE_NOOP
		aws       = 0xEA
		unknown   = "\x01vpce-9"
	)
	enters, refused := http.StatusUnauthorized, http.StatusForbidden
	rows := []struct {
		what, from, address, first string
		headers                    []string
		want                       int
	}{
		{"nobody's word", "127.0.0.1", public, "", nil, refused},
		{"the client's own word", "127.0.0.1", public, "", []string{forwarded + "203.0.113.7"}, refused},
		{"in other words", "127.0.0.1", public, "", []string{"Forwarded: for=203.0.113.7", "X-Real-IP: 203.0.113.7", "True-Client-IP: 203.0.113.7", "CF-Connecting-IP: 203.0.113.7"}, refused},
		{"a trusted proxy's word", "127.0.0.6", public, "", []string{forwarded + "203.0.113.7"}, enters},
		{"with a port", "127.0.0.6", public, "", []string{forwarded + "203.0.113.7:4711"}, enters},
		{"a trusted proxy itself", "127.0.0.6", public, "", nil, refused},
		{"a trusted proxy, in other words", "127.0.0.6", public, "", []string{"Forwarded: for=203.0.113.7", "X-Real-IP: 203.0.113.7"}, refused},
		{"what its client wrote before", "127.0.0.6", public, "", []string{forwarded + "203.0.113.7, 198.51.100.9"}, refused},
		{"what its client wrote before, in a header of its own", "127.0.0.6", public, "", []string{forwarded + "203.0.113.7", forwarded + "198.51.100.9"}, refused},
		{"what its client wrote before, and no address", "127.0.0.6", public, "", []string{forwarded + "203.0.113.7, unknown"}, refused},
		{"what its client wrote before, and nothing", "127.0.0.6", public, "", []string{forwarded + "203.0.113.7,"}, refused},
		{"a trusted proxy before it", "127.0.0.6", public, "", []string{forwarded + "198.51.100.9, 203.0.113.7, 10.0.0.6"}, enters},
		{"the address of a trusted proxy, from elsewhere", "127.0.0.1", public, "", []string{forwarded + "203.0.113.7, 127.0.0.6"}, refused},
		{"a load balancer's word", "127.0.0.2", balancer, headOf("203.0.113.7", nothing), nil, enters},
		{"of another client", "127.0.0.2", balancer, headOf("198.51.100.9", nothing), nil, refused},
		{"which speaks for itself", "127.0.0.2", balancer, headOf("198.51.100.9", nothing), []string{forwarded + "203.0.113.7"}, refused},
		{"which has the number of a trusted proxy", "127.0.0.2", balancer, headOf("10.0.0.6", nothing), []string{forwarded + "203.0.113.7"}, refused},
		{"a network numbered like the rule, by a link that nobody knows", "127.0.0.2", balancer, headOf("203.0.113.7", aws, []byte(unknown)...), nil, refused},
		{"numbered like a trusted proxy, by a link that nobody knows", "127.0.0.2", balancer, headOf("10.0.0.6", aws, []byte(unknown)...), []string{forwarded + "203.0.113.7"}, refused},
		{"no load balancer", "127.0.0.3", balancer, headOf("203.0.113.7", nothing), nil, 0},
	}
	for _, closed := range []bool{false, true} {
		if closed {
			h.Lock("factory")
		}
		for _, r := range rows {
			want := r.want
			if closed && want == enters {
				want = refused
			}
			if got := h.status(r.from, r.address, r.first, "GET /v2/ HTTP/1.1\r\nHost: factory.azurecr.localhost\r\n"+strings.Join(append(r.headers, ""), "\r\n")+"\r\n"); got != want {
				t.Errorf("%s: %d, want %d (closed: %v)", r.what, got, want, closed)
			}
		}
	}
	if got := h.status("127.0.0.2", balancer, headOf("203.0.113.7", aws, []byte("\x01vpce-1")...), ping("factory.azurecr.localhost")); got != enters {
		t.Errorf("by its own link: %d", got)
	}
}

// status sends first as it is, then a request over TLS, and tells the answer's status; 0 when there is none.
func (h *house) status(from, address, first, request string) int {
	c, err := dial(from, address)
	if err != nil {
		return 0
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, first)
	s := tls.Client(c, &tls.Config{ServerName: "factory.azurecr.localhost", InsecureSkipVerify: true})
	_, _ = io.WriteString(s, request)
	return answer(bufio.NewReader(s))
}

// However many callers a trusted proxy speaks for on one connection, a change of policy that lets them in no longer resets it, once, and without much ado.
func TestManyCallersOfAProxy(t *testing.T) {
	h := newHouse(t, "logLevel: info\ntrustedProxies: [127.0.0.6]\n")
	h.CreateRegistry("factory", nil)
	c, err := dial("127.0.0.6", h.Listening(t).Public)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s := tls.Client(c, &tls.Config{ServerName: "factory.azurecr.localhost", InsecureSkipVerify: true})
	in := bufio.NewReader(s)
	for n := range 2000 { // each twice, with many between
		_, _ = fmt.Fprintf(s, "GET /v2/ HTTP/1.1\r\nHost: factory.azurecr.localhost\r\nX-Forwarded-For: 2001:db8::%x\r\n\r\n", n%1000)
		if got := answer(in); got != http.StatusUnauthorized {
			t.Fatalf("caller %d: %d", n, got)
		}
	}
	h.Lock("factory")
	if _, err := in.ReadByte(); err == nil {
		t.Error("the connection stands after the public side was closed")
	}
	const line = "connection reset by a policy change"
	if n := strings.Count(h.Log(), line); n != 1 {
		t.Errorf("%d connections were reset", n)
	}
	if a := h.Patch("factory", instance.J{"adminUserEnabled": true}); a.Status != http.StatusOK {
		t.Fatal(a)
	}
	if n := strings.Count(h.Log(), line); n != 1 {
		t.Errorf("after a second change %d connections were reset", n)
	}
}

// The many callers of a trusted proxy, too, keep their connection while a change of policy lets in whoever was let in, and lose it when it does not, also when the rules come back.
func TestManyCallersStay(t *testing.T) {
	h := newHouse(t, "trustedProxies: [127.0.0.6]\n")
	h.CreateRegistry("factory", nil)
	allow := func(ranges ...string) {
		t.Helper()
		rules := []any{}
		for _, r := range ranges {
			rules = append(rules, instance.J{"action": "Allow", "value": r})
		}
		if a := h.Patch("factory", instance.J{"networkRuleSet": instance.J{"defaultAction": "Deny", "ipRules": rules}}); a.Status != http.StatusOK {
			t.Fatal(a)
		}
	}
	var s *tls.Conn
	var in *bufio.Reader
	ask := func(caller string) {
		t.Helper()
		_, _ = fmt.Fprintf(s, "GET /v2/ HTTP/1.1\r\nHost: factory.azurecr.localhost\r\nX-Forwarded-For: %s\r\n\r\n", caller)
		if got := answer(in); got != http.StatusUnauthorized {
			t.Fatalf("caller %s: %d", caller, got)
		}
	}
	begin := func() {
		t.Helper()
		c, err := dial("127.0.0.6", h.Listening(t).Public)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		s = tls.Client(c, &tls.Config{ServerName: "factory.azurecr.localhost", InsecureSkipVerify: true})
		in = bufio.NewReader(s)
		for n := range 300 {
			ask(fmt.Sprintf("198.51.%d.%d", 100+n/200, n%200))
		}
	}
	cut := func(when string) {
		t.Helper()
		_ = s.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := in.ReadByte()
		if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
			t.Errorf("the connection stands %s: %v", when, err)
		}
	}
	const callers, others, last = "198.51.100.0/23", "203.0.113.0/24", "198.51.101.99"
	allow(callers)
	begin()
	if a := h.Patch("factory", instance.J{"adminUserEnabled": true}); a.Status != http.StatusOK {
		t.Fatal(a)
	}
	ask(last) // nothing of the network's was changed
	allow("198.51.100.0/24", others, "198.51.101.0/24")
	ask(last) // the same addresses, and others
	ask("203.0.113.9")
	allow(others, callers)
	ask("203.0.113.9")
	allow(callers)
	cut("although a caller's rule is gone")
	begin()
	if a := h.Patch("factory", instance.J{"networkRuleSet": instance.J{"defaultAction": "Allow"}}); a.Status != http.StatusOK {
		t.Fatal(a)
	}
	ask("192.0.2.1") // who is in no rule, while there is none
	allow(callers)
	cut("with a caller that was let in while there was no rule")
	begin()
	allow("198.51.100.0/24", "198.51.101.0/26", others)
	cut("although some callers' rule is gone")
}

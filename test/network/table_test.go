// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// closed is an installation with one registry that only its virtual network reaches.
type closed struct {
	*house
	public, balancer, address, inside, dns, dnsPublic string
	roots                                             *x509.CertPool
	digest, secret, token                             string
}

func newClosed(t *testing.T) *closed {
	t.Helper()
	c := &closed{balancer: instance.FreePort(t), inside: instance.FreePort(t), dns: instance.FreePort(t), dnsPublic: instance.FreePort(t)}
	port := instance.FreePort(t)
	port = port[strings.LastIndexByte(port, ':')+1:]
	c.address = "127.20.1.4:" + port
	c.house = newHouse(t, fmt.Sprintf(`
virtualNetworks:
  - id: %[1]s
    door: address
    port: %[3]s
    tls: false
    clients: [127.0.0.1]
    proxyListen: %[4]s
  - id: %[2]s
    door: proxy
    listen: %[5]s
    tls: false
    from: [127.0.0.2]
    links:
      vpce-0123456789abcdef0: %[6]s
      "77": %[6]s
dns:
  listen: %[7]s
  public: [192.0.2.80]
  networks:
    - {network: %[1]s, listen: "%[8]s"}
`, vnet, vnet2, port, c.inside, c.balancer, resource("balanced"), c.dnsPublic, c.dns))
	c.public = c.Listening(t).Public
	c.CreateRegistry("factory", instance.J{"anonymousPullEnabled": true})
	c.CreateRegistry("others", instance.J{"anonymousPullEnabled": true})
	blob := make([]byte, 64)
	if _, err := rand.Read(blob); err != nil {
		t.Fatal(err)
	}
	c.secret, c.digest = string(blob), instance.Digest(blob)
	if _, err := c.PushImage("factory", "app", "v1", blob); err != nil {
		t.Fatal(err)
	}
	c.token = c.bearer("factory")
	c.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.1.4", "127.20.1.5")
	c.put("factory", "balanced", vnet2, meta.EndpointApproved, "127.21.1.4")
	c.Lock("factory")
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	c.roots = x509.NewCertPool()
	c.roots.AppendCertsFromPEM(pem)
	return c
}

// bearer is a token for pulls from the registry's repository app.
func (h *house) bearer(registry string) string {
	h.t.Helper()
	login := h.LoginServer(registry)
	token, a, err := h.RegistryToken("https://"+login, login, h.ClientID, h.ClientSecret, "repository:app:pull")
	if err != nil || token == "" {
		h.t.Fatal(a, err)
	}
	return token
}

// raw sends bytes, over TLS when sni is given, and returns everything that comes back.
func (c *closed) raw(from, address, sni, request string) string {
	conn, err := dial(from, address)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	if sni != "" {
		name := sni
		if name == "-" {
			name = ""
		}
		conn = tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	_, _ = io.WriteString(conn, request)
	b, _ := io.ReadAll(conn)
	return string(b)
}

func status(answer string) string {
	if len(answer) < 12 {
		return ""
	}
	return answer[9:12]
}

// head is a PROXY header of version 2 with one value, for a client at 192.0.2.7:1234.
func head(kind byte, value ...byte) string { return headOf("192.0.2.7", kind, value...) }

// headOf is head for a client at another address.
func headOf(client string, kind byte, value ...byte) string {
	tlv := append([]byte{kind, byte(len(value) >> 8), byte(len(value))}, value...)
	ip := netip.MustParseAddr(client).As4()
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11")
	b = binary.BigEndian.AppendUint16(b, uint16(12+len(tlv)))
	b = append(append(b, ip[:]...), 10, 0, 0, 1, 4, 210, 1, 187)
	return string(append(b, tlv...))
}

// Hostile ways to a registry that its own network alone reaches: each has one answer, and none of them serves anything.
func TestHostile(t *testing.T) {
	c := newClosed(t)
	blob := "/v2/app/blobs/" + c.digest
	get := func(lines ...string) string {
		return "GET " + blob + " HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\nAuthorization: Bearer " + c.token + "\r\nConnection: close\r\n\r\n"
	}
	const name, link = "factory.azurecr.localhost", "factory.privatelink.azurecr.localhost"
	plain := get("Host: " + name)
	aws := head(0xEA, append([]byte{1}, "vpce-0123456789abcdef0"...)...)
	azure := head(0xEE, 1, 77, 0, 0, 0)
	gcp := head(0xE0, 0, 0, 0, 0, 0, 0, 0, 77)

	// The rights ways serve it.
	for way, got := range map[string]string{
		"address": c.raw("127.0.0.1", c.address, "", plain), "AWS": c.raw("127.0.0.2", c.balancer, "", aws+plain), "Azure": c.raw("127.0.0.2", c.balancer, "", azure+plain),
		"GCP": c.raw("127.0.0.2", c.balancer, "", gcp+plain),
	} {
		if status(got) != "200" || !strings.HasSuffix(got, c.secret) {
			t.Errorf("%s: it is not served: %.300s", way, got)
		}
	}

	for _, endpoint := range []string{"pe1", "balanced"} {
		c.Recorded(t.Context(), "a pull by "+endpoint, func(r map[string]any) bool {
			from, _ := r["source"].(map[string]any)
			return r["outcome"] == "allowed" && r["digest"] == c.digest && from["endpoint"] == resource(endpoint)
		})
	}

	type row struct{ name, from, address, sni, request, want string }
	rows := []row{
		{"plain pull", "127.0.0.1", c.public, name, plain, "403"},
		{"private name", "127.0.0.1", c.public, link, get("Host: " + link), "421"},
		{"private data name", "127.0.0.1", c.public, "factory.centralus.data.privatelink.azurecr.localhost", get("Host: factory.centralus.data.privatelink.azurecr.localhost"), "421"},
		{"data name of a region that the registry is not in", "127.0.0.1", c.public, "factory.westeurope.data.azurecr.localhost", get("Host: factory.westeurope.data.azurecr.localhost"), "403"},
		{"data name of no registry", "127.0.0.1", c.public, "nobody.centralus.data.azurecr.localhost", get("Host: nobody.centralus.data.azurecr.localhost"), "404"},
		{"private name of no registry", "127.0.0.1", c.public, "nobody.privatelink.azurecr.localhost", get("Host: nobody.privatelink.azurecr.localhost"), "421"},
		{"data name", "127.0.0.1", c.public, "factory.centralus.data.azurecr.localhost", get("Host: factory.centralus.data.azurecr.localhost"), "403"},
		{"private name in Host alone", "127.0.0.1", c.public, name, get("Host: " + link), "421"},
		{"private name in SNI alone", "127.0.0.1", c.public, link, plain, "421"},
		{"another registry's SNI", "127.0.0.1", c.public, "others.azurecr.localhost", plain, "421"},
		{"management SNI", "127.0.0.1", c.public, "localhost", plain, "421"},
		{"no SNI", "127.0.0.1", c.public, "-", plain, "421"},
		{"unknown host", "127.0.0.1", c.public, "example.com", get("Host: example.com"), ""},
		{"unknown host behind our SNI", "127.0.0.1", c.public, name, get("Host: example.com"), "421"},
		{"empty host", "127.0.0.1", c.public, name, get("Host: "), "421"},
		{"no host", "127.0.0.1", c.public, name, "GET " + blob + " HTTP/1.1\r\nConnection: close\r\n\r\n", "400"},
		{"HTTP/1.0 without host", "127.0.0.1", c.public, name, "GET " + blob + " HTTP/1.0\r\n\r\n", "421"},
		{"two hosts", "127.0.0.1", c.public, name, get("Host: "+name, "Host: "+link), "400"},
		{"two equal hosts", "127.0.0.1", c.public, name, get("Host: "+name, "Host: "+name), "400"},
		{"absolute form", "127.0.0.1", c.public, name, "GET https://" + name + blob + " HTTP/1.1\r\nHost: " + name + "\r\nConnection: close\r\n\r\n", "403"},
		{"absolute form with a private name", "127.0.0.1", c.public, name, "GET https://" + link + blob + " HTTP/1.1\r\nHost: " + name + "\r\nConnection: close\r\n\r\n", "421"},
		{"absolute form, private Host", "127.0.0.1", c.public, name, "GET https://" + name + blob + " HTTP/1.1\r\nHost: " + link + "\r\nConnection: close\r\n\r\n", "403"},
		{"trailing dot", "127.0.0.1", c.public, name, get("Host: " + name + "."), "403"},
		{"trailing dot, private", "127.0.0.1", c.public, link, get("Host: " + link + "."), "421"},
		{"two trailing dots", "127.0.0.1", c.public, name, get("Host: " + name + ".."), "421"},
		{"upper case", "127.0.0.1", c.public, name, get("Host: FACTORY.AZURECR.LOCALHOST"), "403"},
		{"upper case, private", "127.0.0.1", c.public, link, get("Host: FACTORY.PRIVATELINK.AZURECR.LOCALHOST"), "421"},
		{"a mapped address as host", "127.0.0.1", c.public, name, get("Host: [::ffff:127.20.1.4]"), "421"},
		{"the endpoint's address as host", "127.0.0.1", c.public, name, get("Host: 127.20.1.4"), "421"},
		{"the whole server", "127.0.0.1", c.public, name, "OPTIONS * HTTP/1.1\r\nHost: " + name + "\r\nConnection: close\r\n\r\n", "403"},
		{"the whole server by a private name", "127.0.0.1", c.public, name, "OPTIONS * HTTP/1.1\r\nHost: " + link + "\r\nConnection: close\r\n\r\n", "421"},
		{"name of no registry", "127.0.0.1", c.public, "nobody.azurecr.localhost", get("Host: nobody.azurecr.localhost"), "404"},
		{"a header without an end", "127.0.0.1", c.public, name, get("Host: "+name, "X-Long: "+strings.Repeat("x", 128<<10)), "431"},
		{"a port that is none", "127.0.0.1", c.public, name, get("Host: " + name + ":abc"), "421"},
		{"a host with a user", "127.0.0.1", c.public, name, get("Host: x@" + name), "400"},
		{"a host with a space", "127.0.0.1", c.public, name, get("Host: " + name + " x"), "400"},
		{"PROXY v2 on the public door", "127.0.0.2", c.public, "", aws + plain, ""},
		{"PROXY v2 inside TLS", "127.0.0.2", c.public, name, aws + plain, "400"},
		{"PROXY v1 on the public door", "127.0.0.2", c.public, "", "PROXY TCP4 127.20.1.4 127.20.1.4 1 2\r\n" + plain, ""},
		{"plain HTTP on the public door", "127.0.0.1", c.public, "", plain, "400"},
		{"PROXY v2 on the address door", "127.0.0.1", c.address, "", aws + plain, "400"},
		{"the address door from elsewhere", "127.0.0.9", c.address, "", plain, ""},
		{"PROXY from an address that is not listed", "127.0.0.3", c.balancer, "", aws + plain, ""},
		{"no header from a load balancer", "127.0.0.2", c.balancer, "", plain, ""},
		{"PROXY v1 from a load balancer", "127.0.0.2", c.balancer, "", "PROXY TCP4 127.20.1.4 127.20.1.4 1 2\r\n" + plain, ""},
		{"an unknown link", "127.0.0.2", c.balancer, "", head(0xEA, append([]byte{1}, "vpce-0"...)...) + plain, "403"},
		{"an unknown Azure link", "127.0.0.2", c.balancer, "", head(0xEE, 1, 78, 0, 0, 0) + plain, "403"},
		{"an Azure link of a wrong length", "127.0.0.2", c.balancer, "", head(0xEE, 1, 77, 0, 0) + plain, ""},
		{"an AWS value of another kind", "127.0.0.2", c.balancer, "", head(0xEA, append([]byte{2}, "vpce-0123456789abcdef0"...)...) + plain, ""},
		{"a value of no vendor", "127.0.0.2", c.balancer, "", head(0x05, append([]byte{1}, "vpce-0123456789abcdef0"...)...) + plain, "403"},
		{"a LOCAL connection", "127.0.0.2", c.balancer, "", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" + plain, "403"},
		{"a second header behind the first", "127.0.0.2", c.balancer, "", head(0xEA, append([]byte{1}, "vpce-0"...)...) + aws + plain, "400"},
		{"CONNECT outside for the name", "127.0.0.1", c.Listening(t).Proxy, "", "CONNECT " + name + ":443 HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
		{"CONNECT elsewhere", "127.0.0.1", c.inside, "", "CONNECT example.com:443 HTTP/1.1\r\nHost: " + name + "\r\n\r\n", "403"},
		{"GET at the proxy", "127.0.0.1", c.inside, "", plain, "403"},
		{"CONNECT by absolute form", "127.0.0.1", c.inside, "", "CONNECT http://" + name + "/ HTTP/1.1\r\nHost: " + name + "\r\n\r\n", "400"},
		{"CONNECT with a body", "127.0.0.1", c.inside, "", "CONNECT " + name + ":443 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "400"},
		{"CONNECT to an address of this machine", "127.0.0.1", c.inside, "", "CONNECT 127.0.0.2:22 HTTP/1.1\r\nHost: x\r\n\r\n", "403"},
		{"CONNECT to the endpoint's address", "127.0.0.1", c.inside, "", "CONNECT " + c.address + " HTTP/1.1\r\nHost: x\r\n\r\n", "403"},
		{"CONNECT to a metadata service", "127.0.0.1", c.inside, "", "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: " + name + "\r\n\r\n", "403"},
		{"no CONNECT at all", "127.0.0.1", c.inside, "", "what is this?\r\n\r\n", "400"},
		{"CONNECT with a user", "127.0.0.1", c.inside, "", "CONNECT example.com@" + name + ":443 HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
		{"CONNECT below the name", "127.0.0.1", c.inside, "", "CONNECT x." + name + ":443 HTTP/1.1\r\nHost: x\r\n\r\n", "403"},
		{"the proxy of a network from elsewhere", "127.0.0.9", c.inside, "", "CONNECT " + name + ":443 HTTP/1.1\r\nHost: x\r\n\r\n", ""},
	}
	for _, h := range []string{"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: " + link, "Forwarded: for=127.0.0.1;host=" + link, "X-Real-IP: 127.20.1.4", "X-Ms-Private-Endpoint: pe1",
		"X-Azure-ClientIP: 127.20.1.4", "X-Original-Host: " + link, "X-HTTP-Host-Override: " + link} {
		rows = append(rows, row{"header " + h, "127.0.0.1", c.public, name, get("Host: "+name, h), "403"})
	}
	before := c.refusals()
	for _, r := range rows {
		if strings.HasPrefix(r.name, "CONNECT outside") {
			continue // a tunnel stands open; what is asked through it is asked below
		}
		got := c.raw(r.from, r.address, r.sni, r.request)
		if status(got) != r.want {
			t.Errorf("%s: answered %.200q, want %q", r.name, got, r.want)
		}
		if strings.Contains(got, c.secret) {
			t.Errorf("%s: it was served", r.name)
		}
		now := c.refusals()
		for end := time.Now().Add(10 * time.Second); now == before && time.Now().Before(end); now = c.refusals() {
			time.Sleep(10 * time.Millisecond)
		}
		if now != before+1 {
			t.Errorf("%s: counted as %v refusals", r.name, now-before)
		}
		before = now
	}
	if len(rows) < 40 {
		t.Errorf("the table has %d rows", len(rows))
	}
	t.Run("flood", func(t *testing.T) { c.flood(t, aws, plain) })
	t.Run("tunnels", func(t *testing.T) { c.tunnels(t, name, plain) })
	t.Run("loopback", func(t *testing.T) { c.loopback(t) })
	t.Run("names", c.names)
	t.Run("check", c.check)
	for _, rule := range []string{"client", "proxy-source", "proxy-header", "host", "connect", "tls", "request", "dns", "publicNetworkAccess"} {
		c.Recorded(t.Context(), "a refusal by "+rule, func(r map[string]any) bool { return r["rule"] == rule && r["outcome"] == "refused" })
		if a := c.admin("/metrics"); !strings.Contains(a.body, `embargo_network_refusals_total{rule="`+rule+`"}`) {
			t.Errorf("no counter for %s", rule)
		}
	}
	t.Run("reuse", func(t *testing.T) { c.reuse(t, plain, aws) }) // last: it puts thousands of pulls on record
}

// refusals is how many connections and requests were refused, by all rules.
func (c *closed) refusals() (sum float64) {
	c.t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^embargo_network_refusals_total\{.*\} (\S+)$`).FindAllStringSubmatch(c.admin("/metrics").body, -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			c.t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// check: the command says how a client is seen by each door, and tells nothing of a registry that does not admit it.
func (c *closed) check(t *testing.T) {
	for _, w := range []struct {
		args []string
		want string
	}{
		{[]string{"factory"}, "zone      public/proxy\naddress   127.0.0.1\naccess    refused\nrule      publicNetworkAccess\n"},
		{[]string{"nobody9"}, "zone      public/proxy\naddress   127.0.0.1\naccess    refused\nrule      publicNetworkAccess\n"},
		{[]string{"others"}, "access    admitted\nrule      publicNetworkAccess\n"},
		{[]string{"factory", "--proxy", c.inside}, "zone      private/pe1\naddress   127.0.0.1\naccess    admitted\nrule      privateEndpointConnections\n"},
		{[]string{"factory", "--plain", "--at", c.address}, "zone      private/pe1\naddress   127.0.0.1\naccess    admitted\nrule      privateEndpointConnections\n"},
	} {
		out, stderr, err := c.Run(t.Context(), append([]string{"network", "check", "--data", c.Data}, w.args...)...)
		if !strings.Contains(out, w.want) || (err == nil) != strings.Contains(w.want, "admitted") {
			t.Errorf("%q: %v\n%s%s", w.args, err, out, stderr)
		}
	}
}

// flood sends many broken headers at a time; a whole one is served meanwhile and afterwards.
func (c *closed) flood(t *testing.T, aws, plain string) {
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() {
			_ = c.raw("127.0.0.2", c.balancer, "", strings.Repeat(aws[:n%len(aws)], 3)+"\r\nGARBAGE GARBAGE GARBAGE")
		})
	}
	if got := c.raw("127.0.0.2", c.balancer, "", aws+plain); status(got) != "200" {
		t.Errorf("under a flood: %.200q", got)
	}
	wg.Wait()
	if got := c.raw("127.0.0.2", c.balancer, "", aws+plain); status(got) != "200" {
		t.Errorf("after a flood: %.200q", got)
	}
}

// tunnels: a proxy of the virtual network is inside, the public one is not.
func (c *closed) tunnels(t *testing.T, name, plain string) {
	for _, w := range []struct{ proxy, host, want string }{
		{c.Listening(t).Proxy, name, "403"}, {c.inside, name, "200"}, {c.inside, "others.azurecr.localhost", "401"},
	} {
		conn, err := dial("127.0.0.1", w.proxy)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "CONNECT %s:443 HTTP/1.1\r\nHost: x\r\n\r\n", w.host)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		s := tls.Client(conn, &tls.Config{ServerName: w.host, RootCAs: c.roots, NextProtos: []string{"http/1.1"}})
		_, _ = io.WriteString(s, strings.Replace(plain, name, w.host, 1))
		b, _ := io.ReadAll(s)
		if status(string(b)) != w.want {
			t.Errorf("%s by %s: %.300q, want %s", w.host, w.proxy, b, w.want)
		}
		_ = conn.Close()
	}
}

// loopback: a tunnel to the installation's own host leads to the server's public side whatever its port: to no other service of the machine, the administrator's page among them.
func (c *closed) loopback(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	go func() {
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			t.Errorf("a tunnel leads to another service, from %s", conn.RemoteAddr())
			_ = conn.Close()
		}
	}()
	for _, proxy := range []string{c.Listening(t).Proxy, c.inside} {
		for _, to := range []string{other.Addr().String(), strings.Replace(other.Addr().String(), "127.0.0.1", "localhost", 1), strings.Replace(other.Addr().String(), "127.0.0.1", "[::1]", 1),
			c.Listening(t).Admin, c.dns} {
			for _, ask := range []string{"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", plainIn("localhost")} {
				tunnel := "CONNECT " + to + " HTTP/1.1\r\nHost: x\r\n\r\n"
				for _, tlsName := range []string{"", "localhost", "factory.azurecr.localhost"} {
					if got := c.through(t, proxy, tunnel, tlsName, ask); strings.Contains(got, "embargo_") || strings.HasPrefix(got, "HTTP/1.1 2") {
						t.Errorf("%s by %s, TLS %q: %.300q", to, proxy, tlsName, got)
					}
				}
			}
		}
	}
}

func plainIn(host string) string {
	return "GET /v2/app/manifests/v1 HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"
}

// through opens a tunnel and asks in it.
func (c *closed) through(t *testing.T, proxy, tunnel, tlsName, ask string) string {
	t.Helper()
	conn, err := dial("127.0.0.1", proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, tunnel)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	if tlsName != "" {
		conn = tls.Client(conn, &tls.Config{ServerName: tlsName, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	_, _ = io.WriteString(conn, ask)
	b, _ := io.ReadAll(conn)
	return string(b)
}

// reuse: what is deleted is not reached any more, nor named, and its address serves its next endpoint's registry alone. Pulls that race with the change are whole and
// before it, or not there.
func (c *closed) reuse(t *testing.T, plain, aws string) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_ = c.raw("127.0.0.1", c.address, "", plain)
				_ = c.raw("127.0.0.2", c.balancer, "", aws+plain)
			}
		})
	}
	for n := range 6 {
		approved := []string{meta.EndpointRejected, meta.EndpointApproved}[n%2]
		c.put("factory", "pe1", vnet, approved, "127.20.1.4", "127.20.1.5")
		c.put("factory", "balanced", vnet2, approved, "127.21.1.4")
		for what, got := range map[string]string{"address": c.raw("127.0.0.1", c.address, "", plain), "link": c.raw("127.0.0.2", c.balancer, "", aws+plain)} {
			if served := strings.Contains(got, c.secret); served != (approved == meta.EndpointApproved) {
				t.Errorf("%s when it is %s: %.200q", what, approved, got)
			}
		}
	}
	close(stop)
	wg.Wait()
	c.remove("factory", "pe1")
	if got := ask(t, "udp", c.dns, "factory.azurecr.localhost", dns.TypeA); got != "NOERROR 192.0.2.80" {
		t.Errorf("a name that is gone is answered %q", got)
	}
	c.put("others", "pe3", vnet, meta.EndpointApproved, "127.20.1.4")
	for ask, want := range map[string]string{plain: "421", plainIn("others.azurecr.localhost"): "401"} {
		if got := c.raw("127.0.0.1", c.address, "", ask); status(got) != want || strings.Contains(got, c.secret) {
			t.Errorf("the next endpoint at the address answers %.200q, want %s", got, want)
		}
	}
}

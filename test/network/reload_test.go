// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// large is more than the kernel's buffers hold, so that a download of it is under way until it is read.
func large() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 4<<20) }

// flight is a connection that was served, with a download under way on it.
type flight struct {
	net.Conn
	in   *bufio.Reader
	left int64
	sum  hash.Hash
}

// fly opens a connection from an address of this machine, sends first as it is, begins TLS for the name sni unless it is "", and begins to fetch a blob.
func (h *house) fly(from, address, first, sni, digest string, headers ...string) (*flight, error) {
	c, err := dial(from, address)
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, first); err != nil {
		return nil, err
	}
	f := &flight{Conn: c, in: bufio.NewReader(c), sum: sha256.New()}
	if strings.HasPrefix(first, "CONNECT") {
		if resp, err := http.ReadResponse(f.in, nil); err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("no tunnel: %v %v", resp, err)
		}
	}
	if sni != "" {
		s := tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
		f.Conn, f.in = s, bufio.NewReader(s)
	}
	if _, err := fmt.Fprintf(f.Conn, "GET /v2/app/blobs/%s HTTP/1.1\r\nHost: factory.azurecr.localhost\r\n%s\r\n", digest, strings.Join(append(headers, ""), "\r\n")); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(f.in, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%v, %w", resp, err)
	}
	f.left = resp.ContentLength
	return f, f.read(1 << 20)
}

func (f *flight) read(n int64) error {
	got, err := io.CopyN(f.sum, f.in, n)
	f.left -= got
	return err
}

// whole reads the rest and checks it.
func (f *flight) whole(digest string) error {
	if err := f.read(f.left); err != nil {
		return fmt.Errorf("%d bytes are missing: %w", f.left, err)
	}
	if got := "sha256:" + hex.EncodeToString(f.sum.Sum(nil)); got != digest {
		return fmt.Errorf("the content is %s", got)
	}
	return nil
}

// cut reports whether the rest never comes, and no end of time was waited for it.
func (f *flight) cut() error {
	err := f.read(f.left)
	if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
		return fmt.Errorf("it went on: %d bytes are missing, %v", f.left, err)
	}
	return nil
}

// What a reload of virtualNetworks and trustedProxies narrows is cut, download and all, and refused from then on; what stays allowed keeps its connection.
func TestReloadNetworks(t *testing.T) {
	_, port, _ := net.SplitHostPort(instance.FreePort(t))
	balancer, inside := instance.FreePort(t), instance.FreePort(t)
	address := "127.20.2.4:" + port
	config := func(door, clients, from, links, trusted string) string {
		return fmt.Sprintf("virtualNetworks:\n- {id: %s, door: %s, port: %s, tls: false, clients: [%s], proxyListen: %q}\n- {id: %s, door: proxy, listen: %q, tls: false, from: [%s], links: {%s}}\ntrustedProxies: [%s]\n",
			vnet, door, port, clients, inside, vnet2, balancer, from, links, trusted)
	}
	const one, two = "vpce-1: /subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateEndpoints/first", "vpce-2: /subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateEndpoints/second"
	h := newHouse(t, config("address", "127.0.0.1, 127.0.0.5", "127.0.0.2, 127.0.0.3", one+", "+two, "127.0.0.6, 127.0.0.7, 10.9.9.9"))
	database := "database: \"" + h.url + "\"\n"
	rule := instance.J{"action": "Allow", "value": "203.0.113.7"}
	h.CreateRegistry("factory", instance.J{"anonymousPullEnabled": true})
	blob := large()
	if _, err := h.PushImage("factory", "app", "v1", blob); err != nil {
		t.Fatal(err)
	}
	digest := instance.Digest(blob)
	bearer := "Authorization: Bearer " + h.bearer("factory")
	if a := h.Patch("factory", instance.J{"networkRuleSet": instance.J{"defaultAction": "Deny", "ipRules": []any{rule}}}); a.Status != http.StatusOK {
		t.Fatal(a)
	}
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.2.4")
	h.put("factory", "first", vnet2, meta.EndpointApproved, "127.21.2.4")
	h.put("factory", "second", vnet2, meta.EndpointApproved, "127.21.2.5")
	public := h.Listening(t).Public
	const name = "factory.azurecr.localhost"
	tunnel, link1, link2 := "CONNECT "+name+":443 HTTP/1.1\r\nHost: x\r\n\r\n", head(0xEA, []byte("\x01vpce-1")...), head(0xEA, []byte("\x01vpce-2")...)
	ways := []struct {
		what, from, address, first, sni, forwarded string
		stays                                      bool
		f                                          *flight
	}{
		{what: "address", from: "127.0.0.1", address: address, stays: true},
		{what: "address, no client any more", from: "127.0.0.5", address: address},
		{what: "tunnel", from: "127.0.0.1", address: inside, first: tunnel, sni: name, stays: true},
		{what: "tunnel, no client any more", from: "127.0.0.5", address: inside, first: tunnel, sni: name},
		{what: "link", from: "127.0.0.2", address: balancer, first: link1, stays: true},
		{what: "link, by a load balancer that is none any more", from: "127.0.0.3", address: balancer, first: link1},
		{what: "link that is none any more", from: "127.0.0.2", address: balancer, first: link2},
		{what: "trusted proxy", from: "127.0.0.6", address: public, sni: name, forwarded: "203.0.113.7", stays: true},
		{what: "proxy that is trusted no more", from: "127.0.0.7", address: public, sni: name, forwarded: "203.0.113.7"},
		{what: "trusted proxy before which there is one that is trusted no more", from: "127.0.0.6", address: public, sni: name, forwarded: "203.0.113.7, 10.9.9.9"},
	}
	fly := func(i int) (*flight, error) {
		w := ways[i]
		return h.fly(w.from, w.address, w.first, w.sni, digest, bearer, "X-Forwarded-For: "+w.forwarded)
	}
	var err error
	for i := range ways {
		if ways[i].f, err = fly(i); err != nil {
			t.Fatalf("%s: %v", ways[i].what, err)
		}
	}
	narrow := config("address", "127.0.0.1", "127.0.0.2", one, "127.0.0.6")
	if wrong := h.Configure(narrow + database); wrong != "" {
		t.Fatal(wrong)
	}
	for i, w := range ways {
		if w.stays {
			if err := w.f.whole(digest); err != nil {
				t.Errorf("%s: %v", w.what, err)
			}
			if _, err := io.WriteString(w.f, "GET /v2/ HTTP/1.1\r\nHost: "+name+"\r\nX-Forwarded-For: "+w.forwarded+"\r\n\r\n"); err != nil || answer(w.f.in) != http.StatusUnauthorized {
				t.Errorf("%s: the connection does not serve another request: %v", w.what, err)
			}
			continue
		}
		if err := w.f.cut(); err != nil {
			t.Errorf("%s: %v", w.what, err)
		}
		if _, err := fly(i); err == nil {
			t.Errorf("%s: it is served again", w.what)
		}
	}
	for i := range ways {
		if ways[i].f, err = fly(i); (err == nil) != ways[i].stays {
			t.Fatalf("%s: %v", ways[i].what, err)
		}
	}

	// Without their doors, nobody is inside; what is public goes on.
	if wrong := h.Configure(fmt.Sprintf("virtualNetworks: [{id: %s, door: none}]\ntrustedProxies: [127.0.0.6]\n", vnet) + database); wrong != "" {
		t.Fatal(wrong)
	}
	for i, w := range ways {
		switch {
		case w.f == nil:
		case w.address == public:
			if err := w.f.whole(digest); err != nil {
				t.Errorf("%s: %v", w.what, err)
			}
		default:
			if err := w.f.cut(); err != nil {
				t.Errorf("%s without its door: %v", w.what, err)
			}
			if _, err := fly(i); err == nil {
				t.Errorf("%s without its door: it is served", w.what)
			}
		}
	}
	if wrong := h.Configure(narrow + database); wrong != "" {
		t.Fatal(wrong)
	}
	for i, w := range ways {
		if _, err := fly(i); (err == nil) != w.stays {
			t.Errorf("%s, with the doors back: %v", w.what, err)
		}
	}
}

// write writes the configuration without telling the server.
func (h *house) write(config string) {
	h.t.Helper()
	if err := os.WriteFile(h.Config, []byte(config), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// A file whose networks are wrong is refused with its line and key, by 'config check' and by a reload, which then changes nothing.
func TestNetworksConfig(t *testing.T) {
	free, balancer := instance.FreePort(t), instance.FreePort(t)
	h := newHouse(t, "")
	base := "database: \"" + h.url + "\"\n"
	network := func(more string) string { return "virtualNetworks:\n- {id: " + vnet + ", " + more + "}\n" }
	for what, c := range map[string]struct {
		config, key, says string
		line              int
	}{
		"a bad range of clients":                {network("door: address, clients: [10.0.0.0/33]"), "virtualNetworks", `entry 1: clients: "10.0.0.0/33"`, 2},
		"a bad load balancer":                   {network("door: proxy, listen: \"" + free + "\", tls: false, from: [balancer]"), "virtualNetworks", `entry 1: from: "balancer"`, 2},
		"everybody is a load balancer":          {network("door: proxy, listen: \"" + free + "\", tls: false, from: [127.0.0.2, 0.0.0.0/0]"), "virtualNetworks", "entry 1: from: 0.0.0.0/0 is every address", 2},
		"no load balancers":                     {network("door: proxy, listen: \"" + free + "\", tls: false"), "virtualNetworks", "entry 1: from", 2},
		"no ARM id":                             {"virtualNetworks: [{id: factory}]\n", "virtualNetworks", `entry 1: id: "factory"`, 2},
		"an unknown member":                     {network("dor: address"), "virtualNetworks", "dor", 2},
		"an unknown door":                       {network("door: gate"), "virtualNetworks", `entry 1: door: "gate"`, 2},
		"no port":                               {network("door: address, port: 70000"), "virtualNetworks", "entry 1: port: 70000", 2},
		"no interface":                          {network("door: address, interfaces: [\"eth 0\"]"), "virtualNetworks", `entry 1: interfaces: "eth 0"`, 2},
		"no link":                               {network("door: proxy, listen: \"" + free + "\", tls: false, from: [127.0.0.2], links: {pl-1: " + resource("x") + "}"), "virtualNetworks", `entry 1: links: "pl-1"`, 2},
		"a link that no number is":              {network("door: proxy, listen: \"" + free + "\", tls: false, from: [127.0.0.2], links: {'0077': " + resource("x") + "}"), "virtualNetworks", `entry 1: links: "0077"`, 2},
		"a link beyond 64 bits":                 {network("door: proxy, listen: \"" + free + "\", tls: false, from: [127.0.0.2], links: {'99999999999999999999': " + resource("x") + "}"), "virtualNetworks", `entry 1: links: "99999999999999999999"`, 2},
		"a link to no endpoint":                 {network("door: proxy, listen: \"" + free + "\", tls: false, from: [127.0.0.2], links: {vpce-1: pe1}"), "virtualNetworks", `entry 1: links: "pe1"`, 2},
		"plain HTTP beyond loopback":            {network("door: proxy, listen: \"192.0.2.1:80\", tls: false, from: [127.0.0.2]"), "virtualNetworks", "entry 1: listen: 192.0.2.1:80", 2},
		"load balancers at an address":          {network("door: address, from: [127.0.0.2]"), "virtualNetworks", "entry 1: listen", 2},
		"a network twice":                       {network("door: none") + "- {id: " + strings.ToUpper(vnet[:14]) + vnet[14:] + "}\n", "virtualNetworks", "twice", 2},
		"an address for two networks":           {network("proxyListen: \""+free+"\"") + "- {id: " + vnet2 + ", door: proxy, listen: \"" + free + "\", tls: false, from: [127.0.0.2]}\n", "virtualNetworks", free + " is given to two listeners", 2},
		"an address of a listener":              {"privateListeners: [{address: \"" + free + "\", registry: factory, tls: false}]\n" + network("proxyListen: \""+free+"\""), "virtualNetworks", free + " is given to two listeners", 3},
		"names for an unknown network":          {network("door: none") + "dns: {networks: [{network: " + vnet2 + ", listen: \"" + free + "\"}]}\n", "dns", "is not among virtualNetworks", 4},
		"names at a listener's address":         {network("proxyListen: \""+free+"\"") + "dns: {listen: \"" + free + "\"}\n", "dns", free + " is given to a listener too", 4},
		"names twice at an address":             {network("door: none") + "dns: {listen: \"" + free + "\", networks: [{network: " + vnet + ", listen: \"" + free + "\"}]}\n", "dns", free + " is given twice", 4},
		"names with no address":                 {"dns: {listen: \"" + free + "\", public: [here]}\n", "dns", `public: "here"`, 2},
		"doors where a private listener is all": {network("door: none") + "- {id: " + vnet2 + ", door: address, port: 8443}\nprivateListeners: [{address: \"0.0.0.0:8443\", registry: factory}]\n", "virtualNetworks", "entry 2: port: 8443 is taken at every address by the listener 0.0.0.0:8443 (privateListeners)", 2},
		"doors where inner clients' is all":     {network("door: address, port: 8443, proxyListen: \"[::ffff:0.0.0.0]:8443\""), "virtualNetworks", "entry 1: port: 8443", 2},
		"no trusted proxy":                      {"trustedProxies: [127.0.0.1, 10.0.0.0/99]\n", "trustedProxies", `"10.0.0.0/99"`, 2},
		"everybody is a trusted proxy":          {"trustedProxies: [\"::/0\"]\n", "trustedProxies", "::/0 is every address", 2},
	} {
		place := fmt.Sprintf("%s:%d: %s", h.Config, c.line, c.key)
		said := h.Configure(base + c.config)
		if !strings.Contains(said, place) || !strings.Contains(said, c.says) {
			t.Errorf("%s: the log says %q, and not %q with %q", what, said, place, c.says)
		}
		if _, errs, err := h.Run(t.Context(), "config", "check", "--config", h.Config, "--data", h.Data); err == nil || !strings.Contains(errs, place) || !strings.Contains(errs, c.says) {
			t.Errorf("%s: config check says %v %s", what, err, errs)
		}
	}
	// The server here has its listener from a flag.
	for listen, port := range map[string]string{"0.0.0.0:8443": "port: 8443", ":8443": "port: 8443, interfaces: [lo]", "[::]:443": "tls: true"} {
		wrong := "virtualNetworks: entry 1: port: " + listen[strings.LastIndexByte(listen, ':')+1:] + " is taken at every address by the listener " + listen + " (listen)"
		h.write(base + network("door: address, "+port) + "listen: \"" + listen + "\"\n")
		if _, errs, err := h.Run(t.Context(), "config", "check", "--config", h.Config, "--data", h.Data); err == nil || !strings.Contains(errs, h.Config+":2: "+wrong) {
			t.Errorf("doors at the port of %s: config check says %v %s", listen, err, errs)
		}
	}
	right := base + network("door: address, interfaces: [eth1], clients: [10.0.0.0/24, 127.0.0.1], proxyListen: \""+free+"\"") + "- {id: " + vnet2 + ", door: proxy, listen: \"" + balancer + "\", tls: false, from: [127.0.0.2], links: {vpce-1: " + resource("x") + "}}\ntrustedProxies: [10.0.0.1]\n"
	if wrong := h.Configure(right); wrong != "" {
		t.Error(wrong)
	}
	if _, errs, err := h.Run(t.Context(), "config", "check", "--config", h.Config, "--data", h.Data); err != nil || errs != "" {
		t.Error(err, errs)
	}
	// What is right and seldom meant is warned of: a door that whoever routes to it is inside by.
	for what, c := range map[string]struct{ config, says string }{
		"a listener beyond loopback":            {"privateListeners: [{address: \"10.0.0.5:443\", registry: factory}]\n", "privateListeners: entry 1: without clients"},
		"a listener beyond loopback for some":   {"privateListeners: [{address: \"10.0.0.5:443\", registry: factory, clients: [10.0.0.0/24]}]\n", ""},
		"a listener on loopback":                {"privateListeners: [{address: \"127.0.0.5:443\", registry: factory}]\n", ""},
		"a network without interfaces and such": {network("door: address"), "virtualNetworks: entry 1: without interfaces, and without clients"},
		"a network without interfaces":          {network("door: address, clients: [10.0.0.0/24]"), "virtualNetworks: entry 1: without interfaces, whoever"},
		"a network without clients":             {network("door: address, interfaces: [eth1]"), "virtualNetworks: entry 1: without clients, whoever comes"},
		"a network with both":                   {network("door: address, interfaces: [eth1], clients: [10.0.0.0/24]"), ""},
		"a network for everybody":               {network("door: address, clients: [0.0.0.0/0]"), "virtualNetworks: entry 1: without interfaces, and with every address among the clients"},
		"a listener for everybody":              {"privateListeners: [{address: \"10.0.0.5:443\", registry: factory, clients: [10.0.0.0/24, \"::/0\"]}]\n", "privateListeners: entry 1: without clients"},
		"a network that has no door by address": {network("proxyListen: \"" + free + "\""), ""},
		"a proxy for everybody":                 {network("proxyListen: \"10.0.0.5:3128\""), "virtualNetworks: entry 1: proxyListen: without clients"},
		"a proxy for some":                      {network("clients: [10.0.0.0/24], proxyListen: \"10.0.0.5:3128\""), ""},
		"a proxy by interfaces":                 {network("door: address, interfaces: [eth1], clients: [10.0.0.0/24], proxyListen: \"10.0.0.5:3128\""), "virtualNetworks: entry 1: proxyListen: 10.0.0.5:3128 does not ask by which interface"},
		"names for everybody":                   {"dns: {networks: [{network: " + vnet + ", listen: \"10.0.0.5:53\"}]}\n" + network("door: none"), "dns: networks: factory has neither interfaces nor clients"},
		"names for some":                        {"dns: {networks: [{network: " + vnet + ", listen: \"10.0.0.5:53\"}]}\n" + network("door: none, clients: [10.0.0.0/24]"), ""},
		"names on loopback":                     {"dns: {networks: [{network: " + vnet + ", listen: \"127.0.0.5:53\"}]}\n" + network("door: none"), ""},
	} {
		h.write(base + c.config)
		want := ""
		if c.says != "" {
			want = "warning: " + h.Config + ":2: " + c.says
		}
		out, errs, err := h.Run(t.Context(), "config", "check", "--config", h.Config, "--data", h.Data)
		if err != nil || !strings.Contains(out, "is good") || !strings.HasPrefix(errs, want) || (want == "") != (errs == "") {
			t.Errorf("%s: config check says %v %s%s, want %q", what, err, out, errs, want)
		}
	}
}

// While the endpoints can't be read, a reload narrows the doors that are open all the same, and is not called done until they can be.
func TestReloadWithoutDatabase(t *testing.T) {
	_, port, _ := net.SplitHostPort(instance.FreePort(t))
	config := func(clients string) string {
		return fmt.Sprintf("virtualNetworks:\n- {id: %s, door: address, port: %s, tls: false, clients: [%s]}\n", vnet, port, clients)
	}
	h := newHouse(t, config("127.0.0.1, 127.0.0.5"))
	h.CreateRegistry("factory", nil)
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.7.4")
	at := "127.20.7.4:" + port
	rename := func(from, to string) {
		t.Helper()
		if err := h.db.Write(t.Context(), func(tx *meta.Tx) error {
			_, err := tx.Exec("ALTER TABLE " + from + " RENAME TO " + to)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	says := func(line string) bool {
		return slices.ContainsFunc(h.Lines(), func(l map[string]any) bool { return strings.HasPrefix(fmt.Sprint(l["msg"]), line) })
	}
	until := func(line string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !says(line); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the log does not say %q", line)
			}
		}
	}
	if got := exchange("127.0.0.5", at, ping("factory")); got != http.StatusUnauthorized {
		t.Fatal(got)
	}
	rename("private_addresses", "away")
	h.write(config("127.0.0.1") + "database: \"" + h.url + "\"\n")
	if err := syscall.Kill(h.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until("the configuration is in force, but")
	if got := exchange("127.0.0.5", at, ping("factory")); got != 0 {
		t.Errorf("who is no client any more is answered %d", got)
	}
	if got := exchange("127.0.0.1", at, ping("factory")); got != http.StatusUnauthorized {
		t.Errorf("who still is a client is answered %d", got)
	}
	if a := h.admin("/readyz"); says("configuration reloaded") || !strings.Contains(a.body, "the private endpoints could not be read") {
		t.Errorf("it is called done: %s", a.body)
	}
	rename("away", "private_addresses")
	until("configuration reloaded")
	if a := h.admin("/readyz"); strings.Contains(a.body, "could not be read") {
		t.Errorf("readiness says %s", a.body)
	}
}

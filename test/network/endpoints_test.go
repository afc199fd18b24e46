// SPDX-License-Identifier: Apache-2.0

// Package network_test drives the doors of private endpoints, from inside and from outside of their network.
package network_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

const (
	vnet  = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/factory"
	vnet2 = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/other"
)

// resource is the ARM id of a private endpoint.
func resource(name string) string {
	return "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateEndpoints/" + name
}

// house is a server with registries whose endpoints a test writes.
type house struct {
	*instance.Server
	t  *testing.T
	db *meta.DB
	on map[string]bool
	// url is the database's.
	url string
}

func newHouse(t *testing.T, config string) *house {
	t.Helper()
	// The database stands apart from the data directory: the server then knows that it may not be the only one that writes it.
	url := "sqlite:" + filepath.Join(t.TempDir(), "apart.db")
	s := instance.New(t, "sqlite", config+"\ndatabase: "+url+"\n")
	db, err := meta.Open(t.Context(), meta.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &house{s, t, db, map[string]bool{}, url}
}

// put writes an endpoint and lets the server take notice, as ARM does after its commit.
func (h *house) put(registry, id, network, status string, addresses ...string) {
	h.t.Helper()
	h.change(registry, func(tx *meta.Tx, row meta.RegistryRow) error {
		e := meta.Endpoint{ID: id, ResourceID: resource(id), Registry: row.ID, Connection: "c-" + id, Status: status, Network: strings.ToLower(network), Subnet: strings.ToLower(network) + "/subnets/default"}
		for i, a := range addresses {
			e.Addresses = append(e.Addresses, meta.EndpointAddress{Member: []string{"registry", "registry_data_centralus"}[i], Address: netip.MustParseAddr(a)})
		}
		_, err := tx.PutEndpoint(e)
		return err
	})
}

func (h *house) remove(registry, id string) {
	h.t.Helper()
	h.change(registry, func(tx *meta.Tx, row meta.RegistryRow) error {
		_, err := tx.DeleteEndpoint(meta.Endpoint{ID: id, Registry: row.ID})
		return err
	})
}

func (h *house) change(registry string, fn func(tx *meta.Tx, row meta.RegistryRow) error) {
	h.t.Helper()
	err := h.db.Write(h.t.Context(), func(tx *meta.Tx) error {
		row, err := tx.RegistryByName(registry)
		if err != nil {
			return err
		}
		if row, err = tx.LockRegistry(row.ID); err != nil {
			return err
		}
		return fn(tx, row)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.on[registry] = !h.on[registry]
	if a := h.Patch(registry, instance.J{"adminUserEnabled": h.on[registry]}); a.Status != http.StatusOK {
		h.t.Fatal(a)
	}
}

// dial connects to address from an address of this machine.
func dial(from, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", address)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return c, err
}

// exchange sends raw bytes and tells the status of the answer; 0 when there is none.
func exchange(from, address, request string) int {
	c, err := dial(from, address)
	if err != nil {
		return 0
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, request)
	return answer(bufio.NewReader(c))
}

func answer(in *bufio.Reader) int {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// ping is a request for the registry's base; 401 says that it was reached.
func ping(host string) string {
	return "GET /v2/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
}

// The door of an endpoint opens when it is approved and closes, connections and all, when it is not: before the change is answered.
func TestAddressDoors(t *testing.T) {
	port := instance.FreePort(t)
	port = port[strings.LastIndexByte(port, ':')+1:]
	h := newHouse(t, fmt.Sprintf(`
virtualNetworks:
  - id: %s
    door: address
    port: %s
    tls: false
    clients: [127.0.0.1, 127.20.0.0/16]
  - id: %s
    door: address
    port: %s
    tls: false
`, vnet, port, vnet2, port))
	h.CreateRegistry("factory", nil)
	h.CreateRegistry("others", nil)
	at := "127.20.0.4:" + port
	if got := exchange("127.0.0.1", at, ping("x")); got != 0 {
		t.Fatal("something listens before there is an endpoint:", got)
	}
	h.put("factory", "pe1", vnet, meta.EndpointPending, "127.20.0.4", "127.20.0.5")
	if got := exchange("127.0.0.1", at, ping("x")); got != 0 {
		t.Error("a pending endpoint has a door:", got)
	}
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.0.4", "127.20.0.5")
	for _, a := range []string{at, "127.20.0.5:" + port} {
		if got := exchange("127.0.0.1", a, ping("factory")); got != http.StatusUnauthorized {
			t.Errorf("%s answers %d", a, got)
		}
	}
	h.Lock("factory")
	if got := exchange("127.0.0.1", at, ping("factory")); got != http.StatusUnauthorized {
		t.Errorf("with the public side closed it answers %d", got)
	}
	if got := exchange("127.0.0.9", at, ping("factory")); got != 0 {
		t.Error("a client that is not listed was answered", got)
	}
	h.Recorded(t.Context(), "the refused client, with the endpoint", func(r map[string]any) bool {
		source, _ := r["source"].(map[string]any)
		return r["rule"] == "client" && source["zone"] == "private/pe1" && source["endpoint"] == resource("pe1")
	})

	// The door of an endpoint is asked for its registry, or for none by name.
	if got := exchange("127.0.0.1", at, ping("factory.azurecr.localhost")); got != http.StatusUnauthorized {
		t.Errorf("asked by its name it answers %d", got)
	}
	for host, want := range map[string]int{
		"others.azurecr.localhost":                             http.StatusMisdirectedRequest,
		"factory-zzzz.azurecr.localhost":                       http.StatusMisdirectedRequest,
		"factory-x.centralus.data.azurecr.localhost":           http.StatusMisdirectedRequest,
		"factory.nowhere.data.azurecr.localhost":               http.StatusMisdirectedRequest,
		"factory.nowhere.data.privatelink.azurecr.localhost":   http.StatusMisdirectedRequest,
		"factory.centralus.data.azurecr.localhost":             http.StatusUnauthorized,
		"factory.centralus.data.privatelink.azurecr.localhost": http.StatusUnauthorized,
		"factory.privatelink.azurecr.localhost":                http.StatusUnauthorized,
	} {
		if got := exchange("127.0.0.1", at, ping(host)); got != want {
			t.Errorf("asked for %s it answers %d, want %d", host, got, want)
		}
	}

	// Another endpoint at the same address has no door, whatever its name, also after a restart and when the first was away for a while; that takes nothing down.
	h.put("others", "later", vnet2, meta.EndpointApproved, "127.20.0.4")
	first := func(when string) {
		t.Helper()
		if got := exchange("127.0.0.1", at, ping("factory.azurecr.localhost")); got != http.StatusUnauthorized {
			t.Errorf("%s the first endpoint answers %d", when, got)
		}
		if a := h.admin("/readyz"); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "private endpoint later: ") || !strings.Contains(a.body, "private endpoint pe1, which was made before") {
			t.Errorf("%s readiness says %d %s", when, a.StatusCode, a.body)
		}
		if a := h.admin("/metrics"); !strings.Contains(a.body, `embargo_endpoint_doors{state="failed"} 1`) || !strings.Contains(a.body, `embargo_endpoint_doors{state="open"} 2`) {
			t.Errorf("%s the metrics do not count the doors", when)
		}
	}
	first("beside the second")
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	h.Start()
	first("after a restart")
	h.put("factory", "pe1", vnet, meta.EndpointRejected, "127.20.0.4", "127.20.0.5")
	if got := exchange("127.0.0.1", at, ping("factory.azurecr.localhost")); got != http.StatusMisdirectedRequest {
		t.Errorf("what has the first one's address now answers for its registry: %d", got)
	}
	if got := exchange("127.0.0.1", at, ping("others.azurecr.localhost")); got != http.StatusUnauthorized {
		t.Errorf("once the first is rejected the second answers %d", got)
	}
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.0.4", "127.20.0.5")
	first("approved again")

	for _, end := range []func(){
		func() { h.put("factory", "pe1", vnet, meta.EndpointRejected, "127.20.0.4") },
		func() { h.remove("factory", "pe1") },
	} {
		h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.0.6")
		c, err := dial("127.0.0.1", "127.20.0.6:"+port)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		_, _ = io.WriteString(c, ping("factory"))
		if got := answer(in); got != http.StatusUnauthorized {
			t.Fatal(got)
		}
		end()
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := in.ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
			t.Error("the connection stands after its endpoint is gone:", err)
		}
		_ = c.Close()
		if got := exchange("127.0.0.1", "127.20.0.6:"+port, ping("factory")); got != 0 {
			t.Error("the door stands after its endpoint is gone:", got)
		}
	}
	// The address is free now, and another registry's endpoint gets it: nothing of the first is reached there.
	if got := exchange("127.0.0.1", at, ping("factory")); got != http.StatusUnauthorized {
		t.Errorf("the second endpoint's door did not open: %d", got)
	}
	rec := h.Recorded(t.Context(), "a refused connection", func(r map[string]any) bool {
		return r["rule"] == "client" && strings.Contains(fmt.Sprint(r["source"]), "127.0.0.9")
	})
	if !strings.Contains(fmt.Sprint(rec["source"]), "private/pe1") {
		t.Error(rec)
	}
}

type shown struct {
	*http.Response
	body string
}

// admin reads a page of the admin listener.
func (h *house) admin(path string) shown {
	h.t.Helper()
	resp, err := http.Get("http://" + h.Listening(h.t).Admin + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return shown{resp, string(b)}
}

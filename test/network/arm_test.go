// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// connections are the private endpoint connections of a registry, as ARM shows them.
func connections(t *testing.T, s *instance.Server, registry string) (ids []string) {
	t.Helper()
	a := s.ARM(http.MethodGet, s.RegistryID(registry)+"/privateEndpointConnections?api-version=2022-02-01-preview", nil)
	var list struct{ Value []struct{ ID string } }
	if err := json.Unmarshal(a.Body, &list); err != nil || a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	for _, c := range list.Value {
		ids = append(ids, c.ID)
	}
	return ids
}

// harbour makes a virtual network and its doors, and returns the path of its resources, the body that makes an endpoint of a registry in it, and its port.
func harbour(t *testing.T, s *instance.Server, prefix string) (path string, body func(registry string) instance.J, port string) {
	t.Helper()
	path = s.GroupPath() + "/providers/Microsoft.Network/"
	network := path + "virtualNetworks/harbour"
	if a := s.ARM(http.MethodPut, network+"?api-version=2022-01-01", instance.J{"location": "centralus", "properties": instance.J{
		"addressSpace": instance.J{"addressPrefixes": []string{prefix}},
		"subnets":      []any{instance.J{"name": "quay", "properties": instance.J{"addressPrefix": prefix}}}}}); a.Status != http.StatusCreated {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	_, port, err := net.SplitHostPort(instance.FreePort(t))
	if err != nil {
		t.Fatal(err)
	}
	if wrong := s.Configure(fmt.Sprintf("logLevel: info\nvirtualNetworks:\n- {id: %s, door: address, port: %s, tls: false}\n", network, port)); wrong != "" {
		t.Fatal(wrong)
	}
	return path, func(registry string) instance.J {
		return instance.J{"location": "centralus", "properties": instance.J{"subnet": instance.J{"id": network + "/subnets/quay"},
			"privateLinkServiceConnections": []any{instance.J{"name": "c", "properties": instance.J{"privateLinkServiceId": s.RegistryID(registry), "groupIds": []string{"registry"}}}}}}
	}, port
}

// underWay begins to pull a blob by a door and reads a little of it; what it returns reads the rest.
func underWay(t *testing.T, s *instance.Server, host, at, digest string) func() (int64, error) {
	t.Helper()
	c := &http.Client{Timeout: time.Minute}
	ask := func(method, path string) *http.Request {
		r, err := http.NewRequest(method, "http://"+at+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.SetBasicAuth(s.ClientID, s.ClientSecret)
		return r
	}
	resp, err := c.Do(ask(http.MethodGet, "/v2/app/blobs/"+digest))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1<<10)); err != nil {
		t.Fatal(err)
	}
	return func() (int64, error) {
		defer resp.Body.Close()
		return io.Copy(io.Discard, resp.Body)
	}
}

// A private endpoint made by ARM is a door when its PUT is answered, with public access and exports disabled; rejected or deleted it is none, and what was under way is cut, before
// that is answered. A registry made anew under the name is not reached.
func TestEndpointByARM(t *testing.T) {
	instance.Each(t, "logLevel: info\n", func(t *testing.T, s *instance.Server) {
		s.CreateRegistry("shipyard", nil)
		image := make([]byte, 32<<20)
		if _, err := s.PushImage("shipyard", "app", "v1", image); err != nil {
			t.Fatal(err)
		}
		if a := s.Lock("shipyard"); a.Status != 200 {
			t.Fatal(a)
		}
		put := func(status int, path string, body any) instance.Answer {
			t.Helper()
			a := s.ARM(http.MethodPut, path, body)
			if a.Status/100*100 != status {
				t.Fatalf("PUT %s: %d %s", path, a.Status, a.Body)
			}
			return a
		}
		path, of, port := harbour(t, s, "127.23.0.0/24")
		endpoint, body := path+"privateEndpoints/pier?api-version=2022-01-01", of("shipyard")
		put(200, endpoint, body)
		host, at := "shipyard"+s.ACRLoginServerSuffix, "127.23.0.4:"+port
		reached := func(want int, when string) {
			t.Helper()
			if got := exchange("127.0.0.1", at, ping(host)); got != want {
				t.Errorf("%s: %d, want %d", when, got, want)
			}
		}
		reached(401, "the endpoint is made")
		pull := underWay(t, s, host, at, instance.Digest(image))
		ids := connections(t, s, "shipyard")
		if len(ids) != 1 {
			t.Fatalf("connections: %q", ids)
		}
		state := func(status int, word string) {
			t.Helper()
			put(status, ids[0]+"?api-version=2022-02-01-preview", instance.J{"properties": instance.J{"privateLinkServiceConnectionState": instance.J{"status": word, "description": "by the test"}}})
		}
		state(200, "Rejected")
		reached(0, "the connection is rejected")
		if n, err := pull(); err == nil {
			t.Errorf("a pull went on to its end, %d bytes, after the rejection", n)
		}
		if a := s.ARM(http.MethodDelete, endpoint, nil); a.Status > 204 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		put(200, endpoint, body)
		reached(401, "it is made again, at the same address")
		if a := s.Wait(s.ARM(http.MethodDelete, s.RegistryID("shipyard")+instance.Version, nil)); a.Status > 204 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		s.CreateRegistry("shipyard", nil)
		if got := exchange("127.0.0.1", at, ping(host)); got == 401 || got == 200 {
			t.Errorf("the registry made anew is reached by the old endpoint: %d", got)
		}
		if ids := connections(t, s, "shipyard"); len(ids) != 0 {
			t.Errorf("the registry made anew has connections: %q", ids)
		}
	})
}

// A copy of the database in which a connection is still approved that was rejected since does not bring the endpoint back: while it is held no endpoint enters, none is approved, and the confirmation
// is told which ones it lets in.
func TestOlderCopyShutsEndpoints(t *testing.T) {
	s := instance.New(t, "sqlite", "logLevel: info\n")
	s.CreateRegistry("shipyard", nil)
	path, of, port := harbour(t, s, "127.24.0.0/24")
	host, at := "shipyard"+s.ACRLoginServerSuffix, "127.24.0.4:"+port
	reached := func(want int, when string) {
		t.Helper()
		if got := exchange("127.0.0.1", at, ping(host)); got != want {
			t.Errorf("%s: %d, want %d", when, got, want)
		}
	}
	create := func(name string, body instance.J) instance.Answer {
		return s.ARM(http.MethodPut, path+"privateEndpoints/"+name+"?api-version=2022-01-01", body)
	}
	if a := create("pier", of("shipyard")); a.Status != http.StatusCreated {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	waits := of("shipyard")
	properties := waits["properties"].(instance.J)
	properties["manualPrivateLinkServiceConnections"] = properties["privateLinkServiceConnections"]
	delete(properties, "privateLinkServiceConnections")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Data, "embargo.db")
	copied, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	reached(401, "the endpoint is approved")
	pier := connections(t, s, "shipyard")[0]
	state := func(connection, word string) instance.Answer {
		return s.ARM(http.MethodPut, connection+"?api-version=2022-02-01-preview", instance.J{"properties": instance.J{"privateLinkServiceConnectionState": instance.J{"status": word}}})
	}
	if a := state(pier, "Rejected"); a.Status/100 != 2 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	reached(0, "the older copy")
	refused := func(a instance.Answer, endpoint string) {
		t.Helper()
		if a.Status != http.StatusConflict || !strings.Contains(string(a.Body), "embargo restore confirm") || !strings.Contains(string(a.Body), "privateEndpoints/"+endpoint+"'") {
			t.Errorf("an endpoint is approved while it is held: %d %s", a.Status, a.Body)
		}
	}
	refused(create("another", of("shipyard")), "another")
	if a := create("waits", waits); a.Status != http.StatusCreated {
		t.Errorf("an endpoint that waits for its approval: %d %s", a.Status, a.Body)
	}
	for _, id := range connections(t, s, "shipyard") {
		if id != pier {
			refused(state(id, "Approved"), "waits")
			if a := state(id, "Rejected"); a.Status/100 != 2 {
				t.Errorf("a connection is rejected while it is held: %d %s", a.Status, a.Body)
			}
		}
	}
	reached(0, "after what was refused")
	run := func(args ...string) string {
		t.Helper()
		out, errs, err := s.Run(t.Context(), args...)
		if err != nil {
			t.Fatalf("embargo %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
		}
		return out
	}
	opens := "shipyard OPENS: exports enabled, public network access enabled, private endpoints " + path + "privateEndpoints/pier\n"
	if said := run("status", "--data", s.Data); !strings.Contains(said, opens) {
		t.Errorf("the status does not tell %q: %s", opens, said)
	}
	run("login", "--service-principal", "--credentials", filepath.Join(s.Data, "credentials.json"), "--username", s.ClientID, "--password", s.ClientSecret)
	run("restore", "confirm", "--yes", "--data", s.Data)
	reached(401, "confirmed")
}

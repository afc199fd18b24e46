// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
		net := s.GroupPath() + "/providers/Microsoft.Network/"
		put(200, net+"virtualNetworks/harbour?api-version=2022-01-01", instance.J{"location": "centralus", "properties": instance.J{
			"addressSpace": instance.J{"addressPrefixes": []string{"127.23.0.0/16"}},
			"subnets":      []any{instance.J{"name": "quay", "properties": instance.J{"addressPrefix": "127.23.0.0/24"}}}}})
		port := instance.FreePort(t)
		port = port[strings.LastIndexByte(port, ':')+1:]
		if wrong := s.Configure(fmt.Sprintf("logLevel: info\nvirtualNetworks:\n- {id: %s, door: address, port: %s, tls: false}\n", net+"virtualNetworks/harbour", port)); wrong != "" {
			t.Fatal(wrong)
		}
		endpoint := net + "privateEndpoints/pier?api-version=2022-01-01"
		body := instance.J{"location": "centralus", "properties": instance.J{"subnet": instance.J{"id": net + "virtualNetworks/harbour/subnets/quay"},
			"privateLinkServiceConnections": []any{instance.J{"name": "c", "properties": instance.J{"privateLinkServiceId": s.RegistryID("shipyard"), "groupIds": []string{"registry"}}}}}}
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

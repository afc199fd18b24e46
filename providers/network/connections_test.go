// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// at walks an answer by a dotted path, [0] taken of lists; what is not there is nil.
func at(v any, dotted string) any {
	for part := range strings.SplitSeq(dotted, ".") {
		if list, ok := v.([]any); ok && len(list) > 0 {
			v = list[0]
		}
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[part]
	}
	return v
}

func endpointBody(list string) string {
	return `{"location":"westus","properties":{"subnet":{"id":"` + nets + `/virtualNetworks/net/subnets/default"},"` + list + `":[{"name":"link","properties":{"privateLinkServiceId":"` + registry + `","groupIds":["registry"],"requestMessage":"please"}}]}}`
}

const auto, manual = "privateLinkServiceConnections", "manualPrivateLinkServiceConnections"

// create makes an endpoint and gives the path of its connection.
func (b *bench) create(t *testing.T, name, list string) string {
	t.Helper()
	b.Must(t, 201, "PUT", nets+"/privateEndpoints/"+name+version, endpointBody(list))
	e := b.endpoint(t, name)
	return links + "/" + e.Connection + acr
}

// endpoint is the row of an endpoint; the zero row where there is none.
func (b *bench) endpoint(t *testing.T, name string) (e meta.Endpoint) {
	t.Helper()
	if err := b.DB.Read(t.Context(), func(tx *meta.Tx) error {
		all, err := tx.Endpoints()
		for _, one := range all {
			if strings.HasSuffix(one.ResourceID, "/"+name) {
				e = one
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return e
}

func (b *bench) row(t *testing.T) (row meta.RegistryRow) {
	t.Helper()
	if err := b.DB.Read(t.Context(), func(tx *meta.Tx) (err error) { row, err = tx.RegistryByName("registryone"); return err }); err != nil {
		t.Fatal(err)
	}
	return row
}

func state(status, description string) string {
	return `{"properties":{"privateLinkServiceConnectionState":{"status":"` + status + `","description":"` + description + `"}}}`
}

// TestConnectionStates: each step of a connection's life, what decisions read after it, and what each side shows; each change is fenced before its answer.
func TestConnectionStates(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		link := b.create(t, "one", manual)
		const pe = "properties.manualPrivateLinkServiceConnections.properties.privateLinkServiceConnectionState"
		check := func(step, status, description string, open bool) {
			t.Helper()
			row, e := b.row(t), b.endpoint(t, "one")
			if got := len(row.Endpoints) == 1 && row.Endpoints[0] == e.ID; got != open {
				t.Errorf("%s: decisions read %v", step, row.Endpoints)
			}
			if b.fenced.count[row.ID] != row.Epoch {
				t.Errorf("%s: fenced up to the epoch %d, and it is %d", step, b.fenced.count[row.ID], row.Epoch)
			}
			shown := at(b.Must(t, 200, "GET", nets+"/privateEndpoints/one"+version, ""), pe)
			if at(shown, "status") != status || at(shown, "description") != description {
				t.Errorf("%s: the endpoint shows %v", step, shown)
			}
		}
		check("made", "Pending", "please", false)
		c := b.Must(t, 200, "GET", link, "")
		if at(c, "properties.privateLinkServiceConnectionState.status") != "Pending" || at(c, "systemData") != nil || at(c, "properties.privateLinkServiceConnectionState.actionsRequired") != nil {
			t.Errorf("the connection shows %v", c)
		}
		b.Must(t, 201, "PUT", link, state("approved", "of course"))
		check("approved", "Approved", "of course", true)
		b.Must(t, 201, "PUT", link, state("Approved", "another word"))
		check("described", "Approved", "another word", true)
		delete(b.fenced.count, b.row(t).ID)
		b.Must(t, 201, "PUT", link, state("Approved", "another word"))
		check("asked for again", "Approved", "another word", true)
		b.Must(t, 400, "PUT", link, state("Pending", ""))
		b.Must(t, 400, "PUT", link, state("Disconnected", ""))
		b.Must(t, 400, "PUT", link, `{"properties":{"privateEndpoint":{"id":"`+nets+`/privateEndpoints/two"},"privateLinkServiceConnectionState":{"status":"Rejected"}}}`)
		check("refused", "Approved", "another word", true)
		b.Must(t, 201, "PUT", link, state("Rejected", "no more"))
		check("rejected", "Rejected", "no more", false)
		if a := b.Must(t, 400, "PUT", link, state("Approved", "")); !strings.Contains(fmt.Sprint(a), "Approving rejected private endpoint connections is not supported") {
			t.Errorf("%v", a)
		}
		b.Must(t, 200, "DELETE", link, "")
		check("deleted", "Disconnected", "The connection was deleted by an administrator of the registry.", false)
		b.Must(t, 404, "GET", link, "")
		b.Must(t, 400, "PUT", link, state("Approved", ""))
		b.Must(t, 204, "DELETE", link, "")
		b.Must(t, 200, "PUT", nets+"/privateEndpoints/one"+version, endpointBody(manual))
		check("put again", "Disconnected", "The connection was deleted by an administrator of the registry.", false)
		if r := b.Must(t, 200, "GET", registry+acr, ""); at(r, "properties.dataEndpointEnabled") != false {
			t.Error("the data endpoint is on without a connection")
		}
		b.Must(t, 200, "PATCH", registry+acr, `{"sku":{"name":"Standard"}}`)
	})
}

// TestConnectionsAreNotMade: a PUT of what does not exist makes nothing, and a connection of one registry is not another's.
func TestConnectionsAreNotMade(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		link := b.create(t, "one", auto)
		b.Must(t, 400, "PUT", links+"/registryone.0123456789abcdef0123456789abcdef"+acr, state("Approved", ""))
		b.Must(t, 201, "PUT", registry+"two"+acr, premium)
		b.Must(t, 404, "GET", strings.Replace(link, "/registryone/", "/registryonetwo/", 1), "")
		b.Must(t, 400, "PUT", strings.Replace(link, "/registryone/", "/registryonetwo/", 1), state("Rejected", ""))
		if list, _ := at(b.Must(t, 200, "GET", registry+"two/privateEndpointConnections"+acr, ""), "value").([]any); len(list) != 0 {
			t.Errorf("the other registry lists %v", list)
		}
		if b.endpoint(t, "one").Status != meta.EndpointApproved {
			t.Error("the connection is changed")
		}
	})
}

// TestWhoApproves: who may approve connections of the registry has done so by asking; who may not waits; who may not join the subnet gets none.
func TestWhoApproves(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		id, err := name.ParseResourceID(strings.ReplaceAll(nets, "{sub}", b.People.Subscription) + "/virtualNetworks/net")
		if err != nil {
			t.Fatal(err)
		}
		const networkContributor = "4d97b98b-1d4f-4787-a291-c67834d212e7"
		put := func(who, name, list string) (int, string) {
			r := b.Call(who, "PUT", nets+"/privateEndpoints/"+name+version, endpointBody(list))
			return r.StatusCode, b.endpoint(t, name).Status
		}
		if code, _ := put("stranger", "a", auto); code != 403 {
			t.Errorf("without rights: %d", code)
		}
		b.Grant(t, "stranger", networkContributor, id)
		if code, _ := put("stranger", "b", auto); code != 403 {
			t.Errorf("with rights on the network alone: %d", code)
		}
		b.Grant(t, "stranger", networkContributor, name.Group(b.People.Subscription, "g"))
		if code, status := put("stranger", "c", auto); code != 201 || status != meta.EndpointPending {
			t.Errorf("without a right on the registry: %d, %s", code, status)
		}
		e := b.endpoint(t, "c")
		if r := b.Call("stranger", "PUT", links+"/"+e.Connection+acr, state("Approved", "")); r.StatusCode != 403 {
			t.Errorf("approves its own: %d", r.StatusCode)
		}
		if code, status := put("owner", "d", auto); code != 201 || status != meta.EndpointApproved {
			t.Errorf("the owner: %d, %s", code, status)
		}
		if code, status := put("owner", "e", manual); code != 201 || status != meta.EndpointPending {
			t.Errorf("the owner, by hand: %d, %s", code, status)
		}
		b.Grant(t, "stranger", identity.RoleContributor, name.Group(b.People.Subscription, "g"))
		if code, status := put("stranger", "f", auto); code != 201 || status != meta.EndpointApproved {
			t.Errorf("a contributor: %d, %s", code, status)
		}
	})
}

// TestRegistryMadeAnew: the endpoint of a registry that was deleted never reaches the one that has its name now, and gives its addresses back.
func TestRegistryMadeAnew(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		link := b.create(t, "one", auto)
		old := b.row(t)
		b.Must(t, 200, "DELETE", registry+acr, "")
		e := b.endpoint(t, "one")
		if e.Status != meta.EndpointDisconnected || len(e.Addresses) != 2 || b.fenced.count[old.ID] <= old.Epoch {
			t.Errorf("after the deletion: %+v, fenced %d of %d", e, b.fenced.count[old.ID], old.Epoch)
		}
		b.Must(t, 201, "PUT", registry+acr, premium)
		b.Must(t, 404, "GET", link, "")
		b.Must(t, 400, "PUT", link, state("Approved", ""))
		b.Must(t, 200, "PUT", nets+"/privateEndpoints/one"+version, endpointBody(auto))
		if row := b.row(t); row.ID == old.ID || len(row.Endpoints) != 0 || b.endpoint(t, "one").Status != meta.EndpointDisconnected {
			t.Errorf("the new registry reads %+v", row.Endpoints)
		}
		b.Must(t, 200, "DELETE", nets+"/privateEndpoints/one"+version, "")
		b.create(t, "two", auto)
		if a := b.endpoint(t, "two").Addresses; fmt.Sprint(a) != "[{registry 10.0.0.4} {registry_data_westus 10.0.0.5}]" {
			t.Errorf("the addresses were not given back: %v", a)
		}
	})
}

// TestOneTransaction: an endpoint that is refused leaves nothing, and one that is deleted leaves nothing.
func TestOneTransaction(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		count := func() (n int) {
			t.Helper()
			if err := b.DB.Read(t.Context(), func(tx *meta.Tx) error {
				return tx.Row("SELECT (SELECT count(*) FROM private_endpoints) + (SELECT count(*) FROM private_addresses) + (SELECT count(*) FROM resources WHERE type LIKE 'microsoft.network/private%')").Scan(&n)
			}); err != nil {
				t.Fatal(err)
			}
			return n
		}
		zone := nets + "/privateDnsZones/privatelink." + suffix
		b.Must(t, 201, "PUT", zone+version, `{"location":"global"}`)
		before := count()
		b.create(t, "one", auto)
		b.Must(t, 201, "PUT", nets+"/privateEndpoints/one/privateDnsZoneGroups/default"+version, `{"properties":{"privateDnsZoneConfigs":[{"name":"z","properties":{"privateDnsZoneId":"`+zone+`"}}]}}`)
		if got := count() - before; got != 1+2+1+1+2 { // row, addresses, endpoint, group, records
			t.Errorf("an endpoint with names is %d rows", got)
		}
		b.Must(t, 400, "PUT", nets+"/privateEndpoints/bad"+version, strings.Replace(endpointBody(auto), `"properties":{"subnet"`, `"properties":{"ipConfigurations":[{"name":"a","properties":{"groupId":"registry","memberName":"registry","privateIPAddress":"10.0.0.4"}}],"subnet"`, 1))
		b.Must(t, 200, "DELETE", nets+"/privateEndpoints/one"+version, "")
		if got := count() - before; got != 0 {
			t.Errorf("%d rows are left", got)
		}
		if row := b.row(t); len(row.Endpoints) != 0 || b.fenced.count[row.ID] != row.Epoch {
			t.Errorf("decisions still read %v, fenced %d of %d", row.Endpoints, b.fenced.count[row.ID], row.Epoch)
		}
	})
}

// TestManyAtOnce: endpoints that are made at the same time have addresses of their own.
func TestManyAtOnce(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		var wait sync.WaitGroup
		b.Must(t, 201, "PUT", group+"2?api-version=2021-04-01", `{"location":"westus"}`)
		for i := range 4 { // of different registries and groups, which do not wait for each other
			b.Must(t, 201, "PUT", fmt.Sprintf("%sr%d%s", registry, i, acr), premium)
		}
		for i := range 8 {
			wait.Go(func() {
				body := strings.Replace(endpointBody(auto), `/registryone"`, fmt.Sprintf(`/registryoner%d"`, i%4), 1)
				if r := b.Call("owner", "PUT", fmt.Sprintf("%s/privateEndpoints/e%d%s", strings.Replace(nets, "/g/", []string{"/g/", "/g2/"}[i%2], 1), i, version), body); r.StatusCode != 201 {
					t.Errorf("e%d: %d", i, r.StatusCode)
				}
			})
		}
		wait.Wait()
		if err := b.DB.Read(t.Context(), func(tx *meta.Tx) error {
			all, err := tx.Addresses(strings.ToLower(strings.ReplaceAll(nets, "{sub}", b.People.Subscription)+"/virtualNetworks/net"), "")
			if len(all) != 16 {
				t.Errorf("%d addresses", len(all))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestGroupGoes: a group with all of it is deleted, whichever of its parts were deleted before.
func TestGroupGoes(t *testing.T) {
	parts := map[string]string{"nothing": "", "the registry": registry + acr, "the endpoint": nets + "/privateEndpoints/one" + version, "the zone": nets + "/privateDnsZones/privatelink." + suffix + version}
	for what, path := range parts {
		t.Run(what, func(t *testing.T) {
			each(t, func(t *testing.T, b *bench) {
				zone := nets + "/privateDnsZones/privatelink." + suffix
				b.Must(t, 201, "PUT", zone+version, `{"location":"global"}`)
				b.Must(t, 201, "PUT", zone+"/virtualNetworkLinks/net"+version, `{"location":"global","properties":{"virtualNetwork":{"id":"`+nets+`/virtualNetworks/net"}}}`)
				b.create(t, "one", auto)
				b.Must(t, 201, "PUT", nets+"/privateEndpoints/one/privateDnsZoneGroups/default"+version, `{"properties":{"privateDnsZoneConfigs":[{"name":"z","properties":{"privateDnsZoneId":"`+zone+`"}}]}}`)
				if strings.HasPrefix(path, zone) { // it goes once it is not linked
					b.Must(t, 200, "DELETE", zone+"/virtualNetworkLinks/net"+version, "")
				}
				if path != "" {
					b.Must(t, 200, "DELETE", path, "")
				}
				b.Must(t, 202, "DELETE", group+"?api-version=2021-04-01", "")
				armtest.Until(t, func() bool { return b.Call("owner", "GET", group+"?api-version=2021-04-01", "").StatusCode == 404 })
				if err := b.DB.Read(context.Background(), func(tx *meta.Tx) error {
					all, err := tx.Endpoints()
					if len(all) != 0 {
						t.Errorf("left: %v", all)
					}
					return err
				}); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestJoining: a subnet and a zone are another's: who may make endpoints in a group of their own needs the right to join them.
func TestJoining(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		const own = "/subscriptions/{sub}/resourceGroups/own"
		const networkContributor = "4d97b98b-1d4f-4787-a291-c67834d212e7"
		b.Must(t, 201, "PUT", own+"?api-version=2021-04-01", `{"location":"westus"}`)
		zone := nets + "/privateDnsZones/privatelink." + suffix
		b.Must(t, 201, "PUT", zone+version, `{"location":"global"}`)
		b.Grant(t, "stranger", networkContributor, name.Group(b.People.Subscription, "own"))
		put := func(path, body string) string {
			r := b.Call("stranger", "PUT", own+"/providers/Microsoft.Network/privateEndpoints/one"+path+version, body)
			return fmt.Sprint(r.StatusCode, r.Header.Get("x-ms-error-code"))
		}
		records := `{"properties":{"privateDnsZoneConfigs":[{"name":"z","properties":{"privateDnsZoneId":"` + zone + `"}}]}}`
		id := func(path string) name.ResourceID {
			id, err := name.ParseResourceID(strings.ReplaceAll(path, "{sub}", b.People.Subscription))
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		for _, c := range []struct {
			path, body string
			what       name.ResourceID
		}{
			{"", endpointBody(auto), id(nets + "/virtualNetworks/net/subnets/default")},
			{"/privateDnsZoneGroups/default", records, id(zone)},
		} {
			if got := put(c.path, c.body); got != "403LinkedAuthorizationFailed" {
				t.Errorf("%s without the right to join: %s", c.what, got)
			}
			b.Grant(t, "stranger", networkContributor, c.what)
			if got := put(c.path, c.body); got != "201" {
				t.Errorf("%s with it: %s", c.what, got)
			}
		}
	})
}

// TestSubnetIsGivenAGroupThatGoes: a security group that is deleted while a subnet is given it is deleted before, or not at all.
func TestSubnetIsGivenAGroupThatGoes(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		const rules, subnet = nets + "/networkSecurityGroups/rules" + version, nets + "/virtualNetworks/net/subnets/default" + version
		for range 25 {
			b.Must(t, 201, "PUT", rules, `{"location":"westus"}`)
			var given, gone int
			var wait sync.WaitGroup
			wait.Go(func() {
				given = b.Call("owner", "PUT", subnet, `{"properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":{"id":"`+nets+`/networkSecurityGroups/rules"}}}`).StatusCode
			})
			wait.Go(func() { gone = b.Call("owner", "DELETE", rules, "").StatusCode })
			wait.Wait()
			if (given < 300) == (gone < 300) {
				t.Fatalf("the subnet is given the group: %d, and the group is deleted: %d", given, gone)
			}
			b.Must(t, 200, "PUT", subnet, `{"properties":{"addressPrefix":"10.0.0.0/24"}}`)
			if gone >= 300 {
				b.Must(t, 200, "DELETE", rules, "")
			}
		}
	})
}

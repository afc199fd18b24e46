// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/miekg/dns"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// A registry may be called privatelink, which is also the label above the names of private link: it is answered like any other, and so are they.
func TestNamesOfPrivatelink(t *testing.T) {
	inside, public := instance.FreePort(t), instance.FreePort(t)
	h := newHouse(t, fmt.Sprintf("virtualNetworks: [{id: %[1]s}]\ndns: {listen: %[2]q, public: [192.0.2.80], networks: [{network: %[1]s, listen: %[3]q}]}\n", vnet, public, inside))
	h.CreateRegistry("factory", nil)
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.3.4")
	check := func(when string, of map[[2]string]string) {
		t.Helper()
		for q, want := range of {
			if got := ask(t, "udp", q[0], q[1]+".azurecr.localhost", dns.TypeA); got != want {
				t.Errorf("%s, %s at %s: %q, want %q", when, q[1], q[0], got, want)
			}
		}
	}
	const name, private = "privatelink", "factory.privatelink"
	check("without the registry", map[[2]string]string{{public, name}: "NOERROR", {inside, name}: "NOERROR", {public, private}: "NXDOMAIN", {inside, private}: "NOERROR 127.20.3.4"})
	h.CreateRegistry(name, nil)
	check("with the registry", map[[2]string]string{{public, name}: "NOERROR 192.0.2.80", {inside, name}: "NOERROR 192.0.2.80", {public, private}: "NXDOMAIN", {inside, private}: "NOERROR 127.20.3.4"})
	h.put(name, "pe2", vnet, meta.EndpointApproved, "127.20.3.5", "127.20.3.6")
	check("with its endpoint", map[[2]string]string{{public, name}: "NOERROR 192.0.2.80", {inside, name}: "NOERROR 127.20.3.5", {inside, "privatelink.privatelink"}: "NOERROR 127.20.3.5",
		{inside, "privatelink.centralus.data"}: "NOERROR 127.20.3.6", {inside, private}: "NOERROR 127.20.3.4", {inside, "data"}: "NOERROR", {inside, "data.privatelink"}: "NOERROR"})
}

// A data name is there for the regions that the registry has, its home and its replications, and for no other, in public and inside.
func TestNamesOfRegions(t *testing.T) {
	inside, public := instance.FreePort(t), instance.FreePort(t)
	h := newHouse(t, fmt.Sprintf("virtualNetworks: [{id: %[1]s}]\ndns: {listen: %[2]q, public: [192.0.2.80], networks: [{network: %[1]s, listen: %[3]q}]}\n", vnet, public, inside))
	h.CreateRegistry("factory", nil)
	h.CreateRegistry("others", nil)
	home := func(home string) map[string]string { return map[string]string{"centralus": home, "mars": "NXDOMAIN"} }
	check := func(when, east, own string) {
		t.Helper()
		for at, regions := range map[[2]string]map[string]string{{public, "factory"}: home("NOERROR 192.0.2.80"), {inside, "factory"}: home(own), {inside, "others"}: home("NOERROR 192.0.2.80"), {public, "nobody"}: home("NXDOMAIN")} {
			if at == [2]string{public, "factory"} {
				regions["eastus"] = east
			}
			for region, want := range regions {
				if got := ask(t, "udp", at[0], at[1]+"."+region+".data.azurecr.localhost", dns.TypeA); got != want {
					t.Errorf("%s, %s of %s at %s: %q, want %q", when, region, at[1], at[0], got, want)
				}
			}
		}
	}
	check("at first", "NXDOMAIN", "NOERROR 192.0.2.80")
	replication := h.RegistryID("factory") + "/replications/eastus" + instance.Version
	if a := h.Wait(h.ARM(http.MethodPut, replication, instance.J{"location": "East US"})); a.Status > 201 {
		t.Fatal(a)
	}
	check("with a replication", "NOERROR 192.0.2.80", "NOERROR 192.0.2.80")
	if a := h.Wait(h.ARM(http.MethodDelete, replication, nil)); a.Status > 204 {
		t.Fatal(a)
	}
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.3.4", "127.20.3.5")
	check("without it, and with an endpoint", "NXDOMAIN", "NOERROR 127.20.3.5")
}

// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"fmt"
	"net/http"
	"strings"
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
	inside, public, static := instance.FreePort(t), instance.FreePort(t), instance.FreePort(t)
	h := newHouse(t, fmt.Sprintf("virtualNetworks: [{id: %[1]s}]\ndns: {listen: %[2]q, public: [192.0.2.80], networks: [{network: %[1]s, listen: %[3]q}]}\nprivateListeners: [{registry: others, address: %[4]q}]\n", vnet, public, inside, static))
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
	// Over HTTP the regions are told to who may reach the registry; another's static listener serves its own.
	for region, there := range map[string]string{"centralus": "401", "eastus": "401", "mars": "421"} {
		name := "factory." + region + ".data.azurecr.localhost"
		for at, want := range map[string]string{h.Listening(t).Public: there, static: "401"} {
			got := (&closed{house: h}).raw("127.0.0.1", at, name, "GET /v2/ HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
			if status(got) != want {
				t.Errorf("%s at %s: %.300q, want %s", name, at, got, want)
			}
		}
	}
	for name, want := range map[string]string{"others": "access    admitted\nrule      privateListeners\n", "factory": "access    refused\nrule      privateListeners\n", "nobody": "access    refused\nrule      privateListeners\n"} {
		if out, _, err := h.Run(t.Context(), "network", "check", "--data", h.Data, name, "--at", static); !strings.Contains(out, want) || (err == nil) != (name == "others") {
			t.Errorf("network check %s at the listener of others: %s, %v", name, out, err)
		}
	}
	if a := h.Wait(h.ARM(http.MethodDelete, replication, nil)); a.Status > 204 {
		t.Fatal(a)
	}
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.3.4", "127.20.3.5")
	check("without it, and with an endpoint", "NXDOMAIN", "NOERROR 127.20.3.5")
}

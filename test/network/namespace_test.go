// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// ip runs the command of that name.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("ip %s: %v: %s", strings.Join(args, " "), err, out))
	}
}

func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("network namespaces are needed (iproute2, CAP_NET_ADMIN): " + why)
	}
	t.Skip("no network namespaces: " + why)
}

// wire makes a namespace that is connected to this one by a pair of interfaces: here .1 of the prefix, there .2, and the same of IPv6 under fd00:.
func wire(t *testing.T, space, device, prefix string) {
	t.Helper()
	ip(t, "netns", "add", space)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", space).Run() })
	ip(t, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", space)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", device).Run() })
	six := strings.ReplaceAll("fd00."+prefix, ".", ":")
	ip(t, "addr", "add", prefix+".1/24", "dev", device)
	ip(t, "addr", "add", six+"::1/64", "nodad", "dev", device)
	ip(t, "link", "set", device, "up")
	ip(t, "-n", space, "addr", "add", prefix+".2/24", "dev", "eth0")
	ip(t, "-n", space, "addr", "add", six+"::2/64", "nodad", "dev", "eth0")
	ip(t, "-n", space, "link", "set", "eth0", "up")
	ip(t, "-n", space, "link", "set", "lo", "up")
}

// in runs a command in a namespace.
func in(t *testing.T, space string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", space}, args...)...).CombinedOutput()
	return string(out), err
}

// refused is how many connections from an address are on record that came in by the wrong interface.
func (h *house) refused(address string) (n int) {
	h.t.Helper()
	for _, r := range h.Records(h.t.Context()) {
		if r["rule"] == "interface" && strings.Contains(fmt.Sprint(r["source"]), address) {
			n += 1
		}
	}
	return n
}

// A virtual network of its own: who is inside pulls with a real client; who is outside and routes to the endpoint's address is refused and recorded, although the kernel
// takes the packets in (the weak host model), and the public side refuses it too.
func TestNamespaces(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		missing(t, err.Error())
	}
	tag := fmt.Sprint(os.Getpid() % 10000)
	inside, outside, near, far, late := "emb-in-"+tag, "emb-out-"+tag, "emi"+tag, "emo"+tag, "eml"+tag
	wire(t, inside, near, "10.247.31")
	wire(t, outside, far, "10.247.32")
	const address = "10.247.31.9"
	ip(t, "route", "add", "local", address, "dev", "lo")
	t.Cleanup(func() { _ = exec.Command("ip", "route", "del", "local", address, "dev", "lo").Run() })
	ip(t, "-n", outside, "route", "add", address, "via", "10.247.32.1")

	config := func(second string) string {
		return fmt.Sprintf(`
virtualNetworks:
  - {id: %s, door: address, port: 5443, interfaces: [%s, %s], clients: [10.247.31.0/24]}
  - {id: %s, door: address, port: 5444%s}
`, vnet, near, late, vnet2, second)
	}
	h := newHouse(t, config(""))
	h.CreateRegistry("factory", nil)
	if _, err := h.PushImage("factory", "app", "v1", []byte("a layer")); err != nil {
		t.Fatal(err)
	}
	blob := large()
	if _, err := h.PushImage("factory", "app", "large", blob); err != nil {
		t.Fatal(err)
	}
	bearer := "Authorization: Bearer " + h.bearer("factory")
	h.put("factory", "pe1", vnet, meta.EndpointApproved, address)
	h.Lock("factory")
	curl := []string{"curl", "-skg", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "https://" + address + ":5443/v2/"}
	both := func(when string) {
		t.Helper()
		if out, err := in(t, inside, curl...); err != nil || out != "401" {
			t.Errorf("inside, %s: %q, %v\n%s", when, out, err, h.admin("/readyz").body)
		}
		before := h.refused("10.247.32.2")
		if out, err := in(t, outside, curl...); err == nil || out != "000" {
			t.Errorf("outside, %s: %q, %v", when, out, err)
		}
		for end := time.Now().Add(70 * time.Second); h.refused("10.247.32.2") == before; time.Sleep(100 * time.Millisecond) { // more within a minute are one record, at its end
			if time.Now().After(end) {
				t.Fatalf("%s: a connection by the wrong interface is not on record", when)
			}
		}
	}
	both("with one interface")
	// A door that comes later, by another interface of the network, does not go past the one that refuses.
	third := "emb-3-" + tag
	wire(t, third, late, "10.247.33")
	ip(t, "-n", third, "addr", "add", "10.247.31.78/32", "dev", "lo")
	h.put("factory", "pe1", vnet, meta.EndpointApproved, address) // doors that were missing are tried again
	if a := h.admin("/metrics"); !strings.Contains(a.body, `embargo_endpoint_doors{state="open"} 3`) {
		t.Errorf("not all doors are open: %s", h.admin("/readyz").body)
	}
	both("with two interfaces")
	// An address of the network on the wrong interface fits no better.
	ip(t, "-n", outside, "addr", "add", "10.247.31.77/32", "dev", "lo")
	ip(t, "route", "add", "10.247.31.77/32", "via", "10.247.32.2", "dev", far)
	spoofed := append([]string{"curl", "--interface", "10.247.31.77"}, curl[1:]...)
	if out, err := in(t, outside, spoofed...); err == nil || out != "000" {
		t.Errorf("outside, with an address of the network: %q, %v", out, err)
	}
	if _, err := exec.LookPath("skopeo"); err != nil {
		missing(t, err.Error())
	}
	inspect := []string{"skopeo", "inspect", "--tls-verify=false", "--creds", h.ClientID + ":" + h.ClientSecret, "docker://" + address + ":5443/app:v1"}
	if out, err := in(t, inside, inspect...); err != nil || !strings.Contains(out, instance.Digest([]byte("a layer"))) {
		t.Errorf("skopeo inside: %v %s", err, out)
	}
	if out, err := in(t, outside, inspect...); err == nil {
		t.Errorf("skopeo outside: %s", out)
	}
	// An endpoint that is given an address of the machine itself, in a network that names nobody, is no door to the outside.
	h.put("factory", "own", vnet2, meta.EndpointApproved, "10.247.32.1")
	if a := h.admin("/readyz"); !strings.Contains(a.body, "the machine's own address on "+far) {
		t.Errorf("readiness says %s", a.body)
	}
	curl[len(curl)-1] = "https://10.247.32.1:5444/v2/"
	if out, err := in(t, outside, curl...); err == nil || out != "000" {
		t.Errorf("outside, by an endpoint with the machine's own address: %q, %v", out, err)
	}
	// Nor is one when the machine is given the address later, or its network names nobody any more: the door closes, and a download by it is cut.
	const later = "10.247.32.9"
	ip(t, "route", "add", "local", later, "dev", "lo")
	t.Cleanup(func() { _ = exec.Command("ip", "route", "del", "local", later, "dev", "lo").Run() })
	h.put("factory", "later", vnet2, meta.EndpointApproved, later)
	fly := func() *flight {
		t.Helper()
		f, err := h.fly("10.247.32.1", later+":5444", "", "factory.azurecr.localhost", instance.Digest(blob), bearer)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	curl[len(curl)-1] = "https://" + later + ":5444/v2/"
	f := fly()
	ip(t, "addr", "add", later+"/32", "dev", far)
	for end := time.Now().Add(30 * time.Second); ; {
		out, err := in(t, outside, curl...)
		if err != nil && out == "000" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("outside, by an endpoint whose address the machine was given later: %q, %v", out, err)
		}
	}
	if err := f.cut(); err != nil {
		t.Errorf("a download by a door whose address became the machine's own: %v", err)
	}
	if a := h.admin("/readyz"); !strings.Contains(a.body, later+":5444 is the machine's own address on "+far) {
		t.Errorf("readiness says %s", a.body)
	}
	reload := func(second string) {
		t.Helper()
		if wrong := h.Configure(config(second) + "database: " + h.url + "\n"); wrong != "" {
			t.Fatal(wrong)
		}
	}
	reload(", clients: [10.247.32.0/24]")
	if out, err := in(t, outside, curl...); err != nil || out != "401" {
		t.Errorf("a client of the network that names it: %q, %v", out, err)
	}
	f = fly()
	reload("")
	if out, err := in(t, outside, curl...); err == nil || out != "000" {
		t.Errorf("outside, when the network names nobody any more: %q, %v", out, err)
	}
	if err := f.cut(); err != nil {
		t.Errorf("a download by the door of a network that names nobody any more: %v", err)
	}
}

// An interface may be called by another name that it has.
func TestInterfaceOfTwoNames(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		missing(t, err.Error())
	}
	tag := fmt.Sprint(os.Getpid() % 10000)
	inside, near, other := "emb-an-"+tag, "eman"+tag, "inside"+tag
	wire(t, inside, near, "10.247.53")
	ip(t, "link", "property", "add", "dev", near, "altname", other)
	const address, resolver = "10.247.53.9", "10.247.53.1"
	ip(t, "route", "add", "local", address, "dev", "lo")
	t.Cleanup(func() { _ = exec.Command("ip", "route", "del", "local", address, "dev", "lo").Run() })
	h := newHouse(t, fmt.Sprintf("virtualNetworks:\n- {id: %[1]s, door: address, port: 5543, interfaces: [%[2]s, %[4]s]}\n- {id: %[5]s, door: address, port: 5543, interfaces: [%[4]s]}\ndns: {networks: [{network: %[1]s, listen: '%[3]s:5353'}]}\n",
		vnet, other, resolver, near, vnet2))
	for _, name := range []string{"factory", "others"} {
		h.CreateRegistry(name, nil)
	}
	h.put("factory", "pe1", vnet, meta.EndpointApproved, address)
	h.Lock("factory")
	h.put("others", "pe2", vnet2, meta.EndpointApproved, address) // of another network, at the same interface
	if a := h.admin("/readyz"); !strings.Contains(a.body, "belongs to the private endpoint pe1") || strings.Contains(a.body, "private endpoint pe1: ") {
		t.Errorf("two endpoints at one address of one interface: %s", a.body)
	}
	status, _ := in(t, inside, "curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "https://"+address+":5543/v2/")
	said, _ := askIn(t, inside, "udp", resolver+":5353", "factory.azurecr.localhost")
	if status != "401" || said != "NOERROR "+address {
		t.Errorf("by an interface's other name: %s %s", status, said)
	}
}

// An interface that is deleted takes its door and its resolver with it: whoever comes by another one that has its number is not inside, and when there is one of its name again they are back.
func TestInterfaceMadeAnew(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		missing(t, err.Error())
	}
	tag := fmt.Sprint(os.Getpid() % 10000)
	inside, outside, near, far := "emb-ai-"+tag, "emb-ao-"+tag, "emai"+tag, "emao"+tag
	wire(t, inside, near, "10.247.51")
	const address, resolver = "10.247.51.9", "10.247.51.53"
	for _, a := range []string{address, resolver} {
		ip(t, "route", "add", "local", a, "dev", "lo")
		t.Cleanup(func() { _ = exec.Command("ip", "route", "del", "local", a, "dev", "lo").Run() })
	}
	ip(t, "addr", "add", resolver+"/32", "dev", "lo")
	t.Cleanup(func() { _ = exec.Command("ip", "addr", "del", resolver+"/32", "dev", "lo").Run() })
	h := newHouse(t, fmt.Sprintf("virtualNetworks: [{id: %[1]s, door: address, port: 5543, interfaces: [%[2]s]}]\ndns: {networks: [{network: %[1]s, listen: '%[3]s:5353'}]}\n", vnet, near, resolver))
	h.CreateRegistry("factory", nil)
	h.put("factory", "pe1", vnet, meta.EndpointApproved, address)
	h.Lock("factory")
	seen := func(space string) string {
		t.Helper()
		status, _ := in(t, space, "curl", "-sk", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", "https://"+address+":5543/v2/")
		said, _ := askIn(t, space, "udp", resolver+":5353", "factory.azurecr.localhost")
		return status + " " + said
	}
	if got := seen(inside); got != "401 NOERROR "+address {
		t.Fatalf("inside: %s", got)
	}
	device, err := net.InterfaceByName(near)
	if err != nil {
		t.Fatal(err)
	}
	ip(t, "link", "del", near)
	ip(t, "netns", "add", outside)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", outside).Run() })
	ip(t, "link", "add", far, "index", fmt.Sprint(device.Index), "type", "veth", "peer", "name", "eth0", "netns", outside)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", far).Run() })
	ip(t, "addr", "add", "10.247.52.1/24", "dev", far)
	ip(t, "link", "set", far, "up")
	ip(t, "-n", outside, "addr", "add", "10.247.52.2/24", "dev", "eth0")
	ip(t, "-n", outside, "link", "set", "eth0", "up")
	for _, a := range []string{address, resolver} {
		ip(t, "-n", outside, "route", "add", a, "via", "10.247.52.1")
	}
	if got := seen(outside); got != "000 " {
		t.Errorf("outside, by an interface with the number: %s", got)
	}
	h.Recorded(t.Context(), "who came by it", func(r map[string]any) bool {
		return r["rule"] == "interface" && strings.Contains(fmt.Sprint(r["source"]), "10.247.52.2")
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		a := h.admin("/readyz")
		if strings.Contains(a.body, "private endpoint pe1: ") && strings.Contains(a.body, "the resolver "+resolver) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("without the interface readiness says %s", a.body)
		}
	}
	if got := seen(outside); got != "000 " {
		t.Errorf("outside, after a look at the doors: %s", got)
	}
	ip(t, "netns", "del", inside)
	wire(t, inside, near, "10.247.51")
	for end := time.Now().Add(30 * time.Second); seen(inside) != "401 NOERROR "+address; {
		if time.Now().After(end) {
			t.Fatalf("inside, by an interface made anew: %s\n%s", seen(inside), h.admin("/readyz").body)
		}
	}
}

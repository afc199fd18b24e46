// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// askIn is askFrom in a namespace.
func askIn(t *testing.T, space, network, address, name string) (said string, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread goes back to its own namespace and lives on: servers that it started are told to end when it does (PR_SET_PDEATHSIG is about threads).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home, failed := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if failed != nil {
			t.Error(failed)
			return
		}
		defer func() {
			if failed := errors.Join(unix.Setns(home, unix.CLONE_NEWNET), unix.Close(home)); failed != nil {
				panic(failed) // other tests must not go on in this namespace
			}
		}()
		fd, failed := unix.Open("/var/run/netns/"+space, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if failed == nil {
			failed = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if failed != nil {
			t.Error(failed)
			return
		}
		said, err = askFrom(t, "", network, address, name, dns.TypeA)
	}()
	<-done
	return said, err
}

// Without a public resolver, the resolver of a virtual network answers its clients and tells others nothing, not even whether a registry is there. Who is a client no more after a reload is
// another one.
func TestNamesForClients(t *testing.T) {
	at := instance.FreePort(t)
	config := func(clients, more string) string {
		return fmt.Sprintf("virtualNetworks: [{id: %s, clients: [%s]%s}]\ndns: {networks: [{network: %s, listen: %q}]}\n", vnet, clients, more, vnet, at)
	}
	h := newHouse(t, config("127.0.0.1, 127.0.0.5", ""))
	h.CreateRegistry("factory", nil)
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.3.4")
	check := func(when string, of map[string]bool) {
		t.Helper()
		for from, inside := range of {
			for name, want := range map[string]string{"factory": "NOERROR 127.20.3.4", "nobody": "NXDOMAIN"} {
				if !inside {
					want = "REFUSED"
				}
				for _, network := range []string{"udp", "tcp"} {
					if got, err := askFrom(t, from, network, at, name+".azurecr.localhost", dns.TypeA); got != want {
						t.Errorf("%s, %s asks by %s for %s: %q, %v, want %q", when, from, network, name, got, err, want)
					}
				}
			}
		}
	}
	check("at first", map[string]bool{"127.0.0.1": true, "127.0.0.5": true, "127.0.0.9": false})
	database := "database: \"" + h.url + "\"\n"
	if wrong := h.Configure(config("127.0.0.1", "") + database); wrong != "" {
		t.Fatal(wrong)
	}
	check("with a client less", map[string]bool{"127.0.0.1": true, "127.0.0.5": false})
	// A reload that names interfaces binds it to them.
	for _, with := range []struct {
		interfaces string
		want       string
	}{{"lo", "NOERROR 127.20.3.4"}, {"nosuchdevice", ""}, {"lo, nosuchdevice", "NOERROR 127.20.3.4"}, {"", "NOERROR 127.20.3.4"}} {
		if wrong := h.Configure(config("127.0.0.1", ", interfaces: ["+with.interfaces+"]") + database); wrong != "" {
			t.Fatal(wrong)
		}
		for _, network := range []string{"udp", "tcp"} {
			if got, err := askFrom(t, "127.0.0.1", network, at, "factory.azurecr.localhost", dns.TypeA); got != with.want {
				t.Errorf("with the interfaces [%s], by %s: %q, %v, want %q", with.interfaces, network, got, err, with.want)
			}
		}
		if a := h.admin("/readyz"); strings.Contains(a.body, "the resolver "+at) != strings.Contains(with.interfaces, "nosuchdevice") {
			t.Errorf("with the interfaces [%s] readiness says %s", with.interfaces, a.body)
		}
	}
}

// The resolver of a virtual network with interfaces hears its network alone: who is outside and routes to it gets no answer, be it with an address of the network.
func TestNamesByInterface(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		missing(t, err.Error())
	}
	tag := fmt.Sprint(os.Getpid() % 10000)
	inside, outside, near, far, second := "emb-ni-"+tag, "emb-no-"+tag, "emni"+tag, "emno"+tag, "emns"+tag
	wire(t, inside, near, "10.247.41")
	wire(t, outside, far, "10.247.42")
	wire(t, "emb-n2-"+tag, second, "10.247.43")
	const address, six = "10.247.41.1", "fd00:10:247:41::1"
	ip(t, "-n", outside, "route", "add", address, "via", "10.247.42.1")
	ip(t, "-n", outside, "route", "add", six, "via", "fd00:10:247:42::1")
	ip(t, "-n", "emb-n2-"+tag, "route", "add", address, "via", "10.247.43.1")
	h := newHouse(t, fmt.Sprintf("virtualNetworks: [{id: %[1]s, interfaces: [%[2]s, %[3]s]}]\ndns: {networks: [{network: %[1]s, listen: '%[4]s:5353'}, {network: %[1]s, listen: '[%[5]s]:5353'}]}\n",
		vnet, near, second, address, six))
	h.CreateRegistry("factory", nil)
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "10.247.41.9")
	const name = "factory.azurecr.localhost"
	for _, at := range []string{address + ":5353", "[" + six + "]:5353"} {
		for _, network := range []string{"udp", "tcp"} {
			if got, err := askIn(t, inside, network, at, name); got != "NOERROR 10.247.41.9" {
				t.Errorf("inside, %s at %s: %q, %v", network, at, got, err)
			}
			if got, err := askIn(t, outside, network, at, name); err == nil {
				t.Errorf("outside, %s at %s: %q", network, at, got)
			}
		}
	}
	if got, err := askIn(t, "emb-n2-"+tag, "udp", address+":5353", name); got != "NOERROR 10.247.41.9" {
		t.Errorf("inside by the second interface: %q, %v", got, err)
	}
	ip(t, "-n", outside, "addr", "add", "10.247.41.77/32", "dev", "lo")
	ip(t, "-n", outside, "route", "replace", address, "via", "10.247.42.1", "src", "10.247.41.77")
	ip(t, "route", "add", "10.247.41.77/32", "via", "10.247.42.2", "dev", far)
	if got, err := askIn(t, outside, "udp", address+":5353", name); err == nil {
		t.Errorf("outside, with an address of the network: %q", got)
	}
}

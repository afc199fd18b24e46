// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/embargo-registry/embargo/test/instance"
)

// killAt kills the server as it enters one of the system calls, and returns a function that waits until that has happened.
func killAt(t *testing.T, s *instance.Server, calls string) (killed func()) {
	t.Helper()
	cmd := exec.Command("strace", "-f", "-e", "trace="+calls, "-e", "inject="+calls+":signal=KILL", "-o", "/dev/null", "-p", strconv.Itoa(s.PID()))
	says, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("strace, which scripts/install-test-tools installs: %v", err)
	}
	if line, err := bufio.NewReader(says).ReadString('\n'); err != nil || !strings.Contains(line, "attached") {
		t.Fatalf("strace says %q, %v", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, says) }()
	return func() {
		t.Helper()
		select {
		case <-s.Exited():
		case <-time.After(30 * time.Second):
			t.Errorf("no %s was called", calls)
		}
		s.Kill()
		_ = cmd.Wait() // it ends with the process
	}
}

// A server that is killed between an endpoint's row and its socket, in either direction, comes back with all of the endpoint or nothing: the network interface's address, the answer of the
// resolver and the door agree, and what is gone has left no address behind.
func TestKillBetweenRowAndDoor(t *testing.T) {
	instance.Each(t, "logLevel: info\n", func(t *testing.T, s *instance.Server) {
		_, port, _ := net.SplitHostPort(instance.FreePort(t))
		resolver := instance.FreePort(t)
		s.CreateRegistry("shipyard", nil)
		blob := large()
		if err := s.PushBlob("shipyard", "app", blob); err != nil {
			t.Fatal(err)
		}
		in := s.GroupPath() + "/providers/Microsoft.Network/"
		const version = "?api-version=2022-01-01"
		must := func(a instance.Answer) {
			t.Helper()
			if a.Status/100 != 2 {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
		}
		must(s.ARM(http.MethodPut, in+"virtualNetworks/harbour"+version, instance.J{"location": "centralus", "properties": instance.J{"addressSpace": instance.J{"addressPrefixes": []string{"127.26.0.0/16"}},
			"subnets": []any{instance.J{"name": "quay", "properties": instance.J{"addressPrefix": "127.26.0.0/24"}}}}}))
		config := fmt.Sprintf("logLevel: info\nvirtualNetworks:\n- {id: %[1]svirtualNetworks/harbour, door: address, port: %[2]s, tls: false}\ndns: {networks: [{network: %[1]svirtualNetworks/harbour, listen: %[3]q}]}\n", in, port, resolver)
		if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		s.Start()
		body := instance.J{"location": "centralus", "properties": instance.J{"subnet": instance.J{"id": in + "virtualNetworks/harbour/subnets/quay"},
			"privateLinkServiceConnections": []any{instance.J{"name": "c", "properties": instance.J{"privateLinkServiceId": s.RegistryID("shipyard"), "groupIds": []string{"registry"}}}}}}

		// there reports whether the endpoint is: by each of those that must agree.
		there := func(name string) bool {
			t.Helper()
			nics := s.ARM(http.MethodGet, in+"networkInterfaces"+version, nil)
			var list struct {
				Value []struct {
					Properties struct {
						IPConfigurations []struct {
							Properties struct{ PrivateIPAddress string }
						}
					}
				}
			}
			if err := json.Unmarshal(nics.Body, &list); err != nil {
				t.Fatal(err, nics)
			}
			answers := map[string]bool{
				"endpoint":   s.ARM(http.MethodGet, in+"privateEndpoints/"+name+version, nil).Status == http.StatusOK,
				"connection": len(connections(t, s, "shipyard")) == 1,
				"interface":  len(list.Value) == 1 && list.Value[0].Properties.IPConfigurations[0].Properties.PrivateIPAddress == "127.26.0.4",
				"name":       ask(t, "udp", resolver, "shipyard"+s.ACRLoginServerSuffix, dns.TypeA) == "NOERROR 127.26.0.4",
				"data name":  ask(t, "udp", resolver, "shipyard.centralus.data"+s.ACRLoginServerSuffix, dns.TypeA) == "NOERROR 127.26.0.5",
				"door":       exchange("127.0.0.1", "127.26.0.4:"+port, ping("x")) == http.StatusUnauthorized,
				"data door":  exchange("127.0.0.1", "127.26.0.5:"+port, ping("x")) == http.StatusUnauthorized,
			}
			for what, is := range answers {
				if is != answers["endpoint"] {
					t.Errorf("%s: %v, and the others not: %v", what, is, answers)
				}
			}
			return answers["endpoint"]
		}
		const maybe = ""
		for i, c := range []struct{ method, calls, there string }{
			{http.MethodPut, "bind", "true"},
			{http.MethodDelete, "setsockopt", "false"}, // a download is reset before the door is closed
			{http.MethodPut, "fsync,fdatasync", maybe},
			{http.MethodPut, "listen", "true"},
			{http.MethodDelete, "fsync,fdatasync", maybe},
		} {
			if s.Database != "" && c.there == maybe {
				continue // the commit is another process's
			}
			name := fmt.Sprintf("pier%d", i)
			if c.method == http.MethodDelete {
				must(s.ARM(http.MethodPut, in+"privateEndpoints/"+name+version, body))
				f := underWay(t, s, "x", "127.26.0.4:"+port, instance.Digest(blob))
				defer func() { _, _ = f() }()
			}
			must(s.ARM(http.MethodGet, s.RegistryID("shipyard")+instance.Version, nil)) // its connection is kept
			killed := killAt(t, s, c.calls)
			if a, err := s.ARMAs(s.Token(), c.method, in+"privateEndpoints/"+name+version, map[string]any{http.MethodPut: body, http.MethodDelete: nil}[c.method]); err == nil {
				t.Errorf("%s killed at %s answered %d", c.method, c.calls, a.Status)
			}
			killed()
			s.Start()
			is := there(name)
			if c.there != maybe && fmt.Sprint(is) != c.there {
				t.Errorf("%s killed at %s: the endpoint is there: %v", c.method, c.calls, is)
			}
			if is {
				must(s.ARM(http.MethodDelete, in+"privateEndpoints/"+name+version, nil))
			}
			if there(name) {
				t.Errorf("%s killed at %s: the endpoint is there after it was deleted", c.method, c.calls)
			}
		}
	})
}

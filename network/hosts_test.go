// SPDX-License-Identifier: Apache-2.0

package network

import (
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	h, err := NewHosts([]string{"localhost", "127.0.0.1", "Embargo.Example.com", "::1", "localhost"}, ".azurecr.localhost")
	if err != nil {
		t.Fatal(err)
	}
	management, foreign := Target{Role: Management}, Target{}
	mine := Target{Role: RegistryHost, Registry: "myregistry"}
	data := Target{Role: DataHost, Registry: "myregistry", Region: "centralus"}
	for _, c := range []struct {
		host, sni string
		want      Target
		agree     bool
	}{
		{"localhost:8443", "localhost", management, true},
		{"LOCALHOST.:8443", "localhost", management, true},
		{"embargo.example.com", "localhost", management, true},
		{"127.0.0.1:8443", "", management, true},
		{"[::1]:8443", "", management, true},
		{"[::ffff:127.0.0.1]", "", management, true},
		{"localhost", "", management, true},
		{"myregistry.azurecr.localhost", "myregistry.azurecr.localhost", mine, true},
		{"MyRegistry.azurecr.localhost.:443", "MYREGISTRY.azurecr.localhost", mine, true},
		{"myregistry.azurecr.localhost", "other.azurecr.localhost", mine, false},
		{"myregistry.azurecr.localhost", "localhost", mine, false},
		{"localhost", "myregistry.azurecr.localhost", management, false},
		{"myregistry.azurecr.localhost", "", mine, false},
		{"myregistry.centralus.data.azurecr.localhost", "myregistry.centralus.data.azurecr.localhost", data, true},
		{"myregistry.centralus.data.azurecr.localhost", "myregistry.azurecr.localhost", data, false},
		{"myregistry.westus.data.azurecr.localhost", "myregistry.centralus.data.azurecr.localhost", Target{Role: DataHost, Registry: "myregistry", Region: "westus"}, false},
		{"MyRegistry.PrivateLink.azurecr.localhost.:443", "myregistry.privatelink.azurecr.localhost", Target{Role: RegistryHost, Registry: "myregistry", Private: true}, true},
		{"myregistry.azurecr.localhost", "myregistry.privatelink.azurecr.localhost", mine, false},
		{"myregistry.westus.data.privatelink.azurecr.localhost", "myregistry.westus.data.privatelink.azurecr.localhost", Target{Role: DataHost, Registry: "myregistry", Region: "westus", Private: true}, true},
		{"privatelink.azurecr.localhost", "", Target{Role: RegistryHost, Registry: "privatelink"}, false},
		{"a.privatelink.privatelink.azurecr.localhost", "", foreign, true},
		{"a.westus.privatelink.azurecr.localhost", "", foreign, true},
		{"example.com", "localhost", foreign, false},
		{"example.com", "", foreign, true},
		{"azurecr.localhost", "", foreign, true},
		{"a.b.azurecr.localhost", "", foreign, true},
		{"a.b.nodata.azurecr.localhost", "", foreign, true},
		{".azurecr.localhost", "", foreign, true},
		{"-a.azurecr.localhost", "", foreign, true},
		{"a_b.azurecr.localhost", "", foreign, true},
		{"xazurecr.localhost", "", foreign, true},
		{"", "", foreign, true},
	} {
		got, agree := h.Route(c.host, c.sni)
		if got != c.want || agree != c.agree {
			t.Errorf("Route(%q, %q) = %+v, %v; want %+v, %v", c.host, c.sni, got, agree, c.want, c.agree)
		}
	}
	if got := h.LoginServer("MyRegistry"); got != "myregistry.azurecr.localhost" {
		t.Error(got)
	}
}

func TestHostsRefuses(t *testing.T) {
	for _, c := range []struct {
		hosts  []string
		suffix string
	}{
		{[]string{"localhost"}, ""}, {[]string{"localhost"}, "localhost"}, {[]string{"localhost"}, "a b.c"}, {nil, "azurecr.localhost"},
		{[]string{"x.azurecr.localhost"}, "azurecr.localhost"}, {[]string{"no spaces"}, "azurecr.localhost"},
	} {
		if _, err := NewHosts(c.hosts, c.suffix); err == nil {
			t.Errorf("%v below %q was accepted", c.hosts, c.suffix)
		}
	}
}

// Whatever a host looks like, it is a registry only if putting it together again gives the same name.
func FuzzHosts(f *testing.F) {
	for _, s := range []string{"localhost:1", "a.azurecr.localhost", "A.eastus.data.azurecr.localhost.:443", "[::1]:2", "a..azurecr.localhost", "\x00.azurecr.localhost"} {
		f.Add(s)
	}
	h, err := NewHosts([]string{"localhost"}, "azurecr.localhost")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host string) {
		got := h.Lookup(host)
		again := ""
		switch got.Role {
		case RegistryHost:
			again = h.LoginServer(got.Registry)
		case DataHost:
			again = got.Registry + "." + got.Region + ".data." + h.Suffix()
		case Management:
			again = "localhost"
		default:
			return
		}
		if Normal(host) != again || h.Lookup(strings.ToUpper(again)) != got {
			t.Errorf("%q became %+v", host, got)
		}
	})
}

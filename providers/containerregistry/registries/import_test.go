// SPDX-License-Identifier: Apache-2.0

package registries

import (
	"strings"
	"testing"
)

func TestHostOf(t *testing.T) {
	for uri, want := range map[string]string{
		"registryone.azurecr.localhost": "registryone.azurecr.localhost", "HTTPS://RegistryOne.azurecr.localhost:8443/v2/": "RegistryOne.azurecr.localhost:8443",
		"//registryone.azurecr.localhost": "registryone.azurecr.localhost", " a.example. ": "a.example.", "https://user:pass@a.example/b@c": "a.example",
		"[::1]:8443": "[::1]:8443", "a.example/b://c": "a.example", "": "", "/": "", "https://": "", "@": "",
	} {
		if got := hostOf(uri); got != want {
			t.Errorf("%q: %q, want %q", uri, got, want)
		}
	}
}

// FuzzHostOf: whatever the URI, its host is a part of it without path, user or scheme, and the host of a host is itself.
func FuzzHostOf(f *testing.F) {
	for _, seed := range []string{"registryone.azurecr.localhost", "https://u:p@h:1/x", "//h", "[::1]:8443", "a://b://c", "@/", " "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		host := hostOf(uri)
		if !strings.Contains(uri, host) || strings.ContainsAny(host, "/@") || hostOf(host) != strings.TrimSpace(host) {
			t.Errorf("%q: %q", uri, host)
		}
	})
}

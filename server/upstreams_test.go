// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/server"
	"github.com/embargo-registry/embargo/upstream"
)

// TestUpstreamsOfTheConfiguration: what can't be an upstream is refused before anything is opened.
func TestUpstreamsOfTheConfiguration(t *testing.T) {
	for _, c := range []struct {
		list []upstream.Upstream
		want string
	}{
		{[]upstream.Upstream{{Host: "docker.io"}, {Host: "mirror.example:5000", At: "10.0.0.1:5000", Inside: true, Redirects: []string{"store.example"}}}, ""},
		{[]upstream.Upstream{{Host: "cargo.azurecr.localhost"}}, "registry of this installation"},
		{[]upstream.Upstream{{Host: "mirror.example", At: "Cargo.azurecr.localhost:8443"}}, "registry of this installation"},
		{[]upstream.Upstream{{Host: "mirror.example/one"}}, "is no host"},
		{[]upstream.Upstream{{Host: "mirror"}}, "is no host"},
		{[]upstream.Upstream{{Host: "mirror.example", Tokens: []string{"*.example"}}}, "is not a host name"},
		{[]upstream.Upstream{{Host: "mirror.example"}, {Host: "mirror.example"}}, "listed twice"},
	} {
		err := server.Check(server.Options{Data: t.TempDir(), Listen: "127.0.0.1:0", RegistrySuffix: "azurecr.localhost", Upstreams: server.Upstreams{Registries: c.list}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.list, err, c.want)
		}
	}
}

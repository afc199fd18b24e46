// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// TestDataPlaneJavaScriptSDK runs js/dataplane.mjs, with the libraries that scripts/install-test-tools puts into .tools/js.
func TestDataPlaneJavaScriptSDK(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs what scripts/install-test-tools installs")
	}
	libraries, err := filepath.Abs("../../.tools/js/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(libraries, "@azure", "container-registry")); err != nil {
		t.Fatalf("the Azure SDK for JavaScript is missing: scripts/install-test-tools installs it: %v", err)
	}
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry("cargoone", nil)
	// A module finds its libraries beside itself.
	dir := t.TempDir()
	script, err := os.ReadFile("js/dataplane.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dataplane.mjs"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(libraries, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "dataplane.mjs"))
	cmd.Env = append(os.Environ(), "ENDPOINT=https://"+s.LoginServer("cargoone"), "PROXY="+s.Proxy, "TOKEN="+s.Token(), "NODE_EXTRA_CA_CERTS="+s.CAFile, "NO_PROXY=", "no_proxy=")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "done\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

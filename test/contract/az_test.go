// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// The Azure CLI's commands for what lies in a registry, and for its tokens, against the built binary.
func TestAzureCLI(t *testing.T) {
	if testing.Short() {
		t.Skip("the Azure CLI takes a second for each command")
	}
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	manifest, err := s.PushImage(instance.Open, "app/one", "v1", []byte("a layer"))
	if err != nil {
		t.Fatal(err)
	}
	digest := instance.Digest(manifest)
	if a, err := s.OCI(instance.Open, "app/one", http.MethodPut, "/v2/app/one/manifests/v2", manifest, "Content-Type", instance.ManifestType); err != nil || a.Status != http.StatusCreated {
		t.Fatalf("%v %d %s", err, a.Status, a.Body)
	}
	bin, err := instance.Binary()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	// Each step is what a person types; says is in what az prints, and a ! before it says that az refuses.
	var script strings.Builder
	script.WriteString("set -u\neval \"$('" + bin + "' connect az --data '" + s.Data + "' --apply 2>/dev/null)\"\n")
	steps := []struct{ command, says string }{
		{"repository list -n REG -o tsv", "app/one"},
		{"repository show -n REG --repository app/one --query tagCount", "2"},
		{"repository show-tags -n REG --repository app/one --detail --orderby time_desc --top 1 --query [0].name -o tsv", "v2"},
		{"manifest list-metadata -r REG -n app/one --query [0].architecture -o tsv", "amd64"},
		{"manifest show -r REG -n app/one:v1 --query mediaType -o tsv", instance.ManifestType},
		{"repository update -n REG --image app/one:v1 --write-enabled false --query changeableAttributes.writeEnabled", "false"},
		{"repository delete -n REG --image app/one:v1 --yes", "!writeEnabled of the tag 'app/one:v1' is false"},
		{"repository update -n REG --image app/one:v1 --write-enabled true --query changeableAttributes.writeEnabled", "true"},
		{"repository untag -n REG --image app/one:v2", ""},
		{"config soft-delete update -r REG --status enabled --days 3 --yes --query status -o tsv", "enabled"},
		{"repository delete -n REG --image app/one:v1 --yes", ""},
		{"repository list-deleted -n REG -o tsv", "app/one"},
		{"manifest list-deleted -r REG -n app/one --query [0].digest -o tsv", digest},
		{"manifest restore -r REG -n app/one:v1 --yes --query manifest.tags[0] -o tsv", "v1"},
		{"scope-map create -r REG -n readers --repository app/one content/read metadata/read --query actions[0] -o tsv", "repositories/app/one/content/read"},
		{"token create -r REG -n ci-token --scope-map readers --query credentials.passwords[0].name -o tsv", "password1"},
		{"token credential generate -r REG -n ci-token --password1 --query username -o tsv", "ci-token"},
		{"scope-map delete -r REG -n readers --yes", "!in use by the token 'ci-token'"},
		{"token update -r REG -n ci-token --status disabled --query status -o tsv", "disabled"},
		{"token delete -r REG -n ci-token --yes", ""},
		{"repository delete -n REG --repository app/one --yes --query manifestsDeleted[0] -o tsv", digest},
	}
	for _, step := range steps {
		script.WriteString("echo '@@@'; az acr " + strings.ReplaceAll(step.command, "REG", instance.Open) + " 2>&1; echo \"@rc $?\"\n")
	}
	file := filepath.Join(home, "steps.sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", file)
	cmd.Env = append(os.Environ(), "HOME="+home, "EMBARGO_CONFIG_DIR="+filepath.Join(home, "embargo"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	answers := strings.Split(string(out), "@@@\n")[1:]
	if len(answers) != len(steps) {
		t.Fatalf("%d answers to %d commands:\n%s", len(answers), len(steps), out)
	}
	for i, step := range steps {
		says, refused := strings.CutPrefix(step.says, "!")
		if ok := strings.Contains(answers[i], "@rc 0"); ok == refused || !strings.Contains(answers[i], says) {
			t.Errorf("az acr %s: it should say %q:\n%s", step.command, step.says, answers[i])
		}
	}
}

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
	azure(t, s, []step{
		{"acr repository list -n REG -o tsv", "app/one"},
		{"acr repository show -n REG --repository app/one --query tagCount", "2"},
		{"acr repository show-tags -n REG --repository app/one --detail --orderby time_desc --top 1 --query [0].name -o tsv", "v2"},
		{"acr manifest list-metadata -r REG -n app/one --query [0].architecture -o tsv", "amd64"},
		{"acr manifest show -r REG -n app/one:v1 --query mediaType -o tsv", instance.ManifestType},
		{"acr repository update -n REG --image app/one:v1 --write-enabled false --query changeableAttributes.writeEnabled", "false"},
		{"acr repository delete -n REG --image app/one:v1 --yes", "!writeEnabled of the tag 'app/one:v1' is false"},
		{"acr repository update -n REG --image app/one:v1 --write-enabled true --query changeableAttributes.writeEnabled", "true"},
		{"acr repository untag -n REG --image app/one:v2", ""},
		{"acr config soft-delete update -r REG --status enabled --days 3 --yes --query status -o tsv", "enabled"},
		{"acr repository delete -n REG --image app/one:v1 --yes", ""},
		{"acr repository list-deleted -n REG -o tsv", "app/one"},
		{"acr manifest list-deleted -r REG -n app/one --query [0].digest -o tsv", digest},
		{"acr manifest restore -r REG -n app/one:v1 --yes --query manifest.tags[0] -o tsv", "v1"},
		{"acr scope-map create -r REG -n readers --repository app/one content/read metadata/read --query actions[0] -o tsv", "repositories/app/one/content/read"},
		{"acr token create -r REG -n ci-token --scope-map readers --query credentials.passwords[0].name -o tsv", "password1"},
		{"acr token credential generate -r REG -n ci-token --password1 --query username -o tsv", "ci-token"},
		{"acr scope-map delete -r REG -n readers --yes", "!in use by the token 'ci-token'"},
		{"acr token update -r REG -n ci-token --status disabled --query status -o tsv", "disabled"},
		{"acr token delete -r REG -n ci-token --yes", ""},
		{"acr repository delete -n REG --repository app/one --yes --query manifestsDeleted[0] -o tsv", digest},
	})
}

// A step is what a person types after az; says is in what az prints, and a ! before it says that az refuses. A step that begins with $NAME= keeps
// what az prints for the steps that follow. REG is the registry, GROUP its group.
type step struct{ command, says string }

// azure runs steps with a fresh az that is pointed at the instance and logged in. The folder azfix makes 'az network' of Debian's package run.
func azure(t *testing.T, s *instance.Server, steps []step) {
	t.Helper()
	bin, err := instance.Binary()
	if err != nil {
		t.Fatal(err)
	}
	fix, err := filepath.Abs("azfix")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	var script strings.Builder
	script.WriteString("set -u\neval \"$('" + bin + "' connect az --data '" + s.Data + "' --apply 2>/dev/null)\"\n")
	names := strings.NewReplacer("REG", instance.Open, "GROUP", instance.Group)
	for _, step := range steps {
		command := "az " + names.Replace(step.command) + " 2>&1; echo \"@rc $?\"\n"
		if variable, rest, ok := strings.Cut(step.command, "="); ok && strings.HasPrefix(variable, "$") {
			command = variable[1:] + "=$(az " + names.Replace(rest) + " 2>&1); rc=$?; echo \"" + variable + "\"; echo \"@rc $rc\"\n"
		}
		script.WriteString("echo '@@@'; " + command)
	}
	file := filepath.Join(home, "steps.sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", file)
	cmd.Env = append(os.Environ(), "HOME="+home, "EMBARGO_CONFIG_DIR="+filepath.Join(home, "embargo"), "PYTHONPATH="+fix, "PYTHONDONTWRITEBYTECODE=1")
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
			t.Errorf("az %s: it should say %q:\n%s", step.command, step.says, answers[i])
		}
	}
}

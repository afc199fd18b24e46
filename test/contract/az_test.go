// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// A step is what a person types after az, or a whole command that begins with curl; says is in what it prints, and a ! before it says that az refuses. A step that
// begins with $NAME= keeps what is printed for the steps that follow. REG is the registry, GROUP its group.
type step struct{ command, says string }

// az runs steps with a fresh az that is pointed at the instance and logged in. The folder azfix makes 'az network' of Debian's package run.
func az(t *testing.T, s *instance.Server, steps []step) {
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
		command := typed(names.Replace(step.command)) + " 2>&1; echo \"@rc $?\"\n"
		if variable, rest, ok := strings.Cut(step.command, "="); ok && strings.HasPrefix(variable, "$") {
			command = variable[1:] + "=$(" + typed(names.Replace(rest)) + " 2>&1); rc=$?; echo \"" + variable + "\"; echo \"@rc $rc\"\n"
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
			t.Errorf("%s: it should say %q:\n%s", step.command, step.says, answers[i])
		}
	}
}

// typed is the whole command of a step.
func typed(command string) string {
	if strings.HasPrefix(command, "curl ") {
		return command
	}
	return "az " + command
}

// sign pushes an artifact that refers to the manifest of app/one.
func sign(t *testing.T, s *instance.Server, manifest []byte) {
	t.Helper()
	signature := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/example.signature","subject":{"mediaType":%[1]q,"digest":%q,"size":%d},`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":7},"layers":[]}`, instance.ManifestType, instance.Digest(manifest), len(manifest), instance.Digest([]byte("a layer")))
	if a, err := s.OCI(instance.Open, "app/one", http.MethodPut, "/v2/app/one/manifests/"+instance.Digest(signature), signature, "Content-Type", instance.ManifestType); err != nil || a.Status != http.StatusCreated {
		t.Fatalf("%v %d %s", err, a.Status, a.Body)
	}
}

// The Azure CLI's commands for what lies in a registry, against the built binary.
func TestAzureCLIContent(t *testing.T) {
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
	sign(t, s, manifest)
	at := "https://" + s.LoginServer(instance.Open)
	quarantine := func(status string) string {
		return "resource update --ids " + s.RegistryID(instance.Open) + " --api-version 2023-07-01 --set properties.policies.quarantinePolicy.status=" + status +
			" --query properties.policies.quarantinePolicy.status -o tsv"
	}
	az(t, s, []step{
		{"acr login -n REG --expose-token --query loginServer -o tsv", s.LoginServer(instance.Open)},
		{"acr repository list -n REG -o tsv", "app/one"},
		{"acr repository show -n REG --repository app/one --query tagCount", "2"},
		{"acr repository show -n REG --image app/one:v1 --query digest -o tsv", digest},
		{"acr repository show-tags -n REG --repository app/one --detail --orderby time_desc --top 1 --query [0].name -o tsv", "v2"},
		{"acr repository show-manifests -n REG --repository app/one --query \"[?tags].tags[]\" -o tsv", "v1\nv2"},
		{"acr manifest list-metadata -r REG -n app/one --query \"[?tags]|[0].architecture\" -o tsv", "amd64"},
		{"acr manifest show -r REG -n app/one:v1 --query mediaType -o tsv", instance.ManifestType},
		{"acr manifest show-metadata -r REG -n app/one:v1 --query name -o tsv", "v1"},
		{"acr manifest show-metadata -r REG -n app/one@" + digest + " --query digest -o tsv", digest},
		{"acr manifest list-referrers -r REG -n app/one:v1 --query manifests[0].artifactType -o tsv", "application/example.signature"},
		{"acr manifest update-metadata -r REG -n app/one@" + digest + " --delete-enabled false --query changeableAttributes.deleteEnabled", "false"},
		{"acr manifest delete -r REG -n app/one@" + digest + " --yes", "!deleteEnabled"},
		{"acr manifest update-metadata -r REG -n app/one@" + digest + " --delete-enabled true --query changeableAttributes.deleteEnabled", "true"},
		{"acr repository update -n REG --image app/one:v1 --write-enabled false --query changeableAttributes.writeEnabled", "false"},
		{"acr repository delete -n REG --image app/one:v1 --yes", "!writeEnabled of the tag 'app/one:v1' is false"},
		{"acr repository update -n REG --image app/one:v1 --write-enabled true --query changeableAttributes.writeEnabled", "true"},
		{quarantine("enabled"), "enabled"},
		{"acr import -n REG --source " + s.LoginServer(instance.Open) + "/app/one:v1 --image app/held:v1", ""},
		{"acr manifest show-metadata -r REG -n app/held@" + digest + " --query changeableAttributes.quarantineState -o tsv", "Quarantined"},
		{"$REFRESH=acr login -n REG --expose-token --only-show-errors --query accessToken -o tsv", ""},
		{"$ACCESS=curl -sS --cacert \"$REQUESTS_CA_BUNDLE\" " + at + "/oauth2/token -d grant_type=refresh_token -d service=" + s.LoginServer(instance.Open) +
			" -d scope=repository:app/held:metadata_read,metadata_write -d refresh_token=\"$REFRESH\" | jq -r .access_token", ""},
		{"curl -sS --cacert \"$REQUESTS_CA_BUNDLE\" -X PATCH " + at + "/acr/v1/app/held/_manifests/" + digest +
			" -H \"Authorization: Bearer $ACCESS\" -d '{\"quarantineState\":\"Passed\",\"quarantineDetails\":\"scanned\"}'", `"quarantineState":"Passed"`},
		{"acr manifest show-metadata -r REG -n app/held@" + digest + " --query changeableAttributes.quarantineDetails -o tsv", "scanned"},
		{quarantine("disabled"), "disabled"},
		{"acr config soft-delete update -r REG --status enabled --days 3 --yes --query status -o tsv", "enabled"},
		{"acr repository untag -n REG --image app/one:v2", ""},
		{"acr manifest list-deleted-tags -r REG -n app/one --query [0].tag -o tsv", "v2"},
		{"acr repository delete -n REG --image app/one:v1 --yes", ""},
		{"acr repository list-deleted -n REG -o tsv", "app/one"},
		{"acr manifest list-deleted -r REG -n app/one --query [].digest -o tsv", digest},
		{"acr manifest restore -r REG -n app/one:v1 --yes --query manifest.tags[0] -o tsv", "v1"},
		{"acr manifest delete -r REG -n app/one:v1 --yes", ""},
		{"acr manifest restore -r REG -n app/one:v1 -d " + digest + " --yes --query manifest.tags[0] -o tsv", "v1"},
		{"acr repository delete -n REG --repository app/one --yes --query manifestsDeleted -o tsv", digest},
	})
}

// The Azure CLI's commands for a registry's tokens, policies and webhooks. Debian's 2.45 has none for cache rules and credential sets: az rest sends
// what newer ones send.
func TestAzureCLIResources(t *testing.T) {
	if testing.Short() {
		t.Skip("the Azure CLI takes a second for each command")
	}
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	s := instance.New(t, "sqlite", "webhooks:\n  destinations: [\""+hook.Listener.Addr().String()+"\"]\nupstreams:\n  registries: [{host: docker.io}]\n")
	s.CreateRegistry(instance.Open, nil)
	if _, err := s.PushImage(instance.Open, "app/one", "v1", []byte("a layer")); err != nil {
		t.Fatal(err)
	}
	id := s.RegistryID(instance.Open)
	rest := func(method, child, body string) string {
		return "rest --method " + method + " --url '" + id + "/" + child + "?api-version=2023-07-01' " + body
	}
	az(t, s, []step{
		{"acr scope-map create -r REG -n readers --repository app/one content/read metadata/read --query actions[0] -o tsv", "repositories/app/one/content/read"},
		{"acr scope-map update -r REG -n readers --add-repository app/two content/read --query actions -o tsv", "repositories/app/two/content/read"},
		{"acr scope-map list -r REG --query [].name -o tsv", "readers"},
		{"acr scope-map show -r REG -n readers --query properties.type -o tsv", ""},
		{"acr token create -r REG -n ci-token --scope-map readers --query credentials.passwords[0].name -o tsv", "password1"},
		{"acr token create -r REG -n own-token --repository app/one content/read --no-passwords --query scopeMapId -o tsv", "own-token-scope-map"},
		{"acr token list -r REG --query [].name -o tsv", "ci-token"},
		{"acr token show -r REG -n ci-token --query credentials.passwords[1].name -o tsv", "password2"},
		{"acr token credential generate -r REG -n ci-token --password1 --expiration-in-days 3 --query username -o tsv", "ci-token"},
		{"acr token credential delete -r REG -n ci-token --password2 --query \"length(credentials.passwords)\"", "1"},
		{"acr scope-map delete -r REG -n readers --yes", "!in use by the token 'ci-token'"},
		{"acr token update -r REG -n ci-token --status disabled --query status -o tsv", "disabled"},
		{"acr token delete -r REG -n ci-token --yes", ""},
		{"acr scope-map delete -r REG -n readers --yes", ""},
		{"acr config retention update -r REG --status enabled --days 5 --type UntaggedManifests --query days", "5"},
		{"acr config retention show -r REG --query status -o tsv", "enabled"},
		{"acr config retention update -r REG --status disabled --type UntaggedManifests --query status -o tsv", "disabled"},
		{"acr config soft-delete update -r REG --status enabled --days 3 --yes --query retentionDays", "3"},
		{"acr config soft-delete show -r REG --query status -o tsv", "enabled"},
		{"acr config content-trust update -r REG --status enabled --query status -o tsv", "enabled"},
		{"acr config content-trust show -r REG --query status -o tsv", "enabled"},
		{"acr config content-trust update -r REG --status disabled --query status -o tsv", "disabled"},
		{"acr config authentication-as-arm update -r REG --status disabled --query status -o tsv", "disabled"},
		{"acr config authentication-as-arm show -r REG --query status -o tsv", "disabled"},
		{"acr webhook create -r REG -n hookone --uri " + hook.URL + "/hook --actions push delete --headers X-Who=harbour --scope app/one:* --query status -o tsv", "enabled"},
		{"acr webhook list -r REG --query [].name -o tsv", "hookone"},
		{"acr webhook show -r REG -n hookone --query scope -o tsv", "app/one:*"},
		{"acr webhook update -r REG -n hookone --actions push --query actions[0] -o tsv", "push"},
		{"acr webhook get-config -r REG -n hookone --query serviceUri -o tsv", hook.URL + "/hook"},
		{"acr webhook ping -r REG -n hookone --query id -o tsv", "-"},
		{"acr webhook list-events -r REG -n hookone --query [0].eventRequestMessage.content.action -o tsv", "ping"},
		{"acr webhook delete -r REG -n hookone", ""},
		{rest("put", "credentialSets/hub-one", `--body '{"identity":{"type":"SystemAssigned"},"properties":{"loginServer":"docker.io","authCredentials":[{"name":"Credential1","usernameSecretIdentifier":"data:,someone","passwordSecretIdentifier":"data:,secret"}]}}'`), "Succeeded"},
		{rest("put", "cacheRules/rule-one", `--body '{"properties":{"sourceRepository":"docker.io/library/*","targetRepository":"library/*","credentialSetResourceId":"`+id+`/credentialSets/hub-one"}}'`), "docker.io/library/*"},
		{rest("get", "cacheRules", "") + " --query value[].name -o tsv", "rule-one"},
		{rest("delete", "cacheRules/rule-one", ""), ""},
		{rest("delete", "credentialSets/hub-one", ""), ""},
	})
}

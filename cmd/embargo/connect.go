// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/armclient"
)

// cloudName is the name under which az knows the installation.
const cloudName = "Embargo"

// connection is what is needed to point a client at an installation.
type connection struct {
	armclient.Credentials
	data, file string
	registry   string // login server of a registry, "" when none was named
	out, err   io.Writer
	cmd        *cobra.Command
}

func connectCommand() *cobra.Command {
	clients := map[string]struct {
		print func(*connection) error
		apply func(*connection) error
	}{
		"az":        {(*connection).printAz, (*connection).applyAz},
		"docker":    {(*connection).printDocker, (*connection).applyDocker},
		"podman":    {(*connection).printPodman, (*connection).applyPodman},
		"terraform": {(*connection).printTerraform, (*connection).applyTerraform},
	}
	var apply bool
	var data, registry string
	c := &cobra.Command{
		Use:   "connect az|docker|podman|terraform",
		Short: "Print what points a client at this installation, or do it",
		Long: "Print what points a client at this installation. What is printed is a shell script:\n\n  eval \"$(embargo connect az)\"\n\n" +
			"With --apply the client is logged in at once, and only the environment it needs is printed.",
		ValidArgs: []string{"az", "docker", "podman", "terraform"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || clients[args[0]].print == nil {
				return usage("name one client: az, docker, podman or terraform")
			}
			return nil
		},
	}
	fallback := os.Getenv("EMBARGO_DATA")
	if fallback == "" {
		fallback = "./embargo-data"
	}
	c.Flags().StringVar(&data, "data", fallback, "Data directory of the installation. Environment: EMBARGO_DATA")
	c.Flags().BoolVar(&apply, "apply", false, "Do it instead of printing it")
	c.Flags().StringVar(&registry, "registry", "", "docker and podman: the registry to log in to, by name or login server")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := filepath.Abs(data)
		if err != nil {
			return err
		}
		k := &connection{data: dir, file: filepath.Join(dir, "credentials.json"), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), cmd: cmd}
		k.Credentials, err = armclient.ReadCredentials(k.file)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s does not exist: start the installation first with 'embargo serve --data %s'", k.file, data)
		}
		if err != nil {
			return err
		}
		if registry != "" {
			var why error
			if k.registry, why = loginServer(cmd.Context(), k.Credentials, registry); why != nil {
				fmt.Fprintf(k.err, "%s is taken for the login server of %s, which was not looked up: %v\n", k.registry, registry, why)
			}
		}
		if apply {
			return clients[args[0]].apply(k)
		}
		return clients[args[0]].print(k)
	}
	return c
}

// loginServer is the login server of a registry that is named so, or is named by its login server. What says which it is is the installation, to a client that is logged in to it and may see the
// registry; without that it is the name and the suffix, and why says why.
func loginServer(ctx context.Context, known armclient.Credentials, registry string) (server string, why error) {
	registry = strings.ToLower(registry)
	if strings.Contains(registry, ".") {
		return registry, nil
	}
	properties, why := propertiesOf(ctx, known, registry)
	if why != nil {
		return registry + known.ACRLoginServerSuffix, why
	}
	server, _ = properties["loginServer"].(string)
	return server, nil
}

// propertiesOf are those of the registry of a name or a login server, as the client that is logged in sees them.
func propertiesOf(ctx context.Context, known armclient.Credentials, registry string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := open(ctx)
	if err != nil {
		return nil, err
	}
	if client.ResourceManager() != known.ResourceManager {
		return nil, fmt.Errorf("the login is to %s: run 'embargo login' for %s", client.ResourceManager(), known.ResourceManager)
	}
	subscriptions, err := client.List(ctx, "/subscriptions", subscriptionsVersion)
	if err != nil {
		return nil, err
	}
	for _, s := range subscriptions {
		m, _ := s.(map[string]any)
		id, _ := m["subscriptionId"].(string)
		list, err := client.List(ctx, scope(client, id, "")+"/providers/Microsoft.ContainerRegistry/registries", registriesVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			m, _ := r.(map[string]any)
			name, _ := m["name"].(string)
			properties, _ := m["properties"].(map[string]any)
			if server, _ := properties["loginServer"].(string); server != "" && (strings.EqualFold(name, registry) || strings.EqualFold(server, registry)) {
				return properties, nil
			}
		}
	}
	return nil, errors.New("the login sees no registry of that name")
}

func (k *connection) say(format string, args ...any) { fmt.Fprintf(k.out, format+"\n", args...) }

// quote makes one word of a shell's command line.
func quote(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:=@%+,", r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// secret is a shell expression for the secret, so that it stands in no script and no history.
func (k *connection) secret() string {
	return `"$(sed -n 's/^ *"clientSecret": "\(.*\)",*$/\1/p' ` + quote(k.file) + `)"`
}

// variable is an environment variable that a client needs.
type variable struct{ name, value string }

// common are the variables of every client: which authority to trust, and the way to the installation's names.
func (k *connection) common() []variable {
	v := []variable{{"SSL_CERT_FILE", k.CAFile}}
	if k.Proxy != "" {
		// Programs in Python take NO_PROXY=localhost for every name that ends in localhost, so it must be empty.
		v = append(v, variable{"HTTPS_PROXY", k.Proxy}, variable{"https_proxy", k.Proxy}, variable{"NO_PROXY", ""}, variable{"no_proxy", ""})
	}
	return v
}

func (k *connection) export(vars []variable) {
	for _, v := range vars {
		k.say("export %s=%s", v.name, quote(v.value))
	}
}

// --- az

func (k *connection) azDir() string {
	if d := os.Getenv("AZURE_CONFIG_DIR"); d != "" {
		return d
	}
	return filepath.Join(k.data, "clients", "az")
}

func (k *connection) azVariables() []variable {
	return append([]variable{
		{"AZURE_CONFIG_DIR", k.azDir()},
		{"REQUESTS_CA_BUNDLE", k.CAFile},
		{"AZURE_CORE_COLLECT_TELEMETRY", "false"},
		{"AZURE_CORE_USE_MSAL_HTTP_CACHE", "false"},
		{"AZURE_CORE_INSTANCE_DISCOVERY", "false"},
		{"AZURE_EXTENSION_USE_DYNAMIC_INSTALL", "no"},
		{"AZURE_BICEP_CHECK_VERSION", "false"},
	}, k.common()...)
}

// cloud is the description that az registers.
func (k *connection) cloud() ([]byte, error) {
	arm := strings.TrimSuffix(k.ResourceManager, "/")
	return json.MarshalIndent(map[string]any{
		"endpoints": map[string]string{
			"management": arm + "/", "resourceManager": arm, "gallery": arm + "/",
			"activeDirectory": k.ActiveDirectory, "activeDirectoryResourceId": arm + "/",
			"activeDirectoryGraphResourceId": arm + "/graph/", "microsoftGraphResourceId": arm + "/graph/",
			"logAnalyticsResourceId": arm + "/loganalytics",
		},
		"suffixes": map[string]string{"acrLoginServerEndpoint": k.ACRLoginServerSuffix, "storageEndpoint": "core.localhost", "keyvaultDns": ".vault.localhost"},
	}, "", " ")
}

func (k *connection) printAz() error {
	cloud, err := k.cloud()
	if err != nil {
		return err
	}
	k.say("# The Azure CLI, in a configuration directory of its own:")
	k.export(k.azVariables())
	k.say(`mkdir -p "$AZURE_CONFIG_DIR"`)
	k.say("cat > \"$AZURE_CONFIG_DIR/embargo-cloud.json\" <<'JSON'\n%s\nJSON", cloud)
	k.say(`az cloud register --name %s --cloud-config "@$AZURE_CONFIG_DIR/embargo-cloud.json" 2>/dev/null ||`, cloudName)
	k.say(`  az cloud update --name %s --cloud-config "@$AZURE_CONFIG_DIR/embargo-cloud.json"`, cloudName)
	k.say("az cloud set --name %s", cloudName)
	k.say("az login --service-principal --username %s --password=%s --tenant %s", quote(k.ClientID), k.secret(), quote(k.TenantID))
	return nil
}

func (k *connection) applyAz() error {
	if err := k.needsSecret(); err != nil {
		return err
	}
	cloud, err := k.cloud()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(k.azDir(), 0o700); err != nil {
		return err
	}
	file := filepath.Join(k.azDir(), "embargo-cloud.json")
	if err := os.WriteFile(file, cloud, 0o600); err != nil {
		return err
	}
	vars := k.azVariables()
	if _, err := k.run(vars, "", "az", "cloud", "register", "--name", cloudName, "--cloud-config", "@"+file); err != nil {
		if out, err := k.run(vars, "", "az", "cloud", "update", "--name", cloudName, "--cloud-config", "@"+file); err != nil {
			return fmt.Errorf("az cloud register and update failed: %w\n%s", err, out)
		}
	}
	for _, args := range [][]string{
		{"cloud", "set", "--name", cloudName},
		{"login", "--service-principal", "--username", k.ClientID, "--password=" + k.ClientSecret, "--tenant", k.TenantID, "--output", "none"},
	} {
		if out, err := k.run(vars, "", "az", args...); err != nil {
			return fmt.Errorf("az %s failed: %w\n%s", args[0], err, out)
		}
	}
	fmt.Fprintf(k.err, "az is logged in to %s. Your shell needs this environment (eval \"$(embargo connect az --apply)\" sets it):\n", k.ResourceManager)
	k.export(vars)
	return nil
}

func (k *connection) needsSecret() error {
	if k.ClientSecret == "" {
		return fmt.Errorf("%s holds no secret: make one with 'embargo principal rotate %s'", k.file, k.ClientID)
	}
	return nil
}

// run executes a program with the variables added to the environment, and stdin as its input.
func (k *connection) run(vars []variable, stdin, name string, args ...string) (string, error) {
	c := exec.CommandContext(k.cmd.Context(), name, args...)
	c.Env = slices.Clone(os.Environ())
	for _, v := range vars {
		c.Env = append(c.Env, v.name+"="+v.value)
	}
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not installed here", name)
	}
	return strings.TrimSpace(string(out)), err
}

// --- docker and podman

// login is the login server in examples.
func (k *connection) login() string {
	if k.registry != "" {
		return k.registry
	}
	return "NAME" + k.ACRLoginServerSuffix
}

func (k *connection) printDocker() error {
	k.say("# The Docker daemon pulls and pushes, so it is the daemon that needs the authority and the proxy:")
	k.say("#   sudo mkdir -p /etc/docker/certs.d/%s && sudo cp %s /etc/docker/certs.d/%s/ca.crt", k.login(), quote(k.CAFile), k.login())
	if k.Proxy != "" {
		k.say(`#   in /etc/docker/daemon.json: {"proxies": {"https-proxy": "%s", "no-proxy": ""}}, then: sudo systemctl restart docker`, k.Proxy)
		k.say(`#   (Docker before 23 knows no such key: HTTPS_PROXY=%s in its daemon's environment does the same)`, k.Proxy)
	}
	k.export(k.common())
	k.say("printf %%s %s | docker login --username %s --password-stdin %s", k.secret(), quote(k.ClientID), k.login())
	return nil
}

func (k *connection) applyDocker() error {
	return k.applyEngine("docker", filepath.Join("/etc/docker/certs.d"))
}

func (k *connection) printPodman() error {
	k.say("# podman, buildah and skopeo:")
	k.export(k.common())
	k.say("printf %%s %s | podman login --username %s --password-stdin %s", k.secret(), quote(k.ClientID), k.login())
	return nil
}

func (k *connection) applyPodman() error {
	config, err := os.UserConfigDir()
	if err != nil {
		return err
	}
	return k.applyEngine("podman", filepath.Join(config, "containers", "certs.d"))
}

// applyEngine puts the authority where the engine looks for it and logs in.
func (k *connection) applyEngine(engine, certs string) error {
	if k.registry == "" {
		return usage("--apply needs --registry NAME for %s", engine)
	}
	if err := k.needsSecret(); err != nil {
		return err
	}
	pem, err := os.ReadFile(k.CAFile)
	if err != nil {
		return err
	}
	dir := filepath.Join(certs, k.registry)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("the authority could not be put where %s looks for it: %w", engine, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), pem, 0o644); err != nil {
		return err
	}
	if out, err := k.run(k.common(), k.ClientSecret, engine, "login", "--username", k.ClientID, "--password-stdin", k.registry); err != nil {
		hint := ""
		if strings.Contains(string(out), "403") {
			hint = "\nIf the registry's publicNetworkAccess is disabled, its public side is shut: log in at a private listener or the address of a private endpoint (docs/networks.md)."
		}
		return fmt.Errorf("%s login failed: %w\n%s%s", engine, err, out, hint)
	}
	fmt.Fprintf(k.err, "%s is logged in to %s. Your shell needs this environment:\n", engine, k.registry)
	k.export(k.common())
	return nil
}

// --- terraform

func (k *connection) terraform() (string, []variable, error) {
	u, err := url.Parse(k.ResourceManager)
	if err != nil {
		return "", nil, err
	}
	provider := fmt.Sprintf(`provider "azurerm" {
  features {}
  metadata_host                   = %q
  tenant_id                       = %q
  subscription_id                 = %q
  client_id                       = %q
  resource_provider_registrations = "none"
}
`, u.Host, k.TenantID, k.SubscriptionID, k.ClientID)
	return provider, append(k.common(), variable{"ARM_CLIENT_SECRET", k.ClientSecret}), nil
}

func (k *connection) printTerraform() error {
	provider, _, err := k.terraform()
	if err != nil {
		return err
	}
	k.say("# OpenTofu or Terraform with azurerm 4 or later. The provider's block, in a file such as embargo.tf:")
	for line := range strings.SplitSeq(strings.TrimSuffix(provider, "\n"), "\n") {
		k.say("#   %s", line)
	}
	k.export(k.common())
	k.say("export ARM_CLIENT_SECRET=%s", k.secret())
	return nil
}

func (k *connection) applyTerraform() error {
	if err := k.needsSecret(); err != nil {
		return err
	}
	provider, vars, err := k.terraform()
	if err != nil {
		return err
	}
	f, err := os.OpenFile("embargo.tf", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return errors.New("embargo.tf exists already in this directory: it is left as it is")
	}
	if err != nil {
		return err
	}
	if _, err := f.WriteString(provider); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Fprintln(k.err, "embargo.tf is written. Your shell needs this environment:")
	k.export(vars)
	return nil
}

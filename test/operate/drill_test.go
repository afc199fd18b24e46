// SPDX-License-Identifier: Apache-2.0

// Package operate runs the built binary as operators do: backups and restores, rotated keys, changed configuration, probes and clocks.
package operate

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// private is a configuration with a door to the registry that has no public side, and the door's URL.
func private(t *testing.T) (config string, doors map[string]string) {
	t.Helper()
	address := instance.FreePort(t)
	return fmt.Sprintf("privateListeners: [{address: %q, registry: %q, tls: false}]\n", address, instance.Closed),
		map[string]string{instance.Closed: "http://" + address}
}

// must runs a command of the binary that must succeed, and returns what it printed.
func must(t *testing.T, s *instance.Server, args ...string) string {
	t.Helper()
	out, errs, err := s.Run(t.Context(), args...)
	if err != nil {
		t.Fatalf("embargo %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// fails runs a command of the binary that must fail and say so.
func fails(t *testing.T, s *instance.Server, says string, args ...string) {
	t.Helper()
	out, errs, err := s.Run(t.Context(), args...)
	if err == nil || !strings.Contains(errs, says) {
		t.Errorf("embargo %s: %v; it should say %q\n%s%s", strings.Join(args, " "), err, says, out, errs)
	}
}

// pairs gives each ordered pair of kinds once.
func pairs() (all [][2]string) {
	for _, from := range metatest.Kinds {
		for _, to := range metatest.Kinds {
			if from != to || len(metatest.Kinds) == 1 {
				all = append(all, [2]string{from, to})
			}
		}
	}
	return all
}

// restored is a server that is not started, on what a restore of the newest backup put into a new data directory and a database of the kind.
func restored(t *testing.T, first *instance.Server, folder, kind, config string) *instance.Server {
	t.Helper()
	database := ""
	if kind == "postgres" {
		database = metatest.URL(t, kind)
	}
	s := instance.At(t, filepath.Join(t.TempDir(), "data"), database, config)
	args := []string{"restore", "--from", folder, "--data", s.Data, "--key-file", filepath.Join(first.Data, "installation.key")}
	if database != "" {
		args = append(args, "--database", database)
	}
	must(t, s, args...)
	return s
}

// shut checks that a held installation lets nothing out, whatever its registries' documents say.
func shut(t *testing.T, s *instance.Server) {
	t.Helper()
	if a := s.Import(instance.Closed, instance.J{"resourceId": s.RegistryID(instance.Open), "sourceImage": "app:v1"}, "stolen:v1"); a.Status < 400 || !strings.Contains(string(a.Body), "embargo restore confirm") {
		t.Errorf("a held registry is imported from: %d %s", a.Status, a.Body)
	}
	if a, err := s.OCI(instance.Open, "app", http.MethodGet, "/v2/app/manifests/v1", nil); err != nil || a.Status != http.StatusForbidden {
		t.Errorf("the public side of a held registry is open: %v %d %s", err, a.Status, a.Body)
	}
	if a := s.ARM(http.MethodPut, s.RegistryID(instance.Open)+"/exportPipelines/another"+instance.Version, instance.J{"location": "centralus", "identity": instance.J{"type": "SystemAssigned"},
		"properties": instance.J{"target": instance.J{"type": "AzureStorageBlobContainer", "uri": "https://acct.blob.core.windows.net/out", "keyVaultUri": "https://kv.vault.azure.net/secrets/sas"}}}); a.Status < 400 {
		t.Errorf("a held registry gets an export pipeline: %d %s", a.Status, a.Body)
	}
	for what, properties := range map[string]instance.J{"exports": {"policies": instance.J{"exportPolicy": instance.J{"status": "enabled"}}}, "public access": {"publicNetworkAccess": "Enabled"}} {
		if a := s.Patch(instance.Closed, properties); a.Status < 400 {
			t.Errorf("%s of a held registry are enabled: %d %s", what, a.Status, a.Body)
		}
	}
	a := s.ARM(http.MethodGet, s.RegistryID(instance.Open)+instance.Version, nil)
	if a.Get("properties.policies.exportPolicy.status") != "disabled" || a.Get("properties.publicNetworkAccess") != "Disabled" {
		t.Errorf("a held registry reads as open: %s", a.Body)
	}
}

// login makes the first principal's session on s, with the secret that another installation's directory still has.
func login(t *testing.T, s, first *instance.Server) {
	t.Helper()
	s.ClientSecret = first.ClientSecret
	must(t, s, "login", "--service-principal", "--credentials", filepath.Join(s.Data, "credentials.json"), "--username", s.ClientID, "--password", s.ClientSecret)
}

// The drill: an installation of the first schema is upgraded, backed up under load, killed, and restored elsewhere on the other database. It comes up held; an owner confirms it; everything is there.
func TestDrill(t *testing.T) {
	for _, pair := range pairs() {
		t.Run(pair[0]+" to "+pair[1], func(t *testing.T) {
			config, doors := private(t)
			data, database, kept := instance.Kept(t, 1, pair[0])
			first := instance.At(t, data, database, config)
			first.Start()
			instance.Compare(t, kept, first.Inventory(t.Context(), doors))
			folder := filepath.Join(t.TempDir(), "backups")
			must(t, first, "backup", "--data", first.Data, "--to", folder)
			before := first.Inventory(t.Context(), doors)

			var stop atomic.Bool
			pushed := make(chan int)
			go func() {
				n := 0
				for ; !stop.Load(); n++ {
					if _, err := first.PushImage(instance.Open, "load", fmt.Sprintf("t%d", n), fmt.Appendf(nil, "layer %d %s", n, strings.Repeat("x", n*100))); err != nil {
						t.Errorf("a push beside the backup failed: %v", err)
						break
					}
				}
				pushed <- n
			}()
			for range 3 {
				must(t, first, "backup", "--data", first.Data, "--to", folder)
			}
			stop.Store(true)
			if n := <-pushed; n == 0 {
				t.Error("nothing was pushed while the backups were made")
			}
			after := first.Inventory(t.Context(), doors)
			first.Kill()
			if out := must(t, first, "backup", "verify", "--all", "--from", folder, "--data", first.Data); strings.Count(out, " is whole") != 4 {
				t.Errorf("not all backups are whole:\n%s", out)
			}

			s := restored(t, first, folder, pair[1], config)
			s.Start()
			login(t, s, first)
			shut(t, s)
			must(t, s, "restore", "confirm", "--yes", "--data", s.Data)
			fails(t, s, "Nothing waits for a confirmation", "restore", "confirm", "--yes", "--data", s.Data)
			got := s.Inventory(t.Context(), doors)
			for _, l := range before {
				if _, ok := slices.BinarySearch(got, l); !ok {
					t.Errorf("lost: %s", l)
				}
			}
			for _, l := range got {
				if _, ok := slices.BinarySearch(after, l); !ok {
					t.Errorf("came from nowhere: %s", l)
				}
			}
			if a := s.Import(instance.Open, instance.J{"resourceId": s.RegistryID(instance.Closed), "sourceImage": "app:v1"}, "stolen:v1"); a.Status < 400 {
				t.Errorf("a locked registry can be imported from after a restore: %d %s", a.Status, a.Body)
			}
			s.Recorded(t.Context(), "who confirmed the restore", func(r map[string]any) bool {
				return r["action"] == "Embargo.Containment/restore/confirm/action" && strings.Contains(fmt.Sprint(r["caller"]), "embargo-owner")
			})
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A database that is older than the policies' high-water marks is held, however it came there: here, a copy of the file that was made before the registry was locked.
func TestOlderCopyIsHeld(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Closed, nil)
	s.CreateRegistry(instance.Open, nil)
	if _, err := s.PushImage(instance.Open, "app", "v1", []byte("layer")); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Data, "embargo.db")
	copied, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if a := s.Lock(instance.Closed); a.Status != http.StatusOK {
		t.Fatalf("locking: %d %s", a.Status, a.Body)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Start() // the newest database is not held
	if a := s.Import(instance.Closed, instance.J{"resourceId": s.RegistryID(instance.Open), "sourceImage": "app:v1"}, "copy:v1"); a.Status != http.StatusOK {
		t.Errorf("an installation that was only restarted is held: %d %s", a.Status, a.Body)
	}
	secret := s.Credentials.ClientSecret
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.ClientSecret = secret
	shut(t, s)
	// What a held registry shows is not made its own by a client that reads, changes a tag and writes.
	doc := s.ARM(http.MethodGet, s.RegistryID(instance.Open)+instance.Version, nil)
	var whole map[string]any
	if err := json.Unmarshal(doc.Body, &whole); err != nil {
		t.Fatal(err)
	}
	whole["tags"] = instance.J{"x": "y"}
	if a := s.ARM(http.MethodPut, s.RegistryID(instance.Open)+instance.Version, whole); a.Status != http.StatusConflict || !strings.Contains(string(a.Body), "embargo restore confirm") {
		t.Errorf("what is shown while it is held was written back: %d %s", a.Status, a.Body)
	}
	if err := s.Stop(); err != nil { // a restart does not end it
		t.Fatal(err)
	}
	s.Start()
	shut(t, s)
	// Who may do nearly everything, but not give rights, is no owner.
	var other struct{ ID, AppID, Secret string }
	if err := json.Unmarshal([]byte(must(t, s, "principal", "create", "--data", s.Data, "--name", "contributor", "--output", "json")), &other); err != nil {
		t.Fatal(err)
	}
	if a := s.ARM(http.MethodPut, "/subscriptions/"+s.SubscriptionID+"/providers/Microsoft.Authorization/roleAssignments/11111111-2222-4333-8444-777777777777?api-version=2022-04-01",
		instance.J{"properties": instance.J{"principalId": other.ID, "roleDefinitionId": "/subscriptions/" + s.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c"}}); a.Status != http.StatusCreated {
		t.Fatalf("making a contributor: %d %s", a.Status, a.Body)
	}
	must(t, s, "login", "--service-principal", "--credentials", filepath.Join(s.Data, "credentials.json"), "--username", other.AppID, "--password", other.Secret)
	fails(t, s, "takes an owner", "restore", "confirm", "--yes", "--data", s.Data)
	shut(t, s)
	login(t, s, s)
	// What the confirmation would open is told by name before it is asked.
	opens := instance.Open + " OPENS: exports enabled, public network access enabled"
	if said := must(t, s, "status", "--data", s.Data); !strings.Contains(said, opens) || !strings.Contains(said, instance.Closed+" OPENS: exports enabled") {
		t.Errorf("the status tells: %s", said)
	}
	fails(t, s, opens, "restore", "confirm", "--data", s.Data) // nobody answers
	shut(t, s)
	must(t, s, "restore", "confirm", "--yes", "--data", s.Data)
	if a := s.Import(instance.Closed, instance.J{"resourceId": s.RegistryID(instance.Open), "sourceImage": "app:v1"}, "copy:v1"); a.Status != http.StatusOK {
		t.Errorf("after the confirmation an open registry can't be imported from: %d %s", a.Status, a.Body)
	}
}

// TestOlderDirectoryIsHeld: a whole data directory that is put back as it was is known for older where policyEpochs lies elsewhere, also when that place was away for a moment: a change
// whose mark can't be written is in force and not answered as done, and asking for it again writes the mark.
func TestOlderDirectoryIsHeld(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("away=%t", away), func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "disk")
			if err := os.Mkdir(disk, 0o700); err != nil {
				t.Fatal(err)
			}
			s := instance.New(t, "sqlite", "policyEpochs: "+filepath.Join(disk, "epochs.json")+"\n")
			s.CreateRegistry(instance.Open, nil)
			s.CreateRegistry(instance.Closed, nil)
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			before := filepath.Join(t.TempDir(), "before")
			if out, err := exec.Command("cp", "-a", s.Data, before).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			s.Start()
			if away {
				if err := os.Rename(disk, disk+".away"); err != nil {
					t.Fatal(err)
				}
				if a := s.Lock(instance.Closed); a.Status != http.StatusServiceUnavailable || !strings.Contains(string(a.Body), "policyEpochs") {
					t.Errorf("locking while the marks can't be written: %d %s", a.Status, a.Body)
				}
				if err := os.Rename(disk+".away", disk); err != nil {
					t.Fatal(err)
				}
			}
			if a := s.Lock(instance.Closed); a.Status != http.StatusOK {
				t.Fatalf("locking: %d %s", a.Status, a.Body)
			}
			s.Kill()
			if err := errors.Join(os.RemoveAll(s.Data), os.Rename(before, s.Data)); err != nil {
				t.Fatal(err)
			}
			s.Start()
			shut(t, s)
		})
	}
}

// TestPolicyEpochsOfAnother: two installations that name one file for their policy epochs do not lose each other's: the second is refused while the first runs and afterwards. What is no file is
// told by its key.
func TestPolicyEpochsOfAnother(t *testing.T) {
	epochs := filepath.Join(t.TempDir(), "epochs.json")
	config := "policyEpochs: " + epochs + "\n"
	one := instance.New(t, "sqlite", config)
	one.CreateRegistry(instance.Open, nil)
	two := instance.At(t, filepath.Join(t.TempDir(), "two"), "", config)
	refused := func(s *instance.Server, says string) {
		t.Helper()
		if err := s.TryStart(); err == nil || !strings.Contains(s.Stderr(), says) || !strings.Contains(s.Stderr(), "policyEpochs") {
			t.Errorf("a start with policy epochs that it can't have: %v; it should say %q\n%s", err, says, s.Stderr())
		}
	}
	refused(two, epochs+" (policyEpochs) are in use by another embargo")
	if err := one.Stop(); err != nil {
		t.Fatal(err)
	}
	refused(two, "belong to the installation of the tenant "+one.TenantID+", and not to this installation, which is new")
	three := instance.New(t, "sqlite", "")
	if err := three.Stop(); err != nil {
		t.Fatal(err)
	}
	refused(instance.At(t, three.Data, "", config), "of the tenant "+one.TenantID+", and not to this installation, of the tenant "+three.TenantID)
	one.Start()
	if said := must(t, one, "status", "--data", one.Data); strings.Contains(said, "HELD") {
		t.Errorf("it is held beside its own policy epochs: %s", said)
	}
	if err := one.Stop(); err != nil {
		t.Fatal(err)
	}
	// A file is an installation's from its first start on, before it has a registry.
	for _, path := range []string{epochs, epochs + ".lock"} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	two.Start()
	if err := two.Stop(); err != nil {
		t.Fatal(err)
	}
	refused(one, "of the tenant "+two.TenantID+", and not to")
	if err := errors.Join(os.Remove(epochs), os.Mkdir(epochs, 0o700)); err != nil {
		t.Fatal(err)
	}
	refused(one, epochs)
	fails(t, one, one.Config+":1: policyEpochs: "+epochs+" is no file", "config", "check", "--config", one.Config, "--data", one.Data)
}

// TestServerMovesWithItsPolicyEpochs: a server that moves to another machine and back comes up open where its policy epochs came along, and held where they are older than a registry.
func TestServerMovesWithItsPolicyEpochs(t *testing.T) {
	here := instance.New(t, "postgres", "")
	here.CreateRegistry(instance.Open, nil)
	there := instance.Copy(t, here, filepath.Join(t.TempDir(), "there"))
	move := func(from, to *instance.Server, along bool) string {
		t.Helper()
		if err := from.Stop(); err != nil {
			t.Fatal(err)
		}
		if along {
			marks, err := os.ReadFile(filepath.Join(from.Data, "policy-epochs.json"))
			if err == nil {
				err = os.WriteFile(filepath.Join(to.Data, "policy-epochs.json"), marks, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		to.Start()
		to.ClientSecret = from.ClientSecret
		return must(t, to, "status", "--data", to.Data)
	}
	if said := move(here, there, true); strings.Contains(said, "HELD") {
		t.Errorf("with its policy epochs it is held: %s", said)
	}
	there.CreateRegistry(instance.Closed, nil)
	if a := there.Lock(instance.Closed); a.Status != http.StatusOK {
		t.Fatalf("locking: %d %s", a.Status, a.Body)
	}
	if said := move(there, here, true); strings.Contains(said, "HELD") {
		t.Errorf("back with its policy epochs it is held: %s", said)
	}
	here.CreateRegistry("lateregistry", nil)
	if a := here.Lock("lateregistry"); a.Status != http.StatusOK {
		t.Fatalf("locking: %d %s", a.Status, a.Body)
	}
	if said := move(here, there, false); !strings.Contains(said, "don't know the registry 'lateregistry'") {
		t.Errorf("with policy epochs that are older than a registry: %s", said)
	}
}

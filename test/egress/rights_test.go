// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// TestR19AdminUserIsOffUntilEnabled: the admin user can't log in before it is enabled and after it is disabled, and its passwords are made at random.
func TestR19AdminUserIsOffUntilEnabled(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		creds := c.RegistryID("vaultone") + "/listCredentials" + instance.Version
		ping := func(password string) int {
			a, err := c.Do(http.MethodGet, "https://"+c.LoginServer("vaultone")+"/v2/", nil, "Authorization", basic("vaultone", password))
			if err != nil {
				t.Fatal(err)
			}
			return a.Status
		}
		want(t, c.ARM(http.MethodPost, creds, nil), http.StatusBadRequest, "vaultone")
		for _, guess := range []string{"", "admin", "password", "vaultone"} {
			if got := ping(guess); got != http.StatusUnauthorized {
				t.Errorf("the password %q answers %d before the admin user is enabled", guess, got)
			}
		}
		want(t, c.Patch("vaultone", j{"adminUserEnabled": true}), http.StatusOK)
		a := c.ARM(http.MethodPost, creds, nil)
		want(t, a, http.StatusOK)
		var got struct{ Passwords []struct{ Value string } }
		if err := json.Unmarshal(a.Body, &got); err != nil || len(got.Passwords) != 2 || len(got.Passwords[0].Value) < 32 || got.Passwords[0].Value == got.Passwords[1].Value {
			t.Fatalf("the admin user's passwords: %v %s", err, a.Body)
		}
		if status := ping(got.Passwords[0].Value); status != http.StatusOK {
			t.Errorf("enabled, with its password: %d", status)
		}
		want(t, c.Patch("vaultone", j{"adminUserEnabled": false}), http.StatusOK)
		if status := ping(got.Passwords[0].Value); status != http.StatusUnauthorized {
			t.Errorf("disabled again: %d", status)
		}
	})
}

// TestR20DisabledPrincipalsTokenIsVoid: tokens of both planes end with their principal, at the next request.
func TestR20DisabledPrincipalsTokenIsVoid(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		out, errs, err := c.Run(t.Context(), "principal", "create", "--data", c.Data, "--name", "dockhand", "--output", "json")
		if err != nil {
			t.Fatalf("principal create: %v %s", err, errs)
		}
		var p map[string]any
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		id, client, secret := text(p, "id", "objectId"), text(p, "appId", "clientId"), text(p, "secret", "clientSecret", "password")
		if id == "" || client == "" || secret == "" {
			t.Fatalf("principal create printed %s", out)
		}
		assignment := c.RegistryID("vaultone") + "/providers/Microsoft.Authorization/roleAssignments/5a000000-0000-4000-8000-000000000001?api-version=2022-04-01"
		reader := "/subscriptions/" + c.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c"
		want(t, c.ARM(http.MethodPut, assignment, j{"properties": j{"roleDefinitionId": reader, "principalId": id}}), http.StatusCreated)
		arm, err := c.TokenOf(client, secret)
		if err != nil {
			t.Fatal(err)
		}
		base := "https://" + c.LoginServer("vaultone")
		token, a, err := c.RegistryToken(base, c.LoginServer("vaultone"), client, secret, "repository:secret/cargo:pull")
		if err != nil || token == "" {
			t.Fatalf("no registry token: %v %s", err, a.Body)
		}
		ask := func() (int, int) {
			onARM, err := c.ARMAs(arm, http.MethodGet, c.RegistryID("vaultone")+instance.Version, nil)
			if err != nil {
				t.Fatal(err)
			}
			onData, err := c.Do(http.MethodGet, base+"/v2/secret/cargo/manifests/v1", nil, "Authorization", "Bearer "+token)
			if err != nil {
				t.Fatal(err)
			}
			return onARM.Status, onData.Status
		}
		if a, d := ask(); a != http.StatusOK || d != http.StatusOK {
			t.Fatalf("while enabled: %d and %d", a, d)
		}
		if _, errs, err := c.Run(t.Context(), "principal", "disable", "--data", c.Data, "dockhand"); err != nil {
			t.Fatalf("principal disable: %v %s", err, errs)
		}
		if a, d := ask(); a != http.StatusUnauthorized || d != http.StatusUnauthorized {
			t.Errorf("after it was disabled: %d and %d", a, d)
		}
	})
}

func text(m map[string]any, names ...string) string {
	for _, n := range names {
		if s, ok := m[n].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

// TestR21BypassIsAskedOnBothSides: an import across a restricted network needs networkRuleBypassOptions AzureServices wherever the network is restricted.
func TestR21BypassIsAskedOnBothSides(t *testing.T) {
	each(t, func(t *testing.T, c *cage) {
		source := j{"resourceId": c.RegistryID("vaultone"), "sourceImage": "secret/cargo:v1"}
		importing := func(restricted, bypass string) instance.Answer {
			for _, r := range []string{"vaultone", "otherone"} {
				public, options := "Enabled", "AzureServices"
				if r == restricted {
					public, options = "Disabled", bypass
				}
				want(t, c.Patch(r, j{"publicNetworkAccess": public, "networkRuleBypassOptions": options}), http.StatusOK)
			}
			return c.Import("otherone", source, "copy:"+restricted+strings.ToLower(bypass))
		}
		for _, side := range []string{"vaultone", "otherone"} {
			want(t, importing(side, "AzureServices"), http.StatusOK)
			a := importing(side, "None")
			if a.Status < 400 || a.Status > 499 || !strings.Contains(string(a.Body), side) || !strings.Contains(string(a.Body), "networkRuleBypassOptions") {
				t.Errorf("restricted and without bypass at %s: %d %s", side, a.Status, a.Body)
			}
		}
	})
}

// TestR25SecondNodeIsRefused: a second process on the same database is refused while the first runs; its readers would not be reached by the first one's fence, and would remember what
// the second one changes.
func TestR25SecondNodeIsRefused(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) { secondNode(t, kind) })
	}
}

func secondNode(t *testing.T, kind string) {
	first := instance.New(t, kind, "")
	second := instance.Copy(t, first, filepath.Join(t.TempDir(), "second"))
	refused := "another embargo is running on this database"
	if kind == "sqlite" { // found by another name
		refused = "is in use by another embargo"
		link := filepath.Join(t.TempDir(), "other.db")
		if err := os.Symlink(filepath.Join(first.Data, "embargo.db"), link); err != nil {
			t.Fatal(err)
		}
		second.Database = "sqlite:" + link
	}
	err := second.TryStart()
	if err == nil || !strings.Contains(err.Error(), refused) {
		t.Fatalf("the second node: %v", err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := second.TryStart(); err != nil {
		t.Fatalf("after the first has stopped: %v", err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// shopper runs skopeo against a server.
type shopper struct {
	t   *testing.T
	s   *instance.Server
	env []string
}

func newShopper(t *testing.T, s *instance.Server) *shopper {
	t.Helper()
	if testing.Short() {
		t.Skip("it needs what scripts/install-test-tools installs")
	}
	home := t.TempDir()
	return &shopper{t, s, append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "REGISTRY_AUTH_FILE="+filepath.Join(home, "auth.json"),
		"SSL_CERT_FILE="+s.CAFile, "HTTPS_PROXY="+s.Proxy, "https_proxy="+s.Proxy, "NO_PROXY=", "no_proxy=")}
}

func (k *shopper) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "skopeo", append([]string{"--insecure-policy"}, args...)...)
	cmd.Env = k.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (k *shopper) at(image string) string {
	return "docker://" + k.s.LoginServer(instance.Open) + "/" + image
}

func (k *shopper) works(args ...string) {
	k.t.Helper()
	if out, err := k.run(args...); err != nil {
		k.t.Errorf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (k *shopper) fails(args ...string) {
	k.t.Helper()
	out, err := k.run(args...)
	said := strings.ToLower(out)
	if err == nil || !strings.Contains(said, "unauthorized") && !strings.Contains(said, "denied") {
		k.t.Errorf("skopeo %s: it should be refused: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestSkopeoAnonymous: who has no credential pulls when the registry allows it, not before and not after, and never pushes.
func TestSkopeoAnonymous(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	k := newShopper(t, s)
	s.CreateRegistry(instance.Open, nil)
	if _, err := s.PushImage(instance.Open, "app/one", "v1", []byte("cargo")); err != nil {
		t.Fatal(err)
	}
	to := "dir:" + t.TempDir()
	k.fails("copy", k.at("app/one:v1"), to)
	s.Patch(instance.Open, instance.J{"anonymousPullEnabled": true})
	k.works("copy", k.at("app/one:v1"), to)
	k.fails("copy", to, k.at("app/one:v2"))
	k.fails("delete", k.at("app/one:v1"))
	s.Patch(instance.Open, instance.J{"anonymousPullEnabled": false})
	k.fails("copy", k.at("app/one:v1"), to)
}

// TestSkopeoAdminUser: the admin user logs in with either password while it is enabled, and a regenerated password ends the old one.
func TestSkopeoAdminUser(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	k := newShopper(t, s)
	s.CreateRegistry(instance.Open, instance.J{"adminUserEnabled": true})
	if _, err := s.PushImage(instance.Open, "app/one", "v1", []byte("cargo")); err != nil {
		t.Fatal(err)
	}
	credentials := func(action string, body any) (user string, passwords []string) {
		var list struct {
			Username  string
			Passwords []struct{ Name, Value string }
		}
		a := s.ARM(http.MethodPost, s.RegistryID(instance.Open)+"/"+action+instance.Version, body)
		if err := json.Unmarshal(a.Body, &list); err != nil || len(list.Passwords) != 2 {
			t.Fatalf("%s: %d %s", action, a.Status, a.Body)
		}
		return list.Username, []string{list.Passwords[0].Value, list.Passwords[1].Value}
	}
	user, old := credentials("listCredentials", nil)
	to := "dir:" + t.TempDir()
	for i, password := range old {
		k.works("copy", "--src-creds", user+":"+password, k.at("app/one:v1"), to)
		k.works("copy", "--dest-creds", user+":"+password, to, k.at("app/copy:v"+string(rune('1'+i))))
	}
	_, now := credentials("regenerateCredential", instance.J{"name": "password"})
	k.fails("inspect", "--creds", user+":"+old[0], k.at("app/one:v1"))
	k.works("inspect", "--creds", user+":"+old[1], k.at("app/one:v1"))
	k.works("inspect", "--creds", user+":"+now[0], k.at("app/one:v1"))
	k.works("login", "--username", user, "--password", now[0], s.LoginServer(instance.Open))
	k.works("delete", k.at("app/one:v1"))
	s.Patch(instance.Open, instance.J{"adminUserEnabled": false})
	k.fails("inspect", k.at("app/copy:v1"))
}

// TestSkopeoTokens: a token does what its scope map says, in the repositories that the map's names and wildcards mean; expired, disabled and
// deleted it does nothing.
func TestSkopeoTokens(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	k := newShopper(t, s)
	s.CreateRegistry(instance.Open, nil)
	for _, repository := range []string{"app/one", "team/one", "teams"} {
		if _, err := s.PushImage(instance.Open, repository, "v1", []byte("cargo of "+repository)); err != nil {
			t.Fatal(err)
		}
	}
	id := s.RegistryID(instance.Open)
	put := func(child string, properties instance.J) {
		t.Helper()
		if a := s.ARM(http.MethodPut, id+"/"+child+"?api-version=2023-07-01", instance.J{"properties": properties}); a.Status > http.StatusCreated {
			t.Fatalf("%s: %d %s", child, a.Status, a.Body)
		}
	}
	put("scopeMaps/readers", instance.J{"actions": []string{"repositories/app/one/content/read", "repositories/team/*/content/read", "repositories/team/*/content/write"}})
	put("tokens/reader-one", instance.J{"scopeMapId": id + "/scopeMaps/readers", "status": "enabled"})
	password := func(expiry time.Time) string {
		t.Helper()
		a := s.Wait(s.ARM(http.MethodPost, id+"/generateCredentials?api-version=2023-07-01", instance.J{"tokenId": id + "/tokens/reader-one", "name": "password1", "expiry": expiry.UTC().Format(time.RFC3339Nano)}))
		var list struct {
			Passwords []struct{ Name, Value string }
		}
		if err := json.Unmarshal(a.Body, &list); err != nil || len(list.Passwords) == 0 {
			t.Fatalf("generateCredentials: %d %s", a.Status, a.Body)
		}
		return list.Passwords[0].Value
	}
	creds := "reader-one:" + password(time.Now().Add(time.Hour))
	to := "dir:" + t.TempDir()
	pull := func(image string) []string { return []string{"copy", "--src-creds", creds, k.at(image), to} }
	k.works(pull("app/one:v1")...)
	k.works(pull("team/one:v1")...)
	k.works("copy", "--dest-creds", creds, to, k.at("team/two/deep:v1"))
	k.fails("copy", "--dest-creds", creds, to, k.at("app/one:v2")) // to be read alone
	k.fails(pull("teams:v1")...)                                   // beside the wildcard
	k.fails("delete", "--creds", creds, k.at("team/one:v1"))
	put("tokens/reader-one", instance.J{"scopeMapId": id + "/scopeMaps/readers", "status": "disabled"})
	k.fails(pull("app/one:v1")...)
	put("tokens/reader-one", instance.J{"scopeMapId": id + "/scopeMaps/readers", "status": "enabled"})
	k.works(pull("app/one:v1")...)
	expiry := time.Now().Add(6 * time.Second)
	creds = "reader-one:" + password(expiry)
	k.works(pull("app/one:v1")...)
	time.Sleep(time.Until(expiry.Add(time.Second))) // until the password's own end
	k.fails(pull("app/one:v1")...)
	creds = "reader-one:" + password(time.Now().Add(time.Hour))
	k.works(pull("app/one:v1")...)
	if a := s.ARM(http.MethodDelete, id+"/tokens/reader-one?api-version=2023-07-01", nil); a.Status >= http.StatusMultipleChoices {
		t.Fatalf("deleting the token: %d %s", a.Status, a.Body)
	}
	k.fails(pull("app/one:v1")...)
}

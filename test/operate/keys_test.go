// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// All keys are rotated while a client is connected: its tokens live on, and nothing is unreadable, before and after a restart.
func TestRotateKeys(t *testing.T) {
	config, doors := private(t)
	instance.Each(t, config, func(t *testing.T, s *instance.Server) {
		s.Fill(t.Context())
		old := s.Token()
		before := s.Inventory(t.Context(), doors)
		folder := filepath.Join(t.TempDir(), "backups")
		must(t, s, "backup", "--data", s.Data, "--to", folder)
		key := filepath.Join(s.Data, "installation.key")
		first, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}

		must(t, s, "keys", "rotate", "--data", s.Data)
		must(t, s, "keys", "rotate", "signing", "--data", s.Data)
		must(t, s, "keys", "rotate", "installation", "--data", s.Data)
		if a, err := s.ARMAs(old, http.MethodGet, s.RegistryID(instance.Open)+instance.Version, nil); err != nil || a.Status != http.StatusOK {
			t.Errorf("a token from before the rotation: %v %d %s", err, a.Status, a.Body)
		}
		instance.Compare(t, before, s.Inventory(t.Context(), doors))
		after, err := os.ReadFile(key)
		if err != nil || !strings.HasPrefix(string(after), strings.TrimSpace(string(first))) || len(after) <= len(first) {
			t.Errorf("the key's file does not hold the old key and a new one: %v", err)
		}
		must(t, s, "backup", "--data", s.Data, "--to", folder)
		must(t, s, "backup", "verify", "--all", "--from", folder, "--data", s.Data)
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}

		// The newest line alone opens all that the installation holds: everything was sealed anew.
		lines := strings.Split(strings.TrimSpace(string(after)), "\n")
		if err := os.WriteFile(key, []byte(lines[len(lines)-1]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Start()
		if a, err := s.ARMAs(old, http.MethodGet, s.RegistryID(instance.Open)+instance.Version, nil); err != nil || a.Status != http.StatusOK {
			t.Errorf("a token from before the rotation, after a restart: %v %d %s", err, a.Status, a.Body)
		}
		instance.Compare(t, before, s.Inventory(t.Context(), doors))
		must(t, s, "keys", "rotate", "signing", "--revoke", "--data", s.Data)
		if a, err := s.ARMAs(old, http.MethodGet, s.RegistryID(instance.Open)+instance.Version, nil); err != nil || a.Status != http.StatusUnauthorized {
			t.Errorf("a revoked token: %v %d %s", err, a.Status, a.Body)
		}
		fails(t, s, "none of signing", "keys", "rotate", "everything", "--data", s.Data)
	})
}

// Rotations at the same time lose no key.
func TestRotateInstallationAtOnce(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, instance.J{"adminUserEnabled": true})
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if _, errs, err := s.Run(t.Context(), "keys", "rotate", "installation", "--data", s.Data); err != nil {
				t.Errorf("%v %s", err, errs)
			}
		})
	}
	all.Wait()
	must(t, s, "backup", "--data", s.Data, "--to", filepath.Join(t.TempDir(), "backups"))
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Start()
	if a := s.ARM(http.MethodPost, s.RegistryID(instance.Open)+"/listCredentials"+instance.Version, nil); a.Status != http.StatusOK {
		t.Errorf("the admin passwords: %d %s", a.Status, a.Body)
	}
}

// An installation is not begun anew where there was one, nor a database beside the log of another.
func TestNotBegunAnew(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	folder := filepath.Join(t.TempDir(), "backups")
	must(t, s, "backup", "--data", s.Data, "--to", folder)
	s.CreateRegistry(instance.Closed, nil)
	s.Kill()
	database := filepath.Join(s.Data, "embargo.db")
	if _, err := os.Stat(database + "-wal"); err != nil {
		t.Fatal("a killed server leaves a log:", err)
	}
	credentials, err := os.ReadFile(filepath.Join(s.Data, "credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(database, database+".old"); err != nil {
		t.Fatal(err)
	}
	fails(t, s, "embargo.db-wal is there without its database", "restore", "--from", folder, "--data", s.Data)
	if err := s.TryStart(); err == nil || !strings.Contains(s.Log(), "embargo.db-wal is there without its database") {
		t.Errorf("beside the log of another database: %v", err)
	}
	for _, end := range []string{"-wal", "-shm"} {
		if err := os.Rename(database+end, database+".old"+end); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.TryStart(); err == nil || !strings.Contains(s.Log(), "belongs to the installation of the tenant "+s.TenantID) {
		t.Errorf("where there was an installation: %v\n%s", err, s.Log())
	}
	if now, err := os.ReadFile(filepath.Join(s.Data, "credentials.json")); err != nil || string(now) != string(credentials) {
		t.Errorf("the credentials were changed: %v", err)
	}
	if err := os.Remove(database); err != nil { // empty: the refused start has made it
		t.Fatal(err)
	}
	must(t, s, "restore", "--from", folder, "--data", s.Data)
	s.Start()
	if a := s.ARM(http.MethodGet, s.RegistryID(instance.Open)+instance.Version, nil); a.Status != http.StatusOK {
		t.Errorf("what was restored: %d %s", a.Status, a.Body)
	}
	if a := s.ARM(http.MethodGet, s.RegistryID(instance.Closed)+instance.Version, nil); a.Status != http.StatusNotFound {
		t.Errorf("what came after the backup: %d %s", a.Status, a.Body)
	}
}

// A key that does not open the backup is not left behind, and of two that differ none is tried in silence.
func TestRestoreWithAWrongKey(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	folder := filepath.Join(t.TempDir(), "backups")
	must(t, s, "backup", "--data", s.Data, "--to", folder)
	other := instance.New(t, "sqlite", "")
	right, wrong := filepath.Join(s.Data, "installation.key"), filepath.Join(other.Data, "installation.key")
	data := filepath.Join(t.TempDir(), "data")
	fails(t, s, "not here", "restore", "--from", folder, "--data", data, "--key-file", wrong)
	if _, err := os.Stat(filepath.Join(data, "installation.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a wrong key was left behind: %v", err)
	}
	must(t, s, "restore", "--from", folder, "--data", data, "--key-file", right)
	fails(t, s, "is another key than", "restore", "--from", folder, "--data", data, "--key-file", wrong)
}

// trusting is a client of the resource manager that trusts the PEM text alone.
func trusting(t *testing.T, s *instance.Server, pem []byte) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in ca.pem")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func reaches(t *testing.T, s *instance.Server, c *http.Client) bool {
	t.Helper()
	resp, err := c.Get(s.ResourceManager + "/metadata/endpoints?api-version=2015-01-01")
	if err != nil {
		if !strings.Contains(err.Error(), "unknown authority") {
			t.Fatal(err)
		}
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body) // to its end, so that the connection stands
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return true
}

// The authority is replaced in two steps, so that no client is cut off: published first, in use later. Connections that stand stay.
func TestRotateAuthority(t *testing.T) {
	instance.Each(t, "", func(t *testing.T, s *instance.Server) {
		read := func() []byte {
			t.Helper()
			pem, err := os.ReadFile(s.CAFile)
			if err != nil {
				t.Fatal(err)
			}
			return pem
		}
		fails(t, s, "No next authority is prepared", "keys", "rotate", "authority", "--finish", "--data", s.Data)
		oldPEM := read()
		connected := trusting(t, s, oldPEM)
		must(t, s, "keys", "rotate", "authority", "--data", s.Data)
		both := read()
		must(t, s, "keys", "rotate", "authority", "--data", s.Data) // again: the same next one
		if string(read()) != string(both) || strings.Count(string(both), "BEGIN CERTIFICATE") != 2 || !strings.HasPrefix(string(both), string(oldPEM)) {
			t.Errorf("ca.pem does not hold the old authority and one new one:\n%s", both)
		}
		if err := s.Stop(); err != nil { // what is prepared outlives a restart
			t.Fatal(err)
		}
		s.Start()
		for name, c := range map[string]*http.Client{"who has the old ca.pem": connected, "who has the one with both": trusting(t, s, both)} {
			if !reaches(t, s, c) {
				t.Errorf("%s is cut off by the preparation", name)
			}
		}
		must(t, s, "keys", "rotate", "authority", "--finish", "--data", s.Data)
		newPEM := read()
		if strings.Count(string(newPEM), "BEGIN CERTIFICATE") != 1 || !strings.HasSuffix(string(both), string(newPEM)) {
			t.Errorf("ca.pem does not hold the new authority alone:\n%s", newPEM)
		}
		if !reaches(t, s, connected) {
			t.Error("a connection that stood was cut by the rotation")
		}
		for name, want := range map[string]bool{string(oldPEM): false, string(both): true, string(newPEM): true} {
			if reaches(t, s, trusting(t, s, []byte(name))) != want {
				t.Errorf("trusting\n%s\nreaches: want %v", name, want)
			}
		}
	})
}

// A lost installation key is not replaced in silence: the server says what is lost, and goes on only when that is accepted.
func TestLostInstallationKey(t *testing.T) {
	config, doors := private(t)
	instance.Each(t, config, func(t *testing.T, s *instance.Server) {
		s.Fill(t.Context())
		must(t, s, "backup", "--data", s.Data, "--to", filepath.Join(t.TempDir(), "backups"))
		before := s.Inventory(t.Context(), doors)
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		args := func(more ...string) []string {
			more = append(more, "--data", s.Data)
			if s.Database != "" {
				more = append(more, "--database", s.Database)
			}
			return more
		}
		fails(t, s, "nothing is lost", args("keys", "reset", "--accept-loss")...)
		if err := os.Remove(filepath.Join(s.Data, "installation.key")); err != nil {
			t.Fatal(err)
		}
		err := s.TryStart()
		for _, says := range []string{"is missing", "certificate authority", "1 signing keys", "the registry '" + instance.Closed + "'", "backup key", "keys reset --accept-loss"} {
			if err == nil || !strings.Contains(s.Log(), says) {
				t.Errorf("a start without the key: %v; it should say %q:\n%s", err, says, s.Log())
			}
		}
		if out := must(t, s, args("keys", "reset", "--accept-loss")...); !strings.Contains(out, "certificate authority") {
			t.Errorf("it does not say what was removed: %s", out)
		}
		old := s.Token()
		s.Start()
		if a, err := s.ARMAs(old, http.MethodGet, s.RegistryID(instance.Open)+instance.Version, nil); err != nil || a.Status != http.StatusUnauthorized {
			t.Errorf("a token of a lost key: %v %d %s", err, a.Status, a.Body)
		}
		s.Forget()
		after := s.Inventory(t.Context(), doors)
		for _, l := range before {
			if !slices.Contains(after, l) && !strings.Contains(l, "listCredentials") {
				t.Errorf("lost with the key: %s", l)
			}
		}
	})
}

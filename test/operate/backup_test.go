// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// objects are the files of a folder's objects.
func objects(t *testing.T, folder string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(folder, "objects"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// While exports are disabled anywhere, a backup is made for the installation's own key alone, and both answers are on record.
func TestR18BackupIsSealed(t *testing.T) {
	instance.Each(t, "", func(t *testing.T, s *instance.Server) {
		other, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		identity := filepath.Join(t.TempDir(), "identity")
		if err := os.WriteFile(identity, []byte(other.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.CreateRegistry(instance.Closed, nil)
		s.CreateRegistry(instance.Open, nil)
		canary := []byte("the canary that must not be readable in a folder of backups")
		if _, err := s.PushImage(instance.Closed, "secret-repository-name", "v1", canary); err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join(t.TempDir(), "backups")
		must(t, s, "backup", "--data", s.Data, "--to", folder, "--recipient", other.Recipient().String())
		must(t, s, "backup", "verify", "--from", folder, "--identity", identity)
		before := len(objects(t, folder))
		if a := s.Lock(instance.Closed); a.Status != http.StatusOK {
			t.Fatalf("locking: %d %s", a.Status, a.Body)
		}
		fails(t, s, "has exports disabled", "backup", "--data", s.Data, "--to", folder, "--recipient", other.Recipient().String())
		fails(t, s, "is not an age recipient", "backup", "--data", s.Data, "--to", folder, "--recipient", "ssh-ed25519 AAAA")
		if n := len(objects(t, folder)); n != before {
			t.Errorf("a refused backup wrote %d objects", n-before)
		}
		sealed := filepath.Join(t.TempDir(), "sealed")
		must(t, s, "backup", "--data", s.Data, "--to", sealed)
		fails(t, s, "can't be opened", "backup", "verify", "--from", sealed, "--identity", identity)
		must(t, s, "backup", "verify", "--from", sealed, "--data", s.Data)
		unreadable(t, sealed, canary, []byte("secret-repository-name"), []byte(instance.Digest(canary)), []byte(strings.TrimPrefix(instance.Digest(canary), "sha256:")), []byte(instance.Closed))
		for _, outcome := range []string{"refused", "allowed", "completed"} {
			s.Recorded(t.Context(), "a backup that was "+outcome, func(r map[string]any) bool {
				return r["route"] == "R18" && r["outcome"] == outcome && strings.Contains(r["resource"].(string), "registries/")
			})
		}
	})
}

// A backup to somebody else's key that is under way when exports are disabled ends there, and is not listed.
func TestR18FlipDuringABackup(t *testing.T) {
	instance.Each(t, "", func(t *testing.T, s *instance.Server) {
		other, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		s.CreateRegistry(instance.Closed, nil)
		if _, err := s.PushImage(instance.Closed, "app", "v1", []byte("layer")); err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join(t.TempDir(), "backups")
		take := []string{"backup", "--data", s.Data, "--to", folder, "--recipient", other.Recipient().String()}
		must(t, s, take...)
		before := objects(t, folder)
		// The backup stops at its first file, after it was allowed, until somebody writes into it.
		header := filepath.Join(folder, "embargo-backup.json")
		text, err := os.ReadFile(header)
		if err == nil {
			err = errors.Join(os.Remove(header), syscall.Mkfifo(header, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan string, 1)
		go func() {
			_, errs, err := s.Run(t.Context(), take...)
			ended <- fmt.Sprint(err, errs)
		}()
		pipe, err := os.OpenFile(header, os.O_WRONLY, 0) // it waits for the reader
		if err != nil {
			t.Fatal(err)
		}
		if a := s.Lock(instance.Closed); a.Status != http.StatusOK {
			t.Fatalf("locking: %d %s", a.Status, a.Body)
		}
		if _, err := pipe.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(header), os.WriteFile(header, text, 0o600), pipe.Close()); err != nil {
			t.Fatal(err)
		}
		if got := <-ended; !strings.Contains(got, "has exports disabled") {
			t.Errorf("the backup ended with %s", got)
		}
		if after := objects(t, folder); len(after) != len(before) {
			t.Errorf("%d objects were written after the flip", len(after)-len(before))
		}
		if files, err := os.ReadDir(filepath.Join(folder, "snapshots")); err != nil || len(files) != 1 {
			t.Errorf("%d backups are listed: %v", len(files), err)
		}
	})
}

// unreadable looks for texts in every file of a folder, and in the files' names.
func unreadable(t *testing.T, folder string, texts ...[]byte) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		seen++
		for _, text := range texts {
			if bytes.Contains(content, text) || strings.Contains(path, string(text)) {
				t.Errorf("%s tells %q", path, text)
			}
		}
		return err
	})
	if err != nil || seen < 5 {
		t.Fatalf("%d files were read: %v", seen, err)
	}
}

// A second backup writes what is new and nothing else; pruning keeps what the newest needs.
func TestBackupIsIncremental(t *testing.T) {
	instance.Each(t, "", func(t *testing.T, s *instance.Server) {
		s.CreateRegistry(instance.Open, nil)
		for _, tag := range []string{"v1", "v2", "v3"} {
			if _, err := s.PushImage(instance.Open, "app", tag, []byte("the layer of "+tag)); err != nil {
				t.Fatal(err)
			}
		}
		folder := filepath.Join(t.TempDir(), "backups")
		must(t, s, "backup", "--data", s.Data, "--to", folder)
		first := objects(t, folder)
		if _, err := s.PushImage(instance.Open, "app", "v4", []byte("the layer of v4")); err != nil {
			t.Fatal(err)
		}
		must(t, s, "backup", "--data", s.Data, "--to", folder)
		second := objects(t, folder)
		// v4's layer and manifest; and a chunk for each table that changed: never the content that was there.
		if n := len(second) - len(first); n < 3 || n > 16 {
			t.Errorf("the second backup wrote %d objects after %d", n, len(first))
		}
		for _, path := range first {
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		}
		var list []struct {
			ID      string
			Objects int
			Sealed  bool
		}
		if err := json.Unmarshal([]byte(must(t, s, "backup", "list", "--from", folder, "--data", s.Data, "--output", "json")), &list); err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		if list[0].Objects != 7 || list[1].Objects != 9 || !list[0].Sealed {
			t.Errorf("%+v", list)
		}
		must(t, s, "backup", "prune", "--from", folder, "--data", s.Data, "--keep", "1")
		if left := objects(t, folder); len(left) >= len(second) {
			t.Errorf("pruning left all %d objects", len(left))
		}
		fails(t, s, "there is no backup", "backup", "verify", "--from", folder, "--data", s.Data, "--backup", list[0].ID)
		must(t, s, "backup", "verify", "--all", "--from", folder, "--data", s.Data)
	})
}

// A damaged backup is found out by verify and by restore, wherever the damage is, and a restore of it leaves no database.
func TestDamagedBackup(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	if _, err := s.PushImage(instance.Open, "app", "v1", bytes.Repeat([]byte("layer"), 100)); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "backups")
	must(t, s, "backup", "--data", s.Data, "--to", folder)
	data := filepath.Join(t.TempDir(), "target")
	files := objects(t, folder)
	if snapshots, err := filepath.Glob(filepath.Join(folder, "snapshots", "*.age")); err != nil || len(snapshots) != 1 {
		t.Fatal(snapshots, err)
	} else {
		files = append(files, snapshots[0])
	}
	for i, path := range files {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damage := map[int][]byte{0: append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1), 1: whole[:len(whole)-20], 2: nil}[i%3]
		err = os.Remove(path)
		if damage != nil {
			err = errors.Join(err, os.WriteFile(path, damage, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		_, said, err := s.Run(t.Context(), "backup", "verify", "--from", folder, "--data", s.Data)
		if err == nil {
			t.Errorf("verify does not find damage %d of %s", i%3, path)
		}
		for _, other := range files { // older backups need what is whole
			if told := strings.Contains(said, "remove "+other); told != (other == path && i < len(files)-1) {
				t.Errorf("with damage %d of %s verify tells to remove %s: %v\n%s", i%3, path, other, told, said)
			}
		}
		if i < 3 || i == len(files)-1 {
			// Each time another folder: what a failed restore placed is good, and used by the next.
			data := filepath.Join(t.TempDir(), "target")
			if _, _, err := s.Run(t.Context(), "restore", "--from", folder, "--data", data, "--key-file", filepath.Join(s.Data, "installation.key")); err == nil {
				t.Errorf("damage %d of %s is restored", i%3, path)
			}
			if exists, _ := filepath.Glob(filepath.Join(data, "embargo.db")); len(exists) > 0 {
				t.Error("a failed restore left a database in place")
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must(t, s, "backup", "verify", "--from", folder, "--data", s.Data)
	// What failed can be run again, and what is there is not overwritten.
	must(t, s, "restore", "--from", folder, "--data", data, "--key-file", filepath.Join(s.Data, "installation.key"))
	fails(t, s, "nothing is restored over something", "restore", "--from", folder, "--data", data)
	fails(t, s, "in use by another instance", "restore", "--from", folder, "--data", s.Data)
}

// What the database refuses is not told as a damaged backup: nobody removes a file that is whole.
func TestRestoreThatTheDatabaseRefuses(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	folder, database := filepath.Join(t.TempDir(), "backups"), metatest.URL(t, "postgres")
	must(t, s, "backup", "--data", s.Data, "--to", folder)
	db := metatest.Open(t, database)
	if err := db.Write(t.Context(), func(tx *meta.Tx) error {
		_, err := tx.Exec(`ALTER TABLE registries ADD COLUMN strange TEXT NOT NULL`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, said, err := s.Run(t.Context(), "restore", "--from", folder, "--data", filepath.Join(t.TempDir(), "data"), "--database", database, "--key-file", filepath.Join(s.Data, "installation.key"))
	if err == nil || !strings.Contains(said, "restoring the table registries") || strings.Contains(said, "remove ") || strings.Contains(said, ".age") {
		t.Errorf("a restore that the database refuses: %v\n%s", err, said)
	}
	must(t, s, "backup", "verify", "--from", folder, "--data", s.Data)
}

// A restored copy is held whatever marks are brought along: they may be as old as it is. Those that are newer than it say so.
func TestRestoreBesideItsMarks(t *testing.T) {
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			s := instance.New(t, kind, "")
			s.CreateRegistry(instance.Open, nil)
			s.CreateRegistry(instance.Closed, nil)
			if _, err := s.PushImage(instance.Open, "app", "v1", []byte("layer")); err != nil {
				t.Fatal(err)
			}
			older, newer := filepath.Join(t.TempDir(), "older"), filepath.Join(t.TempDir(), "newer")
			must(t, s, "backup", "--data", s.Data, "--to", older)
			if a := s.Patch(instance.Closed, instance.J{"policies": instance.J{"exportPolicy": instance.J{"status": "disabled"}}, "publicNetworkAccess": "Disabled"}); a.Status != http.StatusOK {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			must(t, s, "backup", "--data", s.Data, "--to", newer)
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			marks, err := os.ReadFile(filepath.Join(s.Data, "policy-epochs.json"))
			if err != nil {
				t.Fatal(err)
			}
			for folder, why := range map[string]string{older: "is an older copy", newer: "was restored from the backup"} {
				data := filepath.Join(t.TempDir(), "data")
				if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "policy-epochs.json"), marks, 0o600)); err != nil {
					t.Fatal(err)
				}
				database := ""
				args := []string{"restore", "--from", folder, "--data", data, "--key-file", filepath.Join(s.Data, "installation.key")}
				if kind == "postgres" {
					database = metatest.URL(t, kind)
					args = append(args, "--database", database)
				}
				must(t, s, args...)
				r := instance.At(t, data, database, "")
				r.Start()
				r.ClientSecret = s.ClientSecret
				if a := r.Import(instance.Closed, instance.J{"resourceId": r.RegistryID(instance.Open), "sourceImage": "app:v1"}, "copy:v1"); a.Status == http.StatusOK {
					t.Errorf("a restored copy is not held: importing answers %d %s", a.Status, a.Body)
				}
				if out := must(t, r, "status", "--data", r.Data); !strings.Contains(out, why) {
					t.Errorf("why it is held: want %q in\n%s", why, out)
				}
				if err := r.Stop(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

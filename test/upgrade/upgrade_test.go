// SPDX-License-Identifier: Apache-2.0

// Package upgrade starts the built binary on data directories that earlier schemas left behind, and on databases that are newer than it.
//
// testdata/schema-N holds an installation as the last binary of schema N left it, filled by instance.Fill, on each kind of database. Before a
// migration is added, the current schema is kept: go test ./test/upgrade -run TestKeep -keep
package upgrade

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

var keep = flag.Bool("keep", false, "keep an installation of the current schema in testdata")

// private is a configuration with a door to the registry that has no public side, and the door's URL.
func private(t *testing.T) (config string, doors map[string]string) {
	address := instance.FreePort(t)
	return fmt.Sprintf("privateListeners: [{address: %q, registry: %q, tls: false}]\n", address, instance.Closed),
		map[string]string{instance.Closed: "http://" + address}
}

func TestKeep(t *testing.T) {
	if !*keep {
		t.Skip("only by hand, with -keep: it writes testdata")
	}
	config, doors := private(t)
	instance.Each(t, config, func(t *testing.T, s *instance.Server) {
		s.Fill(t.Context())
		inventory := strings.Join(s.Inventory(t.Context(), doors), "\n")
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{"inventory.txt": []byte(inventory)}
		if s.Database != "" {
			dump, err := exec.Command("pg_dump", "--no-owner", "--dbname", s.Database).Output()
			if err != nil {
				t.Fatal(err)
			}
			files["postgres.sql"] = dump
		}
		path := instance.KeptPath(meta.Schema(), filepath.Base(t.Name()))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		pack(t, path, s.Data, files)
	})
}

// pack writes the files of a directory, and more, to a compressed archive.
func pack(t *testing.T, path, dir string, files map[string][]byte) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	add := func(name string, content []byte) error {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write(content)
		}
		return err
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "lock" {
			return err
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		return errors.Join(err, add(filepath.Join("data", rel), content))
	})
	for name, content := range files {
		err = errors.Join(err, add(name, content))
	}
	if err = errors.Join(err, w.Close(), z.Close(), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// open opens a stopped installation's database.
func open(t *testing.T, data, database string) (*meta.DB, error) {
	t.Helper()
	if database == "" {
		database = "sqlite:" + filepath.Join(data, "embargo.db")
	}
	return meta.Open(context.Background(), meta.Options{URL: database, Dial: metatest.Dial})
}

// Everything that an installation of each schema held is there after the upgrade, on the policies that it had, and goes on working.
func TestUpgrade(t *testing.T) {
	for schema := int64(1); schema <= meta.Schema(); schema++ {
		for _, kind := range metatest.Kinds {
			if schema == meta.Schema() && !exists(instance.KeptPath(schema, kind)) {
				continue // the current schema is kept before the next migration is added
			}
			t.Run(fmt.Sprintf("%d/%s", schema, kind), func(t *testing.T) {
				data, database, before := instance.Kept(t, schema, kind)
				config, doors := private(t)
				s := instance.At(t, data, database, config)
				s.Start()
				instance.Compare(t, before, s.Inventory(t.Context(), doors))
				if a := s.Import(instance.Open, instance.J{"resourceId": s.RegistryID(instance.Closed), "sourceImage": "app:v2"}, "stolen:v2"); a.Status < 400 {
					t.Errorf("a locked registry can be imported from after the upgrade: %d %s", a.Status, a.Body)
				}
				if _, err := s.PushImage(instance.Open, "app", "after", []byte("a layer pushed after the upgrade")); err != nil {
					t.Error(err)
				}
				if err := s.Stop(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A binary does not touch a database of a newer schema, and says so.
func TestNewerSchemaIsRefused(t *testing.T) {
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			data, database, _ := instance.Kept(t, 1, kind)
			db, err := open(t, data, database)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Write(t.Context(), func(tx *meta.Tx) error {
				_, err := tx.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, TRUE)`)
				return err
			})
			if err = errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			s := instance.At(t, data, database, "")
			err = s.TryStart()
			if err == nil || !strings.Contains(s.Log(), "schema 999") || !strings.Contains(s.Log(), "newer embargo") {
				t.Errorf("%v\n%s", err, s.Log())
			}
		})
	}
}

// A migration that is killed at any moment leaves the old schema or the new one, and the next start finishes it: everything is there.
func TestKilledMigration(t *testing.T) {
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			data, database, before := instance.Kept(t, 1, kind)
			config, doors := private(t)
			for kill := range 30 {
				s := instance.At(t, data, database, config)
				s.KillAfter(time.Duration(kill) * 5 * time.Millisecond)
			}
			s := instance.At(t, data, database, config)
			s.Start()
			instance.Compare(t, before, s.Inventory(t.Context(), doors))
		})
	}
}

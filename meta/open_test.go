// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// refused opens the database at url, expects that this fails, and gives the error's text.
func refused(t *testing.T, url string) string {
	t.Helper()
	db, err := meta.Open(context.Background(), meta.Options{URL: url, Dial: metatest.Dial})
	if err == nil {
		_ = db.Close()
		t.Fatalf("%s was opened", url)
	}
	return err.Error()
}

func closed(t *testing.T, url string, fn func(tx *meta.Tx) error) {
	t.Helper()
	db, err := meta.Open(context.Background(), meta.Options{URL: url, Dial: metatest.Dial})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// A database of a newer schema is refused with words that say what to do, and is left as it is.
func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			url := metatest.URL(t, kind)
			closed(t, url, func(tx *meta.Tx) error {
				_, err := tx.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, TRUE)`)
				return err
			})
			var before []byte
			path, file := strings.CutPrefix(url, "sqlite:")
			if file {
				before = content(t, path)
			}
			for range 2 {
				text := refused(t, url)
				for _, part := range []string{"schema 9999", "newer embargo", "backup"} {
					if !strings.Contains(text, part) {
						t.Errorf("the refusal does not say %q: %s", part, text)
					}
				}
			}
			if file && !bytes.Equal(before, content(t, path)) {
				t.Error("the refused file was changed")
			}
		})
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Opening a database again keeps what is in it.
func TestOpenAgain(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		if err := open().Write(t.Context(), put("kept", "x")); err != nil {
			t.Fatal(err)
		}
		if got := facts(t, open()); got["kept"] != "x" {
			t.Errorf("after opening again: %v", got)
		}
	})
}

// The SQLite file and its companions are their owner's alone, while the database is open too.
func TestSQLiteFileMode(t *testing.T) {
	t.Parallel()
	url := metatest.URL(t, "sqlite")
	db := metatest.Open(t, url)
	if err := db.Write(t.Context(), put("a", "b")); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimPrefix(url, "sqlite:")
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %#o", filepath.Base(name), st.Mode().Perm())
		}
	}
}

// A file that is not Embargo's is refused and left as it is.
func TestForeignFilesAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign.db")
	pool, err := sql.Open("sqlite", "file:"+foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(`CREATE TABLE theirs (x TEXT)`); err != nil {
		t.Fatal(err)
	}
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
	letter := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(letter, []byte(strings.Repeat("Dear database, ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{foreign: "another program", letter: "letter.txt"} {
		before := content(t, path)
		if text := refused(t, "sqlite:"+path); !strings.Contains(text, want) {
			t.Errorf("the refusal does not say %q: %s", want, text)
		}
		if !bytes.Equal(before, content(t, path)) {
			t.Errorf("%s was changed", filepath.Base(path))
		}
	}
}

// Messages of databases that can't be opened name what is wrong and hold no password.
func TestURLsThatDoNotOpen(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"":                                   "neither sqlite:",
		"mysql://u:hunter2@db/x":             "neither sqlite:",
		"mysql://u:pass@hunter2@db/x":        "neither sqlite:",
		"mysql://db/x?pass=hunter2":          "neither sqlite:",
		"sqlite:":                            "needs the path",
		"sqlite:/nowhere/at/all.db":          "/nowhere/at/all.db",
		"postgres://u:hunter2@h:p/db":        "database URL",
		"postgres://h:p/db?password=hunter2": "database URL",
		"postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable": "127.0.0.1",
	} {
		text := refused(t, url)
		if !strings.Contains(text, want) || strings.Contains(text, "hunter2") {
			t.Errorf("%q: %s", url, text)
		}
	}
}

// A SQLite file that a Sole DB has open is opened by no other one, by whatever name it is found; afterwards it is free.
func TestSoleLocksTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "embargo.db")
	open := func(path string) (*meta.DB, error) {
		return meta.Open(t.Context(), meta.Options{URL: "sqlite:" + path, Sole: true})
	}
	db, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	soft, hard := filepath.Join(t.TempDir(), "embargo.db"), path+".other"
	if err := errors.Join(os.Symlink(path, soft), os.Link(path, hard)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, soft, hard} {
		if other, err := open(name); err == nil {
			t.Errorf("it was opened again as %s", name)
			_ = other.Close()
		} else if !strings.Contains(err.Error(), "in use by another embargo") {
			t.Error(err)
		}
	}
	if err := errors.Join(db.Close(), os.Remove(hard)); err != nil {
		t.Fatal(err)
	}
	if db, err = open(soft); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

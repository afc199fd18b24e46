// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta/metatest"
)

// KeptPath is the archive of an installation that was kept of a schema.
func KeptPath(schema int64, kind string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "upgrade", "testdata", fmt.Sprintf("schema-%d", schema), kind+".tar.gz")
}

// Kept unpacks an installation that test/upgrade keeps of an earlier schema: its data directory, its database ("" on SQLite) and its inventory.
func Kept(t testing.TB, schema int64, kind string) (data, database string, inventory []string) {
	t.Helper()
	f, err := os.Open(KeptPath(schema, kind))
	if err != nil {
		t.Fatalf("nothing is kept of schema %d: %v (see test/upgrade)", schema, err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		path := filepath.Join(dir, h.Name)
		content, readErr := io.ReadAll(r)
		if err = errors.Join(err, readErr, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if kind == "postgres" {
		database = metatest.URL(t, kind)
		out, err := exec.Command("psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", database, "--file", filepath.Join(dir, "postgres.sql")).CombinedOutput()
		if err != nil {
			t.Fatalf("psql: %v\n%s", err, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "inventory.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "data"), database, strings.Split(string(text), "\n")
}

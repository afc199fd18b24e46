// SPDX-License-Identifier: Apache-2.0

package durable_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/embargo-registry/embargo/durable"
)

// A file is replaced as a whole, with its mode, and nothing else is left; what fails leaves it as it was.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	check := func(want string, mode os.FileMode) {
		t.Helper()
		got, err := os.ReadFile(path)
		st, statErr := os.Stat(path)
		if err = errors.Join(err, statErr); err != nil || string(got) != want || st.Mode().Perm() != mode {
			t.Errorf("%q %v, %v", got, st.Mode(), err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("beside the file there is more: %v, %v", entries, err)
		}
	}
	if err := durable.WriteFile(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("first", 0o600)
	if err := durable.WriteFile(path, []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("2", 0o644)
	broken := errors.New("broken")
	err := durable.Write(path, 0o600, func(w io.Writer) error {
		_, err := w.Write([]byte("half of"))
		return errors.Join(err, broken)
	})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	check("2", 0o644)
	if err := durable.CreateFile(path, []byte("another"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that is there was created: %v", err)
	}
	check("2", 0o644)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := durable.CreateFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("new", 0o600)
	if err := durable.WriteFile(filepath.Join(dir, "absent", "file"), nil, 0o600); err == nil {
		t.Error("a file was written into a directory that is not there")
	}
}

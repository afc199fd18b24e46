// SPDX-License-Identifier: Apache-2.0

package fs_test

import (
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/blob/internal/fs"
)

func open(t *testing.T) (*fs.Dir, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "objects")
	d, err := fs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return d, root
}

// write makes an object of the text.
func write(t *testing.T, f *fs.File, err error, text string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, d *fs.Dir, key string) string {
	t.Helper()
	f, err := d.Read(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An object is made once, read, and gone when it is removed; its file is the owner's alone.
func TestObject(t *testing.T) {
	d, root := open(t)
	key := fs.NewKey()
	f, err := d.Create(key)
	write(t, f, err, "content")
	if got := read(t, d, key); got != "content" {
		t.Errorf("read %q", got)
	}
	if st, err := os.Stat(filepath.Join(root, key[:2], key)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if _, err := d.Create(key); !errors.Is(err, iofs.ErrExist) {
		t.Errorf("made again: %v", err)
	}
	for range 2 {
		if err := d.Remove(key); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Read(key); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("read after its removal: %v", err)
	}
}

// Writing goes on from what was recorded; what lies behind it is cut off, and what is missing is an error.
func TestResume(t *testing.T) {
	d, _ := open(t)
	key := fs.NewKey()
	f, err := d.Create(key)
	write(t, f, err, "recorded, and not")
	f, err = d.Resume(key, int64(len("recorded")))
	write(t, f, err, "!")
	if got := read(t, d, key); got != "recorded!" {
		t.Errorf("read %q", got)
	}
	if _, err := d.Resume(key, 100); err == nil || !strings.Contains(err.Error(), "9 bytes, 100 were recorded") {
		t.Errorf("more than there is: %v", err)
	}
	if _, err := d.Resume(fs.NewKey(), 0); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}

// Only keys name objects: nothing leads out of the tree.
func TestKeys(t *testing.T) {
	d, root := open(t)
	outside := filepath.Join(filepath.Dir(root), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "..", "../outside", "ab/../../outside", outside, strings.Repeat("a", 31), strings.Repeat("a", 33), strings.Repeat("A", 32), strings.Repeat("a", 31) + "\n", "../../../" + strings.Repeat("a", 23)} {
		_, created := d.Create(key)
		_, read := d.Read(key)
		_, resumed := d.Resume(key, 0)
		for what, err := range map[string]error{"create": created, "read": read, "resume": resumed, "remove": d.Remove(key)} {
			if err == nil || !strings.Contains(err.Error(), "is no object key") {
				t.Errorf("%s of %q: %v", what, key, err)
			}
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for range 1000 {
		k := fs.NewKey()
		if seen[k] {
			t.Fatalf("%s twice", k)
		}
		seen[k] = true
	}
}

// A tree that is there already is opened as it is.
func TestOpenAgain(t *testing.T) {
	d, root := open(t)
	key := fs.NewKey()
	f, err := d.Create(key)
	write(t, f, err, "kept")
	again, err := fs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, again, key); got != "kept" {
		t.Errorf("read %q", got)
	}
}

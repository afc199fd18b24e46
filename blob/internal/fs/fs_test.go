// SPDX-License-Identifier: Apache-2.0

package fs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/blob/internal/drivertest"
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

func TestDriver(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) func() driver.Driver {
		_, root := open(t)
		return func() driver.Driver {
			d, err := fs.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
	})
}

// A file is the owner's alone, and read as the bare file, from which the kernel can copy.
func TestFile(t *testing.T) {
	d, root := open(t)
	key := driver.NewKey()
	if err := d.Put(t.Context(), key, []byte("content")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(root, key[:2], key)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	o, err := d.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	r, err := o.Range(t.Context(), 3, 2)
	if _, bare := r.(*os.File); err != nil || !bare {
		t.Errorf("a range is a %T: %v", r, err)
	}
}

// What is missing of what was recorded is an error.
func TestResumeOfTooLittle(t *testing.T) {
	d, _ := open(t)
	key := driver.NewKey()
	if err := d.Put(t.Context(), key, []byte("recorded!")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(t.Context(), key, 100, nil); err == nil || !strings.Contains(err.Error(), "9 bytes, 100 were recorded") {
		t.Errorf("more than there is: %v", err)
	}
}

// A walk sees objects alone.
func TestWalkSeesObjectsAlone(t *testing.T) {
	d, root := open(t)
	if err := os.Mkdir(filepath.Join(root, "00"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00/other", "00/" + strings.Repeat("0", 31), "00/.writing"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "00", driver.NewKey()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Walk(t.Context(), func(i driver.Item) error { t.Errorf("it sees %s", i.Key); return nil }); err != nil {
		t.Error(err)
	}
}

// A tree that is gone is no empty one.
func TestWalkOfNothing(t *testing.T) {
	d, root := open(t)
	visit := func(driver.Item) error { return nil }
	if err := d.Walk(t.Context(), visit); err != nil {
		t.Errorf("without a folder: %v", err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := d.Walk(t.Context(), visit); err == nil {
		t.Error("without a root there is nothing to say")
	}
}

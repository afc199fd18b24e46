// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

func newKeyring(t *testing.T) (*meta.Keyring, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "installation.key")
	k, err := meta.NewKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	return k, path
}

func seal(t *testing.T, k *meta.Keyring, plain string) []byte {
	t.Helper()
	sealed, err := k.Seal("ca", []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// opens expects that k opens sealed to want.
func opens(t *testing.T, k *meta.Keyring, sealed []byte, want string) {
	t.Helper()
	if plain, err := k.Open("ca", sealed); err != nil || string(plain) != want {
		t.Errorf("opened to %q, %v; want %q", plain, err, want)
	}
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	k, path := newKeyring(t)
	again, err := meta.LoadKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{"", "x", strings.Repeat("long ", 100_000)} {
		sealed := seal(t, k, plain)
		opens(t, again, sealed, plain)
		if bytes.Equal(sealed, seal(t, k, plain)) {
			t.Error("two seals of one text are equal")
		}
		if len(plain) > 1 && bytes.Contains(sealed, []byte(plain[:5])) {
			t.Error("the text shows in the sealed form")
		}
		if _, err := k.Open("signing key", sealed); err == nil || !strings.Contains(err.Error(), `"signing key"`) {
			t.Errorf("opened for another purpose: %v", err)
		}
	}
}

// A key that is not here is named by its id, so that its owner can find it.
func TestWrongKeyIsNamed(t *testing.T) {
	t.Parallel()
	one, _ := newKeyring(t)
	other, _ := newKeyring(t)
	if _, err := other.Open("ca", seal(t, one, "secret")); err == nil || !strings.Contains(err.Error(), one.KeyID()) {
		t.Errorf("%v; the missing key is %s", err, one.KeyID())
	}
}

// No bit of a sealed text can be changed and no byte be missing.
func TestDamagedSealsAreRefused(t *testing.T) {
	t.Parallel()
	k, _ := newKeyring(t)
	sealed := seal(t, k, "secret")
	for n := range sealed {
		if _, err := k.Open("ca", sealed[:n]); err == nil {
			t.Errorf("cut to %d bytes it opens", n)
		}
		for bit := range 8 {
			garbled := bytes.Clone(sealed)
			garbled[n] ^= 1 << bit
			if plain, err := k.Open("ca", garbled); err == nil || plain != nil {
				t.Errorf("with bit %d of byte %d changed it opens to %q", bit, n, plain)
			}
		}
	}
	if _, err := k.Open("ca", append(bytes.Clone(sealed), 0)); err == nil {
		t.Error("with a byte more it opens")
	}
}

func TestKeyringFileMode(t *testing.T) {
	t.Parallel()
	k, path := newKeyring(t)
	if err := k.Rotate(path); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false, 0o644: false, 0o601: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := meta.LoadKeyring(path)
		if (err == nil) != ok || (err != nil && !strings.Contains(err.Error(), "chmod 600")) {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
}

// A new file is its owner's alone and never replaces one that is there.
func TestNewKeyringFile(t *testing.T) {
	t.Parallel()
	k, path := newKeyring(t)
	before := content(t, path)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the new file: %v, %v", st.Mode(), err)
	}
	if _, err := meta.NewKeyring(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one in its place: %v", err)
	}
	if !bytes.Equal(before, content(t, path)) || !strings.HasPrefix(string(before), k.KeyID()+" ") {
		t.Error("the file was changed or does not begin with the key's id")
	}
	_, err := meta.LoadKeyring(path + ".gone")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path+".gone") {
		t.Errorf("a missing file: %v", err)
	}
}

// Keys that are added at the same time are all kept, in the ring and in the file: what any of them sealed opens.
func TestRotateAtOnce(t *testing.T) {
	t.Parallel()
	k, path := newKeyring(t)
	var wg sync.WaitGroup
	sealed := make([][]byte, 8)
	for i := range sealed {
		wg.Go(func() {
			if err := k.Rotate(path); err != nil {
				t.Error(err)
			}
			var err error
			if sealed[i], err = k.Seal("ca", []byte("secret")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	again, err := meta.LoadKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sealed {
		for of, ring := range map[string]*meta.Keyring{"the ring": k, "the file": again} {
			if plain, err := ring.Open("ca", s); err != nil || string(plain) != "secret" {
				t.Errorf("%s lost the key of secret %d: %v", of, i, err)
			}
		}
	}
	if n := strings.Count(string(content(t, path)), "\n"); n != len(sealed)+1 {
		t.Errorf("the file has %d keys", n)
	}
}

// Damaged text is refused with the line's number, and no message shows key bytes.
func TestDamagedKeyringsAreRefused(t *testing.T) {
	t.Parallel()
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	good := "00c0ffee " + key + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":        {"", "holds no key"},
		"blank lines":  {"\n \n\t\n", "holds no key"},
		"no id":        {key, "line 1"},
		"three fields": {good + "00c0ffed " + key + " x", "line 2"},
		"short id":     {"c0ffee " + key, "line 1"},
		"long id":      {"0000c0ffee " + key, "line 1"},
		"id no hex":    {"00coffee " + key, "line 1"},
		"cut key":      {good + "\n00c0ffed " + key[:len(key)-4], "line 3"},
		"long key":     {"00c0ffee " + base64.StdEncoding.EncodeToString(make([]byte, 33)), "line 1"},
		"no base64":    {"00c0ffee !" + key[1:], "line 1"},
		"id twice":     {good + "00C0FFEE " + base64.StdEncoding.EncodeToString(make([]byte, 32)), "line 2"},
	} {
		_, err := meta.ParseKeyring(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), key[:20]) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	// An id that was typed in capitals is the same id.
	k, err := meta.ParseKeyring(strings.ToUpper("00c0ffee") + " " + key)
	if err != nil {
		t.Fatal(err)
	}
	opens(t, k, seal(t, k, "secret"), "secret")
}

// After a rotation the new key seals, in this keyring and in one that is loaded; what the old one sealed opens, and a copy of the old file does not have the new key.
func TestRotate(t *testing.T) {
	t.Parallel()
	k, path := newKeyring(t)
	before, id := seal(t, k, "before"), k.KeyID()
	old, err := meta.LoadKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Rotate(path); err != nil {
		t.Fatal(err)
	}
	if k.KeyID() == id {
		t.Error("the key that seals is the old one")
	}
	after := seal(t, k, "after")
	loaded, err := meta.LoadKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, ring := range []*meta.Keyring{k, loaded} {
		opens(t, ring, before, "before")
		opens(t, ring, after, "after")
	}
	if _, err := old.Open("ca", after); err == nil || !strings.Contains(err.Error(), k.KeyID()) {
		t.Errorf("the old keyring opens what the new key sealed: %v", err)
	}
	again, err := k.Reseal("ca", before)
	if err != nil {
		t.Fatal(err)
	}
	opens(t, k, again, "before")
	if old.Opens("ca", again) || !old.Opens("ca", before) || k.Opens("other", again) || (*meta.Keyring)(nil).Opens("ca", before) {
		t.Error("Opens tells what it should not, or does not tell what it should")
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("beside the file there is more: %v, %v", entries, err)
	}
}

// Sealed secrets are kept by name with the id of their key.
func TestSecrets(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		k, _ := newKeyring(t)
		first, second := seal(t, k, "first"), seal(t, k, "second")
		write := func(fn func(tx *meta.Tx) error) {
			t.Helper()
			if err := db.Write(t.Context(), fn); err != nil {
				t.Fatal(err)
			}
		}
		read := func() (sealed []byte, keyID string, err error) {
			err = db.Read(t.Context(), func(tx *meta.Tx) (err error) {
				if sealed, err = tx.Secret("s"); err != nil {
					return err
				}
				return tx.Row(`SELECT key_id FROM secrets WHERE name = 's'`).Scan(&keyID)
			})
			return sealed, keyID, err
		}
		if _, _, err := read(); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("before: %v", err)
		}
		write(func(tx *meta.Tx) error { return tx.PutSecret("s", first) })
		write(func(tx *meta.Tx) error { return tx.PutSecret("s", second) })
		if sealed, id, err := read(); err != nil || !bytes.Equal(sealed, second) || id != k.KeyID() {
			t.Errorf("read back: %x, key %s, %v", sealed, id, err)
		}
		for range 2 { // of one that is gone, too
			write(func(tx *meta.Tx) error { return tx.DeleteSecret("s") })
		}
		if _, _, err := read(); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("after: %v", err)
		}
	})
}

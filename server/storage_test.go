// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/server"
)

// What is said of the storage is checked before anything is opened, with the key it is named by; no key is quoted.
func TestCheckStorage(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	two, one, open := file("two", "access\nhidden-secret\n", 0o600), file("one", "hidden-secret", 0o600), file("open", "access hidden-secret", 0o644)
	const s3 = "s3://bucket/a/prefix?endpoint=https://s3.example:9000"
	for _, c := range []struct {
		storage   server.Storage
		key, says string // "" is fine
	}{
		{server.Storage{}, "", ""},
		{server.Storage{URL: "fs"}, "", ""},
		{server.Storage{URL: s3 + "&region=eu-1&pathStyle=true", KeyFile: two}, "", ""},
		{server.Storage{URL: "s3://bucket?region=eu-central-1", KeyFile: two}, "", ""},
		{server.Storage{URL: "s3://bucket?endpoint=http://127.0.0.1:9000", KeyFile: two}, "", ""},
		{server.Storage{URL: "s3://bucket?endpoint=http://s3.example&insecure=true", KeyFile: two}, "", ""},
		{server.Storage{URL: "azblob://container?account=name", KeyFile: one}, "", ""},
		{server.Storage{URL: "azblob://container/p?account=name&endpoint=http://127.0.0.1:10000/name", KeyFile: one}, "", ""},
		{server.Storage{URL: "fs", KeyFile: two}, "storageKeyFile", "needs neither a key nor roots"},
		{server.Storage{URL: "/srv/content"}, "storage", "it is neither fs nor s3://"},
		{server.Storage{URL: "gs://bucket", KeyFile: two}, "storage", "it is neither fs nor s3://"},
		{server.Storage{URL: "s3://access:hidden-secret@bucket?region=x", KeyFile: two}, "storage", "without a key in it"},
		{server.Storage{URL: "s3://bucket", KeyFile: two}, "storage", "s3://BUCKET?region=NAME"},
		{server.Storage{URL: "s3://bucket?endpoint=http://s3.example", KeyFile: two}, "storage", "in the clear to s3.example"},
		{server.Storage{URL: s3 + "&pathstyle=true", KeyFile: two}, "storage", `"pathstyle" is not one of its parameters`},
		{server.Storage{URL: s3 + "&pathStyle=yes", KeyFile: two}, "storage", "pathStyle is neither true nor false"},
		{server.Storage{URL: s3 + "&region=a&region=b", KeyFile: two}, "storage", "once each"},
		{server.Storage{URL: "azblob://container", KeyFile: one}, "storage", "the account of the container is missing"},
		{server.Storage{URL: s3}, "storageKeyFile", "name the file that holds it"},
		{server.Storage{URL: s3, KeyFile: filepath.Join(dir, "none")}, "storageKeyFile", "no such file"},
		{server.Storage{URL: s3, KeyFile: open}, "storageKeyFile", "run chmod 600 on it"},
		{server.Storage{URL: s3, KeyFile: one}, "storageKeyFile", "the access key and the secret key"},
		{server.Storage{URL: "azblob://container?account=name", KeyFile: two}, "storageKeyFile", "a key of the account"},
		{server.Storage{URL: s3, KeyFile: two, Roots: one}, "storageRoots", "holds no certificate"},
	} {
		err := server.Check(server.Options{Data: dir, Listen: "127.0.0.1:0", RegistrySuffix: "azurecr.localhost", Storage: c.storage})
		var o *server.OptionError
		switch {
		case c.says == "":
			if err != nil {
				t.Errorf("%+v: %v", c.storage, err)
			}
		case !errors.As(err, &o) || o.Key != c.key || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hidden-secret"):
			t.Errorf("%+v: %v, not %q under %s", c.storage, err, c.says, c.key)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestDataDirHasOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	one, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path); err == nil || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("the second holder got %v", err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := one.close(); err != nil {
		t.Fatal(err)
	}
	two, err := openDataDir(path)
	if err != nil {
		t.Fatal("the directory was not given free:", err)
	}
	_ = two.close()
}

func TestCredentialsAreReplacedWhole(t *testing.T) {
	d, err := openDataDir(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.close() }()
	if c, err := d.readCredentials(); err != nil || c != (Credentials{}) {
		t.Errorf("before the first start: %+v, %v", c, err)
	}
	want := Credentials{ResourceManager: "https://localhost:1", ClientSecret: "s<&>\""}
	for range 2 {
		if err := d.writeCredentials(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.readCredentials()
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	st, err := os.Stat(d.file("credentials.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(d.path, ".credentials*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.WriteFile(d.file("credentials.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.readCredentials(); err == nil {
		t.Error("a broken file was read as empty: its secret would be overwritten")
	}
}

func TestOptionsRefuse(t *testing.T) {
	good := func() Options {
		return Options{Data: t.TempDir(), Listen: "127.0.0.1:0", RegistrySuffix: "azurecr.localhost"}
	}
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"nothing wrong", func(*Options) {}, ""},
		{"no data", func(o *Options) { o.Data = "" }, "no data directory"},
		{"no listener", func(o *Options) { o.Listen = "off" }, "cannot be switched off"},
		{"admin on loopback", func(o *Options) { o.AdminListen = "127.0.0.1:0" }, ""},
		{"admin on IPv6 loopback", func(o *Options) { o.AdminListen = "[::1]:0" }, ""},
		{"admin everywhere", func(o *Options) { o.AdminListen = ":8481" }, "not on loopback"},
		{"admin elsewhere", func(o *Options) { o.AdminListen = "10.0.0.1:8481" }, "not on loopback"},
		{"admin elsewhere by name", func(o *Options) { o.AdminListen = "example.com:8481" }, "not on loopback"},
		{"admin elsewhere, wanted", func(o *Options) { o.AdminListen, o.AdminAnywhere = "0.0.0.0:8481", true }, ""},
		{"private without registry", func(o *Options) { o.PrivateListeners = []PrivateListener{{Address: "127.0.0.1:0", TLS: true}} }, "address and registry"},
		{"private plain on loopback", func(o *Options) {
			o.PrivateListeners = []PrivateListener{{Address: "127.0.0.1:0", Registry: "mine"}}
		}, ""},
		{"private plain beyond", func(o *Options) {
			o.PrivateListeners = []PrivateListener{{Address: "0.0.0.0:0", Registry: "mine"}}
		}, "plain HTTP beyond loopback"},
		{"private plain beyond, terminated", func(o *Options) {
			o.PrivateListeners = []PrivateListener{{Address: "0.0.0.0:0", Registry: "mine", TLSTerminated: true}}
		}, ""},
		{"terminated and TLS", func(o *Options) {
			o.PrivateListeners = []PrivateListener{{Address: "0.0.0.0:0", Registry: "mine", TLS: true, TLSTerminated: true}}
		}, "tlsTerminated is for"},
	} {
		o := good()
		c.change(&o)
		err := o.complete()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A directory whose path is too long for a socket's address still has its socket.
func TestAdminSocketPath(t *testing.T) {
	short, done, err := AdminSocket("/d")
	if err != nil || short != "/d/admin.sock" {
		t.Errorf("%s, %v", short, err)
	}
	done()
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if _, _, err := AdminSocket(long); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the directory: %v", err)
	}
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	path, done, err := AdminSocket(long)
	if err != nil || len(path) > socketPathMax {
		t.Errorf("%s, %v", path, err)
	}
	done()
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var update = os.Getenv("EMBARGO_UPDATE") != ""

// docs/configuration.md is the table, written out. EMBARGO_UPDATE=1 go test ./cmd/embargo writes it.
func TestReferenceIsCurrent(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	want := reference()
	if update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/configuration.md is not the table in config.go: run EMBARGO_UPDATE=1 go test ./cmd/embargo")
	}
}

func settle(t *testing.T, args []string, env map[string]string, file string) (settings, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "embargo.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	declare(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return load(flags, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
}

func TestPrecedence(t *testing.T) {
	env := map[string]string{"EMBARGO_LISTEN": "env:1", "EMBARGO_PROXY_LISTEN": "env:2", "EMBARGO_HOST": "a.example, b.example"}
	file := "listen: file:1\nproxyListen: file:2\nadminListen: file:3\nlogLevel: debug\nadminAnywhere: true\nlocations: [eastus, westus]\n"
	s, err := settle(t, []string{"--listen", "flag:1", "--drain-timeout=5s"}, env, file)
	if err != nil {
		t.Fatal(err)
	}
	o := s.server
	for what, pair := range map[string][2]any{
		"flag over environment": {o.Listen, "flag:1"},
		"environment over file": {o.ProxyListen, "env:2"},
		"file over default":     {o.AdminListen, "file:3"},
		"default":               {o.RegistrySuffix, "azurecr.localhost"},
		"default data":          {o.Data, "./embargo-data"},
		"list in environment":   {strings.Join(o.Hosts, "|"), "a.example|b.example"},
		"list in file":          {strings.Join(o.Locations, "|"), "eastus|westus"},
		"level":                 {s.logLevel, slog.LevelDebug},
		"truth":                 {o.AdminAnywhere, true},
		"duration":              {o.DrainTimeout, 5 * time.Second},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
}

func TestPrivateListeners(t *testing.T) {
	for _, c := range []struct{ file, env string }{
		{file: "privateListeners:\n- {address: 127.0.0.1:1, registry: MyRegistry}\n- {address: 127.0.0.1:2, registry: other, tls: false}\n- {address: '10.0.0.1:3', registry: third, tls: false, tlsTerminated: true}\n"},
		{env: `[{"address":"127.0.0.1:1","registry":"MyRegistry"},{"address":"127.0.0.1:2","registry":"other","tls":false},{"address":"10.0.0.1:3","registry":"third","tls":false,"tlsTerminated":true}]`},
	} {
		env := map[string]string{}
		if c.env != "" {
			env["EMBARGO_PRIVATE_LISTENERS"] = c.env
		}
		s, err := settle(t, nil, env, c.file)
		if err != nil {
			t.Fatal(err)
		}
		l := s.server.PrivateListeners
		if len(l) != 3 || !l[0].TLS || l[1].TLS || l[1].TLSTerminated || !l[2].TLSTerminated || l[0].Registry != "MyRegistry" {
			t.Errorf("%+v", l)
		}
	}
}

func TestConfigurationRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  map[string]string
		file string
		want string
	}{
		{file: "listn: x\n", want: "unknown key listn"},
		{file: "zzz: 1\naaa: 2\n", want: ":1: unknown key zzz"},
		{file: "listen: [1]\n", want: ":1: listen: [1] is not text"},
		{file: "host: {a: b}\n", want: "is not a list"},
		{file: "adminAnywhere: perhaps\n", want: "neither true nor false"},
		{file: "privateListeners:\n- {adress: x}\n", want: "line 2: there is no \"adress\" here"},
		{file: "certificates:\n- {cert: x}\n", want: "an entry needs cert and key"},
		{file: ":\n:", want: "embargo.yaml"},
		{env: map[string]string{"EMBARGO_LOG_LEVEL": "loud"}, want: "EMBARGO_LOG_LEVEL"},
		{args: []string{"--log-format=xml"}, want: "--log-format"},
		{file: "auditMode: sometimes\n", want: `:1: auditMode: "sometimes" is neither strict nor available`},
		{args: []string{"--drain-timeout=-1s"}, want: "not a positive duration"},
		{file: "upstreams: {registries: [{host: docker.io, inseide: true}]}\n", want: `there is no "inseide" here`},
		{file: "webhooks: {destinations: [a.example], rots: x}\n", want: `there is no "rots" here`},
		{args: []string{"--config", "/nowhere/embargo.yaml"}, want: "does not exist"},
		{env: map[string]string{"EMBARGO_CONFIG": "/nowhere/embargo.yaml"}, want: "does not exist"},
	} {
		_, err := settle(t, c.args, c.env, c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c, err, c.want)
		}
	}
}

// Each key names its default and its unit in the help.
func TestHelpListsEveryKey(t *testing.T) {
	c := serveCommand()
	var b bytes.Buffer
	c.SetOut(&b)
	if err := c.Help(); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys() {
		if k.unit == "" || k.doc == "" || k.put == nil {
			t.Errorf("the key %s is incomplete", k.name)
		}
		if k.flag == "" {
			if !strings.Contains(b.String(), k.name) {
				t.Errorf("the help does not mention %s", k.name)
			}
			continue
		}
		for _, want := range []string{"--" + k.flag, k.env(), k.fallback, k.unit} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("the help does not mention %q of %s", want, k.name)
			}
		}
	}
}

func TestGather(t *testing.T) {
	got := gather([]string{"resource", "update", "--set", "a=1", "b=2", "-n", "x", "--remove", "p.list", "0", "--ids=/a", "/b", "--set", "--add"})
	want := []string{"resource", "update", "--set=a=1\x00b=2", "-n", "x", "--remove=p.list\x000", "--ids=/a\x00/b", "--set", "--add"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q", got)
	}
	if got := gather([]string{"audit", "--set", "a", "b"}); len(got) != 4 {
		t.Errorf("another command was changed: %q", got)
	}
}

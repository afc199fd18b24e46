// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/server"
)

// settings is what flags, environment and file come to.
type settings struct {
	server    server.Options
	logLevel  slog.Level
	logFormat string
}

// key is a row of the table of everything that can be configured. A value comes from the flag, else from the environment,
// else from the file, else it is the default.
type key struct {
	name     string // in the file
	flag     string // "" when it has none
	fallback string // the default, as text
	unit     string
	doc      string
	list     bool // may be given several times; as text, separated by commas
	put      func(s *settings, v any) error
}

// env is the key's environment variable.
func (k key) env() string {
	var b strings.Builder
	b.WriteString("EMBARGO_")
	for _, r := range k.name {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToUpper(string(r)))
	}
	return b.String()
}

// keys is the table. The order is the order of the documentation.
func keys() []key {
	return []key{
		{name: "data", flag: "data", fallback: "./embargo-data", unit: "directory",
			doc: "Where everything is kept: content, the embedded database, keys, credentials. Made with mode 0700.",
			put: text(func(s *settings, v string) { s.server.Data = v })},
		{name: "database", flag: "database", unit: "URL",
			doc: "The database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST:PORT/NAME`. Empty: `sqlite:` in the data directory.",
			put: text(func(s *settings, v string) { s.server.Database = v })},
		{name: "listen", flag: "listen", fallback: "127.0.0.1:8443", unit: "host:port",
			doc: "The public TLS listener: resource manager, authority and metadata under the hosts, registries under the suffix. Port 0 picks a free one.",
			put: text(func(s *settings, v string) { s.server.Listen = v })},
		{name: "proxyListen", flag: "proxy-listen", fallback: "127.0.0.1:8480", unit: "host:port",
			doc: "The CONNECT proxy, which tunnels to the installation's own names only. `off` starts none.",
			put: text(func(s *settings, v string) { s.server.ProxyListen = v })},
		{name: "adminListen", flag: "admin-listen", fallback: "127.0.0.1:8481", unit: "host:port",
			doc: "The listener of /healthz and /readyz, plain HTTP. It must be on loopback unless adminAnywhere is set. `off` starts none.",
			put: text(func(s *settings, v string) { s.server.AdminListen = v })},
		{name: "adminAnywhere", flag: "admin-anywhere", fallback: "false", unit: "true or false",
			doc: "Lets adminListen be another address than loopback, for the probes of an orchestrator.",
			put: truth(func(s *settings, v bool) { s.server.AdminAnywhere = v })},
		{name: "host", flag: "host", unit: "host names or addresses", list: true,
			doc: "Names of the resource manager besides localhost, 127.0.0.1 and ::1. The first one is written into credentials.json and into certificates.",
			put: texts(func(s *settings, v []string) { s.server.Hosts = v })},
		{name: "registrySuffix", flag: "registry-suffix", fallback: "azurecr.localhost", unit: "DNS name",
			doc: "The domain of login servers: the registry `name` is `name.SUFFIX`.",
			put: text(func(s *settings, v string) { s.server.RegistrySuffix = v })},
		{name: "certificates", unit: "list of {cert, key}: PEM files",
			doc: "Certificates of your own, taken before those of the installation's authority. Changed files are noticed within a second.",
			put: rows(func(s *settings, v []struct{ Cert, Key string }) error {
				s.server.Certificates = nil
				for _, c := range v {
					if c.Cert == "" || c.Key == "" {
						return errors.New("an entry needs cert and key")
					}
					s.server.Certificates = append(s.server.Certificates, network.CertificateFile{Cert: c.Cert, Key: c.Key})
				}
				return nil
			})},
		{name: "privateListeners", unit: "list of {address, registry, tls, tlsTerminated}",
			doc: "Listeners inside the perimeter. Each serves its one registry, whatever host a request names. `tls: false` needs an address on loopback, " +
				"or `tlsTerminated: true`, which says that a TLS terminator stands before the listener and that nothing else reaches it.",
			put: rows(func(s *settings, v []privateListener) error {
				s.server.PrivateListeners = nil
				for _, l := range v {
					secure := l.TLS == nil || *l.TLS
					s.server.PrivateListeners = append(s.server.PrivateListeners, server.PrivateListener{
						Address: l.Address, Registry: l.Registry, TLS: secure, TLSTerminated: l.TLSTerminated})
				}
				return nil
			})},
		{name: "locations", flag: "locations", unit: "region names", list: true,
			doc: "The locations that resources may have. Empty: the public regions of Azure.",
			put: texts(func(s *settings, v []string) { s.server.Locations = v })},
		{name: "installationKey", flag: "installation-key", unit: "file",
			doc: "The key that seals secrets in the database. Nodes that share a database share it. Empty: `installation.key` in the data directory, made at the first start.",
			put: text(func(s *settings, v string) { s.server.InstallationKey = v })},
		{name: "drainTimeout", flag: "drain-timeout", fallback: "30s", unit: "duration (s, m)",
			doc: "How long a stop waits for the requests in flight before it cuts them off.",
			put: func(s *settings, v any) error {
				d, err := time.ParseDuration(fmt.Sprint(v))
				if err != nil || d <= 0 {
					return fmt.Errorf("%v is not a positive duration such as 30s", v)
				}
				s.server.DrainTimeout = d
				return nil
			}},
		{name: "logLevel", flag: "log-level", fallback: "info", unit: "debug, info, warn or error",
			doc: "The least severe messages that are logged. Requests are logged at info.",
			put: func(s *settings, v any) error {
				return s.logLevel.UnmarshalText([]byte(fmt.Sprint(v)))
			}},
		{name: "logFormat", flag: "log-format", fallback: "text", unit: "text or json",
			doc: "The form of log lines, which go to standard error.",
			put: func(s *settings, v any) error {
				f := fmt.Sprint(v)
				if f != "text" && f != "json" {
					return fmt.Errorf("%q is neither text nor json", f)
				}
				s.logFormat = f
				return nil
			}},
	}
}

type privateListener struct {
	Address       string `yaml:"address"`
	Registry      string `yaml:"registry"`
	TLS           *bool  `yaml:"tls"`
	TLSTerminated bool   `yaml:"tlsTerminated"`
}

func text(set func(*settings, string)) func(*settings, any) error {
	return func(s *settings, v any) error {
		t, ok := v.(string)
		if !ok {
			return fmt.Errorf("%v is not text", v)
		}
		set(s, t)
		return nil
	}
}

func truth(set func(*settings, bool)) func(*settings, any) error {
	return func(s *settings, v any) error {
		switch fmt.Sprint(v) {
		case "true":
			set(s, true)
		case "false", "":
			set(s, false)
		default:
			return fmt.Errorf("%v is neither true nor false", v)
		}
		return nil
	}
}

func texts(set func(*settings, []string)) func(*settings, any) error {
	return func(s *settings, v any) error {
		var out []string
		switch v := v.(type) {
		case string:
			for part := range strings.SplitSeq(v, ",") {
				if part = strings.TrimSpace(part); part != "" {
					out = append(out, part)
				}
			}
		case []string:
			out = v
		case []any:
			for _, e := range v {
				t, ok := e.(string)
				if !ok {
					return fmt.Errorf("%v is not text", e)
				}
				out = append(out, t)
			}
		default:
			return fmt.Errorf("%v is not a list", v)
		}
		set(s, out)
		return nil
	}
}

// rows takes a list of objects: from the file as it is, from the environment as YAML or JSON text.
func rows[T any](set func(*settings, []T) error) func(*settings, any) error {
	return func(s *settings, v any) error {
		source, ok := v.(string)
		if !ok {
			b, err := yaml.Marshal(v)
			if err != nil {
				return err
			}
			source = string(b)
		}
		var out []T
		d := yaml.NewDecoder(strings.NewReader(source))
		d.KnownFields(true)
		if err := d.Decode(&out); err != nil && source != "" {
			return err
		}
		return set(s, out)
	}
}

// declare gives flags a flag for each key that has one, and --config.
func declare(flags *pflag.FlagSet) {
	flags.String("config", "", "The configuration file (YAML). Environment: EMBARGO_CONFIG")
	for _, k := range keys() {
		if k.flag == "" {
			continue
		}
		usage := fmt.Sprintf("%s Unit: %s. Environment: %s", strings.ReplaceAll(k.doc, "`", "'"), k.unit, k.env())
		switch {
		case k.list:
			flags.StringSlice(k.flag, nil, usage)
		case k.unit == "true or false":
			flags.Bool(k.flag, false, usage)
		default:
			flags.String(k.flag, k.fallback, usage)
		}
	}
}

// load makes settings of flags, environment (a function like os.LookupEnv) and the file they name.
func load(flags *pflag.FlagSet, env func(string) (string, bool)) (settings, error) {
	var s settings
	path, _ := flags.GetString("config")
	if v, ok := env("EMBARGO_CONFIG"); ok && !flags.Changed("config") {
		path = v
	}
	file, err := readFile(path)
	if err != nil {
		return s, err
	}
	for _, k := range keys() {
		var v any = k.fallback
		source := "the default of " + k.name
		if inFile, ok := file[k.name]; ok {
			v, source = inFile, path+": "+k.name
		}
		if inEnv, ok := env(k.env()); ok {
			v, source = inEnv, k.env()
		}
		if k.flag != "" && flags.Changed(k.flag) {
			source = "--" + k.flag
			if k.list {
				v, err = flags.GetStringSlice(k.flag)
			} else {
				v = flags.Lookup(k.flag).Value.String()
			}
			if err != nil {
				return s, err
			}
		}
		if err := k.put(&s, v); err != nil {
			return s, fmt.Errorf("%s: %w", source, err)
		}
	}
	return s, nil
}

// readFile reads the file's keys. A key that is not in the table is an error with its name.
func readFile(path string) (map[string]any, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the configuration file %s does not exist", path)
	}
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	known := map[string]bool{}
	for _, k := range keys() {
		known[k.name] = true
	}
	var unknown []string
	for name := range doc {
		if !known[name] {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("%s: unknown key %s (docs/configuration.md lists those there are)", filepath.Base(path), strings.Join(unknown, ", "))
	}
	return doc, nil
}

// reference is docs/configuration.md.
func reference() string {
	var b strings.Builder
	b.WriteString(`# Configuration of ` + "`embargo serve`" + `

Each key can be given as a flag, in the environment, or in one YAML file named by ` + "`--config`" + ` (or ` + "`EMBARGO_CONFIG`" + `). A flag wins over the
environment, the environment over the file, the file over the default. A key in the file that is not listed here is an error. In the
environment, lists of names are separated by commas, and lists of objects are written as YAML or JSON.

This page is generated from the table in cmd/embargo/config.go.

| key in the file | flag | environment | default | unit | what it does |
|---|---|---|---|---|---|
`)
	for _, k := range keys() {
		flag := "–"
		if k.flag != "" {
			flag = "`--" + k.flag + "`"
		}
		fallback := "empty"
		if k.fallback != "" {
			fallback = "`" + k.fallback + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s | %s |\n", k.name, flag, k.env(), fallback, k.unit, k.doc)
	}
	b.WriteString(`
An example:

` + "```yaml" + `
data: /var/lib/embargo
listen: 0.0.0.0:8443
host: [embargo.example.com]
registrySuffix: registry.example.com
certificates:
  - cert: /etc/embargo/tls.crt
    key: /etc/embargo/tls.key
privateListeners:
  - address: 10.0.0.5:443
    registry: myregistry
    tls: true
logFormat: json
` + "```" + `
`)
	return b.String()
}

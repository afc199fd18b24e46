// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/server"
	"github.com/embargo-registry/embargo/upstream"
)

// settings is what flags, environment and file come to.
type settings struct {
	server    server.Options
	logLevel  slog.Level
	logFormat string
	// sources says of each key where its value was given.
	sources map[string]string
}

// named puts the place where an option was given before an error about it.
func (s settings) named(err error) error {
	var o *server.OptionError
	if errors.As(err, &o) && s.sources[o.Key] != "" {
		return fmt.Errorf("%s: %w", s.sources[o.Key], o.Err)
	}
	return err
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
		{name: "storage", flag: "storage", fallback: "fs", unit: "URL",
			doc: "Where content is kept. `fs`: in the data directory. `s3://BUCKET/PREFIX?endpoint=URL`, with `region` and `pathStyle=true` as the service needs them (for Amazon `region` alone will do). " +
				"`azblob://CONTAINER/PREFIX?account=NAME`, with `endpoint` if it is not Azure's. An `http` endpoint beyond loopback needs `insecure=true`. An installation starts with the storage that its content is in, and with no other.",
			put: text(func(s *settings, v string) { s.server.Storage.URL = v })},
		{name: "storageKeyFile", flag: "storage-key-file", unit: "file",
			doc: "The key of the storage, in a file of mode 0600: for S3 the access key and the secret key, separated by white space; for Azure a key of the account.",
			put: text(func(s *settings, v string) { s.server.Storage.KeyFile = v })},
		{name: "storageRoots", flag: "storage-roots", unit: "file",
			doc: "A PEM file to check the certificate of the storage by, besides the system's authorities.",
			put: text(func(s *settings, v string) { s.server.Storage.Roots = v })},
		{name: "listen", flag: "listen", fallback: "127.0.0.1:8443", unit: "host:port",
			doc: "The public TLS listener: resource manager, authority and metadata under the hosts, registries under the suffix. Port 0 picks a free one.",
			put: text(func(s *settings, v string) { s.server.Listen = v })},
		{name: "proxyListen", flag: "proxy-listen", fallback: "127.0.0.1:8480", unit: "host:port",
			doc: "The CONNECT proxy, which tunnels to the installation's own names only. `off` starts none.",
			put: text(func(s *settings, v string) { s.server.ProxyListen = v })},
		{name: "adminListen", flag: "admin-listen", fallback: "127.0.0.1:8481", unit: "host:port",
			doc: "The listener of /healthz, /readyz and /metrics, plain HTTP. It must be on loopback unless adminAnywhere is set. `off` starts none.",
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
		{name: "acme", unit: "{directory, email, roots}",
			doc: "Gets certificates for the hosts and for the registries' names from an ACME server (RFC 8555): `directory` is the https URL of its directory, `email` is told to it, `roots` is a PEM file to check " +
				"its certificate by. The server must reach the public listener at port 443 of each name (challenge tls-alpn-01). By giving a directory you accept its terms of service.",
			put: rows1(func(s *settings, v struct{ Directory, Email, Roots string }) error {
				s.server.ACME = network.ACME{Directory: v.Directory, Email: v.Email, Roots: v.Roots}
				return nil
			})},
		{name: "webhooks", unit: "{destinations, roots}",
			doc: "Where webhooks of registries may go besides the public Internet: `destinations` lists hosts, with or without a port, that may lie inside; a registry with exports disabled sends its events to these alone. " +
				"`roots` is a PEM file to check receivers' certificates by, besides the system's authorities.",
			put: rows1(func(s *settings, v struct {
				Destinations []string
				Roots        string
			}) error {
				s.server.Webhooks = server.Webhooks{Destinations: v.Destinations, Roots: v.Roots}
				return nil
			})},
		{name: "upstreams", unit: "{registries: list of {host, at, tokens, redirects, inside}, roots}",
			doc: "The registries that cache rules may fetch from, and no other: `host` is the name in cache rules, `at` where its registry answers (empty: `host`), `tokens` further hosts that issue its tokens, `redirects` further hosts " +
				"that it redirects to for content; hosts go with or without a port. `inside: true` lets them have addresses that are not of the public Internet. docker.io needs no `at` and no `tokens`. " +
				"`roots` is a PEM file to check their certificates by, besides the system's authorities.",
			put: rows1(func(s *settings, v struct {
				Registries []upstreamRegistry
				Roots      string
			}) error {
				s.server.Upstreams = server.Upstreams{Roots: v.Roots}
				for _, r := range v.Registries {
					s.server.Upstreams.Registries = append(s.server.Upstreams.Registries, upstream.Upstream(r))
				}
				return nil
			})},
		{name: "privateListeners", unit: "list of {address, registry, tls, tlsTerminated, clients}",
			doc: "Listeners inside the perimeter. Each serves its one registry, whatever host a request names. `tls: false` needs an address on loopback, " +
				"or `tlsTerminated: true`, which says that a TLS terminator stands before the listener and that nothing else reaches it. `clients` lists the addresses and CIDR ranges that may connect (none: all, which beyond loopback means whoever routes to the address, by any network interface: see docs/networks.md).",
			put: rows(func(s *settings, v []privateListener) error {
				s.server.PrivateListeners = nil
				for _, l := range v {
					secure := l.TLS == nil || *l.TLS
					clients, err := prefixes(l.Clients)
					if err != nil {
						return fmt.Errorf("clients: %w", err)
					}
					s.server.PrivateListeners = append(s.server.PrivateListeners, server.PrivateListener{
						Address: l.Address, Registry: l.Registry, TLS: secure, TLSTerminated: l.TLSTerminated, Clients: clients})
				}
				return nil
			})},
		{name: "virtualNetworks", unit: "list of {id, door, port, tls, tlsTerminated, interfaces, clients, listen, from, links, proxyListen}",
			doc: "How the private endpoints of virtual networks are doors of this server (docs/networks.md). `id` is the ARM id of the network. `door: address` listens on the endpoints' own addresses, at `port` (443), by the network " +
				"`interfaces` named (none: any), for `clients` (addresses and CIDR ranges; none: all): name both. `door: proxy` listens at the address `listen` for the load balancers listed in `from`, which speak the PROXY protocol, version 2; `links` says which private link " +
				"(AWS `vpce-…`, Azure link id, GCP connection id) leads to which private endpoint, by ARM id. `door: none` (the default) has no door. `proxyListen` is a CONNECT proxy for clients inside. `tls` and `tlsTerminated` are as those of privateListeners.",
			put: rows(putNetworks)},
		{name: "dns", unit: "{listen, public, networks: list of {network, listen}, ttl}",
			doc: "A small DNS server for the names of registries, over UDP and TCP. At `listen` everybody gets the addresses `public` for a registry that is there (none: NXDOMAIN). At the resolver address of a virtual network (`network` is its ARM id, listed in virtualNetworks) " +
				"the names of a registry with an approved endpoint there get the endpoint's addresses; it hears the `interfaces` of the network alone, and tells who is not among its `clients` what `listen` would (REFUSED without). It offers no recursion and no zone transfer. `ttl` (10s) is how long an answer may be kept.",
			put: rows1(putDNS)},
		{name: "trustedProxies", flag: "trusted-proxies", unit: "addresses and CIDR ranges", list: true,
			doc: "Reverse proxies before the public listener whose X-Forwarded-For says who the caller is, in logs, records and IP rules. It never changes from which side a connection comes. Of a header that can't be read nobody is taken: such a caller is `::`, whom no IP rule admits. Empty: nobody's counts.",
			put: func(s *settings, v any) error {
				var all []string
				if err := texts(func(_ *settings, v []string) { all = v })(s, v); err != nil {
					return err
				}
				var err error
				s.server.TrustedProxies, err = prefixes(all)
				return err
			}},
		{name: "locations", flag: "locations", unit: "region names", list: true,
			doc: "The locations that resources may have. Empty: the public regions of Azure.",
			put: texts(func(s *settings, v []string) { s.server.Locations = v })},
		{name: "installationKey", flag: "installation-key", unit: "file",
			doc: "The key that seals secrets in the database. Nodes that share a database share it. Empty: `installation.key` in the data directory, made at the first start.",
			put: text(func(s *settings, v string) { s.server.InstallationKey = v })},
		{name: "policyEpochs", flag: "policy-epochs", unit: "file",
			doc: "The highest epoch of each registry's policy, by which an older copy of the database is known. A copy of the whole data directory brings its own along and is not known for one, so where snapshots of it may be put back, name a file on another disk. Empty: `policy-epochs.json` in the data directory.",
			put: text(func(s *settings, v string) { s.server.PolicyEpochs = v })},
		{name: "drainTimeout", flag: "drain-timeout", fallback: "30s", unit: "duration (s, m)",
			doc: "How long a stop waits for the requests in flight before it cuts them off.",
			put: duration(func(s *settings, d time.Duration) { s.server.DrainTimeout = d })},
		{name: "stallTimeout", flag: "stall-timeout", fallback: "1m", unit: "duration (s, m)",
			doc: "How long a client may take over the next piece of a request's body or of an answer (a megabyte at the most) before its connection is dropped.",
			put: duration(func(s *settings, d time.Duration) { s.server.StallTimeout = d })},
		{name: "maxConnections", flag: "max-connections", fallback: "16384", unit: "number",
			doc: "How many connections each listener holds at a time. Further ones are closed at once.",
			put: number(func(s *settings, n int64) { s.server.MaxConnections = int(n) })},
		{name: "maxRequests", flag: "max-requests", fallback: "4096", unit: "number",
			doc: "How many requests are answered at a time, over all listeners. Further ones get 429 with Retry-After.",
			put: number(func(s *settings, n int64) { s.server.MaxRequests = int(n) })},
		{name: "auditMode", flag: "audit-mode", fallback: "strict", unit: "strict or available",
			doc: "When a pull's record must be written. `strict`: it is durable before the first byte leaves. `available`: it is in the queue of the next commit, so a crash within milliseconds can lose it; registries with exports disabled stay strict, and nothing is let go while records can't be written.",
			put: func(s *settings, v any) error {
				mode := fmt.Sprint(v)
				if mode != "strict" && mode != "available" {
					return fmt.Errorf("%q is neither strict nor available", mode)
				}
				s.server.AuditSoon = mode == "available"
				return nil
			}},
		{name: "registryQuota", flag: "registry-quota", fallback: "unlimited", unit: "MiB, or unlimited",
			doc: "How much each registry may hold, its content counted once. A push or an import beyond it is refused (403 DENIED). Unfinished uploads count apart, and may hold as much again together.",
			put: func(s *settings, v any) error {
				s.server.RegistryQuota = 0
				if v == "unlimited" {
					return nil
				}
				return number(func(s *settings, n int64) { s.server.RegistryQuota = n << 20 })(s, v)
			}},
		{name: "throttle", flag: "throttle", fallback: "off", unit: "off or acr",
			doc: "`acr` answers 429 with Retry-After to data-plane requests beyond the rates that Azure Container Registry documents for the registry's SKU, per registry and per identity.",
			put: func(s *settings, v any) error {
				t := fmt.Sprint(v)
				if t != "off" && t != "acr" {
					return fmt.Errorf("%q is neither off nor acr", t)
				}
				s.server.Throttle = t == "acr"
				return nil
			}},
		{name: "gcInterval", flag: "gc-interval", fallback: "1h", unit: "duration (s, m, h)",
			doc: "How often content that nothing needs any more is collected.",
			put: duration(func(s *settings, d time.Duration) { s.server.GCInterval = d })},
		{name: "gcGrace", flag: "gc-grace", fallback: "24h", unit: "duration (s, m, h)",
			doc: "How long content that nothing names stays before it is collected. Longer than a backup and than a push takes.",
			put: duration(func(s *settings, d time.Duration) { s.server.GCGrace = d })},
		{name: "minFreeDisk", flag: "min-free-disk", fallback: "256", unit: "MiB",
			doc: "/readyz says that the server is not ready when less is free on the disk of the data directory.",
			put: number(func(s *settings, n int64) { s.server.MinFreeDisk = n << 20 })},
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

func duration(set func(*settings, time.Duration)) func(*settings, any) error {
	return func(s *settings, v any) error {
		d, err := time.ParseDuration(fmt.Sprint(v))
		if err != nil || d <= 0 {
			return fmt.Errorf("%v is not a positive duration such as 30s", v)
		}
		set(s, d)
		return nil
	}
}

func number(set func(*settings, int64)) func(*settings, any) error {
	return func(s *settings, v any) error {
		n, err := strconv.ParseInt(fmt.Sprint(v), 10, 32)
		if err != nil || n <= 0 {
			return fmt.Errorf("%v is not a positive number", v)
		}
		set(s, n)
		return nil
	}
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

// rows takes a list of objects: from the file as a node, from the environment as YAML or JSON text.
func rows[T any](set func(*settings, []T) error) func(*settings, any) error {
	return rows1(func(s *settings, v []T) error { return set(s, v) })
}

// rows1 is rows for one value.
func rows1[T any](set func(*settings, T) error) func(*settings, any) error {
	return func(s *settings, v any) error {
		var out T
		node, ok := v.(*yaml.Node)
		if !ok {
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(fmt.Sprint(v)), &doc); err != nil {
				return err
			}
			if len(doc.Content) == 0 {
				return set(s, out)
			}
			node = doc.Content[0]
		}
		if err := strange(node, reflect.TypeFor[T]()); err != nil {
			return err
		}
		if err := node.Decode(&out); err != nil {
			return err
		}
		return set(s, out)
	}
}

// strange finds a key that the type has no member for.
func strange(node *yaml.Node, t reflect.Type) error {
	if t.Kind() == reflect.Slice && node.Kind == yaml.SequenceNode {
		for _, item := range node.Content {
			if err := strange(item, t.Elem()); err != nil {
				return err
			}
		}
	}
	if t.Kind() != reflect.Struct || node.Kind != yaml.MappingNode {
		return nil
	}
	var names []string
	types := map[string]reflect.Type{}
	for f := range t.Fields() {
		name := f.Tag.Get("yaml")
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		names = append(names, name)
		types[name] = f.Type
	}
	for i := 0; i < len(node.Content); i += 2 {
		if k := node.Content[i]; !slices.Contains(names, k.Value) {
			return fmt.Errorf("line %d: there is no %q here, but %s", k.Line, k.Value, strings.Join(names, ", "))
		}
		if err := strange(node.Content[i+1], types[node.Content[i].Value]); err != nil {
			return err
		}
	}
	return nil
}

// declare gives flags a flag for each key that has one, and --config.
func declare(flags *pflag.FlagSet) { declareSome(flags) }

// declareSome is declare for the keys named; none are all. The configuration file counts whole, whatever the flags.
func declareSome(flags *pflag.FlagSet, names ...string) {
	flags.String("config", "", "The configuration file (YAML). Environment: EMBARGO_CONFIG")
	for _, k := range keys() {
		if k.flag == "" || len(names) > 0 && !slices.Contains(names, k.name) {
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
	s.sources = map[string]string{}
	for _, k := range keys() {
		var v any = k.fallback
		source := "the default of " + k.name
		if inFile, ok := file[k.name]; ok {
			v, source = inFile.value(k), fmt.Sprintf("%s:%d: %s", path, inFile.line, k.name)
		}
		if inEnv, ok := env(k.env()); ok {
			v, source = inEnv, k.env()
		}
		if k.flag != "" && flags.Lookup(k.flag) != nil && flags.Changed(k.flag) {
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
		s.sources[k.name] = source
		if err := k.put(&s, v); err != nil {
			return s, fmt.Errorf("%s: %w", source, err)
		}
	}
	return s, nil
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/network"
)

// Options of New. Only Data, Listen and RegistrySuffix have no usable zero value.
type Options struct {
	// Data is the directory that everything is kept in; it is made with mode 0700.
	Data string
	// Database is sqlite:PATH or a postgres:// URL; "" is sqlite in Data.
	Database string
	// Listen is the public TLS listener, ProxyListen the CONNECT proxy's and AdminListen that of /healthz and /readyz:
	// host:port, port 0 for a free one. "" or "off" starts none (but Listen must be given).
	Listen, ProxyListen, AdminListen string
	// AdminAnywhere allows AdminListen to be another address than loopback.
	AdminAnywhere bool
	// Hosts are the names of the resource manager besides localhost, 127.0.0.1 and ::1.
	Hosts []string
	// RegistrySuffix is the domain of login servers.
	RegistrySuffix string
	// Certificates are the operator's own; none: those of the installation's authority.
	Certificates []network.CertificateFile
	// PrivateListeners are the doors inside the perimeter.
	PrivateListeners []PrivateListener
	// VirtualNetworks says how private endpoints are doors; a network that is not listed has none here.
	VirtualNetworks []VirtualNetwork
	// DNS answers for the names of registries.
	DNS DNS
	// TrustedProxies are the reverse proxies whose X-Forwarded-For says who the caller is, on public doors; none: nobody's.
	TrustedProxies []netip.Prefix
	// Locations that resources may have; none: Azure's public regions.
	Locations []string
	// PolicyEpochs is the file of the high-water marks of the registries' policies; "": policy-epochs.json in Data.
	PolicyEpochs string
	// InstallationKey is the file of the key that seals secrets; "": installation.key in Data.
	InstallationKey string
	// DrainTimeout bounds the wait for requests in flight at a stop (0: 30 s).
	DrainTimeout time.Duration
	// MaxConnections is how many connections each listener holds at a time (0: 16384), MaxRequests how many requests all of them answer (0: 4096).
	MaxConnections, MaxRequests int
	// StallTimeout ends an exchange in which nothing moves for so long (0: 1 min).
	StallTimeout time.Duration
	// AuditSoon lets the pull of a registry whose exports are enabled go when its record waits to be written, instead of when it is durable.
	AuditSoon bool
	// RegistryQuota is how many bytes each registry may hold; 0 is no bound. Throttle answers 429 to what exceeds the rates that the service documents for a registry's SKU.
	RegistryQuota int64
	Throttle      bool
	// GCInterval is how often unused content is collected (0: 1 h), GCGrace how long it stays before (0: 24 h).
	GCInterval, GCGrace time.Duration
	// MinFreeDisk is how many bytes must be free on the disk of Data for the server to be ready (0: 256 MiB).
	MinFreeDisk int64
	// ACME gets certificates from an ACME server; without a Directory none are asked for.
	ACME network.ACME
	// Storage says where content is kept.
	Storage Storage
	// Webhooks says where events of registries may go inside, and while exports are disabled.
	Webhooks Webhooks
	// Upstreams says which registries cache rules may fetch from.
	Upstreams Upstreams
	// Log gets everything that happens; nil discards it.
	Log *slog.Logger
	// Clock is the time; nil: the machine's.
	Clock func() time.Time
	// wall is the machine's clock, with its steps.
	wall func() time.Time
	// Version is what the program calls itself.
	Version string
}

// PrivateListener is a door to one registry. Without TLS the address must be on loopback, or TLSTerminated must say that a
// TLS terminator stands before it.
type PrivateListener struct {
	Address       string
	Registry      string
	TLS           bool
	TLSTerminated bool
	// Clients are the addresses that may connect; none: all.
	Clients []netip.Prefix
}

// OptionError is an option that can't be had, under its name in the configuration.
type OptionError struct {
	Key string
	Err error
}

func (e *OptionError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap is the cause.
func (e *OptionError) Unwrap() error { return e.Err }

func option(key, format string, args ...any) error {
	return &OptionError{key, fmt.Errorf(format, args...)}
}

// Check finds out, without opening anything, whether a server could be made of the options. Errors: *OptionError.
func Check(o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	if _, err := o.hosts(); err != nil {
		return err
	}
	if _, err := network.OpenFiles(o.Certificates, o.Clock, o.Log); err != nil {
		return &OptionError{"certificates", err}
	}
	if _, err := acmeRoots(o.ACME); err != nil {
		return err
	}
	if err := meta.CheckURL(o.Database); err != nil {
		return &OptionError{"database", err}
	}
	for key, dir := range map[string]string{"installationKey": filepath.Dir(o.InstallationKey), "policyEpochs": filepath.Dir(o.PolicyEpochs), "data": o.Data} {
		if st, err := os.Stat(dir); err == nil && !st.IsDir() {
			return option(key, "%s is no directory", dir)
		} else if err != nil && dir != o.Data {
			return &OptionError{key, err}
		}
	}
	if st, err := os.Stat(o.PolicyEpochs); err == nil && !st.Mode().IsRegular() {
		return option("policyEpochs", "%s is no file: name a file, which is made if absent", o.PolicyEpochs)
	}
	for key, address := range map[string]string{"listen": o.Listen, "proxyListen": o.ProxyListen, "adminListen": o.AdminListen} {
		if off(address) {
			continue
		}
		if err := bindable(address); err != nil {
			return &OptionError{key, err}
		}
	}
	for i, l := range o.PrivateListeners {
		if err := bindable(l.Address); err != nil {
			return option("privateListeners", "entry %d: %w", i+1, err)
		}
		if !registryName.MatchString(l.Registry) {
			return option("privateListeners", "entry %d: %q is no name of a registry: it has 5 to 50 letters and digits", i+1, l.Registry)
		}
	}
	taken := map[string]bool{}
	all, _ := o.wanted()
	for _, w := range all {
		if taken[w.address] && !strings.HasSuffix(w.address, ":0") {
			return option(key(w), "%s is given to two listeners", w.address)
		}
		taken[w.address] = true
	}
	for _, n := range append(slices.Clone(o.DNS.Networks), DNSNetwork{Listen: o.DNS.Listen}) {
		if taken[n.Listen] && !strings.HasSuffix(n.Listen, ":0") {
			return option("dns", "%s is given to a listener too", n.Listen)
		}
	}
	return nil
}

// Warnings are what Check lets pass although it is seldom meant. Errors: each an *OptionError.
func Warnings(o Options) (all []error) {
	if o.complete() != nil {
		return nil
	}
	const anyone = "whoever routes to %s of this machine is inside, by whichever network interface: Linux takes in packets for any of its addresses by any of them (docs/networks.md)"
	for i, l := range o.PrivateListeners {
		if !limited(l.Clients) && !loopback(l.Address) {
			all = append(all, option("privateListeners", "entry %d: without clients, "+anyone+". Name the clients", i+1, l.Address))
		}
	}
	for i, v := range o.VirtualNetworks {
		none := "without clients"
		if len(v.Clients) > 0 {
			none = "with every address among the clients"
		}
		switch one := len(v.Interfaces) > 0; {
		case v.Door != DoorAddress || one && limited(v.Clients):
		case one:
			all = append(all, option(networksKey, "entry %d: %s, whoever comes by one of the interfaces is inside, from whatever address. Name both", i+1, none))
		case limited(v.Clients):
			all = append(all, option(networksKey, "entry %d: without interfaces, whoever has the address of a client is inside, by whichever network interface he comes (docs/networks.md). Name both", i+1))
		default:
			all = append(all, option(networksKey, "entry %d: without interfaces, and %s, "+anyone+", unless the network's prefix is on loopback (a trial). Name both", i+1, none, "an endpoint's address"))
		}
		switch {
		case off(v.ProxyListen) || loopback(v.ProxyListen):
		case !limited(v.Clients):
			all = append(all, option(networksKey, "entry %d: proxyListen: %s, "+anyone+". Name the clients", i+1, none, v.ProxyListen))
		case len(v.Interfaces) > 0:
			all = append(all, option(networksKey, "entry %d: proxyListen: %s does not ask by which interface a client comes, only for its address. Let a firewall keep the outside away from it", i+1, v.ProxyListen))
		}
	}
	for _, n := range o.DNS.Networks {
		if v := o.virtualNetwork(n.Network); len(v.Interfaces) == 0 && !limited(v.Clients) && !loopback(n.Listen) {
			all = append(all, option("dns", "networks: %s has neither interfaces nor clients: whoever routes to %s of this machine is told the addresses of its endpoints. Name both", v.name(), n.Listen))
		}
	}
	return all
}

var registryName = regexp.MustCompile(`^[a-z0-9]{5,50}$`)

// acmeRoots are the authorities that the ACME server's own certificate is checked by; nil: the system's.
func acmeRoots(o network.ACME) (*x509.CertPool, error) {
	if o.Roots == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(o.Roots)
	if err != nil {
		return nil, &OptionError{"acme", err}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, option("acme", "%s holds no certificate", o.Roots)
	}
	return roots, nil
}

// bindable checks the form of an address to listen on.
func bindable(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q has no port between 0 and 65535", address)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !strings.EqualFold(host, "localhost") {
		return fmt.Errorf("%q is not an address to listen on: name it by an IP address", address)
	}
	return nil
}

// hosts are the names of the installation.
func (o *Options) hosts() (network.Hosts, error) {
	h, err := network.NewHosts(append(o.named(), "localhost", "127.0.0.1", "::1"), o.RegistrySuffix)
	if err == nil {
		return h, nil
	}
	if _, suffix := network.NewHosts([]string{"localhost"}, o.RegistrySuffix); suffix != nil {
		return h, &OptionError{"registrySuffix", err}
	}
	return h, &OptionError{"host", err}
}

// named are the names that were configured. Without any, an address that alone is listened on names the installation: nobody reaches it as localhost.
func (o *Options) named() []string {
	if len(o.Hosts) > 0 {
		return slices.Clone(o.Hosts)
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil
	}
	a, err := netip.ParseAddr(host)
	if a = a.Unmap(); err != nil || a.IsUnspecified() || a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || a == netip.IPv6Loopback() {
		return nil
	}
	return []string{a.WithZone("").String()}
}

// complete checks the options and fills in what is left out.
func (o *Options) complete() error {
	if o.Data == "" {
		return option("data", "no data directory is configured")
	}
	dir, err := filepath.Abs(o.Data)
	if err != nil {
		return &OptionError{"data", err}
	}
	o.Data = dir
	if off(o.Listen) {
		return option("listen", "the public listener cannot be switched off")
	}
	o.fill()
	if scheme, _, _ := strings.Cut(o.Database, ":"); scheme != "sqlite" && scheme != "postgres" && scheme != "postgresql" {
		return option("database", "it is neither sqlite:PATH nor postgres://USER:PASSWORD@HOST:PORT/NAME")
	}
	if !off(o.AdminListen) && !o.AdminAnywhere && !loopback(o.AdminListen) {
		return option("adminListen", "%s is not on loopback: set adminAnywhere if that is meant", o.AdminListen)
	}
	if err := o.ACME.Check(); err != nil {
		return &OptionError{"acme", err}
	}
	if err := o.Webhooks.check(); err != nil {
		return err
	}
	if err := o.Storage.check(); err != nil {
		return err
	}
	if err := o.completeNetworks(); err != nil {
		return err
	}
	if err := o.completeDNS(); err != nil {
		return err
	}
	hosts, err := o.hosts()
	if err == nil {
		err = o.Upstreams.check(hosts)
	}
	if err != nil {
		return err
	}
	o.PrivateListeners = slices.Clone(o.PrivateListeners)
	for i, l := range o.PrivateListeners {
		switch {
		case l.Address == "" || l.Registry == "":
			return option("privateListeners", "entry %d: address and registry are needed", i+1)
		case l.TLS && l.TLSTerminated:
			return option("privateListeners", "entry %d: tlsTerminated is for a listener with tls: false", i+1)
		case !l.TLS && !l.TLSTerminated && !loopback(l.Address):
			return option("privateListeners", "entry %d: %s would serve plain HTTP beyond loopback: set tls: true, or tlsTerminated: true if a TLS terminator stands before it", i+1, l.Address)
		}
		o.PrivateListeners[i].Registry = strings.ToLower(l.Registry)
	}
	return nil
}

// fill gives what was left out its default.
func (o *Options) fill() {
	if o.Database == "" {
		o.Database = "sqlite:" + filepath.Join(o.Data, "embargo.db")
	}
	if o.InstallationKey == "" {
		o.InstallationKey = filepath.Join(o.Data, "installation.key")
	}
	if o.PolicyEpochs == "" {
		o.PolicyEpochs = filepath.Join(o.Data, "policy-epochs.json")
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 30 * time.Second
	}
	if o.MaxRequests <= 0 {
		o.MaxRequests = 4096
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = time.Minute
	}
	if o.GCInterval <= 0 {
		o.GCInterval = time.Hour
	}
	if o.GCGrace <= 0 {
		o.GCGrace = 24 * time.Hour
	}
	if o.MinFreeDisk <= 0 {
		o.MinFreeDisk = 256 << 20
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func off(address string) bool { return address == "" || address == "off" }

// loopback says whether an address to listen on is reachable from this machine alone. The empty host is every address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

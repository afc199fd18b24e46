// SPDX-License-Identifier: Apache-2.0

// Package dial is the only maker of outbound connections.
//
// It hides resolution and sockets. It promises that a connection goes to a destination that was declared for its purpose,
// judged twice: by the name that was asked for, and by the address that the name resolved to at the moment of connecting,
// so that a name whose address changes gains nothing. It refuses everything else: purposes without a rule, destinations
// not listed, addresses inside (private, loopback, link-local and the like) unless the rule says so, and always the
// installation's own listeners. It reads no proxy from the environment.
package dial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Purpose is what a connection is for. Each has its own rule; a new use of the network is a new purpose.
type Purpose string

// The purposes there are.
const (
	// PostgreSQL is the database server that the operator configured.
	PostgreSQL Purpose = "postgresql"
	// ACME is the server that certificates are got from, if one is configured.
	ACME Purpose = "acme"
	// ResourceManager is the installation that the user of a client command named.
	ResourceManager Purpose = "resource-manager"
	// AdminSocket is the socket by which the commands of the same machine reach a running server.
	AdminSocket Purpose = "admin-socket"
	// Webhook is a destination on the public Internet that a webhook of a registry names.
	Webhook Purpose = "webhook"
	// DeclaredWebhook is a webhook's destination that the operator has listed besides.
	DeclaredWebhook Purpose = "declared-webhook"
	// Upstream is a registry on the public Internet that the operator has listed for cache rules, with the hosts that belong to it.
	Upstream Purpose = "upstream"
	// InsideUpstream is one that the operator has listed as lying inside.
	InsideUpstream Purpose = "inside-upstream"
	// Storage is the object storage that the operator configured for content.
	Storage Purpose = "storage"
)

// Rule is where connections of one purpose may go.
type Rule struct {
	// To lists the destinations: "host:port", "host" for any port, or the absolute path of a Unix socket. None: nowhere.
	To []string
	// Anywhere permits every host and port besides those listed; the address that a name resolves to is judged all the same.
	Anywhere bool
	// Inside permits addresses that are not of the public Internet: private, loopback, link-local and the like.
	Inside bool
}

// Options of New.
type Options struct {
	// Rules by purpose. A purpose without a rule may go nowhere.
	Rules map[Purpose]Rule
	// Own gives the addresses of this process's listeners, asked anew for each connection. Nil: it has none.
	Own func() []netip.AddrPort
	// Timeout bounds the making of a connection (default 10 s).
	Timeout time.Duration
	// Log gets each refusal. Nil discards it.
	Log *slog.Logger
}

// ErrRefused is matched by the errors of connections that the rules forbid.
var ErrRefused = errors.New("outbound connection refused by rule")

// Dialer makes connections by the rules it was made with. Safe for concurrent use.
type Dialer struct{ o Options }

// New checks the rules.
func New(o Options) (*Dialer, error) {
	for purpose, rule := range o.Rules {
		for _, to := range rule.To {
			if !strings.HasPrefix(to, "/") && hostOf(to) == "" {
				return nil, fmt.Errorf("purpose %s: %q is not a destination (host, host:port or a path)", purpose, to)
			}
		}
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Dialer{o}, nil
}

// Func is a dial function for the purpose, in the shape of net.Dialer.DialContext. Networks are "tcp", "tcp4", "tcp6" and
// "unix". A forbidden destination is an error that matches ErrRefused.
func (d *Dialer) Func(p Purpose) func(ctx context.Context, network, address string) (net.Conn, error) {
	rule := d.o.Rules[p]
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := rule.named(network, address); err != nil {
			return nil, d.refused(p, address, err)
		}
		nd := net.Dialer{Timeout: d.o.Timeout}
		nd.ControlContext = func(_ context.Context, network, resolved string, _ syscall.RawConn) error {
			if network == "unix" {
				return nil
			}
			if err := d.placed(rule, resolved); err != nil {
				return d.refused(p, address, err)
			}
			return nil
		}
		return nd.DialContext(ctx, network, address)
	}
}

// Vet judges a destination ("host:port") as far as that can be done without connecting: by its name, and by its address when it is named by one.
// An error matches ErrRefused.
func (d *Dialer) Vet(p Purpose, address string) error {
	rule := d.o.Rules[p]
	err := rule.named("tcp", address)
	if _, literal := netip.ParseAddrPort(address); err == nil && literal == nil {
		err = d.placed(rule, address)
	}
	if err != nil {
		return fmt.Errorf("%w: purpose %s may not reach %s: %w", ErrRefused, p, address, err)
	}
	return nil
}

// ClientOptions are what an HTTP client needs beyond its purpose.
type ClientOptions struct {
	// Roots are the authorities to trust; nil: the system's.
	Roots *x509.CertPool
	// Timeout bounds a whole exchange; 0: none, the caller's context does.
	Timeout time.Duration
	// ServerNames sends every connection for a host named here to the destination given instead ("host:port"); names and
	// certificates are still those of the host. It stands in for name resolution where there is none.
	ServerNames map[string]string
	// Socket sends every connection to this Unix socket instead.
	Socket string
	// MaxHeader bounds an answer's headers, in bytes; 0 is net/http's own limit.
	MaxHeader int64
	// Idle is how many unused connections to a host are kept; 0: 8.
	Idle int
	// HeaderTimeout bounds the wait for an answer's headers once the request is sent; 0: none, the caller's context does.
	HeaderTimeout time.Duration
}

// Client is an HTTP client for the purpose. It follows at most five redirects, and only to destinations of the same rule.
func (d *Dialer) Client(p Purpose, o ClientOptions) *http.Client {
	connect := d.Func(p)
	if o.Idle == 0 {
		o.Idle = 8
	}
	return &http.Client{
		Timeout: o.Timeout,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) >= 5 {
				return errors.New("stopped after 5 redirects")
			}
			return nil
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if host, _, err := net.SplitHostPort(address); err == nil && o.ServerNames[host] != "" {
					address = o.ServerNames[host]
				}
				if o.Socket != "" {
					network, address = "unix", o.Socket
				}
				return connect(ctx, network, address)
			},
			TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: o.MaxHeader,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    o.Idle,
			ResponseHeaderTimeout:  o.HeaderTimeout,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    10 * time.Second,
			ExpectContinueTimeout:  time.Second,
		},
	}
}

// Unresolved is a lookup function that looks nothing up. A database driver that resolves names before it dials is given
// this one, so that the rules see the name and the resolution happens here.
func Unresolved(_ context.Context, host string) ([]string, error) { return []string{host}, nil }

// RefuseDefaults replaces http.DefaultTransport and http.DefaultClient by ones that refuse every request, so that a
// library that was given no client reaches nothing. main calls it first.
func RefuseDefaults() {
	http.DefaultTransport = refusing{}
	http.DefaultClient = &http.Client{Transport: refusing{}}
}

type refusing struct{}

func (refusing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return nil, fmt.Errorf("%w: the default HTTP client is not to be used (%s)", ErrRefused, r.URL.Host)
}

func (d *Dialer) refused(p Purpose, address string, why error) error {
	d.o.Log.Warn("outbound connection refused", "purpose", string(p), "destination", address, "reason", why)
	return fmt.Errorf("%w: purpose %s may not reach %s: %w", ErrRefused, p, address, why)
}

// named judges the destination by what was asked for.
func (r Rule) named(network, address string) error {
	switch network {
	case "unix":
		for _, to := range r.To {
			if to == address {
				return nil
			}
		}
		return errors.New("it is not a declared destination")
	case "tcp", "tcp4", "tcp6":
	default:
		return fmt.Errorf("the network %q is not offered", network)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if r.Anywhere {
		return nil
	}
	for _, to := range r.To {
		if h, p, err := net.SplitHostPort(to); err == nil {
			if p == port && normal(h) == normal(host) {
				return nil
			}
		} else if normal(to) == normal(host) {
			return nil
		}
	}
	return errors.New("it is not a declared destination")
}

// placed judges the destination by the address that it resolved to.
func (d *Dialer) placed(r Rule, resolved string) error {
	ap, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return fmt.Errorf("address %q: %w", resolved, err)
	}
	addr := ap.Addr().Unmap().WithZone("")
	if d.o.Own != nil {
		for _, own := range d.o.Own() {
			if own.Port() == ap.Port() && own.Addr().IsValid() && reaches(own.Addr().Unmap().WithZone(""), addr) {
				return fmt.Errorf("%s is a listener of this process", ap)
			}
		}
	}
	if !r.Inside && inside(addr) {
		return fmt.Errorf("%s is not an address of the public Internet", addr)
	}
	return nil
}

// reaches says whether a connection to addr arrives at a listener bound to own, on the same port.
func reaches(own, addr netip.Addr) bool {
	if own == addr {
		return true
	}
	if !own.IsUnspecified() {
		// A connection to 0.0.0.0 or :: goes to the loopback interface.
		return addr.IsUnspecified() && own.IsLoopback()
	}
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	local, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, l := range local {
		if n, ok := l.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == addr {
				return true
			}
		}
	}
	return false
}

// notPublic are the ranges that netip has no word for (RFC 6890 and its successors, and the platform address that clouds
// answer on from within a virtual machine).
func notPublic() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("168.63.129.16/32"),
		netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("fec0::/10"),
	}
}

func inside(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range notPublic() {
		if p.Contains(a) {
			return true
		}
	}
	// IPv6 addresses that carry an IPv4 one: NAT64 in the last four bytes, 6to4 after the first two.
	b := a.As16()
	if netip.MustParsePrefix("64:ff9b::/96").Contains(a) {
		return inside(netip.AddrFrom4([4]byte(b[12:16])))
	}
	if netip.MustParsePrefix("2002::/16").Contains(a) {
		return inside(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return false
}

func hostOf(to string) string {
	if h, _, err := net.SplitHostPort(to); err == nil {
		return h
	}
	return to
}

func normal(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

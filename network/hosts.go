// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Role says what answers under a host name.
type Role int

// The roles. The zero value is a name that is none of ours.
const (
	Foreign Role = iota
	Management
	RegistryHost
	DataHost
)

// privateLink is the label of the names of private link, below the suffix.
const privateLink = "privatelink"

// Target is what a host name of ours stands for. Registry and Region are lower-case and "" where they do not apply. Private says that it is a name of
// private link (name.privatelink.SUFFIX), which is for private doors: on a public one nothing is served under it.
type Target struct {
	Role     Role
	Registry string
	Region   string
	Private  bool
}

// Hosts are the names of one installation: the management hosts (resource manager, authority, metadata) and the suffix
// below which registries live. Build it with NewHosts; it is read-only afterwards.
type Hosts struct {
	management []string
	suffix     string
}

// NewHosts takes the management hosts (names or IP addresses, without port) and the registries' suffix ("azurecr.localhost",
// a leading dot is tolerated).
func NewHosts(management []string, suffix string) (Hosts, error) {
	h := Hosts{suffix: strings.Trim(strings.ToLower(suffix), ".")}
	if !dnsName(h.suffix) || !strings.Contains(h.suffix, ".") {
		return Hosts{}, fmt.Errorf("%q is not a suffix for registry names: it must be a DNS name of two labels or more", suffix)
	}
	for _, m := range management {
		n := Normal(m)
		if _, err := netip.ParseAddr(n); err != nil && !dnsName(n) || strings.ContainsAny(m, "/ @") {
			return Hosts{}, fmt.Errorf("%q is neither a host name nor an IP address", m)
		}
		if t := h.Lookup(n); t.Role == RegistryHost || t.Role == DataHost {
			return Hosts{}, fmt.Errorf("the host %q lies below the registries' suffix %s", m, h.suffix)
		}
		if !slices.Contains(h.management, n) {
			h.management = append(h.management, n)
		}
	}
	if len(h.management) == 0 {
		return Hosts{}, fmt.Errorf("no management host is configured")
	}
	return h, nil
}

// Management are the management hosts, in the order given.
func (h Hosts) Management() []string { return slices.Clone(h.management) }

// Suffix is the registries' suffix without a leading dot.
func (h Hosts) Suffix() string { return h.suffix }

// LoginServer is the host name of the registry of that name.
func (h Hosts) LoginServer(registry string) string { return strings.ToLower(registry) + "." + h.suffix }

// Lookup says what host stands for. Case, a port and one trailing dot do not matter.
func (h Hosts) Lookup(host string) Target {
	host = Normal(host)
	if slices.Contains(h.management, host) {
		return Target{Role: Management}
	}
	below, ok := strings.CutSuffix(host, "."+h.suffix)
	if !ok || !dnsName(below) {
		return Target{}
	}
	labels := strings.Split(below, ".")
	private := len(labels) > 1 && labels[len(labels)-1] == privateLink
	if private {
		labels = labels[:len(labels)-1]
	}
	switch {
	case len(labels) == 1:
		return Target{Role: RegistryHost, Registry: labels[0], Private: private}
	case len(labels) == 3 && labels[2] == "data":
		return Target{Role: DataHost, Registry: labels[0], Region: labels[1], Private: private}
	}
	return Target{}
}

// Route is the target of a request by its Host and by the server name of its TLS handshake ("" without one). Both must
// stand for the same thing; agree is false when they do not. A client that dials an address sends no server name: that
// agrees with management hosts alone.
func (h Hosts) Route(host, serverName string) (t Target, agree bool) {
	t = h.Lookup(host)
	if serverName == "" {
		return t, t.Role == Management || t.Role == Foreign
	}
	return t, h.Lookup(serverName) == t
}

// Normal is a host as it is compared: without port, brackets and one trailing dot, lower-case; an IPv4-mapped address
// is its IPv4 address.
func Normal(host string) string {
	if h, port, err := net.SplitHostPort(host); err == nil && strings.Trim(port, "0123456789") == "" {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func dnsName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

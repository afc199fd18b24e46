// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/embargo-registry/embargo/network"
)

// The ways in which the private endpoints of a virtual network are doors of this server.
const (
	// DoorNone: they exist as resources and have no door here.
	DoorNone = "none"
	// DoorAddress: the server listens on the endpoints' own addresses.
	DoorAddress = "address"
	// DoorProxy: load balancers connect, and say by the PROXY protocol by which private link their client came.
	DoorProxy = "proxy"
)

// VirtualNetwork says how the private endpoints of one virtual network are reached.
type VirtualNetwork struct {
	// ID is the ARM id of the Microsoft.Network/virtualNetworks.
	ID string
	// Door is one of the above; "": DoorNone.
	Door string
	// Port that the endpoints' addresses are listened on; 0: 443.
	Port int
	// TLS and TLSTerminated are as those of a PrivateListener.
	TLS, TLSTerminated bool
	// Interfaces are the network interfaces that the clients of the network come in by; none: any. Clients are their addresses; none: all.
	Interfaces []string
	Clients    []netip.Prefix
	// Listen is where load balancers connect (DoorProxy), From their addresses, Links which private link (AWS vpce-…, Azure link id, GCP connection id) leads to which
	// private endpoint (its ARM id).
	Listen string
	From   []netip.Prefix
	Links  map[string]string
	// ProxyListen is a CONNECT proxy for clients inside the network; "" or "off": none.
	ProxyListen string
}

var (
	networkID   = regexp.MustCompile(`(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Network/virtualNetworks/[^/]+$`)
	endpointID  = regexp.MustCompile(`(?i)^/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Network/privateEndpoints/[^/]+$`)
	deviceName  = regexp.MustCompile(`^[^\s/:]{1,15}$`)
	linkText    = regexp.MustCompile(`^(vpce-[0-9a-z]+|[0-9]{1,20})$`)
	networksKey = "virtualNetworks"
)

// name is the last segment of the network's ARM id.
func (v VirtualNetwork) name() string { return lastSegment(v.ID) }

// devices are the network interfaces that the network names, each by one name, and what they are: one may have several names. One that is not there is as it is called.
func (v VirtualNetwork) devices() (names, are []string) {
	for _, n := range v.Interfaces {
		is := n
		if index, err := network.InterfaceIndex(n); err == nil {
			is = ":" + strconv.FormatUint(uint64(index), 10) // which is no name
		}
		if !slices.Contains(are, is) {
			names, are = append(names, n), append(are, is)
		}
	}
	return names, are
}

func lastSegment(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// virtualNetwork is the network of that ARM id, in lower case; nil when it is not listed.
func (o *Options) virtualNetwork(id string) *VirtualNetwork {
	if at := slices.IndexFunc(o.VirtualNetworks, func(v VirtualNetwork) bool { return v.ID == id }); at >= 0 {
		return &o.VirtualNetworks[at]
	}
	return nil
}

// completeNetworks checks the virtual networks and fills in what is left out. The options keep none of the caller's slices.
func (o *Options) completeNetworks() error {
	o.VirtualNetworks = slices.Clone(o.VirtualNetworks)
	seen := map[string]bool{}
	for i := range o.VirtualNetworks {
		v := &o.VirtualNetworks[i]
		if err := v.complete(); err != nil {
			return option(networksKey, "entry %d: %w", i+1, err)
		}
		if seen[v.ID] {
			return option(networksKey, "entry %d: the network %s is there twice", i+1, v.ID)
		}
		seen[v.ID] = true
	}
	for _, p := range o.TrustedProxies {
		if everyone(p) {
			return option("trustedProxies", "%s is every address: a proxy that everyone may be is none", p)
		}
	}
	return o.addressable()
}

// everyone reports whether a range is every address of IPv4 or of IPv6.
func everyone(p netip.Prefix) bool {
	return p.Bits() == 0 || p.Addr().Is4In6() && p.Bits() <= 96
}

// limited reports whether clients are named: every address names nobody.
func limited(clients []netip.Prefix) bool {
	return len(clients) > 0 && !slices.ContainsFunc(clients, everyone)
}

// addressable refuses a listener that takes every address at the port of a network with address doors: none of them could be opened.
func (o *Options) addressable() error {
	all, _ := o.wanted()
	for _, w := range all {
		host, port, err := net.SplitHostPort(w.address)
		if a, bad := netip.ParseAddr(host); err != nil || host != "" && (bad != nil || !a.Unmap().IsUnspecified()) {
			continue
		}
		for i, v := range o.VirtualNetworks {
			if v.Door == DoorAddress && port == strconv.Itoa(v.Port) {
				return option(networksKey, "entry %d: port: %d is taken at every address by the listener %s (%s), so no endpoint of the network could have a door: give the listener an address of its own, or the network another port",
					i+1, v.Port, w.address, key(w))
			}
		}
	}
	return nil
}

func (v *VirtualNetwork) complete() error {
	if !networkID.MatchString(v.ID) {
		return option("id", "%q is no ARM id of a Microsoft.Network/virtualNetworks", v.ID)
	}
	v.ID = strings.ToLower(v.ID)
	if v.Door == "" {
		v.Door = DoorNone
	}
	if v.Port == 0 {
		v.Port = 443
	}
	switch {
	case v.Door != DoorNone && v.Door != DoorAddress && v.Door != DoorProxy:
		return option("door", "%q is none of address, proxy and none", v.Door)
	case v.Port < 0 || v.Port > 65535:
		return option("port", "%d is no port", v.Port)
	case v.TLS && v.TLSTerminated:
		return option("tlsTerminated", "it is for a network with tls: false")
	case v.Door != DoorProxy && (v.Listen != "" || len(v.From)+len(v.Links) > 0):
		return option("listen", "listen, from and links are for door: proxy")
	}
	for _, n := range v.Interfaces {
		if !deviceName.MatchString(n) {
			return option("interfaces", "%q is no name of a network interface", n)
		}
	}
	if !off(v.ProxyListen) {
		if err := bindable(v.ProxyListen); err != nil {
			return &OptionError{"proxyListen", err}
		}
	}
	if v.Door == DoorProxy {
		return v.completeProxy()
	}
	return nil
}

func (v *VirtualNetwork) completeProxy() error {
	if err := bindable(v.Listen); err != nil {
		return &OptionError{"listen", err}
	}
	if len(v.From) == 0 {
		return option("from", "the addresses of the load balancers are needed")
	}
	for _, p := range v.From {
		if everyone(p) {
			return option("from", "%s is every address: a load balancer that everyone may be is none", p)
		}
	}
	if !v.TLS && !v.TLSTerminated && !loopback(v.Listen) {
		return option("listen", "%s would serve plain HTTP beyond loopback: set tls: true, or tlsTerminated: true if the load balancer terminates TLS", v.Listen)
	}
	if len(v.Interfaces) > 0 {
		return option("interfaces", "they are for door: address")
	}
	links := map[string]string{}
	for link, endpoint := range v.Links {
		if !linkText.MatchString(link) {
			return option("links", "%q is no id of a private link: it is an AWS VPC endpoint (vpce-…), an Azure link id or a GCP connection id", link)
		}
		if number, err := strconv.ParseUint(link, 10, 64); link[0] != 'v' && (err != nil || strconv.FormatUint(number, 10) != link) {
			return option("links", "%q can't be the id of a private link: a number is of 64 bits, and without zeroes before it", link)
		}
		if !endpointID.MatchString(endpoint) {
			return option("links", "%q is no ARM id of a Microsoft.Network/privateEndpoints", endpoint)
		}
		links[link] = strings.ToLower(endpoint)
	}
	v.Links = links
	return nil
}

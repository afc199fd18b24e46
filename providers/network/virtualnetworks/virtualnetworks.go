// SPDX-License-Identifier: Apache-2.0

// Package virtualnetworks declares Microsoft.Network/virtualNetworks and their subnets. A subnet is an element of its network's document, and the
// child resource is a way to write that element: there is one truth.
package virtualnetworks

import (
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.Network/virtualNetworks"

type document struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Type       string            `json:"type"`
	Location   string            `json:"location" arm:"required" stance:"acts" doc:"Private endpoints in the network are in this location too."`
	Tags       map[string]string `json:"tags"`
	Properties properties        `json:"properties"`
}

type properties struct {
	State    string       `json:"provisioningState" arm:"readonly"`
	GUID     string       `json:"resourceGuid" arm:"readonly"`
	Space    addressSpace `json:"addressSpace" arm:"required"`
	DHCP     *dhcpOptions `json:"dhcpOptions" stance:"echo" doc:"Clients are configured by their own network."`
	Subnets  []subnet     `json:"subnets" arm:"keep" stance:"acts" doc:"A PUT that omits them keeps them; one that gives them gives them all, and drops none that is in use."`
	Peerings []any        `json:"virtualNetworkPeerings" stance:"refused" doc:"Whether networks reach each other is for the routers between them."`
	DDoS     bool         `json:"enableDdosProtection" stance:"echo" doc:"Nothing comes of it."`
	Policies string       `json:"privateEndpointVNetPolicies" enum:"Disabled|Basic" default:"Disabled" stance:"echo" doc:"Nothing comes of it."`
}

type addressSpace struct {
	Prefixes []string `json:"addressPrefixes" arm:"required" stance:"acts" doc:"IPv4 prefixes that the subnets lie in; not of 0.0.0.0/8, 169.254.0.0/16, 168.63.129.16, 224.0.0.0/4 and 240.0.0.0/4."`
}

type dhcpOptions struct {
	Servers []string `json:"dnsServers"`
}

// subnet is an element of a network, and but for its parent the child resource.
type subnet struct {
	Name       string           `json:"name" arm:"required,key" stance:"acts"`
	ID         string           `json:"id" arm:"readonly"`
	Properties subnetProperties `json:"properties"`
	Type       string           `json:"type" arm:"readonly"`
}

type subnetProperties struct {
	State       string   `json:"provisioningState" arm:"readonly"`
	Prefix      string   `json:"addressPrefix" arm:"omitempty" stance:"acts" doc:"IPv4 prefix of 2 to 29 bits inside the network's; the first four addresses and the last are reserved."`
	Prefixes    []string `json:"addressPrefixes" arm:"omitempty" max:"1" stance:"acts" doc:"The same in a list of one."`
	Group       *ref     `json:"networkSecurityGroup" stance:"echo" doc:"A group that exists. Its rules are not enforced: use the host's firewall."`
	RouteTable  *ref     `json:"routeTable" stance:"refused" doc:"Routing is for the routers of the network."`
	NATGateway  *ref     `json:"natGateway" stance:"refused" doc:"Routing is for the routers of the network."`
	Services    []any    `json:"serviceEndpoints" stance:"echo" doc:"Nothing comes of them."`
	Delegations []any    `json:"delegations" stance:"echo" doc:"Nothing comes of them."`
	EndpointNSG string   `json:"privateEndpointNetworkPolicies" enum:"Enabled|Disabled|NetworkSecurityGroupEnabled|RouteTableEnabled" default:"Disabled" stance:"echo" doc:"Rules of security groups are not enforced either way."`
	LinkService string   `json:"privateLinkServiceNetworkPolicies" enum:"Enabled|Disabled" default:"Enabled" stance:"echo" doc:"There are no private link services."`
	Outbound    *bool    `json:"defaultOutboundAccess" stance:"echo" doc:"Routing is for the routers of the network."`
	Endpoints   []ref    `json:"privateEndpoints" arm:"readonly,omitempty"`
	Interfaces  []ref    `json:"ipConfigurations" arm:"readonly,omitempty"`
}

type ref struct {
	ID string `json:"id" arm:"required"`
}

// Type declares the type.
func Type() arm.Resource {
	return &arm.Type[document]{
		Name: TypeName, Display: "Virtual network", Scope: arm.InGroup, Verbs: arm.AllVerbs,
		Names: arm.Names{Min: 2, Max: 64, Pattern: `[a-zA-Z0-9][a-zA-Z0-9_.\-]*[a-zA-Z0-9_]`, Text: "It has 2 to 64 letters, digits, '_', '.' and '-', begins with a letter or digit and does not end with '.' or '-'."},
		Admit: admit, Apply: apply, View: view,
	}
}

// apply fills what the server sets, and keeps prefixes from being taken away under a private endpoint. Creating one locks the network's row.
func apply(tx *arm.Tx, c arm.Change[document]) error {
	if c.Was != nil {
		if err := free(tx, c); err != nil {
			return err
		}
	}
	if c.Want == nil {
		return nil
	}
	p := &c.Want.Properties
	p.State = "Succeeded"
	if c.Was == nil {
		p.GUID = tx.NewID()
	}
	for i := range p.Subnets {
		s := &p.Subnets[i]
		s.ID, s.Type, s.Properties.State = c.ID.Child("subnets", s.Name).String(), SubnetType, "Succeeded"
		if err := keepGroup(tx, c, s); err != nil {
			return err
		}
	}
	return nil
}

// newGroup is the security group that a subnet names newly; nil: none.
func newGroup(was *document, network name.ResourceID, s *subnet) *ref {
	g := s.Properties.Group
	if before := find(was, network, network.Child("subnets", s.Name).Key()); g == nil || before != nil && before.Properties.Group != nil && strings.EqualFold(before.Properties.Group.ID, g.ID) {
		return nil
	}
	return g
}

// keepGroup holds the row of a security group that a subnet names newly, so that it is deleted before, or not while the subnet names it.
func keepGroup(tx *arm.Tx, c arm.Change[document], s *subnet) error {
	g := newGroup(c.Was, c.ID, s)
	if g == nil {
		return nil
	}
	id, err := name.ParseResourceID(g.ID)
	if err == nil {
		err = tx.Lock(id)
	}
	if err != nil {
		return err
	}
	if !tx.World().Get(id, nil) {
		return noGroup(g.ID, s.ID)
	}
	return nil
}

func noGroup(group, subnet string) *fault.Fault {
	return fault.New(fault.InvalidReference, "Resource %.300s referenced by resource %s was not found. Please make sure that the referenced resource exists.", group, subnet)
}

// free refuses when a subnet that is used would be gone, or have other addresses.
func free(tx *arm.Tx, c arm.Change[document]) error {
	used, err := tx.Meta().EndpointsIn(c.ID.Key())
	if err != nil {
		return err
	}
	for _, e := range used {
		was, want := find(c.Was, c.ID, e.Subnet), find(c.Want, c.ID, e.Subnet)
		switch {
		case was == nil: // it has been so before; it stays so
		case want == nil:
			return fault.New(fault.SubnetInUse, "Subnet %s is in use by %s and cannot be deleted. In order to delete the subnet, delete all the resources within the subnet. See aka.ms/deletesubnet.",
				was.Name, e.ResourceID).At(c.ID.Child("subnets", was.Name).String())
		case was.prefix() != want.prefix():
			return fault.New(fault.PrefixInUse, "IpPrefix %s on Subnet %s has active allocations and cannot be deleted: %s has addresses of it.", was.prefix(), was.Name, e.ResourceID).
				At(c.ID.Child("subnets", was.Name).String())
		}
	}
	return nil
}

// find is the subnet of a network's document by its id in lower case, nil where there is none.
func find(d *document, network name.ResourceID, key string) *subnet {
	if d == nil {
		return nil
	}
	for i := range d.Properties.Subnets {
		if s := &d.Properties.Subnets[i]; network.Child("subnets", s.Name).Key() == key {
			return s
		}
	}
	return nil
}

// prefix is the subnet's one prefix, "" where none is given.
func (s *subnet) prefix() string {
	if s.Properties.Prefix == "" && len(s.Properties.Prefixes) > 0 {
		return s.Properties.Prefixes[0]
	}
	return s.Properties.Prefix
}

// view shows which private endpoints are in the subnets.
func view(v arm.View, d *document) {
	occupants(v, v.ID, func(key string) *subnet { return find(d, v.ID, key) })
}

// occupants adds the private endpoints of a network to the subnets that they are in.
func occupants(v arm.View, network name.ResourceID, in func(key string) *subnet) {
	var all []meta.Endpoint
	v.Look(func(tx *meta.Tx) (err error) {
		all, err = tx.EndpointsIn(network.Key())
		return err
	})
	for _, e := range all {
		s := in(e.Subnet)
		id, err := name.ParseResourceID(e.ResourceID)
		if s == nil || err != nil {
			continue
		}
		s.Properties.Endpoints = append(s.Properties.Endpoints, ref{e.ResourceID})
		var doc struct {
			Properties struct {
				Interfaces []ref `json:"networkInterfaces"`
				IPs        []struct {
					Name       string
					Properties struct{ MemberName string }
				} `json:"ipConfigurations"`
			} `json:"properties"`
		}
		if v.Get(id, &doc) && len(doc.Properties.Interfaces) > 0 {
			for _, a := range e.Addresses {
				config := "privateEndpointIpConfig." + a.Member
				for _, ip := range doc.Properties.IPs {
					if strings.EqualFold(ip.Properties.MemberName, a.Member) {
						config = ip.Name
					}
				}
				s.Properties.Interfaces = append(s.Properties.Interfaces, ref{doc.Properties.Interfaces[0].ID + "/ipConfigurations/" + config})
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package networkinterfaces declares Microsoft.Network/networkInterfaces, to read: each private endpoint has one, which is read out of the endpoint's
// document and the row of its addresses, so that it comes and goes with them.
package networkinterfaces

import (
	"errors"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.Network/networkInterfaces"

const endpointType = "Microsoft.Network/privateEndpoints"

type document struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Type       string            `json:"type"`
	Location   string            `json:"location" arm:"readonly"`
	Tags       map[string]string `json:"tags" arm:"readonly"`
	Kind       string            `json:"kind" arm:"readonly"`
	Properties properties        `json:"properties" arm:"readonly"`
}

type properties struct {
	State      string            `json:"provisioningState"`
	GUID       string            `json:"resourceGuid"`
	IPs        []ipConfiguration `json:"ipConfigurations"`
	DNS        dnsSettings       `json:"dnsSettings"`
	Forwarding bool              `json:"enableIPForwarding"`
	Fast       bool              `json:"enableAcceleratedNetworking"`
	Endpoint   ref               `json:"privateEndpoint"`
	NICType    string            `json:"nicType"`
}

type dnsSettings struct {
	Servers []string `json:"dnsServers"`
	Applied []string `json:"appliedDnsServers"`
}

type ref struct {
	ID string `json:"id"`
}

type ipConfiguration struct {
	Name       string       `json:"name"`
	ID         string       `json:"id"`
	Type       string       `json:"type"`
	Properties ipProperties `json:"properties"`
}

type ipProperties struct {
	State   string         `json:"provisioningState"`
	Address string         `json:"privateIPAddress"`
	Method  string         `json:"privateIPAllocationMethod"`
	Subnet  ref            `json:"subnet"`
	Primary bool           `json:"primary"`
	Version string         `json:"privateIPAddressVersion"`
	Link    linkProperties `json:"privateLinkConnectionProperties"`
}

type linkProperties struct {
	Group  string   `json:"groupId"`
	Member string   `json:"requiredMemberName"`
	FQDNs  []string `json:"fqdns"`
}

// Type declares the type.
func Type() arm.Resource {
	return &arm.Type[document]{
		Name: TypeName, Display: "Network interface", Scope: arm.InGroup, Verbs: arm.List | arm.ListBelow,
		Rows: &arm.Rows[document]{Get: get, List: list},
	}
}

// endpoint is what an interface is read out of.
type endpoint struct {
	ID         string
	Location   string
	Properties struct {
		GUID       string `json:"resourceGuid"`
		Subnet     ref    `json:"subnet"`
		Interfaces []ref  `json:"networkInterfaces"`
		DNS        []struct {
			FQDN        string
			IPAddresses []string
		} `json:"customDnsConfigs"`
		IPs []struct {
			Name       string
			Properties struct{ MemberName string }
		} `json:"ipConfigurations"`
	} `json:"properties"`
}

func get(tx *arm.Tx, id name.ResourceID) (*document, error) {
	all, err := list(tx, id.Parent(), "")
	for _, r := range all {
		if r.ID.Equal(id) {
			return &r.Doc, err
		}
	}
	return nil, err
}

func list(tx *arm.Tx, scope name.ResourceID, _ string) ([]arm.Row[document], error) {
	var out []arm.Row[document]
	for _, it := range tx.World().Below(scope, endpointType) {
		var e endpoint
		if err := it.Decode(&e); err != nil {
			return nil, err
		}
		row, err := tx.Meta().EndpointByResource(it.ID.String())
		if errors.Is(err, meta.ErrNotFound) || len(e.Properties.Interfaces) == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		id, err := name.ParseResourceID(e.Properties.Interfaces[0].ID)
		if err != nil {
			return nil, err
		}
		out = append(out, arm.Row[document]{ID: id, Doc: of(id, e, row)})
	}
	return out, nil
}

// of makes the interface of an endpoint.
func of(id name.ResourceID, e endpoint, row meta.Endpoint) document {
	d := document{Name: id.Name(), ID: id.String(), Type: TypeName, Location: e.Location, Tags: map[string]string{}, Kind: "Regular"}
	d.Properties = properties{State: "Succeeded", GUID: e.Properties.GUID, Endpoint: ref{e.ID}, NICType: "Standard"}
	for i, a := range row.Addresses {
		c := ipConfiguration{Name: "privateEndpointIpConfig." + a.Member, Type: TypeName + "/ipConfigurations"}
		c.Properties = ipProperties{State: "Succeeded", Address: a.Address.String(), Method: "Dynamic", Subnet: e.Properties.Subnet, Primary: i == 0, Version: "IPv4",
			Link: linkProperties{Group: "registry", Member: a.Member}}
		for _, static := range e.Properties.IPs {
			if strings.EqualFold(static.Properties.MemberName, a.Member) {
				c.Name, c.Properties.Method = static.Name, "Static"
			}
		}
		for _, dns := range e.Properties.DNS {
			if slices.Contains(dns.IPAddresses, a.Address.String()) {
				c.Properties.Link.FQDNs = append(c.Properties.Link.FQDNs, dns.FQDN)
			}
		}
		c.ID = id.Child("ipConfigurations", c.Name).String()
		d.Properties.IPs = append(d.Properties.IPs, c)
	}
	return d
}

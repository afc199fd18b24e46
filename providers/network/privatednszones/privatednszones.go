// SPDX-License-Identifier: Apache-2.0

// Package privatednszones declares Microsoft.Network/privateDnsZones, their A records and their links to virtual networks. They are kept and shown, so
// that clients and templates find what they expect; what the DNS server answers is made of the private endpoints themselves.
package privatednszones

import (
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the zones' type.
const TypeName = "Microsoft.Network/privateDnsZones"

const virtualNetworks = "Microsoft.Network/virtualNetworks"

type zone struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location" stance:"echo" doc:"global"`
	Tags       map[string]string `json:"tags"`
	Properties zoneProperties    `json:"properties"`
}

type zoneProperties struct {
	MaxRecords  int    `json:"maxNumberOfRecordSets" arm:"readonly"`
	MaxLinks    int    `json:"maxNumberOfVirtualNetworkLinks" arm:"readonly"`
	MaxRegister int    `json:"maxNumberOfVirtualNetworkLinksWithRegistration" arm:"readonly"`
	Records     int    `json:"numberOfRecordSets" arm:"readonly"`
	Links       int    `json:"numberOfVirtualNetworkLinks" arm:"readonly"`
	Register    int    `json:"numberOfVirtualNetworkLinksWithRegistration" arm:"readonly"`
	State       string `json:"provisioningState" arm:"readonly"`
}

const label = `[a-zA-Z0-9_]([a-zA-Z0-9_\-]{0,61}[a-zA-Z0-9_])?`

// Types declare the zones and what is in them.
func Types() []arm.Resource {
	return []arm.Resource{
		&arm.Type[zone]{
			Name: TypeName, Display: "Private DNS zone", Scope: arm.InGroup, Verbs: arm.AllVerbs,
			Names: arm.Names{Min: 3, Max: 253, Pattern: label + `(\.` + label + `)+`, Text: "It is a DNS name of two labels or more."},
			Admit: func(w arm.World, c arm.Change[zone]) []*fault.Fault {
				if c.Want == nil {
					return linked(w, c)
				}
				if c.Want.Location == "" || c.Want.Location == "global" {
					return nil
				}
				return []*fault.Fault{fault.New(fault.InvalidParameter, "The location of the private DNS zone '%s' is '%s': zones are in 'global'.", c.ID.Name(), c.Want.Location).At("location")}
			},
			Apply: func(_ *arm.Tx, c arm.Change[zone]) error {
				if c.Want != nil {
					c.Want.Location, c.Want.Properties.State = "global", "Succeeded"
				}
				return nil
			},
			View: viewZone,
		},
		records(), links(),
	}
}

// linked refuses to delete a zone that has links. With its resource group they go too.
func linked(w arm.World, c arm.Change[zone]) []*fault.Fault {
	var ids []string
	for _, l := range w.Children(c.ID, LinkType) {
		ids = append(ids, l.ID.String())
	}
	if len(ids) == 0 || c.Method != "DELETE" {
		return nil
	}
	return []*fault.Fault{fault.New(fault.NestedResources, "Cannot delete resource '%s' while nested resources exist. Some existing nested resource IDs include: '%s'. Please delete all nested resources before deleting this resource.",
		c.ID, strings.Join(ids[:min(len(ids), 10)], "', '"))}
}

// The most that a zone has. Source: Azure limits, "Private DNS".
const (
	mostRecords  = 25000
	mostLinks    = 1000
	mostRegister = 100
)

func viewZone(v arm.View, d *zone) {
	p := &d.Properties
	p.MaxRecords, p.MaxLinks, p.MaxRegister = mostRecords, mostLinks, mostRegister
	p.Records = len(v.Children(v.ID, RecordType)) + 1 // the SOA record, which every zone has
	for _, l := range arm.Children[link](v.World, v.ID, LinkType) {
		p.Links++
		if l.Properties.Registration {
			p.Register++
		}
	}
}

// LinkType is the full name of the links' type.
const LinkType = TypeName + "/virtualNetworkLinks"

type link struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location" stance:"echo" doc:"global"`
	Tags       map[string]string `json:"tags"`
	Properties linkProperties    `json:"properties"`
}

type linkProperties struct {
	Network      ref    `json:"virtualNetwork" arm:"required,immutable" stance:"echo" doc:"Whether a network's clients are answered is configured with the network (docs/networks.md), not by links."`
	Registration bool   `json:"registrationEnabled" stance:"echo" doc:"There are no machines to register."`
	Resolution   string `json:"resolutionPolicy" enum:"Default|NxDomainRedirect" default:"Default" stance:"echo" doc:"Nothing comes of it."`
	LinkState    string `json:"virtualNetworkLinkState" arm:"readonly"`
	State        string `json:"provisioningState" arm:"readonly"`
}

type ref struct {
	ID string `json:"id" arm:"required"`
}

func links() arm.Resource {
	return &arm.Type[link]{
		Name: LinkType, Display: "Virtual network link of a private DNS zone", Verbs: arm.ChildVerbs,
		Names: arm.Names{Min: 1, Max: 80, Pattern: `[a-zA-Z0-9]([a-zA-Z0-9_.\-]*[a-zA-Z0-9_])?`},
		Admit: func(w arm.World, c arm.Change[link]) []*fault.Fault {
			if c.Want == nil || c.Was != nil {
				return nil
			}
			to, err := name.ParseResourceID(c.Want.Properties.Network.ID)
			if err != nil || !strings.EqualFold(to.Type(), virtualNetworks) || !w.Get(to, nil) {
				return []*fault.Fault{fault.New(fault.InvalidReference, "Resource %.300s referenced by resource %s was not found. Please make sure that the referenced resource exists.",
					c.Want.Properties.Network.ID, c.ID).At("properties.virtualNetwork.id")}
			}
			for _, l := range w.Children(c.ID.Parent(), LinkType) {
				var other link
				if l.Decode(&other) == nil && strings.EqualFold(other.Properties.Network.ID, to.String()) {
					return []*fault.Fault{fault.New(fault.Conflict, "The virtual network '%s' is linked to the zone '%s' already, by the link '%s'.", to.Name(), c.ID.Parent().Name(), l.ID.Name()).At("properties.virtualNetwork.id")}
				}
			}
			return nil
		},
		Apply: func(_ *arm.Tx, c arm.Change[link]) error {
			if c.Want != nil {
				c.Want.Location, c.Want.Properties.State, c.Want.Properties.LinkState = "global", "Succeeded", "Completed"
			}
			return nil
		},
	}
}

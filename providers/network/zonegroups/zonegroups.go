// SPDX-License-Identifier: Apache-2.0

// Package zonegroups declares Microsoft.Network/privateEndpoints/privateDnsZoneGroups: the private DNS zones in which an endpoint's names are kept.
// The records are written with the group, and go with it.
package zonegroups

import (
	"fmt"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.Network/privateEndpoints/privateDnsZoneGroups"

const zoneType = "Microsoft.Network/privateDnsZones"

// ttl of the records, in seconds, as Azure's.
const ttl = 10

type document struct {
	Name       string     `json:"name"`
	ID         string     `json:"id"`
	Type       string     `json:"type"`
	Properties properties `json:"properties"`
}

type properties struct {
	State string   `json:"provisioningState" arm:"readonly"`
	Zones []config `json:"privateDnsZoneConfigs" max:"5" stance:"acts" doc:"Zones that get the A records of the endpoint's names: <name> and <name>.<region>.data."`
}

type config struct {
	Name       string           `json:"name" arm:"required,key"`
	Properties configProperties `json:"properties"`
}

type configProperties struct {
	Zone    string      `json:"privateDnsZoneId" arm:"required" stance:"acts"`
	Records []recordSet `json:"recordSets" arm:"readonly"`
}

type recordSet struct {
	Type      string   `json:"recordType"`
	Name      string   `json:"recordSetName"`
	FQDN      string   `json:"fqdn"`
	TTL       int      `json:"ttl"`
	State     string   `json:"provisioningState"`
	Addresses []string `json:"ipAddresses"`
}

// Options configure the type.
type Options struct {
	// Suffix is the registries' domain, without a leading dot.
	Suffix string
}

type kind struct{ o Options }

// Type declares the type.
func Type(o Options) arm.Resource {
	return &arm.Type[document]{
		Name: TypeName, Display: "Private DNS zone group of a private endpoint", Verbs: arm.AllButPatch,
		Names: arm.Names{Min: 1, Max: 80, Pattern: `[a-zA-Z0-9]([a-zA-Z0-9_.\-]*[a-zA-Z0-9_])?`},
		Admit: admit, Apply: kind{o}.apply,
	}
}

func admit(w arm.World, c arm.Change[document]) (faults []*fault.Fault) {
	if c.Want == nil {
		return nil
	}
	for _, it := range w.Children(c.ID.Parent(), TypeName) {
		if !it.ID.Equal(c.ID) {
			faults = append(faults, fault.New(fault.Conflict, "The private endpoint '%s' has the DNS zone group '%s', and it can have one alone. Add the zone to that one.", c.ID.Parent().Name(), it.ID.Name()))
		}
	}
	names, zones := map[string]bool{}, map[string]bool{}
	for i, z := range c.Want.Properties.Zones {
		at := fmt.Sprintf("properties.privateDnsZoneConfigs[%d]", i)
		id, err := name.ParseResourceID(z.Properties.Zone)
		switch {
		case err != nil || !strings.EqualFold(id.Type(), zoneType) || !w.Get(id, nil):
			faults = append(faults, fault.New(fault.InvalidReference, "Resource %.300s referenced by resource %s was not found. Please make sure that the referenced resource exists.", z.Properties.Zone, c.ID).
				At(at+".properties.privateDnsZoneId"))
		case names[strings.ToLower(z.Name)] || zones[id.Key()]:
			faults = append(faults, fault.New(fault.InvalidParameter, "The DNS zone group '%s' has the zone configuration '%.100s' or its zone twice.", c.ID.Name(), z.Name).At(at))
		}
		names[strings.ToLower(z.Name)], zones[id.Key()] = true, true
	}
	return faults
}

// endpoint is what the records are made of.
type endpoint struct {
	Properties struct {
		GUID string `json:"resourceGuid"`
		DNS  []struct {
			FQDN        string
			IPAddresses []string
		} `json:"customDnsConfigs"`
	} `json:"properties"`
}

// record is an A record as far as it is written here.
type record struct {
	Properties recordProperties `json:"properties"`
}

type recordProperties struct {
	Metadata  map[string]string `json:"metadata"`
	TTL       int               `json:"ttl"`
	Addresses []recordAddress   `json:"aRecords"`
}

type recordAddress struct {
	IPv4 string `json:"ipv4Address"`
}

func (k kind) apply(tx *arm.Tx, c arm.Change[document]) error {
	var e endpoint
	if !tx.World().Get(c.ID.Parent(), &e) {
		return fault.New(fault.ParentResourceNotFound, "The private endpoint '%s' was not found.", c.ID.Parent().Name())
	}
	creator := "created by private endpoint " + c.ID.Parent().Name() + " with resource guid " + e.Properties.GUID
	var keep []string // keys of records
	if c.Want != nil {
		c.Want.Properties.State = "Succeeded"
		for i := range c.Want.Properties.Zones {
			z := &c.Want.Properties.Zones[i]
			made, err := k.write(tx, c, z, e, creator)
			if err != nil {
				return err
			}
			keep = append(keep, made...)
		}
	}
	if c.Was == nil {
		return nil
	}
	for _, z := range c.Was.Properties.Zones {
		if err := erase(tx, z, creator, keep); err != nil {
			return err
		}
	}
	return nil
}

// write makes the records of the endpoint's names in a zone. What somebody else has written there is left alone.
func (k kind) write(tx *arm.Tx, c arm.Change[document], z *config, e endpoint, creator string) (keys []string, err error) {
	zone, err := name.ParseResourceID(z.Properties.Zone)
	if err != nil {
		return nil, err
	}
	if err := tx.MustLinked(TypeName+"/write", c.ID, zoneType+"/join/action", zone); err != nil {
		return nil, err
	}
	if err := tx.Lock(zone); err != nil {
		return nil, err
	}
	z.Properties.Records = []recordSet{}
	for _, dns := range e.Properties.DNS {
		label := strings.TrimSuffix(dns.FQDN, "."+k.o.Suffix)
		id := zone.Child("A", label)
		want := record{recordProperties{Metadata: map[string]string{"creator": creator}, TTL: ttl}}
		for _, ip := range dns.IPAddresses {
			want.Properties.Addresses = append(want.Properties.Addresses, recordAddress{ip})
		}
		var has record
		if tx.World().Get(id, &has) && has.Properties.Metadata["creator"] != creator && !slices.Equal(has.Properties.Addresses, want.Properties.Addresses) {
			return nil, fault.New(fault.Conflict, "The private DNS zone '%s' has the A record '%s' already, with other addresses, and the private endpoint '%s' did not make it. Delete that record, or use another zone.",
				zone.Name(), label, c.ID.Parent().Name()).At(id.String())
		}
		if err := tx.Put(id, want); err != nil {
			return nil, err
		}
		keys = append(keys, id.Key())
		z.Properties.Records = append(z.Properties.Records, recordSet{Type: "A", Name: label, FQDN: label + "." + zone.Name(), TTL: ttl, State: "Succeeded", Addresses: dns.IPAddresses})
	}
	return keys, nil
}

// erase removes the records of a zone that the endpoint made, but those to keep.
func erase(tx *arm.Tx, z config, creator string, keep []string) error {
	zone, err := name.ParseResourceID(z.Properties.Zone)
	if err != nil {
		return err
	}
	for _, r := range z.Properties.Records {
		id := zone.Child("A", r.Name)
		var has record
		if slices.Contains(keep, id.Key()) || !tx.World().Get(id, &has) || has.Properties.Metadata["creator"] != creator {
			continue
		}
		if err := tx.Delete(id); err != nil {
			return err
		}
	}
	return nil
}

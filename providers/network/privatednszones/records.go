// SPDX-License-Identifier: Apache-2.0

package privatednszones

import (
	"fmt"
	"net/netip"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
)

// RecordType is the full name of the A records' type.
const RecordType = TypeName + "/A"

type record struct {
	ID         string           `json:"id"`
	Name       string           `json:"name"`
	Type       string           `json:"type"`
	Properties recordProperties `json:"properties"`
}

type recordProperties struct {
	Metadata   map[string]string `json:"metadata" arm:"omitempty" stance:"echo" doc:"The key creator names the private endpoint whose zone group made the record."`
	FQDN       string            `json:"fqdn" arm:"readonly"`
	TTL        int64             `json:"ttl" default:"3600" min:"0" max:"2147483647" stance:"echo" doc:"In seconds."`
	Addresses  []address         `json:"aRecords" max:"20" stance:"echo" doc:"Kept and shown; the DNS server answers with the addresses of private endpoints."`
	Registered bool              `json:"isAutoRegistered" arm:"readonly"`
}

type address struct {
	IPv4 string `json:"ipv4Address" arm:"required"`
}

func records() arm.Resource {
	return &arm.Type[record]{
		Name: RecordType, Display: "A record of a private DNS zone", Verbs: arm.ChildVerbs,
		Names: arm.Names{Min: 1, Max: 253, Pattern: `@|\*|(\*\.)?` + label + `(\.` + label + `)*`, Text: "It is a DNS name relative to the zone, or '@'."},
		Admit: func(w arm.World, c arm.Change[record]) (faults []*fault.Fault) {
			if c.Want == nil {
				return nil
			}
			seen := map[string]bool{}
			for i, a := range c.Want.Properties.Addresses {
				at := fmt.Sprintf("properties.aRecords[%d].ipv4Address", i)
				ip, err := netip.ParseAddr(a.IPv4)
				switch {
				case err != nil || !ip.Is4():
					faults = append(faults, fault.New(fault.InvalidParameter, "The value %.100q of the A record '%s' is no IPv4 address.", a.IPv4, c.ID.Name()).At(at))
				case seen[a.IPv4]:
					faults = append(faults, fault.New(fault.InvalidParameter, "The A record '%s' has the address %s twice.", c.ID.Name(), a.IPv4).At(at))
				}
				seen[a.IPv4] = true
			}
			return faults
		},
		View: func(v arm.View, d *record) {
			d.Properties.FQDN = v.ID.Name() + "." + v.ID.Parent().Name() + "."
			if v.ID.Name() == "@" {
				d.Properties.FQDN = v.ID.Parent().Name() + "."
			}
		},
	}
}

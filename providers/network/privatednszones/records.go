// SPDX-License-Identifier: Apache-2.0

package privatednszones

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
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

// soa is the record that every zone has, as it is listed.
type soa struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		FQDN       string `json:"fqdn"`
		TTL        int64  `json:"ttl"`
		Registered bool   `json:"isAutoRegistered"`
		SOA        struct {
			Host    string `json:"host"`
			Email   string `json:"email"`
			Serial  int64  `json:"serialNumber"`
			Refresh int64  `json:"refreshTime"`
			Retry   int64  `json:"retryTime"`
			Expire  int64  `json:"expireTime"`
			Minimum int64  `json:"minimumTtl"`
		} `json:"soaRecord"`
	} `json:"properties"`
}

func soaOf(zone name.ResourceID) (s soa) {
	s.ID, s.Name, s.Type = zone.Child("SOA", "@").String(), "@", TypeName+"/SOA"
	p := &s.Properties
	p.FQDN, p.TTL = zone.Name()+".", 3600
	p.SOA.Host, p.SOA.Email, p.SOA.Serial = zone.Name()+".", "hostmaster."+zone.Name()+".", 1
	p.SOA.Refresh, p.SOA.Retry, p.SOA.Expire, p.SOA.Minimum = 3600, 300, 2419200, 10
	return s
}

// Routes is the list of all record sets of a zone, of whatever type.
func Routes() []arm.Route {
	return []arm.Route{{Method: http.MethodGet, Path: "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network/privateDnsZones/{zone}/ALL", Right: TypeName + "/ALL/read",
		Do: func(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
			zone, err := tx.Find(name.Group(c.Values["subscription"], c.Values["group"]).In("Microsoft.Network", "privateDnsZones", c.Values["zone"]))
			if err != nil {
				return arm.Answer{}, err
			}
			all := []any{soaOf(zone.ID)}
			for _, r := range tx.World().Children(zone.ID, RecordType) {
				var one json.RawMessage
				found, err := tx.Find(r.ID)
				if err == nil {
					err = found.Document.Decode(&one)
				}
				if err != nil {
					return arm.Answer{}, err
				}
				all = append(all, one)
			}
			return arm.Answer{Body: map[string]any{"value": all}}, nil
		}}}
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

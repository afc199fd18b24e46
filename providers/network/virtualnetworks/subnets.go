// SPDX-License-Identifier: Apache-2.0

package virtualnetworks

import (
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// SubnetType is the full name of the subnets' type.
const SubnetType = TypeName + "/subnets"

// child is a subnet as a resource.
type child struct {
	Name       string           `json:"name"`
	ID         string           `json:"id"`
	Properties subnetProperties `json:"properties"`
	Type       string           `json:"type"`
}

// Subnets declares the type of the subnets.
func Subnets() arm.Resource {
	return &arm.Type[child]{
		Name: SubnetType, Display: "Subnet", Verbs: arm.AllButPatch,
		Names: arm.Names{Min: 1, Max: 80, Pattern: `[a-zA-Z0-9_.\-]*`},
		Rows:  &arm.Rows[child]{Get: getSubnet, List: listSubnets},
		Apply: applySubnet,
		View: func(v arm.View, d *child) {
			s := &subnet{Properties: d.Properties}
			s.Properties.Endpoints, s.Properties.Interfaces = nil, nil
			occupants(v, v.ID.Parent(), func(key string) *subnet {
				if key == v.ID.Key() {
					return s
				}
				return nil
			})
			d.Properties = s.Properties
		},
	}
}

func asChild(network name.ResourceID, s subnet) child {
	return child{Name: s.Name, ID: network.Child("subnets", s.Name).String(), Type: SubnetType, Properties: s.Properties}
}

// canonical is the network's id as it is stored.
func canonical(d *document, asked name.ResourceID) name.ResourceID {
	if id, err := name.ParseResourceID(d.ID); err == nil {
		return id
	}
	return asked
}

func getSubnet(tx *arm.Tx, id name.ResourceID) (*child, error) {
	var d document
	if !tx.World().Get(id.Parent(), &d) {
		return nil, nil
	}
	network := canonical(&d, id.Parent())
	s := find(&d, network, id.Key())
	if s == nil {
		return nil, nil
	}
	c := asChild(network, *s)
	return &c, nil
}

func listSubnets(tx *arm.Tx, scope name.ResourceID, _ string) ([]arm.Row[child], error) {
	var networks []arm.Item
	if strings.EqualFold(scope.Type(), TypeName) {
		var d document
		if tx.World().Get(scope, &d) {
			networks = append(networks, arm.Document(canonical(&d, scope), d))
		}
	} else {
		networks = tx.World().Below(scope, TypeName)
	}
	var out []arm.Row[child]
	for _, it := range networks {
		var d document
		if err := it.Decode(&d); err != nil {
			return nil, err
		}
		for _, s := range d.Properties.Subnets {
			out = append(out, arm.Row[child]{ID: it.ID.Child("subnets", s.Name), Doc: asChild(it.ID, s)})
		}
	}
	return out, nil
}

// applySubnet writes the element in the network's document, whose own rules then hold.
func applySubnet(tx *arm.Tx, c arm.Change[child]) error {
	var d document
	network := c.ID.Parent()
	if !tx.World().Get(network, &d) {
		return fault.New(fault.ParentResourceNotFound, "The virtual network '%s' was not found.", network.Name())
	}
	at := slices.IndexFunc(d.Properties.Subnets, func(s subnet) bool { return strings.EqualFold(s.Name, c.ID.Name()) })
	switch {
	case c.Want == nil && at < 0:
		return nil
	case c.Want == nil:
		d.Properties.Subnets = slices.Delete(d.Properties.Subnets, at, at+1)
	default:
		c.Want.Properties.State = "Succeeded"
		s := subnet{Name: c.ID.Name(), Properties: c.Want.Properties}
		if at >= 0 {
			s.Name = d.Properties.Subnets[at].Name
			d.Properties.Subnets[at] = s
		} else {
			d.Properties.Subnets = append(d.Properties.Subnets, s)
		}
		c.Want.Name, c.Want.ID, c.Want.Type = s.Name, network.Child("subnets", s.Name).String(), SubnetType
	}
	if d.Properties.Subnets == nil {
		d.Properties.Subnets = []subnet{}
	}
	return tx.Put(network, d)
}

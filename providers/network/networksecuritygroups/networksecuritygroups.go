// SPDX-License-Identifier: Apache-2.0

// Package networksecuritygroups declares Microsoft.Network/networkSecurityGroups as far as templates need them: they are kept and shown. Nothing
// enforces their rules.
package networksecuritygroups

import (
	"fmt"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.Network/networkSecurityGroups"

const virtualNetworks = "Microsoft.Network/virtualNetworks"

type document struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Type       string            `json:"type"`
	Location   string            `json:"location" arm:"required" stance:"echo"`
	Tags       map[string]string `json:"tags"`
	Properties properties        `json:"properties"`
}

type properties struct {
	State string `json:"provisioningState" arm:"readonly"`
	GUID  string `json:"resourceGuid" arm:"readonly"`
	Rules []rule `json:"securityRules" stance:"echo" doc:"Kept and shown, not enforced: use the host's firewall, and the registry's own rules."`
}

type rule struct {
	Name       string         `json:"name" arm:"required,key"`
	ID         string         `json:"id" arm:"readonly"`
	Properties ruleProperties `json:"properties"`
}

type ruleProperties struct {
	State                   string   `json:"provisioningState" arm:"readonly"`
	Description             string   `json:"description" arm:"omitempty" max:"140"`
	Protocol                string   `json:"protocol" enum:"*|Tcp|Udp|Icmp|Esp|Ah" default:"*"`
	SourcePortRange         string   `json:"sourcePortRange" arm:"omitempty"`
	DestinationPortRange    string   `json:"destinationPortRange" arm:"omitempty"`
	SourcePrefix            string   `json:"sourceAddressPrefix" arm:"omitempty"`
	DestinationPrefix       string   `json:"destinationAddressPrefix" arm:"omitempty"`
	Access                  string   `json:"access" enum:"Allow|Deny" arm:"required"`
	Priority                int      `json:"priority" arm:"required" min:"100" max:"4096"`
	Direction               string   `json:"direction" enum:"Inbound|Outbound" arm:"required"`
	SourcePortRanges        []string `json:"sourcePortRanges"`
	DestinationPortRanges   []string `json:"destinationPortRanges"`
	SourcePrefixes          []string `json:"sourceAddressPrefixes"`
	DestinationPrefixes     []string `json:"destinationAddressPrefixes"`
	SourceApplications      []any    `json:"sourceApplicationSecurityGroups" arm:"omitempty"`
	DestinationApplications []any    `json:"destinationApplicationSecurityGroups" arm:"omitempty"`
}

// Type declares the type.
func Type() arm.Resource {
	return &arm.Type[document]{
		Name: TypeName, Display: "Network security group", Scope: arm.InGroup, Verbs: arm.AllVerbs,
		Names: arm.Names{Min: 1, Max: 80, Pattern: `[a-zA-Z0-9]([a-zA-Z0-9_.\-]*[a-zA-Z0-9_])?`},
		Admit: func(w arm.World, c arm.Change[document]) []*fault.Fault {
			if c.Want == nil {
				return used(w, c)
			}
			seen := map[string]bool{}
			var faults []*fault.Fault
			for i, r := range c.Want.Properties.Rules {
				if low := strings.ToLower(r.Name); seen[low] {
					faults = append(faults, fault.New(fault.InvalidParameter, "The network security group '%s' has the rule '%.100s' twice.", c.ID.Name(), r.Name).At(fmt.Sprintf("properties.securityRules[%d].name", i)))
				} else {
					seen[low] = true
				}
			}
			return faults
		},
		Apply: func(tx *arm.Tx, c arm.Change[document]) error {
			if c.Want == nil {
				return nil
			}
			p := &c.Want.Properties
			p.State = "Succeeded"
			if c.Was == nil {
				p.GUID = tx.NewID()
			}
			for i := range p.Rules {
				p.Rules[i].ID, p.Rules[i].Properties.State = c.ID.Child("securityRules", p.Rules[i].Name).String(), "Succeeded"
			}
			return nil
		},
	}
}

// used refuses to delete a group that subnets name. What goes with its resource group is named by networks of other resource groups alone.
func used(w arm.World, c arm.Change[document]) []*fault.Fault {
	var by []string
	for _, it := range w.Below(name.Subscription(c.ID.Subscription()), virtualNetworks) {
		var network struct {
			Properties struct {
				Subnets []struct {
					ID         string `json:"id"`
					Properties struct {
						Group struct {
							ID string `json:"id"`
						} `json:"networkSecurityGroup"`
					} `json:"properties"`
				} `json:"subnets"`
			} `json:"properties"`
		}
		if it.Decode(&network) != nil || c.Method != "DELETE" && it.ID.Within(c.ID.Parent()) {
			continue
		}
		for _, s := range network.Properties.Subnets {
			if id, err := name.ParseResourceID(s.Properties.Group.ID); err == nil && id.Equal(c.ID) {
				by = append(by, s.ID)
			}
		}
	}
	if len(by) == 0 {
		return nil
	}
	return []*fault.Fault{fault.New(fault.SecurityGroupInUse, "Network security group %s cannot be deleted because it is in use by the following resources: %s. In order to delete the Network security group, "+
		"remove the association with the resource(s). To learn how to do this, see aka.ms/deletensg.", c.ID, strings.Join(by, ", "))}
}

// SPDX-License-Identifier: Apache-2.0

package privateendpoints

import (
	"fmt"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// admit judges the form of an endpoint. What must hold of its registry and subnet is judged once they are locked (create.go).
func admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return nil
	}
	p := &c.Want.Properties
	if n := len(p.Connections) + len(p.Manual); n != 1 {
		return []*fault.Fault{fault.New(fault.InvalidParameter, "The private endpoint '%s' has %d connections: it needs one, in privateLinkServiceConnections or in manualPrivateLinkServiceConnections.", c.ID.Name(), n).
			At("properties.privateLinkServiceConnections")}
	}
	if c.Was != nil {
		return unchanged(c)
	}
	l, manual := c.Want.link()
	at := "properties.privateLinkServiceConnections[0].properties"
	if manual {
		at = "properties.manualPrivateLinkServiceConnections[0].properties"
	}
	var faults []*fault.Fault
	if target, err := name.ParseResourceID(l.Properties.Target); err != nil || !strings.EqualFold(target.Type(), registryType) {
		faults = append(faults, fault.New(fault.InvalidParameter, "The private endpoint '%s' can't be connected to %.300q: private endpoints are for registries, %s.", c.ID.Name(), l.Properties.Target, registryType).At(at+".privateLinkServiceId"))
	}
	if len(l.Properties.Groups) != 1 || !strings.EqualFold(l.Properties.Groups[0], group) {
		faults = append(faults, fault.New(fault.InvalidParameter, "The groupIds of the connection '%.100s' are %.300q: a registry has the one group ['%s'].", l.Name, l.Properties.Groups, group).At(at+".groupIds"))
	}
	if subnet, err := name.ParseResourceID(p.Subnet.ID); err != nil || !strings.EqualFold(subnet.Type(), subnetType) {
		faults = append(faults, fault.New(fault.InvalidParameter, "The subnet of the private endpoint '%s' is %.300q: give the id of a subnet, %s.", c.ID.Name(), p.Subnet.ID, subnetType).At("properties.subnet.id"))
	}
	return append(append(faults, admitIPs(p.IPs)...), admitNIC(w, c)...)
}

func admitIPs(ips []ipConfiguration) (faults []*fault.Fault) {
	seen := map[string]bool{}
	for i, ip := range ips {
		at := fmt.Sprintf("properties.ipConfigurations[%d]", i)
		refuse := func(where, format string, args ...any) {
			faults = append(faults, fault.New(fault.InvalidParameter, format, args...).At(at+where))
		}
		if !strings.EqualFold(ip.Properties.Group, group) {
			refuse(".properties.groupId", "The groupId of the IP configuration '%.100s' is '%.100s': a registry has the one group '%s'.", ip.Name, ip.Properties.Group, group)
		}
		if _, ok := address(ip.Properties.Address); !ok {
			refuse(".properties.privateIPAddress", "The value %.100q of the IP configuration '%.100s' is no IPv4 address.", ip.Properties.Address, ip.Name)
		}
		for _, word := range []string{"name " + strings.ToLower(ip.Name), "member " + strings.ToLower(ip.Properties.Member), "address " + ip.Properties.Address} {
			if seen[word] {
				refuse("", "Two IP configurations have the same %.200s.", word)
			}
			seen[word] = true
		}
	}
	return faults
}

// admitNIC: the interface's name is the endpoint's alone in its group.
func admitNIC(w arm.World, c arm.Change[document]) []*fault.Fault {
	const at = "properties.customNetworkInterfaceName"
	nic := c.Want.Properties.NIC
	if nic == "" {
		return nil
	}
	if len(nic) > 80 || strings.Trim(nic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return []*fault.Fault{fault.New(fault.InvalidResourceName, "Resource name '%.100s' is invalid. A network interface's name has 1 to 80 letters, digits, '_', '.' and '-'.", nic).At(at)}
	}
	id := c.ID.Parent().In("Microsoft.Network", "networkInterfaces", nic)
	for _, it := range w.Children(c.ID.Parent(), TypeName) {
		var other document
		if it.Decode(&other) == nil && slices.ContainsFunc(other.Properties.Interfaces, func(r ref) bool { return strings.EqualFold(r.ID, id.String()) }) {
			return []*fault.Fault{fault.New(fault.Conflict, "The network interface '%s' belongs to the private endpoint '%s'. Choose another name.", nic, it.ID.Name()).At(at)}
		}
	}
	return nil
}

// unchanged: where an endpoint leads, and which addresses it has, is settled when it is made.
func unchanged(c arm.Change[document]) (faults []*fault.Fault) {
	was, manualWas := c.Was.link()
	want, manual := c.Want.link()
	refuse := func(changed bool, at string) {
		if changed {
			faults = append(faults, fault.New(fault.PropertyImmutable, "The property '%s' of the private endpoint '%s' is immutable: delete the endpoint and make it anew.", at, c.ID.Name()).At(at))
		}
	}
	list := "properties.privateLinkServiceConnections"
	if manual {
		list = "properties.manualPrivateLinkServiceConnections"
	}
	refuse(manual != manualWas || was.Name != want.Name, list)
	refuse(!strings.EqualFold(c.Was.Properties.Subnet.ID, c.Want.Properties.Subnet.ID), "properties.subnet.id")
	refuse(!strings.EqualFold(was.Properties.Target, want.Properties.Target), list+"[0].properties.privateLinkServiceId")
	refuse(!slices.EqualFunc(was.Properties.Groups, want.Properties.Groups, strings.EqualFold), list+"[0].properties.groupIds")
	refuse(!slices.EqualFunc(c.Was.Properties.IPs, c.Want.Properties.IPs, func(a, b ipConfiguration) bool {
		return a.Name == b.Name && strings.EqualFold(a.Properties.Member, b.Properties.Member) && a.Properties.Address == b.Properties.Address
	}), "properties.ipConfigurations")
	return faults
}

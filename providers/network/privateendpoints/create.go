// SPDX-License-Identifier: Apache-2.0

package privateendpoints

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/providers/containerregistry/connections"
	"github.com/embargo-registry/embargo/providers/network/space"
)

// approval is the right that approves a connection in the act of making it.
const approval = registryType + "/privateEndpointConnectionsApproval/action"

// most is how many private endpoints a registry has. Source: Azure Container Registry, "Service tier features and limits", Premium.
const most = 200

// create makes the endpoint's row: the virtual network is locked first, then the registry.
func (k kind) create(tx *arm.Tx, c arm.Change[document]) error {
	subnet, prefix, err := lockSubnet(tx, c)
	if err != nil {
		return err
	}
	row, err := target(tx, c)
	if err != nil {
		return err
	}
	e := meta.Endpoint{ID: tx.NewID(), ResourceID: c.ID.String(), Registry: row.ID, Actions: "None", Network: subnet.Parent().Key(), Subnet: subnet.Key(),
		Connection: row.Name + "." + strings.ReplaceAll(tx.NewID(), "-", "")}
	if e.Status, e.Description, err = status(tx, c, row); err != nil {
		return err
	}
	members, err := members(tx, row)
	if err != nil {
		return err
	}
	if e.Addresses, err = allocate(tx, c, subnet, prefix, members); err != nil {
		return err
	}
	epoch, err := tx.Meta().PutEndpoint(e)
	if err != nil {
		return err
	}
	p := &c.Want.Properties
	p.GUID = tx.NewID()
	if p.NIC == "" {
		p.Interfaces = []ref{{c.ID.Parent().In("Microsoft.Network", "networkInterfaces", c.ID.Name()+".nic."+tx.NewID()).String()}}
	} else {
		p.Interfaces = []ref{{c.ID.Parent().In("Microsoft.Network", "networkInterfaces", p.NIC).String()}}
	}
	p.DNS = nil
	for _, a := range e.Addresses {
		p.DNS = append(p.DNS, dnsConfig{network.MemberHost(row.LoginServer, a.Member), []string{a.Address.String()}})
	}
	k.fence(tx, row.ID, epoch)
	return nil
}

// members are what the endpoint has an address for each; the registry is locked, and so are its regions.
func members(tx *arm.Tx, row meta.RegistryRow) ([]string, error) {
	id, err := name.ParseResourceID(row.ResourceID)
	if err != nil {
		return nil, err
	}
	var further []string
	for _, d := range arm.Children[struct{ Location string }](tx.World(), id, replicationType) {
		further = append(further, d.Location)
	}
	return network.Members(row.Location, further...), nil
}

// lockSubnet locks the virtual network and reads the subnet that the endpoint's addresses come from.
func lockSubnet(tx *arm.Tx, c arm.Change[document]) (name.ResourceID, netip.Prefix, error) {
	given := c.Want.Properties.Subnet.ID
	missing := fault.New(fault.InvalidReference, "Resource %.300s referenced by resource %s was not found. Please make sure that the referenced resource exists, and that both resources are in the same region.", given, c.ID).
		At("properties.subnet.id")
	id, err := name.ParseResourceID(given)
	if err != nil {
		return id, netip.Prefix{}, missing
	}
	if err := tx.MustLinked(TypeName+"/write", c.ID, subnetType+"/join/action", id); err != nil {
		return id, netip.Prefix{}, err
	}
	if err := tx.Lock(id); err != nil {
		return id, netip.Prefix{}, err
	}
	var vnet struct{ Location string }
	var subnet struct {
		ID         string
		Properties struct {
			Prefix   string   `json:"addressPrefix"`
			Prefixes []string `json:"addressPrefixes"`
		}
	}
	if !tx.World().Get(id.Parent(), &vnet) || !tx.World().Get(id, &subnet) {
		return id, netip.Prefix{}, missing
	}
	if vnet.Location != c.Want.Location {
		return id, netip.Prefix{}, fault.New(fault.InvalidReference, "The private endpoint '%s' is in the location '%s' and the virtual network '%s' in '%s'. Please make sure that both resources are in the same region.",
			c.ID.Name(), c.Want.Location, id.Parent().Name(), vnet.Location).At("location")
	}
	text := subnet.Properties.Prefix
	if text == "" && len(subnet.Properties.Prefixes) > 0 {
		text = subnet.Properties.Prefixes[0]
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return id, prefix, fmt.Errorf("prefix of the subnet %s: %w", id, err)
	}
	c.Want.Properties.Subnet.ID = subnet.ID
	id, err = name.ParseResourceID(subnet.ID)
	return id, prefix, err
}

// target locks the registry that the endpoint leads to: one of this installation, and Premium.
func target(tx *arm.Tx, c arm.Change[document]) (meta.RegistryRow, error) {
	l, _ := c.Want.link()
	const at = "privateLinkServiceId"
	row, err := tx.Meta().RegistryByResource(trimmed(l.Properties.Target))
	if err == nil {
		if err = lockRegistry(tx, row); err == nil {
			row, err = tx.Meta().RegistryByID(row.ID)
		}
	}
	if errors.Is(err, meta.ErrNotFound) {
		return row, fault.New(fault.InvalidReference, "Resource %.300s referenced by resource %s was not found: it is no registry of this installation.", l.Properties.Target, c.ID).At(at)
	}
	if err != nil {
		return row, err
	}
	if row.SKU != "Premium" {
		return row, fault.New(fault.BadRequest, "Private endpoints are not supported for the SKU %s of the registry '%s'; they need Premium.", row.SKU, row.Name).At(at)
	}
	has, err := tx.Meta().EndpointsOf(row.ID)
	if err == nil && len(has) >= most {
		err = fault.New(fault.BadRequest, "The registry '%s' has %d private endpoints, which is the most there can be.", row.Name, len(has)).At(at)
	}
	l.Properties.Target = row.ResourceID
	return row, err
}

// trimmed is an id without doubled and trailing slashes.
func trimmed(id string) string {
	if parsed, err := name.ParseResourceID(id); err == nil {
		return parsed.String()
	}
	return id
}

// status: who may approve connections of the registry has approved this one by asking for it, unless by hand.
func status(tx *arm.Tx, c arm.Change[document], row meta.RegistryRow) (status, description string, err error) {
	l, manual := c.Want.link()
	if !manual {
		id, err := name.ParseResourceID(row.ResourceID)
		if err != nil {
			return "", "", err
		}
		may, err := tx.Can(approval, id)
		if err == nil && may && row.Held {
			return "", "", connections.Held(row, c.ID.String(), "until then the endpoint can be made with a connection in manualPrivateLinkServiceConnections, which waits for its approval")
		}
		if err != nil || may {
			return meta.EndpointApproved, "Auto-Approved", err
		}
	}
	return meta.EndpointPending, l.Properties.Message, nil
}

// allocate gives each member its address: the one that was asked for, or the first one that is free.
func allocate(tx *arm.Tx, c arm.Change[document], subnet name.ResourceID, prefix netip.Prefix, members []string) ([]meta.EndpointAddress, error) {
	list, err := tx.Meta().Addresses(subnet.Parent().Key(), "")
	if err != nil {
		return nil, err
	}
	taken := map[netip.Addr]bool{}
	for _, a := range list {
		taken[a] = true
	}
	given := map[string]netip.Addr{}
	for i, ip := range c.Want.Properties.IPs {
		at := fmt.Sprintf("properties.ipConfigurations[%d].properties.", i)
		member := strings.ToLower(ip.Properties.Member)
		if !slices.Contains(members, member) {
			return nil, fault.New(fault.InvalidParameter, "The memberName of the IP configuration '%.100s' is '%.100s': the registry's members are '%s'.", ip.Name, ip.Properties.Member, strings.Join(members, "', '")).At(at + "memberName")
		}
		a, _ := address(ip.Properties.Address)
		switch {
		case !prefix.Contains(a):
			return nil, fault.New(fault.AddressOutside, "Private static IP address %s does not belong to the range of subnet prefix %s.", a, prefix).At(at + "privateIPAddress")
		case space.Reserved(prefix, a):
			return nil, fault.New(fault.AddressReserved, "Private static IP address %s falls within reserved IP range of subnet prefix %s.", a, prefix).At(at + "privateIPAddress")
		case taken[a]:
			return nil, fault.New(fault.AddressTaken, "IP configuration '%.100s' is using the private IP address %s which is already allocated in the virtual network '%s'.", ip.Name, a, subnet.Parent().Name()).At(at + "privateIPAddress")
		}
		taken[a], given[member] = true, a
	}
	need := len(members) - len(given)
	free := space.Free(prefix, need, taken)
	if len(free) < need {
		return nil, fault.New(fault.SubnetFull, "Subnet %s with address prefix %s does not have enough capacity for %d IP addresses.", subnet.Name(), prefix, need).At("properties.subnet.id")
	}
	var out []meta.EndpointAddress
	for _, m := range members {
		a, static := given[m]
		if !static {
			a, free = free[0], free[1:]
		}
		out = append(out, meta.EndpointAddress{Member: m, Address: a})
	}
	return out, nil
}

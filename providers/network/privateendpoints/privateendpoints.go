// SPDX-License-Identifier: Apache-2.0

// Package privateendpoints declares Microsoft.Network/privateEndpoints: a registry's addresses in a virtual network. The endpoint, its addresses and
// its connection to the registry are written in one transaction; its network interface is read out of them.
package privateendpoints

import (
	"context"
	"errors"
	"net/netip"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.Network/privateEndpoints"

// The other types that an endpoint is made of.
const (
	subnetType   = "Microsoft.Network/virtualNetworks/subnets"
	registryType = "Microsoft.ContainerRegistry/registries"
	nicType      = "Microsoft.Network/networkInterfaces"

	replicationType = registryType + "/replications"
)

// group is the one group of a registry's private link resources, and the name of its first member.
const group = "registry"

type document struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Type       string            `json:"type"`
	Location   string            `json:"location" arm:"required" stance:"acts" doc:"The virtual network's."`
	Tags       map[string]string `json:"tags"`
	Properties properties        `json:"properties"`
}

type properties struct {
	State       string            `json:"provisioningState" arm:"readonly"`
	GUID        string            `json:"resourceGuid" arm:"readonly"`
	Connections []connection      `json:"privateLinkServiceConnections" stance:"acts" doc:"One connection to a Premium registry of this installation, here or among the manual ones. It is approved at once when the caller may approve connections of the registry, else pending."`
	Manual      []connection      `json:"manualPrivateLinkServiceConnections" stance:"acts" doc:"A connection that waits for its approval, whoever asks."`
	Subnet      ref               `json:"subnet" arm:"required" stance:"acts" doc:"Where the addresses come from."`
	NIC         string            `json:"customNetworkInterfaceName" arm:"immutable,omitempty" stance:"acts" doc:"The name of the network interface."`
	IPs         []ipConfiguration `json:"ipConfigurations" stance:"acts" doc:"Addresses of your choice; members that are not here get the first free ones."`
	Interfaces  []ref             `json:"networkInterfaces" arm:"readonly"`
	DNS         []dnsConfig       `json:"customDnsConfigs" arm:"readonly"`
	Groups      []any             `json:"applicationSecurityGroups" arm:"omitempty" stance:"refused" doc:"There are no application security groups."`
}

type ref struct {
	ID string `json:"id" arm:"required"`
}

type connection struct {
	Name       string               `json:"name" arm:"required,key" stance:"echo"`
	ID         string               `json:"id" arm:"readonly"`
	Properties connectionProperties `json:"properties"`
	Type       string               `json:"type" arm:"readonly"`
}

type connectionProperties struct {
	State   string    `json:"provisioningState" arm:"readonly"`
	Target  string    `json:"privateLinkServiceId" arm:"required" stance:"acts" doc:"The registry's id."`
	Groups  []string  `json:"groupIds" arm:"required" stance:"acts" doc:"registry"`
	Message string    `json:"requestMessage" arm:"omitempty" max:"140" stance:"acts" doc:"What a pending connection says to its approver."`
	Link    linkState `json:"privateLinkServiceConnectionState" arm:"readonly"`
}

type linkState struct {
	Status      string `json:"status"`
	Description string `json:"description"`
	Actions     string `json:"actionsRequired"`
}

type ipConfiguration struct {
	Name       string       `json:"name" arm:"required,key" stance:"acts"`
	Type       string       `json:"type" arm:"readonly,omitempty"`
	Properties ipProperties `json:"properties"`
}

type ipProperties struct {
	Group   string `json:"groupId" arm:"required" stance:"acts" doc:"registry"`
	Member  string `json:"memberName" arm:"required" stance:"acts" doc:"registry, or registry_data_ and a region of the registry."`
	Address string `json:"privateIPAddress" arm:"required" stance:"acts"`
}

type dnsConfig struct {
	FQDN string   `json:"fqdn"`
	IPs  []string `json:"ipAddresses"`
}

// Options configure the type.
type Options struct {
	// Fence makes a committed change of a registry's row hold for what is under way.
	Fence func(ctx context.Context, registry string, epoch int64) error
}

type kind struct{ o Options }

// Type declares the type.
func Type(o Options) arm.Resource {
	k := kind{o}
	return &arm.Type[document]{
		Name: TypeName, Display: "Private endpoint", Scope: arm.InGroup, Verbs: arm.AllButPatch | arm.ListBelow,
		Names: arm.Names{Min: 1, Max: 64, Pattern: `[a-zA-Z0-9]([a-zA-Z0-9_.\-]*[a-zA-Z0-9_])?`, Text: "It has 1 to 64 letters, digits, '_', '.' and '-', begins with a letter or digit and does not end with '.' or '-'."},
		Admit: admit, Apply: k.apply, View: view,
	}
}

// link is the endpoint's one connection, and whether it was asked for by hand. Admit has seen that there is one.
func (d *document) link() (c *connection, manual bool) {
	if len(d.Properties.Manual) > 0 {
		return &d.Properties.Manual[0], true
	}
	if len(d.Properties.Connections) > 0 {
		return &d.Properties.Connections[0], false
	}
	return &connection{}, false
}

// apply makes, keeps or takes away the endpoint's row with its addresses.
func (k kind) apply(tx *arm.Tx, c arm.Change[document]) error {
	if c.Want == nil {
		return k.remove(tx, c)
	}
	var err error
	p := &c.Want.Properties
	if c.Was == nil {
		err = k.create(tx, c)
	} else {
		p.Subnet = c.Was.Properties.Subnet // in the casing that is stored
	}
	p.State = "Succeeded"
	for i := range p.Connections {
		p.Connections[i].complete(c.ID, "privateLinkServiceConnections")
	}
	for i := range p.Manual {
		p.Manual[i].complete(c.ID, "manualPrivateLinkServiceConnections")
	}
	return err
}

func (l *connection) complete(endpoint name.ResourceID, list string) {
	l.ID, l.Type, l.Properties.State = endpoint.Child(list, l.Name).String(), TypeName+"/"+list, "Succeeded"
}

// remove releases the addresses and cuts what is open. The registry may be gone.
func (k kind) remove(tx *arm.Tx, c arm.Change[document]) error {
	m := tx.Meta()
	e, err := m.EndpointByResource(c.ID.String())
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if row, err := m.RegistryByID(e.Registry); err == nil {
		err = lockRegistry(tx, row)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return err
		}
	} else if !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	epoch, err := m.DeleteEndpoint(e)
	k.fence(tx, e.Registry, epoch)
	return err
}

// lockRegistry takes the registry's document, then its row: the order of every change of a registry.
func lockRegistry(tx *arm.Tx, row meta.RegistryRow) error {
	id, err := name.ParseResourceID(row.ResourceID)
	if err == nil {
		err = tx.Lock(id)
	}
	if err == nil {
		_, err = tx.Meta().LockRegistry(row.ID)
	}
	return err
}

func (k kind) fence(tx *arm.Tx, registry string, epoch int64) {
	if epoch > 0 {
		tx.AfterCommit(func(ctx context.Context) error { return k.o.Fence(ctx, registry, epoch) })
	}
}

// view shows the state of the connection, which the registry's side decides.
func view(v arm.View, d *document) {
	state := linkState{Status: meta.EndpointDisconnected, Actions: "None"}
	v.Look(func(tx *meta.Tx) error {
		e, err := tx.EndpointByResource(v.ID.String())
		if err == nil {
			state = linkState{e.Status, e.Description, e.Actions}
		}
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		return err
	})
	l, _ := d.link()
	l.Properties.Link = state
}

// address reads an address of IPv4.
func address(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a, err == nil && a.Is4()
}

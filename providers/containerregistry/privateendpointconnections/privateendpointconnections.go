// SPDX-License-Identifier: Apache-2.0

// Package privateendpointconnections declares Microsoft.ContainerRegistry/registries/privateEndpointConnections: which private endpoints a registry
// lets in. A connection is made by its private endpoint; here it is approved, rejected and deleted.
package privateendpointconnections

import (
	"context"
	"errors"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/providers/containerregistry/connections"
)

// Options configure the type.
type Options struct {
	// Fence makes a committed change of a registry's row hold for what is under way.
	Fence func(ctx context.Context, registry string, epoch int64) error
}

type kind struct{ o Options }

// Type declares the type.
func Type(o Options) arm.Resource {
	return &arm.Type[connections.Connection]{
		Name: connections.TypeName, Display: "Private endpoint connection", API: "2019-12-01-preview..; 2021-09-01..", Verbs: arm.AllButPatch,
		Names:   arm.Names{Min: 1, Max: 128, Pattern: `[a-zA-Z0-9.\-_]*`},
		Answers: arm.Answers{Updated: 201},
		Rows:    &arm.Rows[connections.Connection]{Get: get, List: list},
		Admit:   admit, Apply: kind{o}.apply,
	}
}

func get(tx *arm.Tx, id name.ResourceID) (*connections.Connection, error) {
	row, err := tx.Meta().RegistryByResource(id.Parent().String())
	if err == nil {
		var e meta.Endpoint
		if e, err = connections.Find(tx.Meta(), row.ID, id.Name()); err == nil {
			return shown(row, e)
		}
	}
	if errors.Is(err, meta.ErrNotFound) {
		err = nil
	}
	return nil, err
}

func shown(row meta.RegistryRow, e meta.Endpoint) (*connections.Connection, error) {
	registry, err := name.ParseResourceID(row.ResourceID) // in the casing of its creation
	if err != nil {
		return nil, err
	}
	c := connections.Of(registry, e)
	return &c, nil
}

// list reads the one registry of its scope, which is how clients ask, or all below it.
func list(tx *arm.Tx, scope name.ResourceID, _ string) ([]arm.Row[connections.Connection], error) {
	rows, err := tx.Meta().Registries()
	if scope.IsResource() {
		var row meta.RegistryRow
		if row, err = tx.Meta().RegistryByResource(scope.String()); errors.Is(err, meta.ErrNotFound) {
			return nil, nil
		}
		rows = []meta.RegistryRow{row}
	}
	if err != nil {
		return nil, err
	}
	var out []arm.Row[connections.Connection]
	for _, row := range rows {
		registry, err := name.ParseResourceID(row.ResourceID)
		if err != nil {
			return nil, err
		}
		if !registry.Within(scope) {
			continue
		}
		all, err := connections.Rows(tx.Meta(), row.ID)
		if err != nil {
			return nil, err
		}
		for _, e := range all {
			c := connections.Of(registry, e)
			out = append(out, arm.Row[connections.Connection]{ID: registry.Child("privateEndpointConnections", e.Connection), Doc: c})
		}
	}
	return out, nil
}

// admit: what is there is approved or rejected, and who was rejected asks anew by another endpoint. Source: Azure Private Link, "Manage private
// endpoints": connections that have been denied can't be approved.
func admit(_ arm.World, c arm.Change[connections.Connection]) []*fault.Fault {
	if c.Want == nil {
		return nil
	}
	if c.Was == nil {
		return []*fault.Fault{fault.New(fault.BadRequest, "The private endpoint connection '%s' of the registry '%s' does not exist, and is not made here: it is made by creating a private endpoint (az network private-endpoint create).",
			c.ID.Name(), c.ID.Parent().Name())}
	}
	const at = "properties.privateLinkServiceConnectionState.status"
	was, want := c.Was.Properties, c.Want.Properties
	var faults []*fault.Fault
	if want.Endpoint.ID != "" && !strings.EqualFold(was.Endpoint.ID, want.Endpoint.ID) {
		faults = append(faults, fault.New(fault.PropertyImmutable, "The private endpoint connection '%s' belongs to %s and can't be given to another private endpoint.", c.ID.Name(), was.Endpoint.ID).
			At("properties.privateEndpoint.id"))
	}
	switch to := want.Link.Status; {
	case to == was.Link.Status:
	case to != meta.EndpointApproved && to != meta.EndpointRejected:
		faults = append(faults, fault.New(fault.BadRequest, "The private endpoint connection '%s' can't become %s: it is set to Approved or Rejected, or deleted.", c.ID.Name(), to).At(at))
	case was.Link.Status == meta.EndpointRejected:
		faults = append(faults, fault.New(fault.BadRequest, "Approving rejected private endpoint connections is not supported: '%s' has been rejected. Delete its private endpoint %s and create another one.",
			c.ID.Name(), was.Endpoint.ID).At(at))
	}
	return faults
}

// apply writes the state and, before the answer, cuts what it no longer lets in. The engine has locked the registry's document.
func (k kind) apply(tx *arm.Tx, c arm.Change[connections.Connection]) error {
	m := tx.Meta()
	row, err := m.RegistryByResource(c.ID.Parent().String())
	if err != nil {
		return err
	}
	if row, err = m.LockRegistry(row.ID); err != nil {
		return err
	}
	e, err := connections.Find(m, row.ID, c.ID.Name())
	if err != nil {
		return err
	}
	if c.Want == nil {
		e.Status, e.Description = meta.EndpointDisconnected, "The connection was deleted by an administrator of the registry."
	} else {
		l := &c.Want.Properties.Link
		l.Actions = e.Actions // what is to be done is known by the endpoint's addresses, and not by who approves it
		if e.Status == l.Status && e.Description == l.Description {
			// It is so once an earlier request's fence has ended.
			tx.AfterCommit(func(ctx context.Context) error { return k.o.Fence(ctx, row.ID, row.Epoch) })
			return settle(c, row, e)
		}
		if row.Held && l.Status == meta.EndpointApproved && e.Status != l.Status {
			return connections.Held(row, e.ResourceID, "until then a connection can be rejected or deleted")
		}
		e.Status, e.Description = l.Status, l.Description
	}
	epoch, err := m.PutEndpoint(e)
	if err != nil {
		return err
	}
	tx.AfterCommit(func(ctx context.Context) error { return k.o.Fence(ctx, row.ID, epoch) })
	return settle(c, row, e)
}

// settle makes the answer what a GET shows.
func settle(c arm.Change[connections.Connection], row meta.RegistryRow, e meta.Endpoint) error {
	if c.Want == nil {
		return nil
	}
	d, err := shown(row, e)
	if err == nil {
		*c.Want = *d
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

// Package replications declares Microsoft.ContainerRegistry/registries/replications: the regions of a registry. Its home region is one by itself and can't be changed. Further ones are
// declared; their content is not replicated, and each says in its status that the home region alone serves.
package replications

import (
	"errors"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
)

type document struct {
	Type       string            `json:"type"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Location   string            `json:"location" arm:"required" stance:"echo" doc:"A region other than the registry's, once."`
	Tags       map[string]string `json:"tags"`
	Properties properties        `json:"properties"`
}

type properties struct {
	State          string `json:"provisioningState" arm:"readonly"`
	Status         status `json:"status" arm:"readonly"`
	RegionEndpoint bool   `json:"regionEndpointEnabled" default:"true" stance:"echo" doc:"Nothing is served from a further region, whatever it says."`
	ZoneRedundancy string `json:"zoneRedundancy" enum:"Enabled|Disabled" default:"Disabled" arm:"immutable" stance:"echo" api:"2020-11-01-preview..; 2021-09-01.." doc:"Where the disks stand is the operator's."`
}

type status struct {
	DisplayStatus string `json:"displayStatus"`
	Message       string `json:"message" arm:"omitempty"`
}

// TypeName is the full name of the type.
const TypeName = "Microsoft.ContainerRegistry/registries/replications"

// Type declares the type.
func Type() arm.Resource {
	return &arm.Type[document]{
		Name: TypeName, Display: "Replication", API: "2017-06-01-preview..; 2017-10-01..", Verbs: arm.ChildVerbs,
		Names:  arm.Names{Min: 5, Max: 50, Pattern: `[a-zA-Z0-9]*`, Text: "A replication's name has 5 to 50 letters and digits."},
		Admit:  admit,
		Apply:  apply,
		Beside: &arm.Rows[document]{Get: get, List: list},
	}
}

// registry is what is read of the parent.
type registry struct {
	SKU        struct{ Name string } `json:"sku"`
	Location   string                `json:"location"`
	Properties struct {
		Policies struct {
			SoftDelete struct{ Status string } `json:"softDeletePolicy"`
		} `json:"policies"`
	} `json:"properties"`
}

func admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	var of registry
	called := c.ID.Parent().Name()
	if !w.Get(c.ID.Parent(), &of) {
		return []*fault.Fault{fault.New(fault.ParentResourceNotFound, "The registry '%s' was not found.", called)}
	}
	home := plain(of.Location)
	if strings.EqualFold(c.ID.Name(), home) {
		return []*fault.Fault{fault.New(fault.BadRequest, "The replication '%s' of the registry '%s' is its home region, which can't be changed or deleted.", c.ID.Name(), called)}
	}
	if c.Want == nil {
		return nil
	}
	var faults []*fault.Fault
	if of.SKU.Name != "Premium" {
		faults = append(faults, fault.New(fault.BadRequest, "Replications are not supported for the SKU %s of the registry '%s'; they need Premium.", of.SKU.Name, called).At(c.ID.Parent().String()))
	}
	if of.Properties.Policies.SoftDelete.Status == "enabled" {
		faults = append(faults, fault.New(fault.BadRequest, "The registry '%s' can't have replications while its soft delete policy is enabled: disable it first.", called).At(c.ID.Parent().String()))
	}
	region := plain(c.Want.Location)
	if region == home {
		faults = append(faults, fault.New(fault.Conflict, "The registry '%s' has its home in %s: a replication is in another region.", called, home).At("location"))
	}
	for _, other := range w.Children(c.ID.Parent(), TypeName) {
		var d struct{ Location string }
		if other.Decode(&d) == nil && !strings.EqualFold(other.ID.Name(), c.ID.Name()) && plain(d.Location) == region {
			faults = append(faults, fault.New(fault.Conflict, "The registry '%s' has a replication in %s already: '%s'.", called, region, other.ID.Name()).At("location"))
		}
	}
	return faults
}

// apply says that nothing is served there, and which private endpoints of the registry have no address for one of its regions: they are to be made anew.
func apply(tx *arm.Tx, c arm.Change[document]) error {
	if c.Want != nil {
		c.Want.Properties.State = "Succeeded"
		c.Want.Properties.Status = status{"Pending", "The region is declared. Its content is not replicated: this installation serves the registry from its home region alone."}
	}
	row, err := tx.Meta().RegistryByResource(c.ID.Parent().String())
	if err != nil {
		return err
	}
	var further []string
	for _, other := range tx.World().Children(c.ID.Parent(), TypeName) {
		var d document
		if err := other.Decode(&d); err != nil {
			return err
		}
		if !other.ID.Equal(c.ID) {
			further = append(further, d.Location)
		}
	}
	if c.Want != nil {
		further = append(further, c.Want.Location)
	}
	return tx.Meta().MeasureEndpoints(row.ID, network.Members(row.Location, further...))
}

// plain is a region's name as ids have it.
func plain(region string) string { return strings.ToLower(strings.ReplaceAll(region, " ", "")) }

// get is the home region.
func get(tx *arm.Tx, id name.ResourceID) (*document, error) {
	row, err := tx.Meta().RegistryByResource(id.Parent().String())
	if errors.Is(err, meta.ErrNotFound) || err == nil && !strings.EqualFold(row.Location, id.Name()) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	of, err := name.ParseResourceID(row.ResourceID) // in the casing of its creation
	if err != nil {
		return nil, err
	}
	d := home(of.Child("replications", row.Location), row)
	return &d, nil
}

// list reads the one registry of its scope, which is how clients ask, or all below it.
func list(tx *arm.Tx, scope name.ResourceID, _ string) ([]arm.Row[document], error) {
	var rows []meta.RegistryRow
	var err error
	if scope.IsResource() {
		var row meta.RegistryRow
		if row, err = tx.Meta().RegistryByResource(scope.String()); errors.Is(err, meta.ErrNotFound) {
			return nil, nil
		}
		rows = []meta.RegistryRow{row}
	} else {
		rows, err = tx.Meta().Registries()
	}
	if err != nil {
		return nil, err
	}
	var out []arm.Row[document]
	for _, row := range rows {
		id, err := name.ParseResourceID(row.ResourceID)
		if err != nil {
			return nil, err
		}
		if id.Within(scope) {
			id = id.Child("replications", row.Location)
			out = append(out, arm.Row[document]{ID: id, Doc: home(id, row)})
		}
	}
	return out, nil
}

// home is the replication that every registry has.
func home(id name.ResourceID, row meta.RegistryRow) document {
	return document{Type: TypeName, ID: id.String(), Name: id.Name(), Location: row.Location, Tags: map[string]string{},
		Properties: properties{State: "Succeeded", Status: status{DisplayStatus: "Ready"}, RegionEndpoint: true, ZoneRedundancy: "Disabled"}}
}

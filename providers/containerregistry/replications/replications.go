// SPDX-License-Identifier: Apache-2.0

// Package replications declares Microsoft.ContainerRegistry/registries/replications as far as it is true: the home region, to read. Clients list it
// to learn a registry's regions.
package replications

import (
	"errors"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

type document struct {
	Type       string            `json:"type"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Location   string            `json:"location" arm:"readonly"`
	Tags       map[string]string `json:"tags" arm:"readonly"`
	Properties properties        `json:"properties"`
}

type properties struct {
	State          string `json:"provisioningState" arm:"readonly"`
	Status         status `json:"status" arm:"readonly"`
	RegionEndpoint bool   `json:"regionEndpointEnabled" arm:"readonly"`
	ZoneRedundancy string `json:"zoneRedundancy" arm:"readonly" api:"2020-11-01-preview..; 2021-09-01.."`
}

type status struct {
	DisplayStatus string `json:"displayStatus"`
}

const typeName = "Microsoft.ContainerRegistry/registries/replications"

// Type declares the type.
func Type() arm.Resource {
	return &arm.Type[document]{
		Name: typeName, Display: "Replication", API: "2017-06-01-preview..; 2017-10-01..", Verbs: arm.ReadOnlyList,
		Rows: &arm.Rows[document]{
			Get: func(tx *arm.Tx, id name.ResourceID) (*document, error) {
				row, err := tx.Meta().RegistryByResource(id.Parent().String())
				if errors.Is(err, meta.ErrNotFound) || err == nil && !strings.EqualFold(row.Location, id.Name()) {
					return nil, nil
				}
				if err != nil {
					return nil, err
				}
				registry, err := name.ParseResourceID(row.ResourceID) // in the casing of its creation
				if err != nil {
					return nil, err
				}
				d := home(registry.Child("replications", row.Location), row)
				return &d, nil
			},
			List: list,
		},
	}
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
	return document{Type: typeName, ID: id.String(), Name: id.Name(), Location: row.Location, Tags: map[string]string{},
		Properties: properties{State: "Succeeded", Status: status{"Ready"}, RegionEndpoint: true, ZoneRedundancy: "Disabled"}}
}

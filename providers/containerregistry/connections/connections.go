// SPDX-License-Identifier: Apache-2.0

// Package connections is what a private endpoint's connection looks like from the side of its registry, wherever it is shown.
package connections

import (
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// TypeName is the full name of the connections' type.
const TypeName = "Microsoft.ContainerRegistry/registries/privateEndpointConnections"

// Most is how many connections a registry has. Source: Azure Container Registry, "Service tier features and limits", Premium.
const Most = 200

// Connection is the document of a connection.
type Connection struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Type       string     `json:"type"`
	Properties Properties `json:"properties"`
}

// Properties are a connection's.
type Properties struct {
	Endpoint Endpoint `json:"privateEndpoint" arm:"keep" stance:"echo" doc:"The private endpoint that the connection belongs to; it is never another one."`
	Link     Link     `json:"privateLinkServiceConnectionState" arm:"keep" stance:"acts" doc:"Approved: what enters by the endpoint's addresses reaches the registry. Otherwise it reaches nothing, and a change cuts what is open before it is answered."`
	State    string   `json:"provisioningState" arm:"readonly"`
}

// Endpoint refers to the private endpoint.
type Endpoint struct {
	ID string `json:"id" arm:"keep"`
}

// Link is the state of a connection.
type Link struct {
	Status      string `json:"status" enum:"Approved|Pending|Rejected|Disconnected" arm:"keep"`
	Description string `json:"description" max:"140"`
	Actions     string `json:"actionsRequired" enum:"None|Recreate" arm:"omitempty"`
}

// Of makes the document of an endpoint's row.
func Of(registry name.ResourceID, e meta.Endpoint) Connection {
	id := registry.Child("privateEndpointConnections", e.Connection)
	c := Connection{ID: id.String(), Name: e.Connection, Type: TypeName}
	c.Properties = Properties{Endpoint: Endpoint{e.ResourceID}, Link: Link{Status: e.Status, Description: e.Description}, State: "Succeeded"}
	if e.Actions != "None" {
		c.Properties.Link.Actions = e.Actions
	}
	return c
}

// Rows are the connections of a registry, by its identity. One that has been deleted here is the endpoint's memory alone.
func Rows(tx *meta.Tx, registry string) ([]meta.Endpoint, error) {
	all, err := tx.EndpointsOf(registry)
	return slices.DeleteFunc(all, func(e meta.Endpoint) bool { return e.Status == meta.EndpointDisconnected }), err
}

// Held refuses to let a private endpoint into a registry that is held.
func Held(row meta.RegistryRow, endpoint, meanwhile string) error {
	return fault.New(fault.Conflict, "Approving the connection of the private endpoint '%s' to the registry '%s' is not supported because this installation runs on a restored copy that nobody has confirmed. "+
		"An owner confirms it with 'embargo restore confirm'; %s.", endpoint, row.Name, meanwhile)
}

// Find is the connection of that name, in any casing. Errors: meta.ErrNotFound.
func Find(tx *meta.Tx, registry, connection string) (meta.Endpoint, error) {
	all, err := Rows(tx, registry)
	for _, e := range all {
		if strings.EqualFold(e.Connection, connection) {
			return e, err
		}
	}
	if err == nil {
		err = meta.ErrNotFound
	}
	return meta.Endpoint{}, err
}

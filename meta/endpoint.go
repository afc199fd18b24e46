// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// The states of a private endpoint's connection to its registry. Source: Microsoft.ContainerRegistry, PrivateLinkServiceConnectionState.
const (
	EndpointApproved     = "Approved"
	EndpointPending      = "Pending"
	EndpointRejected     = "Rejected"
	EndpointDisconnected = "Disconnected"
)

// Endpoint is a private endpoint, its connection to a registry, and the addresses of its network that it stands for: one row, so that address, name and door never disagree.
type Endpoint struct {
	// ID is random and never used again.
	ID string
	// ResourceID is the canonical ARM id of the Microsoft.Network/privateEndpoints resource.
	ResourceID string
	// Registry is the identity of the registry's row; it stays when the registry is gone, and no later registry of that name gets it.
	Registry string
	// Connection is the name of the registry's privateEndpointConnection.
	Connection string
	// Status is one of the states above; Description and Actions are what its approver wrote and "None" or "Recreate".
	Status, Description, Actions string
	// Network and Subnet are lower-case ARM ids.
	Network, Subnet string
	// Addresses are the endpoint's, the registry's member first.
	Addresses []EndpointAddress
}

// EndpointAddress is an address of the network and what answers there: Member is "registry" or "registry_data_<region>".
type EndpointAddress struct {
	Member  string
	Address netip.Addr
}

const endpointColumns = `id, resource_id, registry, connection, status, description, actions, network, subnet`

// PutEndpoint writes the row and its addresses, and the projection in the registry's row. It returns the registry's new epoch, 0 where the registry is gone. The caller has locked the
// registry's row (LockRegistry). Errors: a unique violation when an address is taken in the network.
func (tx *Tx) PutEndpoint(e Endpoint) (int64, error) {
	_, err := tx.Exec(`INSERT INTO private_endpoints (`+endpointColumns+`, resource_key, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
 ON CONFLICT (id) DO UPDATE SET resource_id = excluded.resource_id, connection = excluded.connection, status = excluded.status, description = excluded.description,
  actions = excluded.actions, network = excluded.network, subnet = excluded.subnet, resource_key = excluded.resource_key`,
		e.ID, e.ResourceID, e.Registry, e.Connection, e.Status, e.Description, e.Actions, e.Network, e.Subnet, strings.ToLower(e.ResourceID), Micros(tx.Now()))
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(`DELETE FROM private_addresses WHERE endpoint = $1`, e.ID); err != nil {
		return 0, err
	}
	for _, a := range e.Addresses {
		if _, err := tx.Exec(`INSERT INTO private_addresses (network, address, subnet, endpoint, member) VALUES ($1, $2, $3, $4, $5)`,
			e.Network, a.Address.String(), e.Subnet, e.ID, a.Member); err != nil {
			return 0, err
		}
	}
	return tx.projectEndpoints(e.Registry)
}

// MeasureEndpoints says of each endpoint of a registry whether it has an address for each member: its Actions are "None", else "Recreate". What decisions read does not change.
func (tx *Tx) MeasureEndpoints(registry string, members []string) error {
	all, err := tx.EndpointsOf(registry)
	if err != nil {
		return err
	}
	for _, e := range all {
		actions := "None"
		for _, m := range members {
			if !slices.ContainsFunc(e.Addresses, func(a EndpointAddress) bool { return a.Member == m }) {
				actions = "Recreate"
			}
		}
		if _, err := tx.Exec(`UPDATE private_endpoints SET actions = $1 WHERE id = $2 AND actions <> $1`, actions, e.ID); err != nil {
			return err
		}
	}
	return nil
}

// DeleteEndpoint removes the row and releases its addresses. It returns the registry's new epoch, 0 where the registry is gone.
func (tx *Tx) DeleteEndpoint(e Endpoint) (int64, error) {
	_, err := tx.Exec(`DELETE FROM private_addresses WHERE endpoint = $1`, e.ID)
	if err == nil {
		_, err = tx.Exec(`DELETE FROM private_endpoints WHERE id = $1`, e.ID)
	}
	if err != nil {
		return 0, err
	}
	return tx.projectEndpoints(e.Registry)
}

func (tx *Tx) projectEndpoints(registry string) (int64, error) {
	all, err := tx.approvedEndpoints(registry)
	if err != nil {
		return 0, err
	}
	ids := []string{}
	for _, e := range all {
		ids = append(ids, e.ID)
	}
	text, err := json.Marshal(ids)
	if err != nil {
		return 0, err
	}
	var epoch int64
	err = tx.Row(`UPDATE registries SET endpoints = $1, epoch = epoch + 1 WHERE id = $2 RETURNING epoch`, string(text), registry).Scan(&epoch)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return epoch, err
}

// Endpoints reads all rows in the order in which they were made.
func (tx *Tx) Endpoints() ([]Endpoint, error) {
	return tx.endpoints(`1 = 1 ORDER BY created_us, id`)
}

// EndpointsOf reads the rows of a registry, by its identity.
func (tx *Tx) EndpointsOf(registry string) ([]Endpoint, error) {
	return tx.endpoints(`registry = $1 ORDER BY resource_key`, registry)
}

func (tx *Tx) approvedEndpoints(registry string) ([]Endpoint, error) {
	return tx.endpoints(`registry = $1 AND status = $2 ORDER BY resource_key`, registry, EndpointApproved)
}

// EndpointsIn reads the rows of a network, by its lower-case ARM id.
func (tx *Tx) EndpointsIn(network string) ([]Endpoint, error) {
	return tx.endpoints(`network = $1 ORDER BY resource_key`, network)
}

// EndpointByResource reads the row by ARM id, in any casing. Errors: ErrNotFound.
func (tx *Tx) EndpointByResource(resourceID string) (Endpoint, error) {
	all, err := tx.endpoints(`resource_key = $1 ORDER BY resource_key`, strings.ToLower(resourceID))
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Endpoint{}, err
	}
	return all[0], nil
}

func (tx *Tx) endpoints(where string, args ...any) ([]Endpoint, error) {
	rows, err := tx.Query(`SELECT `+endpointColumns+` FROM private_endpoints WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Endpoint
	for rows.Next() {
		var e Endpoint
		if err := rows.Scan(&e.ID, &e.ResourceID, &e.Registry, &e.Connection, &e.Status, &e.Description, &e.Actions, &e.Network, &e.Subnet); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Addresses, err = tx.addresses(all[i].ID); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (tx *Tx) addresses(endpoint string) ([]EndpointAddress, error) {
	rows, err := tx.Query(`SELECT member, address FROM private_addresses WHERE endpoint = $1 ORDER BY member`, endpoint)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []EndpointAddress
	for rows.Next() {
		var a EndpointAddress
		var text string
		if err := rows.Scan(&a.Member, &text); err != nil {
			return nil, err
		}
		if a.Address, err = netip.ParseAddr(text); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// Addresses reads which addresses of a network are taken, in a subnet of it or (subnet "") in all.
func (tx *Tx) Addresses(network, subnet string) ([]netip.Addr, error) {
	rows, err := tx.Query(`SELECT address FROM private_addresses WHERE network = $1 AND ($2 = '' OR subnet = $3)`, network, subnet, subnet)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []netip.Addr
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

func endpoint(id, registry string, addresses ...string) meta.Endpoint {
	e := meta.Endpoint{ID: id, ResourceID: "/subscriptions/S/resourceGroups/Rg/providers/Microsoft.Network/privateEndpoints/My" + id, Registry: registry, Connection: "myx." + id,
		Status: meta.EndpointApproved, Description: "Auto-Approved", Actions: "None", Network: "/v", Subnet: "/v/s"}
	for i, a := range addresses {
		e.Addresses = append(e.Addresses, meta.EndpointAddress{Member: []string{"registry", "registry_data_westus"}[i], Address: netip.MustParseAddr(a)})
	}
	return e
}

// An endpoint comes back as it was written; what decisions read of a registry are its approved endpoints, and every write raises the epoch.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		write := func(fn func(tx *meta.Tx) (int64, error)) int64 {
			t.Helper()
			var epoch int64
			if err := db.Write(t.Context(), func(tx *meta.Tx) (err error) { epoch, err = fn(tx); return err }); err != nil {
				t.Fatal(err)
			}
			return epoch
		}
		last, err := putRow(t, db, row("x"))
		if err != nil {
			t.Fatal(err)
		}
		check := func(step string, epoch int64, ids ...string) {
			t.Helper()
			if err := db.Read(t.Context(), func(tx *meta.Tx) error {
				r, err := tx.RegistryByID("x")
				if epoch <= last || r.Epoch != epoch || !reflect.DeepEqual(r.Endpoints, ids) {
					t.Errorf("%s: epoch %d after %d, the row has %d; endpoints %q, want %q", step, epoch, last, r.Epoch, r.Endpoints, ids)
				}
				last = epoch
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		one, two := endpoint("1", "x", "10.0.0.4", "10.0.0.5"), endpoint("2", "x", "10.0.0.6")
		two.ResourceID = strings.Replace(two.ResourceID, "My2", "Another", 1) // by their ARM ids it is the first
		check("put", write(func(tx *meta.Tx) (int64, error) { return tx.PutEndpoint(one) }), "1")
		check("a second one", write(func(tx *meta.Tx) (int64, error) { return tx.PutEndpoint(two) }), "1", "2")
		if err := db.Read(t.Context(), func(tx *meta.Tx) error {
			byID, err := tx.EndpointByResource(strings.ToUpper(one.ResourceID))
			of, errOf := tx.EndpointsOf("x")
			in, errIn := tx.EndpointsIn("/v")
			none, errNone := tx.EndpointsIn("/other")
			taken, errTaken := tx.Addresses("/v", "/v/s")
			elsewhere, errElse := tx.Addresses("/v", "/v/other")
			if !reflect.DeepEqual(byID, one) || !reflect.DeepEqual(of, []meta.Endpoint{two, one}) || !reflect.DeepEqual(in, of) || len(none) != 0 || len(taken) != 3 || len(elsewhere) != 0 {
				t.Errorf("read %+v\n%+v\n%+v\n%v %v %v", byID, of, in, none, taken, elsewhere)
			}
			return errors.Join(err, errOf, errIn, errNone, errTaken, errElse)
		}); err != nil {
			t.Fatal(err)
		}
		if err := db.Write(t.Context(), func(tx *meta.Tx) error {
			_, err := tx.PutEndpoint(endpoint("3", "x", "10.0.0.6"))
			return err
		}); err == nil {
			t.Error("an address is given twice")
		}
		one.Status = meta.EndpointRejected
		check("rejected", write(func(tx *meta.Tx) (int64, error) { return tx.PutEndpoint(one) }), "2")
		if _, err := putRow(t, db, row("x")); err != nil { // a write of the registry leaves its endpoints
			t.Fatal(err)
		}
		check("deleted", write(func(tx *meta.Tx) (int64, error) { return tx.DeleteEndpoint(one) }), "2")
		if err := db.Write(t.Context(), func(tx *meta.Tx) error { return tx.DeleteRegistry("x") }); err != nil {
			t.Fatal(err)
		}
		two.Status = meta.EndpointDisconnected
		if epoch := write(func(tx *meta.Tx) (int64, error) { return tx.PutEndpoint(two) }); epoch != 0 {
			t.Errorf("the registry is gone, and its epoch is %d", epoch)
		}
		if epoch := write(func(tx *meta.Tx) (int64, error) { return tx.DeleteEndpoint(two) }); epoch != 0 {
			t.Errorf("the registry is gone, and its epoch is %d", epoch)
		}
		if err := db.Read(t.Context(), func(tx *meta.Tx) error {
			_, err := tx.EndpointByResource(two.ResourceID)
			left, more := tx.Addresses("/v", "")
			if !errors.Is(err, meta.ErrNotFound) || len(left) != 0 {
				t.Errorf("left: %v, %v", err, left)
			}
			return more
		}); err != nil {
			t.Fatal(err)
		}
	})
}

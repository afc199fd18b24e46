// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// row is a registry with every member set, so that a column which is not written or not read shows.
func row(id string) meta.RegistryRow {
	return meta.RegistryRow{
		ID: id, ResourceID: "/subscriptions/S/resourceGroups/Rg/providers/Microsoft.ContainerRegistry/registries/My" + id,
		Name: "my" + id, LoginServer: "my" + id + ".azurecr.localhost", Location: "westeurope", SKU: "Premium",
		Exports: true, PublicAccess: true, DefaultDeny: true,
		IPRules:             meta.NewRanges(netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")),
		BypassAzureServices: true, AdminEnabled: true, AnonymousPull: true, AbacMode: true, ArmTokens: true, DataEndpoint: true, RetentionDays: 7, SoftDeleteDays: 7,
		TokensValidFrom: time.Date(2024, 5, 6, 7, 8, 9, 123456000, time.UTC),
	}
}

func putRow(t *testing.T, db *meta.DB, r meta.RegistryRow) (epoch int64, err error) {
	t.Helper()
	err = db.Write(t.Context(), func(tx *meta.Tx) (err error) { epoch, err = tx.PutRegistry(r); return err })
	return epoch, err
}

// lookUps are the ways to a row, each in a casing that clients use.
func lookUps(tx *meta.Tx, r meta.RegistryRow) map[string]func() (meta.RegistryRow, error) {
	return map[string]func() (meta.RegistryRow, error){
		"identity":     func() (meta.RegistryRow, error) { return tx.RegistryByID(r.ID) },
		"lock":         func() (meta.RegistryRow, error) { return tx.LockRegistry(r.ID) },
		"resource":     func() (meta.RegistryRow, error) { return tx.RegistryByResource(r.ResourceID) },
		"RESOURCE":     func() (meta.RegistryRow, error) { return tx.RegistryByResource(strings.ToUpper(r.ResourceID)) },
		"name":         func() (meta.RegistryRow, error) { return tx.RegistryByName(r.Name) },
		"NAME":         func() (meta.RegistryRow, error) { return tx.RegistryByName(strings.ToUpper(r.Name)) },
		"login server": func() (meta.RegistryRow, error) { return tx.RegistryByLoginServer(r.LoginServer) },
		"LOGIN SERVER": func() (meta.RegistryRow, error) { return tx.RegistryByLoginServer(strings.ToUpper(r.LoginServer)) },
	}
}

// checkRow expects that every look-up in read-only and writing transactions gives want, or ErrNotFound.
func checkRow(t *testing.T, db *meta.DB, want meta.RegistryRow, there bool) {
	t.Helper()
	look := func(tx *meta.Tx) error {
		for by, get := range lookUps(tx, want) {
			got, err := get()
			switch {
			case there && (err != nil || !reflect.DeepEqual(got, want)):
				t.Errorf("by %s: %v\n got %+v\nwant %+v", by, err, got, want)
			case !there && !errors.Is(err, meta.ErrNotFound):
				t.Errorf("by %s: found %+v, %v", by, got, err)
			}
		}
		return nil
	}
	if err := errors.Join(db.Read(t.Context(), look), db.Write(t.Context(), look)); err != nil {
		t.Fatal(err)
	}
}

// A row comes back as it was written, by each of its names; each column is its own.
func TestRegistryRow(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		variants := []meta.RegistryRow{row("x"), {ID: "x", ResourceID: "/a", Name: "n", LoginServer: "l"}}
		for field := range reflect.TypeFor[meta.RegistryRow]().Fields() {
			if field.Type.Kind() == reflect.Bool && field.Name != "Held" { // HoldRegistry's
				one := variants[1]
				reflect.ValueOf(&one).Elem().FieldByIndex(field.Index).SetBool(true)
				variants = append(variants, one)
			}
		}
		other := row("other")
		other.Epoch = 1
		for n, r := range append([]meta.RegistryRow{other}, variants...) {
			epoch, err := putRow(t, db, r)
			if err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				r.Epoch = epoch
				checkRow(t, db, r, true)
			}
		}
		other.Epoch = 2
		checkRow(t, db, other, true)
	})
}

// A deleted row is gone by every name, and the names are free for a registry with another identity.
func TestDeleteRegistry(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		old, kept := row("x"), row("kept")
		for _, r := range []meta.RegistryRow{old, kept} {
			if _, err := putRow(t, db, r); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // of one that is gone, too
			if err := db.Write(t.Context(), func(tx *meta.Tx) error { return tx.DeleteRegistry("x") }); err != nil {
				t.Fatal(err)
			}
			checkRow(t, db, old, false)
		}
		again := old
		again.ID = "another"
		epoch, err := putRow(t, db, again)
		if err != nil {
			t.Fatal(err)
		}
		again.Epoch, kept.Epoch = epoch, 1
		checkRow(t, db, again, true)
		checkRow(t, db, kept, true)
	})
}

// No two registries share a name, a login server or a resource id in any casing; the refused one leaves nothing.
func TestRegistryNamesAreUnique(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		first := row("x")
		if _, err := putRow(t, db, first); err != nil {
			t.Fatal(err)
		}
		first.Epoch = 1
		for what, take := range map[string]func(r *meta.RegistryRow){
			"name":         func(r *meta.RegistryRow) { r.Name = first.Name },
			"login server": func(r *meta.RegistryRow) { r.LoginServer = first.LoginServer },
			"resource id":  func(r *meta.RegistryRow) { r.ResourceID = strings.ToUpper(first.ResourceID) },
		} {
			second := row("y")
			take(&second)
			if _, err := putRow(t, db, second); err == nil {
				t.Errorf("two registries share the %s", what)
			}
		}
		checkRow(t, db, first, true)
		checkRow(t, db, row("y"), false)
	})
}

// The epoch of a row grows with every write, whatever epoch its writer knew.
func TestRegistryEpochGrows(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r := row("x")
		for _, step := range []struct{ knew, want int64 }{{0, 1}, {0, 2}, {2, 3}, {1, 4}, {10, 11}, {3, 12}} {
			r.Epoch = step.knew
			if epoch, err := putRow(t, db, r); err != nil || epoch != step.want {
				t.Errorf("a writer that knew epoch %d gets %d, %v; want %d", step.knew, epoch, err, step.want)
			}
			r.Epoch = step.want
			checkRow(t, db, r, true)
		}
	})
}

// Changes that lock the row first follow one another: each sees what the one before committed.
func TestLockRegistryOrdersChanges(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 10
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r := row("x")
		r.Location = "0"
		if _, err := putRow(t, db, r); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range each {
					err := db.Write(t.Context(), func(tx *meta.Tx) error {
						r, err := tx.LockRegistry("x")
						if err != nil {
							return err
						}
						n, err := strconv.Atoi(r.Location)
						if err != nil {
							return err
						}
						r.Location = strconv.Itoa(n + 1)
						_, err = tx.PutRegistry(r)
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		r.Location, r.Epoch = strconv.Itoa(writers*each), writers*each+1
		checkRow(t, db, r, true)
	})
}

func TestRegistriesInOrder(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		for _, n := range []int{3, 1, 2} {
			if _, err := putRow(t, db, row(fmt.Sprint(n))); err != nil {
				t.Fatal(err)
			}
		}
		var got []meta.RegistryRow
		if err := db.Read(t.Context(), func(tx *meta.Tx) (err error) { got, err = tx.Registries(); return err }); err != nil {
			t.Fatal(err)
		}
		var want []meta.RegistryRow
		for n := 1; n <= 3; n++ {
			r := row(fmt.Sprint(n))
			r.Epoch = 1
			want = append(want, r)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v", got)
		}
	})
}

// Times keep their microsecond, and no time stays no time.
func TestMicros(t *testing.T) {
	t.Parallel()
	at := time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.FixedZone("", 3600))
	if got := meta.FromMicros(meta.Micros(at)); !got.Equal(at.Truncate(time.Microsecond)) || got.Location() != time.UTC {
		t.Errorf("%v became %v", at, got)
	}
	if us := meta.Micros(time.Time{}); us != 0 || !meta.FromMicros(0).IsZero() {
		t.Errorf("no time became %d and %v", us, meta.FromMicros(0))
	}
}

// A held row reads as closed by each of its names, whatever is written to it, until it is released; its epoch rises each time, above the floor.
func TestHoldRegistry(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r := row("x")
		if _, err := putRow(t, db, r); err != nil {
			t.Fatal(err)
		}
		hold := func(held bool, floor, want int64) {
			t.Helper()
			err := db.Write(t.Context(), func(tx *meta.Tx) (err error) { r.Epoch, err = tx.HoldRegistry("x", held, floor); return err })
			if err != nil || r.Epoch != want {
				t.Fatalf("epoch %d, %v; want %d", r.Epoch, err, want)
			}
		}
		e := endpoint("1", "x")
		if err := db.Write(t.Context(), func(tx *meta.Tx) error { _, err := tx.PutEndpoint(e); return err }); err != nil {
			t.Fatal(err)
		}
		r.Endpoints = []string{e.ID}
		hold(true, 40, 41)
		closed := r
		closed.Held, closed.Exports, closed.PublicAccess, closed.Endpoints = true, false, false, nil
		checkRow(t, db, closed, true)
		var err error
		if closed.Epoch, err = putRow(t, db, r); err != nil || closed.Epoch != 42 {
			t.Fatalf("epoch %d, %v", closed.Epoch, err)
		}
		checkRow(t, db, closed, true)
		if err := db.Read(t.Context(), func(tx *meta.Tx) error {
			own, err := tx.OwnPolicies()
			if want := []meta.OwnPolicy{{Registry: r.Name, Exports: true, PublicAccess: true, Endpoints: []string{e.ResourceID}}}; !reflect.DeepEqual(own, want) {
				t.Errorf("its own policy: %+v, want %+v", own, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		hold(false, 7, 43)
		checkRow(t, db, r, true)
		err = db.Write(t.Context(), func(tx *meta.Tx) error { _, err := tx.HoldRegistry("absent", true, 0); return err })
		if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("holding an absent row: %v", err)
		}
	})
}

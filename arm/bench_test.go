// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

// Whole exchanges without the network, on each database: go test ./arm -run - -bench .
func BenchmarkExchange(b *testing.B) {
	const vault = "/subscriptions/{sub}/resourceGroups/g/providers/Fake.Bank/vaults/vault1?api-version=2021-09-01"
	for _, kind := range metatest.Kinds {
		bench := newBench(b, metatest.Open(b, metatest.URL(b, kind)))
		bench.Must(b, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", `{"location":"westus"}`)
		bench.Must(b, 201, "PUT", vault, `{"location":"westus","sku":{"name":"Basic"}}`)
		b.Run("GET/"+kind, func(b *testing.B) {
			for b.Loop() {
				bench.Must(b, 200, "GET", vault, "")
			}
		})
		b.Run("PATCH/"+kind, func(b *testing.B) {
			for b.Loop() {
				bench.Must(b, 200, "PATCH", vault, `{"tags":{"a":"1"}}`)
			}
		})
		group := name.Group(bench.People.Subscription, "g")
		err := bench.Engine.Write(context.Background(), identity.Caller{ID: "x"}, "", func(tx *arm.Tx) error {
			for n := range 10_000 {
				var v vault10k
				v.SKU.Name, v.Location = "Basic", "westus"
				if err := tx.Put(group.In("Fake.Bank", "vaults", fmt.Sprintf("listed%d", n)), v); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Run("LIST of 10000/"+kind, func(b *testing.B) {
			for b.Loop() {
				for next := "/subscriptions/{sub}/providers/Fake.Bank/vaults?api-version=2021-09-01"; next != ""; {
					next, _ = bench.Must(b, 200, "GET", next, "")["nextLink"].(string)
				}
			}
		})
	}
}

type vault10k struct {
	SKU struct {
		Name string `json:"name"`
	} `json:"sku"`
	Location string `json:"location"`
}

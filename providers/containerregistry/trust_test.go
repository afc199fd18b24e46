// SPDX-License-Identifier: Apache-2.0

package containerregistry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/trust"
	"github.com/embargo-registry/embargo/trust/trusttest"
)

const storeVersion = "2026-11-01"

// stores are the trust stores that pulls of a registry are judged by, and what their content is called.
func (r *rooms) stores(t *testing.T, registry string) (list []trust.Store, generation string) {
	t.Helper()
	err := r.DB.Read(t.Context(), func(tx *meta.Tx) (err error) {
		if list, err = trust.Stores(tx, registry); err == nil {
			generation, err = trust.Generation(tx, registry)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, generation
}

// TestTrustStores: what is written is what pulls are judged by, from the commit on, and goes with its registry; each change is on record.
func TestTrustStores(t *testing.T) {
	t.Parallel()
	eachRooms(t, func(t *testing.T, r *rooms) {
		r.make(t, "registryone", "Premium", `"policies":{"trustPolicy":{"status":"enabled"}}`)
		row, _ := r.row(t, "registryone")
		if !row.Trust {
			t.Error("the policy is not on the row that pulls are judged by")
		}
		const child = "/providers/Embargo.Containment/trustStores/"
		one, two := trusttest.NewAuthority(t, "one"), trusttest.NewAuthority(t, "two")
		body := func(identity string, of ...*trusttest.Authority) string {
			var list []string
			for _, a := range of {
				list = append(list, fmt.Sprintf("%q", trusttest.PEM(a.Certificate)))
			}
			return fmt.Sprintf(`{"properties":{"certificates":[%s],"trustedIdentities":[%q]}}`, strings.Join(list, ","), identity)
		}
		if _, none := r.stores(t, row.ID); none != "" {
			t.Errorf("without a store the generation is %q", none)
		}
		r.Must(t, 201, "PUT", path("registryone", storeVersion, child+"release"), body("*", one))
		list, first := r.stores(t, row.ID)
		if len(list) != 1 || list[0].Name != "release" || len(list[0].Certificates) != 1 || !list[0].Certificates[0].Equal(one.Certificate) {
			t.Errorf("the stores are %+v", list)
		}
		r.Must(t, 200, "PUT", path("registryone", storeVersion, child+"RELEASE"), body("x509.subject: C=US, ST=WA, O=Contoso", one, two))
		list, second := r.stores(t, row.ID)
		if len(list) != 1 || len(list[0].Certificates) != 2 || second == first {
			t.Errorf("after a change the stores are %+v, generation %s as before", list, second)
		}
		r.Must(t, 201, "PUT", path("registryone", storeVersion, child+"other"), body("*", two))
		if list, third := r.stores(t, row.ID); len(list) != 2 || third == second {
			t.Errorf("with another there are %d stores, generation %s", len(list), third)
		}
		if a := r.Call("owner", "DELETE", path("registryone", storeVersion, child+"other"), ""); a.StatusCode != 200 {
			t.Errorf("delete: %d", a.StatusCode)
		}
		if list, again := r.stores(t, row.ID); len(list) != 1 || again != second {
			t.Errorf("without it there are %d stores, generation %s", len(list), again)
		}
		if a := r.Call("owner", "DELETE", path("registryone", newest), ""); a.StatusCode != 200 {
			t.Fatalf("delete: %d", a.StatusCode)
		}
		if list, _ := r.stores(t, row.ID); len(list) != 0 {
			t.Errorf("%d stores are left of a registry that is gone", len(list))
		}
		entries, err := r.Audit.Read(t.Context(), audit.Query{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		changes := map[string]int{}
		for _, e := range entries {
			if strings.HasPrefix(e.Record.Action, "Embargo.Containment/trustStores/") && e.Record.Outcome == audit.Succeeded {
				changes[e.Record.Action]++
			}
		}
		if changes["Embargo.Containment/trustStores/write"] != 3 || changes["Embargo.Containment/trustStores/delete"] != 2 {
			t.Errorf("on record are %v", changes)
		}
	})
}

// TestMostTrustStores: a registry has so many stores, a store so many certificates, and no more.
func TestMostTrustStores(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "registryone", "Basic", "")
	one := trusttest.PEM(trusttest.NewAuthority(t, "one").Certificate)
	put := func(store string, certificates int) int {
		text := strings.Repeat(fmt.Sprintf(",%q", one), certificates)[1:]
		return r.Call("owner", "PUT", path("registryone", storeVersion, "/providers/Embargo.Containment/trustStores/", store), `{"properties":{"certificates":[`+text+`],"trustedIdentities":["*"]}}`).StatusCode
	}
	if got := put("many", trust.MostCertificates+1); got != 400 {
		t.Errorf("too many certificates: %d", got)
	}
	for i := range trust.MostStores {
		if got := put(fmt.Sprintf("store-%d", i), 1+(trust.MostCertificates-1)*(1-min(i, 1))); got != 201 {
			t.Fatalf("store %d: %d", i, got)
		}
	}
	if got := put("more", 1); got != 400 {
		t.Errorf("one store more: %d", got)
	}
	if got := put("store-1", 2); got != 200 {
		t.Errorf("a change of one: %d", got)
	}
}

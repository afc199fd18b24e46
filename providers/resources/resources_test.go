// SPDX-License-Identifier: Apache-2.0

package resources_test

import (
	"encoding/json"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/providers/resources"
)

type shelf struct {
	SKU        shelfSKU          `json:"sku"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location" arm:"required"`
	Tags       map[string]string `json:"tags"`
	Properties struct {
		Nailed bool   `json:"nailed"`
		Label  string `json:"label" arm:"secret,omitempty"`
	} `json:"properties"`
}

type shelfSKU struct {
	Name string `json:"name" default:"Wood"`
}

type book struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Pages int `json:"pages"`
	} `json:"properties"`
}

// declare has, beside the namespace under test, shelves with books; a nailed shelf refuses to be deleted.
func declare(s *identity.Service) []arm.Namespace {
	return []arm.Namespace{resources.Namespace(resources.Options{Identity: s}), {
		Name: "Fake.Library", Versions: arm.Versions{List: []string{"2020-01-01", "2021-01-01-preview", "2022-01-01"}},
		Types: []arm.Resource{
			&arm.Type[shelf]{Name: "Fake.Library/shelves", Verbs: arm.AllVerbs, Admit: func(w arm.World, c arm.Change[shelf]) []*fault.Fault {
				if c.Want == nil && c.Was.Properties.Nailed {
					return []*fault.Fault{fault.New(fault.Conflict, "The shelf '%s' is nailed to the wall.", c.ID.Name())}
				}
				return nil
			}},
			&arm.Type[book]{Name: "Fake.Library/shelves/books", API: "2021-01-01-preview..", Verbs: arm.AllButPatch},
		},
	}}
}

// Whole exchanges, as text: testdata holds what each request answers.
func TestWire(t *testing.T) { armtest.Scripts(t, "testdata/*.txtar", declare) }

// Who may read one group sees its subscription, that group and what is in it, and nothing of the others.
func TestListsHoldWhatTheCallerMayRead(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := armtest.New(t, open(), declare)
		for _, g := range []string{"a", "b", "c", "d", "e"} {
			b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/"+g+"?api-version=2021-04-01", `{"location":"westus"}`)
			b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/"+g+"/providers/Fake.Library/shelves/s"+g+"?api-version=2022-01-01", `{"location":"westus"}`)
		}
		b.Grant(t, "stranger", identity.RoleReader, name.Group(b.People.Subscription, "D"))
		for path, want := range map[string]string{
			"/subscriptions?api-version=2022-12-01":                                                       b.People.Subscription,
			"/subscriptions/{sub}/resourceGroups?api-version=2021-04-01":                                  "d",
			"/subscriptions/{sub}/resources?api-version=2021-04-01":                                       "sd",
			"/subscriptions/{sub}/providers/Fake.Library/shelves?api-version=2022-01-01":                  "sd",
			"/subscriptions/{sub}/resourceGroups/d/providers/Fake.Library/shelves?api-version=2022-01-01": "sd",
		} {
			r := b.Call("stranger", "GET", path, "")
			var list struct {
				Value []struct{ Name, SubscriptionID string }
			}
			if err := json.NewDecoder(r.Body).Decode(&list); err != nil || r.StatusCode != 200 || len(list.Value) != 1 || list.Value[0].Name+list.Value[0].SubscriptionID != want {
				t.Errorf("%s: %d %v %v", path, r.StatusCode, list, err)
			}
		}
		for path, want := range map[string]int{
			"/subscriptions/{sub}?api-version=2022-12-01":                                                   200,
			"/subscriptions/{sub}/resourceGroups/d?api-version=2021-04-01":                                  200,
			"/subscriptions/{sub}/resourceGroups/a?api-version=2021-04-01":                                  403,
			"/subscriptions/{sub}/resourceGroups/a/providers/Fake.Library/shelves?api-version=2022-01-01":   403,
			"/subscriptions/{sub}/resourceGroups/a/providers/Fake.Library/shelves/x?api-version=2022-01-01": 403, // absent, and not told so
		} {
			if r := b.Call("stranger", "GET", path, ""); r.StatusCode != want {
				t.Errorf("%s: %d, want %d", path, r.StatusCode, want)
			}
		}
	})
}

// The locations are Azure's, with what az shows of them.
func TestLocations(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := armtest.New(t, open(), declare)
		list, _ := b.Must(t, 200, "GET", "/subscriptions/{sub}/locations?api-version=2019-11-01", "")["value"].([]any)
		for _, l := range list {
			m, _ := l.(map[string]any)
			if m["name"] == "westus" && m["displayName"] == "West US" && m["regionalDisplayName"] == "(US) West US" {
				return
			}
		}
		t.Errorf("no West US among %d locations", len(list))
	})
}

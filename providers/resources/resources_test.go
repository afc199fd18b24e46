// SPDX-License-Identifier: Apache-2.0

package resources_test

import (
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
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

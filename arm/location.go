// SPDX-License-Identifier: Apache-2.0

package arm

import "strings"

// Location is a region as /locations shows it.
type Location struct {
	Name     string // westus
	Display  string // West US
	Regional string // (US) West US
	Group    string // US
}

// normalLocation makes "West US" westus.
func normalLocation(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }

// Locations are the regions that the engine accepts.
func (e *Engine) Locations() []Location { return e.o.Locations }

func (e *Engine) locationNames() []string {
	names := make([]string, len(e.o.Locations))
	for i, l := range e.o.Locations {
		names[i] = l.Name
	}
	return names
}

// PublicLocations are Azure's public regions, by their display names.
func PublicLocations() []Location {
	var out []Location
	for _, group := range []struct{ name, regions string }{
		{"US", "East US,East US 2,South Central US,West US 2,West US 3,Central US,North Central US,West US,West Central US"},
		{"Europe", "North Europe,Sweden Central,UK South,West Europe,France Central,Germany West Central,Italy North,Norway East,Poland Central,Spain Central,Switzerland North,France South,Germany North,Norway West,Sweden South,Switzerland West,UK West,Austria East,Belgium Central,Denmark East"},
		{"Asia Pacific", "Australia East,Southeast Asia,Central India,East Asia,Indonesia Central,Japan East,Japan West,Korea Central,Malaysia West,New Zealand North,Australia Central,Australia Central 2,Australia Southeast,Jio India West,Jio India Central,Korea South,South India,West India"},
		{"Africa", "South Africa North,South Africa West"},
		{"Middle East", "Israel Central,Qatar Central,UAE North,UAE Central"},
		{"Canada", "Canada Central,Canada East"},
		{"South America", "Brazil South,Brazil Southeast"},
		{"Mexico", "Mexico Central"},
		{"Chile", "Chile Central"},
	} {
		for display := range strings.SplitSeq(group.regions, ",") {
			out = append(out, Location{Name: normalLocation(display), Display: display, Regional: "(" + group.name + ") " + display, Group: group.name})
		}
	}
	return out
}

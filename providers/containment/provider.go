// SPDX-License-Identifier: Apache-2.0

// Package containment declares the namespace Embargo.Containment: what Azure has no type for. Its types extend those of other namespaces.
package containment

import (
	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/providers/containment/truststores"
)

// Namespace declares Embargo.Containment.
func Namespace() arm.Namespace {
	return arm.Namespace{
		Name: "Embargo.Containment", Display: "Embargo Containment",
		Versions: arm.Versions{List: []string{"2026-11-01"}},
		Types:    Types(),
	}
}

// Types are the declared types.
func Types() []arm.Resource { return []arm.Resource{truststores.Type()} }

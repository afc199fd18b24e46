// SPDX-License-Identifier: Apache-2.0

// Package network declares the namespace Microsoft.Network as far as it accompanies a registry: virtual networks, private endpoints, private DNS zones.
package network

import (
	"context"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/providers/network/networkinterfaces"
	"github.com/embargo-registry/embargo/providers/network/networksecuritygroups"
	"github.com/embargo-registry/embargo/providers/network/privatednszones"
	"github.com/embargo-registry/embargo/providers/network/privateendpoints"
	"github.com/embargo-registry/embargo/providers/network/virtualnetworks"
	"github.com/embargo-registry/embargo/providers/network/zonegroups"
)

// versions are advertised, newest first; others are served in the same shape.
var versions = []string{"2025-01-01", "2024-07-01", "2024-05-01", "2024-01-01", "2023-11-01", "2023-09-01", "2023-04-01", "2022-11-01", "2022-07-01", "2022-01-01",
	"2021-08-01", "2021-05-01", "2020-11-01", "2020-06-01", "2018-09-01"}

// Options configure the namespace.
type Options struct {
	// Suffix is the registries' domain, without a leading dot.
	Suffix string
	// Fence makes a committed change of a registry's row hold for what is under way.
	Fence func(ctx context.Context, registry string, epoch int64) error
}

// Namespace declares Microsoft.Network.
func Namespace(o Options) arm.Namespace {
	return arm.Namespace{
		Name: "Microsoft.Network", Display: "Microsoft Network",
		Versions: arm.Versions{List: append([]string{}, versions...), Since: "2018-01-01"},
		Types:    Types(o),
		Routes:   privatednszones.Routes(),
	}
}

// Types are the declared types.
func Types(o Options) []arm.Resource {
	types := []arm.Resource{
		networkinterfaces.Type(),
		networksecuritygroups.Type(),
		privateendpoints.Type(privateendpoints.Options{Fence: o.Fence}),
		zonegroups.Type(zonegroups.Options{Suffix: o.Suffix}),
		virtualnetworks.Type(),
		virtualnetworks.Subnets(),
	}
	return append(types, privatednszones.Types()...)
}

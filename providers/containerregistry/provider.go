// SPDX-License-Identifier: Apache-2.0

// Package containerregistry declares the namespace Microsoft.ContainerRegistry: its api-versions, and its types, a line each. What is not here
// (tasks, connected registries, import pipelines, pipeline runs) does not exist and is refused by the engine.
package containerregistry

import (
	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/providers/containerregistry/cacherules"
	"github.com/embargo-registry/embargo/providers/containerregistry/credentialsets"
	"github.com/embargo-registry/embargo/providers/containerregistry/exportpipelines"
	"github.com/embargo-registry/embargo/providers/containerregistry/privateendpointconnections"
	"github.com/embargo-registry/embargo/providers/containerregistry/registries"
	"github.com/embargo-registry/embargo/providers/containerregistry/replications"
	"github.com/embargo-registry/embargo/providers/containerregistry/scopemaps"
	"github.com/embargo-registry/embargo/providers/containerregistry/tokens"
	"github.com/embargo-registry/embargo/providers/containerregistry/webhooks"
)

// versions are all api-versions that the service has had, newest first.
var versions = []string{
	"2026-09-01-preview", "2026-03-01-preview", "2026-01-01-preview", "2025-12-01-preview", "2025-11-01", "2025-09-01-preview", "2025-06-01-preview",
	"2025-05-01-preview", "2025-04-01", "2025-03-01-preview", "2024-11-01-preview", "2024-01-01-preview", "2023-11-01-preview", "2023-08-01-preview",
	"2023-07-01", "2023-06-01-preview", "2023-01-01-preview", "2022-12-01", "2022-02-01-preview", "2021-12-01-preview", "2021-09-01",
	"2021-08-01-preview", "2021-06-01-preview", "2020-11-01-preview", "2019-12-01-preview", "2019-05-01", "2019-05-01-preview", "2017-10-01",
	"2017-06-01-preview", "2017-03-01",
}

// Options configure the namespace.
type Options struct {
	registries.Options
	Webhooks       webhooks.Options
	CacheRules     cacherules.Options
	CredentialSets credentialsets.Options
}

// Namespace declares Microsoft.ContainerRegistry.
func Namespace(o Options) arm.Namespace {
	return arm.Namespace{
		Name: "Microsoft.ContainerRegistry", Display: "Microsoft Container Registry",
		Versions: arm.Versions{List: append([]string{}, versions...), Newer: true},
		Types:    Types(o),
		Actions:  []arm.Action{registries.Check(o.Options)},
	}
}

// Types are the declared types.
func Types(o Options) []arm.Resource {
	return []arm.Resource{
		registries.Type(o.Options, tokens.Generate(o.Identity)),
		cacherules.Type(o.CacheRules),
		credentialsets.Type(o.CredentialSets),
		exportpipelines.Type(o.Identity),
		privateendpointconnections.Type(privateendpointconnections.Options{Fence: o.Fence}),
		replications.Type(),
		scopemaps.Type(o.Identity),
		tokens.Type(o.Identity),
		webhooks.Type(o.Webhooks),
	}
}

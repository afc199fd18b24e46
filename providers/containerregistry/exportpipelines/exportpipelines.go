// SPDX-License-Identifier: Apache-2.0

// Package exportpipelines declares Microsoft.ContainerRegistry/registries/exportPipelines: definitions of where a registry's artifacts could
// be exported to. A registry with exports disabled has none and gets none.
package exportpipelines

import (
	"net/url"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/providers/containerregistry/managed"
)

type document struct {
	Type       string            `json:"type"`
	Identity   *managed.Identity `json:"identity"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Location   string            `json:"location" arm:"omitempty" stance:"echo" doc:"A region's name; the pipeline has none of its own."`
	SystemData arm.SystemData    `json:"systemData"`
	Properties properties        `json:"properties"`
}

type properties struct {
	Target  target   `json:"target" arm:"required"`
	Options []string `json:"options" arm:"omitempty" enum:"OverwriteTags|OverwriteBlobs|DeleteSourceBlobOnSuccess|ContinueOnErrors" stance:"echo" doc:"Kept for the runs of a pipeline, which are not offered yet."`
	State   string   `json:"provisioningState" arm:"readonly"`
}

type target struct {
	Type        string `json:"type" enum:"AzureStorageBlobContainer" default:"AzureStorageBlobContainer" stance:"echo"`
	URI         string `json:"uri" arm:"required" stance:"echo" doc:"https URL of a blob container."`
	KeyVaultURI string `json:"keyVaultUri" arm:"omitempty" stance:"echo" doc:"https URL of the secret with the container's SAS token."`
	AccessMode  string `json:"storageAccessMode" api:"2025-06-01-preview.." enum:"SasToken|ManagedIdentity" default:"SasToken" stance:"echo"`
}

// Type declares the type.
func Type(ids *identity.Service) arm.Resource {
	return &arm.Type[document]{
		Name: "Microsoft.ContainerRegistry/registries/exportPipelines", Display: "Export pipeline", API: "2019-12-01-preview..", Verbs: arm.AllButPatch,
		Names:   arm.Names{Min: 5, Max: 50, Pattern: `[a-zA-Z0-9]*`, Text: "An export pipeline's name has 5 to 50 letters and digits."},
		Answers: arm.Answers{Created: 200},
		Admit:   admit,
		Apply: func(tx *arm.Tx, c arm.Change[document]) error {
			if c.Want == nil {
				return nil
			}
			if err := held(tx, c.ID); err != nil {
				return err
			}
			tenant, err := ids.Tenant(tx.Meta())
			if err != nil {
				return err
			}
			var was *managed.Identity
			if c.Was != nil {
				was = c.Was.Identity
			}
			c.Want.Identity = managed.Fill(c.Want.Identity, was, tenant, tx.NewID)
			c.Want.Properties.State = "Succeeded"
			return nil
		},
		View: func(_ arm.View, d *document) { d.Identity.Lower() },
	}
}

// held refuses while the registry lets nothing out because the installation is a restored copy that nobody has confirmed.
func held(tx *arm.Tx, id name.ResourceID) error {
	row, err := tx.Meta().RegistryByResource(id.Parent().String())
	if err == nil && row.Held {
		err = fault.New(fault.Conflict, "Creating the export pipeline '%s' is not supported because this installation runs on a restored copy that nobody has confirmed. "+
			"An owner confirms it with 'embargo restore confirm'.", id.Name())
	}
	return err
}

// admit: E10 of the export policy, Premium, and a target that could be one.
func admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return nil
	}
	var registry struct {
		SKU        struct{ Name string } `json:"sku"`
		Properties struct {
			Policies struct {
				Export struct{ Status string } `json:"exportPolicy"`
			} `json:"policies"`
		} `json:"properties"`
	}
	name := c.ID.Parent().Name()
	var faults []*fault.Fault
	if !w.Get(c.ID.Parent(), &registry) {
		return []*fault.Fault{fault.New(fault.ParentResourceNotFound, "The registry '%s' was not found.", name)}
	}
	if registry.SKU.Name != "Premium" {
		faults = append(faults, fault.New(fault.BadRequest, "Export pipelines are not supported for the SKU %s of the registry '%s'; they need Premium.", registry.SKU.Name, name).At(c.ID.Parent().String()))
	}
	if registry.Properties.Policies.Export.Status == "disabled" {
		faults = append(faults, fault.New(fault.BadRequest,
			"Creating the export pipeline '%s' is not supported because the registry '%s' has exports disabled. An administrator of the registry can set properties.policies.exportPolicy.status to 'enabled' first.",
			c.ID.Name(), name).At(c.ID.Parent().String()))
	}
	return append(faults, admitTarget(c.Want.Properties.Target)...)
}

func admitTarget(t target) []*fault.Fault {
	var faults []*fault.Fault
	u, err := url.Parse(t.URI)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || len(strings.Split(strings.Trim(u.Path, "/"), "/")) != 1 || strings.Trim(u.Path, "/") == "" {
		faults = append(faults, fault.New(fault.InvalidParameter, "The target's uri must be the https URL of a blob container, such as https://account.blob.core.windows.net/container.").
			At("properties.target.uri"))
	}
	if t.AccessMode != "ManagedIdentity" {
		k, err := url.Parse(t.KeyVaultURI)
		if err != nil || k.Scheme != "https" || k.Host == "" {
			faults = append(faults, fault.New(fault.InvalidParameter, "The target's keyVaultUri must be the https URL of the secret with the container's SAS token.").
				At("properties.target.keyVaultUri"))
		}
	}
	return faults
}

// SPDX-License-Identifier: Apache-2.0

package registries

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/providers/containerregistry/connections"
)

const (
	premium  = "Premium"
	enabled  = "enabled"
	disabled = "disabled"
)

// Pipelines is the type whose existence forbids that exports are disabled.
const Pipelines = "Microsoft.ContainerRegistry/registries/exportPipelines"

// exportsPath is the JSON path of the export policy.
const exportsPath = "properties.policies.exportPolicy.status"

// admit judges the merged final state of a registry. It is pure.
func admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return nil // a deletion lets nothing out
	}
	p := &c.Want.Properties
	var faults []*fault.Fault
	if p.Policies.Export.Status == disabled {
		faults = admitDisabled(w, c)
	}
	if p.PublicAccess == "Disabled" && c.Want.SKU.Name != premium {
		faults = append(faults, fault.New(fault.DisablingPublicNetworkNotSupported,
			"Disabling public network access is not supported for the SKU %s. For more information, please visit https://aka.ms/acr/private-link.", c.Want.SKU.Name).
			At("properties.publicNetworkAccess"))
	}
	if p.Policies.Quarantine.Status == enabled && c.Want.SKU.Name != premium {
		faults = append(faults, fault.New(fault.BadRequest, "The quarantine policy is not supported for the SKU %s of the registry '%s'; it needs Premium.", c.Want.SKU.Name, c.ID.Name()).
			At("properties.policies.quarantinePolicy.status"))
	}
	if p.Policies.Trust.Status == enabled && c.Want.SKU.Name != premium {
		faults = append(faults, fault.New(fault.BadRequest, "The trust policy is not supported for the SKU %s of the registry '%s'; it needs Premium.", c.Want.SKU.Name, c.ID.Name()).
			At("properties.policies.trustPolicy.status"))
	}
	if p.Policies.Retention.Status == enabled && c.Want.SKU.Name != premium {
		faults = append(faults, fault.New(fault.BadRequest, "The retention policy is not supported for the SKU %s of the registry '%s'; it needs Premium.", c.Want.SKU.Name, c.ID.Name()).
			At("properties.policies.retentionPolicy.status"))
	}
	if p.Policies.Retention.Status == enabled && p.Policies.SoftDelete.Status == enabled {
		faults = append(faults, fault.New(fault.BadRequest, "The registry '%s' can't have the retention policy and the soft delete policy enabled together: disable one of them.", c.ID.Name()).
			At("properties.policies.softDeletePolicy.status"))
	}
	faults = append(faults, admitReplicas(w, c)...)
	if links := w.Children(c.ID, connections.TypeName); len(links) > 0 && c.Want.SKU.Name != premium {
		var ids []string
		for _, it := range links {
			ids = append(ids, it.ID.String())
		}
		faults = append(faults, fault.New(fault.BadRequest, "The registry '%s' can't have the SKU %s while it has private endpoint connections, which need Premium. Delete their private endpoints, or the connections, first: az network private-endpoint-connection delete --id %s",
			c.ID.Name(), c.Want.SKU.Name, strings.Join(ids, " ")).At("sku.name"))
	}
	return append(faults, admitRules(p.NetworkRuleSet)...)
}

// Replications is the type of a registry's further regions.
const Replications = "Microsoft.ContainerRegistry/registries/replications"

// admitReplicas: further regions need Premium, and no soft delete.
func admitReplicas(w arm.World, c arm.Change[document]) []*fault.Fault {
	lacks := c.Want.SKU.Name != premium
	soft := c.Want.Properties.Policies.SoftDelete.Status == enabled
	if !lacks && !soft {
		return nil
	}
	var names []string
	for _, r := range w.Children(c.ID, Replications) {
		names = append(names, r.ID.Name())
	}
	if len(names) == 0 {
		return nil
	}
	what, at := "the SKU "+c.Want.SKU.Name, "sku.name"
	if soft {
		what, at = "the soft delete policy enabled", "properties.policies.softDeletePolicy.status"
	}
	return []*fault.Fault{fault.New(fault.BadRequest, "The registry '%s' can't have %s while it has replications (%s). Delete them first.", c.ID.Name(), what, strings.Join(names, ", ")).At(at)}
}

// admitDisabled holds what must be so while exports are disabled: Premium, no public access, and, when they become so, no export pipeline.
func admitDisabled(w arm.World, c arm.Change[document]) []*fault.Fault {
	var faults []*fault.Fault
	name := c.ID.Name()
	was := c.Was != nil && c.Was.Properties.Policies.Export.Status == disabled
	if c.Want.SKU.Name != premium {
		todo := "Use the SKU Premium, or leave policies.exportPolicy.status enabled."
		if was {
			todo = "Set properties.policies.exportPolicy.status to 'enabled' before you leave the SKU Premium."
		}
		faults = append(faults, fault.New(fault.BadRequest,
			"The registry '%s' can't have exports disabled with the SKU %s: policies.exportPolicy.status 'disabled' needs Premium. %s", name, c.Want.SKU.Name, todo).At(exportsPath))
	}
	if c.Want.Properties.PublicAccess == "Enabled" {
		f := fault.New(fault.BadRequest,
			"Disabling exports of the registry '%s' is not supported because its public network access is enabled. "+
				"Set properties.publicNetworkAccess to 'Disabled' before, or in the same request: az resource update --ids %s --set properties.policies.exportPolicy.status=disabled --set properties.publicNetworkAccess=disabled", name, c.ID)
		if was {
			f = fault.New(fault.BadRequest, "Enabling public network access is not supported because the registry '%s' has exports disabled.", name)
		}
		faults = append(faults, f.At("properties.publicNetworkAccess"))
	}
	if pipelines := w.Children(c.ID, Pipelines); !was && len(pipelines) > 0 {
		var names, ids []string
		for _, it := range pipelines {
			names, ids = append(names, "'"+it.ID.Name()+"'"), append(ids, it.ID.String())
		}
		faults = append(faults, fault.New(fault.BadRequest,
			"Disabling exports of the registry '%s' is not supported because it has export pipelines: %s. Delete them first: az resource delete --ids %s",
			name, strings.Join(names, ", "), strings.Join(ids, " ")).At(exportsPath))
	}
	return faults
}

// admitRules checks the addresses of the IP rules: IPv4 alone, as the service has it.
func admitRules(set *networkRuleSet) []*fault.Fault {
	if set == nil {
		return nil
	}
	var faults []*fault.Fault
	for i, r := range set.IPRules {
		if _, err := prefix(r.Value); err != nil {
			faults = append(faults, fault.New(fault.InvalidParameter, "The IP rule %q is no IPv4 address, and no CIDR range of IPv4 that ends in zero bits, such as 203.0.113.0/24.", r.Value).
				At(fmt.Sprintf("properties.networkRuleSet.ipRules[%d].value", i)))
		}
	}
	return faults
}

// prefix reads an address or range of IPv4.
func prefix(value string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(value); err == nil && a.Is4() {
		return netip.PrefixFrom(a, 32), nil
	}
	p, err := netip.ParsePrefix(value)
	if err == nil && (!p.Addr().Is4() || p.Masked() != p) {
		err = fmt.Errorf("%s is no IPv4 range", value)
	}
	return p, err
}

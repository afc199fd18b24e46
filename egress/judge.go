// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"errors"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/network"
)

// judge is the rule of each route that the gate itself decides. An unknown route is refused.
func judge(tx *meta.Tx, row meta.RegistryRow, a Ask) error {
	switch a.Route {
	case Pull:
		return judgePull(row, a)
	case Import:
		return judgeImport(tx, row, a)
	case Backup:
		return judgeBackup(tx, a)
	case Webhook:
		return judgeWebhook(row, a)
	case Upstream:
		return judgeUpstream(row, a)
	}
	return fault.New(fault.Denied, "The route %s is not open: the gate knows no rule by which it could be.", a.Route)
}

// judgePull: R1 and R2. Content leaves only on a connection that may reach the registry now.
func judgePull(row meta.RegistryRow, a Ask) error {
	if a.Peer == nil {
		return fault.New(fault.Denied, "A pull without a connection has no network to be judged by, so it is refused.")
	}
	return network.Enter(row, a.Peer)
}

// judgeImport: R4 and R21. The source decides, by the identity of both sides and never by their names.
func judgeImport(tx *meta.Tx, source meta.RegistryRow, a Ask) error {
	if a.To == source.ID {
		return nil
	}
	if source.Held {
		return fault.New(fault.ExportsDisabled,
			"Importing from the registry '%s' (%s) is not supported because this installation runs on a restored copy that nobody has confirmed. "+
				"An owner confirms it with 'embargo restore confirm'.", source.Name, source.ResourceID).At(source.ResourceID)
	}
	if !source.Exports {
		return fault.New(fault.ExportsDisabled,
			"Importing from the registry '%s' is not supported because it has exports disabled (policies.exportPolicy.status of %s). "+
				"To allow it, an administrator of that registry sets properties.policies.exportPolicy.status to 'enabled'.",
			source.Name, source.ResourceID).At(source.ResourceID)
	}
	target, err := tx.RegistryByID(a.To)
	if errors.Is(err, meta.ErrNotFound) {
		return fault.New(fault.Denied, "The registry that the content would go to does not exist any more.").Because(err)
	}
	if err != nil {
		return err
	}
	restricted := func(r meta.RegistryRow) bool { return !r.PublicAccess || r.DefaultDeny }
	if restricted(source) || restricted(target) {
		for _, r := range []meta.RegistryRow{source, target} {
			if restricted(r) && !r.BypassAzureServices {
				return fault.New(fault.FirewallDenied,
					"Import between '%s' and '%s' is refused by the network rules of '%s' (%s): its public network access is restricted and networkRuleBypassOptions is 'None'. "+
						"Set properties.networkRuleBypassOptions to 'AzureServices' there to allow import.",
					source.Name, target.Name, r.Name, r.ResourceID).At(r.ResourceID)
			}
		}
	}
	return nil
}

// judgeBackup: R18. A backup holds the content and the names of every registry, so the strictest of them decides: while exports are disabled anywhere, it is
// made only when nobody but the installation's own key can open it.
func judgeBackup(tx *meta.Tx, a Ask) error {
	if a.Sealed {
		return nil
	}
	rows, err := tx.Registries()
	if err != nil {
		return err
	}
	for _, r := range rows {
		if !r.Exports {
			return fault.New(fault.ExportsDisabled,
				"A backup that others than this installation can open is an export, and it is not supported because the registry '%s' has exports disabled "+
					"(policies.exportPolicy.status of %s). Leave out the further recipients: the backup is then encrypted to the installation's own key alone.", r.Name, r.ResourceID).At(r.ResourceID)
		}
	}
	return nil
}

// judgeWebhook: R13. An event carries names and digests. While exports are disabled it goes only where the operator, and not only who may make a
// webhook, has said that it may; from a restored copy that nobody has confirmed it goes nowhere.
func judgeWebhook(row meta.RegistryRow, a Ask) error {
	switch {
	case row.Held:
		return fault.New(fault.ExportsDisabled,
			"Sending events of the registry '%s' is not supported because this installation runs on a restored copy that nobody has confirmed. "+
				"An owner confirms it with 'embargo restore confirm'.", row.Name).At(row.ResourceID)
	case !row.Exports && !a.Declared:
		return fault.New(fault.ExportsDisabled,
			"Sending events of the registry '%s' to %s is not supported because the registry has exports disabled (policies.exportPolicy.status of %s) "+
				"and the destination is not among webhooks.destinations of this server's configuration. An operator can list it there.",
			row.Name, a.Destination, row.ResourceID).At(row.ResourceID)
	}
	return nil
}

// judgeUpstream: R10. What a pull asks of an upstream carries names out: they go only where the operator has said that they may, for a caller who may pull now; from a
// restored copy that nobody has confirmed they go nowhere. That exports are disabled changes nothing more: content that comes in is no export.
func judgeUpstream(row meta.RegistryRow, a Ask) error {
	switch {
	case row.Held:
		return fault.New(fault.Denied,
			"Fetching from the upstream %s for the registry '%s' is not supported because this installation runs on a restored copy that nobody has confirmed. "+
				"An owner confirms it with 'embargo restore confirm'.", a.Destination, row.Name).At(row.ResourceID)
	case !a.Declared:
		return fault.New(fault.Denied,
			"The upstream %s of a cache rule of the registry '%s' is not among the upstreams of this server's configuration, so nothing is asked of it. An operator can list it there.",
			a.Destination, row.Name).At(row.ResourceID)
	}
	return judgePull(row, a)
}

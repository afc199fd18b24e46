// SPDX-License-Identifier: Apache-2.0

package registries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/providers/containerregistry/connections"
	"github.com/embargo-registry/embargo/providers/containerregistry/managed"
	"github.com/embargo-registry/embargo/registry"
)

// Options configure the type.
type Options struct {
	Identity *identity.Service
	// Suffix is the registries' domain, without a leading dot.
	Suffix string
	// Fence makes a committed change of a registry's row hold for what is under way.
	Fence func(ctx context.Context, registry string, epoch int64) error
	// AskImport asks the source, on record, whether an image may become the target's.
	AskImport func(tx *meta.Tx, source, target meta.RegistryRow, image name.Reference, c identity.Caller, correlation string) error
	// Quota is how many bytes a registry may hold; 0 is no bound.
	Quota int64
	// Ours reports whether a host, with or without a port, is one of the installation's own addresses or names.
	Ours func(host string) bool
}

type kind struct{ o Options }

// apply fills what the server sets and keeps the projection row, in the change's transaction; before the answer, the fence.
func (k kind) apply(tx *arm.Tx, c arm.Change[document]) error {
	row, err := tx.Meta().RegistryByResource(c.ID.String())
	if err != nil && (c.Was != nil && c.Want != nil || !errors.Is(err, meta.ErrNotFound)) {
		return err
	}
	if c.Want == nil {
		return k.drop(tx, c, row)
	}
	if err := k.fill(tx, c); err != nil {
		return err
	}
	k.remark(tx, c)
	want := k.project(c, row)
	if row.Held && (c.Sent(exportsPath) && want.Exports || c.Sent("properties.publicNetworkAccess") && want.PublicAccess) {
		return fault.New(fault.Conflict, "Opening the registry '%s' is not supported because this installation runs on a restored copy that nobody has confirmed. "+
			"An owner confirms it with 'embargo restore confirm'; until then exports stay disabled and the public side shut.", c.ID.Name())
	}
	if row.Held && c.Method == "PUT" && c.Was != nil && (row.Held && c.Sent(exportsPath) && !want.Exports && c.Was.Properties.Policies.Export.Status != disabled ||
		c.Sent("properties.publicNetworkAccess") && !want.PublicAccess && c.Was.Properties.PublicAccess == "Enabled") {
		return fault.New(fault.Conflict, "The registry '%s' is held, because this installation runs on a restored copy that nobody has confirmed, and shows exports and public network access "+
			"disabled whatever its own policy is. A PUT that sends this back would make it the registry's own. An owner confirms the copy with 'embargo restore confirm' first; to disable them "+
			"for good, send a PATCH of them alone.", c.ID.Name())
	}
	if c.Was == nil {
		used, err := tx.NameTaken(TypeName, c.ID.Name())
		if err != nil {
			return err
		}
		if used {
			return fault.New(fault.RegistryNameInUse, takenText, c.ID.Name())
		}
		want.ID = tx.NewID()
		want.TokensValidFrom = c.Now
	} else if same(row, want) {
		// Who asks for what is so already is told so once it holds: an earlier request's fence may be under way, or have failed.
		tx.AfterCommit(func(ctx context.Context) error { return k.o.Fence(ctx, row.ID, row.Epoch) })
		return nil
	}
	epoch, err := tx.Meta().PutRegistry(want)
	if err != nil {
		return taken(c, err)
	}
	tx.AfterCommit(func(ctx context.Context) error { return k.o.Fence(ctx, want.ID, epoch) })
	return nil
}

// taken words the failure of a create that lost the race for its name: the database let the other one's row in between.
func taken(c arm.Change[document], err error) error {
	var refused interface{ SQLState() string }
	if c.Was == nil && errors.As(err, &refused) && refused.SQLState() == "23505" { // unique_violation
		return fault.New(fault.RegistryNameInUse, takenText, c.ID.Name()).Because(err)
	}
	return err
}

// showConnections shows the private endpoints; the first one switches the data endpoint on.
func showConnections(tx *meta.Tx, id name.ResourceID, p *properties) error {
	row, err := tx.RegistryByResource(id.String())
	if errors.Is(err, meta.ErrNotFound) {
		return nil // being deleted
	}
	if err != nil {
		return err
	}
	all, err := connections.Rows(tx, row.ID)
	for _, e := range all {
		p.PrivateConnections = append(p.PrivateConnections, connections.Of(id, e))
		p.DataEndpoint = true
	}
	return err
}

// disconnect leaves the private endpoints of a registry that is gone with a connection to nothing.
func disconnect(tx *meta.Tx, registry string) error {
	all, err := tx.EndpointsOf(registry)
	for _, e := range all {
		e.Status, e.Description = meta.EndpointDisconnected, "The registry was deleted."
		if err == nil {
			_, err = tx.PutEndpoint(e)
		}
	}
	return err
}

// drop removes what belongs to the registry; its content goes by a job, out of reach from the commit on.
func (k kind) drop(tx *arm.Tx, c arm.Change[document], row meta.RegistryRow) error {
	if row.ID == "" {
		return nil
	}
	if err := errors.Join(tx.Meta().DeleteRegistry(row.ID), disconnect(tx.Meta(), row.ID), k.o.Identity.DropRegistry(tx.Meta(), row.ID), k.o.Identity.DropScope(tx.Meta(), c.ID),
		registry.Drop(tx.Meta(), row.ID)); err != nil {
		return err
	}
	tx.AfterCommit(func(ctx context.Context) error { return k.o.Fence(ctx, row.ID, row.Epoch+1) })
	return nil
}

// fill sets the read-only members that are stored.
func (k kind) fill(tx *arm.Tx, c arm.Change[document]) error {
	p := &c.Want.Properties
	c.Want.SKU.Tier = c.Want.SKU.Name
	p.ProvisioningState = "Succeeded"
	if c.Was == nil {
		p.CreationDate = c.Now
		label, err := k.label(tx, c.ID.Name(), c.Want.Properties.NameScope, c.ID.Subscription(), c.ID.ResourceGroup())
		if err != nil {
			return err
		}
		p.LoginServer = label + "." + k.o.Suffix
	}
	if c.Was == nil || c.Method == "PUT" || c.Sent("properties.policies.retentionPolicy") {
		p.Policies.Retention.Updated = c.Now
	}
	if c.Was == nil || c.Method == "PUT" || c.Sent("properties.policies.softDeletePolicy") {
		p.Policies.SoftDelete.Updated = c.Now
	}
	if set := p.NetworkRuleSet; set != nil {
		for i := range set.IPRules {
			set.IPRules[i].Value = strings.TrimSuffix(set.IPRules[i].Value, "/32")
		}
		set.IPRules = once(set.IPRules)
	}
	tenant, err := k.o.Identity.Tenant(tx.Meta())
	if err != nil {
		return err
	}
	var was *managed.Identity
	if c.Was != nil {
		was = c.Was.Identity
	}
	c.Want.Identity = managed.Fill(c.Want.Identity, was, tenant, tx.NewID)
	return nil
}

// once are the rules without those that say again what one before says.
func once(rules []ipRule) []ipRule {
	seen := map[string]bool{}
	return slices.DeleteFunc(rules, func(r ipRule) bool {
		again := seen[r.Value]
		seen[r.Value] = true
		return again
	})
}

// label is the first label of a registry's login server: its name, and a hash of the scope within which the name may be used again.
func (k kind) label(tx *arm.Tx, registry, scope, subscription, group string) (string, error) {
	label := strings.ToLower(registry)
	salt := ""
	switch scope {
	case "TenantReuse":
		tenant, err := k.o.Identity.Tenant(tx.Meta())
		if err != nil {
			return "", err
		}
		salt = tenant
	case "SubscriptionReuse":
		salt = name.Subscription(subscription).Key()
	case "ResourceGroupReuse":
		salt = name.Group(subscription, group).Key()
	case "NoReuse":
		salt = tx.NewID()
	default:
		return label, nil
	}
	sum := sha256.Sum256([]byte(salt + "/" + label))
	return label + "-" + hex.EncodeToString(sum[:8]), nil
}

// project makes the projection row of the final document on top of the row there was.
func (k kind) project(c arm.Change[document], row meta.RegistryRow) meta.RegistryRow {
	p := &c.Want.Properties
	row.ResourceID, row.Name = c.ID.String(), strings.ToLower(c.ID.Name())
	row.LoginServer, row.Location, row.SKU = strings.ToLower(p.LoginServer), c.Want.Location, c.Want.SKU.Name
	row.Exports = p.Policies.Export.Status != disabled
	row.PublicAccess = p.PublicAccess == "Enabled"
	row.DefaultDeny, row.IPRules = false, meta.Ranges{}
	if set := p.NetworkRuleSet; set != nil && c.Want.SKU.Name == premium {
		row.DefaultDeny = set.DefaultAction == "Deny"
		var rules []netip.Prefix
		for _, r := range set.IPRules {
			if pre, err := prefix(r.Value); err == nil { // Admit has read it
				rules = append(rules, pre)
			}
		}
		row.IPRules = meta.NewRanges(rules...)
	}
	row.BypassAzureServices = p.Bypass == "AzureServices"
	row.AdminEnabled, row.AnonymousPull = p.AdminUserEnabled, p.AnonymousPull
	row.AbacMode = p.RoleAssignmentMode == "AbacRepositoryPermissions"
	row.ArmTokens = p.Policies.ArmTokens.Status == enabled
	row.DataEndpoint = p.DataEndpoint
	row.Quarantine = p.Policies.Quarantine.Status == enabled
	row.Trust = p.Policies.Trust.Status == enabled
	if on := p.Policies.Retention.Status == enabled; on != row.Retention {
		row.Retention, row.RetentionSince = on, c.Now
	}
	row.RetentionDays = int64(p.Policies.Retention.Days)
	row.SoftDelete, row.SoftDeleteDays = p.Policies.SoftDelete.Status == enabled, int64(p.Policies.SoftDelete.Days)
	return row
}

// same reports whether a row needs no rewriting: a change of tags does not raise the epoch.
func same(a, b meta.RegistryRow) bool {
	return a.ResourceID == b.ResourceID && a.Name == b.Name && a.LoginServer == b.LoginServer && a.Location == b.Location && a.SKU == b.SKU &&
		a.Exports == b.Exports && a.PublicAccess == b.PublicAccess && a.DefaultDeny == b.DefaultDeny && a.IPRules.Equal(b.IPRules) &&
		a.BypassAzureServices == b.BypassAzureServices && a.AdminEnabled == b.AdminEnabled && a.AnonymousPull == b.AnonymousPull &&
		a.AbacMode == b.AbacMode && a.ArmTokens == b.ArmTokens && a.DataEndpoint == b.DataEndpoint &&
		a.Quarantine == b.Quarantine && a.Trust == b.Trust && a.Retention == b.Retention && a.RetentionDays == b.RetentionDays && a.RetentionSince.Equal(b.RetentionSince) && a.SoftDelete == b.SoftDelete && a.SoftDeleteDays == b.SoftDeleteDays
}

// remark notes in the change's record what is open inside the network while exports are disabled, at the change that makes it so.
func (k kind) remark(tx *arm.Tx, c arm.Change[document]) {
	if c.Want.Properties.Policies.Export.Status != disabled {
		return
	}
	sealed := c.Was != nil && c.Was.Properties.Policies.Export.Status == disabled
	for _, open := range []struct {
		is   func(p *properties) bool
		what string
	}{
		{func(p *properties) bool { return p.AnonymousPull }, "anonymous pull is on"},
		{func(p *properties) bool { return p.AdminUserEnabled }, "the admin user is on"},
		{func(p *properties) bool { return p.Bypass == "AzureServices" }, "networkRuleBypassOptions is AzureServices"},
	} {
		if open.is(&c.Want.Properties) && !(sealed && open.is(&c.Was.Properties)) {
			tx.Remark("Exports are disabled while " + open.what + ".")
		}
	}
}

// view completes an answer.
func (k kind) view(v arm.View, d *document) {
	p := &d.Properties
	v.Look(func(tx *meta.Tx) error { return showConnections(tx, v.ID, p) })
	if p.DataEndpoint {
		for _, m := range Members(v.World, v.ID, d.Location)[1:] {
			p.DataHosts = append(p.DataHosts, network.MemberHost(p.LoginServer, m))
		}
	}
	d.Identity.Lower()
	v.Look(func(tx *meta.Tx) error {
		row, err := tx.RegistryByResource(v.ID.String())
		if row.Held {
			p.Policies.Export.Status, p.PublicAccess = disabled, "Disabled" // what is in force, whatever the document states
		}
		if errors.Is(err, meta.ErrNotFound) {
			return nil // being deleted
		}
		return err
	})
}

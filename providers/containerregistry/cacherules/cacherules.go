// SPDX-License-Identifier: Apache-2.0

// Package cacherules declares Microsoft.ContainerRegistry/registries/cacheRules: which repositories of a registry are filled from upstream ones when they are pulled.
package cacherules

import (
	"strings"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/providers/containerregistry/managed"
	"github.com/embargo-registry/embargo/upstream"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.ContainerRegistry/registries/cacheRules"

const credentialSets = "Microsoft.ContainerRegistry/registries/credentialSets"

type document struct {
	Type       string            `json:"type"`
	Identity   *managed.Identity `json:"identity" api:"2026-01-01-preview.."`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	SystemData arm.SystemData    `json:"systemData"`
	Properties properties        `json:"properties"`
}

type properties struct {
	Credentials *string        `json:"credentialSetResourceId" arm:"null" stance:"acts" doc:"The credential set of this registry whose loginServer is the upstream; null is none."`
	Additional  map[string]any `json:"additionalAuthenticationProperties" arm:"omitempty" api:"2026-01-01-preview.." stance:"refused" doc:"Upstreams are asked with a credential set or with none."`
	Source      string         `json:"sourceRepository" arm:"required,immutable" stance:"acts" doc:"docker.io/library/nginx, docker.io/library/* or host/*; the operator lists the host (upstreams)."`
	Target      string         `json:"targetRepository" arm:"required,immutable" stance:"acts" doc:"nginx, library/* or *; a star on one side needs one on the other. One repository goes before a wildcard; wildcards do not overlap."`
	Created     time.Time      `json:"creationDate" arm:"readonly"`
	State       string         `json:"provisioningState" arm:"readonly"`
}

// Options configure the type.
type Options struct {
	Identity *identity.Service
	// Check tells whether an upstream may be asked; at names the member that it stands in.
	Check func(host, at string) error
}

type kind struct{ o Options }

// Type declares the type.
func Type(o Options) arm.Resource {
	k := kind{o}
	return &arm.Type[document]{
		Name: TypeName, Display: "Cache rule", API: "2023-01-01-preview..; 2023-07-01..", Verbs: arm.ChildVerbs,
		Names:   arm.Names{Min: 5, Max: 50, Pattern: `[a-zA-Z0-9\-]*`, Text: "A cache rule's name has 5 to 50 letters, digits and '-'."},
		Answers: arm.Answers{Deleted: 204},
		Admit:   k.admit, Apply: k.apply,
		View: func(_ arm.View, d *document) { d.Identity.Lower() },
	}
}

func (k kind) admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return nil
	}
	var faults []*fault.Fault
	add := func(err error) {
		if err != nil {
			faults = append(faults, fault.From(err))
		}
	}
	p := c.Want.Properties
	host, source, err := upstream.ParseSource(p.Source)
	add(err)
	target, wrong := upstream.ParseTarget(p.Target)
	add(wrong)
	if err != nil || wrong != nil {
		return faults
	}
	if source.Wild != target.Wild {
		add(fault.New(fault.InvalidParameter, "The sourceRepository '%s' and the targetRepository '%s' do not match: both end in '*', or neither does.", p.Source, p.Target).At("properties.targetRepository"))
	}
	if c.Was == nil {
		add(k.o.Check(host, "properties.sourceRepository"))
	}
	add(fits(w, c.ID, host, p.Credentials))
	return append(faults, alone(w, c.ID, target)...)
}

// alone: of all rules, one decides where a repository comes from.
func alone(w arm.World, id name.ResourceID, target upstream.Pattern) (faults []*fault.Fault) {
	others := w.Children(id.Parent(), TypeName)
	for _, it := range others {
		var other document
		if it.ID.Equal(id) || it.Decode(&other) != nil {
			continue
		}
		has, err := upstream.ParseTarget(other.Properties.Target)
		if err == nil && has.Overlaps(target) {
			faults = append(faults, fault.New(fault.Conflict, "The target of the cache rule '%s' overlaps with that of the cache rule '%s' (%s): it would not be clear where a repository comes from. Delete that one, or choose another target.",
				id.Name(), it.ID.Name(), other.Properties.Target).At("properties.targetRepository"))
		}
	}
	if len(others) >= upstream.MostRules && !w.Get(id, nil) {
		faults = append(faults, fault.New(fault.BadRequest, "The registry '%s' has %d cache rules, which is the most there can be.", id.Parent().Name(), len(others)))
	}
	return faults
}

// fits: credentials go to the upstream that they are for, and to no other.
func fits(w arm.World, id name.ResourceID, host string, credentials *string) error {
	if credentials == nil || *credentials == "" {
		return nil
	}
	const at = "properties.credentialSetResourceId"
	set, err := name.ParseResourceID(*credentials)
	var doc struct {
		Properties struct {
			LoginServer string `json:"loginServer"`
		} `json:"properties"`
	}
	switch {
	case err != nil || !strings.EqualFold(set.Type(), credentialSets) || !set.Parent().Equal(id.Parent()) || !w.Get(set, &doc):
		return fault.New(fault.InvalidParameter, "The credentialSetResourceId %.300q is no credential set of the registry '%s'.", *credentials, id.Parent().Name()).At(at)
	case doc.Properties.LoginServer != host:
		return fault.New(fault.InvalidParameter, "The credential set '%s' is for %s, but the cache rule's source is at %s.", set.Name(), doc.Properties.LoginServer, host).At(at)
	}
	return nil
}

func (k kind) apply(tx *arm.Tx, c arm.Change[document]) error {
	m := tx.Meta()
	if c.Want == nil {
		return upstream.RemoveRule(m, c.ID.String())
	}
	row, err := m.RegistryByResource(c.ID.Parent().String())
	if err != nil {
		return err
	}
	tenant, err := k.o.Identity.Tenant(m)
	if err != nil {
		return err
	}
	p := &c.Want.Properties
	rule := upstream.Rule{ID: tx.NewID(), Registry: row.ID, Resource: c.ID.String(), Source: p.Source, Target: p.Target}
	var was *managed.Identity
	p.Created = c.Now
	if c.Was != nil {
		was, p.Created = c.Was.Identity, c.Was.Properties.Created
		old, err := upstream.FindRule(m, c.ID.String())
		if err != nil {
			return err
		}
		rule.ID = old.ID
	}
	c.Want.Identity = managed.Fill(c.Want.Identity, was, tenant, tx.NewID)
	if p.Credentials != nil && *p.Credentials == "" {
		p.Credentials = nil
	}
	if p.Credentials != nil {
		rule.Credentials = *p.Credentials
	}
	p.State = "Succeeded"
	return upstream.PutRule(m, rule)
}

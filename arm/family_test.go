// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"context"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/name"
)

// The type family of these tests: vaults, locked or open, with doors that may exist only while the vault is open.

type vault struct {
	SKU        vaultSKU          `json:"sku" arm:"required"`
	Type       string            `json:"type"`
	ID         string            `json:"id"`
	Identity   *vaultIdentity    `json:"identity"`
	Name       string            `json:"name"`
	Location   string            `json:"location" arm:"required"`
	Tags       map[string]string `json:"tags"`
	SystemData arm.SystemData    `json:"systemData"`
	Properties vaultProperties   `json:"properties"`
}

type vaultSKU struct {
	Name string `json:"name" arm:"required" enum:"Basic|Premium" stance:"acts" doc:"Which features the vault has."`
	Tier string `json:"tier" arm:"readonly"`
}

type vaultIdentity struct {
	Type string `json:"type" enum:"None|SystemAssigned|SystemAssigned, UserAssigned" stance:"echo"`
}

type vaultProperties struct {
	Host              string        `json:"host" arm:"readonly"`
	Created           time.Time     `json:"created" arm:"readonly" time:"Z"`
	ProvisioningState string        `json:"provisioningState" arm:"readonly"`
	Lock              string        `json:"lock" enum:"enabled|disabled" default:"disabled" stance:"acts" doc:"A locked vault has no doors."`
	Public            string        `json:"public" enum:"Enabled|Disabled" default:"Enabled" arm:"keep" stance:"acts"`
	Zone              string        `json:"zone" enum:"Enabled|Disabled" default:"Disabled" arm:"immutable,nopatch" stance:"echo"`
	Policies          vaultPolicies `json:"policies"`
	Rules             *vaultRules   `json:"rules" default:"{}" sku:"Premium" shown:"Premium" stance:"acts"`
	Color             string        `json:"color" default:"grey" api:"2022-02-01-preview..; 2025-11-01.." stance:"echo"`
	Old               string        `json:"old" api:"..2021-06-01-preview" arm:"omitempty" stance:"echo"`
	Search            string        `json:"search" enum:"Enabled|Disabled" default:"Disabled" stance:"refused" doc:"Search is not built."`
	Key               string        `json:"key" arm:"secret,keep" stance:"acts"`
	Doors             []string      `json:"doors" arm:"readonly"`
}

type vaultPolicies struct {
	Retention vaultRetention `json:"retention"`
	Trust     vaultTrust     `json:"trust"`
	Soft      vaultTrust     `json:"soft" api:"2022-02-01-preview.."`
}

type vaultRetention struct {
	Days    int       `json:"days" default:"7" min:"0" max:"365" stance:"acts"`
	Updated time.Time `json:"updated" arm:"readonly"`
	Status  string    `json:"status" enum:"enabled|disabled" default:"disabled" stance:"acts"`
}

type vaultTrust struct {
	Status string `json:"status" enum:"enabled|disabled" default:"disabled" stance:"acts"`
	Kind   string `json:"kind" default:"Notary" api:"2022-02-01-preview.." stance:"echo"`
}

type vaultRules struct {
	Default string      `json:"default" enum:"Allow|Deny" default:"Allow" stance:"acts"`
	IPs     []vaultRule `json:"ips" max:"3" stance:"acts"`
}

type vaultRule struct {
	Value  string `json:"value" arm:"required,key"`
	Action string `json:"action" enum:"Allow" default:"Allow"`
	Note   string `json:"note" api:"2025-11-01.." arm:"omitempty"`
}

type door struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	SystemData arm.SystemData `json:"systemData"`
	Properties struct {
		Width             int    `json:"width" default:"90" min:"1" stance:"acts"`
		ProvisioningState string `json:"provisioningState" arm:"readonly"`
	} `json:"properties"`
}

const vaults, doors = "Fake.Bank/vaults", "Fake.Bank/vaults/doors"

// admitVault: a locked vault is not public, and has no doors.
func admitVault(w arm.World, c arm.Change[vault]) []*fault.Fault {
	if c.Want == nil || c.Want.Properties.Lock != "enabled" {
		return nil
	}
	var faults []*fault.Fault
	if c.Want.Properties.Public == "Enabled" {
		faults = append(faults, fault.New(fault.BadRequest, "Enabling public network access is not supported because the vault '%s' is locked.", c.ID.Name()).At("properties.public"))
	}
	if n := len(w.Children(c.ID, doors)); n > 0 {
		faults = append(faults, fault.New(fault.BadRequest, "The vault '%s' cannot be locked: it has %d doors.", c.ID.Name(), n).At("properties.lock"))
	}
	return faults
}

func admitDoor(w arm.World, c arm.Change[door]) []*fault.Fault {
	var parent vault
	if c.Want == nil || !w.Get(c.ID.Parent(), &parent) || parent.Properties.Lock != "enabled" {
		return nil
	}
	return []*fault.Fault{fault.New(fault.BadRequest, "The vault '%s' is locked: it can have no doors.", c.ID.Parent().Name())}
}

func applyVault(tx *arm.Tx, c arm.Change[vault]) error {
	if c.Want == nil {
		return nil
	}
	p := &c.Want.Properties
	c.Want.SKU.Tier = c.Want.SKU.Name
	p.Host = c.ID.Name() + ".bank.localhost"
	if c.Was == nil {
		p.Created = c.Now
	}
	if c.Was == nil || c.Sent("properties.policies.retention") || c.Method == "PUT" {
		p.Policies.Retention.Updated = c.Now
	}
	return nil
}

func viewVault(v arm.View, d *vault) {
	for _, it := range v.Children(v.ID, doors) {
		d.Properties.Doors = append(d.Properties.Doors, it.ID.Name())
	}
}

type keyAnswer struct {
	Key string `json:"key" arm:"secret"`
}

type checkName struct {
	Name string `json:"name" arm:"required"`
	Type string `json:"type" arm:"required"`
}

type turn struct {
	Times int `json:"times" arm:"required" min:"1" max:"100"`
}

type checked struct {
	Available bool    `json:"nameAvailable"`
	Reason    *string `json:"reason"`
}

func bank() arm.Namespace {
	return arm.Namespace{
		Name: "Fake.Bank", Display: "Fake Bank",
		Versions: arm.Versions{List: []string{"2019-05-01", "2021-06-01-preview", "2021-09-01", "2022-02-01-preview", "2025-11-01", "2026-03-01-preview"}, Newer: true},
		Types: []arm.Resource{
			&arm.Type[vault]{
				Name: vaults, Display: "Vault", Verbs: arm.AllVerbs, GlobalName: true, TakenFault: fault.RegistryNameInUse,
				TakenText: "The vault name %s is already in use.", Names: arm.Names{Min: 5, Max: 50, Pattern: "[a-zA-Z0-9]*"},
				Admit: admitVault, Apply: applyVault, View: viewVault,
				Actions: []arm.Action{
					arm.Do(arm.Action{Name: "showKey", Reads: true}, func(tx *arm.Tx, c arm.Call[arm.None]) (keyAnswer, error) {
						var v vault
						tx.World().Get(c.ID, &v)
						return keyAnswer{v.Properties.Key}, nil
					}),
					arm.Begin(arm.Action{Name: "turnKey"}, func(tx *arm.Tx, c arm.Call[turn]) (job.Spec, error) {
						return job.Spec{Kind: "test.turn", Args: c.Body}, nil
					}),
				},
				Work: []arm.Work{{Kind: "test.turn", Do: func(_ context.Context, _ *arm.Engine, j *job.Job) (any, error) {
					var do turn
					if err := j.Decode(&do); err != nil {
						return nil, err
					}
					if do.Times == 13 {
						return nil, fault.New(fault.Conflict, "The key broke.")
					}
					return nil, nil
				}}},
			},
			&arm.Type[door]{Name: doors, Display: "Door", API: "2021-06-01-preview..", Verbs: arm.Put | arm.Delete | arm.List, Admit: admitDoor},
		},
		Actions: []arm.Action{
			arm.Do(arm.Action{Name: "checkNameAvailability", At: arm.AtSubscription, Reads: true}, func(tx *arm.Tx, c arm.Call[checkName]) (checked, error) {
				taken, err := tx.NameTaken(vaults, c.Body.Name)
				if !taken || err != nil {
					return checked{Available: true}, err
				}
				reason := "AlreadyExists"
				return checked{Reason: &reason}, nil
			}),
		},
	}
}

type group struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location" arm:"required"`
	Tags       map[string]string `json:"tags" arm:"omitempty"`
	Properties struct {
		ProvisioningState string `json:"provisioningState" arm:"readonly"`
	} `json:"properties"`
}

// groups is as much of Microsoft.Resources as the engine needs: groups whose deletion is a job.
func groups() arm.Namespace {
	return arm.Namespace{
		Name: "Microsoft.Resources", Versions: arm.Versions{Since: "2015-01-01", List: []string{"2021-04-01"}},
		Types: []arm.Resource{&arm.Type[group]{
			Name: "Microsoft.Resources/resourceGroups", Display: "Resource group", Scope: arm.InSubscription, Verbs: arm.AllVerbs, Answers: arm.Answers{Absent: 404},
			DeleteJob: func(c arm.Change[group]) job.Spec { return job.Spec{Kind: "test.emptyGroup", Args: c.ID.String()} },
			Work: []arm.Work{{Kind: "test.emptyGroup", Do: func(ctx context.Context, e *arm.Engine, j *job.Job) (any, error) {
				var id string
				if err := j.Decode(&id); err != nil {
					return nil, err
				}
				group, err := name.ParseResourceID(id)
				if err != nil {
					return nil, err
				}
				return nil, e.Write(ctx, identity.Caller{ID: "job"}, "c", func(tx *arm.Tx) error { return tx.Remove(group) })
			}}},
		}},
	}
}

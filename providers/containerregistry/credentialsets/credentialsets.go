// SPDX-License-Identifier: Apache-2.0

// Package credentialsets declares Microsoft.ContainerRegistry/registries/credentialSets: the user name and password that a registry's cache rules ask an upstream with. There
// is no Key Vault here: a secret identifier is a data URI that carries the value, which is sealed; what is shown in its place gives nothing away and can be sent back.
package credentialsets

import (
	"errors"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/providers/containerregistry/managed"
	"github.com/embargo-registry/embargo/upstream"
)

// TypeName is the full name of the type.
const TypeName = "Microsoft.ContainerRegistry/registries/credentialSets"

const cacheRules = "Microsoft.ContainerRegistry/registries/cacheRules"

type document struct {
	Type       string            `json:"type"`
	Identity   *managed.Identity `json:"identity"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	SystemData arm.SystemData    `json:"systemData"`
	Properties properties        `json:"properties"`
}

type properties struct {
	LoginServer string       `json:"loginServer" arm:"required,immutable" stance:"acts" doc:"The upstream, as cache rules name it; the operator lists it (upstreams)."`
	Credentials []credential `json:"authCredentials" arm:"required" min:"1" max:"1" stance:"acts"`
	Created     time.Time    `json:"creationDate" arm:"readonly"`
	State       string       `json:"provisioningState" arm:"readonly"`
}

type credential struct {
	Name     string  `json:"name" enum:"Credential1" default:"Credential1" stance:"echo"`
	User     string  `json:"usernameSecretIdentifier" arm:"required" stance:"acts" doc:"A data URI with the value, such as data:,my-user: there is no Key Vault. It is sealed; embargo:sealed/… is shown, and sent back keeps it."`
	Password string  `json:"passwordSecretIdentifier" arm:"required" stance:"acts" doc:"As usernameSecretIdentifier."`
	Health   *health `json:"credentialHealth" arm:"readonly"`
}

type health struct {
	Status  string  `json:"status"`
	Code    *string `json:"errorCode" arm:"null"`
	Message *string `json:"errorMessage" arm:"null"`
}

// Options configure the type.
type Options struct {
	Identity *identity.Service
	Keyring  *meta.Keyring
	// Check tells whether an upstream may be asked; at names the member that it stands in.
	Check func(host, at string) error
}

type kind struct{ o Options }

// Type declares the type.
func Type(o Options) arm.Resource {
	k := kind{o}
	return &arm.Type[document]{
		Name: TypeName, Display: "Credential set", API: "2023-01-01-preview..; 2023-07-01..", Verbs: arm.ChildVerbs,
		Names:   arm.Names{Min: 5, Max: 50, Pattern: `[a-zA-Z0-9\-]*`, Text: "A credential set's name has 5 to 50 letters, digits and '-'."},
		Answers: arm.Answers{Deleted: 204},
		Admit:   k.admit, Apply: k.apply, View: k.view,
	}
}

// members are the two secrets of a set, by the path that faults name.
const (
	userAt     = "properties.authCredentials[0].usernameSecretIdentifier"
	passwordAt = "properties.authCredentials[0].passwordSecretIdentifier"
)

func (k kind) admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return unused(w, c)
	}
	var faults []*fault.Fault
	add := func(err error) {
		if err != nil {
			faults = append(faults, fault.From(err))
		}
	}
	p := c.Want.Properties
	if c.Was == nil {
		add(k.o.Check(p.LoginServer, "properties.loginServer"))
	}
	var was credential
	if c.Was != nil {
		was = c.Was.Properties.Credentials[0]
	}
	for _, one := range p.Credentials {
		for _, v := range []struct{ given, was, at string }{{one.User, was.User, userAt}, {one.Password, was.Password, passwordAt}} {
			switch {
			case v.given == v.was:
			case upstream.Sealed(v.given):
				add(fault.New(fault.InvalidParameter, "The secret identifier %.100q stands for a value of another credential set, or for one that was replaced. Give the value itself as a data URI.", v.given).At(v.at))
			default:
				_, err := upstream.ReadIdentifier(v.given, v.at)
				add(err)
			}
		}
	}
	return faults
}

// unused: a set that rules ask with stays.
func unused(w arm.World, c arm.Change[document]) []*fault.Fault {
	for _, it := range w.Children(c.ID.Parent(), cacheRules) {
		var rule struct {
			Properties struct {
				Credentials string `json:"credentialSetResourceId"`
			} `json:"properties"`
		}
		if it.Decode(&rule) == nil && strings.EqualFold(rule.Properties.Credentials, c.ID.String()) {
			return []*fault.Fault{fault.New(fault.Conflict, "The credential set '%s' is in use by the cache rule '%s'. Take it out there first (az acr cache update --remove-cred-set).", c.ID.Name(), it.ID.Name()).At(it.ID.String())}
		}
	}
	return nil
}

func (k kind) apply(tx *arm.Tx, c arm.Change[document]) error {
	m := tx.Meta()
	if c.Want == nil {
		return upstream.RemoveCredentials(m, c.ID.String())
	}
	tenant, err := k.o.Identity.Tenant(m)
	if err != nil {
		return err
	}
	id, _, err := upstream.FindCredentials(m, c.ID.String())
	if errors.Is(err, meta.ErrNotFound) {
		id, err = tx.NewID(), nil
	}
	if err != nil {
		return err
	}
	p := &c.Want.Properties
	var was *managed.Identity
	p.Created = c.Now
	if c.Was != nil {
		was, p.Created = c.Was.Identity, c.Was.Properties.Created
	}
	c.Want.Identity = managed.Fill(c.Want.Identity, was, tenant, tx.NewID)
	p.State = "Succeeded"
	kept, err := upstream.OpenCredentials(m, k.o.Keyring, id)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	one := &p.Credentials[0]
	one.Health = nil
	for _, v := range []struct {
		given *string
		kept  *string
		at    string
	}{{&one.User, &kept.User, userAt}, {&one.Password, &kept.Password, passwordAt}} {
		if upstream.Sealed(*v.given) {
			if *v.kept == "" {
				return fault.New(fault.InvalidParameter, "The value was lost with an installation key: give it again as a data URI.").At(v.at)
			}
			continue
		}
		if *v.kept, err = upstream.ReadIdentifier(*v.given, v.at); err != nil {
			return err
		}
		*v.given = upstream.SealedPrefix + tx.NewID()
	}
	return upstream.PutCredentials(m, k.o.Keyring, id, c.ID.String(), p.LoginServer, kept)
}

// view tells whether the credentials can be opened. Whether the upstream takes them is found out when it is asked.
func (k kind) view(v arm.View, d *document) {
	d.Identity.Lower()
	state := health{Status: "Healthy"}
	v.Look(func(tx *meta.Tx) error {
		id, _, err := upstream.FindCredentials(tx, v.ID.String())
		if err == nil {
			_, err = upstream.OpenCredentials(tx, k.o.Keyring, id)
		}
		if errors.Is(err, meta.ErrNotFound) {
			code, text := "SecretLost", "The values were lost with an installation key: give them again."
			state, err = health{"Unhealthy", &code, &text}, nil
		}
		return err
	})
	for i := range d.Properties.Credentials {
		d.Properties.Credentials[i].Health = &state
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package truststores declares Embargo.Containment/trustStores, which extends a registry: whose signatures its trustPolicy lets tags out by.
package truststores

import (
	"fmt"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/trust"
)

// TypeName is the full name of the type.
const TypeName = "Embargo.Containment/trustStores"

type document struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	SystemData arm.SystemData `json:"systemData"`
	Properties properties     `json:"properties"`
}

type properties struct {
	Certificates []string `json:"certificates" arm:"required" stance:"acts" doc:"PEM texts of authorities' or of signers' own certificates; a signature's chain must have one of them. An expired one is taken and verifies nothing: every certificate of a chain must be valid when a tag is pulled. Nothing is asked about revocation: take a certificate out to revoke it."`
	Identities   []string `json:"trustedIdentities" arm:"required" stance:"acts" doc:"Subjects that a signer's certificate may have, such as x509.subject: C=US, ST=WA, O=Contoso, CN=builds; C, ST and O must be given, and every attribute given must be the subject's. A * alone is any subject."`
	State        string   `json:"provisioningState" arm:"readonly"`
}

// Type declares the type.
func Type() arm.Resource {
	return &arm.Type[document]{
		Name: TypeName, Display: "Trust store", Scope: arm.OnAnything, On: "Microsoft.ContainerRegistry/registries", Verbs: arm.ChildVerbs,
		Names: arm.Names{Min: 1, Max: 50, Pattern: `[a-zA-Z0-9\-]*`, Text: "A trust store's name has 1 to 50 letters, digits and '-'."},
		Admit: admit, Apply: apply,
	}
}

func admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return nil
	}
	var faults []*fault.Fault
	refuse := func(at, format string, args ...any) {
		faults = append(faults, fault.New(fault.InvalidParameter, format, args...).At(at))
	}
	if len(c.Want.Properties.Certificates) == 0 {
		refuse("properties.certificates", "A trust store has at least one certificate. To trust nobody any more, delete the store.")
	}
	count := 0
	for i, text := range c.Want.Properties.Certificates {
		at := fmt.Sprintf("properties.certificates[%d]", i)
		list, err := trust.ParseCertificates(text)
		if err != nil {
			refuse(at, "The value of '%s' is no PEM text of certificates: %v.", at, err)
		}
		if count += len(list); count > trust.MostCertificates {
			refuse(at, "A trust store has at most %d certificates. Make another one for the rest.", trust.MostCertificates)
			break
		}
	}
	const identities = "properties.trustedIdentities"
	if n := len(c.Want.Properties.Identities); n > trust.MostIdentities {
		refuse(identities, "A trust store has at most %d trusted identities; %d were given.", trust.MostIdentities, n)
	} else if _, err := trust.ParseIdentities(c.Want.Properties.Identities); err != nil {
		refuse(identities, "The trusted identities are not valid: %v.", err)
	}
	if has := len(w.Children(c.ID.Scope(), TypeName)); c.Was == nil && has >= trust.MostStores {
		faults = append(faults, fault.New(fault.BadRequest, "The registry '%s' has %d trust stores, which is the most there can be. Delete one, or add to one.", c.ID.Scope().Name(), has))
	}
	return faults
}

// apply keeps the row that pulls are judged by.
func apply(tx *arm.Tx, c arm.Change[document]) error {
	if c.Want == nil {
		return trust.Remove(tx.Meta(), c.ID.String())
	}
	row, err := tx.Meta().RegistryByResource(c.ID.Scope().String())
	if err != nil {
		return err
	}
	p := &c.Want.Properties
	p.State = "Succeeded"
	return trust.Put(tx.Meta(), trust.Row{Registry: row.ID, Resource: c.ID.String(), Certificates: p.Certificates, Identities: p.Identities})
}

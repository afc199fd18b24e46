// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
)

const readProviders = "Microsoft.Resources/subscriptions/providers/read"

func providerRoutes() []arm.Route {
	return []arm.Route{
		{Method: http.MethodGet, Path: "/providers", Do: listProviders},
		{Method: http.MethodGet, Path: "/providers/{namespace}", Do: getProvider},
		{Method: http.MethodGet, Path: "/subscriptions/{subscription}/providers", Right: readProviders, Do: listProviders},
		{Method: http.MethodGet, Path: "/subscriptions/{subscription}/providers/{namespace}", Right: readProviders, Do: getProvider},
		{Method: http.MethodPost, Path: "/subscriptions/{subscription}/providers/{namespace}/register", Right: "Microsoft.Resources/subscriptions/providers/register/action", Do: getProvider},
		{Method: http.MethodPost, Path: "/subscriptions/{subscription}/providers/{namespace}/unregister", Right: "Microsoft.Resources/subscriptions/providers/unregister/action", Do: unregister},
	}
}

type provider struct {
	ID                 string         `json:"id"`
	Namespace          string         `json:"namespace"`
	RegistrationPolicy string         `json:"registrationPolicy,omitempty"`
	RegistrationState  string         `json:"registrationState,omitempty"`
	ResourceTypes      []providerType `json:"resourceTypes"`
}

type providerType struct {
	ResourceType      string   `json:"resourceType"`
	Locations         []string `json:"locations"`
	APIVersions       []string `json:"apiVersions"`
	DefaultAPIVersion string   `json:"defaultApiVersion,omitempty"`
	Capabilities      string   `json:"capabilities"`
}

func listProviders(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	list := []provider{}
	for _, ns := range tx.Engine().Namespaces() {
		list = append(list, describe(tx, c, ns))
	}
	return arm.Answer{Body: listBody{Value: list}}, nil
}

func getProvider(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	p := describe(tx, c, c.Values["namespace"])
	if p.Namespace == "" {
		return arm.Answer{}, fault.New(fault.InvalidResourceNamespace, "The resource namespace '%s' is invalid.", c.Values["namespace"])
	}
	return arm.Answer{Body: p}, nil
}

// unregister refuses: the providers of an installation are part of it.
func unregister(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	if p := describe(tx, c, c.Values["namespace"]); p.Namespace == "" {
		return getProvider(tx, c)
	}
	return arm.Answer{}, fault.New(fault.NotSupported, "The resource provider '%s' cannot be unregistered: every provider of this installation is always registered.", c.Values["namespace"])
}

// describe makes a provider's entry from the declarations; its Namespace is "" when it is not declared.
func describe(tx *arm.Tx, c *arm.RouteCall, namespace string) provider {
	declared, types := tx.Engine().Types(namespace)
	if declared == "" {
		return provider{}
	}
	p := provider{ID: "/providers/" + declared, Namespace: declared, ResourceTypes: []providerType{}}
	if s := c.Values["subscription"]; s != "" {
		p.ID = "/subscriptions/" + s + p.ID
		p.RegistrationPolicy, p.RegistrationState = "RegistrationRequired", "Registered"
	}
	for _, t := range types {
		entry := providerType{ResourceType: t.Path, Locations: t.Locations, APIVersions: t.APIVersions, Capabilities: t.Capabilities}
		for _, v := range t.APIVersions {
			if !strings.HasSuffix(v, "-preview") {
				entry.DefaultAPIVersion = v
				break
			}
		}
		p.ResourceTypes = append(p.ResourceTypes, entry)
	}
	return p
}

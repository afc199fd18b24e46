// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"errors"
	"net/http"
	"slices"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/name"
)

const readSubscription = "Microsoft.Resources/subscriptions/read"

func (s *scopes) routes() []arm.Route {
	return []arm.Route{
		{Method: http.MethodGet, Path: "/tenants", Do: s.listTenants},
		{Method: http.MethodGet, Path: "/subscriptions", Do: s.listSubscriptions},
		{Method: http.MethodGet, Path: "/subscriptions/{subscription}", Do: s.getSubscription},
		{Method: http.MethodGet, Path: "/subscriptions/{subscription}/locations", Right: "Microsoft.Resources/subscriptions/locations/read", Do: listLocations},
	}
}

type tenant struct {
	ID          string `json:"id"`
	TenantID    string `json:"tenantId"`
	Category    string `json:"tenantCategory"`
	DisplayName string `json:"displayName"`
	Type        string `json:"tenantType"`
}

func (s *scopes) listTenants(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	id, err := s.identity.Tenant(tx.Meta())
	if err != nil {
		return arm.Answer{}, err
	}
	return arm.Answer{Body: listBody{Value: []tenant{{"/tenants/" + id, id, "Home", "Embargo", "AAD"}}}}, nil
}

type subscription struct {
	ID                   string            `json:"id"`
	AuthorizationSource  string            `json:"authorizationSource"`
	ManagedByTenants     []any             `json:"managedByTenants"`
	Tags                 map[string]string `json:"tags,omitempty"`
	SubscriptionID       string            `json:"subscriptionId"`
	TenantID             string            `json:"tenantId"`
	DisplayName          string            `json:"displayName"`
	State                string            `json:"state"`
	SubscriptionPolicies policies          `json:"subscriptionPolicies"`
}

type policies struct {
	LocationPlacementID string `json:"locationPlacementId"`
	QuotaID             string `json:"quotaId"`
	SpendingLimit       string `json:"spendingLimit"`
}

func show(tx *arm.Tx, s identity.Subscription) (subscription, error) {
	id := name.Subscription(s.ID)
	_, tags, err := tagsOf(tx, id)
	return subscription{ID: id.String(), AuthorizationSource: "RoleBased", ManagedByTenants: []any{}, Tags: tags, SubscriptionID: s.ID, TenantID: s.Tenant,
		DisplayName: s.Name, State: s.State, SubscriptionPolicies: policies{"Internal_2014-09-01", "Internal_2014-09-01", "Off"}}, err
}

// visible reports whether the caller has any right in the subscription: one at it, or one at something below it.
func (s *scopes) visible(tx *arm.Tx, sub identity.Subscription) (bool, error) {
	at := name.Subscription(sub.ID)
	if ok, err := tx.Can(readSubscription, at); ok || err != nil {
		return ok, err
	}
	all, err := s.identity.Assignments(tx.Meta())
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(a identity.Assignment) bool {
		return a.Principal == tx.Request().Caller.ID && a.Scope.Within(at)
	}), nil
}

func (s *scopes) listSubscriptions(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	all, err := s.identity.Subscriptions(tx.Meta())
	if err != nil {
		return arm.Answer{}, err
	}
	list := []subscription{}
	for _, sub := range all {
		ok, err := s.visible(tx, sub)
		if err != nil {
			return arm.Answer{}, err
		}
		if !ok {
			continue
		}
		shown, err := show(tx, sub)
		if err != nil {
			return arm.Answer{}, err
		}
		list = append(list, shown)
	}
	return arm.Answer{Body: listBody{Value: list}}, nil
}

func (s *scopes) getSubscription(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	id := name.Subscription(c.Values["subscription"])
	all, err := s.identity.Subscriptions(tx.Meta())
	if err != nil {
		return arm.Answer{}, err
	}
	for _, sub := range all {
		if !name.Subscription(sub.ID).Equal(id) {
			continue
		}
		if ok, err := s.visible(tx, sub); err != nil || !ok {
			return arm.Answer{}, errors.Join(err, tx.Must(readSubscription, id))
		}
		shown, err := show(tx, sub)
		return arm.Answer{Body: shown}, err
	}
	return arm.Answer{}, fault.New(fault.SubscriptionNotFound, "The subscription '%s' could not be found.", id.Subscription())
}

type location struct {
	ID              string           `json:"id"`
	Name            string           `json:"name"`
	Type            string           `json:"type"`
	DisplayName     string           `json:"displayName"`
	RegionalDisplay string           `json:"regionalDisplayName"`
	Metadata        locationMetadata `json:"metadata"`
}

type locationMetadata struct {
	RegionType     string `json:"regionType"`
	RegionCategory string `json:"regionCategory"`
	GeographyGroup string `json:"geographyGroup"`
}

func listLocations(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	list := []location{}
	for _, l := range tx.Engine().Locations() {
		regional := l.Regional
		if regional == "" {
			regional = l.Display
		}
		list = append(list, location{"/subscriptions/" + c.Values["subscription"] + "/locations/" + l.Name, l.Name, "Region", l.Display, regional,
			locationMetadata{"Physical", "Recommended", l.Group}})
	}
	return arm.Answer{Body: listBody{Value: list}}, nil
}

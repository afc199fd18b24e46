// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

const readResources = "Microsoft.Resources/subscriptions/resources/read"

func listRoutes() []arm.Route {
	return []arm.Route{
		{Method: http.MethodGet, Path: "/subscriptions/{subscription}/resources", Do: listResources},
		{Method: http.MethodGet, Path: "/subscriptions/{subscription}/resourceGroups/{group}/resources", Do: listResources},
		{Method: http.MethodGet, Path: "/subscriptions/{subscription}/tagNames", Right: "Microsoft.Resources/subscriptions/tagNames/read", Do: listTagNames},
	}
}

// document is what a generic list reads of any resource.
type document struct {
	SKU       json.RawMessage   `json:"sku"`
	Kind      json.RawMessage   `json:"kind"`
	ManagedBy json.RawMessage   `json:"managedBy"`
	Identity  json.RawMessage   `json:"identity"`
	Location  string            `json:"location"`
	Tags      map[string]string `json:"tags"`
}

// item is an entry of a generic list.
type item struct {
	ID                string            `json:"id"`
	Name              string            `json:"name"`
	Type              string            `json:"type"`
	SKU               json.RawMessage   `json:"sku,omitempty"`
	Kind              json.RawMessage   `json:"kind,omitempty"`
	ManagedBy         json.RawMessage   `json:"managedBy,omitempty"`
	Location          string            `json:"location"`
	Identity          json.RawMessage   `json:"identity,omitempty"`
	Tags              map[string]string `json:"tags"`
	SystemData        *systemData       `json:"systemData,omitempty"`
	CreatedTime       string            `json:"createdTime,omitempty"`
	ChangedTime       string            `json:"changedTime,omitempty"`
	ProvisioningState string            `json:"provisioningState,omitempty"`
}

type systemData struct {
	CreatedBy          string `json:"createdBy"`
	CreatedByType      string `json:"createdByType"`
	CreatedAt          string `json:"createdAt"`
	LastModifiedBy     string `json:"lastModifiedBy"`
	LastModifiedByType string `json:"lastModifiedByType"`
	LastModifiedAt     string `json:"lastModifiedAt"`
}

type listBody struct {
	Value    any    `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

func scopeOf(c *arm.RouteCall) name.ResourceID {
	if g := c.Values["group"]; g != "" {
		return name.Group(c.Values["subscription"], g)
	}
	return name.Subscription(c.Values["subscription"])
}

// listResources serves the generic list: those tracked resources that the caller may read and the filter holds.
func listResources(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	filter, err := arm.ParseFilter(c.Param("$filter"))
	if err != nil {
		return arm.Answer{}, err
	}
	expand, err := expansions(c.Param("$expand"))
	if err != nil {
		return arm.Answer{}, err
	}
	limit, after, err := c.Paging()
	if err != nil {
		return arm.Answer{}, err
	}
	scope := scopeOf(c)
	if scope.ResourceGroup() != "" {
		if _, err := tx.Find(scope); err != nil {
			return arm.Answer{}, err
		}
	}
	all, err := tx.Can(readResources, scope)
	if err != nil {
		return arm.Answer{}, err
	}
	body := listBody{Value: []item{}}
	items := []item{}
	for {
		batch, err := tx.Tracked(scope, filter.Only(), after, limit+1)
		if err != nil {
			return arm.Answer{}, err
		}
		for _, r := range batch {
			var d document
			if err := r.Document.Decode(&d); err != nil {
				return arm.Answer{}, err
			}
			seen := filter.Match(r.ID, d.Location, d.Tags)
			if seen && !all {
				if seen, err = tx.Can(r.Right+"/read", r.ID); err != nil {
					return arm.Answer{}, err
				}
			}
			if !seen {
				after = r.ID.Key()
				continue
			}
			if len(items) == limit {
				body.Value, body.NextLink = items, c.NextLink(after)
				return arm.Answer{Body: body}, nil
			}
			items, after = append(items, itemOf(r, d, expand)), r.ID.Key()
		}
		if len(batch) <= limit {
			break
		}
	}
	body.Value = items
	return arm.Answer{Body: body}, nil
}

func itemOf(r arm.ResourceInfo, d document, expand []string) item {
	it := item{ID: r.ID.String(), Name: r.ID.Name(), Type: r.Type, SKU: d.SKU, Kind: d.Kind, ManagedBy: d.ManagedBy, Location: d.Location, Identity: d.Identity, Tags: d.Tags}
	if it.Tags == nil {
		it.Tags = map[string]string{}
	}
	y := r.System
	it.SystemData = &systemData{y.CreatedBy, y.CreatedByType, instant(y.CreatedAt), y.LastModifiedBy, y.LastModifiedByType, instant(y.LastModifiedAt)}
	if slices.Contains(expand, "createdtime") {
		it.CreatedTime = instant(y.CreatedAt)
	}
	if slices.Contains(expand, "changedtime") {
		it.ChangedTime = instant(y.LastModifiedAt)
	}
	if slices.Contains(expand, "provisioningstate") {
		it.ProvisioningState = r.State
	}
	return it
}

// instant is a time as the generic list has it: with Z, where a resource's own systemData has +00:00.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

// expansions reads $expand: createdTime, changedTime and provisioningState, joined by commas.
func expansions(text string) ([]string, error) {
	var out []string
	for word := range strings.SplitSeq(text, ",") {
		switch w := strings.ToLower(strings.TrimSpace(word)); w {
		case "":
		case "createdtime", "changedtime", "provisioningstate":
			out = append(out, w)
		default:
			return nil, fault.New(fault.InvalidParameter, "The $expand value '%s' is not supported. Supported are createdTime, changedTime and provisioningState.", word).At("$expand")
		}
	}
	return out, nil
}

// listTagNames serves the names and values of tags in use in a subscription.
func listTagNames(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	type count struct {
		Type  string `json:"type"`
		Value int    `json:"value"`
	}
	type tagValue struct {
		ID    string `json:"id"`
		Value string `json:"tagValue"`
		Count count  `json:"count"`
	}
	type tagName struct {
		ID     string     `json:"id"`
		Name   string     `json:"tagName"`
		Count  count      `json:"count"`
		Values []tagValue `json:"values"`
	}
	scope := scopeOf(c)
	uses := map[string]map[string]int{}
	tally := func(it arm.Item) error {
		var d document
		if err := it.Decode(&d); err != nil {
			return err
		}
		for k, v := range d.Tags {
			if uses[k] == nil {
				uses[k] = map[string]int{}
			}
			uses[k][v]++
		}
		return nil
	}
	for _, g := range tx.World().Below(scope, groupTypeName) {
		if err := tally(g); err != nil {
			return arm.Answer{}, err
		}
	}
	tracked, err := tx.Tracked(scope, "", "", 1<<20)
	if err != nil {
		return arm.Answer{}, err
	}
	for _, r := range tracked {
		if err := tally(r.Document); err != nil {
			return arm.Answer{}, err
		}
	}
	names := []tagName{}
	for _, k := range sorted(uses) {
		n := tagName{ID: scope.String() + "/tagNames/" + k, Name: k, Count: count{Type: "Total"}, Values: []tagValue{}}
		for _, v := range sorted(uses[k]) {
			n.Values = append(n.Values, tagValue{n.ID + "/tagValues/" + v, v, count{"Total", uses[k][v]}})
			n.Count.Value += uses[k][v]
		}
		names = append(names, n)
	}
	return arm.Answer{Body: listBody{Value: names}}, nil
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// SPDX-License-Identifier: Apache-2.0

// Package webhooks declares Microsoft.ContainerRegistry/registries/webhooks: who is told of what happens in a registry. The destination and the
// headers are secrets: they lie sealed beside the document and are shown by getCallbackConfig alone.
package webhooks

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/webhook"
)

type document struct {
	Type       string            `json:"type"`
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Location   string            `json:"location" arm:"required" stance:"echo" doc:"The registry's own: there is no other region."`
	Tags       map[string]string `json:"tags"`
	SystemData arm.SystemData    `json:"systemData" api:"2020-11-01-preview..; 2021-09-01.."`
	Properties properties        `json:"properties"`
}

type properties struct {
	ServiceURI string            `json:"serviceUri" arm:"required,secret" stance:"acts" doc:"http or https URL; inside the network only where the operator lists it (webhooks.destinations)."`
	Headers    map[string]string `json:"customHeaders" arm:"secret" stance:"acts" doc:"Sent with each event."`
	Status     string            `json:"status" enum:"enabled|disabled" default:"enabled" stance:"acts"`
	Scope      string            `json:"scope" stance:"acts" doc:"repository:tag, repository:*, repository (its tag latest); a star may end either part; empty is everything."`
	Actions    []string          `json:"actions" arm:"required" enum:"push|delete|quarantine|chart_push|chart_delete" stance:"acts" doc:"chart_push and chart_delete tell of Helm charts, besides push and delete; quarantine tells of what quarantinePolicy holds back."`
	State      string            `json:"provisioningState" arm:"readonly"`
}

// TypeName is the full name of the type.
const TypeName = "Microsoft.ContainerRegistry/registries/webhooks"

// Options configure the type.
type Options struct {
	Keyring *meta.Keyring
	// Check tells of a destination where it is and whether the operator lists it.
	Check func(uri string) (where string, declared bool, err error)
}

type kind struct{ o Options }

// Type declares the type.
func Type(o Options) arm.Resource {
	k := kind{o}
	return &arm.Type[document]{
		Name: TypeName, Display: "Webhook", API: "2017-06-01-preview..; 2017-10-01..", Verbs: arm.ChildVerbs,
		Names:   arm.Names{Min: 5, Max: 50, Pattern: `[a-zA-Z0-9]*`, Text: "A webhook's name has 5 to 50 letters and digits."},
		Answers: arm.Answers{Created: 200},
		Admit:   k.admit, Apply: k.apply,
		Actions: []arm.Action{
			arm.Do(arm.Action{Name: "ping", Display: "Send a webhook's destination an event that tells of nothing"}, k.ping),
			arm.Do(arm.Action{Name: "getCallbackConfig", Display: "Show a webhook's destination, headers and signing key"}, k.callback),
			arm.Do(arm.Action{Name: "listEvents", Reads: true, Display: "List a webhook's last events"}, k.events),
		},
	}
}

func (k kind) admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return nil
	}
	var registry struct {
		Location   string                `json:"location"`
		SKU        struct{ Name string } `json:"sku"`
		Properties struct {
			Policies struct {
				Export struct{ Status string } `json:"exportPolicy"`
			} `json:"policies"`
		} `json:"properties"`
	}
	at := c.ID.Parent()
	if !w.Get(at, &registry) {
		return []*fault.Fault{fault.New(fault.ParentResourceNotFound, "The registry '%s' was not found.", at.Name())}
	}
	var faults []*fault.Fault
	add := func(err error) {
		if err != nil {
			faults = append(faults, fault.From(err))
		}
	}
	if limit, has := webhook.Most(registry.SKU.Name), len(w.Children(at, TypeName)); c.Was == nil && has >= limit {
		add(fault.New(fault.BadRequest, "The registry '%s' has %d webhooks, and a registry of the SKU %s has at most %d. Delete one, or change the SKU.", at.Name(), has, registry.SKU.Name, limit).At(at.String()))
	}
	if plain(c.Want.Location) != plain(registry.Location) {
		add(fault.New(fault.InvalidParameter, "The webhook's location is '%s', but the registry '%s' is in '%s' alone: a webhook tells of what happens in its own location.",
			c.Want.Location, at.Name(), registry.Location).At("location"))
	}
	add(webhook.CheckScope(c.Want.Properties.Scope))
	add(webhook.CheckHeaders(c.Want.Properties.Headers))
	if c.Was == nil || c.Want.Properties.ServiceURI != "" {
		where, declared, err := k.o.Check(c.Want.Properties.ServiceURI)
		add(err)
		if err == nil && !declared && registry.Properties.Policies.Export.Status == "disabled" {
			add(fault.New(fault.BadRequest, "Creating the webhook '%s' to %s is not supported because the registry '%s' has exports disabled and the destination is not among webhooks.destinations of this server's configuration. "+
				"An operator can list it there, or an administrator of the registry can set properties.policies.exportPolicy.status to 'enabled' first.", c.ID.Name(), where, at.Name()).At(at.String()))
		}
	}
	return faults
}

func plain(location string) string { return strings.ToLower(strings.ReplaceAll(location, " ", "")) }

// apply keeps the webhook's row and its sealed configuration; the document keeps no secret.
func (k kind) apply(tx *arm.Tx, c arm.Change[document]) error {
	m := tx.Meta()
	h, err := webhook.Find(m, c.ID.String())
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	if c.Want == nil {
		if h.ID == "" {
			return nil
		}
		return webhook.Remove(m, h)
	}
	if h.ID == "" {
		row, err := m.RegistryByResource(c.ID.Parent().String())
		if err != nil {
			return err
		}
		h = webhook.Hook{ID: tx.NewID(), Registry: row.ID, Resource: c.ID.String()}
	}
	p := &c.Want.Properties
	config, err := webhook.ConfigOf(m, k.o.Keyring, h.ID)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	if p.ServiceURI != "" {
		config.URI = p.ServiceURI
	}
	if c.Was == nil || c.Method == "PUT" || c.Sent("properties.customHeaders") {
		config.Headers = p.Headers
	}
	if config.URI == "" {
		return fault.New(fault.InvalidParameter, "The webhook's destination was lost with an installation key: give serviceUri again, and customHeaders if there were any.").At("properties.serviceUri")
	}
	if err := webhook.Configure(m, k.o.Keyring, h.ID, config); err != nil {
		return err
	}
	p.Actions = distinct(p.Actions)
	p.ServiceURI, p.Headers, p.State = "", nil, "Succeeded"
	h.Enabled, h.Scope, h.Actions = p.Status == "enabled", p.Scope, p.Actions
	return webhook.Put(m, h)
}

// distinct are the texts of a list, each once, in their order.
func distinct(list []string) (once []string) {
	for _, s := range list {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}

// found is the webhook of an action's call; the engine has found its document.
func found(tx *arm.Tx, id string) (webhook.Hook, error) { return webhook.Find(tx.Meta(), id) }

type pinged struct {
	ID string `json:"id"`
}

func (k kind) ping(tx *arm.Tx, c arm.Call[arm.None]) (pinged, error) {
	h, err := found(tx, c.ID.String())
	if err != nil {
		return pinged{}, err
	}
	id, err := webhook.Ping(tx.Meta(), h, c.RequestID)
	return pinged{id}, err
}

type callback struct {
	ServiceURI string            `json:"serviceUri"`
	Headers    map[string]string `json:"customHeaders"`
	// SigningKey is ours: the key of the header X-Embargo-Signature, in base64.
	SigningKey string `json:"signingKey"`
}

func (k kind) callback(tx *arm.Tx, c arm.Call[arm.None]) (callback, error) {
	h, err := found(tx, c.ID.String())
	if err != nil {
		return callback{}, err
	}
	config, err := webhook.ConfigOf(tx.Meta(), k.o.Keyring, h.ID)
	if errors.Is(err, meta.ErrNotFound) {
		return callback{}, fault.New(fault.Conflict, "The destination of the webhook '%s' was lost with an installation key. Set serviceUri and customHeaders again.", c.ID.Name())
	}
	return callback{config.URI, config.Headers, config.Key}, err
}

type eventList struct {
	Value []event `json:"value"`
}

type event struct {
	Request  *requestMessage  `json:"eventRequestMessage"`
	Response *responseMessage `json:"eventResponseMessage"`
	ID       string           `json:"id"`
}

type requestMessage struct {
	Content    any               `json:"content"`
	Headers    map[string]string `json:"headers"`
	Method     string            `json:"method"`
	RequestURI string            `json:"requestUri"`
	Version    string            `json:"version"`
}

type responseMessage struct {
	Content string            `json:"content"`
	Headers map[string]string `json:"headers"`
	Reason  string            `json:"reasonPhrase"`
	Status  string            `json:"statusCode"`
	Version string            `json:"version"`
}

func (k kind) events(tx *arm.Tx, c arm.Call[arm.None]) (eventList, error) {
	h, err := found(tx, c.ID.String())
	if err != nil {
		return eventList{}, err
	}
	sent, err := webhook.Events(tx.Meta(), h.ID)
	if err != nil {
		return eventList{}, err
	}
	list := eventList{[]event{}}
	for _, s := range sent {
		e := event{ID: s.ID, Request: &requestMessage{Method: "POST", Version: "1.1", Headers: map[string]string{}}}
		if s.Request != nil {
			e.Request.Headers, e.Request.Method, e.Request.RequestURI, e.Request.Version = s.Request.Headers, s.Request.Method, s.Request.RequestURI, s.Request.Version
		}
		if err := json.Unmarshal(s.Content, &e.Request.Content); err != nil {
			return eventList{}, err
		}
		if r := s.Response; r != nil {
			e.Response = &responseMessage{r.Content, r.Headers, r.ReasonPhrase, r.StatusCode, r.Version}
		}
		list.Value = append(list.Value, e)
	}
	return list, nil
}

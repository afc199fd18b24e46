// SPDX-License-Identifier: Apache-2.0

// Package webhook tells the world of what happens in a registry: it keeps the webhooks of registries and the events that they want to hear of, and
// posts each event to its webhook's destination. It hides the tables of both, the order of sending, and the retries.
//
// It promises that an event is raised exactly when the change that it tells of commits, that events of one webhook are sent in their order but for those that
// the receiver refused, that one that did not arrive is sent again, with growing pauses, until it is three days old, and that nothing is sent without the gate's leave (R13), asked
// anew at each attempt. A receiver may get an event twice, under the same id.
package webhook

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"github.com/embargo-registry/embargo/meta"
)

// The actions that a webhook may want to hear of.
const (
	Push        = "push"
	Delete      = "delete"
	Quarantine  = "quarantine"
	ChartPush   = "chart_push"
	ChartDelete = "chart_delete"
	// ping is asked for by Ping; no webhook subscribes to it.
	ping = "ping"
)

// Most is how many webhooks a registry of a SKU may have. Source: ACR, "Service tiers and limits".
func Most(sku string) int { return map[string]int{"Basic": 2, "Standard": 10, "Premium": 500}[sku] }

// Hook is a webhook. Its destination is not part of it: that is a secret.
type Hook struct {
	// ID is its identity, random and never used again; Registry is the identity of its registry.
	ID, Registry string
	// Resource is its ARM id.
	Resource string
	Enabled  bool
	Scope    string
	Actions  []string
}

// Config is where events are posted, and with what.
type Config struct {
	URI     string            `json:"uri"`
	Headers map[string]string `json:"headers,omitempty"`
	// Key signs the events: base64 of random bytes, made once.
	Key string `json:"key"`
}

const hookColumns = `id, registry, resource_id, enabled, scope, actions`

func scanHook(scan func(...any) error) (Hook, error) {
	var h Hook
	var actions string
	err := scan(&h.ID, &h.Registry, &h.Resource, &h.Enabled, &h.Scope, &actions)
	h.Actions = strings.Fields(actions)
	return h, err
}

// Find reads a webhook by its ARM id, in any casing. Errors: meta.ErrNotFound.
func Find(tx *meta.Tx, resource string) (Hook, error) {
	return scanHook(tx.Row(`SELECT `+hookColumns+` FROM webhooks WHERE resource_key = $1`, strings.ToLower(resource)).Scan)
}

// Put writes a webhook. Its identity is h.ID, made by the caller.
func Put(tx *meta.Tx, h Hook) error {
	_, err := tx.Exec(`INSERT INTO webhooks (`+hookColumns+`, resource_key, failures, resume_us, next_job, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, '', $8)
 ON CONFLICT (id) DO UPDATE SET enabled = excluded.enabled, scope = excluded.scope, actions = excluded.actions, failures = 0, resume_us = 0`,
		h.ID, h.Registry, h.Resource, h.Enabled, h.Scope, strings.Join(h.Actions, " "), strings.ToLower(h.Resource), meta.Micros(tx.Now()))
	if err != nil {
		return err
	}
	// What waits for the receiver's recovery is tried at once: the change may be what it waited for.
	n, err := tx.Exec(`UPDATE webhook_events SET due_us = 0 WHERE webhook = $1 AND state = 'pending'`, h.ID)
	if err == nil && n > 0 {
		err = wake(tx, h, "")
	}
	return err
}

// Remove takes a webhook away, with its secret and its events.
func Remove(tx *meta.Tx, h Hook) error {
	for _, query := range []string{`DELETE FROM webhook_events WHERE webhook = $1`, `DELETE FROM webhooks WHERE id = $1`} {
		if _, err := tx.Exec(query, h.ID); err != nil {
			return err
		}
	}
	return tx.DeleteSecret(secretName(h.ID))
}

// SecretPrefix begins the names of the secrets that this package keeps.
const SecretPrefix = "webhook/"

func secretName(id string) string { return SecretPrefix + id }

// Configure seals a webhook's configuration; one without a key gets one.
func Configure(tx *meta.Tx, ring *meta.Keyring, id string, c Config) error {
	if c.Key == "" {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails, by its contract
		c.Key = base64.StdEncoding.EncodeToString(b[:])
	}
	plain, err := json.Marshal(c)
	if err != nil {
		return err
	}
	sealed, err := ring.Seal(secretName(id), plain)
	if err != nil {
		return err
	}
	return tx.PutSecret(secretName(id), sealed)
}

// ConfigOf opens a webhook's configuration. Errors: meta.ErrNotFound when it was lost with an installation key.
func ConfigOf(tx *meta.Tx, ring *meta.Keyring, id string) (Config, error) {
	var c Config
	sealed, err := tx.Secret(secretName(id))
	if err != nil {
		return c, err
	}
	plain, err := ring.Open(secretName(id), sealed)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(plain, &c)
}

// Any reports whether a registry has a webhook that hears of anything: where none has, a push need not find out what to tell.
func Any(tx *meta.Tx, registry string) (bool, error) {
	var one int
	err := tx.Row(`SELECT 1 FROM webhooks WHERE registry = $1 AND enabled LIMIT 1`, registry).Scan(&one)
	if errors.Is(err, meta.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// interested are the enabled webhooks of a registry that want to hear of an action on one of the names.
func interested(tx *meta.Tx, registry, action, repository string, tags []string) (hooks []Hook, err error) {
	rows, err := tx.Query(`SELECT `+hookColumns+` FROM webhooks WHERE registry = $1 AND enabled ORDER BY id`, registry)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		h, err := scanHook(rows.Scan)
		if err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		if h.wants(action) && parseScope(h.Scope).covers(repository, tags) {
			hooks = append(hooks, h)
		}
	}
	return hooks, errors.Join(rows.Err(), rows.Close())
}

func (h Hook) wants(action string) bool {
	for _, a := range h.Actions {
		if a == action {
			return true
		}
	}
	return false
}

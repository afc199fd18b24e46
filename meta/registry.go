// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// RegistryRow is what decisions read of a registry: a projection of its ARM document, written in the document's transaction and
// read in the transaction of the decision.
type RegistryRow struct {
	// ID is the registry's identity: random, and never used again, so that a registry made anew under the same name is another one.
	ID string
	// ResourceID is the canonical ARM id.
	ResourceID string
	// Name and LoginServer are in lower case.
	Name, LoginServer string
	Location, SKU     string
	// Epoch grows with every write of the row.
	Epoch int64
	// Exports is policies.exportPolicy.status = enabled; PublicAccess is publicNetworkAccess = Enabled. Both read false while the row is held.
	Exports, PublicAccess bool
	// DefaultDeny is networkRuleSet.defaultAction = Deny; IPRules are the allowed addresses then.
	DefaultDeny         bool
	IPRules             Ranges
	BypassAzureServices bool
	AdminEnabled        bool
	AnonymousPull       bool
	// AbacMode is roleAssignmentMode = AbacRepositoryPermissions.
	AbacMode bool
	// ArmTokens is policies.azureADAuthenticationAsArmPolicy.status = enabled.
	ArmTokens    bool
	DataEndpoint bool
	// Quarantine is quarantinePolicy.status = enabled: what is pushed is seen by those alone who may read content in quarantine, until it is released.
	Quarantine bool
	// Trust is trustPolicy.status = enabled: a tag is let out to those alone who may sign, unless what it names is signed by whom a trust store trusts.
	Trust bool
	// Retention is retentionPolicy.status = enabled; it bears on manifests that lost their last tag since RetentionSince, RetentionDays ago.
	Retention      bool
	RetentionDays  int64
	RetentionSince time.Time
	// SoftDelete is softDeletePolicy.status = enabled, SoftDeleteDays how long what was deleted can be restored.
	SoftDelete     bool
	SoftDeleteDays int64
	// TokensValidFrom: tokens issued before it are void.
	TokensValidFrom time.Time
	// Endpoints are the ids of the private endpoints whose connection is approved, in their order; none while the row is held. PutRegistry leaves them as they are: see PutEndpoint.
	Endpoints []string
	// Held: the database is a copy that may be older than what was in force, and nobody has confirmed it. PutRegistry leaves it as it is.
	Held bool
}

const registryColumns = `id, resource_id, name, login_server, location, sku, epoch, exports, public_access, default_deny, ip_rules,
 bypass, admin_enabled, anonymous_pull, abac_mode, arm_tokens, data_endpoint, tokens_valid_from_us, quarantine, trust, retention, retention_days, retention_since_us, soft_delete, soft_delete_days`

// PutRegistry writes the row and returns its new epoch: one more than any that the row, or r, had.
func (tx *Tx) PutRegistry(r RegistryRow) (int64, error) {
	rules, err := json.Marshal(append([]netip.Prefix{}, r.IPRules.list...))
	if err != nil {
		return 0, err
	}
	var epoch int64
	err = tx.Row(`INSERT INTO registries (`+registryColumns+`, resource_key)
 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)
 ON CONFLICT (id) DO UPDATE SET resource_id = excluded.resource_id, name = excluded.name, login_server = excluded.login_server,
  location = excluded.location, sku = excluded.sku,
  epoch = CASE WHEN registries.epoch >= excluded.epoch THEN registries.epoch + 1 ELSE excluded.epoch END,
  exports = excluded.exports, public_access = excluded.public_access, default_deny = excluded.default_deny, ip_rules = excluded.ip_rules,
  bypass = excluded.bypass, admin_enabled = excluded.admin_enabled, anonymous_pull = excluded.anonymous_pull, abac_mode = excluded.abac_mode,
  arm_tokens = excluded.arm_tokens, data_endpoint = excluded.data_endpoint, tokens_valid_from_us = excluded.tokens_valid_from_us,
  quarantine = excluded.quarantine, trust = excluded.trust, retention = excluded.retention, retention_days = excluded.retention_days, retention_since_us = excluded.retention_since_us, soft_delete = excluded.soft_delete,
  soft_delete_days = excluded.soft_delete_days, resource_key = excluded.resource_key
 RETURNING epoch`,
		r.ID, r.ResourceID, r.Name, r.LoginServer, r.Location, r.SKU, r.Epoch+1, r.Exports, r.PublicAccess, r.DefaultDeny, string(rules),
		r.BypassAzureServices, r.AdminEnabled, r.AnonymousPull, r.AbacMode, r.ArmTokens, r.DataEndpoint, Micros(r.TokensValidFrom),
		r.Quarantine, r.Trust, r.Retention, r.RetentionDays, Micros(r.RetentionSince), r.SoftDelete, r.SoftDeleteDays, strings.ToLower(r.ResourceID)).Scan(&epoch)
	return epoch, err
}

// DeleteRegistry removes the row. What names its ID is void from then on.
func (tx *Tx) DeleteRegistry(id string) error {
	_, err := tx.Exec(`DELETE FROM registries WHERE id = $1`, id)
	return err
}

// LockRegistry reads the row by identity and keeps others from changing it until the transaction ends. Errors: ErrNotFound.
func (tx *Tx) LockRegistry(id string) (RegistryRow, error) {
	return tx.registry(tx.Lock(`SELECT `+registryColumns+`, endpoints, held FROM registries WHERE id = $1`, id))
}

// RegistryByID reads the row by identity. Errors: ErrNotFound.
func (tx *Tx) RegistryByID(id string) (RegistryRow, error) {
	return tx.registry(tx.Row(`SELECT `+registryColumns+`, endpoints, held FROM registries WHERE id = $1`, id))
}

// RegistryByResource reads the row by ARM id, in any casing. Errors: ErrNotFound.
func (tx *Tx) RegistryByResource(resourceID string) (RegistryRow, error) {
	return tx.registry(tx.Row(`SELECT `+registryColumns+`, endpoints, held FROM registries WHERE resource_key = $1`, strings.ToLower(resourceID)))
}

// RegistryByName reads the row by name, in any casing. Errors: ErrNotFound.
func (tx *Tx) RegistryByName(name string) (RegistryRow, error) {
	return tx.registry(tx.Row(`SELECT `+registryColumns+`, endpoints, held FROM registries WHERE name = $1`, strings.ToLower(name)))
}

// RegistryByLabel reads the row by the first label of its login server, in any casing: the name, or the name with a hash of its scope, which only a registry of that scope has. Errors: ErrNotFound.
func (tx *Tx) RegistryByLabel(label string) (RegistryRow, error) {
	label = strings.ToLower(label)
	name, _, _ := strings.Cut(label, "-") // a name has none
	r, err := tx.RegistryByName(name)
	if err == nil && !strings.HasPrefix(r.LoginServer, label+".") {
		return RegistryRow{}, ErrNotFound
	}
	return r, err
}

// RegistryByLoginServer reads the row by login server, in any casing and without a port. Errors: ErrNotFound.
func (tx *Tx) RegistryByLoginServer(host string) (RegistryRow, error) {
	return tx.registry(tx.Row(`SELECT `+registryColumns+`, endpoints, held FROM registries WHERE login_server = $1`, strings.ToLower(host)))
}

// Registries reads all rows in the order of their names.
func (tx *Tx) Registries() ([]RegistryRow, error) {
	rows, err := tx.Query(`SELECT ` + registryColumns + `, endpoints, held FROM registries ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []RegistryRow
	for rows.Next() {
		r, err := tx.scanRegistry(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// registry reads the row of a query of one, or what it meant when the same answer was read before. What its fields point to is shared, and not to be changed.
func (tx *Tx) registry(row *Row) (RegistryRow, error) {
	if row.err != nil || row.rows == nil || row.rows.from == nil {
		return tx.scanRegistry(row.Scan)
	}
	if known := row.rows.from.row.Load(); known != nil {
		return *known, nil
	}
	r, err := tx.scanRegistry(row.Scan)
	if err == nil {
		row.rows.from.row.Store(&r)
	}
	return r, err
}

func (tx *Tx) scanRegistry(scan func(...any) error) (RegistryRow, error) {
	var r RegistryRow
	var rules, endpoints string
	var valid, since int64
	err := scan(&r.ID, &r.ResourceID, &r.Name, &r.LoginServer, &r.Location, &r.SKU, &r.Epoch, &r.Exports, &r.PublicAccess, &r.DefaultDeny, &rules,
		&r.BypassAzureServices, &r.AdminEnabled, &r.AnonymousPull, &r.AbacMode, &r.ArmTokens, &r.DataEndpoint, &valid,
		&r.Quarantine, &r.Trust, &r.Retention, &r.RetentionDays, &since, &r.SoftDelete, &r.SoftDeleteDays, &endpoints, &r.Held)
	if err != nil {
		return RegistryRow{}, err
	}
	if r.IPRules, r.Endpoints, err = tx.meaning(r.ID, rules, endpoints); err != nil {
		return RegistryRow{}, fmt.Errorf("IP rules and private endpoints of registry %s: %w", r.Name, err)
	}
	r.TokensValidFrom, r.RetentionSince = FromMicros(valid), FromMicros(since)
	if r.Held {
		r.Exports, r.PublicAccess, r.Endpoints = false, false, nil
	}
	return r, nil
}

// meanings is of how many registries it is kept what the texts of their rows mean.
const meanings = 1024

// meaning is what texts of a registry's row mean.
type meaning struct {
	rulesText, endpointsText string
	rules                    Ranges
	endpoints                []string
}

// meaning reads the texts of a row, or remembers what they meant the last time: that depends on nothing but the texts. What it returns is shared, and not to be changed.
func (tx *Tx) meaning(id, rules, endpoints string) (Ranges, []string, error) {
	if rules == "[]" && endpoints == "[]" {
		return Ranges{}, nil, nil
	}
	m, known := tx.db.meanings.Get(id)
	if known && m.rulesText == rules && m.endpointsText == endpoints { // no letter is compared when both are from memory
		return m.rules, m.endpoints, nil
	}
	m = &meaning{rulesText: rules, endpointsText: endpoints}
	var list []netip.Prefix
	if err := errors.Join(json.Unmarshal([]byte(rules), &list), json.Unmarshal([]byte(endpoints), &m.endpoints)); err != nil {
		return Ranges{}, nil, err
	}
	m.rules = NewRanges(list...)
	slices.Sort(m.endpoints) // Enter finds one among many
	m.endpoints = slices.Clip(m.endpoints)
	if len(m.endpoints) == 0 {
		m.endpoints = nil
	}
	tx.db.meanings.Add(id, m)
	return m.rules, m.endpoints, nil
}

// HoldRegistry sets or clears the row's hold and raises its epoch above both its own and floor. It returns the new epoch. Errors: ErrNotFound.
func (tx *Tx) HoldRegistry(id string, held bool, floor int64) (int64, error) {
	var epoch int64
	err := tx.Row(`UPDATE registries SET held = $1, epoch = CASE WHEN epoch >= $2 THEN epoch ELSE $2 END + 1 WHERE id = $3 RETURNING epoch`, held, floor, id).Scan(&epoch)
	return epoch, err
}

// OwnPolicy is what a held registry's own row says, which is in force again when the hold ends.
type OwnPolicy struct {
	Registry     string `json:"registry"`
	Exports      bool   `json:"exports"`
	PublicAccess bool   `json:"publicNetworkAccess"`
	// Endpoints are the ARM ids of its approved private endpoints.
	Endpoints []string `json:"privateEndpoints,omitempty"`
}

// OwnPolicies are those of the registries that are held, by name.
func (tx *Tx) OwnPolicies() ([]OwnPolicy, error) {
	rows, err := tx.Query(`SELECT id, name, exports, public_access FROM registries WHERE held ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []OwnPolicy
	var ids []string
	for rows.Next() {
		var p OwnPolicy
		var id string
		if err := rows.Scan(&id, &p.Registry, &p.Exports, &p.PublicAccess); err != nil {
			return nil, err
		}
		all, ids = append(all, p), append(ids, id)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for i, id := range ids {
		endpoints, err := tx.approvedEndpoints(id)
		if err != nil {
			return nil, err
		}
		for _, e := range endpoints {
			all[i].Endpoints = append(all[i].Endpoints, e.ResourceID)
		}
	}
	return all, nil
}

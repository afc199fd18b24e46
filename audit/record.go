// SPDX-License-Identifier: Apache-2.0

// Package audit is the append-only record of every change and every decision. A record is a leaf: canonical, versioned bytes that are
// written once and never rebuilt from columns, so that what was recorded can be proven later.
//
// It promises that a change's record commits with the change (Append), and that a decision's record is durable when Decide returns;
// concurrent decisions share one commit. It never updates or deletes.
package audit

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/redact"
)

// Kind says what a record is about.
type Kind string

// The kinds of records.
const (
	Change   Kind = "change"
	Decision Kind = "decision"
	Login    Kind = "login"
	Security Kind = "security"
)

// Outcome says how it ended.
type Outcome string

// The outcomes. Completed and Aborted follow an Allowed decision and tell the bytes really sent.
const (
	Allowed   Outcome = "allowed"
	Refused   Outcome = "refused"
	Completed Outcome = "completed"
	Aborted   Outcome = "aborted"
	Succeeded Outcome = "succeeded"
	Failed    Outcome = "failed"
)

// Caller is who asked.
type Caller struct {
	ID         string `json:"id,omitempty"`
	Name       string `json:"name,omitempty"`
	Type       string `json:"type,omitempty"`
	Credential string `json:"credential,omitempty"`
	Tenant     string `json:"tenant,omitempty"`
}

// Source is where the request came from: the accepted connection's address and zone, never a header's.
type Source struct {
	Address   string `json:"address,omitempty"`
	Zone      string `json:"zone,omitempty"`
	UserAgent string `json:"userAgent,omitempty"`
	// Endpoint is the private endpoint by whose door it came, by its ARM id: zones of several may have one name.
	Endpoint string `json:"endpoint,omitempty"`
}

// From is the source of what came on a connection; nil is none.
func From(p *network.Peer, userAgent string) Source {
	if p == nil {
		return Source{UserAgent: userAgent}
	}
	return Source{Address: p.Addr.String(), Zone: p.Zone.String(), UserAgent: userAgent, Endpoint: p.Resource}
}

// Record is what happened. Its members' order is the order in the leaf.
type Record struct {
	Kind    Kind    `json:"kind"`
	Action  string  `json:"action"`
	Outcome Outcome `json:"outcome"`
	// Decision is the id that a decision's later Completed or Aborted record names too.
	Decision string `json:"decision,omitempty"`
	// Rule is what refused, in the words of the policy; Reason is the text that the client got.
	Rule        string `json:"rule,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Resource    string `json:"resource,omitempty"`
	Registry    string `json:"registry,omitempty"`
	LoginServer string `json:"loginServer,omitempty"`
	Epoch       int64  `json:"epoch,omitempty"`
	Route       string `json:"route,omitempty"`
	Repository  string `json:"repository,omitempty"`
	Reference   string `json:"reference,omitempty"`
	Digest      string `json:"digest,omitempty"`
	MediaType   string `json:"mediaType,omitempty"`
	Bytes       int64  `json:"bytes,omitempty"`
	// Count is how many times the same happened that this one record tells of (Often, Tally); 0 is once.
	Count       int64           `json:"count,omitempty"`
	Caller      Caller          `json:"caller"`
	Source      Source          `json:"source"`
	Correlation string          `json:"correlation,omitempty"`
	Before      json.RawMessage `json:"before,omitempty"`
	After       json.RawMessage `json:"after,omitempty"`
}

// leaf is the canonical form, version 1: one JSON object without white space or HTML escapes, members in this order.
type leaf struct {
	Version int    `json:"v"`
	Node    string `json:"node"`
	Seq     int64  `json:"seq"`
	Time    string `json:"time"` // RFC 3339, UTC, six digits of a second
	Record
}

const leafVersion = 1

const timeForm = "2006-01-02T15:04:05.000000Z"

// leafRoom is more than most leaves take, in bytes.
const leafRoom = 1 << 10

func canonical(node string, seq int64, at time.Time, r *Record) ([]byte, error) {
	l := &leaf{leafVersion, node, seq, at.UTC().Format(timeForm), *r}
	// The texts that hold what clients wrote as they liked: a refusal's reason repeats it.
	l.Source.UserAgent, l.Reason = redact.Text(r.Source.UserAgent), redact.Text(r.Reason)
	b := bytes.NewBuffer(make([]byte, 0, leafRoom))
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(l); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Position is a record's place: unique, and ascending per node in the order in which the node numbered its records. A number may be
// missing where a transaction was rolled back.
type Position struct {
	Time time.Time `json:"-"`
	Node string    `json:"node"`
	Seq  int64     `json:"seq"`
}

// Entry is a stored record. Leaf is its bytes as written.
type Entry struct {
	Position
	Record
	Leaf []byte `json:"-"`
}

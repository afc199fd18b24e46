// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/name"
)

// recordChange appends the audit record of one resource's change to the transaction; secrets are named, not shown.
func (e *Engine) recordChange(tx *Tx, r *resource, id name.ResourceID, was, want *stored) error {
	rec := audit.Record{Kind: audit.Change, Outcome: audit.Succeeded, Action: r.right + "/write", Resource: id.String()}
	if want == nil {
		rec.Action = r.right + "/delete"
	}
	var err error
	if rec.Before, err = was.redacted(); err != nil {
		return err
	}
	if rec.After, err = want.redacted(); err != nil {
		return err
	}
	return e.record(tx, rec)
}

// redacted is the document for an audit record, nil of no document.
func (s *stored) redacted() (json.RawMessage, error) {
	if s == nil {
		return nil, nil
	}
	s.envelope()
	return s.typ.schema.encode(&encoder{shape: wholeShape, every: true, secrets: secretsNamed}, s.doc)
}

func (e *Engine) recordAction(tx *Tx, action string, id name.ResourceID) error {
	return e.record(tx, audit.Record{Kind: audit.Change, Outcome: audit.Succeeded, Action: action, Resource: id.String()})
}

// record appends a record with what is known of the request.
func (e *Engine) record(tx *Tx, r audit.Record) error {
	if r.Caller == (audit.Caller{}) {
		r.Caller = auditCaller(tx.req.Caller)
	}
	if r.Correlation == "" {
		r.Correlation = tx.req.RequestID
	}
	if r.Source == (audit.Source{}) && tx.rq != nil {
		r.Source = tx.rq.source()
	}
	if r.Reason == "" {
		r.Reason = strings.Join(tx.remarks, " ")
	}
	return e.o.Audit.Append(tx.m, r)
}

func auditCaller(c identity.Caller) audit.Caller {
	return audit.Caller{ID: c.ID, Name: c.Name, Type: string(c.Type), Credential: c.Credential, Tenant: c.Tenant}
}

func (rq *request) source() audit.Source {
	from := audit.Source{Address: rq.r.RemoteAddr, UserAgent: rq.r.UserAgent()}
	if rq.e.o.Source != nil {
		from.Address, from.Zone = rq.e.o.Source(rq.r)
	}
	return from
}

// recordRefusal notes a write that was refused, with the rule that refused it. What failed inside is no refusal.
func (rq *request) recordRefusal(f *fault.Fault) {
	if !rq.known || f.Status() >= 500 || rq.r.Method == http.MethodGet || rq.r.Method == http.MethodHead {
		return
	}
	action := rq.action
	if action == "" {
		action = rq.target.Type() + "/" + strings.ToLower(rq.r.Method)
	}
	rule := f.Kind.ARM()
	if f.Target != "" {
		rule += " " + f.Target
	}
	rq.e.o.Audit.Note(audit.Record{Kind: audit.Change, Outcome: audit.Refused, Action: action, Resource: rq.target.String(),
		Rule: rule, Reason: f.Message, Caller: auditCaller(rq.caller), Source: rq.source(), Correlation: rq.corr})
}

// fill completes a job with the request's caller and correlation.
func (tx *Tx) fill(spec job.Spec) job.Spec {
	if len(spec.Caller) == 0 {
		if data, err := json.Marshal(tx.req.Caller); err == nil {
			spec.Caller = data
		}
	}
	if spec.Correlation == "" {
		spec.Correlation = tx.req.RequestID
	}
	return spec
}

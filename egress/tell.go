// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
)

// told are the routes by which names leave and no content.
func told(r Route) bool { return r == Webhook || r == Upstream }

// Tell records the decision to send an event (R13) or to ask an upstream (R10) durably and begins the sending: it gives no Grant, so no content. The context that it
// returns ends when a change of policy refuses it; done ends the sending and records how many bytes went out, and whether they were all.
// Errors: Unavailable when it could not be recorded, and what the gate says when the policy has changed since.
func (g *Gate) Tell(ctx context.Context, d Decision) (sending context.Context, done func(sent int64, complete bool), err error) {
	if !d.valid || !told(d.ask.Route) {
		return nil, nil, fault.New(fault.Denied, "Nothing was decided, so nothing is told.")
	}
	r := g.record(&d.row, &d.ask, audit.Allowed, nil)
	r.Decision = newID()
	if err := g.audit.Decide(ctx, r); err != nil {
		return nil, nil, fault.New(fault.Unavailable, "What would be told could not be recorded, so it is refused.").Because(err)
	}
	sending, cancel := context.WithCancelCause(ctx)
	w := g.ward(d.ask.Registry)
	f := &Flow{g: &grant{gate: g, ask: d.ask, row: d.row, epoch: d.row.Epoch, decision: r.Decision}, ward: w, epoch: d.row.Epoch, abort: cancel}
	w.mu.Lock()
	w.flows[f] = struct{}{}
	w.mu.Unlock()
	if err := f.Begin(ctx); err != nil {
		cancel(err)
		f.Close(false)
		return nil, nil, err
	}
	return sending, func(sent int64, complete bool) {
		f.End(sent)
		cancel(nil)
		f.Close(complete)
	}, nil
}

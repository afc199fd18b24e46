// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
)

// fenceWait is how long a fence waits for a reader within its window before it resets the reader's connection.
const fenceWait = 2 * time.Second

// Grant permits the reading of one digest of one registry for one caller by one route, under one policy epoch, for a minute.
// Only the gate makes one that opens anything: the zero Grant opens nothing.
type Grant struct{ g *grant }

type grant struct {
	gate     *Gate
	ask      Ask
	row      meta.RegistryRow
	epoch    int64
	decision string
	// written is nil when the decision was durable before there was a grant.
	written *written
	expires time.Time
}

// written is a decision's record that waits for its commit. err is set before done is closed.
type written struct {
	done chan struct{}
	err  error
}

// wait returns when the record is durable. Errors: Unavailable when it can't be, or ctx ends before.
func (w *written) wait(ctx context.Context) error {
	if w == nil {
		return nil
	}
	select {
	case <-w.done:
		if w.err != nil {
			return unrecorded(w.err)
		}
		return nil
	case <-ctx.Done():
		return unrecorded(ctx.Err())
	}
}

// Flow is one reading under way. A reader calls Begin before each window of bytes and End after it.
type Flow struct {
	g    *grant
	ward *ward
	// The ward's lock guards epoch, busy and refused.
	epoch   int64
	busy    bool
	refused error
	// abort ends what is under way without a connection of a client; nil where there is one.
	abort func(why error)

	sent atomic.Int64
}

// Open begins a reading of the content d. It refuses the zero Grant, another digest than the granted one, an expired Grant, and one
// whose registry has since changed its policy so that the wish would now be refused. It is for the package blob alone.
func (gr Grant) Open(ctx context.Context, d name.Digest) (*Flow, error) {
	g := gr.g
	switch {
	case g == nil:
		return nil, fault.New(fault.Denied, "No grant was given, so nothing is read.")
	case d == "" || d != g.ask.Digest:
		return nil, fault.New(fault.Denied, "The grant is for other content than was asked.")
	case g.gate.clock().After(g.expires):
		return nil, fault.New(fault.Denied, "The grant has expired. Ask again.")
	}
	w := g.gate.ward(g.ask.wardName())
	f := &Flow{g: g, ward: w, epoch: g.epoch}
	w.mu.Lock()
	w.flows[f] = struct{}{}
	if p := g.ask.Peer; p != nil {
		w.remember(p, g.row, g.ask)
	}
	w.mu.Unlock()
	if err := f.Begin(ctx); err != nil {
		f.Close(false)
		return nil, err
	}
	f.End(0)
	return f, nil
}

// Begin asks whether the next window of bytes may be handed on. After an error nothing more may be.
func (f *Flow) Begin(ctx context.Context) error {
	w := f.ward
	if !f.g.gate.live() {
		return errStale()
	}
	asked := !f.g.ask.foreign()
	for {
		w.mu.Lock()
		if f.refused != nil {
			w.mu.Unlock()
			return f.refused
		}
		if asked && f.epoch >= w.epoch {
			f.busy = true
			w.mu.Unlock()
			return nil
		}
		w.mu.Unlock()
		if err := f.again(ctx); err != nil {
			return err
		}
		asked = true
	}
}

// foreignBackups is the ward of the readings of backups that others than the installation can open: the policy of every registry bears on them, so each window asks and
// each fence visits them.
const foreignBackups = ""

func (a Ask) foreign() bool { return a.Route == Backup && !a.Sealed }

func (a Ask) wardName() string {
	if a.foreign() {
		return foreignBackups
	}
	return a.Registry
}

// again judges the flow's wish anew because the registry's epoch has moved on.
func (f *Flow) again(ctx context.Context) error {
	g := f.g
	var row meta.RegistryRow
	err := g.gate.db.Read(ctx, func(tx *meta.Tx) error {
		d, err := g.gate.Decide(tx, g.ask)
		row = d.row
		return err
	})
	if err == nil && !row.Exports {
		err = g.written.wait(ctx) // what could go before its record was decided while exports were enabled
	}
	f.ward.mu.Lock()
	defer f.ward.mu.Unlock()
	if err != nil {
		f.refused = err
		return err
	}
	f.epoch = row.Epoch
	return nil
}

// End says that the window is over and that n of its bytes were handed to the kernel.
func (f *Flow) End(n int64) {
	f.sent.Add(n)
	f.ward.mu.Lock()
	f.busy = false
	f.ward.idle.Broadcast()
	f.ward.mu.Unlock()
}

// Close ends the reading and records the bytes really sent, and whether they were all that was asked.
func (f *Flow) Close(complete bool) {
	f.ward.mu.Lock()
	_, open := f.ward.flows[f]
	delete(f.ward.flows, f)
	f.busy = false
	f.ward.idle.Broadcast()
	refused := f.refused
	f.ward.mu.Unlock()
	if !open || f.g.ask.Route == Backup { // a batch is recorded as a whole, by End
		return
	}
	outcome := audit.Completed
	if !complete {
		outcome = audit.Aborted
	}
	if outcome == audit.Completed && f.g.ask.Route == Pull && refused == nil {
		f.g.gate.again(&f.g.row, &f.g.ask, outcome, f.g.decision, f.sent.Load())
		return
	}
	r := f.g.gate.record(&f.g.row, &f.g.ask, outcome, refused)
	r.Decision, r.Bytes = f.g.decision, f.sent.Load()
	f.g.gate.audit.Note(r)
}

// connection tells connections apart; a peer without one is its own.
type connection any

func connectionOf(p *network.Peer) connection {
	if gone := p.Gone(); gone != nil {
		return gone
	}
	return p
}

// caller tells apart for whom a connection asks: one, or the many that a trusted proxy speaks for.
type caller struct {
	address netip.Addr
	zone    network.Zone
}

// callersKept is how many callers of one connection are remembered. Further ones count as one without an address, whom no IP rule lets in.
const callersKept = 256

// let is who was let in, with the content that was last asked for.
type let struct {
	ask Ask
	// many: further callers than are kept, the last of whom asked. row let in each of them, or lets in whom an earlier one let in; one that lets in nobody where none does.
	many bool
	row  meta.RegistryRow
}

// judge says why a connection is let in no longer. Of many callers it is said only when the network rules have ceased to let in somebody whom they did.
func (l let) judge(tx *meta.Tx, row meta.RegistryRow) error {
	a := l.ask
	if l.many {
		nobody := *a.Peer
		nobody.Addr = netip.AddrPort{}
		a.Peer = &nobody
	}
	err := judge(tx, row, a)
	if err != nil && l.many && a.Route == Pull && a.Peer.Kind == network.Public && network.Widened(l.row, row) {
		return nil
	}
	return err
}

// remember notes a connection that row has let in, with the content that was last asked for there by each caller. The caller holds the lock. Closed connections are swept out as the map grows, so it
// stays within twice the live ones.
func (w *ward) remember(p *network.Peer, row meta.RegistryRow, a Ask) {
	key, who := connectionOf(p), caller{p.Addr.Addr(), p.Zone}
	lets := w.entered[key]
	if lets == nil {
		if len(w.entered) >= w.sweepAt {
			for old := range w.entered {
				if closed(old) {
					delete(w.entered, old)
				}
			}
			w.sweepAt = 2*len(w.entered) + 64
		}
		lets = map[caller]let{}
		w.entered[key] = lets
	}
	if _, known := lets[who]; known || len(lets) < callersKept {
		lets[who] = let{ask: a}
		return
	}
	who.address = netip.Addr{}
	if before, known := lets[who]; known && before.row.Epoch != row.Epoch {
		switch {
		case network.Widened(before.row, row):
		case network.Widened(row, before.row):
			row = before.row
		default:
			row = meta.RegistryRow{Epoch: -1} // with which none agrees
		}
	}
	lets[who] = let{a, true, row}
}

func closed(c connection) bool {
	gone, has := c.(<-chan struct{})
	if !has {
		return false
	}
	select {
	case <-gone:
		return true
	default:
		return false
	}
}

// Entered notes a connection on which the network has let in a request for the registry, so that a fence resets it, whatever is under way there, when the policy lets it in no longer. False: the policy has
// changed since row was read, and is to be asked again.
func (g *Gate) Entered(row meta.RegistryRow, p *network.Peer) bool {
	w := g.ward(row.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	if row.Epoch < w.epoch {
		return false
	}
	if _, known := w.entered[connectionOf(p)][caller{p.Addr.Addr(), p.Zone}]; !known {
		w.remember(p, row, Ask{Route: Pull, Registry: row.ID, Peer: p})
	}
	return true
}

// Fence makes a committed policy change hold for what is under way. It is called after the commit, outside any transaction, and
// before the change is answered. When it returns, every reading of the registry that the policy now refuses has stopped, every
// connection that it lets in no longer is reset and the bytes that the kernel had not yet sent are discarded; what is still allowed goes on.
// An error means that the new policy could not be read: all readings of the registry were stopped.
func (g *Gate) Fence(ctx context.Context, registry string, epoch int64) error {
	// The change is committed: a client that hangs up must not leave it half in force.
	ctx = context.WithoutCancel(ctx)
	w := g.ward(registry)
	w.mu.Lock()
	if epoch > w.epoch {
		w.epoch = epoch
	}
	lets := make([]let, 0, len(w.entered))
	for c, of := range w.entered {
		if closed(c) {
			delete(w.entered, c)
			continue
		}
		for _, l := range of {
			lets = append(lets, l)
		}
	}
	flows := make([]*Flow, 0, len(w.flows))
	for f := range w.flows {
		flows = append(flows, f)
	}
	w.mu.Unlock()

	verdicts := map[*Flow]error{}
	cut := map[connection]cutOff{}
	exports := false
	err := g.db.Read(ctx, func(tx *meta.Tx) error {
		clear(verdicts)
		clear(cut)
		row, err := tx.RegistryByID(registry)
		if err != nil {
			return err
		}
		exports = row.Exports
		for _, f := range flows {
			verdicts[f] = judge(tx, row, f.g.ask)
		}
		for _, l := range lets {
			if err := l.judge(tx, row); err != nil {
				cut[connectionOf(l.ask.Peer)] = cutOff{l.ask.Peer, err}
			}
		}
		return nil
	})
	if err != nil {
		// Fail closed: what can't be judged is stopped. A deleted registry comes this way too.
		gone := fault.New(fault.Denied, "The registry's policy can't be read any more, so its readings are stopped.").Because(err)
		for _, f := range flows {
			verdicts[f] = gone
		}
		for _, l := range lets {
			cut[connectionOf(l.ask.Peer)] = cutOff{l.ask.Peer, gone}
		}
	}
	g.stop(w, epoch, verdicts, cut)
	if !exports { // from now on nothing goes before its record is durable
		late := map[*Flow]error{}
		wait, cancel := context.WithTimeout(ctx, fenceWait)
		for f, verdict := range verdicts {
			if verdict == nil {
				if err := f.g.written.wait(wait); err != nil {
					verdicts[f], late[f] = err, err
				}
			}
		}
		cancel()
		g.stop(w, epoch, late, map[connection]cutOff{})
	}
	marked := g.marks.raise(registry, mark{Epoch: epoch, Deleted: errors.Is(err, meta.ErrNotFound)})
	if marked != nil {
		marked = fault.New(fault.Unavailable,
			"The change is committed and in force, but its high-water mark could not be written (the file of policyEpochs), so an older copy of the database would not be known for one. "+
				"An operator sees to that file's disk; then send the same request again.").Because(marked)
	}
	return errors.Join(marked, g.settle(w, verdicts), g.fenceBackups(ctx))
}

// fenceBackups stops the readings of backups that the policies now refuse.
func (g *Gate) fenceBackups(ctx context.Context) error {
	w := g.ward(foreignBackups)
	w.mu.Lock()
	flows := make([]*Flow, 0, len(w.flows))
	for f := range w.flows {
		flows = append(flows, f)
	}
	w.mu.Unlock()
	if len(flows) == 0 {
		return nil
	}
	verdicts := map[*Flow]error{}
	err := g.db.Read(ctx, func(tx *meta.Tx) error {
		clear(verdicts)
		for _, f := range flows {
			verdicts[f] = judgeBackup(tx, f.g.ask)
		}
		return nil
	})
	if err != nil {
		for _, f := range flows {
			verdicts[f] = fault.New(fault.Denied, "The registries' policies can't be read any more, so the backup is stopped.").Because(err)
		}
	}
	g.stop(w, 0, verdicts, map[connection]cutOff{})
	return g.settle(w, verdicts)
}

// cutOff is a connection that is reset, and why.
type cutOff struct {
	peer *network.Peer
	why  error
}

// stop marks each flow with its verdict and resets the connections that are refused.
func (g *Gate) stop(w *ward, epoch int64, verdicts map[*Flow]error, cut map[connection]cutOff) {
	w.mu.Lock()
	for f, verdict := range verdicts {
		if verdict != nil {
			f.refused = verdict
			if f.abort != nil {
				f.abort(verdict)
			}
			if p := f.g.ask.Peer; p != nil {
				cut[connectionOf(p)] = cutOff{p, verdict}
			}
		} else if f.epoch < epoch {
			f.epoch = epoch
		}
	}
	w.mu.Unlock()
	for _, c := range cut {
		c.peer.Reset()
	}
	for _, c := range cut {
		g.log.Info("connection reset by a policy change", "peer", c.peer.Addr.String(), "zone", c.peer.Zone.String(), "why", c.why.Error())
	}
}

// settle waits until no refused flow is within a window. The reset makes each window fail at once; should one be stuck all the
// same, the change is not answered as done.
func (g *Gate) settle(w *ward, verdicts map[*Flow]error) error {
	late := false
	timer := time.AfterFunc(fenceWait, func() {
		w.mu.Lock()
		late = true
		w.idle.Broadcast()
		w.mu.Unlock()
	})
	defer timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		stuck := 0
		for f, verdict := range verdicts {
			if verdict != nil && f.busy {
				stuck++
			}
		}
		if stuck == 0 {
			return nil
		}
		if late {
			return fault.New(fault.Unavailable, "The change is committed, but %d readings did not stop within %v; their connections are reset.", stuck, fenceWait).
				Because(fmt.Errorf("egress: %d flows still within a window", stuck))
		}
		w.idle.Wait()
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package egress is the gate: the one place that decides whether bytes may leave a registry, and the only maker of Grants.
//
// The order is: decide, record, release. Decide reads the registry's own row in the caller's transaction (nobody hands the
// gate a policy); Release makes the decision durable in the audit and only then gives a Grant; blob opens nothing without
// one. Any failure on the way is a refusal. A policy change calls Fence after its commit and before its answer: when Fence
// returns, no reader that the new policy refuses hands another byte to the kernel, and its unsent bytes are discarded.
//
// The gate knows neither protocol: faults carry what both need.
package egress

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
)

// grantLife is how long a Grant may wait to be opened.
const grantLife = time.Minute

// Options configure a Gate.
type Options struct {
	DB    *meta.DB
	Audit *audit.Log
	// Clock is the time of grants; nil is time.Now.
	Clock func() time.Time
	// Log gets what a fence cut; nil discards.
	Log *slog.Logger
	// Marks is the file of the policies' high-water marks; "" keeps none (and then nothing tells an older copy of the database).
	Marks string
	// Soon: the pull of a registry whose exports are enabled is let go when its record waits to be written, instead of when it is durable. A registry with exports disabled is never
	// served so.
	Soon bool
	// Live reports whether this node may decide at all (its lease); nil is always. While it may not, everything is refused.
	Live func() bool
}

// Ask is a wish to let content out.
type Ask struct {
	Route Route
	// Registry is the identity of the registry whose content it is.
	Registry   string
	Repository name.Repository
	Reference  string
	Digest     name.Digest
	MediaType  string
	Size       int64
	Caller     identity.Caller
	// Peer is the connection that the bytes would leave on; nil for what stays inside the installation.
	Peer *network.Peer
	// To is the identity of the receiving registry (Import).
	To string
	// Destination is where an event would be sent (Webhook: scheme, host and port) or what would be asked (Upstream: its name). Declared says that the operator has listed it.
	Destination string
	Declared    bool
	// Sealed says that only the installation itself can read what leaves (Backup); Batch names all that one backup takes.
	Sealed      bool
	Batch       string
	Correlation string
	UserAgent   string
}

// Gate decides. It is safe for concurrent use.
type Gate struct {
	db    *meta.DB
	audit *audit.Log
	clock func() time.Time
	log   *slog.Logger
	live  func() bool
	marks *marks
	soon  bool
	// often counts what is said again and again on one connection.
	often *audit.Often[said]
	// shared holds decisions that are on record, so that the ranges of one blob on one connection need one record.
	shared *lru.Cache[shareKey, string]

	mu    sync.Mutex
	wards map[string]*ward
}

// ward is what the gate knows of one registry in this process.
type ward struct {
	mu    sync.Mutex
	idle  *sync.Cond
	epoch int64
	flows map[*Flow]struct{}
	// entered are the live connections that have been let in to the registry.
	entered map[connection]map[caller]let
	sweepAt int
}

// New makes a gate.
func New(o Options) (*Gate, error) {
	if o.DB == nil || o.Audit == nil {
		return nil, errors.New("egress: a gate needs a database and an audit log")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Live == nil {
		o.Live = func() bool { return true }
	}
	shared, err := lru.New[shareKey, string](1 << 16)
	if err != nil {
		return nil, err
	}
	marks, err := openMarks(o.Marks)
	if err != nil {
		return nil, err
	}
	return &Gate{db: o.DB, audit: o.Audit, clock: o.Clock, log: o.Log, live: o.Live, marks: marks, soon: o.Soon, often: audit.NewOften[said](o.Audit), shared: shared,
		wards: map[string]*ward{}}, nil
}

// Decision is a wish that the gate has found allowed, not yet on record. Only Release makes a Grant of it.
type Decision struct {
	ask   Ask
	row   meta.RegistryRow
	valid bool
}

// Registry is the row that the decision was made by.
func (d Decision) Registry() meta.RegistryRow { return d.row }

// shareKey is what one decision on record covers: the SHA-256 of its parts, so that what is remembered of many takes little.
type shareKey [sha256.Size]byte

func newShareKey(epoch int64, parts ...string) shareKey {
	var room [512]byte
	b := binary.AppendVarint(room[:0], epoch)
	for _, p := range parts {
		b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
	}
	return sha256.Sum256(b)
}

// Decide judges a wish by the registry's row as tx sees it. A refusal is recorded and comes back as a fault: FirewallDenied,
// ExportsDisabled, Denied, or NameUnknown when the registry is gone.
func (g *Gate) Decide(tx *meta.Tx, a Ask) (Decision, error) {
	if !g.live() {
		return Decision{}, errStale()
	}
	row, err := tx.RegistryByID(a.Registry)
	if errors.Is(err, meta.ErrNotFound) {
		return Decision{}, fault.New(fault.NameUnknown, "The registry does not exist any more.").Because(err)
	}
	if err != nil {
		return Decision{}, err
	}
	if err := judge(tx, row, a); err != nil {
		g.audit.Note(g.record(&row, &a, audit.Refused, err))
		return Decision{}, err
	}
	return Decision{ask: a, row: row, valid: true}, nil
}

// errStale: a node that can't renew its lease does not know the policy any more.
func errStale() error {
	return fault.New(fault.Unavailable, "This node has lost its lease in the database, so it decides nothing. It serves again when the lease is renewed.")
}

// Release records a decision durably and then gives the Grant. The ranges of one blob that one caller reads on one connection
// under one epoch share a record.
func (g *Gate) Release(ctx context.Context, d Decision) (Grant, error) {
	if !d.valid || told(d.ask.Route) { // what is told opens no content
		return Grant{}, fault.New(fault.Denied, "Nothing was decided, so nothing is released.")
	}
	key, shareable := d.share()
	id, known := "", false
	var written *written
	if shareable {
		id, known = g.shared.Get(key)
	}
	if !known {
		id = newID()
		r := g.record(&d.row, &d.ask, audit.Allowed, nil)
		r.Decision = id
		share := func() {
			if shareable {
				g.shared.Add(key, id)
			}
		}
		var err error
		if written, err = g.put(ctx, d, r, share); err != nil {
			return Grant{}, unrecorded(err)
		}
	}
	return Grant{&grant{gate: g, ask: d.ask, epoch: d.row.Epoch, decision: id, written: written, expires: g.clock().Add(grantLife), row: d.row}}, nil
}

func unrecorded(err error) error {
	return fault.New(fault.Unavailable, "The release could not be recorded, so it is refused.").Because(err)
}

// put records a decision, durably or, where that may be, soon; durable is called once it is written. What is recorded soon is known by written.
func (g *Gate) put(ctx context.Context, d Decision, r audit.Record, durable func()) (*written, error) {
	if g.soon && d.row.Exports && d.ask.Route == Pull {
		w := &written{done: make(chan struct{})}
		return w, g.audit.Soon(ctx, r, func(err error) {
			if w.err = err; err == nil {
				durable()
			}
			close(w.done)
		})
	}
	err := g.audit.Decide(ctx, r)
	if err == nil {
		durable()
	}
	return nil, err
}

// Record writes an allowed decision within tx, for content that stays inside the installation (an import that links): the
// record and the links commit together.
func (g *Gate) Record(tx *meta.Tx, d Decision) error {
	if !d.valid {
		return fault.New(fault.Denied, "Nothing was decided, so nothing is recorded.")
	}
	r := g.record(&d.row, &d.ask, audit.Allowed, nil)
	r.Decision = newID()
	return g.audit.Append(tx, r)
}

// Look records a request that releases no content (HEAD, lists): recorded soon, not waited for. The same on one connection within ten seconds is one record that says how often.
func (g *Gate) Look(d Decision) {
	if d.valid {
		g.again(&d.row, &d.ask, audit.Allowed, "", 0) // none of the content's bytes
	}
}

// said is what makes two records of one connection the same.
type said struct {
	shareKey
	reference, decision string
	outcome             audit.Outcome
}

// again records what may be said again and again on one connection.
func (g *Gate) again(row *meta.RegistryRow, a *Ask, outcome audit.Outcome, decision string, bytes int64) {
	record := func() audit.Record {
		r := g.record(row, a, outcome, nil)
		r.Decision, r.Bytes = decision, bytes
		return r
	}
	if a.Peer == nil {
		g.audit.Note(record())
		return
	}
	g.often.Note(said{a.onConnection(row.Epoch), a.Reference, decision, outcome}, bytes, record)
}

// End records how much of a batch really left, and whether that was all.
func (g *Gate) End(d Decision, complete bool, bytes int64) {
	if !d.valid {
		return
	}
	outcome := audit.Completed
	if !complete {
		outcome = audit.Aborted
	}
	r := g.record(&d.row, &d.ask, outcome, nil)
	if key, ok := d.share(); ok {
		r.Decision, _ = g.shared.Get(key)
	}
	r.Bytes = bytes
	g.audit.Note(r)
}

// share is the key under which d's record may serve again: a pull's on a live connection, and all that one backup takes of a registry.
func (d *Decision) share() (shareKey, bool) {
	a := &d.ask
	if a.Route == Backup && a.Batch != "" {
		return newShareKey(d.row.Epoch, "batch", a.Registry, a.Caller.ID, a.Batch), true
	}
	if a.Peer == nil || a.Digest == "" || a.Route != Pull {
		return shareKey{}, false
	}
	return a.onConnection(d.row.Epoch), true
}

// onConnection is the key of what one caller asks of one content on one connection.
func (a *Ask) onConnection(epoch int64) shareKey {
	return newShareKey(epoch, "connection", a.Registry, string(a.Repository), string(a.Digest), a.Caller.ID, a.Caller.Credential, a.Peer.ID)
}

func (g *Gate) record(row *meta.RegistryRow, a *Ask, outcome audit.Outcome, refusal error) audit.Record {
	r := audit.Record{
		Kind: audit.Decision, Action: action(a.Route), Outcome: outcome,
		Resource: row.ResourceID, Registry: row.ID, LoginServer: row.LoginServer, Epoch: row.Epoch,
		Route: string(a.Route), Repository: string(a.Repository), Reference: a.Reference, Digest: string(a.Digest),
		MediaType: a.MediaType, Bytes: a.Size, Correlation: a.Correlation,
		Caller: callerOf(a.Caller),
		Source: audit.From(a.Peer, a.UserAgent),
	}
	if refusal != nil {
		r.Rule, r.Reason = ruleOf(refusal), fault.From(refusal).Message
	}
	return r
}

func callerOf(c identity.Caller) audit.Caller {
	return audit.Caller{ID: c.ID, Name: c.Name, Type: string(c.Type), Credential: c.Credential, Tenant: c.Tenant}
}

// action is the ARM action that a route's record carries.
func action(r Route) string {
	switch r {
	case Import:
		return "Microsoft.ContainerRegistry/registries/importImage/action"
	case ExportPipeline:
		return "Microsoft.ContainerRegistry/registries/exportPipelines/write"
	case Backup:
		return "Embargo.Containment/backup/action"
	case Webhook:
		return "Microsoft.ContainerRegistry/registries/webhooks/deliver/action"
	case Upstream:
		return "Microsoft.ContainerRegistry/registries/cacheRules/fetch/action"
	}
	return "Microsoft.ContainerRegistry/registries/pull/read"
}

func ruleOf(err error) string {
	var by network.Refusal
	if errors.As(err, &by) {
		return string(by)
	}
	f := fault.From(err)
	switch f.Kind {
	case fault.FirewallDenied:
		return "publicNetworkAccess"
	case fault.ExportsDisabled:
		return "exportPolicy"
	}
	return f.Kind.ARM()
}

func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return hex.EncodeToString(b[:])
}

func (g *Gate) ward(registry string) *ward {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, ok := g.wards[registry]
	if !ok {
		w = &ward{flows: map[*Flow]struct{}{}, entered: map[connection]map[caller]let{}}
		w.idle = sync.NewCond(&w.mu)
		g.wards[registry] = w
	}
	return w
}

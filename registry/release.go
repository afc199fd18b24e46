// SPDX-License-Identifier: Apache-2.0

package registry

// Every way out of a registry stands in this file, a function per route of the register. Nothing else calls the gate.

import (
	"context"
	"errors"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/upstream"
	"github.com/embargo-registry/embargo/webhook"
)

// wish is what a call asks to see.
type wish struct {
	repo      name.Repository
	reference string
	// find resolves it in the transaction of the decision. nil is a list of names.
	find func(tx *meta.Tx) (oci.Descriptor, error)
	// hides refuses what find found to a call that does not see content in quarantine. nil: what was found says itself that it is held.
	hides func(tx *meta.Tx, c oci.Call) error
}

func (s *Service) ask(c oci.Call, w wish, d oci.Descriptor) egress.Ask {
	return egress.Ask{
		Route: egress.Pull, Registry: c.Registry.ID, Repository: w.repo, Reference: w.reference,
		Digest: d.Digest, MediaType: d.MediaType, Size: d.Size,
		Caller: c.Caller, Peer: c.Peer, Correlation: c.Correlation, UserAgent: c.UserAgent,
	}
}

// decide resolves the wish and judges it, in one read of the database.
func (s *Service) decide(ctx context.Context, c oci.Call, w wish) (d oci.Descriptor, decision egress.Decision, err error) {
	err = s.proven(ctx, func(own verdicts) error {
		return s.db.Read(ctx, func(tx *meta.Tx) (err error) {
			d, decision, err = s.judge(tx, c, w, own)
			return err
		})
	})
	return d, decision, err
}

func (s *Service) judge(tx *meta.Tx, c oci.Call, w wish, own verdicts) (oci.Descriptor, egress.Decision, error) {
	d, err := w.find(tx)
	if err != nil {
		return d, egress.Decision{}, err
	}
	decision, err := s.gate.Decide(tx, s.ask(c, w, d))
	if err != nil {
		return d, egress.Decision{}, err
	}
	c.Registry = decision.Registry()
	if err := s.shows(tx, c, w, d); err != nil {
		return d, egress.Decision{}, err
	}
	if d.Digest != "" && s.blobs.Damaged(d.Digest) {
		return d, egress.Decision{}, fault.New(fault.BlobUnknown, "The content %s is damaged on the registry's disk: push it again, and it is served again.", d.Digest).Carrying(map[string]string{"digest": string(d.Digest)})
	}
	if err == nil && c.Registry.Trust && w.reference != "" {
		err = s.trustTag(tx, tagPulled(c, w, d), own)
	}
	return d, decision, err
}

// shows refuses what is kept from the call's sight by quarantine.
func (s *Service) shows(tx *meta.Tx, c oci.Call, w wish, d oci.Descriptor) error {
	if !c.Registry.Quarantine || w.hides == nil && !d.Quarantined {
		return nil
	}
	if seen, err := s.sees(tx, c); seen || err != nil {
		return err
	}
	if w.hides != nil {
		return w.hides(tx, c)
	}
	at := name.Reference{Repository: w.repo, Tag: name.Tag(w.reference)}
	if at.Tag == "" {
		at.Digest = d.Digest // the caller has named it
	}
	return unknownManifest(at)
}

// tagPulled is a wish for a tag as the trust policy judges it.
func tagPulled(c oci.Call, w wish, d oci.Descriptor) tagPull {
	note := audit.Record{Action: actionPull, Route: string(egress.Pull), Correlation: c.Correlation,
		Source: audit.From(c.Peer, c.UserAgent)}
	return tagPull{row: c.Registry, caller: c.Caller, repo: w.repo, tag: name.Tag(w.reference), found: d, note: note}
}

// releasePull lets content out to a client on its connection (R1, R2, R12, R15): the link and the policy are read together, the decision is
// recorded, and only then is the content opened.
func (s *Service) releasePull(ctx context.Context, c oci.Call, w wish) (oci.Descriptor, oci.Content, error) {
	d, decision, err := s.decide(ctx, c, w)
	if err != nil {
		return d, nil, err
	}
	grant, err := s.gate.Release(ctx, decision)
	if err != nil {
		return d, nil, err
	}
	r, err := s.blobs.Open(ctx, grant, d.Digest)
	if err != nil {
		return d, nil, err
	}
	return d, r, nil
}

// releaseLook lets a description out, and no content (R16): HEAD.
func (s *Service) releaseLook(ctx context.Context, c oci.Call, w wish) (oci.Descriptor, error) {
	d, decision, err := s.decide(ctx, c, w)
	if err == nil {
		s.gate.Look(decision)
	}
	return d, err
}

// releaseNames lets names out, and no content (R16): tags, catalog, referrers. list reads them in the transaction of the decision, for
// the call with the registry's row that the decision was made by.
func (s *Service) releaseNames(ctx context.Context, c oci.Call, repo name.Repository, what string, list func(tx *meta.Tx, c oci.Call) error) error {
	w := wish{repo: repo, reference: what}
	var decision egress.Decision
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		var err error
		if decision, err = s.gate.Decide(tx, s.ask(c, w, oci.Descriptor{})); err != nil {
			return err
		}
		c.Registry = decision.Registry()
		return list(tx, c)
	})
	if err == nil {
		s.gate.Look(decision)
	}
	return err
}

// Mount makes a blob of one repository a member of another of the same registry (R11): nothing leaves the registry, so the gate is not
// asked; the link and its record commit together. That the caller may read the source was asked before.
func (s *Service) Mount(ctx context.Context, c oci.Call, repo, from name.Repository, d name.Digest) (bool, error) {
	mounted := false
	err := s.db.Write(ctx, func(tx *meta.Tx) error {
		mounted = false
		row, err := live(tx, c)
		if err != nil {
			return err
		}
		found, err := blobIn(tx, row.ID, from, d)
		if fault.Is(err, fault.BlobUnknown) || err == nil && s.blobs.Damaged(d) {
			return nil // it is uploaded, which makes damaged content whole
		}
		if err != nil {
			return err
		}
		to, err := s.open(tx, row.ID, repo)
		if err != nil {
			return err
		}
		if err := linkBlob(tx, to.id, d, found.Size); err != nil {
			return err
		}
		mounted = true
		r := record(row, c, actionPush, repo)
		r.Route, r.Reference, r.Digest, r.Bytes = string(egress.Mount), "mounted from "+string(from), string(d), found.Size
		return s.audit.Append(tx, r)
	})
	return mounted && err == nil, err
}

// passage is an import on its way from one registry to another.
type passage struct {
	source, target string // identities
	repo           name.Repository
	caller         identity.Caller
	correlation    string
}

// releaseImport asks the source whether d may become content of the target (R4, R6, R21) and puts the answer on record in tx. The source's row
// is locked first, so that a change of its policy comes wholly before or wholly after.
func (s *Service) releaseImport(tx *meta.Tx, p passage, reference string, d oci.Descriptor) error {
	if _, err := tx.LockRegistry(p.source); err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	decision, err := s.gate.Decide(tx, egress.Ask{
		Route: egress.Import, Registry: p.source, To: p.target, Repository: p.repo, Reference: reference,
		Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Caller: p.caller, Correlation: p.correlation,
	})
	if err != nil {
		return err
	}
	return s.gate.Record(tx, decision)
}

// AskImport asks, before an import begins, whether its source would let the image go to the target (R4, R21). A refusal is recorded and
// returned; the import's job asks again, of every piece of content.
func (s *Service) AskImport(tx *meta.Tx, source, target meta.RegistryRow, image name.Reference, c identity.Caller, correlation string) error {
	_, err := s.gate.Decide(tx, egress.Ask{
		Route: egress.Import, Registry: source.ID, To: target.ID, Repository: image.Repository, Reference: string(image.Tag), Digest: image.Digest,
		Caller: c, Correlation: correlation,
	})
	return err
}

// ReleaseEvent asks whether an event of a registry may be sent to a webhook's destination now (R13), and puts the answer on record before a byte goes. What is let
// out is the event's text, and no content: see egress.Gate.Tell.
func (s *Service) ReleaseEvent(ctx context.Context, n webhook.Notice) (context.Context, func(sent int64, complete bool), error) {
	var decision egress.Decision
	err := s.db.Read(ctx, func(tx *meta.Tx) (err error) {
		decision, err = s.gate.Decide(tx, egress.Ask{
			Route: egress.Webhook, Registry: n.Hook.Registry, Repository: n.Repository, Digest: n.Digest, Size: n.Size, Reference: n.Action + " to " + n.Destination,
			Destination: n.Destination, Declared: n.Declared, Correlation: n.Correlation,
			Caller: identity.Caller{ID: n.Hook.ID, Name: n.Hook.Resource, Type: "Webhook"},
		})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return s.gate.Tell(ctx, decision)
}

// releaseUpstream asks whether a caller's pull may ask an upstream now (R10), and puts the answer on record before a byte goes. What is let out is the names in the
// request, and no content: see egress.Gate.Tell.
func (s *Service) releaseUpstream(ctx context.Context, c oci.Call, o upstream.Origin, at name.Reference) (context.Context, func(sent int64, complete bool), error) {
	var decision egress.Decision
	reference := o.Host + "/" + name.Reference{Repository: o.Repository, Tag: at.Tag, Digest: at.Digest}.String()
	err := s.db.Read(ctx, func(tx *meta.Tx) (err error) {
		decision, err = s.gate.Decide(tx, egress.Ask{
			Route: egress.Upstream, Registry: c.Registry.ID, Repository: at.Repository, Reference: reference, Digest: at.Digest, Size: int64(len(reference)),
			Destination: o.Host, Declared: s.cache.upstream.Listed(o.Host), Caller: c.Caller, Peer: c.Peer, Correlation: c.Correlation, UserAgent: c.UserAgent,
		})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return s.gate.Tell(ctx, decision)
}

// BackupRun is one backup, as the gate sees it.
type BackupRun struct {
	// ID names the run in the record, Where its destination.
	ID, Where string
	// Sealed says that nobody but the installation can open it.
	Sealed bool
	Caller identity.Caller
}

func (b BackupRun) ask(registry string, d name.Digest) egress.Ask {
	return egress.Ask{Route: egress.Backup, Registry: registry, Digest: d, Reference: b.Where, Sealed: b.Sealed, Batch: b.ID, Caller: b.Caller}
}

// BeginBackup asks of every registry whether a backup may take its content (R18). Each answer is on record, a refusal is returned.
func (s *Service) BeginBackup(ctx context.Context, b BackupRun) error {
	rows, err := s.registries(ctx)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := s.releaseBackup(ctx, b, r.ID, ""); err != nil {
			return err
		}
	}
	return nil
}

// AskBackup asks again, of the instant of tx, whether a backup may take what every registry holds. A refusal is recorded and returned.
func (s *Service) AskBackup(tx *meta.Tx, b BackupRun) error {
	rows, err := tx.Registries()
	for _, r := range rows {
		if err == nil {
			_, err = s.gate.Decide(tx, b.ask(r.ID, ""))
		}
	}
	return err
}

// OpenBackup opens content of a registry for a backup (R18): the policy is asked again, of each digest.
func (s *Service) OpenBackup(ctx context.Context, b BackupRun, registry string, d name.Digest) (oci.Content, error) {
	grant, err := s.releaseBackup(ctx, b, registry, d)
	if err != nil {
		return nil, err
	}
	return s.blobs.Open(ctx, grant, d)
}

func (s *Service) releaseBackup(ctx context.Context, b BackupRun, registry string, d name.Digest) (egress.Grant, error) {
	var decision egress.Decision
	err := s.db.Read(ctx, func(tx *meta.Tx) (err error) {
		decision, err = s.gate.Decide(tx, b.ask(registry, d))
		return err
	})
	if err != nil {
		return egress.Grant{}, err
	}
	return s.gate.Release(ctx, decision)
}

// EndBackup records of every registry how many bytes of it the backup took, and whether that was all.
func (s *Service) EndBackup(ctx context.Context, b BackupRun, complete bool, bytes map[string]int64) error {
	rows, err := s.registries(ctx)
	if err != nil {
		return err
	}
	for _, r := range rows {
		err := s.db.Read(ctx, func(tx *meta.Tx) error {
			decision, err := s.gate.Decide(tx, b.ask(r.ID, ""))
			if err == nil {
				s.gate.End(decision, complete, bytes[r.ID])
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) registries(ctx context.Context) (rows []meta.RegistryRow, err error) {
	err = s.db.Read(ctx, func(tx *meta.Tx) error {
		rows, err = tx.Registries()
		return err
	})
	return rows, err
}

// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/trust"
)

const (
	// signaturesLimit is how many signatures of a manifest are looked at, the newest first: signing anew helps, whatever others have pushed.
	signaturesLimit = 50
	// verdictsKept bounds the memory of verdicts; one that is against a signature is asked again after verdictRetry.
	verdictsKept = 8192
	verdictRetry = time.Minute
	// proofs bounds how many verify at a time, proofRounds how often one pull begins anew because signatures came meanwhile.
	proofs      = 2
	proofRounds = 8

	ruleTrust = "trustPolicy"
)

// prover verifies signatures and remembers what came of it.
type prover struct {
	verdicts *trust.Verdicts
	slots    chan struct{}
}

func newProver() (*prover, error) {
	verdicts, err := trust.NewVerdicts(verdictsKept)
	return &prover{verdicts, make(chan struct{}, proofs)}, err
}

// verdicts are what one pull has found out, whatever becomes of the common memory.
type verdicts map[trust.Key]trust.Verdict

func (p *prover) known(own verdicts, k trust.Key, now time.Time) (trust.Verdict, bool) {
	if v, ok := own[k]; ok && !now.After(v.Until) {
		return v, true
	}
	return p.verdicts.Get(k, now)
}

// tagPull is a pull by a tag. note begins the record of a refusal.
type tagPull struct {
	row    meta.RegistryRow
	caller identity.Caller
	repo   name.Repository
	tag    name.Tag
	found  oci.Descriptor
	note   audit.Record
}

// unproven says that signatures have to be verified before a pull can be judged.
type unproven struct {
	pull   tagPull
	stores []trust.Store
	unread []trust.Key
	now    time.Time
}

func (u *unproven) Error() string {
	return "the signatures of " + string(u.pull.found.Digest) + " are not verified yet"
}

// proven does what may ask for signatures to be verified; that is done between its attempts, outside of any transaction.
func (s *Service) proven(ctx context.Context, act func(own verdicts) error) error {
	var own verdicts
	for range proofRounds {
		err := act(own)
		var asked *unproven
		if !errors.As(err, &asked) {
			return err
		}
		if own == nil {
			own = verdicts{}
		}
		if err := s.prove(ctx, asked, own); err != nil {
			return err
		}
	}
	return fault.New(fault.Unavailable, "The signatures or the trust stores of the registry change faster than they can be verified. Try again.")
}

// trustTag judges a pull by a tag under the trust policy. What is signed, as it mostly is, costs least. Errors: Denied, and an unproven.
func (s *Service) trustTag(tx *meta.Tx, p tagPull, own verdicts) error {
	if !p.row.Trust || p.tag == "" {
		return nil
	}
	generation, err := trust.Generation(tx, p.row.ID)
	if err != nil {
		return err
	}
	var list []name.Digest
	if generation != "" {
		if list, err = signaturesOf(tx, p); err != nil {
			return err
		}
	}
	asked := &unproven{pull: p, now: tx.Now()}
	var why []string
	for _, d := range list[:min(len(list), signaturesLimit)] {
		k := trust.Key{Generation: generation, Manifest: p.found.Digest, Signature: d, MediaType: p.found.MediaType, Size: p.found.Size}
		v, known := s.prover.known(own, k, asked.now)
		switch {
		case known && v.Trusted():
			return nil
		case known:
			why = append(why, fmt.Sprintf("%s: %s", d, v.Why))
		default:
			asked.unread = append(asked.unread, k)
		}
	}
	if signer, err := s.identity.CanSign(tx, p.caller, p.row); signer || err != nil {
		return err
	}
	if lists, err := listsReferrers(tx, p); lists || err != nil {
		return err
	}
	switch {
	case generation == "":
		return s.untrusted(p, "the registry has no trust store, so that nobody's signature is trusted. An administrator of the registry makes one (Embargo.Containment/trustStores)")
	case len(asked.unread) > 0:
		if asked.stores, err = trust.Stores(tx, p.row.ID); err != nil {
			return err
		}
		return asked
	}
	return s.untrusted(p, refusedSignatures(len(list), why)+fmt.Sprintf(". Sign it with a certificate that a trust store of the registry trusts: notation sign %s/%s@%s",
		p.row.LoginServer, p.repo, p.found.Digest))
}

// referrersTag is the form of a tag under which clients without the referrers API list what refers to a digest. Source: OCI distribution 1.1, "Referrers Tag Schema".
var referrersTag = regexp.MustCompile(`^(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{121})$`)

// listsReferrers: a tag that lists what refers to a digest, and nothing that runs, tells what the referrers API tells. Signing itself reads it.
func listsReferrers(tx *meta.Tx, p tagPull) (bool, error) {
	if p.found.MediaType != mediaIndex || !referrersTag.MatchString(string(p.tag)) {
		return false, nil
	}
	rows, err := tx.Query(`SELECT DISTINCT COALESCE(m.subject, ''), COALESCE(m.media_type, ''), COALESCE(m.config_media_type, '') FROM repositories r JOIN manifest_refs f ON f.repository = r.id
 LEFT JOIN manifests m ON m.repository = f.repository AND m.digest = f.child WHERE r.registry = $1 AND r.name = $2 AND f.digest = $3`,
		p.row.ID, string(p.repo), string(p.found.Digest))
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		var subject, media, config string
		if err := rows.Scan(&subject, &media, &config); err != nil {
			return false, err
		}
		if media != mediaImage || config == mediaConfig || config == mediaDockerConfig {
			return false, nil // an image or an index of images, which run
		}
		if of := strings.Replace(subject, ":", "-", 1); of[:min(len(of), len(p.tag))] != string(p.tag) {
			return false, nil
		}
	}
	return true, rows.Err()
}

// refusedSignatures says why none of so many signatures counts.
func refusedSignatures(count int, why []string) string {
	const most = 3
	text := fmt.Sprintf("none of its %d signatures counts: ", count)
	switch {
	case count == 0:
		return "it has no signature (a referrer of the type " + trust.ArtifactType + ")"
	case count > signaturesLimit:
		text = fmt.Sprintf("none of the newest %d of its signatures counts: ", signaturesLimit)
	}
	text += strings.Join(why[:min(len(why), most)], "; ")
	if len(why) > most {
		text += fmt.Sprintf("; and %d more", len(why)-most)
	}
	return text
}

// untrusted refuses a tag, on record.
func (s *Service) untrusted(p tagPull, why string) error {
	f := fault.New(fault.Denied, "The trustPolicy of the registry '%s' refuses the tag '%s' of the repository '%s' (manifest %s): %s. Who has the role AcrImageSigner is not refused.",
		p.row.Name, p.tag, p.repo, p.found.Digest, why).
		Carrying(map[string]string{"name": string(p.repo), "tag": string(p.tag), "digest": string(p.found.Digest), "rule": ruleTrust})
	r := p.note
	r.Kind, r.Outcome, r.Rule, r.Reason = audit.Decision, audit.Refused, ruleTrust, f.Message
	r.Resource, r.Registry, r.LoginServer, r.Epoch = p.row.ResourceID, p.row.ID, p.row.LoginServer, p.row.Epoch
	r.Repository, r.Reference, r.Digest, r.MediaType, r.Bytes = string(p.repo), string(p.tag), string(p.found.Digest), p.found.MediaType, p.found.Size
	r.Caller = callerOf(p.caller)
	s.audit.Note(r)
	return f
}

// signaturesOf lists the signatures of a manifest that a puller would see, the newest first; one more than are looked at.
func signaturesOf(tx *meta.Tx, p tagPull) (list []name.Digest, err error) {
	visible := ``
	if p.row.Quarantine {
		visible = notHeld
	}
	rows, err := tx.Query(`SELECT m.digest FROM repositories r JOIN manifests m ON m.repository = r.id
 WHERE r.registry = $1 AND r.name = $2 AND m.subject = $3 AND m.artifact_type = $4 AND (m.locks & 12) = 0`+visible+` ORDER BY m.created_us DESC, m.digest LIMIT $5`,
		p.row.ID, string(p.repo), string(p.found.Digest), trust.ArtifactType, signaturesLimit+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var d name.Digest
		if err := rows.Scan(&d); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

// prove verifies signatures up to one that counts.
func (s *Service) prove(ctx context.Context, u *unproven, own verdicts) error {
	select {
	case s.prover.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.prover.slots }()
	for _, k := range u.unread {
		v, known := s.prover.known(own, k, u.now)
		if !known {
			until, why, err := s.verify(ctx, u, k.Signature)
			if err != nil {
				return err
			}
			if v = (trust.Verdict{Why: why, Until: until}); why != "" {
				v.Until = u.now.Add(verdictRetry)
			}
			s.prover.verdicts.Put(k, v)
		}
		if own[k] = v; v.Trusted() {
			return nil
		}
	}
	return nil
}

// verify reads and verifies one signature: trusted until then, or why it does not count.
func (s *Service) verify(ctx context.Context, u *unproven, signature name.Digest) (until time.Time, why string, err error) {
	content, err := s.blobs.Inspect(ctx, signature, trust.EnvelopeLimit)
	if err != nil {
		return until, "its manifest can't be read", faultless(err)
	}
	var m struct {
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(content, &m); err != nil || len(m.Layers) != 1 {
		return until, fmt.Sprintf("its manifest has %d layers and must have one, the envelope", len(m.Layers)), nil
	}
	d, err := name.ParseDigest(m.Layers[0].Digest)
	if err != nil {
		return until, "its layer has no digest", nil
	}
	err = s.db.Read(ctx, func(tx *meta.Tx) error {
		_, err := blobIn(tx, u.pull.row.ID, u.pull.repo, d)
		return err
	})
	if err != nil {
		return until, "its envelope " + string(d) + " is not in the repository, or is locked", faultless(err)
	}
	envelope, err := s.blobs.Inspect(ctx, d, trust.EnvelopeLimit)
	if err != nil {
		return until, fmt.Sprintf("its envelope can't be read, or has more than %d bytes", trust.EnvelopeLimit), faultless(err)
	}
	of := trust.Target{Digest: u.pull.found.Digest, MediaType: u.pull.found.MediaType, Size: u.pull.found.Size}
	until, err = trust.Verify(m.Layers[0].MediaType, envelope, of, u.stores, u.now)
	if err != nil {
		return until, err.Error(), nil
	}
	return until, "", nil
}

// faultless is nil of a fault: what a client may see of the content itself is no failure of the server.
func faultless(err error) error {
	var f *fault.Fault
	if errors.As(err, &f) {
		return nil
	}
	return err
}

// trusting runs a transaction of an import that may ask for signatures to be verified.
func (p *importer) trusting(ctx context.Context, do func(tx *meta.Tx, own verdicts) error) error {
	return p.s.proven(ctx, func(own verdicts) error {
		return p.s.db.Write(ctx, func(tx *meta.Tx) error { return do(tx, own) })
	})
}

// trusted: an import by a tag is a pull by it, of who reads the source.
func (p *importer) trusted(tx *meta.Tx, own verdicts) error {
	err := p.s.trustTag(tx, tagPull{row: p.source, caller: p.reader(), repo: p.Image.Repository, tag: p.Image.Tag, found: p.root,
		note: audit.Record{Action: actionImport, Route: string(egress.Import), Correlation: p.correlation}}, own)
	var f *fault.Fault
	if errors.As(err, &f) {
		return f.At(p.source.ResourceID)
	}
	return err
}

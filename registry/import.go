// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

const importKind = "registry.import"

const (
	// importManifests and importArtifacts bound one import: an image with all its platforms.
	importManifests = 200
	importArtifacts = 10000
)

// Import says what to copy between two registries of the installation, or within one. Registries are named by identity.
type Import struct {
	Source, Target string
	// Image is the source's repository with a tag or a digest; without either it is the tag latest.
	Image name.Reference
	// Tags are the target's repositories and tags. One without a tag gets the image's tag, or latest when that is a digest.
	Tags []name.Reference
	// Untagged are target repositories that get the content without a tag.
	Untagged []name.Repository
	// As reads the source, where that is not who asked for the import: the holder of the credentials that came with it.
	As *identity.Caller
	// Force lets existing tags be moved; otherwise one that exists fails the whole import.
	Force bool
}

// ImportJob is the job of an import for Enqueue, or for an ARM action that begins it; its Caller must be an identity.Caller as JSON.
// Errors: InvalidParameters when it names nothing to make.
func ImportJob(i Import) (job.Spec, error) {
	if i.Image.Tag == "" && i.Image.Digest == "" {
		i.Image.Tag = "latest"
	}
	i.Tags = slices.Clone(i.Tags)
	for n, t := range i.Tags {
		switch {
		case t.Digest != "":
			return job.Spec{}, fault.New(fault.InvalidParameters, "The target tag %q must not have a digest: the content keeps the source's.", t.String())
		case t.Tag == "" && i.Image.Tag != "":
			i.Tags[n].Tag = i.Image.Tag
		case t.Tag == "":
			i.Tags[n].Tag = "latest"
		}
	}
	if len(i.Tags) == 0 && len(i.Untagged) == 0 {
		return job.Spec{}, fault.New(fault.InvalidParameters, "An import needs targetTags or untaggedTargetRepositories.")
	}
	return job.Spec{Kind: importKind, Registry: i.Target, Args: i}, nil
}

// EnqueueImport adds an import to the transaction under an operation's name ("" makes one) on behalf of a caller, and returns that name.
func EnqueueImport(tx *meta.Tx, operation string, i Import, c identity.Caller, correlation string) (string, error) {
	spec, err := ImportJob(i)
	if err != nil {
		return "", err
	}
	if spec.Caller, err = json.Marshal(c); err != nil {
		return "", err
	}
	spec.ID, spec.Correlation = operation, correlation
	return job.Enqueue(tx, spec)
}

// importer is one import at work.
type importer struct {
	s *Service
	Import
	caller      identity.Caller
	operation   string
	correlation string
	// again says that an earlier attempt may have finished all but its answer; began is when the operation was asked for.
	again bool
	began time.Time

	// What the survey found. The rows of the registries are for messages and records: decisions read their own.
	source, target meta.RegistryRow
	root           oci.Descriptor
}

func (s *Service) runImport(ctx context.Context, j *job.Job) (any, error) {
	p := &importer{s: s, operation: j.ID, correlation: j.Correlation, again: j.Attempt > 1, began: j.Created}
	if err := j.Decode(&p.Import); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(j.Caller, &p.caller); err != nil {
		return nil, err
	}
	err := p.survey(ctx, func(percent int) error { return j.Progress(ctx, percent) })
	if err == nil {
		err = p.finish(ctx, j.Mine)
	}
	return nil, p.ended(err)
}

// survey judges the import and asks the source for every piece of content, each manifest with what it names in one transaction that
// also records the answers. It writes nothing into the target, so that an import that is stopped leaves nothing.
func (p *importer) survey(ctx context.Context, progress func(percent int) error) error {
	if err := p.trusting(ctx, p.start); err != nil {
		return err
	}
	seen := map[name.Digest]bool{p.root.Digest: true}
	queue := []name.Digest{p.root.Digest}
	for done := 0; len(queue) > 0; done++ {
		if done == importManifests || len(seen) > importArtifacts {
			return fault.New(fault.InvalidParameters, "The image %s has more than %d manifests or %d pieces of content; import its parts one by one.",
				p.Image.String(), importManifests, importArtifacts)
		}
		at := queue[0]
		var parts []part
		err := p.s.db.Write(ctx, func(tx *meta.Tx) error {
			var err error
			parts, err = p.askParts(tx, at)
			return err
		})
		if err != nil {
			return err
		}
		queue = queue[1:]
		for _, c := range parts {
			if !seen[c.Digest] && c.manifest {
				queue = append(queue, c.Digest)
			}
			seen[c.Digest] = true
		}
		if err := progress(90 * (done + 1) / (done + 1 + len(queue))); err != nil {
			return err
		}
	}
	return nil
}

// start checks what can be refused at once, resolves the image and asks the source for its manifest.
func (p *importer) start(tx *meta.Tx, own verdicts) error {
	if err := p.load(tx); err != nil {
		return err
	}
	if err := p.permitted(tx); err != nil {
		return err
	}
	if err := p.vacant(tx); err != nil {
		return err
	}
	var err error
	if p.root, err = p.found(tx, p.Image); err != nil {
		return err
	}
	if err := p.trusted(tx, own); err != nil {
		return err
	}
	return p.s.releaseImport(tx, p.passage(), string(p.Image.Tag), p.root)
}

// load reads and locks both registries, in one order for all imports.
func (p *importer) load(tx *meta.Tx) error {
	ids := []string{p.Source, p.Target}
	slices.Sort(ids)
	for _, id := range ids {
		row, err := tx.LockRegistry(id)
		if errors.Is(err, meta.ErrNotFound) {
			return fault.New(fault.InvalidParameters, "A registry of the import does not exist any more.").Because(err)
		}
		if err != nil {
			return err
		}
		if id == p.Source {
			p.source = row
		}
		if id == p.Target {
			p.target = row
		}
	}
	return nil
}

func (p *importer) passage() passage {
	return passage{source: p.Source, target: p.Target, repo: p.Image.Repository, caller: p.reader(), correlation: p.correlation}
}

func (p *importer) reader() identity.Caller {
	if p.As != nil {
		return *p.As
	}
	return p.caller
}

// permitted: the caller must be able to pull from the source's repository and to push to each of the target's.
func (p *importer) permitted(tx *meta.Tx) error {
	ok, err := p.s.identity.CanRepository(tx, p.reader(), p.source, p.Image.Repository, identity.Pull)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Forbidden, "Access to %s denied: the caller may not pull from its repository '%s'.", p.source.LoginServer, p.Image.Repository).At(p.source.ResourceID)
	}
	for _, repo := range p.repositories() {
		ok, err := p.s.identity.CanRepository(tx, p.caller, p.target, repo, identity.Push)
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Forbidden, "Access to %s denied: the caller may not push to its repository '%s'.", p.target.LoginServer, repo)
		}
	}
	return nil
}

// repositories are the target's, each once.
func (p *importer) repositories() []name.Repository {
	all := slices.Clone(p.Untagged)
	for _, t := range p.Tags {
		all = append(all, t.Repository)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// vacant: without Force no target tag may exist, unless this operation made it before its process died.
func (p *importer) vacant(tx *meta.Tx) error {
	if p.Force {
		return nil
	}
	for _, t := range p.Tags {
		in, err := find(tx, p.Target, t.Repository)
		if err != nil {
			return err
		}
		there, err := tagAt(tx, in.id, t.Tag)
		if err != nil {
			return err
		}
		own := p.again && there.updated >= meta.Micros(p.began)
		if there.digest != "" && !own {
			return fault.New(fault.Conflict, "%s Tag %s already exists in target registry.", t.String(), t.String())
		}
	}
	return nil
}

// found is the image's root as the source holds it in tx.
func (p *importer) found(tx *meta.Tx, at name.Reference) (oci.Descriptor, error) {
	root, err := manifestIn(tx, p.Source, at)
	if err == nil && root.Quarantined && p.source.Quarantine {
		err = unknownManifest(at) // what is in quarantine goes nowhere
	}
	if err != nil {
		return root, p.absent(err)
	}
	return root, nil
}

// absent names the source in the fault of an image that is not there.
func (p *importer) absent(err error) error {
	f := fault.From(err)
	if f.Kind != fault.TagUnknown && f.Kind != fault.ManifestUnknown {
		return err
	}
	return fault.New(fault.InvalidParameters, "The image %s/%s was not found: %s.", p.source.LoginServer, p.Image.String(), f.Message).At(p.source.ResourceID)
}

// finish links the whole image into the target and sets its tags, in one transaction that asks the source and the caller's rights once more: a change
// of them that came before it leaves no link and no tag. mine says whether this worker still has the job.
func (p *importer) finish(ctx context.Context, mine func(tx *meta.Tx) error) error {
	return p.trusting(ctx, func(tx *meta.Tx, own verdicts) error {
		if err := p.load(tx); err != nil {
			return err
		}
		if err := mine(tx); err != nil {
			return err
		}
		if err := p.permitted(tx); err != nil {
			return err
		}
		if err := p.s.releaseImport(tx, p.passage(), string(p.Image.Tag), p.root); err != nil {
			return err
		}
		if err := p.trusted(tx, own); err != nil {
			return err
		}
		if err := p.vacant(tx); err != nil {
			return err
		}
		return p.link(tx)
	})
}

// link adds the image to each target repository.
func (p *importer) link(tx *meta.Tx) error {
	from, err := lock(tx, p.Source, p.Image.Repository)
	if err != nil {
		return err
	}
	whole, err := p.walk(tx, from.id)
	if err != nil {
		return err
	}
	at := map[name.Repository]string{}
	content := make([]oci.Descriptor, len(whole))
	for i, c := range whole {
		content[i] = c.Descriptor
	}
	row, err := tx.RegistryByID(p.Target)
	if err == nil {
		err = p.s.quota.room(tx, row, content...)
	}
	if err != nil {
		return err
	}
	for _, repo := range p.repositories() {
		to, err := p.s.take(tx, p.Target, repo)
		if err != nil {
			return err
		}
		at[repo] = to.id
		for _, c := range whole {
			if err := p.copyPart(tx, from.id, to.id, repo, c); err != nil {
				return err
			}
		}
	}
	for _, repo := range p.Untagged {
		if err := p.recordLink(tx, name.Reference{Repository: repo}, ""); err != nil {
			return err
		}
		if err := p.tell(tx, at[repo], repo); err != nil {
			return err
		}
	}
	for _, t := range p.Tags {
		was, err := setTag(tx, at[t.Repository], name.Reference{Repository: t.Repository, Tag: t.Tag, Digest: p.root.Digest})
		if err != nil {
			return err
		}
		if err := p.recordLink(tx, t, was); err != nil {
			return err
		}
		if err := p.tell(tx, at[t.Repository], t.Repository, t.Tag); err != nil {
			return err
		}
	}
	return nil
}

// record begins a record of the target's side.
func (p *importer) record() (audit.Record, error) {
	after, err := json.Marshal(map[string]string{"source": p.source.ResourceID, "sourceImage": p.Image.String(), "operation": p.operation})
	return audit.Record{
		Kind: audit.Change, Action: actionImport, Outcome: audit.Succeeded, Route: string(egress.Import),
		Resource: p.target.ResourceID, Registry: p.Target, LoginServer: p.target.LoginServer, Epoch: p.target.Epoch,
		Digest: string(p.root.Digest), MediaType: p.root.MediaType, Bytes: p.root.Size,
		Caller: callerOf(p.caller), Correlation: p.correlation, After: after,
	}, err
}

func (p *importer) recordLink(tx *meta.Tx, to name.Reference, was name.Digest) error {
	r, err := p.record()
	if err != nil {
		return err
	}
	r.Repository, r.Reference = string(to.Repository), string(to.Tag)
	if r.Before, err = tagBefore(was); err != nil {
		return err
	}
	return p.s.audit.Append(tx, r)
}

// ended records a failure and words it for the operation: whose fault it is stands in front. What is no fault is tried again.
func (p *importer) ended(err error) error {
	var f *fault.Fault
	if !errors.As(err, &f) {
		return err
	}
	blamed := f.Target
	if blamed == "" {
		blamed = p.target.ResourceID
	}
	kind := f.Kind
	if f.Status() == 404 {
		kind = fault.InvalidParameters // the operation was found: it is what it names that was not
	}
	text := fmt.Sprintf("Operation %s failed. Resource %s %s", p.operation, blamed, f.Message)
	if blamed == "" { // both registries are gone
		text = fmt.Sprintf("Operation %s failed. %s", p.operation, f.Message)
	}
	if r, err := p.record(); err == nil {
		r.Outcome, r.Reason, r.Rule = audit.Failed, f.Message, f.Kind.ARM()
		p.s.audit.Note(r)
	}
	return fault.New(kind, "%s", text).At(blamed).Because(err)
}

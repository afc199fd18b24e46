// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// write serves PUT and PATCH. The order is that of every write: parse, version, Can, locks, policy, merge, Admit, Apply, and one
// transaction holds it all from Can on.
func (rq *request) write(r *resource, id name.ResourceID, shape shape, patch bool) error {
	tree, err := rq.bodyTree(true)
	if err != nil {
		return err
	}
	if tree == nil {
		return invalidContent("", "the content must be an object and is null")
	}
	var answer reply
	rq.action = r.right + "/write"
	err = rq.inTx(true, func(tx *Tx) error {
		rq.provider = false
		w := writing{tx: tx, r: r, id: id, shape: shape, patch: patch, tree: tree}
		if err := tx.Must(rq.action, id); err != nil {
			return err
		}
		if err := rq.place(&w); err != nil {
			return err
		}
		if err := rq.precondition(&w); err != nil {
			return err
		}
		rq.provider = true
		if err := w.perform(); err != nil {
			return err
		}
		answer, err = rq.written(&w)
		return err
	})
	if err != nil {
		return err
	}
	return rq.send(answer)
}

// writing is one PUT or PATCH on its way through the engine.
type writing struct {
	tx     *Tx
	r      *resource
	id     name.ResourceID // canonical once place has run
	shape  shape
	patch  bool
	inside bool
	tree   map[string]any

	was  *stored // nil on create
	want *stored
	sent map[string]bool
}

// place finds where the write goes: it locks the root, reads what is stored, and makes the id canonical.
func (rq *request) place(w *writing) error {
	// The lock comes before the first look: a group that is being deleted is seen so.
	if err := w.tx.e.lock(w.tx, w.id); err != nil {
		return err
	}
	scope, err := rq.scopeOf(w.tx, w.id)
	if err != nil {
		return err
	}
	if err := w.tx.e.place(w); err != nil {
		return err
	}
	if w.was != nil {
		return nil
	}
	if w.patch {
		return rq.missing(w.r, w.id)
	}
	if scope != nil && scope.state == stateDeleting {
		return fault.New(fault.ResourceGroupBeingDeleted, "The resource group '%s' is in deprovisioning state and cannot perform this operation.", scope.id.Name())
	}
	return nil
}

// precondition is what the request asks of the resource before it is written (RFC 9110, sections 13.1.1 and 13.1.2). Resources have no entity tags here, so that one which is named fits none.
func (rq *request) precondition(w *writing) error {
	if slices.Contains(rq.tags("If-None-Match"), "*") && w.was != nil {
		return fault.New(fault.PreconditionFailed, "The resource '%s' exists already, and the request is to create it only (If-None-Match: *). Leave the header out to replace it.", w.id)
	}
	switch tags := rq.tags("If-Match"); {
	case len(tags) == 0 || slices.Contains(tags, "*") && w.was != nil:
		return nil
	case slices.Contains(tags, "*"):
		return fault.New(fault.PreconditionFailed, "The resource '%s' does not exist, and the request is to change it only (If-Match: *). Leave the header out to create it.", w.id)
	default:
		return fault.New(fault.PreconditionFailed, "The resource '%s' has no entity tag, and the request is to write it only while it has %s (If-Match). Leave the header out.", w.id, clip(tags[0]))
	}
}

// tags are the entity tags of a header, or "*". An empty header, which some clients send, is none.
func (rq *request) tags(header string) (tags []string) {
	for tag := range strings.SplitSeq(strings.Join(rq.r.Header.Values(header), ","), ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			tags = append(tags, tag)
		}
	}
	return tags
}

const stateDeleting = "Deleting"

// scopeOf checks that the subscription and the group of an id exist, and gives the group's row, nil outside groups.
func (rq *request) scopeOf(tx *Tx, id name.ResourceID) (*stored, error) {
	if err := rq.subscription(tx, id); err != nil {
		return nil, err
	}
	if id.ResourceGroup() == "" || !id.IsResource() {
		return nil, nil
	}
	group, err := tx.e.group(tx, id)
	if errors.Is(err, errAbsent) {
		return nil, fault.New(fault.ResourceGroupNotFound, "Resource group '%s' could not be found.", id.ResourceGroup())
	}
	return group, err
}

// group is the row of an id's resource group; errAbsent when it is not there.
func (e *Engine) group(tx *Tx, id name.ResourceID) (*stored, error) {
	r := e.types[strings.ToLower(groupType)]
	if r == nil {
		return nil, nil // an engine without resource groups (none in production) takes any
	}
	return e.load(tx, r, name.Group(id.Subscription(), id.ResourceGroup()))
}

// place loads and canonicalises what has been locked.
func (e *Engine) place(w *writing) error {
	was, err := e.load(w.tx, w.r, w.id)
	switch {
	case err == nil:
		w.was, w.id = was, was.id
		return nil
	case !errors.Is(err, errAbsent):
		return err
	}
	w.id, err = e.canonical(w.tx, w.r, w.id)
	return err
}

// canonical gives the id of a resource that is being created: declared casing of the type, stored casing of what it stands in.
func (e *Engine) canonical(tx *Tx, r *resource, id name.ResourceID) (name.ResourceID, error) {
	if !id.IsResource() {
		return name.Group(strings.ToLower(id.Subscription()), id.ResourceGroup()), nil
	}
	last := r.segments[len(r.segments)-1]
	if len(r.segments) > 1 {
		parent, err := e.load(tx, e.types[strings.ToLower(r.parentType())], id.Parent())
		if errors.Is(err, errAbsent) {
			return id, fault.New(fault.ParentResourceNotFound,
				"Failed to perform 'write' on resource(s) of type '%s', because the parent resource '%s' could not be found.", r.path(), id.Parent())
		}
		if err != nil {
			return id, err
		}
		return parent.id.Child(last, id.Name()), nil
	}
	scope := id.Scope()
	if owner := e.types[strings.ToLower(scope.Type())]; owner != nil {
		there, err := e.load(tx, owner, scope)
		if errors.Is(err, errAbsent) {
			return id, fault.New(fault.ResourceNotFound, "The resource '%s' could not be found.", scope)
		}
		if err != nil {
			return id, err
		}
		scope = there.id
	} else if scope.Subscription() != "" && !scope.IsResource() && scope.ResourceGroup() == "" {
		scope = name.Subscription(strings.ToLower(scope.Subscription()))
	}
	return scope.In(r.namespace, last, id.Name()), nil
}

// perform merges, judges, applies and stores. Everything before it has been checked: the caller may, the place exists.
func (w *writing) perform() error {
	e := w.tx.e
	if w.was != nil && w.was.state == stateDeleting {
		return fault.New(fault.Conflict, "The resource '%s' is being deleted.", w.id)
	}
	if err := e.locks(w); err != nil {
		return err
	}
	if err := e.policy(w); err != nil {
		return err
	}
	if err := w.merge(); err != nil {
		return err
	}
	c := w.change()
	if err := fault.Join(w.r.admit(w.tx.world, c)); err != nil {
		return err
	}
	if err := w.r.apply(w.tx, c); err != nil {
		return err
	}
	w.want.touch(w.tx, w.was == nil)
	if w.r.rows == nil {
		if err := e.save(w.tx, w.want, w.was == nil); err != nil {
			return err
		}
	}
	return e.recordChange(w.tx, w.r, w.id, w.was, w.want)
}

// locks is where resource locks will be asked: there are none yet.
func (e *Engine) locks(*writing) error { return nil }

// policy is where Azure Policy assignments will be asked: there are none yet.
func (e *Engine) policy(*writing) error { return nil }

func (w *writing) change() change {
	req := w.tx.req
	req.sent = w.sent
	c := change{id: w.id, req: req}
	if w.was != nil {
		c.was = w.was.doc
	}
	if w.want != nil {
		c.want = w.want.doc
	}
	return c
}

// merge makes the wanted document of the stored one and the request's body.
func (w *writing) merge() error {
	d := &decoder{shape: w.shape, patch: w.patch, inside: w.inside, sent: map[string]bool{}}
	w.sent = d.sent
	w.want = &stored{id: w.id, typ: w.r, doc: w.r.fresh()}
	was := reflect.Value{}
	if w.was != nil {
		was = w.was.doc.Elem()
		w.want.system, w.want.state = w.was.system, w.was.state
	} else if f := w.r.checkName(w.id.Name()); f != nil {
		d.refuse(f)
	}
	if w.patch {
		w.want.doc.Elem().Set(clone(was))
		d.merge(w.r.schema, w.tree, w.want.doc.Elem(), "")
	} else {
		d.replace(w.r.schema, w.tree, w.want.doc.Elem(), was, "", false)
	}
	w.want.envelope()
	d.location(w)
	d.tags(w)
	if len(d.faults) == 0 {
		d.faults = w.r.schema.judge(was, w.want.doc.Elem())
	}
	return fault.Join(d.faults)
}

// location gives ARM's rules to the member of that name: normal form, known region, never changed.
func (d *decoder) location(w *writing) {
	f := w.r.schema.folded["location"]
	if f == nil || f.schema.kind != kindString || f.schema.ptr {
		return
	}
	v := w.want.doc.Elem().FieldByIndex(f.index)
	given := v.String()
	v.SetString(normalLocation(given))
	if w.was != nil {
		was := w.was.text("location")
		if given == "" {
			v.SetString(was)
		} else if v.String() != was {
			d.refuse(fault.New(fault.LocationConflict,
				"The resource '%s' already exists in location '%s' in resource group '%s'. A resource with the same name cannot be created in location '%s'. Please select a new resource name.",
				w.id.Name(), was, w.id.ResourceGroup(), clip(v.String())).At("location"))
		}
		return
	}
	if given == "" {
		return
	}
	if _, known := w.tx.e.locations[v.String()]; !known && v.String() != "global" {
		d.refuse(fault.New(fault.LocationNotAvailable,
			"The provided location '%s' is not available for resource type '%s'. List of available regions for the resource type is '%s'.",
			clip(given), w.r.name, strings.Join(w.tx.e.locationNames(), ",")).At("location"))
	}
}

// tags gives ARM's rules to the member of that name. Source: ARM, "Tag usage and recommendations".
func (d *decoder) tags(w *writing) {
	v := w.r.schema.lookup(w.want.doc, "tags")
	if !v.IsValid() || v.Kind() != reflect.Map {
		return
	}
	tags, ok := v.Interface().(map[string]string)
	if !ok {
		return
	}
	d.faults = append(d.faults, CheckTags(tags)...)
}

// CheckTags applies ARM's limits: 50 tags, names of 1 to 512 characters (none of <>%&\?/) that differ in more than case, values of at most 256.
func CheckTags(tags map[string]string) []*fault.Fault {
	var faults []*fault.Fault
	if len(tags) > 50 {
		faults = append(faults, fault.New(fault.InvalidParameter, "A resource has at most 50 tags; %d were given.", len(tags)).At("tags"))
	}
	folded := map[string]string{}
	for _, k := range sortedKeys(tags) {
		at := "tags." + clip(k)
		if other, twice := folded[strings.ToLower(k)]; twice {
			faults = append(faults, fault.New(fault.InvalidParameter, "The tags '%s' and '%s' differ only in case.", other, k).At(at))
		}
		folded[strings.ToLower(k)] = k
		if k == "" || len(k) > 512 || strings.ContainsAny(k, `<>%&\?/`) {
			faults = append(faults, fault.New(fault.InvalidParameter, "The tag name '%s' is invalid: 1 to 512 characters, none of <>%%&\\?/.", clip(k)).At(at))
		}
		if len(tags[k]) > 256 {
			faults = append(faults, fault.New(fault.InvalidParameter, "The value of tag '%s' is longer than 256 characters.", clip(k)).At(at))
		}
	}
	return faults
}

// written makes the answer of a PUT or PATCH: the resource as the caller's version shows it.
func (rq *request) written(w *writing) (reply, error) {
	answer := reply{status: http.StatusOK}
	if w.r.answers.Updated != 0 {
		answer.status = w.r.answers.Updated
	}
	if w.was == nil {
		answer.status = http.StatusCreated
		if w.r.answers.Created != 0 {
			answer.status = w.r.answers.Created
		}
	}
	var err error
	if spec := w.tx.operate; spec != nil {
		op, err := rq.enqueue(w.tx, w.r.segments[len(w.r.segments)-1]+"-", w.id, *spec)
		if err != nil {
			return reply{}, err
		}
		answer.header = map[string]string{"Retry-After": "1", "Azure-AsyncOperation": rq.base() + w.id.Root().String() + "/operationStatuses/" + op + rq.versionQuery()}
	}
	answer.body, err = rq.show(w.tx, w.want, w.shape)
	return answer, err
}

func (rq *request) versionQuery() string { return "?api-version=" + rq.query["api-version"] }

// putInside is a PUT by a hook or a job.
func (e *Engine) putInside(tx *Tx, id name.ResourceID, doc any) error {
	r := e.types[strings.ToLower(id.Type())]
	if r == nil {
		return fmt.Errorf("arm: type %s is not declared", id.Type())
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	v, err := ParseJSON(data)
	if err != nil {
		return err
	}
	tree, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("arm: the document of %s is not an object", id)
	}
	w := writing{tx: tx, r: r, id: id, shape: wholeShape, inside: true, tree: tree}
	if err := e.lock(tx, id); err != nil {
		return err
	}
	if err := e.place(&w); err != nil {
		return err
	}
	return w.perform()
}

// enqueue adds the job of a long-running operation under an id made of the prefix and the client's request id, so that a client
// finds its operation again; a second use of that id gets a random one.
func (rq *request) enqueue(tx *Tx, prefix string, subject name.ResourceID, spec job.Spec) (string, error) {
	unique := rq.r.Header.Get("x-ms-client-request-id")
	if !isGUID(unique) {
		unique = tx.NewID()
	}
	spec.ID = prefix + strings.ToLower(unique)
	if _, err := job.Get(tx.m, spec.ID); err == nil {
		spec.ID = prefix + tx.NewID()
	} else if !errors.Is(err, meta.ErrNotFound) {
		return "", err
	}
	if spec.Subject == "" {
		spec.Subject = subject.Key()
	}
	return tx.Enqueue(spec)
}

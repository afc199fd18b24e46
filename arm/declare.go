// SPDX-License-Identifier: Apache-2.0

// Package arm speaks the Azure Resource Manager protocol for any declared resource type.
//
// A type is declared once, as a Type[D]: D is the Go struct of the type's newest shape, its struct tags say what each
// api-version can express and what may be written, and a few hooks say what the type means. From that the engine derives the
// routes at every scope, api-version checks, PUT and PATCH merging, enum casing, paging, systemData, long-running operations,
// operations lists, the error envelope and the reference page. The package knows no type, no registry and no gate.
//
// It promises: a write is one transaction that holds the resource, its children, its jobs and its audit record; the root
// resource is locked before anything is judged; validation tells every fault at once. It refuses what it does not understand.
package arm

import (
	"context"
	"net/url"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Namespace declares one resource provider and everything it serves.
type Namespace struct {
	Name     string     // Microsoft.ContainerRegistry
	Display  string     // provider name in /operations, such as "Microsoft Container Registry"
	Versions Versions   // api-versions shared by the types
	Types    []Resource // what it serves; children may come before their parents
	Actions  []Action   // actions of the provider itself: At is AtSubscription, AtGroup or AtTenant
	Routes   []Route    // paths that follow no resource scheme (rare)
}

// Versions says which api-versions a namespace serves: those of a List, each in its shape, or all Since a first one.
type Versions struct {
	// List holds every known version, GA and preview, in any order. Each has its own shape, given by the `api` tags of the types.
	List []string
	// Newer also serves well-formed versions newer than the newest of their lane, in the newest shape.
	Newer bool
	// Since serves, in one shape, any well-formed version whose date is not older than this one's. List is then what is advertised.
	Since string
}

// Scope is where a top-level type stands. Types with a parent ("registries/tokens") stand in their parent and need none.
type Scope int

const (
	InGroup        Scope = iota // /subscriptions/{s}/resourceGroups/{g}/providers/…
	InSubscription              // /subscriptions/{s}/providers/…
	InTenant                    // /providers/…
	OnAnything                  // an extension: on the tenant, a subscription, a group or any resource
)

// Verbs is the set of what clients may do with a type. GET of one resource is always served.
type Verbs uint8

const (
	Put Verbs = 1 << iota
	Patch
	Delete
	List         // in its scope or parent
	ListBelow    // of an InGroup type: for the whole subscription as well
	AllVerbs     = Put | Patch | Delete | List | ListBelow
	AllButPatch  = Put | Delete | List
	ChildVerbs   = Put | Patch | Delete | List
	ReadOnlyList = List
)

// Type declares a resource type. D is a struct whose exported fields, in order, are the members of the answer in order,
// the envelope's included; the members named type, id, name and systemData are filled by the engine, location and tags get
// ARM's rules, and sku.name (if there is such a member) is what sku gates look at. For example:
//
//	type Document struct {
//		SKU        SKU               `json:"sku" arm:"required"`
//		Type       string            `json:"type"`
//		ID         string            `json:"id"`
//		Identity   *Identity         `json:"identity"`
//		Name       string            `json:"name"`
//		Location   string            `json:"location" arm:"required"`
//		Tags       map[string]string `json:"tags"`
//		SystemData arm.SystemData    `json:"systemData"`
//		Properties Properties        `json:"properties"`
//	}
//
// Kinds of members: string (also named string types), bool, int and int64, float64, time.Time, structs, pointers to all of
// these, slices, map[string]T, and any for free JSON. Output: a nil pointer is omitted, a nil slice is [], a nil map {}, a zero
// time is omitted; the rest is always emitted. Struct tags, on any depth (several in one `arm` are separated by commas):
//
//	json:"name"              the member's name; "-" keeps the field out of the wire and of storage
//	api:"A..B; C.."          api-versions that can express it; each range lies in the lane of its first bound: preview (A ends in
//	                         -preview) or GA. Open ends are open. Without the tag: all its parent has. `api:"2019-12-01-preview.."`
//	                         alone means preview versions only.
//	default:"Enabled"        the value of an omitted member (strings, numbers, bools); without it the zero value or nil
//	enum:"Enabled|Disabled"  the values, in canonical casing; input is read in any casing, anything else is a 400
//	min:"0" max:"365"        bounds: of a number its value; of a string, slice or map its length
//	sku:"Premium|Standard"   a value other than the default needs one of these SKUs
//	shown:"Premium"          the member is shown only for these SKUs (and is stored all the same)
//	stance:"acts|echo|refused"  what Embargo does with it, for docs/properties.md; a refused member takes its default and nothing else
//	doc:"…"                  one sentence for docs/properties.md
//	time:"Z"                 a time.Time written with Z rather than +00:00
//	arm:"readonly"           ignored on input; hooks fill it (Apply: stored; View: made for each answer)
//	arm:"required"           must be given by PUT (and not be empty)
//	arm:"immutable"          a later PUT or PATCH that gives another value is refused; a PUT that omits it keeps it
//	arm:"nopatch"            ignored by PATCH
//	arm:"keep"               omitted by a PUT on an existing resource it keeps its stored value, instead of getting the default
//	arm:"secret"             a string or map that is sealed where it is stored, and never shown in answers or audit records
//	arm:"key"                of a slice element: elements with an equal key are one element, so that what a version cannot express survives
//	arm:"omitempty"          omitted when it is the zero value or empty
//	arm:"null"               of a pointer: emitted as null when nil
type Type[D any] struct {
	Name    string // full: Microsoft.ContainerRegistry/registries/exportPipelines
	Display string // singular, for operations and the reference: "Export pipeline"
	Right   string // what its permissions begin with; "" is Name (so that a read asks Name/read)
	Scope   Scope
	On      string // of an OnAnything type: the only type that it extends, as its full name; "" is any, and what is no resource
	API     string // api-versions of the type, in the grammar of the `api` tag; "" is all of the namespace. With Since only the first counts.
	Verbs   Verbs

	Names      Names
	GlobalName bool                                  // the name is unique across the installation, over all subscriptions
	TakenFault fault.Kind                            // what a taken global name answers; zero is Conflict
	TakenText  string                                // its message; %s is the name
	Answers    Answers                               // statuses that differ from 201 (created), 200 (updated), 200 (deleted), 204 (absent)
	NotFound   func(id name.ResourceID) *fault.Fault // the 404 of a missing resource; nil: ARM's ResourceNotFound
	Capability string                                // capabilities in the provider's list, such as "CrossResourceGroupResourceMove, SupportsTags"; "" derives it

	// Admit judges the final state of a change. It is pure: it reads w and c and nothing else. Was is nil on create, Want on delete.
	Admit func(w World, c Change[D]) []*fault.Fault
	// Apply makes the change's effects in the transaction, before the document is stored. It may fill read-only members of
	// c.Want, which are stored with it. On delete (Want nil) the children are gone already.
	Apply func(tx *Tx, c Change[D]) error
	// DeleteJob makes DELETE long-running: the resource stays, in the state Deleting, and this job is enqueued, which ends by
	// Tx.Remove. Admit is asked at once, Apply runs in Remove.
	DeleteJob func(c Change[D]) job.Spec
	// View completes an answer: it fills members that are made from other state. d is a copy.
	View func(v View, d *D)
	// Rows replaces the engine's own storage of the type, for types whose rows another package owns.
	Rows *Rows[D]
	// Beside are resources that are there by themselves, besides those that the engine stores: they are read and listed, are parents and children of nothing, and Admit refuses what
	// can't be done to them.
	Beside *Rows[D]

	Actions []Action // At is AtResource
	Work    []Work   // jobs of its long-running operations
}

// Names is the rule of a type's names. The zero rule allows 1 to 90 letters, digits, '-', '_', '.', '(' and ')'.
type Names struct {
	Min, Max int
	Pattern  string // of the whole name, an RE2 expression
	Text     string // says the rule to a person
}

// Answers are a type's own statuses; zero means the usual one.
type Answers struct {
	Created, Updated, Deleted int
	Absent                    int  // DELETE of what is not there: 204, or 404 with NotFound's fault
	DeletedBody               bool // DELETE answers with the resource that was deleted
}

// Rows is storage of a type that the engine does not own. Get answers nil, nil for what is not there. List answers what lies at
// or under scope; filter is the raw $filter and may be refused. Writes are Apply's.
type Rows[D any] struct {
	Get  func(tx *Tx, id name.ResourceID) (*D, error)
	List func(tx *Tx, scope name.ResourceID, filter string) ([]Row[D], error)
}

// Row is one document of a Rows list.
type Row[D any] struct {
	ID  name.ResourceID
	Doc D
}

// Change is a write as the hooks see it.
type Change[D any] struct {
	ID   name.ResourceID
	Was  *D // the stored document; nil on create
	Want *D // the merged final document; nil on delete
	Request
}

// Sent reports whether the request's body gave the member at the JSON path (properties.policies.retentionPolicy), null included.
func (c Change[D]) Sent(path string) bool { return c.sent[path] }

// Request is what is known of the request behind a change, an action or a view.
type Request struct {
	Method     string // PUT, PATCH, POST, GET or DELETE
	APIVersion string // as asked
	Caller     identity.Caller
	Now        time.Time // the transaction's instant, UTC
	RequestID  string    // x-ms-correlation-request-id: also the audit record's correlation
	Query      url.Values
	Sub        string // the segment that an action named "word/{name}" was called with

	sent map[string]bool
}

// View is what a View hook may look at.
type View struct {
	World
	ID name.ResourceID
	Request
	m *meta.Tx
}

// Look reads what does not stand in documents, in the answer's own transaction. Its failure is the answer's.
func (v View) Look(read func(tx *meta.Tx) error) {
	if err := read(v.m); err != nil {
		v.src.err = err
	}
}

// SystemData is ARM's record of who made and last changed a resource.
type SystemData struct {
	CreatedBy          string    `json:"createdBy"`
	CreatedByType      string    `json:"createdByType"`
	CreatedAt          time.Time `json:"createdAt"`
	LastModifiedBy     string    `json:"lastModifiedBy"`
	LastModifiedByType string    `json:"lastModifiedByType"`
	LastModifiedAt     time.Time `json:"lastModifiedAt"`
}

// Level is where an action is called.
type Level int

const (
	AtResource     Level = iota // …/registries/{name}/listCredentials
	AtSubscription              // /subscriptions/{s}/providers/{namespace}/checkNameAvailability
	AtGroup                     // /subscriptions/{s}/resourceGroups/{g}/providers/{namespace}/…
	AtTenant                    // /providers/{namespace}/…
)

// Action declares a POST (or GET) that is no plain read or write. Make its body with Do or Begin.
type Action struct {
	Name    string // listCredentials; "word/{name}" of a GET takes one more segment, which is Request.Sub
	Method  string // POST when ""
	At      Level
	API     string // grammar of the `api` tag
	Right   string // the permission; "" derives it: {type}/{name}/action, or {type}/{name}/read for GET
	Display string // for /operations
	Reads   bool   // it changes nothing: it runs on a read transaction and is not recorded as a change

	body *actionBody
}

// Call is an action's request. Body has been read under the rules of D's tags (required, enum, default, api …).
type Call[Req any] struct {
	ID   name.ResourceID // the resource, or the scope of the provider's action
	Body Req
	Request
}

// Do completes a synchronous action: what fn returns is the answer's body with 200. An action that Reads runs in a read
// transaction; any other runs with its root resource locked, in one transaction with its audit record.
func Do[Req, Resp any](a Action, fn func(tx *Tx, c Call[Req]) (Resp, error)) Action {
	a.body = doBody(fn)
	return a
}

// Begin completes a long-running action: fn judges the call and returns the job, which is enqueued in the same transaction. The
// answer is 202 with Location; the operation's id is {last type segment}-{client request id}.
func Begin[Req any](a Action, fn func(tx *Tx, c Call[Req]) (job.Spec, error)) Action {
	a.body = beginBody(fn)
	return a
}

// None is the Req or Resp of an action without a body.
type None struct{}

// Work is the background job of a long-running operation. Its context ends when the job is cancelled or its lease is lost.
type Work struct {
	Kind string
	Do   func(ctx context.Context, e *Engine, j *job.Job) (result any, err error)
}

// Route is a path outside the resource scheme, for what ARM itself serves ("/subscriptions/{subscription}/resources"). A segment in
// braces matches one segment; a leading "{scope}" matches any resource id. Paths match without regard to case.
type Route struct {
	Method string // HEAD is served by GET's route
	Path   string
	Right  string // the permission asked at At; "" asks none (the route asks for itself)
	// At gives the scope of the permission; nil is the subscription or group of the path, else the tenant.
	At     func(c *RouteCall) name.ResourceID
	Writes bool // a write transaction
	Do     func(tx *Tx, c *RouteCall) (Answer, error)
}

// RouteCall is the request of a Route.
type RouteCall struct {
	Values map[string]string // by the name in braces, as sent
	Scope  name.ResourceID   // of a leading {scope}
	Body   []byte            // strict JSON (checked: no duplicate members, bounded depth), nil when none was sent
	Base   string            // scheme and authority to build absolute URLs from
	Request

	rq *request
}

// Answer is a Route's answer: Status 0 is 200; Body is marshalled as JSON, nil is no body.
type Answer struct {
	Status int
	Body   any
	Header map[string]string
}

// Resource is a declared type whatever its document; only *Type[D] is one.
type Resource interface{ resource() (*resource, error) }

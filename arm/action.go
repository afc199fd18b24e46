// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/name"
)

// actionBody is what Do and Begin make of a typed function.
type actionBody struct {
	req, resp *schema
	long      bool
	run       func(tx *Tx, id name.ResourceID, body reflect.Value, req Request) (reflect.Value, job.Spec, error)
	err       error // of the declaration, told by New
}

func doBody[Req, Resp any](fn func(tx *Tx, c Call[Req]) (Resp, error)) *actionBody {
	b := newBody[Req]()
	if b.err == nil {
		b.resp, b.err = compileSchema(reflect.TypeFor[Resp]())
	}
	b.run = func(tx *Tx, id name.ResourceID, body reflect.Value, req Request) (reflect.Value, job.Spec, error) {
		resp, err := fn(tx, Call[Req]{ID: id, Body: *document[Req](body), Request: req})
		return reflect.ValueOf(&resp).Elem(), job.Spec{}, err
	}
	return b
}

func beginBody[Req any](fn func(tx *Tx, c Call[Req]) (job.Spec, error)) *actionBody {
	b := newBody[Req]()
	b.long = true
	b.run = func(tx *Tx, id name.ResourceID, body reflect.Value, req Request) (reflect.Value, job.Spec, error) {
		spec, err := fn(tx, Call[Req]{ID: id, Body: *document[Req](body), Request: req})
		return reflect.Value{}, spec, err
	}
	return b
}

func newBody[Req any]() *actionBody {
	b := &actionBody{}
	b.req, b.err = compileSchema(reflect.TypeFor[Req]())
	if b.err == nil && b.req.kind != kindObject {
		b.err = fmt.Errorf("the request type %s of an action must be a struct", b.req.typ)
	}
	return b
}

func (a Action) method() string {
	if a.Method == "" {
		return http.MethodPost
	}
	return a.Method
}

// right is the permission that calling the action on a type (or a namespace) needs.
func (a Action) right(on string) string {
	if a.Right != "" {
		return a.Right
	}
	if a.method() == http.MethodGet {
		return on + "/" + a.Name + "/read"
	}
	return on + "/" + a.Name + "/action"
}

// act serves an action: on a resource (r is its type) or on a namespace (r is nil).
func (rq *request) act(a Action, r *resource, p *provider, id name.ResourceID) error {
	shape, err := rq.version(p, ranges(nil), a.Name)
	if err != nil {
		return err
	}
	if rs, err := parseRanges(a.API); err != nil || !rs.hold(shape) {
		return rq.unservedVersion(p, rs, a.Name)
	}
	on := p.name
	if r != nil {
		if !r.api.hold(shape) {
			return rq.unservedVersion(p, r.api, r.path())
		}
		on = r.right
	}
	rq.action = a.right(on)
	tree, err := rq.bodyTree(a.body.req.fields != nil && a.method() != http.MethodGet)
	if err != nil {
		return err
	}
	var answer reply
	write := !a.Reads && a.method() != http.MethodGet
	err = rq.inTx(write, func(tx *Tx) error {
		answer = reply{}
		if err := tx.Must(rq.action, id); err != nil {
			return err
		}
		at := id
		if r != nil {
			found, err := rq.existing(tx, r, id, write)
			if err != nil {
				return err
			}
			at = found.id
			rq.target = at
		}
		answer, err = rq.runAction(tx, a, on, at, tree, shape, write)
		return err
	})
	if err != nil {
		return err
	}
	return rq.send(answer)
}

func (rq *request) runAction(tx *Tx, a Action, on string, id name.ResourceID, tree map[string]any, shape shape, write bool) (reply, error) {
	rq.provider = true
	body := reflect.New(a.body.req.typ)
	d := &decoder{shape: shape, action: true, sent: map[string]bool{}}
	if err := a.body.req.setDefaults(body.Elem()); err != nil {
		return reply{}, err
	}
	d.replace(a.body.req, tree, body.Elem(), reflect.Value{}, "", false)
	if err := fault.Join(d.faults); err != nil {
		return reply{}, err
	}
	req := tx.req
	req.sent, req.Sub = d.sent, rq.subName
	resp, spec, err := a.body.run(tx, id, body, req)
	if err != nil {
		return reply{}, err
	}
	answer := reply{status: http.StatusOK}
	if a.body.long {
		answer, err = rq.beginOperation(tx, on, id, spec)
		if err != nil {
			return reply{}, err
		}
	} else if a.body.resp.kind != kindObject || len(a.body.resp.fields) > 0 {
		if answer.body, err = a.body.resp.encode(&encoder{shape: shape, secrets: secretsClear}, resp); err != nil {
			return reply{}, err
		}
	}
	if write {
		err = tx.e.recordAction(tx, a.right(on), id)
	}
	return answer, err
}

// beginOperation enqueues a long-running action's job and answers 202 with Location.
func (rq *request) beginOperation(tx *Tx, on string, id name.ResourceID, spec job.Spec) (reply, error) {
	segment := on[strings.LastIndexByte(on, '/')+1:]
	op, err := rq.enqueue(tx, segment+"-", id, spec)
	if err != nil {
		return reply{}, err
	}
	location := rq.operationURL(tx, id, "operationResults", op)
	return reply{status: http.StatusAccepted, header: map[string]string{"Location": location, "Retry-After": "1"}}, nil
}

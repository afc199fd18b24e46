// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// route serves a declared Route, if one fits the path; done says that one did.
func (rq *request) route(segments []string) (done bool, err error) {
	var methods []string
	for _, p := range rq.e.providers {
		for _, rt := range p.routes {
			values, scope, fits := match(rt.Path, segments)
			if !fits {
				continue
			}
			if rt.Method != rq.r.Method && (rt.Method != http.MethodGet || rq.r.Method != http.MethodHead) {
				methods = append(methods, rt.Method)
				continue
			}
			return true, rq.serveRoute(p, rt, values, scope)
		}
	}
	if len(methods) > 0 {
		return true, rq.notAllowed(methods...)
	}
	return false, nil
}

// match compares a path's segments with a route's; a leading {scope} takes every segment that the rest leaves.
func match(pattern string, segments []string) (values map[string]string, scope name.ResourceID, ok bool) {
	want := name.Segments(pattern)
	values = map[string]string{}
	if len(want) > 0 && want[0] == "{scope}" {
		want = want[1:]
		n := len(segments) - len(want)
		if n < 0 {
			return nil, scope, false
		}
		id, rest, err := name.Split(segments[:n])
		if err != nil || len(rest) > 0 {
			return nil, scope, false
		}
		scope, segments = id, segments[n:]
	}
	if len(want) != len(segments) {
		return nil, scope, false
	}
	for i, w := range want {
		if strings.HasPrefix(w, "{") {
			values[strings.Trim(w, "{}")] = segments[i]
		} else if !strings.EqualFold(w, segments[i]) {
			return nil, scope, false
		}
	}
	return values, scope, true
}

func (rq *request) serveRoute(p *provider, rt Route, values map[string]string, scope name.ResourceID) error {
	if _, err := rq.version(p, nil, p.name); err != nil {
		return err
	}
	data, err := rq.body()
	if err != nil {
		return err
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		data = nil
	} else if _, err := ParseJSON(data); err != nil {
		return err
	}
	call := &RouteCall{Values: values, Scope: scope, Body: data, Base: rq.base(), rq: rq}
	at := scope
	if scope.IsRoot() {
		at = name.Subscription(values["subscription"])
		if g := values["group"]; g != "" {
			at = name.Group(values["subscription"], g)
		}
	}
	rq.target, rq.action = at, rt.Right
	var answer Answer
	err = rq.inTx(rt.Writes, func(tx *Tx) error {
		call.Request = tx.req
		if rt.At != nil {
			at = rt.At(call)
		}
		if err := rq.subscription(tx, at); err != nil {
			return err
		}
		if rt.Right != "" {
			if err := tx.Must(rt.Right, at); err != nil {
				return err
			}
		}
		var err error
		answer, err = rt.Do(tx, call)
		return err
	})
	if err != nil {
		return err
	}
	rq.supported = nil
	out := reply{status: answer.Status, header: maps.Clone(answer.Header)}
	if out.status == 0 {
		out.status = http.StatusOK
	}
	if answer.Body != nil {
		if out.body, err = marshal(answer.Body); err != nil {
			return err
		}
	}
	return rq.send(out)
}

// Decode reads the body of a route's call into a struct by its JSON tags. Errors: InvalidRequestContent.
func (c *RouteCall) Decode(into any) error {
	if c.Body == nil {
		return invalidContent("", "the request has no content")
	}
	err := json.Unmarshal(c.Body, into)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return invalidContent(wrong.Field, "a value must not be %s", wrong.Value).Because(err)
	}
	if err != nil {
		return invalidContent("", "it does not fit").Because(err)
	}
	return nil
}

// Paging reads $top and $skipToken of a route's call.
func (c *RouteCall) Paging() (limit int, after string, err error) { return c.rq.paging() }

// NextLink is the URL of the page that follows the key after.
func (c *RouteCall) NextLink(after string) string { return c.rq.nextLink(after) }

// Param is a query parameter by its name in any case, "" when it is absent.
func (c *RouteCall) Param(key string) string { return c.rq.query[strings.ToLower(key)] }

// ResourceInfo is a stored resource as generic lists show it.
type ResourceInfo struct {
	ID       name.ResourceID
	Type     string // as declared
	Right    string // what permissions on it begin with
	State    string // provisioningState
	System   SystemData
	Document Item // newest shape, completed for an answer, secrets left out
}

// Find reads one resource for a generic answer. Errors: ResourceNotFound, ResourceGroupNotFound, InvalidResourceType.
func (tx *Tx) Find(id name.ResourceID) (ResourceInfo, error) {
	r, err := tx.rq.typeOf(id)
	if err != nil {
		return ResourceInfo{}, err
	}
	s, err := tx.rq.existing(tx, r, id, false)
	if err != nil {
		return ResourceInfo{}, err
	}
	return tx.info(s)
}

func (tx *Tx) info(s *stored) (ResourceInfo, error) {
	doc, err := tx.view(s)
	if err != nil {
		return ResourceInfo{}, err
	}
	data, err := s.typ.schema.encode(&encoder{shape: wholeShape}, doc)
	return ResourceInfo{ID: s.id, Type: s.typ.name, Right: s.typ.right, State: s.provisioningState(), System: s.system, Document: Item{ID: s.id, doc: data}}, err
}

// Tracked lists the tracked resources at or below a subscription or group, in order of their ids, from the key after on, at most
// limit. typ narrows it to one full type ("" is all).
func (tx *Tx) Tracked(scope name.ResourceID, typ, after string, limit int) ([]ResourceInfo, error) {
	where, args := scopeWhere(scope, 2)
	if typ != "" {
		where += " AND type = " + fmt.Sprintf("$%d", len(args)+2)
		args = append(args, strings.ToLower(typ))
	}
	var out []ResourceInfo
	for len(out) < limit {
		batch, err := tx.e.page(tx, where, after, limit+1, args...)
		if err != nil {
			return nil, err
		}
		for _, s := range batch {
			after = s.id.Key()
			if !s.typ.tracked() || len(out) == limit {
				continue
			}
			info, err := tx.info(s)
			if err != nil {
				return nil, err
			}
			out = append(out, info)
		}
		if len(batch) <= limit {
			break
		}
	}
	return out, nil
}

// SetTags replaces the tags of a resource, as its own PATCH would: its Admit and Apply run. A type without tags is refused.
func (tx *Tx) SetTags(id name.ResourceID, tags map[string]string) error {
	r, err := tx.rq.typeOf(id)
	if err != nil {
		return err
	}
	if r.schema.folded["tags"] == nil || r.rows != nil {
		return fault.New(fault.BadRequest, "Resources of type '%s' have no tags.", r.name)
	}
	given := map[string]any{}
	for k, v := range tags {
		given[k] = v
	}
	w := writing{tx: tx, r: r, id: id, shape: wholeShape, patch: true, tree: map[string]any{"tags": given}}
	if err := tx.rq.place(&w); err != nil {
		return err
	}
	return w.perform()
}

// Operation answers a Route whose job was enqueued by the route: 202 with Location.
func (c *RouteCall) Operation(tx *Tx, subject name.ResourceID, op string) Answer {
	return Answer{Status: http.StatusAccepted, Header: map[string]string{
		"Location": c.rq.operationURL(tx, subject, "operationResults", op), "Retry-After": "1"}}
}

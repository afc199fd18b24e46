// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// get serves GET of one resource.
func (rq *request) get(r *resource, id name.ResourceID, shape shape) error {
	var answer reply
	rq.action = r.right + "/read"
	err := rq.inTx(false, func(tx *Tx) error {
		if err := tx.Must(rq.action, id); err != nil {
			return err
		}
		s, err := rq.existing(tx, r, id, false)
		if err != nil {
			return err
		}
		answer.status = http.StatusOK
		answer.body, err = rq.show(tx, s, shape)
		return err
	})
	if err != nil {
		return err
	}
	return rq.send(answer)
}

// head serves HEAD of one resource: 204 or 404. Source: ARM, "CheckExistence".
func (rq *request) head(r *resource, id name.ResourceID) error {
	rq.action = r.right + "/read"
	err := rq.inTx(false, func(tx *Tx) error {
		if err := tx.Must(rq.action, id); err != nil {
			return err
		}
		_, err := rq.existing(tx, r, id, false)
		return err
	})
	if err != nil {
		return err
	}
	return rq.send(reply{status: http.StatusNoContent})
}

// existing loads a resource and says in ARM's words when it, or what it stands in, is not there. locked takes its root first.
func (rq *request) existing(tx *Tx, r *resource, id name.ResourceID, locked bool) (*stored, error) {
	if locked {
		if err := tx.e.lock(tx, id); err != nil {
			return nil, err
		}
	}
	if _, err := rq.scopeOf(tx, id); err != nil {
		return nil, err
	}
	s, err := tx.e.load(tx, r, id)
	if errors.Is(err, errAbsent) {
		return nil, rq.missing(r, id)
	}
	return s, err
}

// missing is the 404 of a resource. A top-level one is told by ARM's front door, a child by its provider.
func (rq *request) missing(r *resource, id name.ResourceID) error {
	if r.notFound != nil {
		return r.notFound(id)
	}
	if len(r.segments) > 1 {
		rq.provider = true
		return fault.New(fault.ResourceNotFound, "The resource %s could not be found.", id.Name())
	}
	if !id.IsResource() {
		return fault.New(fault.ResourceGroupNotFound, "Resource group '%s' could not be found.", id.Name())
	}
	return fault.New(fault.ResourceNotFound,
		"The Resource '%s/%s' under resource group '%s' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
		r.name, id.Name(), id.ResourceGroup())
}

// subscription checks that the id's subscription exists.
func (rq *request) subscription(tx *Tx, id name.ResourceID) error {
	if id.Subscription() == "" {
		return nil
	}
	there, err := tx.e.subscriptionExists(tx, id.Subscription())
	if err != nil || there {
		return err
	}
	return fault.New(fault.SubscriptionNotFound, "The subscription '%s' could not be found.", clip(id.Subscription()))
}

// show writes a stored resource as an answer in the caller's shape.
func (rq *request) show(tx *Tx, s *stored, shape shape) ([]byte, error) {
	doc, err := tx.view(s)
	if err != nil {
		return nil, err
	}
	return s.typ.schema.encode(&encoder{shape: shape}, doc)
}

// view completes a copy of a stored document for an answer.
func (tx *Tx) view(s *stored) (reflect.Value, error) {
	doc := reflect.New(s.typ.doc)
	doc.Elem().Set(clone(s.doc.Elem()))
	s.typ.view(View{World: tx.world, ID: s.id, Request: tx.req, m: tx.m}, doc)
	if err := tx.world.src.err; err != nil {
		return doc, err
	}
	shown := *s
	shown.doc = doc
	shown.envelope()
	const path = "properties.provisioningState"
	if f := s.typ.schema.at(path); f != nil && f.readonly && f.schema.kind == kindString && !f.schema.ptr {
		if v := s.typ.schema.lookup(doc, path); v.IsValid() && (v.String() == "" || s.state != "") {
			v.SetString(s.provisioningState())
		}
	}
	return doc, nil
}

func (s *stored) provisioningState() string {
	if s.state == "" {
		return "Succeeded"
	}
	return s.state
}

// listAnswer is a page of a list.
type listAnswer struct {
	Value    []json.RawMessage `json:"value"`
	NextLink string            `json:"nextLink,omitempty"`
}

// list serves a collection.
func (rq *request) list(r *resource, at name.ResourceID, shape shape) error {
	limit, after, err := rq.paging()
	if err != nil {
		return err
	}
	rq.action = r.right + "/read"
	var answer listAnswer
	err = rq.inTx(false, func(tx *Tx) error {
		answer = listAnswer{Value: []json.RawMessage{}}
		if err := rq.listable(tx, r, at); err != nil {
			return err
		}
		page, next, err := rq.page(tx, r, at, after, limit)
		if err != nil {
			return err
		}
		for _, s := range page {
			data, err := rq.show(tx, s, shape)
			if err != nil {
				return err
			}
			answer.Value = append(answer.Value, data)
		}
		if next != "" {
			answer.NextLink = rq.nextLink(next)
		}
		return nil
	})
	if err != nil {
		return err
	}
	body, err := marshal(answer)
	if err != nil {
		return err
	}
	return rq.send(reply{status: http.StatusOK, body: body})
}

// listable checks that what the list is asked of exists.
func (rq *request) listable(tx *Tx, r *resource, at name.ResourceID) error {
	if _, err := rq.scopeOf(tx, at); err != nil {
		return err
	}
	owner := rq.e.types[strings.ToLower(at.Type())]
	if owner == nil {
		if at.IsResource() {
			return rq.unknownType(at.Namespace(), strings.Join(strings.Split(at.Type(), "/")[1:], "/"))
		}
		return nil
	}
	_, err := tx.e.load(tx, owner, at)
	if errors.Is(err, errAbsent) {
		if ok, canErr := tx.Can(r.right+"/read", at); canErr != nil || !ok {
			return errors.Join(canErr, tx.Must(r.right+"/read", at))
		}
		return rq.missing(owner, at)
	}
	return err
}

// page reads the next resources that the caller may see, and the key to go on from.
func (rq *request) page(tx *Tx, r *resource, at name.ResourceID, after string, limit int) ([]*stored, string, error) {
	all, err := tx.Can(r.right+"/read", at)
	if err != nil {
		return nil, "", err
	}
	var filter *Filter
	if r.rows == nil { // what has rows of its own reads its own filter
		if filter, err = ParseFilter(rq.query["$filter"]); err != nil {
			return nil, "", err
		}
	}
	next := rq.pager(tx, r, at)
	var out []*stored

	for {
		batch, err := next(after, limit+1)
		if err != nil {
			return nil, "", err
		}
		for _, s := range batch {
			if !filter.Match(s.id, s.text("location"), s.tags()) {
				after = s.id.Key()
				continue
			}

			if !all {
				if ok, err := tx.Can(r.right+"/read", s.id); err != nil {
					return nil, "", err
				} else if !ok {
					after = s.id.Key()
					continue
				}
			}
			if len(out) == limit {
				return out, after, nil
			}
			out = append(out, s)
			after = s.id.Key()
		}
		if len(batch) <= limit {
			break
		}
	}
	if !all && len(out) == 0 {
		return nil, "", tx.Must(r.right+"/read", at)
	}
	return out, "", nil
}

// pager reads batches of a collection in order of their keys.
func (rq *request) pager(tx *Tx, r *resource, at name.ResourceID) func(after string, limit int) ([]*stored, error) {
	if r.rows != nil {
		return rq.rowsPager(tx, r, r.rows, at)
	}
	where, args := "type = $2 AND parent_key = $3", []any{strings.ToLower(r.name), at.Key()}
	if !at.IsResource() && at.ResourceGroup() == "" && r.scope == InGroup && len(r.segments) == 1 {
		where, args = "type = $2 AND subscription = $3", []any{strings.ToLower(r.name), strings.ToLower(at.Subscription())}
	}
	own := func(after string, limit int) ([]*stored, error) { return tx.e.page(tx, where, after, limit, args...) }
	if r.beside == nil {
		return own
	}
	beside := rq.rowsPager(tx, r, r.beside, at)
	return func(after string, limit int) ([]*stored, error) {
		list, err := own(after, limit)
		more, besideErr := beside(after, limit)
		list = append(list, more...)
		sort.Slice(list, func(i, j int) bool { return list[i].id.Key() < list[j].id.Key() })
		return list[:min(limit, len(list))], errors.Join(err, besideErr)
	}
}

// rowsPager pages what another package lists at once.
func (rq *request) rowsPager(tx *Tx, r *resource, from *rows, at name.ResourceID) func(after string, limit int) ([]*stored, error) {
	return func(after string, limit int) ([]*stored, error) {
		list, err := from.list(tx, at, rq.query["$filter"])
		if err != nil {
			return nil, err
		}
		sort.Slice(list, func(i, j int) bool { return list[i].id.Key() < list[j].id.Key() })
		var out []*stored
		for _, f := range list {
			if f.id.Key() > after && len(out) < limit {
				out = append(out, &stored{id: f.id, typ: r, doc: f.doc})
			}
		}
		return out, nil
	}
}

// paging reads $top and $skipToken.
func (rq *request) paging() (limit int, after string, err error) {
	limit = rq.e.o.PageSize
	if top, ok := rq.query["$top"]; ok {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 {
			return 0, "", fault.New(fault.InvalidParameter, "The value '%s' of '$top' is not a positive integer.", clip(top)).At("$top")
		}
		limit = min(n, limit)
	}
	if token := rq.query["$skiptoken"]; token != "" {
		data, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return 0, "", fault.New(fault.InvalidParameter, "The value of '$skipToken' is not one that a nextLink gave.").At("$skipToken")
		}
		after = string(data)
	}
	return limit, after, nil
}

// nextLink is the request's own URL with the token of the next page.
func (rq *request) nextLink(after string) string {
	q := url.Values{}
	for k, v := range rq.r.URL.Query() {
		if !strings.EqualFold(k, "$skipToken") {
			q[k] = v
		}
	}
	q.Set("$skipToken", base64.RawURLEncoding.EncodeToString([]byte(after)))
	return rq.base() + rq.r.URL.EscapedPath() + "?" + q.Encode()
}

// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// remove serves DELETE.
func (rq *request) remove(r *resource, id name.ResourceID, shape shape) error {
	var answer reply
	rq.action = r.right + "/delete"
	err := rq.inTx(true, func(tx *Tx) error {
		rq.provider = false
		if err := tx.Must(rq.action, id); err != nil {
			return err
		}
		if err := tx.e.lock(tx, id); err != nil {
			return err
		}
		if _, err := rq.scopeOf(tx, id); err != nil {
			return err
		}
		w := &writing{tx: tx, r: r, id: id}
		err := tx.e.place(w)
		if fault.Is(err, fault.ParentResourceNotFound) || fault.Is(err, fault.ResourceNotFound) || err == nil && w.was == nil {
			if r.answers.Absent == http.StatusNotFound {
				return rq.missing(r, id)
			}
			answer = reply{status: http.StatusNoContent}
			return nil
		}
		if err == nil {
			err = rq.precondition(w)
		}
		if err != nil {
			return err
		}
		rq.provider = true
		answer, err = rq.removeStored(w, shape)
		return err
	})
	if err != nil {
		return err
	}
	return rq.send(answer)
}

func (rq *request) removeStored(w *writing, shape shape) (reply, error) {
	answer := reply{status: http.StatusOK}
	if w.r.answers.Deleted != 0 {
		answer.status = w.r.answers.Deleted
	}
	var err error
	if w.r.answers.DeletedBody {
		if answer.body, err = rq.show(w.tx, w.was, shape); err != nil {
			return reply{}, err
		}
	}
	if w.r.deleteJob == nil {
		return answer, w.deleteNow()
	}
	if w.was.state != stateDeleting {
		if err := w.admitDelete(); err != nil {
			return reply{}, err
		}
		if err := w.tx.SetState(w.id, stateDeleting); err != nil {
			return reply{}, err
		}
		if err := w.tx.e.recordChange(w.tx, w.r, w.id, w.was, w.was); err != nil {
			return reply{}, err
		}
	}
	op, err := rq.enqueue(w.tx, "delete-"+w.id.Name()+"-", w.id, w.r.deleteJob(w.change()))
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusAccepted, header: map[string]string{
		"Location": rq.operationURL(w.tx, w.id, "operationResults", op), "Retry-After": "1"}}, nil
}

func (w *writing) admitDelete() error {
	if err := w.tx.e.locks(w); err != nil {
		return err
	}
	return fault.Join(w.r.admit(w.tx.world, w.change()))
}

// deleteNow deletes a resource with all that lies below it.
func (w *writing) deleteNow() error {
	if err := w.admitDelete(); err != nil {
		return err
	}
	return w.tx.e.cascade(w.tx, w.was)
}

// cascade takes a resource and what lies below it out: the deepest first, each with its Apply, its row and its audit record.
func (e *Engine) cascade(tx *Tx, top *stored) error {
	all, err := e.below(tx, top.id, "")
	if err != nil {
		return err
	}
	sort.SliceStable(all, func(i, j int) bool { return strings.Count(all[i].id.Key(), "/") > strings.Count(all[j].id.Key(), "/") })
	for _, s := range append(all, top) {
		w := writing{tx: tx, r: s.typ, id: s.id, was: s}
		if err := s.typ.apply(tx, w.change()); err != nil {
			return fmt.Errorf("delete %s: %w", s.id, err)
		}
		if err := e.erase(tx, s); err != nil {
			return err
		}
		if err := e.recordChange(tx, s.typ, s.id, s, nil); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) deleteInside(tx *Tx, id name.ResourceID) error {
	w, err := e.toRemove(tx, id)
	if w == nil || err != nil {
		return err
	}
	return w.deleteNow()
}

func (e *Engine) removeInside(tx *Tx, id name.ResourceID) error {
	w, err := e.toRemove(tx, id)
	if w == nil || err != nil {
		return err
	}
	return e.cascade(tx, w.was)
}

// toRemove locks and loads what is to be deleted; nil when it is gone.
func (e *Engine) toRemove(tx *Tx, id name.ResourceID) (*writing, error) {
	r := e.types[strings.ToLower(id.Type())]
	if r == nil {
		return nil, fmt.Errorf("arm: type %s is not declared", id.Type())
	}
	if err := e.lock(tx, id); err != nil {
		return nil, err
	}
	was, err := e.load(tx, r, id)
	if errors.Is(err, errAbsent) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &writing{tx: tx, r: r, id: was.id, was: was}, nil
}

// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"errors"
	"strings"

	"github.com/embargo-registry/embargo/name"
)

// worldOf is the World of a transaction.
func (e *Engine) worldOf(tx *Tx) World {
	src := &source{now: tx.req.Now}
	src.get = func(id name.ResourceID) (Item, bool, error) {
		r := e.types[strings.ToLower(id.Type())]
		if r == nil {
			return Item{}, false, nil
		}
		s, err := e.load(tx, r, id)
		if errors.Is(err, errAbsent) {
			return Item{}, false, nil
		}
		if err != nil {
			return Item{}, false, err
		}
		it, err := s.item()
		return it, err == nil, err
	}
	src.within = func(scope name.ResourceID, typ string) ([]Item, error) {
		r := e.types[strings.ToLower(typ)]
		if r == nil {
			return nil, nil
		}
		if r.rows != nil {
			list, err := r.rows.list(tx, scope, "")
			items := make([]Item, 0, len(list))
			for _, f := range list {
				it, itemErr := (&stored{id: f.id, typ: r, doc: f.doc}).item()
				err = errors.Join(err, itemErr)
				items = append(items, it)
			}
			return items, err
		}
		list, err := e.below(tx, scope, typ)
		items := make([]Item, 0, len(list))
		for _, s := range list {
			it, itemErr := s.item()
			err = errors.Join(err, itemErr)
			items = append(items, it)
		}
		return items, err
	}
	return World{src}
}

// item is the document as hooks read it: newest shape, secrets in the clear.
func (s *stored) item() (Item, error) {
	s.envelope()
	doc, err := s.typ.schema.encode(&encoder{shape: wholeShape, every: true, secrets: secretsClear}, s.doc)
	return Item{ID: s.id, doc: doc}, err
}

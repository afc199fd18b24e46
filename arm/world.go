// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/name"
)

// World is the state that a hook may look at: the documents as they stand in the change's own transaction, after its root has
// been locked. Documents are read into any struct with fitting JSON tags, so that a type need not know another type's Go type.
// A World whose storage fails answers "absent"; the engine then drops the hook's verdict and answers with the failure.
type World struct{ src *source }

type source struct {
	now    time.Time
	get    func(id name.ResourceID) (Item, bool, error)
	within func(scope name.ResourceID, typ string) ([]Item, error)
	err    error
}

// Item is one document with its id.
type Item struct {
	ID  name.ResourceID
	doc []byte
}

// Decode reads the document into a struct by its JSON tags; members the struct lacks are passed over. Secrets are in the clear.
func (i Item) Decode(into any) error {
	if err := json.Unmarshal(i.doc, into); err != nil {
		return fmt.Errorf("document of %s: %w", i.ID, err)
	}
	return nil
}

// Document makes an Item of any value that marshals to the document's JSON, for tests.
func Document(id name.ResourceID, doc any) Item {
	data, err := json.Marshal(doc)
	if err != nil {
		return Item{ID: id}
	}
	return Item{ID: id, doc: data}
}

// NewWorld makes a World of data, for tests of Admit hooks.
func NewWorld(now time.Time, items ...Item) World {
	src := &source{now: now}
	src.get = func(id name.ResourceID) (Item, bool, error) {
		for _, it := range items {
			if it.ID.Equal(id) {
				return it, true, nil
			}
		}
		return Item{}, false, nil
	}
	src.within = func(scope name.ResourceID, typ string) ([]Item, error) {
		var found []Item
		for _, it := range items {
			if strings.EqualFold(it.ID.Type(), typ) && it.ID.Within(scope) && !it.ID.Equal(scope) {
				found = append(found, it)
			}
		}
		sort.Slice(found, func(i, j int) bool { return found[i].ID.Key() < found[j].ID.Key() })
		return found, nil
	}
	return World{src}
}

// Now is the transaction's instant.
func (w World) Now() time.Time { return w.src.now }

// Get reads the document of id into a struct and reports whether it is there; a nil into only asks.
func (w World) Get(id name.ResourceID, into any) bool {
	it, ok, err := w.src.get(id)
	if err == nil && ok && into != nil {
		err = it.Decode(into)
	}
	if err != nil {
		w.src.err = err
		return false
	}
	return ok
}

// Children are the documents of a type whose parent is parent, in order of their ids.
func (w World) Children(parent name.ResourceID, typ string) []Item {
	all := w.Below(parent, typ)
	kept := all[:0]
	for _, it := range all {
		if it.ID.Parent().Equal(parent) {
			kept = append(kept, it)
		}
	}
	return kept
}

// Below are the documents of a type at any depth below scope (a resource, a group, a subscription or the tenant), in order of their ids.
func (w World) Below(scope name.ResourceID, typ string) []Item {
	items, err := w.src.within(scope, typ)
	if err != nil {
		w.src.err = err
		return nil
	}
	return items
}

// Children reads the children of a type into structs.
func Children[D any](w World, parent name.ResourceID, typ string) []D {
	var out []D
	for _, it := range w.Children(parent, typ) {
		var d D
		if err := it.Decode(&d); err != nil {
			w.src.err = err
			return nil
		}
		out = append(out, d)
	}
	return out
}

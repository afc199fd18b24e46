// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// groupType is the one type whose paths have no provider segment.
const groupType = "Microsoft.Resources/resourceGroups"

// dispatch serves the paths of the resource scheme: a resource, a collection, an action, an operation.
func (rq *request) dispatch(segments []string) error {
	id, rest, err := name.Split(segments)
	if err != nil {
		return err
	}
	rq.target = id
	switch {
	case len(rest) == 0 && (id.IsResource() || id.ResourceGroup() != ""):
		return rq.resource(id)
	case len(rest) == 1 && (id.IsResource() || id.ResourceGroup() != ""):
		return rq.under(id, rest[0])
	case len(rest) == 1 && strings.EqualFold(rest[0], "resourceGroups") && id.Subscription() != "" && id.ResourceGroup() == "":
		return rq.collection(groupType, id)
	case len(rest) == 2 && strings.EqualFold(rest[0], "operationResults") && id.Subscription() != "":
		return rq.operationResult(id, rest[1])
	case len(rest) == 3 && strings.EqualFold(rest[0], "providers"):
		return rq.inNamespace(id, rest[1], rest[2])
	}
	return rq.noPath()
}

func (rq *request) noPath() error {
	if rq.query["api-version"] == "" {
		return fault.New(fault.MissingAPIVersion, "The api-version query parameter (?api-version=) is required for all requests.")
	}
	return fault.New(fault.NotFound, "No route serves %s '%s'.", rq.r.Method, clip(rq.r.URL.Path))
}

// typeOf finds the declared type of an id, or says what is wrong with it in ARM's words.
func (rq *request) typeOf(id name.ResourceID) (*resource, error) {
	if r := rq.e.types[strings.ToLower(id.Type())]; r != nil {
		return r, rq.placed(r, id)
	}
	namespace, path, _ := strings.Cut(id.Type(), "/")
	return nil, rq.unknownType(namespace, path)
}

func (rq *request) unknownType(namespace, path string) error {
	p := rq.e.provider(namespace)
	if p == nil {
		return fault.New(fault.InvalidResourceNamespace, "The resource namespace '%s' is invalid.", clip(namespace))
	}
	return fault.New(fault.InvalidResourceType,
		"The resource type '%s' could not be found in the namespace '%s' for api version '%s'. The supported api-versions are '%s'.",
		clip(path), p.name, clip(rq.query["api-version"]), strings.Join(p.served.within(nil), ","))
}

// placed checks that a type stands where its declaration puts it.
func (rq *request) placed(r *resource, id name.ResourceID) error {
	scope := id.Scope()
	if !id.IsResource() {
		return nil
	}
	ok := true
	switch r.scope {
	case InGroup:
		ok = !scope.IsResource() && scope.ResourceGroup() != ""
	case InSubscription:
		ok = !scope.IsResource() && scope.ResourceGroup() == "" && scope.Subscription() != ""
	case InTenant:
		ok = scope.IsRoot()
	case OnAnything:
		ok = r.on == "" || strings.EqualFold(scope.Type(), r.on)
	}
	if ok {
		return nil
	}
	return fault.New(fault.InvalidResourceType, "The resource type '%s' of the namespace '%s' cannot stand at the scope '%s'.", r.path(), r.namespace, scope)
}

// resource serves the path of one resource.
func (rq *request) resource(id name.ResourceID) error {
	if done, err := rq.operation(id); done {
		return err
	}
	r, err := rq.typeOf(id)
	if err != nil {
		if done, actErr := rq.namedAction(id); done {
			return actErr
		}
		return err
	}
	shape, err := rq.version(r.provider, r.api, r.path())
	if err != nil {
		return err
	}
	switch m := rq.r.Method; {
	case m == http.MethodGet:
		return rq.get(r, id, shape)
	case m == http.MethodHead:
		return rq.head(r, id)
	case m == http.MethodPut && r.can(Put):
		return rq.write(r, id, shape, false)
	case m == http.MethodPatch && r.can(Patch):
		return rq.write(r, id, shape, true)
	case m == http.MethodDelete && r.can(Delete):
		return rq.remove(r, id, shape)
	}
	allow := []string{"GET", "HEAD"}
	for _, v := range []struct {
		verb Verbs
		name string
	}{{Put, "PUT"}, {Patch, "PATCH"}, {Delete, "DELETE"}} {
		if r.can(v.verb) {
			allow = append(allow, v.name)
		}
	}
	return rq.notAllowed(allow...)
}

func (rq *request) notAllowed(allow ...string) error {
	rq.w.Header().Set("Allow", strings.Join(allow, ", "))
	return fault.New(fault.MethodNotAllowed, "The method %s is not supported here. Supported are: %s.", rq.r.Method, strings.Join(allow, ", "))
}

// under serves what follows a resource: an action or a collection of children.
func (rq *request) under(id name.ResourceID, word string) error {
	r, err := rq.typeOf(id)
	if err != nil {
		return err
	}
	var methods []string
	for _, a := range r.actions {
		if strings.EqualFold(a.Name, word) {
			if a.method() == rq.r.Method {
				return rq.act(a, r, r.provider, id)
			}
			methods = append(methods, a.method())
		}
	}
	if child := rq.e.types[strings.ToLower(r.name+"/"+word)]; child != nil {
		return rq.collection(child.name, id)
	}
	if len(methods) > 0 {
		return rq.notAllowed(methods...)
	}
	if rq.r.Method == http.MethodPost {
		return fault.New(fault.InvalidResourceType, "The action '%s' does not exist on the resource type '%s'.", clip(word), r.name)
	}
	return rq.unknownType(r.namespace, r.path()+"/"+word)
}

// namedAction serves a GET action with one more name: …/privateLinkResources/registry is the action privateLinkResources/{name}.
func (rq *request) namedAction(id name.ResourceID) (bool, error) {
	parent := id.Parent()
	if !parent.IsResource() || parent.Namespace() != id.Namespace() {
		return false, nil
	}
	r := rq.e.types[strings.ToLower(parent.Type())]
	if r == nil {
		return false, nil
	}
	word := id.Type()[strings.LastIndexByte(id.Type(), '/')+1:]
	for _, a := range r.actions {
		if base, ok := strings.CutSuffix(a.Name, "/{name}"); ok && strings.EqualFold(base, word) && a.method() == rq.r.Method {
			rq.subName = id.Name()
			return true, rq.act(a, r, r.provider, parent)
		}
	}
	return false, nil
}

// inNamespace serves …/providers/{namespace}/{word}: a collection, an action of the provider, or its operations.
func (rq *request) inNamespace(scope name.ResourceID, namespace, word string) error {
	p := rq.e.provider(namespace)
	if p == nil {
		return rq.unknownType(namespace, word)
	}
	if scope.IsRoot() && strings.EqualFold(word, "operations") {
		return rq.operations(p)
	}
	level := AtTenant
	switch {
	case scope.IsResource():
		level = AtResource
	case scope.ResourceGroup() != "":
		level = AtGroup
	case scope.Subscription() != "":
		level = AtSubscription
	}
	for _, a := range p.actions {
		if a.At == level && strings.EqualFold(a.Name, word) {
			if a.method() != rq.r.Method {
				return rq.notAllowed(a.method())
			}
			return rq.act(a, nil, p, scope)
		}
	}
	return rq.collection(p.name+"/"+word, scope)
}

// collection serves the list of a type at a scope or under a parent.
func (rq *request) collection(typ string, at name.ResourceID) error {
	r := rq.e.types[strings.ToLower(typ)]
	if r == nil {
		namespace, path, _ := strings.Cut(typ, "/")
		return rq.unknownType(namespace, path)
	}
	below := r.scope == InGroup && len(r.segments) == 1 && !at.IsResource() && at.ResourceGroup() == "" && at.Subscription() != ""
	if below && !r.can(ListBelow) || !below && !r.can(List) {
		return rq.notAllowed()
	}
	if !below && len(r.segments) == 1 {
		if err := rq.placed(r, at.In(r.namespace, r.segments[0], "x")); err != nil && r.name != groupType {
			return err
		}
	}
	if rq.r.Method != http.MethodGet {
		return rq.notAllowed("GET")
	}
	shape, err := rq.version(r.provider, r.api, r.path())
	if err != nil {
		return err
	}
	return rq.list(r, at, shape)
}

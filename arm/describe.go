// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"net/http"
	"strings"
)

// operationItem is an entry of /providers/{namespace}/operations.
type operationItem struct {
	Origin       string           `json:"origin"`
	Name         string           `json:"name"`
	IsDataAction bool             `json:"isDataAction"`
	Display      operationDisplay `json:"display"`
}

type operationDisplay struct {
	Provider    string `json:"provider"`
	Resource    string `json:"resource"`
	Operation   string `json:"operation"`
	Description string `json:"description"`
}

// operations serves the list of what can be permitted in a namespace, made from the declarations.
func (rq *request) operations(p *provider) error {
	if rq.r.Method != http.MethodGet {
		return rq.notAllowed("GET")
	}
	if _, err := rq.version(p, nil, "operations"); err != nil {
		return err
	}
	items := []operationItem{}
	add := func(action, resource, operation string) {
		items = append(items, operationItem{Origin: "User,System", Name: action,
			Display: operationDisplay{p.display, resource, operation, operation + "."}})
	}
	for _, r := range p.types {
		one := r.display
		if one == "" {
			one = r.path()
		}
		add(r.right+"/read", one, "Gets or lists: "+one)
		if r.can(Put | Patch) {
			add(r.right+"/write", one, "Creates or updates: "+one)
		}
		if r.can(Delete) {
			add(r.right+"/delete", one, "Deletes: "+one)
		}
		for _, a := range r.actions {
			add(a.right(r.right), one, a.text())
		}
	}
	for _, a := range p.actions {
		add(a.right(p.name), p.display, a.text())
	}
	body, err := marshal(map[string]any{"value": items})
	if err != nil {
		return err
	}
	return rq.send(reply{status: http.StatusOK, body: body})
}

func (a Action) text() string {
	if a.Display != "" {
		return a.Display
	}
	return a.Name
}

// TypeInfo describes a declared type to the packages that list providers.
type TypeInfo struct {
	Namespace    string
	Path         string // registries/exportPipelines
	APIVersions  []string
	Capabilities string
	Locations    []string // display names; none for types without a location
	Tracked      bool     // it has a location and is listed among a group's resources
}

// Namespaces are the names of the declared namespaces, in order of declaration.
func (e *Engine) Namespaces() []string {
	names := make([]string, len(e.providers))
	for i, p := range e.providers {
		names[i] = p.name
	}
	return names
}

// Types describes the declared types of a namespace, nil when it is not declared. The namespace is matched without regard to case
// and given back as declared.
func (e *Engine) Types(namespace string) (string, []TypeInfo) {
	p := e.provider(namespace)
	if p == nil {
		return "", nil
	}
	infos := []TypeInfo{}
	for _, r := range p.types {
		info := TypeInfo{Namespace: p.name, Path: r.path(), APIVersions: p.served.within(r.api), Capabilities: r.capabilities(), Locations: []string{}}
		if r.tracked() {
			info.Tracked = true
			for _, l := range e.o.Locations {
				info.Locations = append(info.Locations, l.Display)
			}
		}
		infos = append(infos, info)
	}
	return p.name, infos
}

// tracked reports whether a type is a tracked resource of ARM: it stands in a group and has a location of its own.
func (r *resource) tracked() bool {
	return r.scope == InGroup && r.schema.folded["location"] != nil && r.schema.folded["location"].required
}

func (r *resource) capabilities() string {
	if r.capability != "" {
		return r.capability
	}
	var words []string
	if r.schema.folded["tags"] != nil {
		words = append(words, "SupportsTags")
	}
	if r.tracked() {
		words = append(words, "SupportsLocation")
	}
	if r.scope == OnAnything {
		words = append(words, "SupportsExtension")
	}
	if len(words) == 0 {
		return "None"
	}
	return strings.Join(words, ", ")
}

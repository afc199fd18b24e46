// SPDX-License-Identifier: Apache-2.0

// Package name parses the identifiers of both planes, once: ARM resource ids, and the repositories, tags, digests and
// references of the OCI distribution protocol. A value of one of its types has been checked; nothing else need check again.
package name

import (
	"strings"

	"github.com/embargo-registry/embargo/fault"
)

// ResourceID names a thing of Azure Resource Manager: the tenant root ("/"), a subscription, a resource group, a resource, a
// child of a resource, or an extension resource on any of them. It is a value; the zero ResourceID is the tenant root.
//
// Ids compare without regard to case: compare Key, show String. Source: ARM resource-id syntax,
// /subscriptions/{s}/resourceGroups/{g}/providers/{ns}/{type}/{name}/…, repeated "/providers/…" for extensions.
type ResourceID struct {
	subscription string
	group        string
	parts        string // "providers/ns/type/name/type/name[/providers/…]" in the casing given; names hold no slash
}

// Segments splits a path at its slashes and drops the empty segments, so that "//" counts as "/".
func Segments(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// ParseResourceID reads an id. It is tolerant as ARM is: static segments in any case, doubled slashes. It fails with
// InvalidParameter when the text is no id of a whole resource (a type without a name, an unknown first segment).
func ParseResourceID(s string) (ResourceID, error) {
	id, rest, err := Split(Segments(s))
	if err != nil {
		return ResourceID{}, err
	}
	if len(rest) > 0 {
		return ResourceID{}, fault.New(fault.InvalidParameter,
			"%q is not a resource id: the segments %q name no whole resource.", clip(s), clip(strings.Join(rest, "/")))
	}
	return id, nil
}

// Split reads the longest resource id at the start of segments and returns what follows it: a collection ("registries"), an
// action ("registries/r/importImage" leaves "importImage"), or nothing. "providers/ns" without a type is left over whole.
func Split(segments []string) (ResourceID, []string, error) {
	var id ResourceID
	s := segments
	if len(s) >= 2 && strings.EqualFold(s[0], "subscriptions") {
		id.subscription = s[1]
		s = s[2:]
		if len(s) >= 2 && strings.EqualFold(s[0], "resourceGroups") {
			id.group = s[1]
			s = s[2:]
		}
	}
	for len(s) >= 4 && strings.EqualFold(s[0], "providers") {
		n := 4
		for n+1 < len(s) && !strings.EqualFold(s[n], "providers") {
			n += 2
		}
		if id.parts != "" {
			id.parts += "/"
		}
		id.parts += "providers/" + strings.Join(s[1:n], "/")
		s = s[n:]
	}
	for _, seg := range segments {
		if !cleanSegment(seg) {
			return ResourceID{}, nil, fault.New(fault.InvalidParameter,
				"The segment %q of the resource id holds characters that a name may not have.", clip(seg))
		}
	}
	return id, s, nil
}

// cleanSegment refuses control characters and the characters that would change an id's meaning in a URL.
func cleanSegment(s string) bool {
	for _, r := range s {
		switch r {
		case '%', '?', '#', '\\', '"', '<', '>', 0x7f, 0xFFFD:
			return false
		}
		if r < 0x20 {
			return false
		}
	}
	return s != "." && s != ".." && len(s) <= 260
}

func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}

// Subscription makes the id of a subscription.
func Subscription(id string) ResourceID { return ResourceID{subscription: id} }

// Group makes the id of a resource group.
func Group(subscription, group string) ResourceID {
	return ResourceID{subscription: subscription, group: group}
}

// In makes the id of a top-level resource in the scope id: In("Microsoft.ContainerRegistry", "registries", "r").
// On a resource it makes an extension resource.
func (id ResourceID) In(namespace, typ, name string) ResourceID {
	p := "providers/" + namespace + "/" + typ + "/" + name
	if id.parts != "" {
		p = id.parts + "/" + p
	}
	id.parts = p
	return id
}

// Child makes the id of a child resource: Child("exportPipelines", "p").
func (id ResourceID) Child(typ, name string) ResourceID {
	id.parts += "/" + typ + "/" + name
	return id
}

// String is the id with canonical static segments and the names as they were given. The tenant root is "/".
func (id ResourceID) String() string {
	var b strings.Builder
	if id.subscription != "" {
		b.WriteString("/subscriptions/" + id.subscription)
	}
	if id.group != "" {
		b.WriteString("/resourceGroups/" + id.group)
	}
	if id.parts != "" {
		b.WriteString("/" + id.parts)
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// Key is the id in lower case: two ids name the same thing exactly when their keys are equal.
func (id ResourceID) Key() string { return strings.ToLower(id.String()) }

// Equal reports whether two ids name the same thing.
func (id ResourceID) Equal(o ResourceID) bool { return id.Key() == o.Key() }

// IsRoot reports whether id is the tenant root.
func (id ResourceID) IsRoot() bool { return id == ResourceID{} }

// Subscription is the subscription's id, "" at the tenant.
func (id ResourceID) Subscription() string { return id.subscription }

// ResourceGroup is the group's name, "" outside a group.
func (id ResourceID) ResourceGroup() string { return id.group }

// IsResource reports whether id names a resource rather than the tenant, a subscription or a group.
func (id ResourceID) IsResource() bool { return id.parts != "" }

// last splits parts at the last "providers" segment: what stands before it, and that provider's own segments.
func (id ResourceID) last() (before string, own []string) {
	seg := strings.Split(id.parts, "/")
	for i := 0; i < len(seg); {
		n := i + 4
		for n+1 < len(seg) && seg[n] != "providers" {
			n += 2
		}
		if n >= len(seg) {
			return strings.Join(seg[:i], "/"), seg[i:]
		}
		i = n
	}
	return "", nil
}

// Namespace is the provider namespace, such as Microsoft.ContainerRegistry; "" when id is no resource.
func (id ResourceID) Namespace() string {
	if id.parts == "" {
		return ""
	}
	_, own := id.last()
	return own[1]
}

// Type is the full resource type, such as Microsoft.ContainerRegistry/registries/exportPipelines. Subscriptions, resource groups and
// the tenant root have ARM's own types.
func (id ResourceID) Type() string {
	switch {
	case id.parts != "":
		_, own := id.last()
		t := own[1]
		for i := 2; i < len(own); i += 2 {
			t += "/" + own[i]
		}
		return t
	case id.group != "":
		return "Microsoft.Resources/resourceGroups"
	case id.subscription != "":
		return "Microsoft.Resources/subscriptions"
	}
	return "Microsoft.Resources/tenants"
}

// Name is the last name of the id: the resource's own.
func (id ResourceID) Name() string {
	switch {
	case id.parts != "":
		return id.parts[strings.LastIndexByte(id.parts, '/')+1:]
	case id.group != "":
		return id.group
	}
	return id.subscription
}

// Parent is the id one step out: of a child its parent, of a top-level resource the scope it stands in (group, subscription,
// tenant, or for an extension the resource it extends), of a group its subscription. The root is its own parent.
func (id ResourceID) Parent() ResourceID {
	switch {
	case id.parts != "":
		before, own := id.last()
		if len(own) > 4 {
			id.parts = strings.TrimSuffix(id.parts, "/"+own[len(own)-2]+"/"+own[len(own)-1])
		} else {
			id.parts = before
		}
	case id.group != "":
		id.group = ""
	default:
		id.subscription = ""
	}
	return id
}

// Root is the outermost resource of the id: of a registry's child, and of an extension on the registry, the registry. Of what
// is no resource it is the id itself.
func (id ResourceID) Root() ResourceID {
	if id.parts == "" {
		return id
	}
	seg := strings.Split(id.parts, "/")
	id.parts = strings.Join(seg[:4], "/")
	return id
}

// Scope is what the id's own provider stands in: the group, subscription, tenant or, for an extension, the extended resource.
func (id ResourceID) Scope() ResourceID {
	if id.parts == "" {
		return id.Parent()
	}
	before, _ := id.last()
	id.parts = before
	return id
}

// Within reports whether id is scope or lies below it; every id lies within the tenant root.
func (id ResourceID) Within(scope ResourceID) bool {
	if scope.IsRoot() {
		return true
	}
	k, s := id.Key(), scope.Key()
	return k == s || strings.HasPrefix(k, s+"/")
}

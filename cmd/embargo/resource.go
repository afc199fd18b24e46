// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/armclient"
	"github.com/embargo-registry/embargo/cmd/embargo/internal/shape"
)

// groupsVersion is the api-version asked of what is not a resource of a provider: groups, providers and lists.
const groupsVersion = "2021-04-01"

// The api-versions asked of subscriptions and of registries.
const (
	subscriptionsVersion = "2022-12-01"
	registriesVersion    = "2023-07-01"
)

// target is which resources a command is about.
type target struct {
	group, name, typ, namespace, parent, version, subscription string
	ids                                                        []string
	preview                                                    bool
}

func (t *target) flags(f *pflag.FlagSet) {
	f.StringVarP(&t.group, "resource-group", "g", "", "Name of the resource group")
	f.StringVarP(&t.name, "name", "n", "", "Name of the resource")
	f.StringVar(&t.typ, "resource-type", "", "Type of the resource, e.g. Microsoft.ContainerRegistry/registries")
	f.StringVar(&t.namespace, "namespace", "", "Namespace of the provider, e.g. Microsoft.ContainerRegistry")
	f.StringVar(&t.parent, "parent", "", "Path of the parent, e.g. registries/myregistry")
	f.StringVar(&t.version, "api-version", "", "API version (default: the newest stable one the provider offers)")
	f.BoolVar(&t.preview, "latest-include-preview", false, "Use the newest API version, a preview one included")
	f.StringVar(&t.subscription, "subscription", "", "Subscription id (default: the login's)")
	f.Var((*words)(&t.ids), "ids", "One or more resource ids")
}

// words is a flag that takes several words.
type words []string

func (w *words) String() string     { return strings.Join(*w, " ") }
func (w *words) Type() string       { return "words" }
func (w *words) Set(s string) error { *w = append(*w, strings.Split(s, separator)...); return nil }

// edits collects --set, --add and --remove in the order they were given.
type edits struct {
	list *[]shape.Edit
	op   shape.Op
}

func (e edits) String() string { return "" }
func (e edits) Type() string   { return "words" }
func (e edits) Set(s string) error {
	*e.list = append(*e.list, shape.Edit{Op: e.op, Words: strings.Split(s, separator)})
	return nil
}

// check refuses a target that names no resource.
func (t *target) check() error {
	for _, id := range t.ids {
		if !strings.HasPrefix(id, "/") {
			return usage("argument --ids: %q is not a resource id", id)
		}
	}
	if len(t.ids) > 0 {
		return nil
	}
	namespace, typ := t.split()
	var missing []string
	if t.name == "" {
		missing = append(missing, "--name/-n")
	}
	if namespace == "" || typ == "" {
		missing = append(missing, "--resource-type (with its namespace, or with --namespace)")
	}
	if len(missing) > 0 {
		return usage("the following arguments are required: %s, or --ids", strings.Join(missing, ", "))
	}
	if strings.Count(typ, "/") != strings.Count(t.name, "/") {
		return usage("the type %q and the name %q have different numbers of segments", typ, t.name)
	}
	return nil
}

func (t *target) split() (namespace, typ string) {
	if t.namespace != "" {
		return t.namespace, strings.TrimPrefix(t.typ, t.namespace+"/")
	}
	namespace, typ, _ = strings.Cut(t.typ, "/")
	return namespace, typ
}

// paths are the resources' ids.
func (t *target) paths(client *armclient.Client) []string {
	if len(t.ids) > 0 {
		return t.ids
	}
	namespace, typ := t.split()
	types, names := strings.Split(typ, "/"), strings.Split(t.name, "/")
	path := scope(client, t.subscription, t.group) + "/providers/" + url.PathEscape(namespace)
	for part := range strings.SplitSeq(t.parent, "/") {
		if part != "" {
			path += "/" + url.PathEscape(part)
		}
	}
	for i := range types {
		path += "/" + url.PathEscape(types[i]) + "/" + url.PathEscape(names[i])
	}
	return []string{path}
}

func scope(client *armclient.Client, subscription, group string) string {
	if subscription == "" {
		subscription = client.Subscription()
	}
	path := "/subscriptions/" + url.PathEscape(subscription)
	if group != "" {
		path += "/resourceGroups/" + url.PathEscape(group)
	}
	return path
}

// apiVersion is the one given, else the provider's newest stable one for the type.
func (t *target) apiVersion(ctx context.Context, client *armclient.Client, path string) (string, error) {
	if t.version != "" {
		return t.version, nil
	}
	i := strings.LastIndex(strings.ToLower(path), "/providers/")
	if i < 0 {
		return groupsVersion, nil
	}
	parts := strings.Split(strings.Trim(path[i+len("/providers/"):], "/"), "/")
	var types []string
	for j := 1; j < len(parts); j += 2 {
		types = append(types, parts[j])
	}
	provider, err := client.Get(ctx, scope(client, t.subscription, "")+"/providers/"+parts[0], groupsVersion)
	if err != nil {
		return "", err
	}
	list, _ := provider["resourceTypes"].([]any)
	for _, e := range list {
		m, _ := e.(map[string]any)
		name, _ := m["resourceType"].(string)
		if !strings.EqualFold(name, strings.Join(types, "/")) {
			continue
		}
		versions, _ := m["apiVersions"].([]any)
		newest := ""
		for _, v := range versions {
			text, _ := v.(string)
			if newest == "" {
				newest = text
			}
			if t.preview || !strings.Contains(strings.ToLower(text), "preview") {
				return text, nil
			}
		}
		if newest != "" {
			return newest, nil
		}
	}
	return "", fmt.Errorf("the provider %s offers no API version for %s: give --api-version", parts[0], strings.Join(types, "/"))
}

func open(ctx context.Context) (*armclient.Client, error) {
	dir, err := armclient.Dir()
	if err != nil {
		return nil, err
	}
	s, err := armclient.Load(ctx, dir)
	if err != nil {
		return nil, err
	}
	return armclient.New(s)
}

// each does something with every resource of the target and prints what comes of it: a list when there are several.
func each(cmd *cobra.Command, t *target, p printed, do func(ctx context.Context, c *armclient.Client, path, version string) (any, error)) error {
	if err := p.check(); err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return err
	}
	ctx := cmd.Context()
	client, err := open(ctx)
	if err != nil {
		return err
	}
	var results []any
	for _, path := range t.paths(client) {
		version, err := t.apiVersion(ctx, client, path)
		if err != nil {
			return err
		}
		v, err := do(ctx, client, path, version)
		if err != nil {
			return err
		}
		if v != nil {
			results = append(results, v)
		}
	}
	switch len(results) {
	case 0:
		return nil
	case 1:
		return p.write(cmd, results[0])
	}
	return p.write(cmd, results)
}

func resourceCommand() *cobra.Command {
	return group("resource", "Show, list, create, update and delete resources, with the flags of 'az resource'",
		showCommand(), listCommand(), createCommand(), updateCommand(), deleteCommand())
}

func showCommand() *cobra.Command {
	var t target
	var p printed
	c := &cobra.Command{Use: "show", Short: "Show a resource", Args: noArgs}
	t.flags(c.Flags())
	p.flags(c.Flags(), "json")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return each(cmd, &t, p, func(ctx context.Context, client *armclient.Client, path, version string) (any, error) {
			doc, err := client.Get(ctx, path, version)
			if err != nil {
				return nil, err
			}
			return shape.Resource(doc), nil
		})
	}
	return c
}

func listCommand() *cobra.Command {
	var p printed
	var resourceGroup, typ, name, namespace, location, tag, subscription string
	c := &cobra.Command{Use: "list", Short: "List resources", Args: noArgs}
	f := c.Flags()
	f.StringVarP(&resourceGroup, "resource-group", "g", "", "Only those of this resource group")
	f.StringVar(&typ, "resource-type", "", "Only those of this type")
	f.StringVar(&namespace, "namespace", "", "Namespace of the type")
	f.StringVarP(&name, "name", "n", "", "Only those of this name")
	f.StringVarP(&location, "location", "l", "", "Only those in this location")
	f.StringVar(&tag, "tag", "", "Only those with this tag: name or name=value")
	f.StringVar(&subscription, "subscription", "", "Subscription id (default: the login's)")
	p.flags(f, "json")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.check(); err != nil {
			return err
		}
		if namespace != "" && typ != "" {
			typ = namespace + "/" + typ
		}
		var filters []string
		also := func(name, value string) {
			if value != "" {
				filters = append(filters, name+" eq '"+strings.ReplaceAll(value, "'", "''")+"'")
			}
		}
		if tag != "" && (typ != "" || name != "" || location != "") {
			return usage("--tag cannot be used with --resource-type, --name or --location")
		}
		tagName, tagValue, hasValue := strings.Cut(tag, "=")
		also("tagname", tagName)
		if hasValue {
			also("tagvalue", tagValue)
		}
		also("location", location)
		also("resourceType", typ)
		also("name", name)
		client, err := open(cmd.Context())
		if err != nil {
			return err
		}
		path := scope(client, subscription, resourceGroup) + "/resources?$expand=" + url.QueryEscape("createdTime,changedTime,provisioningState")
		if len(filters) > 0 {
			path += "&$filter=" + url.QueryEscape(strings.Join(filters, " and "))
		}
		list, err := client.List(cmd.Context(), path, groupsVersion)
		if err != nil {
			return err
		}
		for i, e := range list {
			if m, ok := e.(map[string]any); ok {
				list[i] = shape.Listed(m)
			}
		}
		return p.write(cmd, list)
	}
	return c
}

func createCommand() *cobra.Command {
	var t target
	var p printed
	var properties, location string
	var whole, noWait bool
	c := &cobra.Command{Use: "create", Short: "Create a resource", Args: noArgs}
	f := c.Flags()
	t.flags(f)
	p.flags(f, "json")
	f.StringVarP(&properties, "properties", "p", "", "JSON text of the properties, or @FILE (required)")
	f.StringVarP(&location, "location", "l", "", "Location (default: the resource group's)")
	f.BoolVar(&whole, "is-full-object", false, "The JSON text is the whole resource: location, sku, tags, properties …")
	f.BoolVar(&noWait, "no-wait", false, "Do not wait for the operation to end")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if properties == "" {
			return usage("the following arguments are required: --properties/-p")
		}
		if err := t.check(); err != nil {
			return err
		}
		given, err := object(properties)
		if err != nil {
			return err
		}
		return each(cmd, &t, p, func(ctx context.Context, client *armclient.Client, path, version string) (any, error) {
			body := given
			if !whole {
				body = map[string]any{"properties": given}
			}
			if location != "" {
				body["location"] = location
			}
			if _, ok := body["location"]; !ok {
				if at, err := groupLocation(ctx, client, path); err != nil {
					return nil, err
				} else if at != "" {
					body["location"] = at
				}
			}
			doc, err := client.Put(ctx, path, version, body, noWait)
			if err != nil || doc == nil {
				return nil, err
			}
			return shape.Resource(doc), nil
		})
	}
	return c
}

// groupLocation is where the resource group of path is; "" when path is not within one.
func groupLocation(ctx context.Context, client *armclient.Client, path string) (string, error) {
	parts := strings.Split(path, "/")
	i := slices.IndexFunc(parts, func(s string) bool { return strings.EqualFold(s, "resourceGroups") })
	if i < 0 || i+1 >= len(parts) {
		return "", nil
	}
	doc, err := client.Get(ctx, strings.Join(parts[:i+2], "/"), groupsVersion)
	if err != nil {
		return "", err
	}
	at, _ := doc["location"].(string)
	return at, nil
}

// object reads a JSON object from an argument or, with @, from a file.
func object(argument string) (map[string]any, error) {
	source := []byte(argument)
	if path, ok := strings.CutPrefix(argument, "@"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		source = b
	}
	v, err := shape.Decode(source)
	if err != nil {
		return nil, usage("argument --properties/-p: not JSON: %v", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, usage("argument --properties/-p: not a JSON object")
	}
	return m, nil
}

func updateCommand() *cobra.Command {
	var t target
	var p printed
	var changes []shape.Edit
	var asText, noWait bool
	c := &cobra.Command{Use: "update", Short: "Update a resource: read it, change it, write it back whole", Args: noArgs}
	f := c.Flags()
	t.flags(f)
	p.flags(f, "json")
	f.Var(edits{&changes, shape.Set}, "set", "Set a member: property1.property2=<value>")
	f.Var(edits{&changes, shape.Add}, "add", "Add to a list: property.listProperty <key=value, string or JSON string>")
	f.Var(edits{&changes, shape.Remove}, "remove", "Remove a member or a list's element: property.list <index> OR property")
	f.BoolVar(&asText, "force-string", false, "Keep the values of --set and --add as text")
	f.BoolVar(&noWait, "no-wait", false, "Do not wait for the operation to end")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return each(cmd, &t, p, func(ctx context.Context, client *armclient.Client, path, version string) (any, error) {
			doc, err := client.Get(ctx, path, version)
			if err != nil {
				return nil, err
			}
			doc = shape.Resource(doc)
			if err := shape.Apply(doc, changes, asText); err != nil {
				return nil, err
			}
			doc, err = client.Put(ctx, path, version, shape.Body(doc), noWait)
			if err != nil || doc == nil {
				return nil, err
			}
			return shape.Resource(doc), nil
		})
	}
	return c
}

func deleteCommand() *cobra.Command {
	var t target
	var p printed
	var noWait bool
	c := &cobra.Command{Use: "delete", Short: "Delete a resource", Args: noArgs}
	t.flags(c.Flags())
	p.flags(c.Flags(), "json")
	c.Flags().BoolVar(&noWait, "no-wait", false, "Do not wait for the operation to end")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return each(cmd, &t, p, func(ctx context.Context, client *armclient.Client, path, version string) (any, error) {
			return nil, client.Delete(ctx, path, version, noWait)
		})
	}
	return c
}

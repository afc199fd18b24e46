// SPDX-License-Identifier: Apache-2.0

package authorization_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/providers/authorization"
	"github.com/embargo-registry/embargo/providers/resources"
)

func declare(s *identity.Service) []arm.Namespace {
	return []arm.Namespace{resources.Namespace(resources.Options{Identity: s}), authorization.Namespace(authorization.Options{Identity: s})}
}

// Whole exchanges, as text: testdata holds what each request answers.
func TestWire(t *testing.T) { armtest.Scripts(t, "testdata/*.txtar", declare) }

const (
	version = "?api-version=2022-04-01"
	group   = "/subscriptions/{sub}/resourceGroups/g"
	grants  = "/providers/Microsoft.Authorization/roleAssignments/"
	roles   = "/providers/Microsoft.Authorization/roleDefinitions/"
)

func bench(t *testing.T, db *meta.DB) *armtest.Bench {
	t.Helper()
	b := armtest.New(t, db, declare)
	b.Must(t, 201, "PUT", group+"?api-version=2021-04-01", `{"location":"westus"}`)
	return b
}

func id(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }

func body(principal, role string) string {
	return fmt.Sprintf(`{"properties":{"roleDefinitionId":%q,"principalId":%q}}`, roles+role, principal)
}

// status makes an exchange as somebody and expects the status; 0 is any.
func status(t *testing.T, b *armtest.Bench, who string, want int, method, path, body string) {
	t.Helper()
	r := b.Call(who, method, path, body)
	if r.StatusCode != want {
		t.Errorf("%s as %s %s: %d, want %d", method, who, path, r.StatusCode, want)
	}
}

// A right that is given through the resource manager counts at once, where it was given and below, and ends with its deletion.
func TestAssignmentsCount(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := bench(t, open())
		stranger := b.People.IDs["stranger"]
		status(t, b, "stranger", 403, "GET", group+"?api-version=2021-04-01", "")
		at := group + grants + id(1) + version
		b.Must(t, 201, "PUT", at, body(stranger, identity.RoleReader))
		b.Must(t, 201, "PUT", at, body(stranger, identity.RoleReader)) // again: 201 as well, never 200
		status(t, b, "stranger", 200, "GET", group+"?api-version=2021-04-01", "")
		status(t, b, "stranger", 403, "PUT", group+"?api-version=2021-04-01", `{"location":"westus"}`)
		b.Must(t, 200, "DELETE", at, "")
		status(t, b, "owner", 204, "DELETE", at, "")
		status(t, b, "stranger", 403, "GET", group+"?api-version=2021-04-01", "")
	})
}

// Giving a role needs roleAssignments/write where it is given; a Contributor has none, and nobody reaches another scope's assignment by its name.
func TestWhoMayAssign(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := bench(t, open())
		stranger, reader := b.People.IDs["stranger"], b.People.IDs["reader"]
		other := strings.Replace(group, "/g", "/other", 1)
		b.Must(t, 201, "PUT", other+"?api-version=2021-04-01", `{"location":"westus"}`)
		b.Must(t, 201, "PUT", other+grants+id(1)+version, body(reader, identity.RoleOwner))
		status(t, b, "stranger", 403, "PUT", group+grants+id(2)+version, body(stranger, identity.RoleOwner))
		b.Must(t, 201, "PUT", group+grants+id(2)+version, body(stranger, identity.RoleContributor))
		status(t, b, "stranger", 403, "PUT", group+grants+id(3)+version, body(stranger, identity.RoleOwner))
		b.Must(t, 201, "PUT", group+grants+id(4)+version, body(stranger, identity.RoleUserAccessAdministrator))
		status(t, b, "stranger", 201, "PUT", group+grants+id(3)+version, body(reader, identity.RoleAcrPull))
		status(t, b, "stranger", 403, "PUT", other+grants+id(5)+version, body(stranger, identity.RoleReader))
		status(t, b, "stranger", 403, "PUT", grants+id(5)+version, body(stranger, identity.RoleReader))
		// The name of an assignment elsewhere, asked for here.
		status(t, b, "stranger", 404, "GET", group+grants+id(1)+version, "")
		status(t, b, "stranger", 204, "DELETE", group+grants+id(1)+version, "")
		status(t, b, "stranger", 400, "PUT", group+grants+id(1)+version, body(reader, identity.RoleOwner))
		b.Must(t, 200, "GET", other+grants+id(1)+version, "")
	})
}

// The last Owner of everything stays, and the refusal says what to do.
func TestLastOwner(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := bench(t, open())
		list := b.Must(t, 200, "GET", grants[:len(grants)-1]+version+"&$filter=atScope()", "")
		var others, own []string
		for _, v := range list["value"].([]any) {
			a := v.(map[string]any)
			p := a["properties"].(map[string]any)
			switch {
			case p["scope"] != "/" || !strings.HasSuffix(p["roleDefinitionId"].(string), identity.RoleOwner):
			case p["principalId"] == b.People.IDs["owner"]:
				own = append(own, a["id"].(string))
			default:
				others = append(others, a["id"].(string))
			}
		}
		if len(others) == 0 || len(own) != 1 {
			t.Fatalf("Owners: %v, %v", others, own)
		}
		for _, id := range others {
			b.Must(t, 200, "DELETE", id+version, "")
		}
		b.Must(t, 409, "DELETE", own[0]+version, "")
	})
}

// What is listed: at a scope, above and below it, narrowed by the filters of az.
func TestListAssignments(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := bench(t, open())
		stranger := b.People.IDs["stranger"]
		b.Must(t, 201, "PUT", "/subscriptions/{sub}"+grants+id(1)+version, body(stranger, identity.RoleAcrPull))
		b.Must(t, 201, "PUT", group+grants+id(2)+version, body(stranger, identity.RoleAcrPush))
		names := func(scope, filter string) string {
			t.Helper()
			path := scope + grants[:len(grants)-1] + version
			if filter != "" {
				path += "&$filter=" + url.QueryEscape(filter)
			}
			var found []string
			for path != "" {
				page := b.Must(t, 200, "GET", path, "")
				for _, v := range page["value"].([]any) {
					if p := v.(map[string]any)["properties"].(map[string]any); p["principalId"] == stranger {
						found = append(found, strings.TrimLeft(v.(map[string]any)["name"].(string), "0-"))
					}
				}
				path, _ = page["nextLink"].(string)
			}
			slices.Sort(found)
			return strings.Join(found, " ")
		}
		for _, c := range []struct{ scope, filter, want string }{
			{"/subscriptions/{sub}", "", "1 2"},
			{"/subscriptions/{sub}", "atScope()", "1"},
			{group, "", "1 2"},
			{group, "atScope()", "1 2"},
			{"", "atScope()", ""},
			{"", "", "1 2"},
			{group, "principalId eq '" + stranger + "'", "1 2"},
			{group, "atScope() and assignedTo('" + strings.ToUpper(stranger) + "')", "1 2"},
			{group, "principalId eq '" + b.People.IDs["owner"] + "'", ""},
		} {
			if got := names(c.scope, c.filter); got != c.want {
				t.Errorf("%q with %q: %q, want %q", c.scope, c.filter, got, c.want)
			}
		}
		for _, filter := range []string{"roleName eq 'x'", "principalId eq x", "atScope() or principalId eq 'x'", "principalId eq 'a' and principalId eq 'b'", "atScope() and", "("} {
			status(t, b, "owner", 400, "GET", group+grants[:len(grants)-1]+version+"&$filter="+url.QueryEscape(filter), "")
		}
	})
}

// A custom role is written by whoever may write roles wherever it can be given, and its permissions count.
func TestCustomRoles(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := bench(t, open())
		sub := b.People.Subscription
		role := func(scopes ...string) string {
			return fmt.Sprintf(`{"properties":{"roleName":"Group Seer","description":"sees","assignableScopes":["%s"],"permissions":[{"actions":["Microsoft.Resources/subscriptions/resourceGroups/read"]}]}}`,
				strings.ReplaceAll(strings.Join(scopes, `","`), "{sub}", sub))
		}
		b.Must(t, 201, "PUT", group+grants+id(1)+version, body(b.People.IDs["stranger"], identity.RoleUserAccessAdministrator))
		at := group + roles + id(7) + version
		status(t, b, "reader", 403, "PUT", at, role(group))
		status(t, b, "stranger", 403, "PUT", at, role(group, "/subscriptions/{sub}"))
		status(t, b, "stranger", 201, "PUT", at, role(group))
		status(t, b, "stranger", 403, "PUT", at, role("/"))
		got := b.Must(t, 200, "GET", at, "")
		if want := "/subscriptions/" + sub + roles + id(7); got["id"] != want {
			t.Errorf("the role's id is %v, want %s", got["id"], want)
		}
		b.Must(t, 409, "PUT", group+roles+id(8)+version, strings.Replace(role(group), "Group Seer", "group seer", 1))
		b.Must(t, 201, "PUT", group+grants+id(9)+version, body(b.People.IDs["reader"], id(7)))
		b.Must(t, 409, "DELETE", at, "")
		b.Must(t, 400, "PUT", "/subscriptions/{sub}"+grants+id(10)+version, body(b.People.IDs["reader"], id(7)))
		b.Must(t, 200, "DELETE", group+grants+id(9)+version, "")
		status(t, b, "stranger", 200, "DELETE", at, "")
		status(t, b, "owner", 204, "DELETE", at, "")
		b.Must(t, 409, "PUT", group+roles+identity.RoleAcrPull+version, role(group))
		b.Must(t, 409, "DELETE", group+roles+identity.RoleAcrPull+version, "")
	})
}

// Every change of rights is on record with who made it, before and after.
func TestRecords(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := bench(t, open())
		at := group + grants + id(1)
		b.Must(t, 201, "PUT", at+version, body(b.People.IDs["stranger"], identity.RoleReader))
		b.Must(t, 200, "DELETE", at+version, "")
		all, err := b.Audit.Read(context.Background(), audit.Query{Kind: audit.Change, Resource: strings.ReplaceAll(at, "{sub}", b.People.Subscription)})
		if err != nil || len(all) != 2 {
			t.Fatalf("%+v, %v", all, err)
		}
		for i, want := range []string{"Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete"} {
			if all[i].Action != want || all[i].Caller.ID != b.People.IDs["owner"] {
				t.Errorf("%+v", all[i])
			}
		}
		if !strings.Contains(string(all[0].After), identity.RoleReader) || !strings.Contains(string(all[1].Before), identity.RoleReader) {
			t.Errorf("the records do not tell the role: %s, %s", all[0].After, all[1].Before)
		}
	})
}

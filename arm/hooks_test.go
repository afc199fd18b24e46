// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

type lamp struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		On                bool   `json:"on"`
		Partner           string `json:"partner"`
		ProvisioningState string `json:"provisioningState" arm:"readonly"`
	} `json:"properties"`
}

// lamps declares a type whose Apply is given by the test.
func lamps(apply func(tx *arm.Tx, c arm.Change[lamp]) error, work ...arm.Work) armtest.Declare {
	return func(*identity.Service) []arm.Namespace {
		return []arm.Namespace{groups(), {Name: "Fake.Lights", Versions: arm.Versions{Since: "2020-01-01"}, Types: []arm.Resource{
			&arm.Type[lamp]{Name: "Fake.Lights/lamps", Verbs: arm.AllVerbs, Apply: apply, Work: work}}}}
	}
}

const lampPath = "/subscriptions/{sub}/resourceGroups/g/providers/Fake.Lights/lamps/"

func withGroup(t *testing.T, b *armtest.Bench) *armtest.Bench {
	t.Helper()
	b.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", `{"location":"westus"}`)
	return b
}

// What AfterCommit registers sees the change committed, and the answer waits for it.
func TestAfterCommitRunsBetweenCommitAndAnswer(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		var committed bool
		b := withGroup(t, armtest.New(t, db, lamps(func(tx *arm.Tx, c arm.Change[lamp]) error {
			key := c.ID.Key()
			tx.AfterCommit(func(ctx context.Context) error {
				return db.Read(ctx, func(m *meta.Tx) error {
					var id string
					err := m.Row("SELECT id FROM resources WHERE key = $1", key).Scan(&id)
					committed = err == nil
					return err
				})
			})
			return nil
		})))
		b.Must(t, 201, "PUT", lampPath+"a?api-version=2020-01-01", `{}`)
		if !committed {
			t.Error("the answer came before the work after the commit had seen it")
		}
	})
}

// A failure after the commit is told, although the change stands; a failure in Apply leaves nothing behind.
func TestFailuresAroundTheCommit(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := withGroup(t, armtest.New(t, open(), lamps(func(tx *arm.Tx, c arm.Change[lamp]) error {
			switch c.ID.Name() {
			case "late":
				tx.AfterCommit(func(context.Context) error { return errors.New("the fence did not close") })
			case "never":
				if err := tx.Put(c.ID.Parent().In("Fake.Lights", "lamps", "side"), lamp{}); err != nil {
					return err
				}
				return fault.New(fault.Conflict, "No.")
			}
			return nil
		})))
		if v := b.Must(t, 500, "PUT", lampPath+"late?api-version=2020-01-01", `{}`); strings.Contains(strings.ToLower(textOf(v)), "fence") {
			t.Errorf("the cause left the process: %v", v)
		}
		b.Must(t, 200, "GET", lampPath+"late?api-version=2020-01-01", "")
		b.Must(t, 409, "PUT", lampPath+"never?api-version=2020-01-01", `{}`)
		b.Must(t, 404, "GET", lampPath+"never?api-version=2020-01-01", "")
		b.Must(t, 404, "GET", lampPath+"side?api-version=2020-01-01", "")
	})
}

func textOf(v map[string]any) string {
	e, _ := v["error"].(map[string]any)
	text, _ := e["message"].(string)
	return text
}

// Hooks write and delete other resources in the same transaction; a job ends a long-running PUT.
func TestHooksActThroughTheEngine(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		apply := func(tx *arm.Tx, c arm.Change[lamp]) error {
			switch {
			case c.Want == nil:
				if c.Was.Properties.Partner != "" {
					return tx.Delete(c.ID.Parent().In("Fake.Lights", "lamps", c.Was.Properties.Partner))
				}
			case c.Was == nil && c.Want.Properties.Partner != "":
				var partner lamp
				partner.Properties.On = true
				if err := tx.Put(c.ID.Parent().In("Fake.Lights", "lamps", c.Want.Properties.Partner), partner); err != nil {
					return err
				}
				tx.Operate(job.Spec{Kind: "test.light", Args: c.ID.String()})
				c.Want.Properties.ProvisioningState = "Creating"
			}
			return nil
		}
		light := arm.Work{Kind: "test.light", Do: func(ctx context.Context, e *arm.Engine, j *job.Job) (any, error) {
			var id string
			if err := j.Decode(&id); err != nil {
				return nil, err
			}
			lampID, err := name.ParseResourceID(id)
			if err != nil {
				return nil, err
			}
			return nil, e.Write(ctx, identity.Caller{ID: "job", Name: "job"}, j.Correlation, func(tx *arm.Tx) error {
				var d lamp
				tx.World().Get(lampID, &d)
				d.Properties.On, d.Properties.ProvisioningState = true, "Succeeded"
				return tx.Put(lampID, d)
			})
		}}
		b := withGroup(t, armtest.New(t, open(), lamps(apply, light)))
		r := b.Call("owner", "PUT", lampPath+"a?api-version=2020-01-01", `{"properties":{"partner":"b"}}`)
		status := r.Header.Get("Azure-AsyncOperation")
		if r.StatusCode != 201 || r.Header.Get("Retry-After") != "1" || !strings.Contains(status, "/lamps/a/operationStatuses/lamps-") {
			t.Fatalf("answer %d with %v", r.StatusCode, r.Header)
		}
		armtest.Until(t, func() bool { return b.Must(t, 200, "GET", status, "")["status"] == "Succeeded" })
		for _, n := range []string{"a", "b"} {
			v := b.Must(t, 200, "GET", lampPath+n+"?api-version=2020-01-01", "")
			p, _ := v["properties"].(map[string]any)
			if p["on"] != true || p["provisioningState"] != "Succeeded" {
				t.Errorf("lamp %s: %v", n, p)
			}
		}
		b.Must(t, 200, "DELETE", lampPath+"a?api-version=2020-01-01", "")
		b.Must(t, 404, "GET", lampPath+"b?api-version=2020-01-01", "")
	})
}

// A group that is being deleted takes nothing new, and what is in a state shows it.
func TestADeletingGroupTakesNothingNew(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := withGroup(t, armtest.New(t, open(), lamps(nil)))
		b.Must(t, 201, "PUT", lampPath+"a?api-version=2020-01-01", `{}`)
		err := b.Engine.Write(context.Background(), identity.Caller{ID: "x"}, "", func(tx *arm.Tx) error {
			return tx.SetState(name.Group(b.People.Subscription, "g"), "Deleting")
		})
		if err != nil {
			t.Fatal(err)
		}
		v := b.Must(t, 409, "PUT", lampPath+"b?api-version=2020-01-01", `{}`)
		if e, _ := v["error"].(map[string]any); e["code"] != "ResourceGroupBeingDeleted" {
			t.Errorf("%v", v)
		}
		b.Must(t, 200, "PUT", lampPath+"a?api-version=2020-01-01", `{}`)
		g := b.Must(t, 200, "GET", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", "")
		if p, _ := g["properties"].(map[string]any); p["provisioningState"] != "Deleting" {
			t.Errorf("%v", g)
		}
	})
}

// Mistakes in declarations are told when the engine is made.
func TestDeclarationsAreChecked(t *testing.T) {
	t.Parallel()
	type twice struct {
		A string `json:"a"`
		B string `json:"A"`
	}
	type untagged struct{ A string }
	type badDefault struct {
		A string `json:"a" enum:"x|y" default:"z"`
	}
	type badTag struct {
		A string `json:"a" arm:"readnoly"`
	}
	type badSecret struct {
		A int `json:"a" arm:"secret"`
	}
	type fine struct {
		A string `json:"a"`
	}
	versions := arm.Versions{Since: "2020-01-01"}
	for what, n := range map[string]arm.Namespace{
		"a member twice":      {Name: "A.B", Versions: versions, Types: []arm.Resource{&arm.Type[twice]{Name: "A.B/c"}}},
		"no tag":              {Name: "A.B", Versions: versions, Types: []arm.Resource{&arm.Type[untagged]{Name: "A.B/c"}}},
		"default not in enum": {Name: "A.B", Versions: versions, Types: []arm.Resource{&arm.Type[badDefault]{Name: "A.B/c"}}},
		"unknown flag":        {Name: "A.B", Versions: versions, Types: []arm.Resource{&arm.Type[badTag]{Name: "A.B/c"}}},
		"secret number":       {Name: "A.B", Versions: versions, Types: []arm.Resource{&arm.Type[badSecret]{Name: "A.B/c"}}},
		"other namespace":     {Name: "A.B", Versions: versions, Types: []arm.Resource{&arm.Type[fine]{Name: "A.C/c"}}},
		"no parent":           {Name: "A.B", Versions: versions, Types: []arm.Resource{&arm.Type[fine]{Name: "A.B/c/d"}}},
		"no versions":         {Name: "A.B", Types: []arm.Resource{&arm.Type[fine]{Name: "A.B/c"}}},
		"no body":             {Name: "A.B", Versions: versions, Actions: []arm.Action{{Name: "x", At: arm.AtTenant}}},
		"type twice":          {Name: "A.B", Versions: versions, Types: []arm.Resource{&arm.Type[fine]{Name: "A.B/c"}, &arm.Type[fine]{Name: "A.B/C"}}},
	} {
		if _, err := arm.New(arm.Options{Namespaces: []arm.Namespace{n}}); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// Every answer carries ARM's headers, errors included.
func TestHeaders(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := newBench(t, open())
		const correlation = "12345678-1234-1234-1234-1234567890ab"
		for _, who := range []string{"owner", ""} {
			h := b.Call(who, "GET", "/subscriptions/{sub}/resourceGroups/x?api-version=2021-04-01", "", "x-ms-correlation-request-id: "+correlation).Header
			for name, want := range map[string]string{
				"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "-1", "X-Content-Type-Options": "nosniff", "X-Ms-Correlation-Request-Id": correlation,
				"Strict-Transport-Security": "max-age=31536000; includeSubDomains", "Content-Type": "application/json; charset=utf-8",
				"X-Ms-Ratelimit-Remaining-Subscription-Reads": "11999",
			} {
				if got := h.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if id := h.Get("X-Ms-Request-Id"); len(id) != 36 || !strings.HasSuffix(h.Get("X-Ms-Routing-Request-Id"), ":"+id) {
				t.Errorf("request id %q, routing id %q", id, h.Get("X-Ms-Routing-Request-Id"))
			}
		}
		h := b.Call("owner", "GET", "/subscriptions?api-version=2021-04-01", "", "x-ms-correlation-request-id: <script>").Header
		if got := h.Get("X-Ms-Correlation-Request-Id"); got != h.Get("X-Ms-Request-Id") {
			t.Errorf("a correlation id that is none came back as %q", got)
		}
	})
}

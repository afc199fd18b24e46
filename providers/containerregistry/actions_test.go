// SPDX-License-Identifier: Apache-2.0

package containerregistry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/registry"
)

// TestCredentials: the admin user's two passwords are told while it is enabled, one at a time is made anew, and disabled there is none to tell.
func TestCredentials(t *testing.T) {
	t.Parallel()
	eachRooms(t, func(t *testing.T, r *rooms) {
		r.make(t, "RegistryOne", "Basic", "")
		for _, action := range []struct{ name, body string }{{"listCredentials", ""}, {"regenerateCredential", `{"name":"password"}`}} {
			a := r.Must(t, 400, "POST", path("registryone", old, "/"+action.name), action.body)
			if m, _ := at(a, "error.message").(string); !strings.Contains(m, "admin user of the registry 'registryone' is disabled") || !strings.Contains(m, "--admin-enabled true") {
				t.Errorf("%s: %q", action.name, m)
			}
		}
		r.Must(t, 200, "PATCH", path("registryone", old), `{"properties":{"adminUserEnabled":true}}`)
		passwords := func(a map[string]any) (string, string) {
			t.Helper()
			data, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			var c struct {
				Username  string
				Passwords []struct{ Name, Value string }
			}
			if err := json.Unmarshal(data, &c); err != nil || c.Username != "RegistryOne" || len(c.Passwords) != 2 ||
				c.Passwords[0].Name != "password" || c.Passwords[1].Name != "password2" {
				t.Fatalf("%s, %v", data, err)
			}
			return c.Passwords[0].Value, c.Passwords[1].Value
		}
		one, two := passwords(r.Must(t, 200, "POST", path("registryone", old, "/listCredentials"), ""))
		if one == "" || two == "" || one == two {
			t.Fatalf("the passwords are %q and %q", one, two)
		}
		oneNow, twoNow := passwords(r.Must(t, 200, "POST", path("registryone", old, "/regenerateCredential"), `{"name":"Password2"}`))
		if oneNow != one || twoNow == two {
			t.Errorf("after password2 was made anew: first kept %v, second kept %v", oneNow == one, twoNow == two)
		}
		r.Must(t, 400, "POST", path("registryone", old, "/regenerateCredential"), `{"name":"password3"}`)
		if a := r.Call("reader", "POST", path("registryone", old, "/listCredentials"), ""); a.StatusCode != 403 {
			t.Errorf("a reader is told the passwords: %d", a.StatusCode)
		}
	})
}

// source and target of imports: four registries, of which shutone has exports disabled and abacone lets only repository roles pull.
func imports(t *testing.T) *rooms {
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "openone", "Premium", "")
	r.make(t, "shutone", "Premium", shut)
	r.make(t, "abacone", "Premium", `"roleAssignmentMode":"AbacRepositoryPermissions"`)
	r.make(t, "target", "Premium", `"adminUserEnabled":true`)
	return r
}

// TestImportAccepted: what may be imported is begun as a job of the target, and polled at the address that the answer names.
func TestImportAccepted(t *testing.T) {
	t.Parallel()
	r := imports(t)
	open, _ := r.row(t, "openone")
	sealed, _ := r.row(t, "shutone")
	target, _ := r.row(t, "target")
	for n, c := range []struct {
		what, into, body string
		source           string
		image            string
		tags             []string
		untagged         string
		force            bool
	}{
		{"by id", "target", `{"source":{"resourceId":"` + open.ResourceID + `","sourceImage":"app:v1"},"targetTags":["app:v1","mirror/app"]}`, open.ID, "app:v1", []string{"app:v1", "mirror/app:v1"}, "", false},
		{"by id in another casing", "target", `{"source":{"resourceId":"` + strings.ToUpper(open.ResourceID) + `","sourceImage":"app"},"targetTags":["app"],"mode":"force"}`, open.ID, "app:latest", []string{"app:latest"}, "", true},
		{"by login server", "target", `{"source":{"registryUri":"openone.azurecr.localhost","sourceImage":"app:v1"},"targetTags":["app:v2"]}`, open.ID, "app:v1", []string{"app:v2"}, "", false},
		{"by URL", "target", `{"source":{"registryUri":"https://OpenOne.azurecr.localhost.:8443/","sourceImage":"app:v1"},"targetTags":["app:v2"]}`, open.ID, "app:v1", []string{"app:v2"}, "", false},
		{"without a tag", "target", `{"source":{"registryUri":"openone.azurecr.localhost","sourceImage":"app@sha256:` + strings.Repeat("a", 64) + `"},"untaggedTargetRepositories":["mirror/app"]}`, open.ID, "app@sha256:" + strings.Repeat("a", 64), nil, "mirror/app", false},
		{"into the registry whose exports are disabled", "shutone", `{"source":{"resourceId":"` + open.ResourceID + `","sourceImage":"app:v1"},"targetTags":["app:v1"]}`, open.ID, "app:v1", []string{"app:v1"}, "", false},
		{"within it", "shutone", `{"source":{"resourceId":"` + sealed.ResourceID + `","sourceImage":"app:v1"},"targetTags":["app:v2"]}`, sealed.ID, "app:v1", []string{"app:v2"}, "", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			request := fmt.Sprintf("0a1b2c3d-0000-4000-8000-%012d", n)
			a := r.Call("owner", "POST", path(c.into, "2022-02-01-preview", "/importImage"), c.body, "x-ms-client-request-id: "+request)
			text, err := io.ReadAll(a.Body)
			if err != nil || a.StatusCode != 202 || strings.TrimSpace(string(text)) != "null" && len(text) > 0 {
				t.Fatalf("%d %q, %v", a.StatusCode, text, err)
			}
			operation := "registries-" + request
			if l := a.Header.Get("Location"); !strings.Contains(l, "/providers/Microsoft.ContainerRegistry/locations/WESTUS/operationResults/"+operation+"?") || a.Header.Get("Retry-After") != "1" {
				t.Errorf("Location %q, Retry-After %q", l, a.Header.Get("Retry-After"))
			}
			var i registry.Import
			err = r.DB.Read(context.Background(), func(tx *meta.Tx) error {
				s, err := job.Get(tx, operation)
				if err != nil {
					return err
				}
				return json.Unmarshal(s.Args, &i)
			})
			if err != nil {
				t.Fatal(err)
			}
			var tags []string
			for _, tag := range i.Tags {
				tags = append(tags, tag.String())
			}
			untagged := ""
			if len(i.Untagged) > 0 {
				untagged = string(i.Untagged[0])
			}
			into := target.ID
			if c.into == "shutone" {
				into = sealed.ID
			}
			if i.Source != c.source || i.Target != into || i.Image.String() != c.image || strings.Join(tags, " ") != strings.Join(c.tags, " ") || untagged != c.untagged || i.Force != c.force {
				t.Errorf("the job is %+v", i)
			}
		})
	}
}

// TestImportWithCredentials: credentials that are good at the source read it, whatever the caller may there; the job has the one who holds them, not the password.
func TestImportWithCredentials(t *testing.T) {
	t.Parallel()
	r := imports(t)
	r.Grant(t, "stranger", identity.RoleContributor, r.id(t, "target"))
	r.Must(t, 200, "PATCH", path("openone", old), `{"properties":{"adminUserEnabled":true}}`)
	listed := r.Must(t, 200, "POST", path("openone", old, "/listCredentials"), "")
	secret, _ := at(listed["passwords"].([]any)[0], "value").(string)
	a := r.Call("stranger", "POST", path("target", old, "/importImage"),
		`{"source":{"registryUri":"openone.azurecr.localhost","credentials":{"username":"openone","password":"`+secret+`"},"sourceImage":"app:v1"},"targetTags":["app:v1"]}`,
		"x-ms-client-request-id: 0a1b2c3d-0000-4000-8000-000000000000")
	if text, err := io.ReadAll(a.Body); err != nil || a.StatusCode != 202 {
		t.Fatalf("%d %s %v", a.StatusCode, text, err)
	}
	var i registry.Import
	err := r.DB.Read(context.Background(), func(tx *meta.Tx) error {
		s, err := job.Get(tx, "registries-0a1b2c3d-0000-4000-8000-000000000000")
		if err != nil {
			return err
		}
		if strings.Contains(string(s.Args), secret) {
			t.Error("the password is stored with the job")
		}
		return json.Unmarshal(s.Args, &i)
	})
	open, _ := r.row(t, "openone")
	if err != nil || i.As == nil || i.As.Type != identity.AdminUser || i.As.Registry != open.ID {
		t.Errorf("the source is read by %+v, %v", i.As, err)
	}
}

// TestImportRefused: every refusal that can be told at once, in words that name what refuses.
func TestImportRefused(t *testing.T) {
	t.Parallel()
	r := imports(t)
	r.make(t, "scopedone", "Premium", `"dataEndpointEnabled":true,"autoGeneratedDomainNameLabelScope":"NoReuse",`+shut)
	scoped := r.Must(t, 200, "GET", path("scopedone", newest), "")
	data, _ := at(scoped, "properties.dataEndpointHostNames").([]any)
	open, _ := r.row(t, "openone")
	sealed, _ := r.row(t, "shutone")
	r.Grant(t, "stranger", identity.RoleContributor, r.id(t, "target"))
	image := `"sourceImage":"app:v1"}`
	tags := `,"targetTags":["app:v1"]}`
	from := func(source string) string { return `{"source":{` + source + `,` + image + tags }
	creds := `,"credentials":{"username":"u","password":"p"}`
	disabled := []string{"'shutone'", sealed.ResourceID, "exports disabled"}
	for _, c := range []struct {
		what, who, body string
		status          int
		says            []string
	}{
		{"a source with exports disabled, by id", "owner", from(`"resourceId":"` + sealed.ResourceID + `"`), 400, disabled},
		{"by its id in capitals", "owner", from(`"resourceId":"` + strings.ToUpper(sealed.ResourceID) + `"`), 400, disabled},
		{"by login server", "owner", from(`"registryUri":"shutone.azurecr.localhost"`), 400, disabled},
		{"in capitals, with a port", "owner", from(`"registryUri":"SHUTONE.azurecr.localhost:443"`), 400, disabled},
		{"with a scheme and a path", "owner", from(`"registryUri":"HTTPS://shutone.azurecr.localhost/v2/"`), 400, disabled},
		{"with a trailing dot", "owner", from(`"registryUri":"shutone.azurecr.localhost."`), 400, disabled},
		{"by its data endpoint", "owner", from(`"registryUri":"shutone.westus.data.azurecr.localhost"`), 400, disabled},
		{"by user information", "owner", from(`"registryUri":"https://x@shutone.azurecr.localhost"`), 400, disabled},
		{"by a login server with a hash", "owner", from(`"registryUri":"` + fmt.Sprint(at(scoped, "properties.loginServer")) + `"`), 400, []string{"'scopedone'", "exports disabled"}},
		{"by its data endpoint", "owner", from(`"registryUri":"` + fmt.Sprint(data[0]) + `"`), 400, []string{"'scopedone'", "exports disabled"}},
		{"by its name without the hash", "owner", from(`"registryUri":"scopedone.azurecr.localhost"`), 400, []string{"'scopedone'", "exports disabled"}},
		{"an address of the installation", "owner", from(`"registryUri":"127.0.0.1:8443"` + creds), 400, []string{"127.0.0.1:8443", "an address of this installation", "login server"}},
		{"a registry elsewhere", "owner", from(`"registryUri":"docker.io"`), 400, []string{"'docker.io'", "not a registry of this installation", "skopeo copy"}},
		{"a registry that isn't", "owner", from(`"resourceId":"` + strings.Replace(open.ResourceID, "openone", "nowhere", 1) + `"`), 404, []string{"nowhere"}},
		{"an id of another type", "owner", from(`"resourceId":"/subscriptions/x/resourceGroups/g"`), 400, []string{"source.resourceId is invalid, it should be in form of"}},
		{"both", "owner", from(`"registryUri":"a","resourceId":"b"`), 400, []string{"exactly one of"}},
		{"neither", "owner", `{"source":{` + image + tags, 400, []string{"exactly one of"}},
		{"credentials for an id", "owner", from(`"resourceId":"` + open.ResourceID + `"` + creds), 400, []string{"source.credentials"}},
		{"credentials that are not good", "owner", from(`"registryUri":"openone.azurecr.localhost"` + creds), 400, []string{"Access to openone.azurecr.localhost denied"}},
		{"no source", "owner", `{"targetTags":["app:v1"]}`, 400, []string{"source"}},
		{"no image", "owner", `{"source":{"resourceId":"` + open.ResourceID + `"}` + tags, 400, []string{"sourceImage"}},
		{"no targets", "owner", `{"source":{"resourceId":"` + open.ResourceID + `",` + image + `}`, 400, []string{"Missing property parameters.TargetTags for the operation against the resource with name target."}},
		{"references that are none", "owner", `{"source":{"resourceId":"` + open.ResourceID + `","sourceImage":"A//b"},"targetTags":["-:v1"]}`, 400, []string{"source.sourceImage", "targetTags"}},
		{"a target tag with a digest", "owner", `{"source":{"resourceId":"` + open.ResourceID + `",` + image + `,"targetTags":["app@sha256:` + strings.Repeat("a", 64) + `"]}`, 400, []string{"digest"}},
		{"a mode that is none", "owner", `{"mode":"Maybe","source":{"resourceId":"` + open.ResourceID + `",` + image + tags, 400, []string{"NoForce"}},
		{"the source by one who may not read it", "stranger", from(`"resourceId":"` + open.ResourceID + `"`), 403, []string{"LinkedAuthorizationFailed", "importImage/action", open.ResourceID}},
		{"what is not there, by one who may not know", "stranger", from(`"resourceId":"` + strings.Replace(open.ResourceID, "openone", "nowhere", 1) + `"`), 403, []string{"LinkedAuthorizationFailed"}},
		{"the source's login server, by the same", "stranger", from(`"registryUri":"openone.azurecr.localhost"`), 403, []string{"LinkedAuthorizationFailed", open.ResourceID}},
		{"a source that the caller may read and not pull from", "owner", from(`"registryUri":"abacone.azurecr.localhost"`), 403, []string{"Access to abacone.azurecr.localhost denied", "'app'"}},
		{"the target by a reader", "reader", from(`"resourceId":"` + open.ResourceID + `"`), 403, []string{"AuthorizationFailed", "importImage/action"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			a := r.Call(c.who, "POST", path("target", old, "/importImage"), c.body)
			text, err := io.ReadAll(a.Body)
			if err != nil || a.StatusCode != c.status {
				t.Errorf("%d, want %d: %s %v", a.StatusCode, c.status, text, err)
			}
			for _, s := range c.says {
				if !strings.Contains(string(text), s) {
					t.Errorf("the answer does not say %q: %s", s, text)
				}
			}
			if a.Header.Get("Location") != "" {
				t.Error("a refused import has an operation")
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// TestChallenge: where a client without a credential is sent. The parameters stand without spaces.
func TestChallenge(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso").as("")
		realm := `Bearer realm="` + h.base + `/oauth2/token",service="contoso.azurecr.localhost"`
		d := string(name.DigestOf([]byte("x")))
		for _, c := range []struct{ method, path, scope, detail string }{
			{"GET", "/v2/", "", `[{"Type":"registry","Name":"catalog","Action":"*"}]`},
			{"GET", "/v2/_catalog", "registry:catalog:*", `[{"Type":"registry","Name":"catalog","Action":"*"}]`},
			{"GET", "/v2/a/b/manifests/v1", "repository:a/b:pull", `[{"Type":"repository","Name":"a/b","Action":"pull"}]`},
			{"GET", "/v2/a/b/tags/list", "repository:a/b:pull", `[{"Type":"repository","Name":"a/b","Action":"pull"}]`},
			{"GET", "/v2/a/b/referrers/" + d, "repository:a/b:pull", `[{"Type":"repository","Name":"a/b","Action":"pull"}]`},
			{"PUT", "/v2/a/b/manifests/v1", "repository:a/b:pull,push", `[{"Type":"repository","Name":"a/b","Action":"pull"},{"Type":"repository","Name":"a/b","Action":"push"}]`},
			{"POST", "/v2/a/b/blobs/uploads/", "repository:a/b:pull,push", `[{"Type":"repository","Name":"a/b","Action":"pull"},{"Type":"repository","Name":"a/b","Action":"push"}]`},
			{"DELETE", "/v2/a/b/manifests/v1", "repository:a/b:delete", `[{"Type":"repository","Name":"a/b","Action":"delete"}]`},
		} {
			want := realm
			if c.scope != "" {
				want += `,scope="` + c.scope + `"`
			}
			a := h.refused(t, 401, "UNAUTHORIZED", c.method, c.path, nil)
			a.want(t, "Www-Authenticate", want)
			if body := `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":` + c.detail + `}]}`; string(a.body) != body {
				t.Errorf("%s %s: %s, want %s", c.method, c.path, a.body, body)
			}
			for _, wrong := range []string{"Bearer x.y.z", "Bearer", "Basic !", "Basic " + base64.StdEncoding.EncodeToString([]byte("contoso:wrong")), "Negotiate x"} {
				h.refused(t, 401, "UNAUTHORIZED", c.method, c.path, nil, "Authorization", wrong).want(t, "Www-Authenticate", want)
			}
		}
		// By the public door the realm is the name that the client used.
		a := h.publicly().refused(t, 401, "UNAUTHORIZED", "GET", "/v2/", nil)
		a.want(t, "Www-Authenticate", `Bearer realm="http://contoso.azurecr.localhost/oauth2/token",service="contoso.azurecr.localhost"`)
	})
}

// TestTokens is the token flow in every form that clients use.
func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "a")
		p, secret := w.principal("builder", w.id("contoso"), identity.RoleAcrPull)
		arm := must[string](t)(w.ids.IssueARM(context.Background(), w.first.Tenant, p, "https://localhost/"))
		refresh := h.post(200, "/oauth2/exchange?api-version=2021-07-01", url.Values{"grant_type": {"access_token"}, "service": {h.row.LoginServer}, "tenant": {w.first.Tenant}, "access_token": {arm}})["refresh_token"].(string)
		payload, err := base64.RawStdEncoding.DecodeString(strings.Split(refresh, ".")[1])
		if err != nil || !bytes.Contains(payload, []byte(`"exp":`)) {
			t.Errorf("the refresh token is not read as clients read it: %v %s", err, payload)
		}
		pull := []string{"repository:app:pull"}
		service := []string{h.row.LoginServer}
		// get is docker's form: GET with Basic, or with nothing.
		get := func(status int, user, password string, scopes ...string) map[string]any {
			t.Helper()
			q := url.Values{"service": service, "scope": scopes, "account": {user}, "client_id": {"docker"}, "offline_token": {"true"}}
			b := h.as("")
			b.user, b.password = user, password
			a := b.do(status, "GET", "/oauth2/token?"+q.Encode(), nil)
			var out map[string]any
			if err := json.Unmarshal(a.body, &out); err != nil {
				t.Fatal(err)
			}
			return out
		}
		post := func(v url.Values) map[string]any { t.Helper(); return h.post(200, "/oauth2/token", v) }
		for what, answer := range map[string]map[string]any{
			"refresh token, as az does": post(url.Values{"grant_type": {"refresh_token"}, "service": service, "scope": pull, "refresh_token": {refresh}}),
			"null user by POST":         post(url.Values{"grant_type": {"password"}, "username": {identity.NullUser}, "password": {refresh}, "service": service, "scope": pull}),
			"admin by POST":             post(url.Values{"grant_type": {"password"}, "username": {h.name}, "password": {h.password}, "service": service, "scope": pull}),
			"principal by POST":         post(url.Values{"grant_type": {"password"}, "username": {p.AppID}, "password": {secret}, "service": service, "scope": pull}),
			"null user by GET":          get(200, identity.NullUser, refresh, pull...),
			"admin by GET":              get(200, h.name, h.password, pull...),
			"principal by GET":          get(200, p.AppID, secret, pull...),
			"two scopes":                get(200, h.name, h.password, "repository:charts:pull", "repository:app:pull"),
			"two scopes in one":         get(200, h.name, h.password, "repository:charts:pull repository:app:pull"),
		} {
			token, _ := answer["access_token"].(string)
			if token == "" || answer["token"] != answer["access_token"] || answer["expires_in"] != float64(4500) {
				t.Errorf("%s: %v", what, answer)
			}
			h.as(token).do(200, "GET", "/v2/app/manifests/v1", nil)
			h.as(token).do(200, "GET", "/v2/", nil)
			h.as(token).refused(t, 401, "UNAUTHORIZED", "GET", "/v2/other/manifests/v1", nil).want(t, "Www-Authenticate",
				`Bearer realm="`+h.base+`/oauth2/token",service="contoso.azurecr.localhost",scope="repository:other:pull",error="insufficient_scope"`)
		}
		// docker login asks for no scope at all; docker and podman then send the password as the identity token.
		if get(200, h.name, h.password)["access_token"] == "" {
			t.Error("no token without a scope")
		}
		offline := post(url.Values{"grant_type": {"password"}, "username": {p.AppID}, "password": {secret}, "service": service, "access_type": {"offline"}})
		again := post(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {offline["refresh_token"].(string)}, "service": service, "scope": pull})
		h.as(again["access_token"].(string)).do(200, "GET", "/v2/app/manifests/v1", nil)
		// Basic is taken at the registry itself.
		b := h.as("")
		b.user, b.password = p.AppID, secret
		b.do(200, "GET", "/v2/app/manifests/v1", nil)
		b.refused(t, 403, "DENIED", "DELETE", "/v2/app/manifests/v1", nil)
		b.user, b.password = identity.NullUser, refresh
		b.do(200, "GET", "/v2/app/manifests/v1", nil)

		// What proves nobody.
		get(401, "", "", pull...)
		get(401, h.name, "wrong", pull...)
		get(401, "nobody", "wrong", pull...)
		for _, v := range []url.Values{
			{"grant_type": {"refresh_token"}, "refresh_token": {"x"}},
			{"grant_type": {"refresh_token"}, "refresh_token": {arm}},
			{"grant_type": {"refresh_token"}, "refresh_token": {again["access_token"].(string)}},
			{"grant_type": {"password"}, "username": {p.AppID}, "password": {"wrong"}},
			{"grant_type": {"password"}},
		} {
			h.post(401, "/oauth2/token", v)
		}
		h.post(401, "/oauth2/exchange", url.Values{"grant_type": {"access_token"}, "access_token": {refresh}})
		h.post(400, "/oauth2/exchange", url.Values{"grant_type": {"access_token"}})
		h.post(400, "/oauth2/token", url.Values{"grant_type": {"implicit"}})
		// A refresh token is no access token, and neither is the authority's.
		for _, token := range []string{refresh, arm} {
			h.as(token).refused(t, 401, "UNAUTHORIZED", "GET", "/v2/app/manifests/v1", nil)
		}
		// Another registry takes none of them.
		other := w.registry("fabrikam")
		other.image("app", "v1", "a")
		other.as(again["access_token"].(string)).refused(t, 401, "UNAUTHORIZED", "GET", "/v2/app/manifests/v1", nil)
		other.post(401, "/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
		// Whoever is known and lacks the right is on record with what was asked.
		for _, want := range []audit.Record{
			{Action: "Microsoft.ContainerRegistry/registries/artifacts/delete", Repository: "app", Reference: "DELETE /v2/app/manifests/v1", Caller: audit.Caller{ID: p.ID}},
			{Action: "Microsoft.ContainerRegistry/registries/pull/read", Repository: "other", Reference: "GET /v2/other/manifests/v1", Caller: audit.Caller{ID: p.ID}},
		} {
			if len(w.records(h.row.ID, func(r audit.Record) bool {
				return r.Kind == audit.Decision && r.Outcome == audit.Refused && r.Rule == "AuthorizationFailed" &&
					r.Action == want.Action && r.Repository == want.Repository && r.Reference == want.Reference && r.Caller.ID == want.Caller.ID
			})) == 0 {
				t.Errorf("no record of the refusal of %s", want.Reference)
			}
		}
		logins := w.records(h.row.ID, func(r audit.Record) bool { return r.Kind == audit.Login })
		if !slices.ContainsFunc(logins, func(r audit.Record) bool { return r.Outcome == audit.Allowed && r.Caller.ID == p.ID }) ||
			!slices.ContainsFunc(logins, func(r audit.Record) bool { return r.Outcome == audit.Refused }) {
			t.Errorf("logins and their refusals are not on record: %+v", logins)
		}
	})
}

// TestArmTokensPolicy: with azureADAuthenticationAsArmPolicy disabled a token of the resource manager is not exchanged, and the answer says what to ask for; one for the container
// registry is. It can be enabled again.
func TestArmTokensPolicy(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "a")
		p, _ := w.principal("builder", w.id("contoso"), identity.RoleAcrPull)
		exchange := func(status int, audience string) map[string]any {
			t.Helper()
			token := must[string](t)(w.ids.IssueARM(context.Background(), w.first.Tenant, p, audience))
			return h.post(status, "/oauth2/exchange", url.Values{"grant_type": {"access_token"}, "service": {h.row.LoginServer}, "access_token": {token}})
		}
		for _, allowed := range []bool{true, false, true} {
			h.change(func(r *meta.RegistryRow) { r.ArmTokens = allowed })
			if !allowed {
				if said := fmt.Sprint(exchange(401, "https://localhost/")); !strings.Contains(said, "azureADAuthenticationAsArmPolicy") || !strings.Contains(said, identity.ContainerRegistryResource) {
					t.Errorf("the refusal: %s", said)
				}
			} else if exchange(200, "https://localhost/")["refresh_token"] == nil {
				t.Error("a token of the resource manager gives nothing")
			}
			refresh, _ := exchange(200, identity.ContainerRegistryResource)["refresh_token"].(string)
			access := h.post(200, "/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "service": {h.row.LoginServer}, "scope": {"repository:app:pull"}, "refresh_token": {refresh}})
			h.as(access["access_token"].(string)).do(200, "GET", "/v2/app/manifests/v1", nil)
		}
	})
}

// TestOldTokens (R19, R20): a token says who asks, and never more than they may now.
func TestOldTokens(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "a")
		p, secret := w.principal("puller", w.id("contoso"), identity.RoleAcrPull)
		token := h.post(200, "/oauth2/token", url.Values{"grant_type": {"password"}, "username": {p.AppID}, "password": {secret}, "scope": {"repository:app:pull"}})["access_token"].(string)
		admin := w.tokenOf(h, "repository:app:pull")
		write := func(fn func(tx *meta.Tx) error) {
			t.Helper()
			if err := w.db.Write(context.Background(), fn); err != nil {
				t.Fatal(err)
			}
		}
		ok := func(token string) { t.Helper(); h.as(token).do(200, "GET", "/v2/app/manifests/v1", nil) }
		no := func(token string) {
			t.Helper()
			h.as(token).refused(t, 401, "UNAUTHORIZED", "GET", "/v2/app/manifests/v1", nil)
		}
		ok(token)
		// Repository permissions on: legacy roles give nothing any more.
		h.change(func(r *meta.RegistryRow) { r.AbacMode = true })
		no(token)
		ok(admin)
		h.change(func(r *meta.RegistryRow) { r.AbacMode = false })
		ok(token)
		write(func(tx *meta.Tx) error { _, err := w.ids.EnablePrincipal(tx, p.ID, false); return err })
		no(token)
		write(func(tx *meta.Tx) error { _, err := w.ids.EnablePrincipal(tx, p.ID, true); return err })
		ok(token)
		write(func(tx *meta.Tx) error { _, err := w.ids.DeletePrincipal(tx, p.ID); return err })
		no(token)
		ok(admin)
		h.change(func(r *meta.RegistryRow) { r.AdminEnabled = false })
		no(admin)
		h.refused(t, 401, "UNAUTHORIZED", "GET", "/v2/app/manifests/v1", nil)
		h.change(func(r *meta.RegistryRow) { r.AdminEnabled = true })
		ok(admin)
		write(func(tx *meta.Tx) error { _, err := w.ids.RegenerateAdminPassword(tx, h.row.ID, "password"); return err })
		no(admin)

		// Anonymous pull: off, on and off again.
		get := func(status int) string {
			t.Helper()
			var out map[string]any
			a := h.as("").do(status, "GET", "/oauth2/token?scope=repository:app:pull,push&service="+h.row.LoginServer, nil)
			if err := json.Unmarshal(a.body, &out); err != nil {
				t.Fatal(err)
			}
			s, _ := out["access_token"].(string)
			return s
		}
		get(401)
		h.change(func(r *meta.RegistryRow) { r.AnonymousPull = true })
		anyone := get(200)
		ok(anyone)
		h.as(anyone).refused(t, 401, "UNAUTHORIZED", "PUT", "/v2/app/manifests/v2", []byte("{}"))
		h.as(anyone).refused(t, 401, "UNAUTHORIZED", "GET", "/v2/_catalog", nil)
		h.change(func(r *meta.RegistryRow) { r.AnonymousPull = false })
		no(anyone)
	})
}

// TestAbsentAndForbiddenAlike (R15, R16): to a caller that may not read a repository, it is as if it were not there, in every way of asking.
func TestAbsentAndForbiddenAlike(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := h.image("secret", "v1", "a")
		h.image("open", "v1", "b")
		d := string(name.DigestOf(m))
		layer := string(name.DigestOf([]byte("layer of a")))
		narrow := h.as(w.tokenOf(h, "repository:open:pull,push,delete"))
		for _, c := range []struct{ method, tail string }{
			{"GET", "manifests/v1"}, {"HEAD", "manifests/v1"}, {"GET", "manifests/" + d}, {"GET", "blobs/" + layer}, {"HEAD", "blobs/" + layer},
			{"GET", "tags/list"}, {"GET", "referrers/" + d}, {"PUT", "manifests/v1"}, {"POST", "blobs/uploads/"}, {"DELETE", "manifests/v1"}, {"DELETE", "blobs/" + layer},
			{"GET", "blobs/uploads/0123"}, {"PATCH", "blobs/uploads/0123"},
		} {
			a := narrow.do(401, c.method, "/v2/secret/"+c.tail, nil)
			b := narrow.do(401, c.method, "/v2/absent/"+c.tail, nil)
			if strings.ReplaceAll(string(a.body), "secret", "absent") != string(b.body) ||
				strings.ReplaceAll(a.Get("Www-Authenticate"), "secret", "absent") != b.Get("Www-Authenticate") {
				t.Errorf("%s %s: %s / %s", c.method, c.tail, a.body, b.body)
			}
		}
		// The catalog is not the token's to list; one that is lists only what its caller may read.
		narrow.refused(t, 401, "UNAUTHORIZED", "GET", "/v2/_catalog", nil)
		if a := h.as(w.tokenOf(h, "registry:catalog:*")).do(200, "GET", "/v2/_catalog", nil); string(a.body) != `{"repositories":["open","secret"]}` {
			t.Errorf("catalog: %s", a.body)
		}
		if a := h.as(w.tokenOf(h, "registry:catalog:*")).do(401, "GET", "/v2/open/tags/list", nil); a.code() != "UNAUTHORIZED" {
			t.Errorf("a token for the catalog lists tags: %s", a.body)
		}
	})
}

// TestNetworkFirst (R2): the network rules are judged on the connection before anything else, alike for everybody and everything.
func TestNetworkFirst(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		m := h.image("app", "v1", "a")
		token := w.tokenOf(h, "repository:app:pull")
		h.publicly().as(token).do(200, "GET", "/v2/app/manifests/v1", nil)
		for _, closed := range []struct {
			what   string
			change func(*meta.RegistryRow)
		}{
			{"no public access", func(r *meta.RegistryRow) { r.PublicAccess = false }},
			{"another address", func(r *meta.RegistryRow) {
				r.PublicAccess, r.DefaultDeny, r.IPRules = true, true, meta.NewRanges(netip.MustParsePrefix("192.0.2.0/24"))
			}},
		} {
			what := closed.what
			h.change(closed.change)
			for _, by := range []*host{h.publicly(), h.publicly().as(token), h.publicly().as("wrong"), h.publicly().as("")} {
				var first string
				for _, c := range []struct{ method, path string }{
					{"GET", "/v2/"}, {"GET", "/v2/_catalog"}, {"GET", "/v2/app/manifests/v1"}, {"GET", "/v2/absent/manifests/v1"}, {"GET", "/v2/app/manifests/" + string(name.DigestOf(m))},
					{"PUT", "/v2/app/manifests/v2"}, {"POST", "/v2/app/blobs/uploads/"}, {"DELETE", "/v2/app/manifests/v1"}, {"POST", "/oauth2/exchange"}, {"POST", "/oauth2/token"},
					{"GET", "/oauth2/token"}, {"GET", "/v2/App/manifests/v1"}, {"TRACE", "/v2/"}, {"GET", "/nothing"}, {"GET", "/acr/v1/_catalog"},
				} {
					a := by.refused(t, 403, "DENIED", c.method, c.path, nil, "X-Forwarded-For", "192.0.2.1", "X-Real-Ip", "192.0.2.1", "Forwarded", "for=192.0.2.1")
					a.want(t, "Www-Authenticate", "", "Allow", "")
					if first == "" {
						first = string(a.body)
					}
					if string(a.body) != first {
						t.Errorf("%s: %s %s: %s, others %s", what, c.method, c.path, a.body, first)
					}
				}
				if !strings.Contains(first, "client with IP '127.0.0.1' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.") {
					t.Errorf("%s: %s", what, first)
				}
			}
			h.do(200, "GET", "/v2/app/manifests/v1", nil)
		}
		refusals := w.records(h.row.ID, func(r audit.Record) bool { return r.Outcome == audit.Refused && r.Route == "R2" })
		if len(refusals) != 2*4*15 {
			t.Errorf("%d refusals on record, want %d", len(refusals), 2*4*15)
		}
		// A private door serves its registry whatever the Host says, and no other.
		other := w.registry("fabrikam")
		other.image("theirs", "v1", "x")
		r := h.request("GET", "/v2/theirs/manifests/v1", nil)
		r.Host = "fabrikam.azurecr.localhost"
		if a := h.send(r); a.status != 404 {
			t.Errorf("the door of contoso answers for fabrikam: %d %s", a.status, a.body)
		}
		h.change(func(r *meta.RegistryRow) {
			r.DefaultDeny, r.IPRules = true, meta.NewRanges(netip.MustParsePrefix("127.0.0.0/8"))
		})
		h.publicly().as(token).do(200, "GET", "/v2/app/manifests/v1", nil)
	})
}

// TestPullIsJudgedAndRecorded (R1): each pull is a decision on record before its bytes, and afterwards what was really sent.
func TestPullIsJudgedAndRecorded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		content := bytes.Repeat([]byte("x"), 2<<20)
		d := h.blob("app", content)
		before := len(w.records(h.row.ID, func(r audit.Record) bool { return r.Route == "R1" }))
		if before != 0 {
			t.Fatalf("%d releases on record before the first", before)
		}
		h.do(200, "GET", "/v2/app/blobs/"+string(d), nil, "User-Agent", "tester/1", "X-Ms-Correlation-Request-Id", "c0ffee00-0000")
		h.do(206, "GET", "/v2/app/blobs/"+string(d), nil, "Range", "bytes=0-9")
		h.do(200, "HEAD", "/v2/app/blobs/"+string(d), nil)
		h.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/other/blobs/"+string(d), nil)
		// The bytes sent are noted when the answer has ended, which may be after the client has it.
		for len(w.records(h.row.ID, func(r audit.Record) bool { return r.Outcome == audit.Completed })) < 2 {
			time.Sleep(50 * time.Millisecond)
		}
		allowed := w.records(h.row.ID, func(r audit.Record) bool { return r.Route == "R1" && r.Outcome == audit.Allowed && r.Decision != "" })
		if len(allowed) != 1 {
			t.Fatalf("%d decisions on record; two reads of one blob on one connection share one: %+v", len(allowed), allowed)
		}
		r := allowed[0]
		if r.Digest != string(d) || r.Repository != "app" || r.Caller.Type != "AdminUser" || r.Source.Zone != "private/contoso" || r.Source.UserAgent != "tester/1" ||
			r.Correlation != "c0ffee00-0000" || !strings.HasPrefix(r.Source.Address, "127.0.0.1:") || r.Bytes != int64(len(content)) {
			t.Errorf("the decision: %+v", r)
		}
		done := w.records(h.row.ID, func(r audit.Record) bool { return r.Outcome == audit.Completed })
		if len(done) != 2 || done[0].Bytes != int64(len(content)) || done[1].Bytes != 10 || done[0].Decision != r.Decision || done[1].Decision != r.Decision {
			t.Errorf("what was sent: %+v", done)
		}
		looks := w.records(h.row.ID, func(r audit.Record) bool { return r.Route == "R1" && r.Outcome == audit.Allowed && r.Decision == "" })
		if len(looks) != 1 {
			t.Errorf("%d looks on record for one HEAD", len(looks))
		}
	})
}

// TestFlipStopsPublicPull (R24): when a change that closes the public door has been answered, a pull under way there gets nothing more.
func TestFlipStopsPublicPull(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		content := bytes.Repeat([]byte("0123456789abcdef"), (48<<20)/16)
		d := h.blob("app", content)
		for _, by := range []struct {
			h    *host
			cut  bool
			what string
		}{{h.publicly(), true, "public"}, {h, false, "private"}} {
			h.change(func(r *meta.RegistryRow) { r.PublicAccess = true })
			resp, err := w.client.Do(by.h.request("GET", "/v2/app/blobs/"+string(d), nil))
			if err != nil {
				t.Fatal(err)
			}
			first := make([]byte, 1<<20)
			if _, err := io.ReadFull(resp.Body, first); err != nil {
				t.Fatal(err)
			}
			h.change(func(r *meta.RegistryRow) { r.PublicAccess = false })
			rest, err := io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			got := rest + int64(len(first))
			if by.cut && (err == nil || got == int64(len(content))) {
				t.Errorf("%s: %d of %d bytes came, error %v: the flip cut nothing", by.what, got, len(content), err)
			}
			if !by.cut && (err != nil || got != int64(len(content))) {
				t.Errorf("%s: %d of %d bytes came: %v", by.what, got, len(content), err)
			}
		}
	})
}

// TestRoles: what the built-in roles allow on the data plane.
func TestRoles(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		h.image("app", "v1", "a")
		statuses := func(p identity.Principal, secret string) string {
			token := h.post(200, "/oauth2/token", url.Values{"grant_type": {"password"}, "username": {p.AppID}, "password": {secret},
				"scope": {"repository:app:pull,push,delete", "registry:catalog:*"}})["access_token"].(string)
			by := h.as(token)
			get := func(method, path string) int { return by.send(by.request(method, path, http.NoBody)).status }
			return fmt.Sprint(get("GET", "/v2/app/manifests/v1"), get("GET", "/v2/_catalog"), get("POST", "/v2/app/blobs/uploads/"), get("DELETE", "/v2/app/manifests/none"))
		}
		for i, c := range []struct{ role, want string }{
			{identity.RoleAcrPull, "200 200 401 401"},
			{identity.RoleAcrPush, "200 200 202 401"},
			{identity.RoleOwner, "200 200 202 404"},
		} {
			p, secret := w.principal(fmt.Sprint("p", i), w.id("contoso"), c.role)
			if got := statuses(p, secret); got != c.want {
				t.Errorf("role %s: %s, want %s", c.role, got, c.want)
			}
		}
		p, secret := w.principal("elsewhere", w.id("fabrikam"), identity.RoleOwner)
		if got := statuses(p, secret); got != "401 401 401 401" {
			t.Errorf("an owner of another registry: %s", got)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package containerregistry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/providers/containerregistry/webhooks"
	"github.com/embargo-registry/embargo/webhook"
)

// hooks are the real parts behind the webhooks' type: destinations outside are open, inside.example is listed.
func hooks(t *testing.T, db *meta.DB) webhooks.Options {
	t.Helper()
	ring, err := meta.NewKeyring(filepath.Join(t.TempDir(), "hooks.key"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := dial.New(dial.Options{Rules: map[dial.Purpose]dial.Rule{dial.Webhook: {Anywhere: true}, dial.DeclaredWebhook: {To: []string{"inside.example", "10.1.2.3:8080"}, Inside: true}}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := webhook.New(webhook.Options{DB: db, Keyring: ring, Dial: d,
		Release: func(ctx context.Context, _ webhook.Notice) (context.Context, func(int64, bool), error) {
			return ctx, func(int64, bool) {}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	return webhooks.Options{Keyring: ring, Check: s.Check}
}

func hookBody(properties string) string {
	if !strings.Contains(properties, "actions") {
		properties += `,"actions":["push"]`
	}
	return `{"location":"westus","properties":{"serviceUri":"https://hooks.example/secret-path",` + properties + `}}`
}

// TestWebhook: the destination and the headers are kept, shown by getCallbackConfig alone, and stay where a change does not name them.
func TestWebhook(t *testing.T) {
	t.Parallel()
	eachRooms(t, func(t *testing.T, r *rooms) {
		r.make(t, "registryone", "Premium", "")
		hook := "/webhooks/hookone"
		config := func() map[string]any {
			t.Helper()
			return r.Must(t, 200, "POST", path("registryone", old, hook+"/getCallbackConfig"), "")
		}
		made := r.Must(t, 200, "PUT", path("registryone", old, hook), hookBody(`"customHeaders":{"Authorization":"Basic c2VjcmV0"},"scope":"app:*","actions":["delete","PUSH","push"]`))
		for _, doc := range []map[string]any{made, r.Must(t, 200, "GET", path("registryone", newest, hook), "")} {
			text, _ := json.Marshal(doc)
			if strings.Contains(string(text), "secret-path") || strings.Contains(string(text), "c2VjcmV0") || at(doc, "properties.serviceUri") != nil {
				t.Errorf("a secret is shown: %s", text)
			}
			if at(doc, "properties.status") != "enabled" || at(doc, "properties.scope") != "app:*" || fmt.Sprint(at(doc, "properties.actions")) != "[delete push]" || at(doc, "properties.provisioningState") != "Succeeded" {
				t.Errorf("the webhook is %s", text)
			}
		}
		first := config()
		if first["serviceUri"] != "https://hooks.example/secret-path" || at(first, "customHeaders.Authorization") != "Basic c2VjcmV0" || len(first["signingKey"].(string)) != 44 {
			t.Errorf("the configuration is %v", first)
		}
		for _, step := range []struct{ method, body, uri, headers string }{
			{"PATCH", `{"properties":{"status":"disabled"}}`, "https://hooks.example/secret-path", "map[Authorization:Basic c2VjcmV0]"},
			{"PATCH", `{"properties":{"customHeaders":{"X-A":"b"}}}`, "https://hooks.example/secret-path", "map[X-A:b]"},
			{"PATCH", `{"properties":{"serviceUri":"http://hooks.example/other"}}`, "http://hooks.example/other", "map[X-A:b]"},
			{"PUT", hookBody(`"status":"enabled"`), "https://hooks.example/secret-path", "map[]"},
		} {
			r.Must(t, 200, step.method, path("registryone", old, hook), step.body)
			if c := config(); c["serviceUri"] != step.uri || fmt.Sprint(c["customHeaders"]) != step.headers || c["signingKey"] != first["signingKey"] {
				t.Errorf("after %s %s the configuration is %v", step.method, step.body, c)
			}
		}
		if text := r.dump(t); strings.Contains(text, "secret-path") || strings.Contains(text, "c2VjcmV0") {
			t.Error("a secret lies in the clear in the database")
		}
		id := r.Must(t, 200, "POST", path("registryone", old, hook+"/ping"), "")["id"]
		events := r.Must(t, 200, "POST", path("registryone", old, hook+"/listEvents"), "")["value"].([]any)
		if len(events) != 1 || at(events[0], "id") != id || at(events[0], "eventRequestMessage.content.action") != "ping" {
			t.Errorf("the events are %v", events)
		}
		usages := fmt.Sprint(r.Must(t, 200, "GET", path("registryone", old, "/listUsages"), "")["value"])
		if !strings.Contains(usages, "currentValue:1 limit:500 name:Webhooks") {
			t.Errorf("the usages are %s", usages)
		}
		if a := r.Call("owner", "DELETE", path("registryone", old, hook), ""); a.StatusCode != 200 {
			t.Errorf("delete: %d", a.StatusCode)
		}
		if text := r.dump(t); strings.Contains(text, id.(string)) || strings.Contains(text, "webhook/") {
			t.Error("something is left of the deleted webhook")
		}
	})
}

// dump is the text of the tables that webhooks are kept in.
func (r *rooms) dump(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := r.DB.Read(context.Background(), func(tx *meta.Tx) error {
		for _, query := range []string{`SELECT doc FROM resources`, `SELECT content || request || response FROM webhook_events`, `SELECT name FROM secrets`,
			`SELECT resource_id || scope || actions FROM webhooks`} {
			rows, err := tx.Query(query)
			if err != nil {
				return err
			}
			for rows.Next() {
				var s string
				if err := rows.Scan(&s); err != nil {
					return err
				}
				all.WriteString(s + "\n")
			}
			if err := rows.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestWebhookRules: what a webhook can't be, each refused by its rule.
func TestWebhookRules(t *testing.T) {
	t.Parallel()
	r := newRooms(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	r.make(t, "openone", "Basic", "")
	r.make(t, "emptyone", "Basic", "")
	r.make(t, "lockedone", "Premium", shut)
	put := func(registry, name, body string) (int, string) {
		a := r.Call("owner", "PUT", path(registry, newest, "/webhooks/"+name), body)
		text, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(text)
	}
	to := func(uri string) string {
		return strings.Replace(hookBody(`"scope":""`), "https://hooks.example/secret-path", uri, 1)
	}
	for _, c := range []struct{ what, registry, body, want string }{
		{"no URL", "openone", to("nowhere"), "must be an http or https URL"},
		{"a password in the URL", "openone", to("https://u:p@hooks.example/"), "must be an http or https URL"},
		{"loopback", "openone", to("http://127.0.0.1:1/"), "not an address of the public Internet"},
		{"the metadata service of clouds", "openone", to("http://169.254.169.254/"), "not an address of the public Internet"},
		{"inside, another port than listed", "openone", to("http://10.1.2.3:9090/"), "not an address of the public Internet"},
		{"inside, listed", "openone", to("http://10.1.2.3:8080/"), ""},
		{"another action", "openone", hookBody(`"actions":["pull"]`), "pull"},
		{"a scope that is none", "openone", hookBody(`"scope":"App:*"`), "names no repository or tag"},
		{"a header of ours", "openone", hookBody(`"customHeaders":{"host":"x"}`), "set by the server itself"},
		{"a header that ends early", "openone", hookBody(`"customHeaders":{"X":"a\r\nY: b"}`), "characters that a header cannot have"},
		{"another region", "emptyone", strings.Replace(hookBody(`"scope":""`), "westus", "eastus", 1), "is in 'westus' alone"},
		{"outside, while exports are disabled", "lockedone", to("https://hooks.example/"), "has exports disabled"},
		{"listed, while exports are disabled", "lockedone", to("https://inside.example/"), ""},
	} {
		status, text := put(c.registry, "hookone", c.body)
		if c.want == "" && status != 200 || c.want != "" && (status != 400 || !strings.Contains(text, c.want)) {
			t.Errorf("%s: %d %s", c.what, status, text)
		}
	}
	if status, text := put("openone", "hooktwo", to("https://hooks.example/")); status != 200 {
		t.Errorf("the second: %d %s", status, text)
	}
	if status, text := put("openone", "hookthree", to("https://hooks.example/")); status != 400 || !strings.Contains(text, "at most 2") {
		t.Errorf("one more than the SKU has: %d %s", status, text)
	}
	if status, text := put("openone", "hooktwo", to("https://hooks.example/again")); status != 200 {
		t.Errorf("a change of the last: %d %s", status, text)
	}
	r.Must(t, 400, "PATCH", path("lockedone", newest, "/webhooks/hookone"), `{"properties":{"serviceUri":"https://hooks.example/"}}`)
}

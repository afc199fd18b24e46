// SPDX-License-Identifier: Apache-2.0

package redact_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/redact"
)

const canary = "c4n4ryS3cr3tV4lue"

type account struct{ Name, Password string }

// logged is what both forms of the log have of a call.
func logged(t *testing.T, call func(l *slog.Logger)) string {
	t.Helper()
	var b bytes.Buffer
	for _, inner := range []slog.Handler{slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}), slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})} {
		call(slog.New(redact.Handler(inner)))
	}
	return b.String()
}

// A secret does not reach the log by its type, by the name it is logged under, or by its form, wherever in a record it stands.
func TestSecretsAreKeptOut(t *testing.T) {
	u := &url.URL{Scheme: "https", Host: "acct.blob.example", Path: "/c", RawQuery: "sv=2020&sig=" + canary}
	header := http.Header{"Authorization": {"Bearer " + canary}, "X-Other": {"fine"}, "Cookie": {canary}}
	jws := "eyJhbGciOiJFUzI1NiJ9." + canary + "." + canary
	for name, call := range map[string]func(l *slog.Logger){
		"a Secret":             func(l *slog.Logger) { l.Info("x", "v", redact.Secret(canary)) },
		"a Secret in a struct": func(l *slog.Logger) { l.Info("x", "v", struct{ S redact.Secret }{canary}) },
		"a Secret in a list":   func(l *slog.Logger) { l.Info("x", "v", []any{redact.Secret(canary), canary[:0]}) },
		"a Secret in a message": func(l *slog.Logger) {
			l.Info(fmt.Sprintf("%v %s %q %x %d %+v %#v", redact.Secret(canary), redact.Secret(canary), redact.Secret(canary), redact.Secret(canary), redact.Secret(canary), redact.Secret(canary), redact.Secret(canary)))
		},
		"a name": func(l *slog.Logger) {
			l.Info("x", "Client_Secret", canary, "password", canary, "Authorization", canary, "token", canary)
		},
		"a name in a group": func(l *slog.Logger) { l.Info("x", slog.Group("g", slog.Group("h", "password", canary))) },
		"a name in With": func(l *slog.Logger) {
			l.With("password", canary).WithGroup("g").With("refresh-token", canary).Info("x")
		},
		"a name in a map": func(l *slog.Logger) {
			l.Info("x", "v", map[string]any{"password": canary, "m": map[string]any{"sig": canary}})
		},
		"a header":  func(l *slog.Logger) { l.Info("x", "v", header) },
		"a request": func(l *slog.Logger) { l.Info("x", "v", &http.Request{Method: "GET", URL: u, Header: header}) },
		"a URL":     func(l *slog.Logger) { l.Info("x", "v", u, "w", *u, "s", u.String()) },
		"userinfo":  func(l *slog.Logger) { l.Info("x", "v", "postgres://embargo:"+canary+"@db:5432/embargo") },
		"a form": func(l *slog.Logger) {
			l.Info("x", "v", url.Values{"client_secret": {canary}}, "w", "grant_type=password&password="+canary)
		},
		"an error":               func(l *slog.Logger) { l.Info("x", "err", fmt.Errorf("while: %w", errors.New("Basic "+canary))) },
		"a credential in a text": func(l *slog.Logger) { l.Info("sent Authorization: Bearer " + canary) },
		"a token":                func(l *slog.Logger) { l.Info("x", "v", "it was "+jws+" indeed") },
		"JSON":                   func(l *slog.Logger) { l.Info("x", "v", `{"password": "`+canary+`","access_token":"`+canary+`"}`) },
		"bytes":                  func(l *slog.Logger) { l.Info("x", "v", []byte(`"client_secret":"`+canary+`"`)) },
		"a struct":               func(l *slog.Logger) { l.Info("x", "v", account{"ada", "Basic " + canary}) },
		"a key": func(l *slog.Logger) {
			l.Info("x", "v", "-----BEGIN EC PRIVATE KEY-----\n"+canary+"\n-----END EC PRIVATE KEY-----\n")
		},
		"a key that is cut short": func(l *slog.Logger) { l.Info("x", "v", "-----BEGIN PRIVATE KEY-----\n"+canary) },
		"an age identity":         func(l *slog.Logger) { l.Info("x", "v", "AGE-SECRET-KEY-1"+strings.ToUpper(canary)) },
		"an escaped query":        func(l *slog.Logger) { l.Info("x", "v", "https://h/?u=https%3A%2F%2Fa%2F%3Fsig%3D"+canary) },
	} {
		t.Run(name, func(t *testing.T) {
			got := logged(t, call)
			if strings.Contains(strings.ToLower(got), strings.ToLower(canary)) || !strings.Contains(got, redact.Gone) {
				t.Errorf("the log has\n%s", got)
			}
		})
	}
	b, err := json.Marshal(map[string]any{"s": redact.Secret(canary)})
	if err != nil || strings.Contains(string(b), canary) {
		t.Errorf("%s, %v", b, err)
	}
}

// What is no secret is logged as it is: names, digests, paths, addresses, hosts, figures, and the parts of a text beside a secret.
func TestTheRestIsKept(t *testing.T) {
	for _, text := range []string{
		"sha256:9559ddb10e5342fd8c3bbdb7f0e8d1e0c5fd4c67b5b8d0e3b8c2b6c0b4a1d2e3", "/v2/app/manifests/v1", "myregistry.azurecr.localhost", "127.0.0.1:49670",
		"/subscriptions/048bde19-c0d2-469d-affa-b40c2bce7da8/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/myregistry",
		"The access token is for another purpose. Log in again.", "a basic registry", "bearer", "the password is wrong", "https://host.example/path?n=5&last=app",
		"GET /oauth2/token", "token service", "secret/engine:v1", "limit=5 reached", "it holds no secret: 'embargo principal rotate' makes one", "",
	} {
		if got := redact.Text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	for text, want := range map[string]string{
		"https://h.example/a?n=1&sig=abcdef&last=b":   "https://h.example/a?n=1&sig=[redacted]&last=b",
		"connecting to postgres://u:p@db:5432/x now":  "connecting to postgres://u:[redacted]@db:5432/x now",
		"Authorization: Basic dXNlcjpwYXNz, and more": "Authorization: Basic [redacted], and more",
	} {
		if got := redact.Text(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	got := logged(t, func(l *slog.Logger) {
		l.Debug("message", "n", 5, "ok", true, "list", []string{"a", "b"}, "m", map[string]any{"k": 1.5}, slog.Group("g", "deep", "value"), "nil", nil)
	})
	for _, want := range []string{`"n":5`, `"ok":true`, `"list":["a","b"]`, `"m":{"k":1.5}`, `"g":{"deep":"value"}`, `"nil":null`, "g.deep=value", "DEBUG"} {
		if !strings.Contains(got, want) {
			t.Errorf("the log lacks %s:\n%s", want, got)
		}
	}
}

func BenchmarkHandler(b *testing.B) {
	for name, h := range map[string]slog.Handler{"bare": slog.NewTextHandler(io.Discard, nil), "redacting": redact.Handler(slog.NewTextHandler(io.Discard, nil))} {
		b.Run(name, func(b *testing.B) {
			l := slog.New(h)
			for b.Loop() {
				l.Info("request", "method", "GET", "host", "myregistry.azurecr.localhost", "path", "/v2/app/manifests/v1", "status", 200, "bytes", 1234, "client", "127.0.0.1:4444", "agent", "skopeo/1.9")
			}
		})
	}
}

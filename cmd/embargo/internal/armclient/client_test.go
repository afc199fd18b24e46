// SPDX-License-Identifier: Apache-2.0

package armclient

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager is a resource manager that answers as the test says, over TLS.
func manager(t *testing.T, answer func(base string, w http.ResponseWriter, r *http.Request)) (*httptest.Server, *Session) {
	t.Helper()
	var s *httptest.Server
	s = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(s.URL, w, r) }))
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return s, &Session{ResourceManager: s.URL, ActiveDirectory: s.URL + "/adfs", CA: string(ca), TenantID: "t", SubscriptionID: "s", User: "id", Kind: "servicePrincipal", Token: "token"}
}

func client(t *testing.T, s *Session) *Client {
	t.Helper()
	c, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLongRunningOperations(t *testing.T) {
	const done = `{"name":"r","properties":{"provisioningState":"Succeeded"}}`
	for _, c := range []struct {
		name   string
		answer func(base string, n int32, w http.ResponseWriter, r *http.Request)
		want   string
		err    string
	}{
		{"at once", func(_ string, _ int32, w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, done) }, "r", ""},
		{"by operation status", func(base string, n int32, w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPut:
				w.Header().Set("Azure-AsyncOperation", base+"/status?api-version=1")
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, `{"properties":{"provisioningState":"Creating"}}`)
			case r.URL.Path == "/status" && n < 4:
				w.Header().Set("Retry-After", "0")
				_, _ = io.WriteString(w, `{"status":"InProgress"}`)
			case r.URL.Path == "/status":
				_, _ = io.WriteString(w, `{"status":"Succeeded"}`)
			default:
				_, _ = io.WriteString(w, done)
			}
		}, "r", ""},
		{"by operation status, failed", func(base string, _ int32, w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.Header().Set("Azure-AsyncOperation", base+"/status")
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusAccepted)
				return
			}
			_, _ = io.WriteString(w, `{"status":"Failed","error":{"code":"ExportsDisabled","message":"not allowed"}}`)
		}, "", "(ExportsDisabled) not allowed"},
		{"by location", func(base string, n int32, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				w.Header().Set("Location", base+"/result")
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusAccepted)
				return
			}
			_, _ = io.WriteString(w, done)
		}, "r", ""},
		{"by the resource itself", func(_ string, n int32, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "0")
			if n < 3 {
				_, _ = io.WriteString(w, `{"properties":{"provisioningState":"Updating"}}`)
				return
			}
			_, _ = io.WriteString(w, done)
		}, "r", ""},
		{"the resource failed", func(_ string, _ int32, w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"properties":{"provisioningState":"Failed"}}`)
		}, "", "ended as Failed"},
		{"pointed elsewhere", func(_ string, _ int32, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Azure-AsyncOperation", "https://example.com/status")
			w.WriteHeader(http.StatusAccepted)
		}, "", "points to example.com"},
		{"refused", func(_ string, _ int32, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":{"code":"BadRequest","message":"two things","target":"properties","details":[{"code":"A","message":"one"},{"code":"B","message":"two"}]}}`)
		}, "", "(BadRequest) two things\nTarget: properties\n(A) one\n(B) two"},
		{"refused without JSON", func(_ string, _ int32, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "broken")
		}, "", "(BadGateway) broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n atomic.Int32
			_, s := manager(t, func(base string, w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer token" {
					t.Errorf("%s %s came without the token", r.Method, r.URL)
				}
				c.answer(base, n.Add(1), w, r)
			})
			doc, err := client(t, s).Put(context.Background(), "/r", "v", map[string]any{"location": "x"}, false)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || doc["name"] != c.want {
				t.Fatalf("%v, %v", doc, err)
			}
		})
	}
}

func TestListsGoToTheirEnd(t *testing.T) {
	_, s := manager(t, func(base string, w http.ResponseWriter, r *http.Request) {
		next := ""
		if page := r.URL.Query().Get("page"); page == "" {
			next = base + "/list?api-version=v&page=2"
		} else if page == "2" {
			next = base + "/list?api-version=v&page=3"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"value": []any{r.URL.Query().Get("page")}, "nextLink": next})
	})
	all, err := client(t, s).List(context.Background(), "/list", "v")
	if err != nil || fmt.Sprint(all) != "[ 2 3]" {
		t.Errorf("%v, %v", all, err)
	}
	_, s = manager(t, func(_ string, w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"value":[],"nextLink":"https://example.com/more"}`)
	})
	if _, err := client(t, s).List(context.Background(), "/list", "v"); err == nil || !strings.Contains(err.Error(), "example.com") {
		t.Errorf("the list was followed to another host: %v", err)
	}
}

// A session is renewed from its credentials file when its token has expired; without a file the user is told to log in.
func TestSessions(t *testing.T) {
	var asked atomic.Int32
	_, s := manager(t, func(_ string, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/adfs/oauth2/token" || r.FormValue("client_secret") != "hunter2" || r.FormValue("client_id") != "id" || r.FormValue("grant_type") != "client_credentials" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client","error_description":"wrong"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"access_token":"new-%d","expires_in":3599}`, asked.Add(1))
	})
	dir := filepath.Join(t.TempDir(), "sessions")
	if _, err := Load(context.Background(), dir); !errors.Is(err, ErrLoggedOut) {
		t.Errorf("without a session: %v", err)
	}
	s.Expires = time.Now().Add(-time.Minute)
	if err := s.Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(context.Background(), dir); !errors.Is(err, ErrLoggedOut) {
		t.Errorf("with an expired session: %v", err)
	}
	s.CredentialsFile = filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(s.CredentialsFile, []byte(`{"resourceManager":"https://x","clientSecret":"hunter2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second load finds the renewed token
		got, err := Load(context.Background(), dir)
		if err != nil || got.Token != "new-1" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "session.json"))
	if err != nil || strings.Contains(string(b), "hunter2") {
		t.Errorf("the secret is kept: %s, %v", b, err)
	}
	st, err := os.Stat(filepath.Join(dir, "session.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	var refused *Error
	if err := s.Login(context.Background(), "wrong"); !errors.As(err, &refused) || refused.Code != "invalid_client" {
		t.Errorf("a wrong secret: %v", err)
	}
	s.CA = ""
	if err := s.Login(context.Background(), "hunter2"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority was trusted: %v", err)
	}
	for range 2 {
		if err := Forget(dir); err != nil {
			t.Error(err)
		}
	}
	s.ResourceManager = "http://plain"
	if _, err := New(s); err == nil {
		t.Error("a token would be sent without TLS")
	}
}

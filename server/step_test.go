// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/server"
)

// A step of the machine's clock, to either side, opens nothing and kills nothing: a token lives on and expires no later, an operation that was begun ends, the server stays ready.
func TestClockSteps(t *testing.T) {
	for _, kind := range metatest.Kinds {
		for name, step := range map[string]time.Duration{"a day ahead": 24 * time.Hour, "a day back": -24 * time.Hour} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				var ahead atomic.Int64
				data := filepath.Join(t.TempDir(), "data")
				database := ""
				if kind == "postgres" {
					database = metatest.URL(t, kind)
				}
				s, err := server.New(t.Context(), server.Options{Data: data, Database: database, Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", RegistrySuffix: "azurecr.localhost",
					Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				defer func() {
					cancel()
					if err := <-done; err != nil {
						t.Error(err)
					}
				}()
				c := newClient(t, s)
				token := c.login()
				c.group(token, "before", http.StatusCreated)
				ahead.Store(int64(step))
				c.group(token, "after", http.StatusCreated)
				again := c.login()
				c.group(again, "again", http.StatusCreated)
				c.remove(token, "before") // a job
				if a, _ := c.do(http.MethodGet, "http://"+s.Welcome().Listening.Admin+"/readyz", ""); a != http.StatusOK {
					t.Errorf("after the step the server is not ready: %d", a)
				}
				ahead.Store(0)
				c.group(token, "back", http.StatusCreated)
				c.group(again, "back-again", http.StatusCreated)
			})
		}
	}
}

type client struct {
	t    *testing.T
	http *http.Client
	s    server.Welcome
}

func newClient(t *testing.T, s *server.Server) *client {
	t.Helper()
	w := s.Welcome()
	pem, err := os.ReadFile(w.Credentials.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{t, &http.Client{Transport: transport}, w}
}

func (c *client) do(method, target, body string, headers ...string) (int, string) {
	c.t.Helper()
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if l := resp.Header.Get("Location"); l != "" && resp.StatusCode == http.StatusAccepted {
		return resp.StatusCode, l
	}
	return resp.StatusCode, string(b)
}

func (c *client) login() string {
	c.t.Helper()
	cr := c.s.Credentials
	_, body := c.do(http.MethodPost, cr.ResourceManager+"/"+cr.TenantID+"/oauth2/v2.0/token",
		url.Values{"grant_type": {"client_credentials"}, "client_id": {cr.ClientID}, "client_secret": {cr.ClientSecret}, "scope": {cr.ResourceManager + "/.default"}}.Encode(),
		"Content-Type", "application/x-www-form-urlencoded")
	var a struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil || a.Token == "" {
		c.t.Fatalf("no token: %s", body)
	}
	return a.Token
}

func (c *client) path(group string) string {
	return c.s.Credentials.ResourceManager + "/subscriptions/" + c.s.Credentials.SubscriptionID + "/resourceGroups/" + group + "?api-version=2021-04-01"
}

func (c *client) group(token, name string, want int) {
	c.t.Helper()
	if status, body := c.do(http.MethodPut, c.path(name), `{"location":"centralus"}`, "Authorization", "Bearer "+token, "Content-Type", "application/json"); status != want {
		c.t.Errorf("making the group %s: %d %s", name, status, body)
	}
}

// remove deletes a group, which is a job, and follows it to its end.
func (c *client) remove(token, name string) {
	c.t.Helper()
	status, next := c.do(http.MethodDelete, c.path(name), "", "Authorization", "Bearer "+token)
	for deadline := time.Now().Add(20 * time.Second); status == http.StatusAccepted; {
		if time.Now().After(deadline) {
			c.t.Fatalf("the operation %s does not end", next)
		}
		var body string
		if status, body = c.do(http.MethodGet, next, "", "Authorization", "Bearer "+token); status == http.StatusAccepted {
			next = body
		}
	}
	if status >= 300 {
		c.t.Errorf("removing the group %s: %d", name, status)
	}
}

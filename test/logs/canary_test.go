// SPDX-License-Identifier: Apache-2.0

// Package logs reads what the built binary logs at its most talkative, after every handler was given secrets.
package logs

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// canaries are secrets that were given to the server or made by it.
type canaries struct {
	t    *testing.T
	n    int
	seen []string
}

// next makes a secret that is nowhere else.
func (c *canaries) next() string {
	c.n++
	return c.add(fmt.Sprintf("c4n4ry-%03d-Zq7Xw9", c.n))
}

func (c *canaries) add(secret string) string {
	if len(secret) < 8 {
		c.t.Fatalf("%q is no secret", secret)
	}
	c.seen = append(c.seen, secret)
	return secret
}

// found lists the canaries that a text has, in any of the forms in which they travel.
func (c *canaries) found(text string) (all []string) {
	for _, s := range c.seen {
		for _, form := range []string{s, url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s)), hex.EncodeToString([]byte(s))} {
			if strings.Contains(text, form) {
				all = append(all, s)
				break
			}
		}
	}
	return all
}

const config = "logLevel: debug\n"

// No secret that a client sends or gets is in the log, at debug level, in either form, whatever is done with it.
func TestNoSecretIsLogged(t *testing.T) {
	for _, form := range []string{"json", "text"} {
		t.Run(form, func(t *testing.T) {
			s := instance.At(t, filepath.Join(t.TempDir(), "data"), "", config)
			s.LogFormat = form
			s.Start()
			c := &canaries{t: t}
			c.add(s.ClientSecret)
			c.add(s.Token())
			logins(t, s, c)
			registries(t, s, c)
			tricks(t, s, c)
			local(t, s, c)
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			log := s.Stderr()
			if n := strings.Count(log, "\n"); n < 60 || !strings.Contains(log, "importImage") || !strings.Contains(log, "job ends") {
				t.Fatalf("the log has %d lines: the test does not drive what it should", n)
			}
			for _, secret := range c.found(log) {
				for _, line := range strings.Split(log, "\n") {
					if len(c.found(line)) > 0 {
						t.Logf("%.600s", line)
					}
				}
				t.Fatalf("the log has the secret %q", secret)
			}
		})
	}
}

// do sends a request whose answer does not matter.
func do(t *testing.T, s *instance.Server, method, target string, body []byte, headers ...string) instance.Answer {
	t.Helper()
	a, err := s.Do(method, target, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// logins goes to every token endpoint, with right and wrong secrets, whole and broken bodies.
func logins(t *testing.T, s *instance.Server, c *canaries) {
	form := "application/x-www-form-urlencoded"
	for _, path := range []string{"/" + s.TenantID + "/oauth2/v2.0/token", "/" + s.TenantID + "/oauth2/token", "/adfs/oauth2/token", "/msi/token", "/nowhere/token"} {
		for _, body := range []url.Values{
			{"grant_type": {"client_credentials"}, "client_id": {s.ClientID}, "client_secret": {c.next()}, "scope": {"x"}},
			{"grant_type": {"password"}, "username": {"ada"}, "password": {c.next()}, "client_id": {"x"}},
			{"grant_type": {"refresh_token"}, "refresh_token": {c.next()}},
			{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {c.next()}, "client_assertion": {c.next()}},
			{"grant_type": {c.next()}},
		} {
			do(t, s, http.MethodPost, s.ResourceManager+path, []byte(body.Encode()), "Content-Type", form)
			do(t, s, http.MethodPost, s.ResourceManager+path, []byte(body.Encode()+"%zz"), "Content-Type", form)
		}
		do(t, s, http.MethodPost, s.ResourceManager+path, []byte("grant_type=client_credentials&client_id=x&client_secret="+c.next()), "Content-Type", form, "Authorization", basic("x", c.next()))
	}
	for _, authorization := range []string{"Bearer " + c.next(), "Bearer eyJhbGciOiJFUzI1NiJ9." + c.next() + "." + c.next(), basic("x", c.next()), c.next(), "Negotiate " + c.next()} {
		do(t, s, http.MethodGet, s.ResourceManager+s.GroupPath()+"?api-version=2021-04-01", nil, "Authorization", authorization, "Cookie", "session="+c.next(), "X-Ms-Authorization-Auxiliary", "Bearer "+c.next())
	}
}

// registries drives the data plane and the resource manager, with credentials that work and credentials that don't.
func registries(t *testing.T, s *instance.Server, c *canaries) {
	s.CreateRegistry(instance.Open, instance.J{"adminUserEnabled": true})
	s.CreateRegistry(instance.Closed, nil)
	if _, err := s.PushImage(instance.Open, "app", "v1", []byte("layer")); err != nil {
		t.Fatal(err)
	}
	var admin struct {
		Username  string
		Passwords []struct{ Value string }
	}
	for _, call := range []string{"/listCredentials", "/regenerateCredential"} {
		var body any
		if call == "/regenerateCredential" {
			body = instance.J{"name": "password"}
		}
		a := s.ARM(http.MethodPost, s.RegistryID(instance.Open)+call+instance.Version, body)
		if err := json.Unmarshal(a.Body, &admin); err != nil || len(admin.Passwords) == 0 {
			t.Fatalf("%s: %d %s", call, a.Status, a.Body)
		}
		for _, p := range admin.Passwords {
			c.add(p.Value)
		}
	}
	base := "https://" + s.LoginServer(instance.Open)
	for _, p := range []string{admin.Passwords[0].Value, c.next()} {
		do(t, s, http.MethodGet, base+"/v2/", nil, "Authorization", basic(admin.Username, p))
		do(t, s, http.MethodGet, base+"/v2/app/manifests/v1", nil, "Authorization", basic(admin.Username, p))
		if token, _, err := s.RegistryToken(base, s.LoginServer(instance.Open), admin.Username, p, "repository:app:pull,push"); err != nil {
			t.Fatal(err)
		} else if token != "" {
			c.add(token)
			do(t, s, http.MethodGet, base+"/v2/app/manifests/v1", nil, "Authorization", "Bearer "+token)
		}
	}
	exchange := url.Values{"grant_type": {"access_token"}, "service": {s.LoginServer(instance.Open)}, "tenant": {s.TenantID}, "access_token": {s.Token()}}
	a := do(t, s, http.MethodPost, base+"/oauth2/exchange", []byte(exchange.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	refresh := c.add(a.Get("refresh_token"))
	for _, token := range []string{refresh, c.next()} {
		body := url.Values{"grant_type": {"refresh_token"}, "service": {s.LoginServer(instance.Open)}, "scope": {"repository:app:pull"}, "refresh_token": {token}}
		a := do(t, s, http.MethodPost, base+"/oauth2/token", []byte(body.Encode()), "Content-Type", "application/x-www-form-urlencoded")
		if access := a.Get("access_token"); access != "" {
			c.add(access)
		}
		do(t, s, http.MethodGet, base+"/oauth2/token?"+body.Encode(), nil)
	}
	for _, password := range []string{admin.Passwords[0].Value, c.next()} {
		s.Import(instance.Closed, instance.J{"registryUri": s.LoginServer(instance.Open), "sourceImage": "app:v1", "credentials": instance.J{"username": admin.Username, "password": password}}, "copy:v1")
	}
	s.Import(instance.Closed, instance.J{"resourceId": s.RegistryID(instance.Open), "sourceImage": "app:v1"}, "copy:v2")
	do(t, s, http.MethodPost, base+"/v2/app/blobs/uploads/?mount=sha256:"+strings.Repeat("a", 64)+"&from=other&sig="+c.next(), nil, "Authorization", "Bearer "+c.next())
}

// tricks puts secrets where a server may be tempted to quote what it could not read.
func tricks(t *testing.T, s *instance.Server, c *canaries) {
	registry := "https://" + s.LoginServer(instance.Open)
	for _, base := range []string{s.ResourceManager, registry} {
		for _, path := range []string{"/", "/v2/", "/v2/app/blobs/uploads/", "/oauth2/token", "/subscriptions", s.RegistryID(instance.Open), "/nowhere", "/metadata/endpoints"} {
			q := "?api-version=" + c.next() + "&sig=" + c.next() + "&token=" + c.next() + "&code=" + c.next() + "&access_token=" + c.next()
			for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, "ODD"} {
				do(t, s, method, base+path+q, []byte(`{"properties":{"password":"`+c.next()+`","secret":"`+c.next()+`"`), "Authorization", "Bearer "+c.next(), "Content-Type", "application/json")
			}
		}
	}
	for _, body := range []string{`{"location":"centralus","sku":{"name":"Premium"},"properties":{"password":"` + c.next() + `","adminUserEnabled":"` + c.next() + `"}}`, `{"a":"` + c.next() + `","a":`, c.next(), `["` + c.next() + `"]`} {
		do(t, s, http.MethodPut, s.ResourceManager+s.RegistryID(instance.Open)+instance.Version, []byte(body), "Authorization", "Bearer "+s.Token(), "Content-Type", "application/json")
	}
	proxy := strings.TrimPrefix(s.Proxy, "http://")
	for _, head := range []string{
		"CONNECT nowhere.example:443 HTTP/1.1\r\nHost: nowhere.example\r\nProxy-Authorization: Basic " + c.next() + "\r\n\r\n",
		"GET http://u:" + c.next() + "@nowhere.example/?sig=" + c.next() + " HTTP/1.1\r\nHost: nowhere.example\r\n\r\n",
		"nonsense " + c.next() + "\r\n\r\n",
	} {
		raw(t, proxy, head)
		raw(t, strings.TrimPrefix(s.ResourceManager, "https://"), head) // plain text on a TLS port
	}
	resp, err := http.Get("http://" + s.Listening(t).Admin + "/readyz?token=" + c.next())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // only the asking matters
}

func raw(t *testing.T, address, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.Replace(address, "localhost", "127.0.0.1", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, _ = b.ReadFrom(conn) // a reset is an answer too
}

// local speaks to the socket: principals with chosen passwords, rotations, a backup, a reload.
func local(t *testing.T, s *instance.Server, c *canaries) {
	for _, args := range [][]string{
		{"principal", "create", "--name", "ada", "--kind", "user", "--password", c.next() + "-long-enough"},
		{"principal", "create", "--name", "builder"},
		{"principal", "rotate", "builder"},
		{"keys", "rotate"}, {"keys", "rotate", "installation"}, {"keys", "rotate", "authority"},
		{"backup", "--to", filepath.Join(t.TempDir(), "backups")},
	} {
		out, errs, err := s.Run(t.Context(), append(args, "--data", s.Data)...)
		if err != nil {
			t.Fatalf("embargo %v: %v: %s", args, err, errs)
		}
		var made struct{ Secret string }
		if json.Unmarshal([]byte(out), &made) == nil && made.Secret != "" {
			c.add(made.Secret)
		}
	}
	key, err := os.ReadFile(filepath.Join(s.Data, "installation.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(key)) {
		if len(field) > 20 {
			c.add(field)
		}
	}
}

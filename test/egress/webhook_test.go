// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// delivery is a request as a receiver got it.
type delivery struct {
	header http.Header
	body   []byte
}

func (d delivery) get(path string) string { return instance.Answer{Body: d.body}.Get(path) }

// receiver is a real HTTP server on loopback that answers as it is told and hands on what it got.
type receiver struct {
	*httptest.Server
	status atomic.Int64
	got    chan delivery
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{got: make(chan delivery, 100)}
	r.status.Store(http.StatusOK)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body) // cut short, it fails the comparison
		w.Header().Set("X-Receiver", "here")
		w.WriteHeader(int(r.status.Load()))
		_, _ = io.WriteString(w, "thanks")
		r.got <- delivery{req.Header, body}
	}))
	t.Cleanup(r.Close)
	return r
}

// next waits for the next delivery.
func (r *receiver) next(t *testing.T) delivery {
	t.Helper()
	select {
	case d := <-r.got:
		return d
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was delivered")
		return delivery{}
	}
}

func (r *receiver) port(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func hookAt(c *instance.Server, registry, name string) string {
	return c.RegistryID(registry) + "/webhooks/" + name
}

func makeHook(t *testing.T, c *instance.Server, registry, name, uri string, more j) {
	t.Helper()
	properties := j{"serviceUri": uri, "actions": []string{"push", "delete"}}
	for k, v := range more {
		properties[k] = v
	}
	want(t, c.ARM(http.MethodPut, hookAt(c, registry, name)+instance.Version, j{"location": "centralus", "properties": properties}), http.StatusOK)
}

// TestWebhookDelivers: through the built binary, a push and a delete arrive as ACR sends them, signed and with the customer's headers; what the receiver could not
// take arrives after the server was killed.
func TestWebhookDelivers(t *testing.T) {
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			r := newReceiver(t)
			s := instance.New(t, kind, "webhooks:\n  destinations: [\""+r.Listener.Addr().String()+"\"]\n")
			s.CreateRegistry("cargoone", nil)
			makeHook(t, s, "cargoone", "hookone", r.URL+"/secret/path", j{"customHeaders": j{"Authorization": "Basic c2VjcmV0"}, "scope": "app:*"})
			hook := func(action string) instance.Answer {
				return s.ARM(http.MethodPost, hookAt(s, "cargoone", "hookone")+"/"+action+instance.Version, nil)
			}
			key, err := base64.StdEncoding.DecodeString(hook("getCallbackConfig").Get("signingKey"))
			if err != nil || len(key) != 32 {
				t.Fatalf("the signing key: %v, %d bytes", err, len(key))
			}
			check := func(d delivery) {
				t.Helper()
				m := hmac.New(sha256.New, key)
				m.Write(d.body)
				if d.header.Get("X-Embargo-Signature") != "sha256="+hex.EncodeToString(m.Sum(nil)) || d.header.Get("Authorization") != "Basic c2VjcmV0" ||
					d.header.Get("Content-Type") != "application/json; charset=utf-8" {
					t.Errorf("the headers are %v", d.header)
				}
			}
			id := hook("ping").Get("id")
			if d := r.next(t); d.get("id") != id || d.get("action") != "ping" {
				t.Errorf("the ping %s is %s", id, d.body)
			}
			for _, repo := range []string{"other", "app"} { // the first is out of scope
				if _, err := s.PushImage("cargoone", repo, "v1", []byte("layer of "+repo)); err != nil {
					t.Fatal(err)
				}
			}
			d := r.next(t)
			check(d)
			digest := d.get("target.digest")
			if d.get("action") != "push" || d.get("target.repository") != "app" || d.get("target.tag") != "v1" || d.get("target.mediaType") != instance.ManifestType ||
				!strings.HasPrefix(digest, "sha256:") || d.get("target.size") == "" || d.get("target.size") != d.get("target.length") ||
				d.get("request.host") != s.LoginServer("cargoone") || d.get("request.method") != "PUT" || d.get("request.id") == "" {
				t.Errorf("the push is %s", d.body)
			}
			if _, err := time.Parse(time.RFC3339Nano, d.get("timestamp")); err != nil {
				t.Errorf("its time: %v", err)
			}
			// The receiver is out of order while a manifest is deleted, and the server is killed.
			r.status.Store(http.StatusServiceUnavailable)
			a, err := s.OCI("cargoone", "app", http.MethodDelete, "/v2/app/manifests/"+digest, nil)
			if err != nil || a.Status != http.StatusAccepted {
				t.Fatalf("delete: %v %d", err, a.Status)
			}
			failed := r.next(t)
			s.Kill()
			r.status.Store(http.StatusOK)
			s.Start()
			d = r.next(t)
			check(d)
			if d.get("id") != failed.get("id") || d.get("action") != "delete" || d.get("target.digest") != digest || d.get("target.repository") != "app" || d.get("request.method") != "DELETE" {
				t.Errorf("the delete is %s", d.body)
			}
			listed(t, hook, d.get("id"))
		})
	}
}

// listed waits until listEvents tells of the delivery, and sees that it shows no secret.
func listed(t *testing.T, hook func(string) instance.Answer, id string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		a := hook("listEvents")
		want(t, a, http.StatusOK)
		if strings.Contains(string(a.Body), "c2VjcmV0") || strings.Contains(string(a.Body), "secret/path") {
			t.Fatalf("the events show a secret: %s", a.Body)
		}
		var list struct {
			Value []struct {
				ID       string
				Request  struct{ Method, RequestURI string } `json:"eventRequestMessage"`
				Response *struct {
					Content, StatusCode, ReasonPhrase string
					Headers                           map[string]string
				} `json:"eventResponseMessage"`
			}
		}
		if err := json.Unmarshal(a.Body, &list); err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Value {
			if e.ID == id && e.Response != nil && e.Response.StatusCode == "200" {
				if e.Response.Content != "thanks" || e.Response.Headers["X-Receiver"] != "here" || e.Response.ReasonPhrase != "OK" || e.Request.Method != "POST" || len(list.Value) != 3 {
					t.Errorf("the events are %s", a.Body)
				}
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the event %s is not listed as delivered: %s", id, a.Body)
		}
	}
}

// TestR13EventsStayInside: a locked registry tells only destinations that the operator lists, whatever its webhooks say; each attempt and each refusal is on
// record; and no webhook, locked or not, reaches an address inside that is not listed.
func TestR13EventsStayInside(t *testing.T) {
	declared, outside := newReceiver(t), newReceiver(t)
	door := instance.FreePort(t)
	s := instance.New(t, "sqlite", "webhooks:\n  destinations: [\""+declared.Listener.Addr().String()+"\", \"127.0.0.2:"+outside.port(t)+"\"]\n"+
		"privateListeners:\n  - address: "+door+"\n    registry: cargoone\n    tls: false\n")
	s.CreateRegistry("cargoone", nil)
	// A name of the machine is no address: the rule for it is found out when it is resolved.
	for _, uri := range []string{outside.URL, "http://" + s.Listening(t).Public, "http://[::1]:1/", "http://0.0.0.0:1/"} {
		a := s.ARM(http.MethodPut, hookAt(s, "cargoone", "hooknone")+instance.Version, j{"location": "centralus", "properties": j{"serviceUri": uri, "actions": []string{"push"}}})
		want(t, a, http.StatusBadRequest, "webhooks.destinations")
	}
	makeHook(t, s, "cargoone", "hookname", "http://localhost:"+outside.port(t)+"/", nil)
	makeHook(t, s, "cargoone", "hookinside", declared.URL, nil)
	if _, err := s.PushImage("cargoone", "app", "v1", []byte("one")); err != nil {
		t.Fatal(err)
	}
	declared.next(t)
	events := func(name string) string {
		a := s.ARM(http.MethodPost, hookAt(s, "cargoone", name)+"/listEvents"+instance.Version, nil)
		want(t, a, http.StatusOK)
		return string(a.Body)
	}
	told := func(name, text string) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for !strings.Contains(events(name), text) {
			if time.Now().After(deadline) {
				t.Fatalf("the events of %s do not say %q: %s", name, text, events(name))
			}
		}
	}
	told("hookname", "not an address of the public Internet")
	want(t, s.Lock("cargoone"), http.StatusOK)
	for _, name := range []string{"hookname", "hookinside"} {
		want(t, s.ARM(http.MethodPost, hookAt(s, "cargoone", name)+"/ping"+instance.Version, nil), http.StatusOK)
	}
	if d := declared.next(t); d.get("action") != "ping" {
		t.Errorf("the declared destination got %s", d.body)
	}
	told("hookname", "has exports disabled")
	s.Recorded(t.Context(), "the event that was sent", func(r map[string]any) bool {
		return r["route"] == "R13" && r["outcome"] == "completed" && strings.Contains(r["reference"].(string), declared.URL)
	})
	s.Recorded(t.Context(), "the event that was refused", func(r map[string]any) bool {
		return r["route"] == "R13" && r["outcome"] == "refused" && r["rule"] == "exportPolicy"
	})
	select {
	case d := <-outside.got:
		t.Errorf("a destination that is not listed got %s", d.body)
	default:
	}
}

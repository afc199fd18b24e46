// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/webhook"
)

// post is an event as a receiver got it.
type post struct {
	ID, Action string
	Timestamp  time.Time
	Target     struct{ Digest, Repository, Tag, Name, Version string }
	Request    struct{ Method string }

	answered int // the status that it was answered
}

// listener is a real receiver that answers what status says, and a webhook's service that may reach it.
type listener struct {
	w      *world
	ring   *meta.Keyring
	server *httptest.Server
	status atomic.Int64
	// refuses is the tag whose events get refusal.
	refuses atomic.Value
	refusal atomic.Int64
	got     chan post
}

func listen(t *testing.T, w *world) *listener {
	t.Helper()
	l := &listener{w: w, got: make(chan post, 1000)}
	l.ring = must[*meta.Keyring](t)(meta.NewKeyring(filepath.Join(t.TempDir(), "key")))
	l.status.Store(200)
	l.refuses.Store("")
	l.refusal.Store(400)
	l.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var p post
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &p)
		}
		if err != nil {
			p.Action = err.Error()
		}
		status := int(l.status.Load())
		if p.Target.Tag != "" && p.Target.Tag == l.refuses.Load() {
			status = int(l.refusal.Load())
		}
		p.answered = status
		if r.URL.Path != "/" {
			p.Action = "followed to " + r.URL.Path
		}
		rw.Header().Set("Location", "/elsewhere") // followed when the status says so
		rw.WriteHeader(status)
		l.got <- p
	}))
	t.Cleanup(l.server.Close)
	return l
}

// deliver runs the jobs of webhooks until stop is called or the test ends.
func (l *listener) deliver(t *testing.T) (stop func()) {
	t.Helper()
	d := must[*dial.Dialer](t)(dial.New(dial.Options{Rules: map[dial.Purpose]dial.Rule{dial.DeclaredWebhook: {To: []string{l.server.Listener.Addr().String()}, Inside: true}}}))
	s := must[*webhook.Service](t)(webhook.New(webhook.Options{DB: l.w.db, Keyring: l.ring, Dial: d, Release: l.w.reg.ReleaseEvent, Agent: "test"}))
	r := must[*job.Runner](t)(job.New(job.Options{DB: l.w.db, Node: "test"}))
	l.w.reg.Handle(r)
	s.Handle(r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx); close(done) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the runner: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// hook makes a webhook of a registry.
func (l *listener) hook(t *testing.T, h *host, label, scope string, actions ...string) webhook.Hook {
	t.Helper()
	hook := webhook.Hook{ID: label, Registry: h.row.ID, Resource: h.row.ResourceID + "/webhooks/" + label, Enabled: true, Scope: scope, Actions: actions}
	err := l.w.db.Write(context.Background(), func(tx *meta.Tx) error {
		if err := webhook.Configure(tx, l.ring, hook.ID, webhook.Config{URI: l.server.URL}); err != nil {
			return err
		}
		return webhook.Put(tx, hook)
	})
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

func (l *listener) next(t *testing.T) post {
	t.Helper()
	select {
	case p := <-l.got:
		return p
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was delivered")
		return post{}
	}
}

// quiet waits until all is sent that can be sent now.
func (l *listener) quiet(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for busy := 1; busy > 0; {
		err := l.w.db.Read(context.Background(), func(tx *meta.Tx) error {
			return tx.Row(`SELECT COUNT(*) FROM jobs WHERE status = 'Running' OR status = 'Accepted' AND run_at_us <= $1`, meta.Micros(tx.Now())).Scan(&busy)
		})
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%d jobs are at work: %v", busy, err)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

// count is how many events are in a state.
func (l *listener) count(t *testing.T, state string) (n int) {
	t.Helper()
	err := l.w.db.Read(context.Background(), func(tx *meta.Tx) error {
		return tx.Row(`SELECT COUNT(*) FROM webhook_events WHERE state = $1`, state).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// until waits until so many events are in a state.
func (l *listener) until(t *testing.T, state string, n int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for got := l.count(t, state); got != n; got = l.count(t, state) {
		if time.Now().After(deadline) {
			t.Fatalf("%d events are %s, want %d", got, state, n)
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
}

// TestEvents: what changes a registry is told once, in order, with what it was; what did not happen is not told.
func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h, l := w.registry("one"), listen(t, w)
		l.hook(t, h, "all", "", "push", "delete")
		l.deliver(t)
		first := name.DigestOf(h.image("app", "v1", "a"))
		h.image("app", "", "b")
		h.do(400, "PUT", "/v2/app/manifests/v2", []byte("{"), "Content-Type", mediaImage)
		h.do(202, "DELETE", "/v2/app/manifests/v1", nil) // a tag: ACR tells nothing of it
		h.do(202, "DELETE", "/v2/app/manifests/"+string(first), nil)
		h.do(202, "DELETE", "/acr/v1/app", nil)
		for i, want := range []struct{ action, tag, method string }{{"push", "v1", "PUT"}, {"push", "", "PUT"}, {"delete", "", "DELETE"}, {"delete", "", "DELETE"}} {
			p := l.next(t)
			if p.Action != want.action || p.Target.Tag != want.tag || p.Request.Method != want.method || p.Target.Repository != "app" || (p.Target.Digest == "") != (i == 3) ||
				(p.Target.Digest == string(first)) != (i == 0 || i == 2) {
				t.Errorf("event %d is %+v", i, p)
			}
		}
		l.until(t, "delivered", 4)
	})
}

// TestEventsOfTheBin: what is deleted under softDeletePolicy is told like what is deleted for good, a manifest and a whole repository.
func TestEventsOfTheBin(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h, l := w.registry("one", func(r *meta.RegistryRow) { r.SoftDelete, r.SoftDeleteDays = true, 7 }), listen(t, w)
		l.hook(t, h, "deletes", "", "delete")
		l.deliver(t)
		first := string(name.DigestOf(h.image("app", "v1", "a")))
		h.image("app", "v2", "b")
		h.do(202, "DELETE", "/v2/app/manifests/"+first, nil)
		h.do(202, "DELETE", "/acr/v1/app", nil)
		for _, digest := range []string{first, ""} {
			if p := l.next(t); p.Action != "delete" || p.Target.Repository != "app" || p.Target.Digest != digest {
				t.Errorf("the deletion of %q is told as %+v", digest, p)
			}
		}
		l.until(t, "delivered", 2)
	})
}

// TestCharts: a Helm chart is told under the charts' own action, with its name and version.
func TestCharts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	h, l := w.registry("one"), listen(t, w)
	l.hook(t, h, "charts", "", "chart_push", "chart_delete")
	l.deliver(t)
	h.image("app", "v1", "no chart")
	config, layer := []byte(`{"name":"web"}`), []byte("chart")
	h.blob("charts/web", config)
	h.blob("charts/web", layer)
	chart := []byte(`{"schemaVersion":2,"mediaType":"` + mediaImage + `","config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"` +
		string(name.DigestOf(config)) + `","size":14},"layers":[` + descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", layer) + `]}`)
	h.manifest("charts/web", "1.2.0", mediaImage, chart)
	if p := l.next(t); p.Action != "chart_push" || p.Target.Name != "web" || p.Target.Version != "1.2.0" {
		t.Errorf("the push is told as %+v", p)
	}
	h.do(202, "DELETE", "/v2/charts/web/manifests/"+string(name.DigestOf(chart)), nil)
	if p := l.next(t); p.Action != "chart_delete" || p.Target.Name != "web" {
		t.Errorf("the delete is told as %+v", p)
	}
}

// TestOutage: events of before and of during an outage of a day arrive after it, in their order and each under its id; the server restarts meanwhile.
func TestOutage(t *testing.T) {
	t.Parallel()
	db, passed := metatest.Passing(t)
	w := newWorld(t, db)
	h, l := w.registry("one"), listen(t, w)
	l.hook(t, h, "all", "", "push")
	stop := l.deliver(t)
	l.status.Store(503)
	h.image("app", "v1", "a")
	first := l.next(t)
	for range 4 {
		l.quiet(t)
		passed.Add(int64(6 * time.Hour))
		if p := l.next(t); p.ID != first.ID { // the later event waits for the first
			t.Fatalf("in the outage the receiver got %+v", p)
		}
		if stop != nil {
			h.image("app", "v2", "b")
			stop()
			stop = nil
			l.deliver(t)
		}
	}
	l.status.Store(200)
	passed.Add(int64(11 * time.Minute))
	seen := map[string]bool{}
	var order []string
	for len(order) < 2 {
		p := l.next(t)
		if p.answered != 200 && p.ID != first.ID {
			t.Errorf("in the outage the receiver got %+v", p)
		}
		if !seen[p.ID] {
			seen[p.ID] = true
			order = append(order, p.Target.Tag)
		}
	}
	if order[0] != "v1" || order[1] != "v2" || !seen[first.ID] {
		t.Errorf("after the outage %v arrived", order)
	}
	l.until(t, "delivered", 2)
	// What is three days old is given up.
	l.status.Store(500)
	h.image("app", "v3", "c")
	l.next(t)
	passed.Add(int64(73 * time.Hour))
	l.until(t, "failed", 1)
}

// TestRefusedEventsHoldUpNothing: an event that the receiver refuses is tried again, and the others go on.
func TestRefusedEventsHoldUpNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	h, l := w.registry("one"), listen(t, w)
	l.hook(t, h, "all", "app:*", "push")
	l.refuses.Store("bad")
	h.image("app", "bad", "a")
	h.image("app", "good", "b")
	l.deliver(t)
	if one, two := l.next(t), l.next(t); one.Target.Tag != "bad" || two.Target.Tag != "good" {
		t.Fatalf("%+v, %+v", one, two)
	}
	l.refuses.Store("")
	if p := l.next(t); p.Target.Tag != "bad" {
		t.Errorf("again: %+v", p)
	}
	l.until(t, "delivered", 2)
	if n := w.count("jobs"); n > 2 { // what is over is forgotten
		t.Errorf("%d jobs are left", n)
	}
}

// TestTroubleWithOneEvent: an event that the receiver breaks on holds the others up for a few attempts alone.
func TestTroubleWithOneEvent(t *testing.T) {
	t.Parallel()
	db, passed := metatest.Passing(t)
	w := newWorld(t, db)
	h, l := w.registry("one"), listen(t, w)
	l.hook(t, h, "all", "", "push")
	l.refusal.Store(500)
	l.refuses.Store("bad")
	h.image("app", "bad", "a")
	h.image("app", "good", "b")
	l.deliver(t)
	for n := 1; ; n++ {
		p := l.next(t)
		if p.Target.Tag == "good" {
			break
		}
		if n == 10 {
			t.Fatal("after ten attempts at the first event the second one has not come")
		}
		passed.Add(int64(5 * time.Second)) // more than it waits after each of the first attempts
	}
	l.refuses.Store("")
	passed.Add(int64(time.Hour))
	l.until(t, "delivered", 2)
}

// TestRedirectIsNotFollowed: an event goes where its webhook says, and not where the receiver sends it on to.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	h, l := w.registry("one"), listen(t, w)
	l.hook(t, h, "all", "", "push")
	l.status.Store(http.StatusTemporaryRedirect)
	h.image("app", "v1", "a")
	l.deliver(t)
	for range 2 {
		if p := l.next(t); p.Action != "push" {
			t.Errorf("the event was %s", p.Action)
		}
	}
}

// TestNoDestination: an event of a webhook whose secrets were lost is not sent, and says what to do; an event of a disabled one is not sent either.
func TestNoDestination(t *testing.T) {
	t.Parallel()
	w := newWorld(t, metatest.Open(t, metatest.URL(t, "sqlite")))
	h, l := w.registry("one"), listen(t, w)
	lost, off := l.hook(t, h, "lost", "", "push"), l.hook(t, h, "off", "", "push")
	h.image("app", "v1", "a")
	off.Enabled = false
	err := w.db.Write(context.Background(), func(tx *meta.Tx) error {
		if err := webhook.Put(tx, off); err != nil {
			return err
		}
		return tx.DeleteSecret(webhook.SecretPrefix + lost.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
	h.image("app", "v2", "b") // of this one the disabled webhook does not hear at all
	l.deliver(t)
	l.until(t, "failed", 3)
	for id, want := range map[string]string{lost.ID: "set serviceUri", off.ID: "was disabled"} {
		var events []webhook.Sent
		err := w.db.Read(context.Background(), func(tx *meta.Tx) (err error) { events, err = webhook.Events(tx, id); return err })
		if err != nil || len(events) == 0 || events[0].Response == nil || !strings.Contains(events[0].Response.Content, want) {
			t.Errorf("the events of %s: %v %+v", id, err, events)
		}
	}
	if len(l.got) > 0 {
		t.Errorf("something was sent: %+v", <-l.got)
	}
}

// TestEventsAreBounded: what is over goes in time, or when there is too much of it.
func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	db, passed := metatest.Passing(t)
	w := newWorld(t, db)
	h, l := w.registry("one"), listen(t, w)
	hook := l.hook(t, h, "all", "", "push")
	ping := func(n int) {
		t.Helper()
		for range n { // each in its own transaction, so that each has its own time
			if err := db.Write(context.Background(), func(tx *meta.Tx) error { _, err := webhook.Ping(tx, hook, ""); return err }); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.deliver(t)
	ping(3)
	l.until(t, "delivered", 3)
	passed.Add(int64(8 * 24 * time.Hour))
	ping(1)
	l.until(t, "delivered", 1)
}

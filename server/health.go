// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// readiness answers /healthz (the process runs), /readyz (it can serve; if not, why not) and /metrics. It is served on the admin listener alone.
type readiness struct {
	state   atomic.Int32 // 0 starting, 1 serving, 2 stopping
	checks  []check
	metrics http.Handler
	log     *slog.Logger
}

// check is a part that may fail. Its reason is for operators and is not shown to anyone else.
type check struct {
	name string
	fn   func(ctx context.Context) error
	// mild: the server serves without it, and is ready.
	mild bool
}

// checks are what readiness looks at.
func (s *Server) checks() []check {
	r := s.rooms
	return []check{
		{name: "database", fn: s.db.Ping},
		{name: "endpoints", fn: func(context.Context) error { return s.doorsFailed() }, mild: true},
		{name: "dns", fn: func(context.Context) error { return s.resolversFailed() }, mild: true},
		{name: "audit", fn: func(context.Context) error { return r.audit.Healthy() }},
		{name: "lease", fn: func(context.Context) error {
			if !r.lease.Valid() {
				return errors.New("the node's lease in the database has ended")
			}
			return nil
		}},
		{name: "jobs", fn: func(context.Context) error { return r.jobs.Healthy() }},
		{name: "disk", fn: func(context.Context) error {
			free, _, err := diskSpace(s.o.Data)
			if err == nil && free < uint64(s.o.MinFreeDisk) {
				err = fmt.Errorf("%d MiB are free on the disk of %s, and minFreeDisk is %d MiB: free space or enlarge the disk", free>>20, s.o.Data, s.o.MinFreeDisk>>20)
			}
			return err
		}},
	}
}

func (h *readiness) started()  { h.state.CompareAndSwap(0, 1) }
func (h *readiness) stopping() { h.state.Store(2) }

// Finding is how a check went.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

func (h *readiness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer net500(w, r, h.log)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		reply(w, http.StatusMethodNotAllowed, map[string]string{"status": "this is read with GET"})
		return
	}
	switch r.URL.Path {
	case "/healthz":
		reply(w, http.StatusOK, map[string]string{"status": "alive"})
	case "/readyz":
		findings, ready := h.look(r.Context())
		status := http.StatusOK
		if !ready {
			status = http.StatusServiceUnavailable
		}
		reply(w, status, map[string]any{"ready": ready, "checks": findings})
	case "/metrics":
		h.metrics.ServeHTTP(w, r)
	default:
		reply(w, http.StatusNotFound, map[string]string{"status": "there are /healthz, /readyz and /metrics here"})
	}
}

func (h *readiness) look(ctx context.Context) ([]Finding, bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	state := Finding{Name: "server", OK: h.state.Load() == 1}
	switch h.state.Load() {
	case 0:
		state.Reason = "it is starting"
	case 2:
		state.Reason = "it is stopping"
	}
	findings, ready := []Finding{state}, state.OK
	for _, c := range h.checks {
		f := Finding{Name: c.name, OK: true}
		if err := c.fn(ctx); err != nil {
			f.OK, f.Reason, ready = false, err.Error(), ready && c.mild
		}
		findings = append(findings, f)
	}
	return findings, ready
}

// net500, deferred, is the net for panics of the administrator's own doors: a 500 with the id under which the log has it.
func net500(w http.ResponseWriter, r *http.Request, log *slog.Logger) {
	cause := recover()
	if cause == nil {
		return
	}
	id := newID()
	log.Error("panic", "id", id, "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	reply(w, http.StatusInternalServerError, map[string]any{"error": map[string]string{"code": "InternalServerError",
		"message": "The server met an unexpected condition. The log has the cause under the id " + id + "."}})
}

func reply(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

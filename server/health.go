// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"
)

// readiness answers /healthz (the process runs) and /readyz (it can serve; if not, why not). It is served on the admin
// listener alone.
type readiness struct {
	state  atomic.Int32 // 0 starting, 1 serving, 2 stopping
	checks []check
}

// check is a part that may fail. Its reason is for operators and is not shown to anyone else.
type check struct {
	name string
	fn   func(ctx context.Context) error
}

func (h *readiness) started()  { h.state.CompareAndSwap(0, 1) }
func (h *readiness) stopping() { h.state.Store(2) }

type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

func (h *readiness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	default:
		reply(w, http.StatusNotFound, map[string]string{"status": "there are /healthz and /readyz here"})
	}
}

func (h *readiness) look(ctx context.Context) ([]finding, bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	state := finding{Name: "server", OK: h.state.Load() == 1}
	switch h.state.Load() {
	case 0:
		state.Reason = "it is starting"
	case 2:
		state.Reason = "it is stopping"
	}
	findings, ready := []finding{state}, state.OK
	for _, c := range h.checks {
		f := finding{Name: c.name, OK: true}
		if err := c.fn(ctx); err != nil {
			f.OK, f.Reason, ready = false, err.Error(), false
		}
		findings = append(findings, f)
	}
	return findings, ready
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

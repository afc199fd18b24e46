// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/embargo-registry/embargo/fault"
)

// errorBody is the protocol's error envelope. Source: OCI distribution 1.1, section "Error Codes".
type errorBody struct {
	Errors []errorItem `json:"errors"`
}

type errorItem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

// fail is the one place that writes an error.
func (x *exchange) fail(err error) {
	f := fault.From(err)
	if f.Status() >= 500 {
		x.s.o.Log.LogAttrs(x.r.Context(), slog.LevelError, "request failed", slog.String("id", x.call.Correlation),
			slog.String("method", x.r.Method), slog.String("path", clip(x.r.URL.Path)), slog.String("error", err.Error()))
	}
	h := x.w.Header()
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10))
	}
	for _, name := range []string{"Cache-Control", "Etag", "Docker-Content-Digest", "Content-Length"} {
		h.Del(name)
	}
	var items []errorItem
	for _, d := range f.Details {
		items = append(items, errorItem{d.Kind.OCI(), d.Message, d.Data})
	}
	if items == nil {
		items = []errorItem{{f.Kind.OCI(), f.Message, f.Data}}
	}
	// A client that has gone can't be told.
	_ = x.json(f.Status(), errorBody{items})
}

// json answers a body. HEAD gets its headers.
func (x *exchange) json(status int, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	h := x.w.Header()
	if h.Get("Content-Type") == "" || status >= 400 {
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(data) // the client has gone if it fails
	}
	return nil
}

// empty answers without a body.
func (x *exchange) empty(status int) error {
	if status != http.StatusNoContent && status != http.StatusNotModified {
		x.w.Header().Set("Content-Length", "0")
	}
	x.w.WriteHeader(status)
	return nil
}

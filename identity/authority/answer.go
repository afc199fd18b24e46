// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/embargo-registry/embargo/fault"
)

// refusal is an error of OAuth (RFC 6749, section 5.2) with the number under which Azure's clients know it.
type refusal struct {
	status int
	code   string
	number int
	text   string
	cause  error
}

func (e *refusal) Error() string { return e.code + ": " + e.text }

func (e *refusal) Unwrap() error { return e.cause }

func refused(status int, code string, number int, format string, args ...any) *refusal {
	return &refusal{status: status, code: code, number: number, text: fmt.Sprintf(format, args...)}
}

func (e *refusal) because(err error) *refusal { e.cause = err; return e }

// refusalOf is the refusal in err; what is none becomes one by its fault's status, and its cause stays inside.
func refusalOf(err error) *refusal {
	var e *refusal
	if errors.As(err, &e) {
		return e
	}
	f := fault.From(err)
	code := "server_error"
	switch {
	case f.Status() == http.StatusServiceUnavailable || f.Status() == http.StatusTooManyRequests:
		code = "temporarily_unavailable"
	case f.Status() < http.StatusInternalServerError:
		code = "invalid_request"
	}
	return &refusal{status: f.Status(), code: code, number: 90033, text: f.Message, cause: err}
}

// errorBody is how Azure's token endpoint words an error. Source: Microsoft identity platform, "Error response".
type errorBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Codes       []int  `json:"error_codes"`
	Timestamp   string `json:"timestamp"`
	Trace       string `json:"trace_id"`
	Correlation string `json:"correlation_id"`
}

// fail is the one place that writes an error.
func (x *exchange) fail(err error) {
	e := refusalOf(err)
	if e.status >= http.StatusInternalServerError {
		x.a.o.Log.LogAttrs(x.r.Context(), slog.LevelError, "authority request failed", slog.String("id", x.id), slog.String("path", clip(x.r.URL.Path)), slog.String("error", err.Error()))
	}
	var f *fault.Fault
	if errors.As(err, &f) && f.RetryAfter > 0 {
		x.w.Header().Set("Retry-After", strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10))
	}
	correlation := x.id
	if c := x.r.Header.Get("Client-Request-Id"); isGUID(c) {
		correlation = c
	}
	x.json(e.status, errorBody{Error: e.code, Description: fmt.Sprintf("AADSTS%d: %s Trace ID: %s", e.number, e.text, x.id), Codes: []int{e.number},
		Timestamp: x.a.o.Clock().UTC().Format("2006-01-02 15:04:05Z"), Trace: x.id, Correlation: correlation})
}

// json answers a body of the package's own types, which always marshal.
func (x *exchange) json(status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		x.a.o.Log.Error("an answer does not marshal", "id", x.id, "error", err)
		status, data = http.StatusInternalServerError, []byte(`{"error":"server_error"}`)
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(data) // the client has gone if it fails
	}
}

// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// request is one HTTP exchange.
type request struct {
	e     *Engine
	w     http.ResponseWriter
	r     *http.Request
	ctx   context.Context
	id    string // x-ms-request-id
	corr  string // x-ms-correlation-request-id
	query map[string]string

	caller    identity.Caller
	known     bool // the caller has been authenticated
	provider  bool // what goes wrong from here on is told by the resource provider, not by ARM's front door
	supported []string
	target    name.ResourceID // for the record of a refusal
	action    string
	subName   string // the name after a GET action: privateLinkResources/{name}
}

// reply is an answer that is not an error.
type reply struct {
	status int
	header map[string]string
	body   []byte
}

// ServeHTTP answers one request of the management endpoint.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rq := &request{e: e, w: w, r: r, ctx: r.Context(), id: e.newID()}
	rq.corr = rq.id
	if given := r.Header.Get("x-ms-correlation-request-id"); isGUID(given) {
		rq.corr = strings.ToLower(given)
	}
	rq.headers()
	if err := rq.serve(); err != nil {
		rq.fail(err)
	}
}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

func isGUID(s string) bool { return guid.MatchString(s) }

// headers are those that every answer of ARM carries. Source: ARM RPC, "Common API response details".
func (rq *request) headers() {
	h := rq.w.Header()
	h.Set("x-ms-request-id", rq.id)
	h.Set("x-ms-correlation-request-id", rq.corr)
	h.Set("x-ms-routing-request-id", fmt.Sprintf("EMBARGO:%s:%s", time.Now().UTC().Format("20060102T150405Z"), rq.id))
	kind, left := "reads", "11999"
	switch rq.r.Method {
	case http.MethodPut, http.MethodPatch, http.MethodPost:
		kind, left = "writes", "1199"
	case http.MethodDelete:
		kind, left = "deletes", "14999"
	}
	h.Set("x-ms-ratelimit-remaining-subscription-"+kind, left)
	h.Set("Cache-Control", "no-cache")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "-1")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
	if client := rq.r.Header.Get("x-ms-client-request-id"); strings.EqualFold(rq.r.Header.Get("x-ms-return-client-request-id"), "true") && printable(client) {
		h.Set("x-ms-client-request-id", client)
	}
}

func printable(s string) bool {
	return s != "" && len(s) <= 128 && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}

func (rq *request) serve() error {
	segments, err := pathSegments(rq.r.URL.EscapedPath())
	if err != nil {
		return err
	}
	if err := rq.authenticate(); err != nil {
		return err
	}
	if rq.query, err = parseQuery(rq.r.URL.RawQuery); err != nil {
		return err
	}
	if done, err := rq.route(segments); done {
		return err
	}
	return rq.dispatch(segments)
}

// pathSegments splits a path as it came, so that an escaped slash stays part of its segment and is refused there.
func pathSegments(escaped string) ([]string, error) {
	segments := name.Segments(escaped)
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || strings.Contains(plain, "/") {
			return nil, fault.New(fault.InvalidParameter, "The segment '%s' of the path is not a name.", clip(s))
		}
		segments[i] = plain
	}
	return segments, nil
}

// parseQuery reads query parameters; their names are compared without regard to case. One that is given twice must say the same.
func parseQuery(raw string) (map[string]string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fault.New(fault.InvalidParameter, "The query of the request is malformed.").Because(err)
	}
	q := map[string]string{}
	for _, key := range sortedKeys(values) {
		for _, v := range values[key] {
			low := strings.ToLower(key)
			if was, twice := q[low]; twice && was != v {
				return nil, fault.New(fault.InvalidParameter, "The query parameter '%s' is given twice, with different values.", clip(key))
			}
			q[low] = v
		}
	}
	return q, nil
}

// authenticate finds the caller. Without a valid token it is 401 with a challenge that names the authority.
func (rq *request) authenticate() error {
	scheme, token, _ := strings.Cut(rq.r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if token == "" || !strings.EqualFold(scheme, "Bearer") {
		rq.challenge("")
		return fault.New(fault.MissingToken, "Authentication failed. The 'Authorization' header is missing.")
	}
	caller, err := rq.e.o.Identity.Authenticate(rq.ctx, token)
	if err != nil {
		f := fault.From(err)
		if f.Status() == http.StatusUnauthorized {
			rq.challenge(f.Message)
		}
		return err
	}
	rq.caller, rq.known = caller, true
	return nil
}

func (rq *request) challenge(why string) {
	authority := rq.e.o.Authority
	if authority == "" {
		authority = rq.base() + "/adfs"
	}
	text := fmt.Sprintf("Bearer authorization_uri=%q, error=%q", authority, "invalid_token")
	if why == "" {
		why = "The authentication failed because of missing 'Authorization' header."
	}
	rq.w.Header().Set("WWW-Authenticate", text+fmt.Sprintf(", error_description=%q", strings.ReplaceAll(why, `"`, "'")))
}

// base is the scheme and authority that the client reached us by: absolute URLs are built from it.
func (rq *request) base() string {
	scheme := "https"
	if rq.r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + rq.r.Host
}

// version finds the shape for the request's api-version among those of a namespace that the ranges hold. what is the type or
// action that the messages name.
func (rq *request) version(p *provider, rs ranges, what string) (shape, error) {
	text, ok := rq.query["api-version"]
	if !ok || text == "" {
		return shape{}, fault.New(fault.MissingAPIVersion, "The api-version query parameter (?api-version=) is required for all requests.")
	}
	rq.supported = p.served.within(rs)
	v, ok := parseVersion(text)
	if !ok {
		return shape{}, fault.New(fault.InvalidAPIVersion, "The api-version '%s' is invalid. The supported versions are '%s'.", clip(text), strings.Join(rq.supported, ","))
	}
	s, ok := p.served.resolve(v)
	if !ok || !rs.hold(s) || s.all && !rs.since(v) {
		return shape{}, rq.unservedVersion(p, rs, what)
	}
	return s, nil
}

// unservedVersion is ARM's answer to an api-version that a type does not have.
func (rq *request) unservedVersion(p *provider, rs ranges, what string) error {
	rq.supported = nil
	var names []string
	for _, l := range rq.e.o.Locations {
		names = append(names, l.Name)
	}
	return fault.New(fault.NoRegisteredProvider,
		"No registered resource provider found for location '%s' and API version '%s' for type '%s'. The supported api-versions are '%s'. The supported locations are '%s'.",
		rq.e.o.Locations[0].Name, clip(rq.query["api-version"]), what, strings.Join(p.served.within(rs), ", "), strings.Join(names, ", "))
}

// inTx runs fn in one transaction, and after its commit what fn registered for then.
func (rq *request) inTx(write bool, fn func(tx *Tx) error) error {
	var done *Tx
	body := func(m *meta.Tx) error {
		done = rq.e.newTx(m, Request{Method: rq.r.Method, APIVersion: rq.query["api-version"], Caller: rq.caller, RequestID: rq.corr, Query: rq.r.URL.Query()})
		done.rq = rq
		err := fn(done)
		if failed := done.world.src.err; failed != nil {
			return failed
		}
		return err
	}
	if !write {
		return rq.e.o.DB.Read(rq.ctx, body)
	}
	for range 8 {
		err := rq.e.o.DB.Write(rq.ctx, body)
		if errors.Is(err, errAgain) {
			continue
		}
		if err != nil {
			return err
		}
		return done.finish(context.WithoutCancel(rq.ctx))
	}
	return fault.New(fault.Conflict, "The resource is being created and deleted by others at this moment. Try again.")
}

// bodyTree reads the request's body as a JSON object; nil when there is none and it is not needed.
func (rq *request) bodyTree(needed bool) (map[string]any, error) {
	data, err := rq.body()
	if err != nil {
		return nil, err
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		if needed && rq.r.Method != http.MethodPost {
			return nil, invalidContent("", "the request has no content")
		}
		return nil, nil
	}
	v, err := ParseJSON(data)
	if err != nil {
		return nil, err
	}
	tree, ok := v.(map[string]any)
	if !ok && v != nil {
		return nil, invalidContent("", "the content must be an object and is %s", describe(v))
	}
	return tree, nil
}

// body reads the request's content, at most what ParseJSON takes and one byte more.
func (rq *request) body() ([]byte, error) {
	if rq.r.Body == nil {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(rq.r.Body, maxBody+1))
	if err != nil {
		return nil, fault.Or(err, invalidContent("", "it ended too early"))
	}
	if len(data) > maxBody {
		// A client that is still sending reads no answer: take in a little more of what is too long anyway.
		if _, err := io.CopyN(io.Discard, rq.r.Body, 4*maxBody); err != nil && !errors.Is(err, io.EOF) {
			rq.e.o.Log.DebugContext(rq.ctx, "the client stopped sending", "request", rq.id, "error", err)
		}
		return nil, tooLong()
	}
	return data, nil
}

func (rq *request) send(a reply) error {
	h := rq.w.Header()
	for k, v := range a.header {
		h.Set(k, v)
	}
	if len(rq.supported) > 0 {
		h.Set("api-supported-versions", strings.Join(rq.supported, ", "))
	}
	if a.body != nil {
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	if a.status == http.StatusNoContent {
		h.Del("Content-Length")
		a.body = nil
	}
	rq.w.WriteHeader(a.status)
	if rq.r.Method != http.MethodHead {
		if _, err := rq.w.Write(a.body); err != nil {
			rq.e.o.Log.DebugContext(rq.ctx, "the client left before its answer", "request", rq.id, "error", err)
		}
	}
	return nil
}

// errorBody is ARM's error envelope.
type errorBody struct {
	Error  *errorInfo `json:"error"`
	Status string     `json:"status,omitempty"`
}

type errorInfo struct {
	Code    string       `json:"code"`
	Message string       `json:"message"`
	Target  string       `json:"target,omitempty"`
	Details []*errorInfo `json:"details,omitempty"`
}

func envelopeOf(f *fault.Fault) *errorInfo {
	info := &errorInfo{Code: f.Kind.ARM(), Message: f.Message, Target: f.Target}
	for _, d := range f.Details {
		info.Details = append(info.Details, envelopeOf(d))
	}
	return info
}

// fail answers with an error, logs what the client may not see, and records a refused write.
func (rq *request) fail(err error) {
	f := fault.From(err)
	status := f.Status()
	level := rq.e.o.Log.DebugContext
	if status >= 500 {
		level = rq.e.o.Log.ErrorContext
	}
	level(rq.ctx, "request failed", "request", rq.id, "correlation", rq.corr, "method", rq.r.Method, "path", rq.r.URL.Path, "status", status, "error", err)
	rq.recordRefusal(f)
	h := rq.w.Header()
	h.Set("x-ms-error-code", f.Kind.ARM())
	if status == http.StatusNotFound && !rq.provider {
		h.Set("x-ms-failure-cause", "gateway")
	}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}
	body := errorBody{Error: envelopeOf(f)}
	if rq.provider {
		body.Status = "Failed"
	}
	data, err := marshal(body)
	if err != nil {
		data = json.RawMessage(`{"error":{"code":"InternalServerError","message":"The error could not be written."}}`)
	}
	if err := rq.send(reply{status: status, body: data}); err != nil {
		rq.e.o.Log.DebugContext(rq.ctx, "the error could not be sent", "request", rq.id, "error", err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
)

// front is what every request of a door meets first: the host rules, the request log and the net for panics.
type front struct {
	hosts network.Hosts
	door  *network.Door
	log   *slog.Logger
	// management answers under the management hosts, data under the names of registries and on private doors.
	management, data http.Handler
	metrics          *metrics
	limits           *limits
	// live reports whether this node holds its lease, so that nobody waits for a database that does not answer; nil: it always does.
	live func() bool
	// label is the first label of the login server of the private endpoint's registry; "" when it is not approved any more.
	label func(endpoint string) string
	// refused hears of requests that are refused here, by the rule: "host" (it is not served on the connection) or "limit"; nil: nobody listens.
	refused func(p *network.Peer, rule, reason string)
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	peer := f.door.Peer(r)
	rec := &recorder{ResponseWriter: w, pace: pace{http.NewResponseController(w), f.limits.pace()}, streams: r.ProtoMajor > 1}
	body := &paced{ReadCloser: r.Body, pace: rec.pace, ended: r.Body == http.NoBody}
	if !body.ended {
		r.Body = body
	}
	rec.body = body
	if rec.last = last(r); rec.last == always {
		rec.Header().Set("Connection", "close")
	}
	defer rec.begin() // the rest of net/http's buffer, and of the body, has time of its own
	door := label(f.door.Zone())
	f.metrics.inFlight.WithLabelValues(door).Inc()
	defer func() {
		if cause := recover(); cause != nil {
			f.metrics.panics.Inc()
			f.caught(rec, r, peer, cause)
		}
		took := time.Since(start)
		f.metrics.inFlight.WithLabelValues(door).Dec()
		f.metrics.request(door, f.side(r, peer), r.Method, rec.status, body.read, rec.bytes, took)
		f.note(rec, r, peer, took)
	}()
	defer f.limits.leave()
	if !f.limits.enter() {
		rec.Header().Set("Retry-After", "1")
		f.refuse(rec, peer, f.role(r, peer), "limit", fault.New(fault.TooManyRequests, "The server answers as many requests as it may at a time (maxRequests). Try again in a moment."))
		return
	}
	if f.live != nil && !f.live() {
		rec.Header().Set("Retry-After", "5")
		refuse(rec, f.role(r, peer), fault.New(fault.Unavailable, "This node has lost its lease in the database, which does not answer, so it decides nothing. It serves again when the lease is renewed."))
		return
	}
	f.route(rec, r, peer)
}

// lasting is whether a request must be the last one on its connection.
type lasting int

const (
	no lasting = iota
	unlessGood
	always
)

// last judges a request by its form. A message that has both a Transfer-Encoding and a Content-Length, or a Transfer-Encoding in HTTP/1.0, may hide another request behind it from a proxy that
// reads it otherwise, so nothing more may be read from its connection (RFC 9112, section 6.1). net/http takes one of the two headers away and doesn't tell. So every body in chunks counts as
// such a message: always on a door without TLS, where a proxy may stand before it, and otherwise unless it was answered with success, because clients send the layers of images in chunks.
func last(r *http.Request) lasting {
	switch {
	case r.ProtoMajor > 1:
		return no
	case !r.ProtoAtLeast(1, 1) || r.Method == http.MethodConnect:
		return always
	case len(r.TransferEncoding) == 0:
		return no
	case r.TLS == nil:
		return always
	}
	return unlessGood
}

// role is whose envelope an answer to r comes in.
func (f *front) role(r *http.Request, peer *network.Peer) network.Role {
	if peer.Kind == network.Private || f.hosts.Lookup(r.Host).Role != network.Management {
		return network.RegistryHost
	}
	return network.Management
}

// side is the label of r in the metrics.
func (f *front) side(r *http.Request, peer *network.Peer) string {
	if f.role(r, peer) == network.Management {
		return "management"
	}
	return "data"
}

// route finds who answers. A private listener serves its registry whatever the Host says, and the door of a private endpoint unless it says another registry; on a public one the name decides,
// and the name in the TLS handshake must stand for the same thing.
func (f *front) route(w http.ResponseWriter, r *http.Request, peer *network.Peer) {
	sni := ""
	if r.TLS != nil {
		sni = r.TLS.ServerName
	}
	if peer.Kind == network.Private {
		why := f.other(peer, r.Host, sni)
		if why == "" {
			f.data.ServeHTTP(w, r)
			return
		}
		f.refuse(w, peer, network.RegistryHost, "host", fault.New(fault.MisdirectedRequest, "%s", why))
		return
	}
	target, agree := f.hosts.Route(r.Host, sni)
	agree = agree || r.TLS == nil // a load balancer has ended TLS, if there was any
	why := ""
	switch {
	case slices.ContainsFunc(r.Header["Host"], func(h string) bool { return network.Normal(h) != network.Normal(r.Host) }): // RFC 9113, section 8.3.1
		why = fmt.Sprintf("The request names two hosts, '%s' and another one.", clip(r.Host))
	case target.Role == network.Foreign:
		why = fmt.Sprintf("Nothing is served here under the host '%s'.", clip(r.Host))
	case target.Private:
		why = fmt.Sprintf("The host '%s' is a name of private link, which is served inside its virtual network alone.", clip(r.Host))
	case !agree:
		why = fmt.Sprintf("The request names the host '%s', but the TLS connection was made to '%s'. Make a connection for this host.", clip(r.Host), clip(sni))
	case target.Role == network.Management:
		f.management.ServeHTTP(w, r)
		return
	default:
		f.data.ServeHTTP(w, r)
		return
	}
	f.refuse(w, peer, target.Role, "host", fault.New(fault.MisdirectedRequest, "%s", why))
}

// other is why a request on the door of a private endpoint asks for something else than the endpoint's registry: the address was another endpoint's before, or a name leads astray. A host
// that names no registry, such as the address itself, asks for the endpoint's.
func (f *front) other(peer *network.Peer, names ...string) string {
	if peer.Endpoint == "" {
		return ""
	}
	label := f.label(peer.Endpoint)
	for _, n := range names {
		if t := f.hosts.Lookup(n); t.Registry != "" && t.Registry != label {
			return fmt.Sprintf("This is a private endpoint of the registry '%s', not of '%s'. Look the name up again.", peer.Registry, clip(t.Registry))
		}
	}
	return ""
}

// refuse puts a refusal on record and answers.
func (f *front) refuse(w http.ResponseWriter, peer *network.Peer, role network.Role, rule string, why *fault.Fault) {
	if f.refused != nil {
		f.refused(peer, rule, why.Message)
	}
	refuse(w, role, why)
}

// refuse answers what no protocol has got to see yet, in the envelope of the one that the host belongs to.
func refuse(w http.ResponseWriter, role network.Role, f *fault.Fault) {
	id := newID()
	var body any = map[string]any{"error": map[string]string{"code": f.Kind.ARM(), "message": f.Message}}
	if role == network.RegistryHost || role == network.DataHost {
		body = map[string]any{"errors": []any{map[string]string{"code": f.Kind.OCI(), "message": f.Message}}}
	}
	b, err := json.Marshal(body)
	if err != nil {
		b = []byte("{}")
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if h.Get("X-Ms-Request-Id") == "" {
		h.Set("X-Ms-Request-Id", id)
		h.Set("X-Ms-Correlation-Request-Id", id)
	}
	w.WriteHeader(f.Status())
	_, _ = w.Write(b)
}

// caught turns a panic into an answer with the id under which the log has it. When an answer has begun already, the
// connection is cut instead: what was sent must not look whole.
func (f *front) caught(rec *recorder, r *http.Request, peer *network.Peer, cause any) {
	id := rec.Header().Get("X-Ms-Request-Id")
	if id == "" {
		id = newID()
	}
	f.log.Error("panic", "id", id, "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	if rec.status != 0 {
		peer.Reset()
		return
	}
	h := rec.Header()
	for name := range h {
		h.Del(name)
	}
	h.Set("X-Ms-Request-Id", id)
	h.Set("X-Ms-Correlation-Request-Id", id)
	refuse(rec, f.role(r, peer), fault.New(fault.Internal, "The server met an unexpected condition. The log has the cause under the id %s.", id))
}

// note is the request's line in the log. Headers are not logged, Authorization least of all, and neither are queries.
func (f *front) note(rec *recorder, r *http.Request, peer *network.Peer, took time.Duration) {
	level := slog.LevelInfo
	if rec.status >= 500 {
		level = slog.LevelError
	}
	if !f.log.Enabled(r.Context(), level) {
		return
	}
	line := slog.NewRecord(time.Now(), level, "request", 0) // by hand: where in the program it is logged, which slog looks up, no handler of ours shows
	line.AddAttrs(slog.String("method", r.Method), slog.String("host", clip(r.Host)), slog.String("path", clip(r.URL.Path)), slog.Int("status", rec.status),
		slog.Int64("bytes", rec.bytes), slog.Int64("ms", took.Milliseconds()), slog.String("client", peer.Addr.String()), slog.String("zone", peer.Zone.String()),
		slog.String("id", rec.Header().Get("X-Ms-Request-Id")), slog.String("correlation", rec.Header().Get("X-Ms-Correlation-Request-Id")), slog.String("agent", clip(r.UserAgent())))
	_ = f.log.Handler().Handle(r.Context(), line) // as slog does with it
}

// recorder remembers the status, counts bytes and keeps the pace. It hands on ReadFrom, so that files still leave by sendfile.
type recorder struct {
	http.ResponseWriter
	pace
	body    *paced
	last    lasting
	streams bool // HTTP/2
	status  int
	bytes   int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
		if w.last == always || w.last == unlessGood && status >= 300 {
			w.Header().Set("Connection", "close")
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	w.begin()
	defer w.end()
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

func (w *recorder) ReadFrom(r io.Reader) (int64, error) {
	w.begin()
	defer w.end()
	var n int64
	var err error
	if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		n, err = to.ReadFrom(r)
	} else {
		n, err = io.Copy(struct{ io.Writer }{w.ResponseWriter}, r)
	}
	w.bytes += n
	return n, err
}

// Flush is there for handlers that ask for http.Flusher; Unwrap serves http.ResponseController.
func (w *recorder) Flush() {
	w.begin()
	defer w.end()
	_ = w.out.Flush()
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) begin() {
	w.writing()
	if !w.body.ended && w.stall > 0 {
		// net/http takes in the rest of a body that was not read before it sends the header, and the sending has its time after that.
		now := time.Now()
		_ = w.out.SetReadDeadline(now.Add(w.stall))
		_ = w.out.SetWriteDeadline(now.Add(2 * w.stall))
	}
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// end lifts the deadline of a write that is over: an HTTP/2 stream is reset by one that passes while nothing is written.
func (w *recorder) end() {
	if w.streams && w.stall > 0 {
		_ = w.out.SetWriteDeadline(time.Time{})
	}
}

// clip makes a client's text fit for a log line and a message.
func clip(s string) string {
	if len(s) > 256 {
		s = s[:256] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// newID is a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails
	return name.UUID(b)
}

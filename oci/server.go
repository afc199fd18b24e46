// SPDX-License-Identifier: Apache-2.0

// Package oci is the distribution protocol (OCI distribution 1.1) and the token endpoints of a registry's host, over HTTP. It hides paths,
// headers, ranges, upload sessions, challenges and the error envelope; it knows no storage and no policy but the order of questions:
// may this connection enter, who is calling, may the caller do this, and only then whether what is asked exists. It
// promises that an absent repository and one that the caller may not read answer alike. It refuses what no row of its table of routes serves.
package oci

import (
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
)

// Options configure a Server. All but Random and Log are required.
type Options struct {
	DB       *meta.DB
	Identity *identity.Service
	Registry Registry
	Audit    *audit.Log
	// Locate tells which registry a request is for (on a private connection its name, on others the label of the host, in any casing) and which connection it came on. It must not believe a header
	// about the connection.
	Locate func(r *http.Request) (registry string, peer *network.Peer)
	// Entered hears of each request that the network lets in, with the row that it was let in by, before it is answered: so that a change of policy ends what it no longer lets in. False: the row is not
	// in force any more and is read again. Nil: nobody listens.
	Entered func(row meta.RegistryRow, peer *network.Peer) bool
	// Throttle bounds requests by the rates that Azure Container Registry documents.
	Throttle bool
	// Spool is the directory where large manifests lie, without a name, while they come in; "" is the system's for temporary files.
	Spool string
	// Clock is the time of those rates; nil is time.Now.
	Clock func() time.Time
	// Refused records what a registry's network rules refused, by the client's address; nil records each by Audit.
	Refused func(address string, r audit.Record)
	// Failed records a login that proved nobody; nil records each by Audit.
	Failed func(r audit.Record)
	// Random makes request ids; nil is the system's.
	Random io.Reader
	// Log gets the causes of 5xx; nil discards.
	Log *slog.Logger
}

// Server answers the requests of every registry of an installation. It is safe for concurrent use.
type Server struct {
	o        Options
	throttle *throttle // nil: unbounded
	large    chan struct{}
	files    files
}

// New makes a server.
func New(o Options) (*Server, error) {
	if o.DB == nil || o.Identity == nil || o.Registry == nil || o.Audit == nil || o.Locate == nil {
		return nil, errors.New("oci: a server needs a database, an identity service, a registry, an audit log and Locate")
	}
	if o.Refused == nil {
		o.Refused = func(_ string, r audit.Record) { o.Audit.Note(r) }
	}
	if o.Failed == nil {
		o.Failed = o.Audit.Note
	}
	if o.Entered == nil {
		o.Entered = func(meta.RegistryRow, *network.Peer) bool { return true }
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, large: make(chan struct{}, largeManifests), files: files{of: map[string]int{}}}
	if o.Throttle {
		if o.Clock == nil {
			o.Clock = time.Now
		}
		s.throttle = newThrottle(o.Clock)
	}
	return s, nil
}

// exchange is one request and its answer.
type exchange struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	at   target
	call Call
	// basic: the caller sent a password, so a token with another scope would not help.
	basic bool
	// refusal is why a credential that was sent proves nobody.
	refusal *fault.Fault
	// lacks is the verb of token scopes that a proven caller has no right to, or whose token wasn't asked for it.
	lacks string
}

// right is what a route asks of its caller on the repository (or the catalog) of its path, in the verbs of token scopes.
type right struct {
	// needs must all be held.
	needs []string
	// ask is the action list of the challenge's scope.
	ask string
}

var (
	toPull   = right{[]string{"pull"}, "pull"}
	toPush   = right{[]string{"push"}, "pull,push"}
	toDelete = right{[]string{"delete"}, "delete"}
	toList   = right{[]string{"*"}, "*"}
	toLook   = right{[]string{"metadata_read"}, "metadata_read"}
	toMark   = right{[]string{"metadata_write"}, "metadata_write"}
	toSift   = right{[]string{"deleted_read"}, "deleted_read"}
	toBring  = right{[]string{"deleted_read", "deleted_restore"}, "deleted_read,deleted_restore"}
	toEnter  = right{}
)

// route is a row of the table: what a kind of path does under a method.
type route struct {
	kind   kind
	method string
	right  right
	handle func(x *exchange) error
}

// routes is the whole protocol. HEAD is answered as GET, without the body, where it has no row of its own (RFC 9110, section 9.3.2); another method that is not here for a kind is
// answered 405.
var routes = []route{
	{kindBase, "GET", toEnter, (*exchange).base},
	{kindCatalog, "GET", toList, (*exchange).catalog},
	{kindTags, "GET", toPull, (*exchange).tags},
	{kindReferrers, "GET", toPull, (*exchange).referrers},
	{kindManifest, "GET", toPull, (*exchange).getManifest},
	{kindManifest, "HEAD", toPull, (*exchange).headManifest},
	{kindManifest, "PUT", toPush, (*exchange).putManifest},
	{kindManifest, "DELETE", toDelete, (*exchange).deleteManifest},
	{kindBlob, "GET", toPull, (*exchange).getBlob},
	{kindBlob, "HEAD", toPull, (*exchange).headBlob},
	{kindBlob, "DELETE", toDelete, (*exchange).deleteBlob},
	{kindUploads, "POST", toPush, (*exchange).beginUpload},
	{kindUpload, "GET", toPush, (*exchange).uploadStatus},
	{kindUpload, "PATCH", toPush, (*exchange).appendUpload},
	{kindUpload, "PUT", toPush, (*exchange).finishUpload},
	{kindUpload, "DELETE", toPush, (*exchange).cancelUpload},
	{kindAcrCatalog, "GET", toList, (*exchange).catalog},
	{kindAcrRepository, "GET", toLook, (*exchange).showRepository},
	{kindAcrRepository, "PATCH", toMark, (*exchange).changeAttributes},
	{kindAcrRepository, "DELETE", toDelete, (*exchange).deleteRepository},
	{kindAcrTags, "GET", toLook, (*exchange).listTags},
	{kindAcrTag, "GET", toLook, (*exchange).showTag},
	{kindAcrTag, "PATCH", toMark, (*exchange).changeAttributes},
	{kindAcrTag, "DELETE", toDelete, (*exchange).deleteManifest},
	{kindAcrManifests, "GET", toLook, (*exchange).listManifests},
	{kindAcrManifest, "GET", toLook, (*exchange).showManifest},
	{kindAcrManifest, "PATCH", right{nil, "metadata_write"}, (*exchange).changeAttributes}, // by what is changed
	{kindDeletedCatalog, "GET", toList, (*exchange).deletedCatalog},
	{kindDeletedTags, "GET", toSift, (*exchange).deletedTags},
	{kindDeletedManifests, "GET", toSift, (*exchange).deletedManifests},
	{kindDeletedManifest, "POST", toBring, (*exchange).restore},
	{kindToken, "GET", toEnter, (*exchange).tokenByGet},
	{kindToken, "POST", toEnter, (*exchange).tokenByPost},
	{kindExchange, "POST", toEnter, (*exchange).exchangeToken},
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{s: s, w: w, r: r}
	h := w.Header()
	x.call.Correlation = s.correlation(r)
	x.call.UserAgent = clip(r.UserAgent())
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Ms-Correlation-Request-Id", x.call.Correlation)
	h.Set("X-Ms-Request-Id", x.call.Correlation)
	h.Set("X-Content-Type-Options", "nosniff")
	if err := x.serve(); err != nil {
		x.fail(err)
	}
}

// policyTries is how often a request reads a policy anew that changes meanwhile.
const policyTries = 10

// serve asks the questions in their order.
func (x *exchange) serve() error {
	registry, peer := x.s.o.Locate(x.r)
	if peer == nil {
		peer = &network.Peer{}
	}
	x.call.Peer = peer
	at, malformed := parsePath(x.r.URL.Path)
	x.at = at
	row, allowed := x.find()
	var denied error
	var entered bool
	ask := func(tx *meta.Tx) error {
		denied, entered, x.refusal, x.lacks = nil, false, nil, ""
		var err error
		find := tx.RegistryByLabel
		if peer.Kind == network.Private {
			find = tx.RegistryByName
		}
		if x.call.Registry, err = find(registry); errors.Is(err, meta.ErrNotFound) {
			return fault.New(fault.NameUnknown, "There is no registry '%s' here.", clip(strings.ToLower(registry))).Because(err)
		} else if err != nil {
			return err
		}
		if denied = network.Enter(x.call.Registry, peer); denied != nil {
			return nil
		}
		entered = true
		if malformed != nil || !allowed || at.kind == kindToken || at.kind == kindExchange {
			return nil
		}
		return x.authorise(tx, row.right)
	}
	err := x.s.o.DB.Read(x.r.Context(), ask)
	for tries := 0; entered && !x.s.o.Entered(x.call.Registry, peer); tries++ {
		if tries == policyTries {
			return fault.New(fault.Unavailable, "The registry's policy changes again and again. Try again in a moment.")
		}
		err = x.s.o.DB.Read(x.r.Context(), ask)
	}
	if x.refusal != nil {
		x.recordLogin("v2", x.refusal)
	}
	switch {
	case err != nil && x.lacks != "":
		x.recordRefused(row.right, "", "AuthorizationFailed", "The caller's rights, or the token's scope, do not include '"+x.lacks+"' here.")
		return err
	case errors.Is(err, meta.ErrNotFound) && x.call.Registry.ID == "":
		x.s.o.Refused(peer.Addr.Addr().String(), x.refused(row.right, "R2", "host", fault.From(err).Message))
		return err
	case err != nil:
		return err
	case denied != nil:
		// It never got as far as the gate.
		var by network.Refusal
		_ = errors.As(denied, &by) // Enter names it
		x.s.o.Refused(peer.Addr.Addr().String(), x.refused(row.right, "R2", string(by), fault.From(denied).Message))
		return denied
	case fault.Is(malformed, fault.TagInvalid) && x.r.Method != http.MethodPut:
		// What can't be a tag is not there: that is how the protocol says it to a reader.
		return fault.New(fault.TagUnknown, "%s", fault.From(malformed).Message).Because(malformed)
	case malformed != nil:
		return malformed
	case !allowed:
		return x.notAllowed()
	}
	if x.s.throttle != nil {
		who := x.call.Caller.ID
		if row.class() == logins {
			who = "at " + peer.Addr.Addr().String()
		}
		if err := x.s.throttle.take(x.call.Registry, who, row.class()); err != nil {
			return err
		}
	}
	return row.handle(x)
}

// find is the route of the request.
func (x *exchange) find() (found route, ok bool) {
	for _, row := range routes {
		if row.kind != x.at.kind {
			continue
		}
		if row.method == x.r.Method {
			return row, true
		}
		if row.method == http.MethodGet && x.r.Method == http.MethodHead {
			found, ok = row, true
		}
	}
	return found, ok
}

func (x *exchange) notAllowed() error {
	var methods []string
	for _, row := range routes {
		if row.kind != x.at.kind || row.method == http.MethodHead {
			continue
		}
		methods = append(methods, row.method)
		if row.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	x.w.Header().Set("Allow", strings.Join(methods, ", "))
	return fault.New(fault.Unsupported, "The method %s is not supported here; %s is.", clip(x.r.Method), strings.Join(methods, ", "))
}

// recordRefused puts a refusal on record that was made before any content was looked for.
func (x *exchange) recordRefused(wanted right, route, rule, reason string) {
	x.s.o.Audit.Note(x.refused(wanted, route, rule, reason))
}

func (x *exchange) refused(wanted right, route, rule, reason string) audit.Record {
	row, c := x.call.Registry, x.call.Caller
	return audit.Record{
		Kind: audit.Decision, Action: wanted.action(), Outcome: audit.Refused, Rule: rule, Reason: reason, Route: route,
		Resource: row.ResourceID, Registry: row.ID, LoginServer: row.LoginServer, Epoch: row.Epoch,
		Repository: string(x.at.repository), Reference: x.r.Method + " " + clip(x.r.URL.Path), Digest: string(x.at.digest),
		Caller:      audit.Caller{ID: c.ID, Name: c.Name, Type: string(c.Type), Credential: c.Credential, Tenant: c.Tenant},
		Source:      x.source(),
		Correlation: x.call.Correlation,
	}
}

// action is the ARM action under which a refusal of the right is recorded.
func (r right) action() string {
	const registries = "Microsoft.ContainerRegistry/registries/"
	switch {
	case slices.Contains(r.needs, "push"):
		return registries + "push/write"
	case slices.Contains(r.needs, "delete"):
		return registries + "artifacts/delete"
	case slices.Contains(r.needs, "*"):
		return registries + "catalog/read"
	case slices.Contains(r.needs, "deleted_restore"):
		return registries + "deleted/restore/action"
	case slices.Contains(r.needs, "deleted_read"):
		return registries + "deleted/read"
	case slices.Contains(r.needs, "metadata_read"):
		return registries + "metadata/read"
	case slices.Contains(r.needs, "metadata_write"):
		return registries + "metadata/write"
	}
	return registries + "pull/read"
}

func (x *exchange) source() audit.Source {
	return audit.From(x.call.Peer, x.call.UserAgent)
}

// base answers the ping of the protocol.
func (x *exchange) base() error { return x.json(http.StatusOK, struct{}{}) }

// origin is the scheme and authority that the client reached the registry by.
func (x *exchange) origin() string {
	scheme := "http"
	if x.call.Peer.TLS {
		scheme = "https"
	}
	return scheme + "://" + x.r.Host
}

// location is a reference, without scheme and host, to what is below the repository of the request. ACR answers in this form, and its data-plane
// SDKs append what they get to the login server's address.
func (x *exchange) location(tail string) string { return "/v2/" + string(x.at.repository) + tail }

func (x *exchange) blobLocation(d name.Digest) string { return x.location("/blobs/" + string(d)) }

// correlation is the id of a request: the client's own if it has a plain one, else a random UUID.
func (s *Server) correlation(r *http.Request) string {
	for _, h := range []string{"X-Ms-Correlation-Request-Id", "X-Ms-Client-Request-Id"} {
		if id := r.Header.Get(h); plainID(id) {
			return id
		}
	}
	var b [16]byte
	if _, err := io.ReadFull(s.o.Random, b[:]); err != nil {
		return ""
	}
	return name.UUID(b)
}

func plainID(s string) bool {
	if len(s) < 8 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

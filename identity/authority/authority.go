// SPDX-License-Identifier: Apache-2.0

// Package authority is the HTTP side of identity on the management hosts: OpenID discovery, keys, the token endpoint in its three families of
// paths (/adfs, /{tenant}/oauth2/v2.0, /{tenant}/oauth2), the cloud metadata by which clients find the installation, and the endpoint
// of managed identities.
//
// It hides OAuth's forms, its errors and the differences between the families. It promises that it builds URLs only from a configured name, that a secret
// stands in no log, answer or record, and that every token given is on record before it is answered, every refusal soon after. It refuses hosts
// that are not the installation's, tenants that are not its own, audiences that nothing here accepts, and interactive flows.
package authority

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Options configure an Authority. DB, Identity, Audit and Suffix are required.
type Options struct {
	DB       *meta.DB
	Identity *identity.Service
	Audit    *audit.Log
	// Suffix is the domain of login servers, such as azurecr.localhost.
	Suffix string
	// PublicURL is the scheme and authority that answers build their URLs from, such as https://arm.example.com; "" takes them from each request's Host,
	// which must then be one of the identity service's hosts.
	PublicURL string
	// CloudName is what the cloud is called in the metadata; "" is Embargo. AzureCloud would make az go to Microsoft's authority.
	CloudName string
	// Source tells the address and zone that a request came from, for records; nil takes the request's RemoteAddr and no zone.
	Source func(r *http.Request) (address, zone string)
	// Failed records a login that proved nobody; nil records each by Audit.
	Failed func(r audit.Record)
	// Clock is the time; nil is time.Now.
	Clock func() time.Time
	// Log gets the causes of 5xx; nil discards.
	Log *slog.Logger
}

// Authority serves the authority's paths. It is safe for concurrent use.
type Authority struct{ o Options }

// New makes an authority.
func New(o Options) (*Authority, error) {
	if o.DB == nil || o.Identity == nil || o.Audit == nil || o.Suffix == "" {
		return nil, errors.New("authority: a database, an identity service, an audit log and the suffix of registries are needed")
	}
	if o.Failed == nil {
		o.Failed = o.Audit.Note
	}
	if o.PublicURL != "" {
		u, err := url.Parse(o.PublicURL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("authority: %q is not the URL of a host", o.PublicURL)
		}
		o.PublicURL = u.Scheme + "://" + u.Host
	}
	if o.CloudName == "" {
		o.CloudName = "Embargo"
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Suffix = strings.Trim(o.Suffix, ".")
	return &Authority{o}, nil
}

// Serves reports whether a request to a management host is the authority's rather than the resource manager's.
func (a *Authority) Serves(r *http.Request) bool {
	s := name.Segments(strings.ToLower(r.URL.Path))
	if len(s) == 0 {
		return false
	}
	switch s[0] {
	case "adfs", "common", "organizations", "consumers", "metadata", "msi":
		return true
	}
	return isGUID(s[0])
}

// exchange is one request and its answer.
type exchange struct {
	a      *Authority
	w      http.ResponseWriter
	r      *http.Request
	id     string // of the request
	base   string // scheme and authority
	tenant string // the installation's
	family family
}

// family is the dialect of a path.
type family int

const (
	familyADFS family = iota
	familyV2
	familyV1
)

// route is a row of the table: the segments of a path, in lower case, behind the tenant; the family is what the first segment or the path itself says.
type route struct {
	path   string
	family family
	method string // "" is any
	do     func(x *exchange) error
}

// adfs are the paths below /adfs; tenanted those below /{tenant}, /common and /organizations; rooted those below the root.
var (
	adfs = []route{
		{".well-known/openid-configuration", familyADFS, http.MethodGet, (*exchange).discovery},
		{"oauth2/token", familyADFS, http.MethodPost, (*exchange).token},
		{"oauth2/authorize", familyADFS, "", (*exchange).interactive},
		{"oauth2/devicecode", familyADFS, "", (*exchange).interactive},
		{"discovery/keys", familyADFS, http.MethodGet, (*exchange).keys},
	}
	tenanted = []route{
		{"v2.0/.well-known/openid-configuration", familyV2, http.MethodGet, (*exchange).discovery},
		{"oauth2/v2.0/token", familyV2, http.MethodPost, (*exchange).token},
		{"oauth2/v2.0/authorize", familyV2, "", (*exchange).interactive},
		{"oauth2/v2.0/devicecode", familyV2, "", (*exchange).interactive},
		{"discovery/v2.0/keys", familyV2, http.MethodGet, (*exchange).keys},
		{".well-known/openid-configuration", familyV1, http.MethodGet, (*exchange).discovery},
		{"oauth2/token", familyV1, http.MethodPost, (*exchange).token},
		{"oauth2/authorize", familyV1, "", (*exchange).interactive},
		{"oauth2/devicecode", familyV1, "", (*exchange).interactive},
		{"discovery/keys", familyV1, http.MethodGet, (*exchange).keys},
		{"discovery/instance", familyV2, http.MethodGet, (*exchange).instance},
	}
	rooted = []route{
		{"metadata/endpoints", familyV2, http.MethodGet, (*exchange).metadata},
		{"msi/token", familyV1, "", (*exchange).managedIdentity},
	}
)

// ServeHTTP answers one request.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{a: a, w: w, r: r}
	head := w.Header()
	head.Set("Cache-Control", "no-store, no-cache")
	head.Set("Pragma", "no-cache")
	head.Set("X-Content-Type-Options", "nosniff")
	err := x.begin()
	if err == nil {
		head.Set("X-Ms-Request-Id", x.id)
		if c := r.Header.Get("Client-Request-Id"); isGUID(c) {
			head.Set("Client-Request-Id", c)
		}
		err = x.route()
	}
	if err != nil {
		x.fail(err)
	}
}

// begin checks the host and finds out what every answer needs.
func (x *exchange) begin() error {
	var err error
	if x.id, err = x.a.o.Identity.NewID(); err != nil {
		return err
	}
	x.base = x.a.o.PublicURL
	own := x.a.o.Identity.OwnHost(x.r.Host)
	if !own && (x.base == "" || !sameHost(x.base, x.r.Host)) {
		return fault.New(fault.MisdirectedRequest, "The authority is not served under the host '%s'.", clip(x.r.Host))
	}
	if x.base == "" {
		x.base = "http://" + strings.ToLower(x.r.Host)
		if x.r.TLS != nil {
			x.base = "https://" + strings.ToLower(x.r.Host)
		}
	}
	return x.a.o.DB.Read(x.r.Context(), func(tx *meta.Tx) error {
		x.tenant, err = x.a.o.Identity.Tenant(tx)
		return err
	})
}

// route finds the row of the path.
func (x *exchange) route() error {
	s := name.Segments(strings.ToLower(x.r.URL.Path))
	if len(s) < 2 {
		return x.unknown()
	}
	rest := strings.Join(s[1:], "/")
	switch first := s[0]; {
	case first == "adfs":
		return x.find(adfs, rest)
	case first == x.tenant, first == "common", first == "organizations":
		return x.find(tenanted, rest)
	case first == "consumers", isGUID(first):
		return refused(http.StatusBadRequest, "invalid_tenant", 90002, "The tenant '%s' is not this installation's. Its tenant is the one that credentials.json names.", clip(first))
	}
	return x.find(rooted, strings.Join(s, "/"))
}

func (x *exchange) find(table []route, path string) error {
	for _, row := range table {
		if row.path != path {
			continue
		}
		if row.method != "" && x.r.Method != row.method && (row.method != http.MethodGet || x.r.Method != http.MethodHead) {
			x.w.Header().Set("Allow", row.method)
			return refused(http.StatusMethodNotAllowed, "invalid_request", 900561, "This endpoint takes %s requests, not %s.", row.method, clip(x.r.Method))
		}
		x.family = row.family
		return row.do(x)
	}
	return x.unknown()
}

func (x *exchange) unknown() error {
	return refused(http.StatusNotFound, "invalid_request", 90020, "The authority serves nothing at '%s'.", clip(x.r.URL.Path))
}

// sameHost reports whether a URL is of the host, port included.
func sameHost(base, host string) bool {
	u, err := url.Parse(base)
	return err == nil && strings.EqualFold(u.Host, host)
}

// isGUID reports whether s has the form of a UUID, in any case.
func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hexed := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if dash != (c == '-') || !dash && !hexed {
			return false
		}
	}
	return true
}

// clip makes a client's text fit for a message and a record.
func clip(s string) string {
	if len(s) > 128 {
		s = s[:128] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// SPDX-License-Identifier: Apache-2.0

// Package upstream knows the registries outside from which content may be cached: which the operator has listed, by which rules repositories of ours map to
// repositories there, with which credentials, and how they are asked. It hides the tables of rules and credential sets, and the protocol as its client: tokens, redirects, limits.
//
// It promises that nothing is asked of a host that is not listed; that a name or a credential reaches, of the hosts that belong to an upstream, only the registry itself and
// the issuers of its tokens; that a redirect is followed only to hosts listed for it; and that what it returns of a digest is judged by the caller, who gets no more bytes than asked.
// Whether an upstream may be asked at all is the gate's to say (R10), not this package's.
package upstream

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/fault"
)

// dockerHub is the upstream whose registry and tokens lie at other hosts than its name says.
const dockerHub = "docker.io"

// Upstream is a registry that the operator has listed. Hosts are names or addresses, with or without a port.
type Upstream struct {
	// Host is its name in cache rules.
	Host string
	// At is where its registry answers; "" is Host.
	At string
	// Tokens are further hosts that issue its tokens.
	Tokens []string
	// Redirects are further hosts that it may redirect to for content. They get no credential.
	Redirects []string
	// Inside says that these hosts may have addresses that are not of the public Internet.
	Inside bool
}

func (u Upstream) complete() Upstream {
	if u.Host == dockerHub && u.At == "" {
		u.At, u.Tokens = "registry-1.docker.io", append([]string{"auth.docker.io"}, u.Tokens...)
	}
	if u.At == "" {
		u.At = u.Host
	}
	return u
}

func (u Upstream) hosts() []string {
	u = u.complete()
	return append(append([]string{u.At}, u.Tokens...), u.Redirects...)
}

// Check checks the form of a list of upstreams.
func Check(list []Upstream) error {
	seen := map[string]bool{}
	for i, u := range list {
		if !hostLike(u.Host) {
			return fmt.Errorf("entry %d: %q is no host in the form of cache rules: a lower-case name with a dot, or an address, with or without a port", i+1, u.Host)
		}
		for _, h := range u.hosts() {
			if h == "" || strings.ContainsAny(h, "/*@ ") {
				return fmt.Errorf("entry %d: %q is not a host name or an address, with or without a port", i+1, h)
			}
		}
		if seen[u.Host] {
			return fmt.Errorf("entry %d: %s is listed twice", i+1, u.Host)
		}
		seen[u.Host] = true
	}
	return nil
}

// Rules are the outbound connections that a list of upstreams needs.
func Rules(list []Upstream) map[dial.Purpose]dial.Rule {
	outside, inside := dial.Rule{}, dial.Rule{Inside: true}
	for _, u := range list {
		if u.Inside {
			inside.To = append(inside.To, u.hosts()...)
		} else {
			outside.To = append(outside.To, u.hosts()...)
		}
	}
	return map[dial.Purpose]dial.Rule{dial.Upstream: outside, dial.InsideUpstream: inside}
}

// Options configure a Service.
type Options struct {
	Dial      *dial.Dialer
	Upstreams []Upstream
	// Roots are the authorities that upstreams' certificates are checked by; nil: the system's.
	Roots *x509.CertPool
	// Agent is what requests call themselves.
	Agent string
	// Stall is how long an upstream may take over the next piece of content (0: 1 min).
	Stall time.Duration
	// Clock is the time of tokens; nil is time.Now.
	Clock func() time.Time
}

// Service asks upstreams. It is safe for concurrent use.
type Service struct {
	o       Options
	listed  map[string]Upstream
	outside *http.Client
	inside  *http.Client
	tokens  *lru.Cache[tokenKey, token]
}

const (
	// headerLimit bounds an answer's headers; askTime an exchange that is no content; contentTime one that is.
	headerLimit = 64 << 10
	askTime     = 30 * time.Second
	contentTime = time.Hour
)

// New makes a service.
func New(o Options) (*Service, error) {
	if o.Dial == nil {
		return nil, errors.New("upstream: a dialer is needed")
	}
	if err := Check(o.Upstreams); err != nil {
		return nil, err
	}
	if o.Stall <= 0 {
		o.Stall = time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	tokens, err := lru.New[tokenKey, token](1024)
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, listed: map[string]Upstream{}, tokens: tokens, outside: o.client(dial.Upstream), inside: o.client(dial.InsideUpstream)}
	for _, u := range o.Upstreams {
		s.listed[u.Host] = u.complete()
	}
	return s, nil
}

func (o Options) client(p dial.Purpose) *http.Client {
	c := o.Dial.Client(p, dial.ClientOptions{Roots: o.Roots, MaxHeader: headerLimit})
	// Each redirect is judged where the upstream is known.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// Listed reports whether an upstream is among those of the configuration.
func (s *Service) Listed(host string) bool {
	_, ok := s.listed[host]
	return ok
}

// CheckHost tells whether a rule may name an upstream. Errors: InvalidParameter when it is not listed, or may not be reached.
func (s *Service) CheckHost(host, at string) error {
	u, ok := s.listed[host]
	if !ok {
		return fault.New(fault.InvalidParameter, "The upstream '%s' is not among the upstreams of this server's configuration, so nothing is fetched from it. An operator can list it there.", host).At(at)
	}
	purpose := dial.Upstream
	if u.Inside {
		purpose = dial.InsideUpstream
	}
	if err := s.o.Dial.Vet(purpose, address(u.At)); err != nil {
		return fault.New(fault.InvalidParameter, "The upstream '%s' is listed, but may not be reached: it is this server itself, or an address inside that is not listed with 'inside: true'.", host).At(at).Because(err)
	}
	return nil
}

// address is a host with its port.
func address(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), "443")
}

// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"strings"
	"sync"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// class is what a rate bounds.
type class int

const (
	unbounded class = iota
	reads
	writes
	deletes
	referrersLists
	logins
)

// rate is how many requests a minute a registry takes (0: any number), and of them one identity may send.
type rate struct{ registry, identity int }

// rates are those that Azure Container Registry documents for its data plane, by SKU. Logins have none of the registry: who guesses must not keep the others out.
var rates = map[string]map[class]rate{
	"Premium": {reads: {20000, 10000}, writes: {4000, 2000}, deletes: {4000, 2000}, referrersLists: {2000, 1000}, logins: {0, 20000}},
	"":        {reads: {10000, 5000}, writes: {2000, 1000}, deletes: {1000, 500}, referrersLists: {500, 250}, logins: {0, 10000}}, // Basic and Standard
}

// throttle counts requests in windows of a minute that begin with their first request.
type throttle struct {
	clock func() time.Time

	mu      sync.Mutex
	windows map[window]*counted
	swept   time.Time
}

// window is whose requests are counted; identity "" is the whole registry.
type window struct {
	registry, identity string
	class              class
}

type counted struct {
	began time.Time
	n     int
}

const minute = time.Minute

func newThrottle(clock func() time.Time) *throttle {
	return &throttle{clock: clock, windows: map[window]*counted{}}
}

// take counts a request. A login's identity is the address that it comes from, because nobody is proven yet. Errors: TooManyRequests, with the time until the window ends.
func (t *throttle) take(row meta.RegistryRow, identity string, c class) error {
	bounds, ok := rates[row.SKU]
	if !ok {
		bounds = rates[""]
	}
	bound, ok := bounds[c]
	if !ok {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	t.sweep(now)
	whole, own := t.window(window{row.ID, "", c}, now), t.window(window{row.ID, "of " + identity, c}, now)
	for _, full := range []struct {
		w    *counted
		most int
		of   string
	}{{whole, bound.registry, "of the registry"}, {own, bound.identity, "of one identity or address"}} {
		if full.w.n >= full.most && full.most > 0 {
			f := fault.New(fault.TooManyRequests, "The registry '%s' takes %d requests %s of this kind a minute in the SKU %s (throttle of this server's configuration is acr). Try again when Retry-After has passed.",
				row.Name, full.most, full.of, row.SKU)
			f.RetryAfter = full.w.began.Add(minute).Sub(now)
			return f
		}
	}
	whole.n++
	own.n++
	return nil
}

func (t *throttle) window(w window, now time.Time) *counted {
	c := t.windows[w]
	if c == nil || !now.Before(c.began.Add(minute)) {
		c = &counted{began: now}
		t.windows[w] = c
	}
	return c
}

// sweep forgets windows that are over, so that there are no more than identities within two minutes.
func (t *throttle) sweep(now time.Time) {
	if now.Before(t.swept.Add(minute)) {
		return
	}
	t.swept = now
	for w, c := range t.windows {
		if !now.Before(c.began.Add(minute)) {
			delete(t.windows, w)
		}
	}
}

// class is what bounds a request of the route.
func (r route) class() class {
	switch {
	case r.kind == kindToken || r.kind == kindExchange:
		return logins
	case r.kind == kindBase:
		return unbounded
	case r.kind == kindReferrers:
		return referrersLists
	case r.method == "GET" || r.method == "HEAD":
		return reads
	case r.method == "DELETE" && !strings.HasPrefix(r.right.ask, "pull,push"): // giving an upload up is part of writing it
		return deletes
	}
	return writes
}

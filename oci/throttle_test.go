// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// Each bound holds for its own registry, identity and kind of request, tells when it ends, and does end then.
func TestThrottle(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	th := newThrottle(func() time.Time { return now })
	one, other := meta.RegistryRow{ID: "one", Name: "one", SKU: "Basic"}, meta.RegistryRow{ID: "other", Name: "other", SKU: "Premium"}
	take := func(row meta.RegistryRow, who string, c class, n int) {
		t.Helper()
		for i := range n {
			if err := th.take(row, who, c); err != nil {
				t.Fatalf("request %d of %d: %v", i+1, n, err)
			}
		}
	}
	refused := func(row meta.RegistryRow, who string, c class, after time.Duration) {
		t.Helper()
		var f *fault.Fault
		if err := th.take(row, who, c); !errors.As(err, &f) || f.Kind != fault.TooManyRequests || f.RetryAfter != after {
			t.Errorf("%s of %s: %v, want 429 and %v", who, row.Name, err, after)
		}
	}
	take(one, "a", deletes, 500)
	now = now.Add(20 * time.Second)
	refused(one, "a", deletes, 40*time.Second)
	take(one, "b", deletes, 500)
	refused(one, "c", deletes, 40*time.Second) // the registry's own bound
	take(one, "a", reads, 5000)
	refused(one, "a", reads, time.Minute)
	take(other, "a", deletes, 2000)
	refused(other, "a", deletes, time.Minute)
	take(one, "a", unbounded, 30000)
	take(one, "at 192.0.2.1", logins, 10000)
	refused(one, "at 192.0.2.1", logins, time.Minute)
	take(one, "at 192.0.2.2", logins, 10000) // whom the other one does not keep out
	now = now.Add(40 * time.Second)
	take(one, "a", deletes, 500)
	now = now.Add(2 * time.Minute)
	take(one, "d", reads, 1)
	if len(th.windows) != 2 {
		t.Errorf("%d windows are kept when all but one are over", len(th.windows))
	}
}

func TestClasses(t *testing.T) {
	for _, r := range routes {
		want := map[string]class{"GET": reads, "HEAD": reads, "PUT": writes, "POST": writes, "PATCH": writes, "DELETE": deletes}[r.method]
		switch r.kind {
		case kindBase:
			want = unbounded
		case kindToken, kindExchange:
			want = logins
		case kindReferrers:
			want = referrersLists
		case kindUpload:
			if r.method == "DELETE" {
				want = writes
			}
		}
		if got := r.class(); got != want {
			t.Errorf("%s of kind %v is bounded as %v, want %v", r.method, r.kind, got, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Every kind up to the last constant has a row: a kind without one would answer 500 silently.
func TestEveryKindHasARow(t *testing.T) {
	for k := Internal; k <= QuotaExceeded; k++ {
		r, ok := table[k]
		if !ok {
			t.Errorf("kind %d has no row", int(k))
			continue
		}
		if r.status < 400 || r.status > 599 || r.arm == "" || r.oci == "" {
			t.Errorf("kind %d: incomplete row %+v", int(k), r)
		}
	}
	if len(table) != int(QuotaExceeded)+1 {
		t.Errorf("the table has %d rows for %d kinds", len(table), int(QuotaExceeded)+1)
	}
}

// The cause is for the log: no message that a client sees holds it.
func TestCauseStaysInside(t *testing.T) {
	secret := errors.New("disk /dev/secret is gone")
	for _, err := range []error{secret, fmt.Errorf("open: %w", secret), New(Unavailable, "Try later.").Because(secret)} {
		f := From(err)
		if strings.Contains(f.Message, "secret") {
			t.Errorf("message shows the cause: %q", f.Message)
		}
		if !errors.Is(f, secret) || !strings.Contains(f.Error(), "secret") {
			t.Errorf("the log does not get the cause: %q", f.Error())
		}
	}
	if From(nil) != nil {
		t.Error("From(nil) is not nil")
	}
	if got := From(fmt.Errorf("wrapped: %w", New(Conflict, "x"))); got.Kind != Conflict {
		t.Errorf("a wrapped fault lost its kind: %v", got.Kind)
	}
}

func TestJoin(t *testing.T) {
	if Join(nil) != nil {
		t.Error("no faults must be no error")
	}
	one := New(BadRequest, "a").At("properties.x")
	if Join([]*Fault{one}) != error(one) {
		t.Error("one fault must be itself")
	}
	both := From(Join([]*Fault{one, New(Conflict, "b").At("sku.name")}))
	if both.Kind != BadRequest || len(both.Details) != 2 || both.Details[1].Target != "sku.name" {
		t.Errorf("joined: %+v", both)
	}
}

// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"errors"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// A ring is heard after its commit by those who listen to its topic, once for many rings, and never of what was rolled back.
func TestBell(t *testing.T) {
	t.Parallel()
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		first, leaveFirst := db.Listen("jobs")
		second, leave := db.Listen("jobs")
		other, leaveOther := db.Listen("audit")
		defer leaveFirst()
		defer leaveOther()
		heard := func(c <-chan struct{}) bool {
			select {
			case <-c:
				return true
			default:
				return false
			}
		}
		ring := func(end error) {
			t.Helper()
			err := db.Write(t.Context(), func(tx *meta.Tx) error {
				tx.Ring("jobs")
				tx.Ring("jobs")
				if heard(first) {
					t.Error("heard before the commit")
				}
				return end
			})
			if !errors.Is(err, end) {
				t.Fatal(err)
			}
		}
		ring(errOwn)
		if heard(first) || heard(second) {
			t.Error("heard of a transaction that was rolled back")
		}
		ring(nil)
		if !heard(first) || !heard(second) {
			t.Error("a listener did not hear")
		}
		if heard(first) {
			t.Error("two rings of one transaction are heard twice by one that did not wait")
		}
		leave()
		ring(nil)
		if !heard(first) || heard(second) || heard(other) {
			t.Error("heard by one that left or listens to something else, or not by one that stayed")
		}
	})
}

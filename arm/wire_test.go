// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

func declare(*identity.Service) []arm.Namespace { return []arm.Namespace{groups(), bank()} }

func newBench(t testing.TB, db *meta.DB) *armtest.Bench {
	t.Helper()
	return armtest.New(t, db, declare)
}

// Whole exchanges, as text: testdata holds what each request answers.
func TestWire(t *testing.T) { armtest.Scripts(t, "testdata/*.txtar", declare) }

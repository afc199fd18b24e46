// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"

	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
)

// Halves runs the first half of an import, which asks the source of everything, and gives the second, which links: tests stand between.
func (s *Service) Halves(ctx context.Context, i Import, c identity.Caller) (second func() error, err error) {
	p := &importer{s: s, Import: i, caller: c, operation: "registries-test"}
	if err := p.survey(ctx, func(int) error { return nil }); err != nil {
		return nil, p.ended(err)
	}
	return func() error { return p.ended(p.finish(ctx, func(*meta.Tx) error { return nil })) }, nil
}

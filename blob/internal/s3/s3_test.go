// SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"testing"

	"github.com/embargo-registry/embargo/blob/blobtest"
	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/blob/internal/drivertest"
)

func TestDriver(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) func() driver.Driver {
		place := blobtest.Open(t, blobtest.S3)
		return func() driver.Driver { return blobtest.Driver(t, place.Storage) }
	})
}

// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"context"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/providers/containerregistry"
	"github.com/embargo-registry/embargo/providers/containerregistry/registries"
	"github.com/embargo-registry/embargo/providers/network"
	"github.com/embargo-registry/embargo/providers/resources"
)

const suffix = "azurecr.localhost"

// fences counts what was fenced.
type fences struct {
	mu    sync.Mutex
	count map[string]int64 // registry to its newest epoch
}

func (f *fences) fence(_ context.Context, registry string, epoch int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count[registry] = max(f.count[registry], epoch)
	return nil
}

func declare(f *fences) armtest.Declare {
	return func(s *identity.Service) []arm.Namespace {
		return []arm.Namespace{resources.Namespace(resources.Options{Identity: s}),
			containerregistry.Namespace(containerregistry.Options{Options: registries.Options{Identity: s, Suffix: suffix, Fence: f.fence}}),
			network.Namespace(network.Options{Suffix: suffix, Fence: f.fence})}
	}
}

// TestWire: whole exchanges, as text; testdata holds what each request answers.
func TestWire(t *testing.T) {
	armtest.Scripts(t, "testdata/*.txtar", declare(&fences{count: map[string]int64{}}))
}

// bench has a Premium registry, a network and its subnet in the group g.
type bench struct {
	*armtest.Bench
	fenced *fences
}

func each(t *testing.T, fn func(t *testing.T, b *bench)) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		b := &bench{fenced: &fences{count: map[string]int64{}}}
		b.Bench = armtest.New(t, open(), declare(b.fenced))
		b.Must(t, 201, "PUT", group+"?api-version=2021-04-01", `{"location":"westus"}`)
		b.Must(t, 201, "PUT", registry+"?api-version=2023-07-01", premium)
		b.Must(t, 201, "PUT", nets+"/virtualNetworks/net"+version, `{"location":"westus","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[{"name":"default","properties":{"addressPrefix":"10.0.0.0/24"}}]}}`)
		fn(t, b)
	})
}

const (
	group    = "/subscriptions/{sub}/resourceGroups/g"
	nets     = group + "/providers/Microsoft.Network"
	registry = group + "/providers/Microsoft.ContainerRegistry/registries/registryone"
	version  = "?api-version=2022-01-01"
	links    = registry + "/privateEndpointConnections"
	acr      = "?api-version=2023-07-01"
	premium  = `{"location":"westus","sku":{"name":"Premium"}}`
)

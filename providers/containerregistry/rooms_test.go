// SPDX-License-Identifier: Apache-2.0

package containerregistry_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/providers/containerregistry"
	"github.com/embargo-registry/embargo/providers/containment"
	"github.com/embargo-registry/embargo/providers/resources"
	"github.com/embargo-registry/embargo/registry"
)

// rooms is a bench with the real gate and the real registry behind the namespace.
type rooms struct {
	*armtest.Bench
	log    *audit.Log
	ring   *meta.Keyring // of credential sets
	mu     sync.Mutex
	fences []fence // what was fenced, in order
}

type fence struct {
	registry string
	epoch    int64
}

// eachRooms runs a test in rooms on each kind of database, with the group g.
func eachRooms(t *testing.T, fn func(t *testing.T, r *rooms)) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) { fn(t, newRooms(t, open())) })
}

func newRooms(t *testing.T, db *meta.DB) *rooms {
	t.Helper()
	r := &rooms{}
	log, err := audit.New(context.Background(), audit.Options{DB: db, Node: "rooms"})
	if err != nil {
		t.Fatal(err)
	}
	r.log = log
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Errorf("closing the record: %v", err)
		}
	})
	r.Bench = armtest.New(t, db, func(s *identity.Service) []arm.Namespace {
		o := options(s)
		gate, err := egress.New(egress.Options{DB: db, Audit: log})
		if err != nil {
			t.Fatal(err)
		}
		blobs, err := blob.New(context.Background(), blob.Options{DB: db, Storage: blob.Storage{Dir: filepath.Join(t.TempDir(), "blobs")}})
		if err != nil {
			t.Fatal(err)
		}
		reg, err := registry.New(registry.Options{DB: db, Blobs: blobs, Gate: gate, Audit: log, Identity: s})
		if err != nil {
			t.Fatal(err)
		}
		o.AskImport = reg.AskImport
		o.Webhooks = hooks(t, db)
		o.CacheRules, o.CredentialSets = caches(t, s)
		r.ring = o.CredentialSets.Keyring
		o.Fence = func(ctx context.Context, registry string, epoch int64) error {
			r.mu.Lock()
			r.fences = append(r.fences, fence{registry, epoch})
			r.mu.Unlock()
			return gate.Fence(ctx, registry, epoch)
		}
		return []arm.Namespace{resources.Namespace(resources.Options{Identity: s}), containerregistry.Namespace(o), containment.Namespace()}
	})
	r.Must(t, 201, "PUT", "/subscriptions/{sub}/resourceGroups/g?api-version=2021-04-01", `{"location":"westus"}`)
	return r
}

const old, newest = "2021-06-01-preview", "2026-09-01-preview"

// path is the path of a registry of the group g, or of what follows it, in an api-version.
func path(registry, version string, rest ...string) string {
	return "/subscriptions/{sub}/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/" + registry + strings.Join(rest, "") + "?api-version=" + version
}

// make creates a registry of a SKU.
func (r *rooms) make(t *testing.T, registry, sku, properties string) map[string]any {
	t.Helper()
	return r.Must(t, 201, "PUT", path(registry, newest), `{"location":"westus","sku":{"name":"`+sku+`"},"properties":{`+properties+`}}`)
}

const shut = `"publicNetworkAccess":"Disabled","policies":{"exportPolicy":{"status":"disabled"}}`

// row is the projection row of a registry, and whether there is one.
func (r *rooms) row(t *testing.T, registry string) (row meta.RegistryRow, there bool) {
	t.Helper()
	err := r.DB.Read(context.Background(), func(tx *meta.Tx) error {
		all, err := tx.Registries()
		for _, one := range all {
			if one.Name == registry {
				row, there = one, true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return row, there
}

func (r *rooms) id(t *testing.T, registry string) name.ResourceID {
	t.Helper()
	p, _, _ := strings.Cut(strings.ReplaceAll(path(registry, old), "{sub}", r.People.Subscription), "?")
	id, err := name.ParseResourceID(p)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// at walks an answer by a dotted path; what is not there is nil.
func at(v any, dotted string) any {
	for part := range strings.SplitSeq(dotted, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[part]
	}
	return v
}

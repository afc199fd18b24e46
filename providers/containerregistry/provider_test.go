// SPDX-License-Identifier: Apache-2.0

package containerregistry_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/arm/armtest"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/providers/containerregistry"
	"github.com/embargo-registry/embargo/providers/containerregistry/cacherules"
	"github.com/embargo-registry/embargo/providers/containerregistry/registries"
	"github.com/embargo-registry/embargo/providers/containment"
	vnets "github.com/embargo-registry/embargo/providers/network"
	"github.com/embargo-registry/embargo/providers/resources"
)

var updateDocs = flag.Bool("update-docs", false, "write docs/properties.md")

func options(s *identity.Service) containerregistry.Options {
	return containerregistry.Options{Options: registries.Options{
		Identity: s, Suffix: "azurecr.localhost",
		Fence: func(context.Context, string, int64) error { return nil },
		AskImport: func(*meta.Tx, meta.RegistryRow, meta.RegistryRow, name.Reference, identity.Caller, string) error {
			return nil
		},
		Ours: func(host string) bool { return host == "127.0.0.1:8443" },
	}, CacheRules: cacherules.Options{Identity: s, Check: listed().CheckHost}}
}

func declare(s *identity.Service) []arm.Namespace {
	return []arm.Namespace{resources.Namespace(resources.Options{Identity: s}), containerregistry.Namespace(options(s)), vnets.Namespace(vnets.Options{Suffix: "azurecr.localhost", Fence: func(context.Context, string, int64) error { return nil }}), containment.Namespace()}
}

// TestPropertiesPage: docs/properties.md says what the declarations say, and each property says what becomes of it.
func TestPropertiesPage(t *testing.T) {
	t.Parallel()
	types := append(append(containerregistry.Types(options(nil)), vnets.Types(vnets.Options{})...), containment.Types()...)
	if unsaid := arm.Unsaid(types...); len(unsaid) > 0 {
		t.Errorf("properties without a stance: %v", unsaid)
	}
	path := filepath.Join("..", "..", "docs", "properties.md")
	page := arm.PropertiesDoc(types...)
	if *updateDocs {
		if err := os.WriteFile(path, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, page) {
		t.Error("docs/properties.md is not current: run go test ./providers/containerregistry -update-docs")
	}
}

// TestWire: whole exchanges, as text; testdata holds what each request answers.
func TestWire(t *testing.T) { armtest.Scripts(t, "testdata/*.txtar", declare) }

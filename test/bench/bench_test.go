// SPDX-License-Identifier: Apache-2.0

// Package bench measures the built binary over loopback: the real doors, the real database, every decision on record.
package bench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

const registryName = "benchone"

// start runs a server on SQLite with a plain private door to the registry benchone.
func start(b *testing.B, kind string) (*instance.Server, string) {
	b.Helper()
	door := instance.FreePort(b)
	s := instance.New(b, kind, "privateListeners:\n  - address: "+door+"\n    registry: "+registryName+"\n    tls: false\n")
	s.CreateRegistry(registryName, nil)
	return s, "http://" + door
}

func each(b *testing.B, fn func(b *testing.B, s *instance.Server, door string)) {
	for _, kind := range metatest.Kinds {
		b.Run(kind, func(b *testing.B) {
			s, door := start(b, kind)
			fn(b, s, door)
		})
	}
}

func must(b *testing.B, a instance.Answer, err error, status int) instance.Answer {
	b.Helper()
	if err != nil || a.Status != status {
		b.Fatalf("%v: %d, want %d: %.300s", err, a.Status, status, a.Body)
	}
	return a
}

// BenchmarkARMGet reads a registry through the resource manager.
func BenchmarkARMGet(b *testing.B) {
	each(b, func(b *testing.B, s *instance.Server, _ string) {
		token := s.Token()
		for b.Loop() {
			a, err := s.ARMAs(token, http.MethodGet, s.RegistryID(registryName)+instance.Version, nil)
			must(b, a, err, http.StatusOK)
		}
	})
}

// BenchmarkARMPatch changes a registry's tags, durably and on record.
func BenchmarkARMPatch(b *testing.B) {
	each(b, func(b *testing.B, s *instance.Server, _ string) {
		token, i := s.Token(), 0
		for b.Loop() {
			i++
			a, err := s.ARMAs(token, http.MethodPatch, s.RegistryID(registryName)+instance.Version, instance.J{"tags": instance.J{"n": fmt.Sprint(i)}})
			must(b, a, err, http.StatusOK)
		}
	})
}

// BenchmarkARMList10000 walks the pages of a subscription's 10 000 registries.
func BenchmarkARMList10000(b *testing.B) {
	s, _ := start(b, "sqlite")
	token := s.Token()
	for i := range 9999 {
		a, err := s.ARMAs(token, http.MethodPut, s.RegistryID(fmt.Sprintf("many%05d", i))+instance.Version, instance.J{"location": "centralus", "sku": instance.J{"name": "Basic"}})
		must(b, a, err, http.StatusCreated)
	}
	for b.Loop() {
		next, n := s.ResourceManager+"/subscriptions/"+s.SubscriptionID+"/providers/Microsoft.ContainerRegistry/registries"+instance.Version, 0
		for next != "" {
			a, err := s.Do(http.MethodGet, next, nil, "Authorization", "Bearer "+token)
			must(b, a, err, http.StatusOK)
			n += bytes.Count(a.Body, []byte(`"loginServer"`))
			next = a.Get("nextLink")
		}
		if n != 10000 {
			b.Fatalf("%d registries were listed", n)
		}
	}
}

// BenchmarkRegistryToken issues a registry's access token for a service principal's secret.
func BenchmarkRegistryToken(b *testing.B) {
	each(b, func(b *testing.B, s *instance.Server, door string) {
		for b.Loop() {
			token, a, err := s.RegistryToken(door, s.LoginServer(registryName), s.ClientID, s.ClientSecret, "repository:app:pull")
			if token == "" {
				must(b, a, err, http.StatusOK)
			}
		}
	})
}

// BenchmarkManifestGet pulls a manifest by tag from 16 clients: token, gate, and a record that is durable before the first byte.
func BenchmarkManifestGet(b *testing.B) {
	each(b, func(b *testing.B, s *instance.Server, door string) {
		if _, err := s.PushImage(registryName, "app", "v1", []byte("cargo")); err != nil {
			b.Fatal(err)
		}
		token, _, err := s.RegistryToken(door, s.LoginServer(registryName), s.ClientID, s.ClientSecret, "repository:app:pull")
		if err != nil {
			b.Fatal(err)
		}
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				a, err := s.Do(http.MethodGet, door+"/v2/app/manifests/v1", nil, "Authorization", "Bearer "+token, "Accept", instance.ManifestType)
				if err != nil || a.Status != http.StatusOK {
					b.Errorf("%v %d %s", err, a.Status, a.Body)
				}
			}
		})
	})
}

// gib is made once: incompressible, and the same for each benchmark.
func gib() []byte {
	content := make([]byte, 1<<30)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(content) // never fails
	return content
}

// BenchmarkBlob1GiB pushes a blob of 1 GiB, durably, and pulls it, on the plain private door.
func BenchmarkBlob1GiB(b *testing.B) {
	content := gib()
	s, door := start(b, "sqlite")
	login := func() string {
		token, a, err := s.RegistryToken(door, s.LoginServer(registryName), s.ClientID, s.ClientSecret, "repository:app:pull,push")
		if token == "" {
			must(b, a, err, http.StatusOK)
		}
		return "Bearer " + token
	}
	digest := instance.Digest(content)
	b.Run("push", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			auth := login()
			a, err := s.Do(http.MethodPost, door+"/v2/app/blobs/uploads/", nil, "Authorization", auth)
			location := must(b, a, err, http.StatusAccepted).Header.Get("Location")
			if strings.HasPrefix(location, "/") {
				location = door + location
			}
			a, err = s.Do(http.MethodPut, location+"?digest="+digest, content, "Authorization", auth, "Content-Type", "application/octet-stream")
			must(b, a, err, http.StatusCreated)
		}
	})
	b.Run("pull", func(b *testing.B) {
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			req, err := http.NewRequest(http.MethodGet, door+"/v2/app/blobs/"+digest, nil)
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Authorization", login())
			resp, err := s.Client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.Body)
			if err != nil || n != int64(len(content)) {
				b.Fatalf("%d bytes: %v", n, err)
			}
			if err := resp.Body.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

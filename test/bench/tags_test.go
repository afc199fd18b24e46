// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// BenchmarkTags1000 is what BenchmarkTags100000 is to be compared with.
func BenchmarkTags1000(b *testing.B) { tags(b, 1000, 1000) }

// BenchmarkTags100000 asks a repository of 100 000 tags, and of 10 000 referrers of one manifest, from one client: a manifest by 1 000 of the tags in turn, and
// by any of them (which of 1 000 are remembered, and of 100 000 are read), a push of a new tag, a page of 100 tags from the middle, and a page of the last 500 referrers.
func BenchmarkTags100000(b *testing.B) { tags(b, 100_000, 10_000) }

func tags(b *testing.B, tags, referrers int) {
	each(b, func(b *testing.B, s *instance.Server, door string) {
		m, err := s.PushImage(registryName, "app", "v1", []byte("cargo"))
		if err != nil {
			b.Fatal(err)
		}
		instance.Crowd{Tags: tags, Referrers: referrers}.Fill(s)
		token, a, err := s.RegistryToken(door, s.LoginServer(registryName), s.ClientID, s.ClientSecret, "repository:app:pull,push")
		if token == "" {
			must(b, a, err, http.StatusOK)
		}
		n := 0
		for _, c := range []struct {
			name   string
			status int
			body   []byte
			path   func() (method, path string)
		}{
			{"get", http.StatusOK, nil, func() (string, string) { return http.MethodGet, fmt.Sprintf("manifests/tag-%d", n%1000*(tags/1000)) }},
			{"get-any", http.StatusOK, nil, func() (string, string) { return http.MethodGet, fmt.Sprintf("manifests/tag-%d", n*7919%tags) }},
			{"push", http.StatusCreated, m, func() (string, string) { return http.MethodPut, fmt.Sprintf("manifests/pushed-%d", n) }},
			{"page", http.StatusOK, nil, func() (string, string) {
				return http.MethodGet, fmt.Sprintf("tags/list?n=100&last=tag-%d", tags/2+n%(tags/4))
			}},
			{"referrers", http.StatusOK, nil, func() (string, string) {
				return http.MethodGet, "referrers/" + instance.Digest(m) + "?last=" + instance.Referrer(referrers-501)
			}},
		} {
			b.Run(c.name, func(b *testing.B) {
				for b.Loop() {
					n++
					method, path := c.path()
					a, err := s.Do(method, door+"/v2/app/"+path, c.body, "Authorization", "Bearer "+token, "Content-Type", instance.ManifestType)
					must(b, a, err, c.status)
				}
			})
		}
	})
}

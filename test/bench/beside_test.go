// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// BenchmarkBeside is what pulls suffer from other work: the 99th percentile of a manifest's GET by 4 clients, alone and beside a collection that is begun again and again over 3 000 pieces of content, a client that
// pushes manifests and deletes them, and one that lists 100 000 tags page by page. Rounds of half a second are alone and beside in turn; one operation is a pair of rounds.
func BenchmarkBeside(b *testing.B) {
	each(b, func(b *testing.B, s *instance.Server, door string) {
		w := newWay(b, s, door, nil)
		instance.Crowd{Tags: 100_000}.Fill(s)
		token, a, err := s.RegistryToken(door, s.LoginServer(registryName), s.ClientID, s.ClientSecret, "repository:app:pull,push,delete")
		if token == "" {
			must(b, a, err, http.StatusOK)
		}
		do := func(method, path string, body []byte, status int) {
			a, err := s.Do(method, door+"/v2/app/"+path, body, "Authorization", "Bearer "+token, "Content-Type", instance.ManifestType)
			if err != nil || a.Status != status {
				b.Errorf("%s %s: %d %s %v", method, path, a.Status, a.Body, err)
			}
		}
		for i := range 3000 {
			content := fmt.Append(nil, "content ", i)
			do(http.MethodPost, "blobs/uploads/?digest="+instance.Digest(content), content, http.StatusCreated)
		}
		n := 0
		for _, c := range []struct {
			name string
			work func(ctx context.Context)
		}{
			{"collection", func(ctx context.Context) {
				if _, errs, err := s.Run(ctx, "gc", "--data", s.Data); err != nil && ctx.Err() == nil {
					b.Errorf("%v %s", err, errs)
				}
			}},
			{"deletes", func(context.Context) {
				m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"n":"%d"}}`, "application/vnd.oci.image.index.v1+json", n)
				a, err := s.Do(http.MethodPut, door+"/v2/app/manifests/"+instance.Digest(m), m, "Authorization", "Bearer "+token, "Content-Type", "application/vnd.oci.image.index.v1+json")
				if err != nil || a.Status != http.StatusCreated {
					b.Errorf("%d %s %v", a.Status, a.Body, err)
				}
				do(http.MethodDelete, "manifests/"+instance.Digest(m), nil, http.StatusAccepted)
				n++
			}},
			{"lists", func(context.Context) {
				do(http.MethodGet, fmt.Sprintf("tags/list?n=1000&last=tag-%d", n%90_000), nil, http.StatusOK)
				n += 1000
			}},
		} {
			b.Run(c.name, func(b *testing.B) {
				var p99 [2][]float64
				for b.Loop() {
					p99[0] = append(p99[0], percentile(b, w))
					ctx, stop := context.WithCancel(context.Background())
					var working sync.WaitGroup
					working.Go(func() {
						for ctx.Err() == nil {
							c.work(ctx)
						}
					})
					p99[1] = append(p99[1], percentile(b, w))
					stop()
					working.Wait()
				}
				var ratios []float64
				for i := range p99[0] {
					ratios = append(ratios, p99[1][i]/p99[0][i])
				}
				b.ReportMetric(median(p99[0]), "ms-alone")
				b.ReportMetric(median(p99[1]), "ms-beside")
				b.ReportMetric(median(ratios), "ratio")
			})
		}
	})
}

// percentile is the 99th of what pulls by 4 clients take within half a second, in milliseconds.
func percentile(b *testing.B, w way) float64 {
	b.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	for end := time.Now().Add(500 * time.Millisecond); len(took) == 0; {
		for range 4 {
			all.Go(func() {
				var own []time.Duration
				for time.Now().Before(end) {
					begin := time.Now()
					if err := w.get(); err != nil {
						b.Error(err)
						return
					}
					own = append(own, time.Since(begin))
				}
				mu.Lock()
				took = append(took, own...)
				mu.Unlock()
			})
		}
		all.Wait()
	}
	slices.Sort(took)
	return float64(took[len(took)*99/100]) / float64(time.Millisecond)
}

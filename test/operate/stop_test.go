// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// TestStopCutsAndRecords: a stop that cuts downloads off at the end of drainTimeout has on record what they sent of each, and is no failure.
func TestStopCutsAndRecords(t *testing.T) {
	const rounds, size = 4, 64 << 20
	s := instance.New(t, "sqlite", "drainTimeout: 200ms\n")
	s.CreateRegistry(instance.Open, nil)
	big := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	if _, err := s.PushImage(instance.Open, "app", "v1", big); err != nil {
		t.Fatal(err)
	}
	for range rounds {
		login := s.LoginServer(instance.Open)
		token, _, err := s.RegistryToken("https://"+login, login, s.ClientID, s.ClientSecret, "repository:app:pull")
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+login+"/v2/app/blobs/"+instance.Digest(big), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := s.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan int, 1)
		begun := make(chan struct{})
		go func() { // slower than the server
			piece, n := make([]byte, 256<<10), 0
			for first := true; ; first = false {
				m, err := io.ReadFull(resp.Body, piece)
				if n += m; first {
					close(begun)
				}
				if err != nil {
					got <- n
					return
				}
				time.Sleep(10 * time.Millisecond) // what makes it slow
			}
		}()
		<-begun
		if err := s.Stop(); err != nil {
			t.Fatalf("the stop: %v", err)
		}
		if n := <-got; n >= size {
			t.Fatal("the download was not cut off")
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		s.Start()
	}
	cut := 0
	for _, r := range s.Records(t.Context()) {
		if n, _ := r["bytes"].(float64); r["outcome"] == "aborted" && n > 0 && n < size {
			cut++
		}
	}
	if cut != rounds {
		t.Errorf("%d of %d downloads that were cut off are on record", cut, rounds)
	}
}

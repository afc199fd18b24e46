// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"strconv"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// With throttle: acr the rates of a registry's SKU hold: what is beyond them is told when to come again, and other kinds of request go on.
func TestThrottle(t *testing.T) {
	s := instance.New(t, "sqlite", "throttle: acr\n")
	s.CreateRegistry(instance.Open, nil)
	if _, err := s.PushImage(instance.Open, "app", "v1", []byte("layer")); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for n := 1; n <= 2001+5; n++ {
		a, err := s.OCI(instance.Open, "app", "DELETE", "/v2/app/manifests/absent", nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == 429 {
			after, err := strconv.Atoi(a.Header.Get("Retry-After"))
			if err != nil || after < 1 || after > 60 || !strings.Contains(string(a.Body), `"TOOMANYREQUESTS"`) || !strings.Contains(string(a.Body), "throttle") {
				t.Fatalf("request %d: Retry-After %q, %s", n, a.Header.Get("Retry-After"), a.Body)
			}
			refused++
			if n <= 2000 {
				t.Fatalf("request %d of 2000 a minute is refused", n)
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
	if a, err := s.OCI(instance.Open, "app", "GET", "/v2/app/manifests/v1", nil); err != nil || a.Status != 200 {
		t.Errorf("beside it a pull is answered %d, %v", a.Status, err)
	}
}

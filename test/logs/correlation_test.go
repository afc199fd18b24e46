// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// The correlation id that a client sends is in the request's line, in the lines of the job that the request began, and in the records of both.
func TestCorrelation(t *testing.T) {
	instance.Each(t, "", func(t *testing.T, s *instance.Server) {
		s.CreateRegistry(instance.Open, nil)
		s.CreateRegistry(instance.Closed, nil)
		if _, err := s.PushImage(instance.Open, "app", "v1", []byte("layer")); err != nil {
			t.Fatal(err)
		}
		const id = "11111111-2222-4333-8444-555555555555"
		body, err := json.Marshal(instance.J{"source": instance.J{"resourceId": s.RegistryID(instance.Open), "sourceImage": "app:v1"}, "targetTags": []string{"copy:v1"}})
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.Do(http.MethodPost, s.ResourceManager+s.RegistryID(instance.Closed)+"/importImage"+instance.Version, body,
			"Authorization", "Bearer "+s.Token(), "Content-Type", "application/json", "x-ms-correlation-request-id", id)
		if err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("%v %d %s", err, a.Status, a.Body)
		}
		if end := s.Wait(a); end.Status != http.StatusOK {
			t.Fatalf("%d %s", end.Status, end.Body)
		}
		got := map[string]bool{}
		for _, l := range s.Lines() {
			if l["correlation"] == id {
				got[l["msg"].(string)] = true
			}
		}
		for _, msg := range []string{"request", "job begins", "job ends"} {
			if !got[msg] {
				t.Errorf("no line %q has the correlation id: %v", msg, got)
			}
		}
		for _, action := range []string{"Microsoft.ContainerRegistry/registries/importImage/action"} {
			for _, kind := range []string{"change", "decision"} {
				s.Recorded(t.Context(), "a "+kind+" of "+action, func(r map[string]any) bool {
					return r["correlation"] == id && r["kind"] == kind && r["action"] == action
				})
			}
		}
	})
}

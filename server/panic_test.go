// SPDX-License-Identifier: Apache-2.0

package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// A panic behind the administrator's doors is a 500 with the id that the log has beside the stack; its text stays inside.
func TestPanicsOfTheAdministratorsDoors(t *testing.T) {
	for name, handler := range map[string]func(log *slog.Logger) http.Handler{
		"socket": func(log *slog.Logger) http.Handler { return http.HandlerFunc((&adminSocket{log: log}).serve) }, // it has no rooms, which panics
		"health": func(log *slog.Logger) http.Handler { return &readiness{log: log} },                             // it has no metrics
	} {
		t.Run(name, func(t *testing.T) {
			out := &safe{}
			s := httptest.NewServer(handler(slog.New(slog.NewTextHandler(out, nil))))
			defer s.Close()
			path := map[string]string{"socket": "/v1/status", "health": "/metrics"}[name]
			resp, err := http.Get(s.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var b strings.Builder
			if err := resp.Write(&b); err != nil {
				t.Fatal(err)
			}
			id := regexp.MustCompile(`under the id ([0-9a-f-]{36})`).FindStringSubmatch(b.String())
			if resp.StatusCode != http.StatusInternalServerError || id == nil || strings.Contains(b.String(), "nil pointer") {
				t.Fatalf("%s", b.String())
			}
			if log := out.String(); !strings.Contains(log, id[1]) || !strings.Contains(log, "nil pointer") || !strings.Contains(log, "goroutine") {
				t.Errorf("the log has\n%s", log)
			}
		})
	}
}

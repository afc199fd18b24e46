// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// Logins that prove nobody are counted by address: guessing does not fill the audit.
func TestFailedLogins(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	wrong := "Basic " + base64.StdEncoding.EncodeToString([]byte("nobody:wrong"))
	const each = 25
	for range each {
		for _, url := range []string{"https://" + s.LoginServer(instance.Open) + "/oauth2/token?service=" + s.LoginServer(instance.Open), "https://" + s.LoginServer(instance.Open) + "/v2/"} {
			if a, err := s.Do(http.MethodGet, url, nil, "Authorization", wrong); err != nil || a.Status != http.StatusUnauthorized {
				t.Fatalf("%s: %d %s %v", url, a.Status, a.Body, err)
			}
		}
		if _, err := s.TokenOf(s.ClientID, "wrong"); err == nil || !strings.Contains(err.Error(), "401") {
			t.Fatalf("a token for a wrong secret: %v", err)
		}
	}
	if err := s.Stop(); err != nil { // which records what was counted
		t.Fatal(err)
	}
	s.Start()
	records, count := 0, 0.0
	for _, r := range s.Records(t.Context()) {
		if r["kind"] == "login" && r["outcome"] == "refused" {
			records++
			n, _ := r["count"].(float64)
			count += n
		}
	}
	if records > 2*3 || count != 3*each {
		t.Errorf("%d failed logins are %v in %d records", 3*each, count, records)
	}
}

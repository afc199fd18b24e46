// SPDX-License-Identifier: Apache-2.0

package azure_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/blob/internal/azure"
	"github.com/embargo-registry/embargo/blob/internal/driver"
)

// What a service answers has one name among all drivers: full, taken, gone, or away. Only a service that says so has lost an object.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{507, "Other", driver.ErrFull}, {403, "AccountQuotaExceeded", driver.ErrFull},
		{409, "BlobAlreadyExists", driver.ErrTaken}, {412, "ConditionNotMet", driver.ErrTaken},
		{404, "BlobNotFound", fs.ErrNotExist}, {400, "InvalidBlockList", fs.ErrNotExist},
		{404, "ContainerNotFound", driver.ErrAway}, {403, "AuthenticationFailed", driver.ErrAway}, {400, "Md5Mismatch", driver.ErrAway},
	} {
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-ms-error-code", c.code)
			w.WriteHeader(c.status)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>m</Message></Error>`, c.code)
		}))
		b, err := azure.New(azure.Options{Endpoint: service.URL, Account: "a", Container: "c", Key: "a2V5", Client: service.Client()})
		if err != nil {
			t.Fatal(err)
		}
		_, part := b.PutPart(t.Context(), "o", "session", 1, []byte("x"))
		_, read := b.Get(t.Context(), "o", 0, 1)
		for what, err := range map[string]error{"put": b.Put(t.Context(), "o", []byte("x")), "part": part, "complete": b.Complete(t.Context(), "o", "session", []string{"dGFn"}), "get": read} {
			for _, known := range []error{driver.ErrFull, driver.ErrTaken, driver.ErrAway, fs.ErrNotExist} {
				if errors.Is(err, known) != errors.Is(c.want, known) {
					t.Errorf("%s answered by %d %s: %v", what, c.status, c.code, err)
				}
			}
		}
		service.Close()
	}
}

// What names no container, or has no key, is refused, and a key that is none is not quoted.
func TestOptions(t *testing.T) {
	whole := azure.Options{Endpoint: "https://a.blob.example", Account: "a", Container: "c", Key: "a2V5", Client: http.DefaultClient}
	if _, err := azure.New(whole); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(o *azure.Options){
		"no endpoint": func(o *azure.Options) { o.Endpoint = "" }, "another scheme": func(o *azure.Options) { o.Endpoint = "ftp://h" },
		"no account": func(o *azure.Options) { o.Account = "" }, "no container": func(o *azure.Options) { o.Container = "" }, "no base64": func(o *azure.Options) { o.Key = "!secret!" },
	} {
		o := whole
		change(&o)
		if _, err := azure.New(o); err == nil || strings.Contains(err.Error(), "!secret!") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/blob/internal/s3"
)

// What a service answers has one name among all drivers: full, taken, gone, or away. Only a service that says so has lost an object.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{507, "XMinioStorageFull", driver.ErrFull}, {400, "QuotaExceeded", driver.ErrFull}, {507, "Other", driver.ErrFull},
		{412, "PreconditionFailed", driver.ErrTaken}, {409, "ConditionalRequestConflict", driver.ErrTaken},
		{404, "NoSuchKey", fs.ErrNotExist}, {404, "NoSuchUpload", fs.ErrNotExist}, {400, "InvalidPart", fs.ErrNotExist},
		{404, "NoSuchBucket", driver.ErrAway}, {403, "AccessDenied", driver.ErrAway}, {403, "SignatureDoesNotMatch", driver.ErrAway}, {501, "NotImplemented", driver.ErrAway},
		{400, "BadDigest", driver.ErrAway},
	} {
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(c.status)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>m</Message></Error>`, c.code)
		}))
		b, err := s3.New(s3.Options{Endpoint: service.URL, Bucket: "bucket", AccessKey: "a", SecretKey: "s", PathStyle: true, Transport: service.Client().Transport})
		if err != nil {
			t.Fatal(err)
		}
		_, part := b.PutPart(t.Context(), "o", "session", 1, []byte("x"))
		_, read := b.Get(t.Context(), "o", 0, 1)
		for what, err := range map[string]error{"put": b.Put(t.Context(), "o", []byte("x")), "part": part, "complete": b.Complete(t.Context(), "o", "session", []string{"tag"}), "get": read} {
			for _, known := range []error{driver.ErrFull, driver.ErrTaken, driver.ErrAway, fs.ErrNotExist} {
				if errors.Is(err, known) != errors.Is(c.want, known) {
					t.Errorf("%s answered by %d %s: %v", what, c.status, c.code, err)
				}
			}
		}
		service.Close()
	}
}

// What names no bucket, or has no key, is refused.
func TestOptions(t *testing.T) {
	whole := s3.Options{Endpoint: "https://s3.example", Bucket: "b", AccessKey: "a", SecretKey: "s", Transport: http.DefaultTransport}
	if _, err := s3.New(whole); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(o *s3.Options){
		"no endpoint": func(o *s3.Options) { o.Endpoint = "" }, "a path": func(o *s3.Options) { o.Endpoint += "/path" }, "another scheme": func(o *s3.Options) { o.Endpoint = "ftp://h" },
		"no bucket": func(o *s3.Options) { o.Bucket = "" }, "no key": func(o *s3.Options) { o.SecretKey = "" },
	} {
		o := whole
		change(&o)
		if _, err := s3.New(o); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// TestFraming: a request whose end could be seen in two places is refused, or is the last one on its connection, so that what stands behind it is never taken for a request. In each
// case a request for prey follows; it asks to be the last one, so every connection must end.
func TestFraming(t *testing.T) {
	w := newWorld(t, "sqlite")
	auth := "Host: x\r\nAuthorization: " + w.auth + "\r\n"
	prey := "GET /v2/app/tags/list HTTP/1.1\r\n" + auth + "Connection: close\r\n\r\n"
	m := w.image("app", "prey")
	want(t, "the prey", w.send("PUT", "/v2/app/manifests/prey", m, "Content-Type", instance.ManifestType), 201, "")
	get := "GET /v2/ HTTP/1.1\r\n" + auth
	patch := func() string { return "PATCH " + w.begin() + " HTTP/1.1\r\n" + auth }
	const nothing = "0\r\n\r\n" // of chunks
	var all sync.WaitGroup      // closing a connection takes the server half a second
	for _, c := range []struct {
		what, text string
		statuses   []int
	}{
		{"an honest pair", get + "\r\n", []int{200, 200}},
		{"a body of an honest length", patch() + "Content-Length: 1\r\n\r\nx", []int{202, 200}},
		{"a length that is said twice alike", patch() + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", []int{202, 200}},
		{"line feeds alone", "GET /v2/ HTTP/1.1\n" + strings.ReplaceAll(auth, "\r", "") + "\n", []int{200, 200}},
		{"a folded header", get + "X: a\r\n Content-Length: 500\r\n\r\n", []int{200, 200}},
		{"GET with a body", get + "Content-Length: 5\r\n\r\nGET /", []int{200, 200}},
		{"an upgrade to HTTP/2", get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", []int{200, 200}},
		{"OPTIONS of all", "OPTIONS * HTTP/1.1\r\n" + auth + "\r\n", []int{404, 200}},
		{"TRACE", "TRACE /v2/ HTTP/1.1\r\n" + auth + "\r\n", []int{405, 200}},
		{"a method in lower case", "get /v2/ HTTP/1.1\r\n" + auth + "\r\n", []int{405, 200}},
		{"the form of a proxy's request", "GET http://evil.example/v2/ HTTP/1.1\r\n" + auth + "\r\n", []int{200, 200}},

		{"a length beside chunks", patch() + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + nothing, []int{202}},
		{"a length beside chunks, of GET", get + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + nothing, []int{200}},
		{"a length beside folded chunks", patch() + "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n" + nothing, []int{202}},
		{"chunks", patch() + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n" + nothing, []int{202}},
		{"chunks with a trailer", patch() + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nAuthorization: Basic eDp5\r\nContent-Length: 7\r\n\r\n", []int{202}},
		{"chunks in HTTP/1.0", "PATCH " + w.begin() + " HTTP/1.0\r\n" + auth + "Connection: keep-alive\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", []int{202}},
		{"HTTP/1.0 that would stay", "GET /v2/ HTTP/1.0\r\n" + auth + "Connection: keep-alive\r\n\r\n", []int{200}},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\n" + auth + "\r\n", []int{404}},

		{"an unknown coding", patch() + "Transfer-Encoding: xchunked\r\n\r\n" + nothing, []int{501}},
		{"codings in two headers", patch() + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + nothing, []int{501}},
		{"two codings", patch() + "Transfer-Encoding: gzip, chunked\r\n\r\n" + nothing, []int{501}},
		{"a coding behind a tab", patch() + "Content-Length: 5\r\nTransfer-Encoding: \x0bchunked\r\n\r\n" + nothing, []int{400}},
		{"a space before the colon", patch() + "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n" + nothing, []int{400}},
		{"a space before the first header", "GET /v2/ HTTP/1.1\r\n X: a\r\n" + auth + "\r\n", []int{400}},
		{"two lengths", patch() + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n", []int{400}},
		{"a list of lengths", patch() + "Content-Length: 0, 0\r\n\r\n", []int{400}},
		{"a length with a sign", patch() + "Content-Length: +0\r\n\r\n", []int{400}},
		{"a negative length", patch() + "Content-Length: -1\r\n\r\n", []int{400}},
		{"a length beyond counting", patch() + "Content-Length: 99999999999999999999\r\n\r\n", []int{400}},
		{"an empty length", patch() + "Content-Length: \r\n\r\n", []int{400}},
		{"a carriage return in a value", get + "X: a\rb\r\n\r\n", []int{400}},
		{"NUL in a value", get + "X: a\x00b\r\n\r\n", []int{400}},
		{"NUL in the path", "GET /v2/a\x00b/tags/list HTTP/1.1\r\n" + auth + "\r\n", []int{400}},
		{"a space in the path", "GET /v2/a b/tags/list HTTP/1.1\r\n" + auth + "\r\n", []int{400}},
		{"half an escape in the path", "GET /v2/a%zz/tags/list HTTP/1.1\r\n" + auth + "\r\n", []int{400}},
		{"a path without its slash", "GET v2/ HTTP/1.1\r\n" + auth + "\r\n", []int{400}},
		{"no host", "GET /v2/ HTTP/1.1\r\nAuthorization: " + w.auth + "\r\n\r\n", []int{400}},
		{"two hosts", get + "Host: y\r\n\r\n", []int{400}},
		{"a host with a path", "GET /v2/ HTTP/1.1\r\nHost: x/../y@z\r\nAuthorization: " + w.auth + "\r\n\r\n", []int{400}},
		{"a method of odd signs", "G@T /v2/ HTTP/1.1\r\n" + auth + "\r\n", []int{400}},
		{"HTTP/0.9", "GET /v2/\r\n\r\n", []int{400}},
		{"HTTP/3.0", "GET /v2/ HTTP/3.0\r\n" + auth + "\r\n", []int{505}},
		{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{404}},
		{"another expectation", patch() + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx", []int{417}},
		{"chunks that end in line feeds", patch() + "Transfer-Encoding: chunked\r\n\r\n0\n\n", []int{400}},
		{"a chunk of 0x0 bytes", patch() + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n", []int{400}},
		{"a chunk of a negative size", patch() + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", []int{400}},
		{"a chunk of a size beyond counting", patch() + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n", []int{400}},
		{"chunks of extensions alone", patch() + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("e", 500)+"\r\nx\r\n", 100), []int{400}},
		{"a header of 80 KiB", get + "X: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", []int{431}},
		{"20 000 headers", get + strings.Repeat("X: a\r\n", 20000) + "\r\n", []int{431}},
		{"a path of 80 KiB", "GET /v2/?x=" + strings.Repeat("a", 80<<10) + " HTTP/1.1\r\n" + auth + "\r\n", []int{431}},
	} {
		all.Go(func() {
			if got := statuses(w.raw(c.text + prey)); !slices.Equal(got, c.statuses) {
				t.Errorf("%s: %v, want %v", c.what, got, c.statuses)
			}
		})
	}
	all.Wait()
	w.well()
}

// TestFramingUnderTLS: a client's own connection stays after chunks that were taken, as pushes of images need it, and ends after those that were refused.
func TestFramingUnderTLS(t *testing.T) {
	w := newWorld(t, "sqlite")
	host := "Host: " + w.LoginServer(registryName) + "\r\n"
	auth := host + "Authorization: " + w.auth + "\r\n"
	after := "GET /v2/ HTTP/1.1\r\n" + auth + "Connection: close\r\n\r\n"
	const chunks = "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
	for _, c := range []struct {
		what, text string
		statuses   []int
	}{
		{"chunks that are taken", "PATCH " + w.begin() + " HTTP/1.1\r\n" + auth + chunks, []int{202, 200}},
		{"chunks without a credential", "PATCH " + w.begin() + " HTTP/1.1\r\n" + host + chunks, []int{401}},
		{"chunks for another host", "PATCH /v2/ HTTP/1.1\r\nHost: evil.example\r\n" + chunks, []int{421}},
		{"a proxy's request for another host", "GET http://evil.example/v2/ HTTP/1.1\r\n" + auth + "\r\n", []int{421, 200}},
		{"CONNECT", "CONNECT " + w.LoginServer(registryName) + ":443 HTTP/1.1\r\n" + auth + "\r\n", []int{404}},
		{"a header of 80 KiB", "GET /v2/ HTTP/1.1\r\n" + auth + "X: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", []int{431}},
	} {
		if got := statuses(w.secret(c.text + after)); !slices.Equal(got, c.statuses) {
			t.Errorf("%s: %v, want %v", c.what, got, c.statuses)
		}
	}
	w.well()
}

// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// TestDrops: a blob may come byte by byte, in requests or in chunks of HTTP, and costs time and no memory.
func TestDrops(t *testing.T) {
	w := newWorld(t, "sqlite")
	content := bytes.Repeat([]byte("drop"), 500)
	w.bounded(200<<20, func() {
		upload := w.begin()
		for i := range content {
			a := w.send(http.MethodPatch, upload, content[i:i+1], "Content-Range", fmt.Sprintf("%d-%d", i, i))
			if a.Status != 202 || a.Header.Get("Range") != fmt.Sprintf("0-%d", i) {
				t.Fatalf("byte %d: %d %s %s", i, a.Status, a.Header.Get("Range"), a.Body)
			}
		}
		want(t, "the end of 2 000 requests", w.send(http.MethodPut, upload+"?digest="+instance.Digest(content), nil), 201, "")
	})
	large := bytes.Repeat([]byte("chunk"), 200_000)
	w.bounded(200<<20, func() {
		var text strings.Builder
		text.WriteString("POST /v2/app/blobs/uploads/?digest=" + instance.Digest(large) + " HTTP/1.1\r\nHost: x\r\nAuthorization: " + w.auth + "\r\nTransfer-Encoding: chunked\r\n\r\n")
		for _, b := range large {
			text.WriteString("1\r\n" + string(rune(b)) + "\r\n")
		}
		text.WriteString("0\r\n\r\n")
		if got := statuses(w.raw(text.String())); len(got) != 1 || got[0] != 201 {
			t.Errorf("a million chunks of one byte: %v", got)
		}
	})
	if a := w.send(http.MethodGet, "/v2/app/blobs/"+instance.Digest(large), nil); !bytes.Equal(a.Body, large) {
		t.Errorf("what came in chunks: %d, %d bytes", a.Status, len(a.Body))
	}
	w.well()
}

// TestContentRanges: a chunk is taken where the upload stands and nowhere else, as long as it says, and a refused one changes nothing that is not said.
func TestContentRanges(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		upload := w.begin()
		want(t, "the first chunk", w.send(http.MethodPatch, upload, []byte("01234"), "Content-Range", "0-4"), 202, "")
		for _, c := range []struct {
			what, header, body string
			status             int
			code               string
		}{
			{"again", "0-4", "01234", 416, "BLOB_UPLOAD_INVALID"},
			{"overlapping", "3-7", "34567", 416, "BLOB_UPLOAD_INVALID"},
			{"out of order", "10-14", "abcde", 416, "BLOB_UPLOAD_INVALID"},
			{"backwards", "9-5", "56789", 416, "BLOB_UPLOAD_INVALID"},
			{"negative", "-5-9", "56789", 416, "BLOB_UPLOAD_INVALID"},
			{"signed", "+5-+9", "56789", 416, "BLOB_UPLOAD_INVALID"},
			{"beyond counting", "5-99999999999999999999", "56789", 416, "BLOB_UPLOAD_INVALID"},
			{"the largest number", "5-9223372036854775807", "56789", 400, "SIZE_INVALID"},
			{"from the largest number", "9223372036854775807-9223372036854775807", "5", 416, "BLOB_UPLOAD_INVALID"},
			{"all numbers", "0-9223372036854775807", "56789", 416, "BLOB_UPLOAD_INVALID"},
			{"in words", "five-nine", "56789", 416, "BLOB_UPLOAD_INVALID"},
			{"of a bad total", "bytes 5-9/x", "56789", 416, "BLOB_UPLOAD_INVALID"},
			{"shorter than said", "5-9", "567", 400, "SIZE_INVALID"},
			{"longer than said", "5-9", "56789ab", 400, "SIZE_INVALID"},
		} {
			a := w.send(http.MethodPatch, upload, []byte(c.body), "Content-Range", c.header)
			want(t, c.what, a, c.status, c.code)
			if a.Header.Get("Range") != "0-4" || a.Header.Get("Location") == "" {
				t.Errorf("%s: Range %q, Location %q", c.what, a.Header.Get("Range"), a.Header.Get("Location"))
			}
		}
		// Chunked bodies have no length that could be compared before: what lies within the range is taken, and said.
		chunked := func(body, to string) []instance.Answer {
			return w.raw(fmt.Sprintf("PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Range: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", upload, w.auth, to, len(body), body))
		}
		for _, c := range []struct{ what, body, header, stands string }{
			{"a chunked body that is longer than said", "56789", "5-6", "0-6"},
			{"a chunked body that is shorter than said", "7", "7-8", "0-7"},
		} {
			if as := chunked(c.body, c.header); len(as) != 1 || as[0].Status != 400 || codeOf(as[0].Body) != "SIZE_INVALID" || as[0].Header.Get("Range") != c.stands {
				t.Errorf("%s: %+v", c.what, as)
			}
		}
		want(t, "the last chunk in its PUT", w.send(http.MethodPut, upload+"?digest="+instance.Digest([]byte("0123456789")), []byte("89"), "Content-Range", "8-9"), 201, "")
		want(t, "a chunk after the end", w.send(http.MethodPatch, upload, []byte("x")), 404, "BLOB_UPLOAD_UNKNOWN")
	})
}

// TestBrokenBodies: what came before a connection broke off is kept and told, and the upload goes on from there.
func TestBrokenBodies(t *testing.T) {
	w := newWorld(t, "sqlite")
	upload := w.begin()
	c, err := net.Dial("tcp", w.door)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "PATCH "+upload+" HTTP/1.1\r\nHost: x\r\nAuthorization: "+w.auth+"\r\nContent-Length: 1000000\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	_ = c.Close()
	if resp.StatusCode != 400 {
		t.Errorf("a body that breaks off: %d", resp.StatusCode)
	}
	if a := w.send(http.MethodGet, upload, nil); a.Status != 204 || a.Header.Get("Range") != "0-3" {
		t.Errorf("it stands at %d %q", a.Status, a.Header.Get("Range"))
	}
	want(t, "its end", w.send(http.MethodPut, upload+"?digest="+instance.Digest([]byte("half of it")), []byte(" of it")), 201, "")
	w.well()
}

// TestAbandonedUploads: an upload that nobody went on with for a week is gone with its bytes when the collection has run, and no sooner.
func TestAbandonedUploads(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const many = 300
		var uploads []string
		for range many {
			upload := w.begin()
			want(t, "a part", w.send(http.MethodPatch, upload, []byte("a part")), 202, "")
			uploads = append(uploads, upload)
		}
		files := func() (n int) {
			found, err := filepath.Glob(filepath.Join(w.Data, "blobs", "*", "*"))
			if err != nil {
				t.Fatal(err)
			}
			return len(found)
		}
		collect := func() {
			t.Helper()
			if out, errs, err := w.Run(t.Context(), "gc", "--data", w.Data); err != nil {
				t.Fatalf("%v: %s%s", err, out, errs)
			}
		}
		with := files()
		if with < many {
			t.Fatalf("%d files of %d uploads", with, many)
		}
		collect()
		want(t, "one that is young", w.send(http.MethodGet, uploads[0], nil), 204, "")
		w.Rows(func(tx *meta.Tx) error {
			_, err := tx.Exec(`UPDATE uploads SET touched_us = $1`, meta.Micros(time.Now().Add(-8*24*time.Hour)))
			return err
		})
		want(t, "one that somebody goes on with", w.send(http.MethodPatch, uploads[1], []byte("!")), 202, "")
		collect()
		want(t, "one that nobody went on with", w.send(http.MethodGet, uploads[0], nil), 404, "BLOB_UPLOAD_UNKNOWN")
		want(t, "the one that somebody went on with", w.send(http.MethodGet, uploads[1], nil), 204, "")
		if left := files(); left > with-many+1 {
			t.Errorf("%d files of %d are left", left, with)
		}
	})
}

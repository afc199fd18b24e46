// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
)

// want checks headers of an answer: name, value, …; the value "*" is any but none, "" is none.
func (a answer) want(t *testing.T, header ...string) {
	t.Helper()
	for i := 0; i+1 < len(header); i += 2 {
		got := a.Get(header[i])
		if w := header[i+1]; w == "*" && got == "" || w != "*" && got != w {
			t.Errorf("%s: %q, want %q", header[i], got, w)
		}
	}
}

// refused checks status and code of an error.
func (h *host) refused(t *testing.T, status int, code, method, path string, body []byte, header ...string) answer {
	t.Helper()
	a := h.do(status, method, path, body, header...)
	if a.code() != code {
		t.Errorf("%s %s: code %q, want %q: %.300s", method, path, a.code(), code, a.body)
	}
	a.want(t, "Content-Type", "application/json; charset=utf-8", "Docker-Distribution-Api-Version", "registry/2.0", "X-Ms-Correlation-Request-Id", "*")
	return a
}

// TestUploads is every way of pushing a blob, as whole exchanges.
func TestUploads(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		const octets = "application/octet-stream"
		content := bytes.Repeat([]byte("0123456789"), 100)
		d := string(name.DigestOf(content))
		at := "/v2/a/b/blobs/" + d

		t.Run("in one request", func(t *testing.T) {
			a := h.do(201, "POST", "/v2/a/b/blobs/uploads/?digest="+d, content, "Content-Type", octets)
			a.want(t, "Location", at, "Docker-Content-Digest", d, "Content-Length", "0", "Docker-Upload-Uuid", "", "Range", "")
			if got := h.do(200, "GET", "/v2/a/b/blobs/"+d, nil); !bytes.Equal(got.body, content) {
				t.Error("it reads otherwise than it was written")
			}
		})
		t.Run("in two", func(t *testing.T) {
			a := h.do(202, "POST", "/v2/a/two/blobs/uploads/", nil)
			a.want(t, "Location", "/v2/a/two/blobs/uploads/"+a.Get("Docker-Upload-Uuid"), "Range", "0-0", "Docker-Upload-Uuid", "*")
			a = h.do(201, "PUT", a.Get("Location")+"?digest="+d, content, "Content-Type", octets)
			a.want(t, "Location", "/v2/a/two/blobs/"+d, "Docker-Content-Digest", d)
			h.do(200, "HEAD", "/v2/a/two/blobs/"+d, nil).want(t, "Content-Length", "1000", "Docker-Content-Digest", d)
		})
		t.Run("streamed, asked for, and taken up again", func(t *testing.T) {
			a := h.do(202, "POST", "/v2/a/s/blobs/uploads/", nil)
			up := a.Get("Location")
			// A body without a length, as a client that compresses on the fly sends it.
			r := h.request("PATCH", up, struct{ io.Reader }{bytes.NewReader(content[:700])}, "Content-Type", octets)
			if a = h.send(r); a.status != 202 {
				t.Fatalf("PATCH: %d %s", a.status, a.body)
			}
			a.want(t, "Range", "0-699", "Location", up)
			h.do(204, "GET", up, nil).want(t, "Range", "0-699", "Location", up, "Docker-Upload-Uuid", "*")
			h.do(202, "PATCH", up, content[700:], "Content-Type", octets).want(t, "Range", "0-999")
			h.do(201, "PUT", up+"?digest="+d, nil)
			if got := h.do(200, "GET", "/v2/a/s/blobs/"+d, nil); !bytes.Equal(got.body, content) {
				t.Error("it reads otherwise than it was written")
			}
			h.refused(t, 404, "BLOB_UPLOAD_UNKNOWN", "GET", up, nil)
		})
		t.Run("in chunks", func(t *testing.T) {
			up := h.do(202, "POST", "/v2/a/c/blobs/uploads/", nil).Get("Location")
			h.do(202, "PATCH", up, content[:400], "Content-Range", "0-399", "Content-Type", octets).want(t, "Range", "0-399")
			// Again the same, a gap, and a length that the header belies: refused, and the upload stays where it was.
			for _, c := range []struct {
				at, code string
				status   int
				body     []byte
			}{
				{"0-399", "BLOB_UPLOAD_INVALID", 416, content[:400]},
				{"500-599", "BLOB_UPLOAD_INVALID", 416, content[500:600]},
				{"400", "BLOB_UPLOAD_INVALID", 416, content[400:]},
				{"400-499", "SIZE_INVALID", 400, content[400:]},
			} {
				a := h.refused(t, c.status, c.code, "PATCH", up, c.body, "Content-Range", c.at)
				a.want(t, "Range", "0-399", "Location", up)
			}
			h.do(202, "PATCH", up, content[400:900], "Content-Range", "400-899").want(t, "Range", "0-899")
			h.refused(t, 416, "BLOB_UPLOAD_INVALID", "PUT", up+"?digest="+d, content[900:], "Content-Range", "800-899")
			h.do(201, "PUT", up+"?digest="+d, content[900:], "Content-Range", "900-999")
			if got := h.do(200, "GET", "/v2/a/c/blobs/"+d, nil); !bytes.Equal(got.body, content) {
				t.Error("it reads otherwise than it was written")
			}
		})
		t.Run("a chunk of no length that is longer or shorter than its range", func(t *testing.T) {
			up := h.do(202, "POST", "/v2/a/l/blobs/uploads/", nil).Get("Location")
			for _, n := range []int{99, 101} {
				a := h.send(h.request("PUT", up+"?digest="+d, struct{ io.Reader }{bytes.NewReader(content[:n])}, "Content-Range", "0-99"))
				if a.status != 400 || a.code() != "SIZE_INVALID" {
					t.Errorf("%d bytes as 0-99: %d %s", n, a.status, a.body)
				}
			}
			h.do(204, "GET", up, nil).want(t, "Range", "0-0")
		})
		t.Run("cancelled", func(t *testing.T) {
			up := h.do(202, "POST", "/v2/a/x/blobs/uploads/", nil).Get("Location")
			h.do(202, "PATCH", up, content[:10])
			h.do(204, "DELETE", up, nil)
			h.refused(t, 404, "BLOB_UPLOAD_UNKNOWN", "PATCH", up, content)
			h.refused(t, 404, "BLOB_UPLOAD_UNKNOWN", "DELETE", up, nil)
		})
		t.Run("with the wrong digest", func(t *testing.T) {
			wrong := string(name.DigestOf([]byte("other")))
			h.refused(t, 400, "DIGEST_INVALID", "POST", "/v2/a/w/blobs/uploads/?digest="+wrong, content)
			h.refused(t, 400, "DIGEST_INVALID", "POST", "/v2/a/w/blobs/uploads/?digest=md5:00", content)
			up := h.do(202, "POST", "/v2/a/w/blobs/uploads/", nil).Get("Location")
			h.refused(t, 400, "DIGEST_INVALID", "PUT", up+"?digest="+wrong, content)
			h.refused(t, 400, "DIGEST_INVALID", "PUT", up, content)
			h.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/a/w/blobs/"+wrong, nil)
			h.do(201, "PUT", up+"?digest="+d, content)
		})
		t.Run("an upload belongs to its repository", func(t *testing.T) {
			up := h.do(202, "POST", "/v2/a/o/blobs/uploads/", nil)
			h.refused(t, 404, "BLOB_UPLOAD_UNKNOWN", "PATCH", "/v2/a/p/blobs/uploads/"+up.Get("Docker-Upload-Uuid"), content)
		})
		t.Run("sha512, and nothing at all", func(t *testing.T) {
			sum := sha512.Sum512(content)
			d512 := "sha512:" + hex.EncodeToString(sum[:])
			h.do(201, "POST", "/v2/a/h/blobs/uploads/?digest="+d512, content)
			h.do(200, "GET", "/v2/a/h/blobs/"+d512, nil).want(t, "Docker-Content-Digest", d512)
			empty := string(name.DigestOf(nil))
			h.do(201, "POST", "/v2/a/h/blobs/uploads/?digest="+empty, nil)
			h.do(200, "GET", "/v2/a/h/blobs/"+empty, nil).want(t, "Content-Length", "0")
		})
	})
}

// TestManifests is what may be pushed as a manifest.
func TestManifests(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		config, layer := []byte("{}"), []byte("layer")
		m := imageOf("", config, layer)
		d := string(name.DigestOf(m))
		put := func(ref string) string { return "/v2/app/manifests/" + ref }

		a := h.refused(t, 404, "MANIFEST_BLOB_UNKNOWN", "PUT", put("v1"), m, "Content-Type", mediaImage)
		if !strings.Contains(string(a.body), string(name.DigestOf(config))) || !strings.Contains(string(a.body), string(name.DigestOf(layer))) {
			t.Errorf("the answer does not name both missing blobs: %s", a.body)
		}
		// What another repository holds is not held by this one.
		h.blob("other", config)
		h.blob("other", layer)
		h.refused(t, 404, "MANIFEST_BLOB_UNKNOWN", "PUT", put("v1"), m, "Content-Type", mediaImage)
		h.blob("app", config)
		h.blob("app", layer)
		h.manifest("app", "v1", mediaImage, m).want(t, "Location", put(d), "Docker-Content-Digest", d, "OCI-Subject", "")
		h.do(200, "GET", put("v1"), nil).want(t, "Content-Type", mediaImage, "Docker-Content-Digest", d, "Etag", `"`+d+`"`,
			"Cache-Control", "private, no-cache", "Content-Length", fmt.Sprint(len(m)))
		got := h.do(200, "GET", put(d), nil)
		got.want(t, "Cache-Control", "private, max-age=31536000, immutable")
		if !bytes.Equal(got.body, m) {
			t.Error("the manifest reads otherwise than it was written")
		}
		if a := h.do(200, "HEAD", put("v1"), nil); len(a.body) != 0 || a.Get("Content-Length") != fmt.Sprint(len(m)) {
			t.Errorf("HEAD: %d bytes of body, Content-Length %s", len(a.body), a.Get("Content-Length"))
		}

		idx := indexOf(m, []byte("not here"))
		h.refused(t, 404, "MANIFEST_UNKNOWN", "PUT", put("multi"), idx, "Content-Type", mediaIndex)
		idx = indexOf(m)
		h.manifest("app", "multi", mediaIndex, idx)
		h.refused(t, 400, "MANIFEST_INVALID", "PUT", put("v2"), m, "Content-Type", mediaIndex)
		h.refused(t, 400, "MANIFEST_INVALID", "PUT", put("v2"), []byte("{}"), "Content-Type", mediaImage)
		h.refused(t, 400, "DIGEST_INVALID", "PUT", put(string(name.DigestOf([]byte("x")))), m, "Content-Type", mediaImage)
		h.refused(t, 413, "SIZE_INVALID", "PUT", put("big"), bytes.Repeat([]byte(" "), 4<<20+1), "Content-Type", mediaImage)
		padded := append(bytes.Repeat([]byte(" "), 4<<20-len(m)), m...)
		h.manifest("app", "largest", mediaImage, padded)
		h.refused(t, 404, "MANIFEST_UNKNOWN", "GET", put("v2"), nil)

		// A tag moves; what it pointed to stays.
		other := imageOf(`,"annotations":{"n":"2"}`, config, layer)
		h.manifest("app", "v1", mediaImage, other)
		h.do(200, "GET", put("v1"), nil).want(t, "Docker-Content-Digest", string(name.DigestOf(other)))
		h.do(200, "GET", put(d), nil)

		// sha512 by digest.
		sum := sha512.Sum512(m)
		d512 := "sha512:" + hex.EncodeToString(sum[:])
		h.manifest("app", d512, mediaImage, m).want(t, "Docker-Content-Digest", d512)
		h.do(200, "GET", put(d512), nil).want(t, "Docker-Content-Digest", d512)

		// A client that does not take the type is told so; one that takes anything, or this, gets it.
		h.refused(t, 404, "MANIFEST_UNKNOWN", "GET", put("multi"), nil, "Accept", mediaImage)
		h.do(200, "GET", put("multi"), nil, "Accept", mediaImage+", "+mediaIndex+";q=0.5")
		h.do(200, "GET", put("multi"), nil, "Accept", mediaImage, "Accept", "*/*")
		h.refused(t, 404, "MANIFEST_UNKNOWN", "GET", put("multi"), nil, "Accept", mediaImage+", "+mediaIndex+";q=0")
	})
}

// TestDockerManifests: images and lists of Docker's schema 2 are kept as they were pushed, byte for byte and under their own type, with what docker sends; schema 1 is refused.
func TestDockerManifests(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const (
			image  = "application/vnd.docker.distribution.manifest.v2+json"
			list   = "application/vnd.docker.distribution.manifest.list.v2+json"
			layers = "application/vnd.docker.image.rootfs.diff.tar.gzip"
			// accept is what docker pull sends, less the types that no registry has had for long.
			accept = image + ", " + list + ", " + mediaIndex + ", " + mediaImage
		)
		h := w.registry("contoso")
		config, layer := []byte(`{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`), []byte("layer")
		h.blob("app", config)
		h.blob("app", layer)
		m := []byte("{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"" + image + "\",\n   \"config\": " + descriptor("application/vnd.docker.container.image.v1+json", config) +
			",\n   \"layers\": [" + descriptor(layers, layer) + "]\n}")
		l := []byte(`{"schemaVersion":2,"mediaType":"` + list + `","manifests":[{"mediaType":"` + image + `","size":` + fmt.Sprint(len(m)) + `,"digest":"` + string(name.DigestOf(m)) +
			`","platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}`)
		h.manifest("app", "v1", image, m)
		h.manifest("app", "multi", list, l)
		for tag, want := range map[string]struct {
			media   string
			content []byte
		}{"v1": {image, m}, "multi": {list, l}} {
			d := string(name.DigestOf(want.content))
			for _, ref := range []string{tag, d} {
				a := h.do(200, "GET", "/v2/app/manifests/"+ref, nil, "Accept", accept)
				a.want(t, "Content-Type", want.media, "Docker-Content-Digest", d)
				if !bytes.Equal(a.body, want.content) {
					t.Errorf("%s reads otherwise than it was pushed", ref)
				}
			}
			h.refused(t, 404, "MANIFEST_UNKNOWN", "GET", "/v2/app/manifests/"+tag, nil, "Accept", mediaImage+", "+mediaIndex)
		}
		shown, a := h.acr(t, 200, "GET", "app/_manifests/"+string(name.DigestOf(m)), "")
		if shown.Manifest == nil || !strings.Contains(string(a.body), `"mediaType":"`+image+`"`) || !strings.Contains(string(a.body), `"architecture":"arm64"`) {
			t.Errorf("described: %s", a.body)
		}
		if done := w.collect(0); done.Content != 0 {
			t.Errorf("of what a manifest of docker's names %+v was removed", done)
		}
		one := []byte(`{"schemaVersion":1,"name":"app","tag":"v1","architecture":"amd64","fsLayers":[],"history":[]}`)
		if a := h.refused(t, 400, "MANIFEST_INVALID", "PUT", "/v2/app/manifests/old", one, "Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"); !strings.Contains(string(a.body), "version 1") {
			t.Errorf("schema 1: %s", a.body)
		}
	})
}

// TestSharedContentIsUploadedAllTheSame (R28): content that another repository or registry holds is pushed like any other, and nothing
// tells that it is there.
func TestSharedContentIsUploadedAllTheSame(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		one, two := w.registry("one"), w.registry("two")
		content := []byte("what both hold")
		d := one.blob("app", content)
		for _, h := range []*host{one, two} {
			for _, repo := range []string{"new/app", "app2"} {
				h.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/"+repo+"/blobs/"+string(d), nil)
				h.do(404, "HEAD", "/v2/"+repo+"/blobs/"+string(d), nil)
				// A mount from a repository that does not hold it begins an upload, as from one that does not exist.
				h.do(202, "POST", "/v2/"+repo+"/blobs/uploads/?mount="+string(d)+"&from=nowhere", nil)
				up := h.do(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Get("Location")
				// The bytes are wanted and checked although they are stored already.
				h.refused(t, 400, "DIGEST_INVALID", "PUT", up+"?digest="+string(d), []byte("other bytes"))
				h.do(201, "PUT", up+"?digest="+string(d), content)
				h.do(200, "GET", "/v2/"+repo+"/blobs/"+string(d), nil)
			}
		}
		var rows int
		err := w.db.Read(context.Background(), func(tx *meta.Tx) error {
			return tx.Row(`SELECT COUNT(*) FROM blobs WHERE digest = $1`, string(d)).Scan(&rows)
		})
		if err != nil || rows != 1 {
			t.Errorf("the content is stored %d times, %v", rows, err)
		}
	})
}

// TestMountNeedsPullOnSource (R11): a mount moves no bytes when the caller may read the source, and is an ordinary upload otherwise.
func TestMountNeedsPullOnSource(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		d := h.blob("secret/app", []byte("to be mounted"))
		path := "/v2/team/app/blobs/uploads/?mount=" + string(d) + "&from=secret/app"
		narrow := h.as(w.tokenOf(h, "repository:team/app:pull,push"))
		for _, from := range []string{"secret/app", "secret/absent"} { // forbidden, absent
			a := narrow.do(202, "POST", "/v2/team/app/blobs/uploads/?mount="+string(d)+"&from="+from, nil)
			a.want(t, "Location", "*", "Range", "0-0", "Docker-Content-Digest", "")
			narrow.refused(t, 404, "BLOB_UNKNOWN", "GET", "/v2/team/app/blobs/"+string(d), nil)
		}
		both := h.as(w.tokenOf(h, "repository:team/app:pull,push", "repository:secret/app:pull"))
		both.do(201, "POST", path, nil).want(t, "Location", "/v2/team/app/blobs/"+string(d), "Docker-Content-Digest", string(d))
		both.do(200, "GET", "/v2/team/app/blobs/"+string(d), nil)
		// Who has no token is told what a token for the mount must say.
		other := h.as(w.tokenOf(h, "repository:third:pull"))
		if a := other.do(401, "POST", path, nil).Get("Www-Authenticate"); !strings.Contains(a, `scope="repository:team/app:pull,push repository:secret/app:pull"`) {
			t.Errorf("the challenge of a mount: %s", a)
		}
		h.refused(t, 400, "DIGEST_INVALID", "POST", "/v2/team/app/blobs/uploads/?mount=x&from=secret/app", nil)
		// Without a source nothing is searched for.
		h.do(202, "POST", "/v2/third/blobs/uploads/?mount="+string(d), nil)
	})
}

// While an upload is finished nobody else writes it, not even once all its content is there and only the commit is missing: what a second request, such as a proxy's repetition of the
// first, brings must not lie in the file that the commit is about to name.
func TestFinishIsWrittenByOne(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		h := w.registry("contoso")
		content := bytes.Repeat([]byte("said"), 20000)
		d := name.DigestOf(content)
		at := h.do(202, "POST", "/v2/app/blobs/uploads/", nil).Get("Location")
		release := metatest.Hold(t, w.db)
		defer release()
		first := make(chan answer, 1)
		go func() { first <- h.send(h.request("PUT", at+"?digest="+string(d), bytes.NewReader(content))) }()
		w.eventually("all content is in the folder", func() bool {
			files, err := filepath.Glob(filepath.Join(w.content, "*", "*"))
			if err != nil || len(files) != 1 {
				return false
			}
			st, err := os.Stat(files[0])
			return err == nil && st.Size() == int64(len(content))
		})
		for range 20 {
			for _, r := range []*http.Request{
				h.request("PUT", at+"?digest="+string(d), strings.NewReader("something else")),
				h.request("PATCH", at, strings.NewReader("something else")),
				h.request("DELETE", at, nil),
			} {
				if a := h.send(r); a.status != 409 {
					t.Fatalf("%s beside the first: %d %s", r.Method, a.status, a.body)
				}
			}
		}
		release()
		if a := <-first; a.status != 201 {
			t.Fatalf("the first: %d %s", a.status, a.body)
		}
		if got := h.do(200, "GET", "/v2/app/blobs/"+string(d), nil).body; !bytes.Equal(got, content) {
			t.Errorf("%d bytes of other content are served under %s", len(got), d)
		}
	})
}

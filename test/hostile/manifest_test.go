// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

const (
	manifestLimit = 4 << 20
	indexType     = "application/vnd.oci.image.index.v1+json"
	emptyType     = "application/vnd.oci.empty.v1+json"
	empty         = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // {}
	stranger      = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

// sized is an image manifest of exactly so many bytes.
func sized(n int) []byte {
	head, tail := `{"schemaVersion":2,"mediaType":"`+instance.ManifestType+`","config":`+part(empty, "2")+`,"layers":[],"annotations":{"a":"`, `"}}`
	return []byte(head + strings.Repeat("x", n-len(head)-len(tail)) + tail)
}

// part is a descriptor with a size as it is written.
func part(digest, size string) string {
	return `{"mediaType":"` + emptyType + `","digest":"` + digest + `","size":` + size + `}`
}

// imageOf is an image manifest of the layers and whatever else is written.
func imageOf(layers, more string) string {
	return `{"schemaVersion":2,"mediaType":"` + instance.ManifestType + `","config":` + part(empty, "2") + `,"layers":[` + layers + `]` + more + `}`
}

func indexOf(children, more string) string {
	return `{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[` + children + `]` + more + `}`
}

func times(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }

func (w *world) put(path, manifest, mediaType string) instance.Answer {
	w.t.Helper()
	return w.send(http.MethodPut, path, []byte(manifest), "Content-Type", mediaType)
}

func TestManifests(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.blob("app", []byte("{}"))
		theirs := w.blob("other", []byte("of another repository"))
		child := indexOf("", `,"annotations":{"child":"of another repository"}`)
		want(t, "a manifest of another repository", w.put("/v2/other/manifests/child", child, indexType), 201, "")
		here, size := part(empty, "2"), fmt.Sprint(len(child))
		image, index := instance.ManifestType, indexType
		for _, c := range []struct {
			what, mediaType, text string
			status                int
			code                  string
		}{
			{"2 000 pieces of content", image, imageOf(times(here, 1999), ""), 201, ""},
			{"2 001 pieces of content", image, imageOf(times(here, 2000), ""), 400, "MANIFEST_INVALID"},
			{"10 000 layers", image, imageOf(times(here, 10000), ""), 400, "MANIFEST_INVALID"},
			{"10 000 layers that are nowhere", image, imageOf(times(part(stranger, "1"), 10000), ""), 400, "MANIFEST_INVALID"},
			{"1 000 layers that are nowhere", image, imageOf(times(part(stranger, "1"), 1000), ""), 404, "MANIFEST_BLOB_UNKNOWN"},
			{"a million empty layers", image, imageOf(times("{}", 1<<20), ""), 400, "MANIFEST_INVALID"},
			{"half a million annotations", image, imageOf("", `,"annotations":{`+times(`"":""`, 500000)+`}`), 400, "MANIFEST_INVALID"},
			{"arrays in arrays", image, imageOf("", `,"x":`+strings.Repeat("[", 1<<20)+strings.Repeat("]", 1<<20)), 400, "MANIFEST_INVALID"},
			{"objects in objects", image, imageOf("", `,"x":`+strings.Repeat(`{"x":`, 1<<19)+"1"+strings.Repeat("}", 1<<19)), 400, "MANIFEST_INVALID"},

			{"a layer that is smaller than said", image, imageOf(part(empty, "3"), ""), 400, "MANIFEST_INVALID"},
			{"a layer that is larger than said", image, imageOf(part(empty, "1"), ""), 400, "MANIFEST_INVALID"},
			{"a layer of a negative size", image, imageOf(part(empty, "-2"), ""), 400, "MANIFEST_INVALID"},
			{"a layer of a size beyond counting", image, imageOf(part(empty, "9223372036854775808"), ""), 400, "MANIFEST_INVALID"},
			{"layers whose sizes add up beyond counting", image, imageOf(times(part(stranger, "9223372036854775807"), 2), ""), 400, "MANIFEST_INVALID"},
			{"a layer of a broken size", image, imageOf(part(empty, "2.5"), ""), 400, "MANIFEST_INVALID"},
			{"a layer of an endless size", image, imageOf(part(empty, "1e400"), ""), 400, "MANIFEST_INVALID"},
			{"a layer of a size in words", image, imageOf(part(empty, `"2"`), ""), 400, "MANIFEST_INVALID"},
			{"a child that is larger than said", index, indexOf(part(empty, "1"), ""), 400, "MANIFEST_INVALID"},

			{"a config twice", image, imageOf("", `,"config":`+here), 400, "MANIFEST_INVALID"},
			{"layers in two cases", image, imageOf("", `,"Layers":[`+here+`]`), 400, "MANIFEST_INVALID"},
			{"a digest twice", image, imageOf(`{"digest":"`+empty+`","size":2,"digest":"`+stranger+`"}`, ""), 400, "MANIFEST_INVALID"},
			{"an image that is an index", image, imageOf("", `,"manifests":[]`), 400, "MANIFEST_INVALID"},
			{"an index that is an image", index, indexOf("", `,"layers":[]`), 400, "MANIFEST_INVALID"},
			{"a type that is not Content-Type's", index, imageOf("", ""), 400, "MANIFEST_INVALID"},
			{"no JSON", image, "\x00\xff\xfe", 400, "MANIFEST_INVALID"},
			{"nothing", image, "", 400, "MANIFEST_INVALID"},
			{"text behind it", image, imageOf("", "") + "{}", 400, "MANIFEST_INVALID"},
			{"a byte order mark", image, "\xef\xbb\xbf" + imageOf("", ""), 400, "MANIFEST_INVALID"},
			{"NUL in a type", image, imageOf("", `,"artifactType":"a/\u0000"`), 400, "MANIFEST_INVALID"},
			{"NUL in an annotation", image, imageOf("", `,"annotations":{"a\u0000":"\u0000"}`), 201, ""},
			{"half a character in an annotation", image, imageOf("", `,"annotations":{"a":"`+"\xff"+`","b":"\ud800"}`), 201, ""},
			{"an artifact type of a megabyte", image, imageOf("", `,"artifactType":"a/`+strings.Repeat("x", 1<<20)+`"`), 400, "MANIFEST_INVALID"},

			{"a layer that is nowhere", image, imageOf(part(stranger, "1"), ""), 404, "MANIFEST_BLOB_UNKNOWN"},
			{"a layer of another repository", image, imageOf(part(theirs, "21"), ""), 404, "MANIFEST_BLOB_UNKNOWN"},
			{"a child that is nowhere", index, indexOf(part(stranger, "1"), ""), 404, "MANIFEST_UNKNOWN"},
			{"a child of another repository", index, indexOf(part(instance.Digest([]byte(child)), size), ""), 404, "MANIFEST_UNKNOWN"},
			{"a layer of another algorithm", image, imageOf(part("md5:d41d8cd98f00b204e9800998ecf8427e", "1"), ""), 400, "MANIFEST_INVALID"},
			{"a layer whose digest climbs", image, imageOf(part("sha256:../../../../etc/passwd", "1"), ""), 400, "MANIFEST_INVALID"},
			{"a subject that is nowhere", image, imageOf("", `,"subject":`+part(stranger, "1")), 201, ""},
			{"a child that is a blob", index, indexOf(here, ""), 201, ""},
		} {
			began := time.Now()
			want(t, c.what, w.put("/v2/app/manifests/odd", c.text, c.mediaType), c.status, c.code)
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Logf("%s took %v", c.what, took)
			}
		}
	})
}

// TestManifestSizes: a manifest may have 4 MiB, and not a byte more; what is too large is not read to its end, and many at a time take bounded memory.
func TestManifestSizes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.blob("app", []byte("{}"))
		whole := sized(manifestLimit)
		want(t, "4 MiB", w.put("/v2/app/manifests/large", string(whole), instance.ManifestType), 201, "")
		if a := w.send(http.MethodGet, "/v2/app/manifests/large", nil); !bytes.Equal(a.Body, whole) {
			t.Errorf("a manifest of 4 MiB: %d, %d bytes", a.Status, len(a.Body))
		}
		want(t, "one byte more", w.put("/v2/app/manifests/large", string(sized(manifestLimit+1)), instance.ManifestType), 413, "SIZE_INVALID")
		push := func(m []byte) (instance.Answer, error) {
			return w.Do(http.MethodPut, "http://"+w.door+"/v2/app/manifests/large", m, "Authorization", w.auth, "Content-Type", instance.ManifestType)
		}
		w.bounded(250<<20, func() {
			for range 4 {
				if a, err := push(make([]byte, 64<<20)); err == nil { // who goes on sending may see the connection end instead
					want(t, "64 MiB", a, 413, "SIZE_INVALID")
				}
			}
		})
		w.bounded(450<<20, func() {
			var all sync.WaitGroup
			for i := range 64 {
				all.Go(func() {
					m, status := whole, 201
					if i%2 == 1 {
						m, status = []byte(imageOf(times("{}", 1<<20), "")), 400
					}
					if a, err := push(m); err != nil || a.Status != status {
						t.Errorf("manifest %d of many: %v %d %.200s", i, err, a.Status, a.Body)
					}
				})
			}
			all.Wait()
		})
	})
}

// TestSlowLargeManifests: who sends large manifests that do not end holds up nobody, whether their manifests are large or small, and takes little memory.
func TestSlowLargeManifests(t *testing.T) {
	w := newWorld(t, "sqlite")
	w.blob("app", []byte("{}"))
	w.bounded(200<<20, func() {
		for range 100 {
			c, err := net.Dial("tcp", w.door)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if _, err := io.WriteString(c, "PUT /v2/app/manifests/held HTTP/1.1\r\nHost: x\r\nAuthorization: "+w.auth+"\r\nContent-Length: 4000000\r\n\r\n"+strings.Repeat(" ", 3<<20)); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			want(t, "a large manifest", w.put("/v2/app/manifests/large", string(sized(300<<10)), instance.ManifestType), 201, "")
			want(t, "a small manifest", w.put("/v2/app/manifests/small", imageOf("", ""), instance.ManifestType), 201, "")
		}
	})
	left, err := filepath.Glob(filepath.Join(w.Data, ".manifest-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the data directory: %v %v", left, err)
	}
	want(t, "one that is too large", w.put("/v2/app/manifests/large", strings.Repeat(" ", 4<<20+1), instance.ManifestType), 413, "SIZE_INVALID")
}

// stall sends the beginning of manifests that do not end, and returns when they are sent or refused.
func (w *world) stall(n, size int) (closeAll func()) {
	w.t.Helper()
	open := make([]net.Conn, n)
	for i := range open {
		c, err := net.Dial("tcp", w.door)
		if err != nil {
			w.t.Fatal(err)
		}
		open[i] = c
		_, _ = io.WriteString(c, "PUT /v2/app/manifests/held HTTP/1.1\r\nHost: x\r\nAuthorization: "+w.auth+"\r\nContent-Length: 4000000\r\n\r\n"+strings.Repeat(" ", size))
	}
	return func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
}

// TestManyStalledManifests: however many manifests of a registry do not end, they take little memory and a bounded part of the disk; what is beyond is refused, and neither small
// manifests nor other registries are held up.
func TestManyStalledManifests(t *testing.T) {
	w := newWorld(t, "sqlite")
	w.CreateRegistry("hostiletwo", nil)
	if err := w.PushBlob("hostiletwo", "app", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	w.blob("app", []byte("{}"))
	w.bounded(300<<20, func() {
		defer w.stall(1500, 60<<10)()
		want(t, "a small manifest", w.put("/v2/app/manifests/small", imageOf("", ""), instance.ManifestType), 201, "")
	})
	w.bounded(300<<20, func() {
		defer w.stall(1500, 300<<10)()
		want(t, "a small manifest", w.put("/v2/app/manifests/small", imageOf("", ""), instance.ManifestType), 201, "")
		refused := w.put("/v2/app/manifests/large", string(sized(300<<10)), instance.ManifestType)
		want(t, "one large manifest too many", refused, 429, "TOOMANYREQUESTS")
		if refused.Header.Get("Retry-After") != "1" || !strings.Contains(string(refused.Body), "128 of one registry") {
			t.Errorf("one large manifest too many: %v %s", refused.Header, refused.Body)
		}
		a, err := w.OCI("hostiletwo", "app", http.MethodPut, "/v2/app/manifests/large", sized(300<<10), "Content-Type", instance.ManifestType)
		if err != nil || a.Status != 201 {
			t.Errorf("a large manifest of another registry: %v %d %s", err, a.Status, a.Body)
		}
		if n := w.nameless(); n > 128 {
			t.Errorf("%d files are open that have no name", n)
		}
	})
	for began := time.Now(); ; time.Sleep(time.Second) { // as Retry-After says
		a := w.put("/v2/app/manifests/large", string(sized(300<<10)), instance.ManifestType)
		if a.Status == 429 && time.Since(began) < 30*time.Second {
			continue
		}
		want(t, "a large manifest when the others are gone", a, 201, "")
		return
	}
}

// nameless counts the manifests that lie in files without a name.
func (w *world) nameless() (n int) {
	w.t.Helper()
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.PID()))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, fd := range open {
		if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "/.manifest-") {
			n++
		}
	}
	return n
}

// TestIndexes: indexes may lie in each other as deep as one likes, because nothing follows them by recursion; what a descriptor says of a child's type is not believed.
func TestIndexes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.blob("app", []byte("{}"))
		inner := indexOf("", "")
		for depth := range 200 {
			want(t, fmt.Sprintf("an index %d deep", depth), w.put(fmt.Sprintf("/v2/app/manifests/deep%d", depth), inner, indexType), 201, "")
			inner = indexOf(fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, indexType, instance.Digest([]byte(inner)), len(inner)), "")
		}
		want(t, "the deepest", w.send(http.MethodGet, "/v2/app/manifests/deep199", nil), 200, "")
		if a := w.Import(registryName, instance.J{"resourceId": w.RegistryID(registryName), "sourceImage": "app:deep199"}, "copy:deep"); a.Status != 200 {
			t.Errorf("an import of indexes 200 deep: %d %s", a.Status, a.Body)
		}

		image := imageOf("", "")
		d := instance.Digest([]byte(image))
		want(t, "an image", w.put("/v2/app/manifests/image", image, instance.ManifestType), 201, "")
		liar := indexOf(fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, indexType, d, len(image)), "")
		want(t, "an index that calls an image an index", w.put("/v2/app/manifests/liar", liar, indexType), 201, "")
		if a := w.send(http.MethodGet, "/v2/app/manifests/"+d, nil); a.Header.Get("Content-Type") != instance.ManifestType {
			t.Errorf("the child of a liar: %d %s", a.Status, a.Header.Get("Content-Type"))
		}
		want(t, "the child under its wrong type", w.send(http.MethodGet, "/v2/app/manifests/"+d, nil, "Accept", indexType), 404, "MANIFEST_UNKNOWN")

		want(t, "a digest that is not the content's", w.put("/v2/app/manifests/"+stranger, image, instance.ManifestType), 400, "DIGEST_INVALID")
		want(t, "what is not there for it", w.send(http.MethodGet, "/v2/app/manifests/"+stranger, nil), 404, "MANIFEST_UNKNOWN")
		a := w.put("/v2/app/manifests/orphan", imageOf("", `,"subject":`+part(stranger, "1")), instance.ManifestType)
		if a.Status != 201 || a.Header.Get("OCI-Subject") != stranger {
			t.Errorf("a subject that is not there: %d, OCI-Subject %q", a.Status, a.Header.Get("OCI-Subject"))
		}
		of := fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":1}`, instance.ManifestType, d)
		want(t, "a subject of a wrong size", w.put("/v2/app/manifests/orphan", imageOf("", of), instance.ManifestType), 201, "")
	})
}

// zipped is content in gzip.
func zipped(t *testing.T, pieces int, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for range pieces {
		if _, err := z.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCodedBodies: a body's Content-Encoding is not undone. What was sent is what is stored, under its own digest, and comes back as it was sent.
func TestCodedBodies(t *testing.T) {
	w := newWorld(t, "sqlite")
	w.blob("app", []byte("{}"))
	plain := []byte(imageOf("", ""))
	coded := zipped(t, 1, plain)
	d := instance.Digest(coded)
	put := func(what string, content []byte) {
		t.Helper()
		want(t, what, w.send(http.MethodPut, "/v2/app/manifests/v1", content, "Content-Type", instance.ManifestType, "Content-Encoding", "gzip"), 400, "MANIFEST_INVALID")
	}
	put("a manifest in gzip", coded)
	want(t, "a blob in gzip under the digest of what it holds", w.send(http.MethodPost, "/v2/app/blobs/uploads/?digest="+instance.Digest(plain), coded, "Content-Encoding", "gzip"), 400, "DIGEST_INVALID")
	want(t, "a blob in gzip", w.send(http.MethodPost, "/v2/app/blobs/uploads/?digest="+d, coded, "Content-Encoding", "gzip"), 201, "")
	if a := w.send(http.MethodGet, "/v2/app/blobs/"+d, nil, "Accept-Encoding", "gzip"); !bytes.Equal(a.Body, coded) || a.Header.Get("Content-Encoding") != "" {
		t.Errorf("%d bytes, Content-Encoding %q", len(a.Body), a.Header.Get("Content-Encoding"))
	}
	bomb := zipped(t, 64, make([]byte, 1<<20))
	w.bounded(200<<20, func() { put("a bomb", bomb) })
	w.well()
}

// TestPlatforms: what a configuration says of its platform is shown, and no text of it can make a push fail.
func TestPlatforms(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for i, config := range []string{`{"architecture":"a\u0000","os":"\u0000"}`, `{"architecture":7}`, `{"os":"` + strings.Repeat("x", 1<<20) + `"}`, strings.Repeat("[", 1<<19), "\xff\x00", `{"os":"` + "\xff" + `"}`} {
			d := w.blob("app", []byte(config))
			b, err := json.Marshal(instance.J{"schemaVersion": 2, "mediaType": instance.ManifestType, "layers": []string{},
				"config": instance.J{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": d, "size": len(config)}})
			if err != nil {
				t.Fatal(err)
			}
			want(t, fmt.Sprintf("configuration %d", i), w.put(fmt.Sprintf("/v2/app/manifests/config%d", i), string(b), instance.ManifestType), 201, "")
		}
	})
}

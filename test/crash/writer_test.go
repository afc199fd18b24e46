// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// ledger is what the server has acknowledged, and what it was asked and did not answer.
type ledger struct {
	mu sync.Mutex
	// content is acknowledged content by path: /v2/…/blobs/… or /v2/…/manifests/sha256:….
	content map[string]bool
	// tags is the acknowledged digest of a tag by its path; doubt is what was asked for since and not answered.
	tags  map[string]string
	doubt map[string][]string
	// gone is content whose deletion was acknowledged.
	gone   map[string]bool
	writes int
	// enough is how many writes end the wait for reached; at runs at that moment, in the writer's own step, and nothing is noted after it when it is given.
	enough  int
	reached chan struct{}
	at      func()
	closed  bool
	// late is content whose deletion was asked for after that moment.
	late []string
}

// when is closed when n writes have been acknowledged.
func (l *ledger) when(n int) <-chan struct{} {
	l.enough, l.reached = n, make(chan struct{})
	return l.reached
}

// wrote counts an acknowledged write.
func (l *ledger) wrote() {
	l.writes++
	if l.writes != l.enough {
		return
	}
	if l.at != nil {
		l.at()
		l.closed = true
	}
	close(l.reached)
}

func newLedger() *ledger {
	return &ledger{content: map[string]bool{}, tags: map[string]string{}, doubt: map[string][]string{}, gone: map[string]bool{}}
}

func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

func (l *ledger) add(o *ledger) {
	maps.Copy(l.content, o.content)
	maps.Copy(l.gone, o.gone)
	for path := range o.tags {
		delete(l.doubt, path)
	}
	maps.Copy(l.tags, o.tags)
	for path, digests := range o.doubt {
		l.doubt[path] = append(l.doubt[path], digests...)
	}
	l.writes += o.writes
}

func (l *ledger) blob(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.content[path] = true
	l.wrote()
}

func (l *ledger) asked(path, digest string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubt[path] = append(l.doubt[path], digest)
}

// deleting notes that content may be gone, deleted that it is.
func (l *ledger) deleting(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.late = append(l.late, path)
		return
	}
	delete(l.content, path)
}

// leaving is deleting for a tag as well.
func (l *ledger) leaving(path string) {
	l.deleting(path)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tags, path)
}

func (l *ledger) deleted(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.gone[path] = true
	l.wrote()
}

func (l *ledger) tagged(repo, path, digest string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.content["/v2/"+repo+"/manifests/"+digest] = true
	l.tags[path] = digest
	delete(l.doubt, path)
	l.wrote()
}

// writer pushes images into a repository under a tag that is its own.
type writer struct {
	in        *installation
	ledger    *ledger
	repo, tag string
	random    *rand.Rand
	count     int
	// last is the image that the tag has left.
	last string
}

// refusal is an answer that no kill explains.
type refusal struct {
	text   string
	status int
	body   []byte
}

func (r refusal) Error() string { return r.text }

func refused(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// statusOf is the status of a refusal, 0 of anything else.
func statusOf(err error) int {
	var r refusal
	if errors.As(err, &r) {
		return r.status
	}
	return 0
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// do sends a request. An error without an answer is the kill's; an answer of another status than want is a refusal.
func (in *installation) do(ctx context.Context, method, path, contentType string, body []byte, want int) (*http.Response, []byte, error) {
	at := path
	if strings.HasPrefix(path, "/") {
		at = "http://" + in.private + path
	}
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.SetBasicAuth(in.user, in.password)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := in.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != want {
		return nil, nil, refusal{fmt.Sprintf("%s %s: %s, wanted %d: %.300s", method, path, resp.Status, want, text), resp.StatusCode, text}
	}
	return resp, text, nil
}

// push pushes an image of two layers, its blobs each in another way, and moves the writer's tag to it. The image before is deleted now and then.
func (w *writer) push(ctx context.Context, round int) error {
	w.count++
	config := []byte(fmt.Sprintf(`{"architecture":"amd64","os":"linux","writer":%q,"round":%d,"count":%d}`, w.tag, round, w.count))
	if err := w.blob(ctx, config); err != nil {
		return err
	}
	var layers []string
	for range 2 {
		layer := make([]byte, 1+w.random.IntN(48<<10))
		for i := range layer {
			layer[i] = byte(w.random.Uint32())
		}
		if err := w.blob(ctx, layer); err != nil {
			return err
		}
		layers = append(layers, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, digestOf(layer), len(layer)))
	}
	manifest := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s]}`,
		digestOf(config), len(config), strings.Join(layers, ",")))
	path := "/v2/" + w.repo + "/manifests/" + w.tag
	w.ledger.asked(path, digestOf(manifest))
	if _, _, err := w.in.do(ctx, "PUT", path, "application/vnd.oci.image.manifest.v1+json", manifest, http.StatusCreated); err != nil {
		return err
	}
	w.ledger.tagged(w.repo, path, digestOf(manifest))
	last := "/v2/" + w.repo + "/manifests/" + w.last
	if w.last != "" && w.random.IntN(3) == 0 {
		w.ledger.deleting(last)
		if _, _, err := w.in.do(ctx, "DELETE", last, "", nil, http.StatusAccepted); err != nil {
			return err
		}
		w.ledger.deleted(last)
	}
	w.last = digestOf(manifest)
	return w.mount(ctx, digestOf(config))
}

// mount takes content over into another repository.
func (w *writer) mount(ctx context.Context, digest string) error {
	to := "/v2/mounted/" + w.repo + "/blobs/"
	if _, _, err := w.in.do(ctx, "POST", to+"uploads/?from="+w.repo+"&mount="+digest, "", nil, http.StatusCreated); err != nil {
		return err
	}
	w.ledger.blob(to + digest)
	return nil
}

// blob pushes content in one request, in two, or in chunks.
func (w *writer) blob(ctx context.Context, content []byte) error {
	d := digestOf(content)
	uploads := "/v2/" + w.repo + "/blobs/uploads/"
	way := w.random.IntN(3)
	if way == 0 {
		if _, _, err := w.in.do(ctx, "POST", uploads+"?digest="+d, octets, content, http.StatusCreated); err != nil {
			return err
		}
		w.ledger.blob("/v2/" + w.repo + "/blobs/" + d)
		return nil
	}
	resp, _, err := w.in.do(ctx, "POST", uploads, "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	location := resp.Header.Get("Location")
	if way == 2 {
		for len(content) > 1 {
			n := 1 + w.random.IntN(len(content))
			if resp, _, err = w.in.do(ctx, "PATCH", location, octets, content[:n], http.StatusAccepted); err != nil {
				return err
			}
			content, location = content[n:], resp.Header.Get("Location")
		}
	}
	if _, _, err := w.in.do(ctx, "PUT", location+"?digest="+d, octets, content, http.StatusCreated); err != nil {
		return err
	}
	w.ledger.blob("/v2/" + w.repo + "/blobs/" + d)
	return nil
}

// verify reads everything in the ledger back and hashes it.
func (in *installation) verify(t *testing.T, l *ledger) {
	t.Helper()
	paths := make(chan string)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for path := range paths {
				in.readBack(t, l, path)
			}
		})
	}
	for path := range l.content {
		paths <- path
	}
	for path := range l.tags {
		paths <- path
	}
	close(paths)
	wg.Wait()
	for path := range l.gone {
		if _, _, err := in.do(context.Background(), "GET", path, "", nil, http.StatusNotFound); err != nil {
			t.Errorf("its deletion was acknowledged: %v", err)
		}
	}
}

func (in *installation) readBack(t *testing.T, l *ledger, path string) {
	_, text, err := in.do(context.Background(), "GET", path, "", nil, http.StatusOK)
	if err != nil {
		t.Errorf("acknowledged, and lost: %v", err)
		return
	}
	got := digestOf(text)
	if want, tag := l.tags[path]; tag {
		if got != want && !slices.Contains(l.doubt[path], got) {
			t.Errorf("the tag %s reads %s; %s was acknowledged, %v asked for", path, got, want, l.doubt[path])
		}
		return
	}
	if !strings.HasSuffix(path, "/"+got) {
		t.Errorf("%s reads as %s", path, got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// manifestLimit is the size of the largest manifest. Source: OCI distribution 1.1, section "Pushing Manifests": at least 4 MiB.
const manifestLimit = 4 << 20

// beginUpload starts an upload, or finishes one at once: by mounting a blob of another repository, or with the whole blob in the body.
func (x *exchange) beginUpload() error {
	q := x.r.URL.Query()
	if q.Get("mount") != "" && q.Get("from") != "" {
		d, err := name.ParseDigest(q.Get("mount"))
		if err != nil {
			return err
		}
		from, err := name.ParseRepository(q.Get("from"))
		if err != nil {
			return err
		}
		done, err := x.mount(from, d)
		if err != nil {
			return err
		}
		if done {
			return x.stored(x.blobLocation(d), d)
		}
	}
	if q.Has("digest") {
		return x.pushWhole(q.Get("digest"))
	}
	u, err := x.s.o.Registry.Begin(x.r.Context(), x.call, x.at.repository)
	if err != nil {
		return err
	}
	x.session(u)
	return x.empty(http.StatusAccepted)
}

// mount puts a blob of another repository into this one, if the caller may read it there. Absent, forbidden and not there answer
// alike: an upload begins.
func (x *exchange) mount(from name.Repository, d name.Digest) (bool, error) {
	allowed := false
	err := x.s.o.DB.Read(x.r.Context(), func(tx *meta.Tx) (err error) {
		allowed, err = x.may(tx, x.call.Caller, "repository", string(from), "pull")
		return err
	})
	if err != nil || !allowed {
		return false, err
	}
	return x.s.o.Registry.Mount(x.r.Context(), x.call, x.at.repository, from, d)
}

// pushWhole takes a blob in one request. Source: OCI distribution 1.1, section "Single POST".
func (x *exchange) pushWhole(digest string) error {
	d, err := name.ParseDigest(digest)
	if err != nil {
		return err
	}
	u, err := x.s.o.Registry.Begin(x.r.Context(), x.call, x.at.repository)
	if err != nil {
		return err
	}
	if err := u.Finish(x.r.Context(), d, x.body(x.r.Body)); err != nil {
		// The client has no name for this upload, so nobody could go on with it.
		return fault.Beside(err, u.Cancel(context.WithoutCancel(x.r.Context())))
	}
	return x.stored(x.blobLocation(d), d)
}

// session says where an upload stands.
func (x *exchange) session(u Upload) {
	h := x.w.Header()
	h.Set("Location", x.location("/blobs/uploads/"+u.ID()))
	h.Set("Docker-Upload-Uuid", u.ID())
	h.Set("Range", fmt.Sprintf("0-%d", max(u.Offset()-1, 0)))
	h.Set("Cache-Control", "no-store")
}

func (x *exchange) stored(location string, d name.Digest) error {
	h := x.w.Header()
	h.Del("Range")
	h.Del("Docker-Upload-Uuid")
	h.Del("Cache-Control")
	h.Set("Location", location)
	h.Set("Docker-Content-Digest", string(d))
	return x.empty(http.StatusCreated)
}

func (x *exchange) upload() (Upload, error) {
	return x.s.o.Registry.Upload(x.r.Context(), x.call, x.at.repository, x.at.upload)
}

func (x *exchange) uploadStatus() error {
	u, err := x.upload()
	if err != nil {
		return err
	}
	x.session(u)
	return x.empty(http.StatusNoContent)
}

// appendUpload takes a chunk: streamed when it has no Content-Range, else at the place that it names.
func (x *exchange) appendUpload() error {
	u, err := x.upload()
	if err != nil {
		return err
	}
	x.session(u)
	body, check, err := x.chunk(u)
	if err != nil {
		return err
	}
	if _, err := u.Append(x.r.Context(), body); err != nil {
		return err
	}
	x.session(u)
	if err := check(); err != nil {
		return err
	}
	return x.empty(http.StatusAccepted)
}

// finishUpload takes the rest, if there is one, and closes the upload.
func (x *exchange) finishUpload() error {
	u, err := x.upload()
	if err != nil {
		return err
	}
	x.session(u)
	d, err := name.ParseDigest(x.r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	body, check, err := x.chunk(u)
	if err != nil {
		return err
	}
	// The announced length is checked before the content is stored: the reader fails where the body is too long or too short.
	if err := u.Finish(x.r.Context(), d, &checkedReader{body, check}); err != nil {
		return err
	}
	return x.stored(x.blobLocation(d), d)
}

func (x *exchange) cancelUpload() error {
	u, err := x.upload()
	if err != nil {
		return err
	}
	if err := u.Cancel(x.r.Context()); err != nil {
		return err
	}
	return x.empty(http.StatusNoContent)
}

// chunk is the body of a PATCH or PUT, judged by its Content-Range: it must begin where the upload stands and be as long as it says.
// The function that comes with it is asked when the body has been read. Errors: RangeInvalid, SizeInvalid.
func (x *exchange) chunk(u Upload) (io.Reader, func() error, error) {
	fine := func() error { return nil }
	body := x.body(x.r.Body)
	header := x.r.Header.Get("Content-Range")
	if header == "" {
		return body, fine, nil
	}
	at, ok := parseContentRange(header)
	switch {
	case !ok:
		return nil, nil, fault.New(fault.RangeInvalid, "The Content-Range %q can't be read: it is <first byte>-<last byte>.", clip(header))
	case at.off != u.Offset():
		return nil, nil, fault.New(fault.RangeInvalid, "The chunk begins at byte %d, but the upload stands at byte %d. Send the chunk that begins there.", at.off, u.Offset())
	case x.r.ContentLength >= 0 && x.r.ContentLength != at.n:
		return nil, nil, fault.New(fault.SizeInvalid, "The Content-Range %q means %d bytes, but Content-Length says %d.", clip(header), at.n, x.r.ContentLength)
	}
	counted := &io.LimitedReader{R: body, N: at.n}
	return counted, func() error {
		var one [1]byte
		if n, _ := io.ReadFull(body, one[:]); n > 0 {
			return fault.New(fault.SizeInvalid, "The body is longer than the %d bytes of its Content-Range. What lay within was taken.", at.n)
		}
		if counted.N > 0 {
			return fault.New(fault.SizeInvalid, "The body is %d bytes shorter than its Content-Range says. What came was taken.", counted.N)
		}
		return nil
	}, nil
}

// checkedReader asks check at the end of a body.
type checkedReader struct {
	io.Reader
	check func() error
}

func (r *checkedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		if bad := r.check(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

// body names the failure to read a request's body: it is the client's connection that broke, not this server.
func (x *exchange) body(r io.Reader) io.Reader { return bodyReader{r} }

type bodyReader struct{ r io.Reader }

func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fault.Or(err, fault.New(fault.BlobUploadInvalid, "The body broke off. Ask for the upload's status and go on from there."))
	}
	return n, err
}

// A manifest is taken into memory whole, so those beyond smallManifest, which are rare, come to a file first and then wait for one of largeManifests places: who sends slowly holds none.
// The files are bounded too, and a registry has at most half of them, so that one does not take the others theirs.
const (
	smallManifest  = 64 << 10
	largeManifests = 8
	largeWait      = 10 * time.Second
	largeFiles     = 256
)

// files counts the files of large manifests that come in, by registry.
type files struct {
	mu  sync.Mutex
	of  map[string]int
	all int
}

// take counts one more, and the function gives it back.
func (f *files) take(registry string) (func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all >= largeFiles || f.of[registry] >= largeFiles/2 {
		return nil, busy("The server takes in %d manifests of more than %d bytes at a time, %d of one registry, and so many are under way. Try again in a moment.", largeFiles, smallManifest, largeFiles/2)
	}
	f.of[registry]++
	f.all++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.all--
		if f.of[registry]--; f.of[registry] == 0 {
			delete(f.of, registry)
		}
	}, nil
}

func busy(format string, args ...any) error {
	f := fault.New(fault.TooManyRequests, format, args...)
	f.RetryAfter = time.Second
	return f
}

// manifestBody reads a manifest. done gives its place back. Errors: ManifestInvalid, RequestTooLarge, TooManyRequests, StorageFull.
func (x *exchange) manifestBody() (content []byte, done func(), err error) {
	small, file, err := x.beginManifest()
	if err != nil || file == nil {
		return small, func() {}, err
	}
	defer file.close()
	if err := x.spool(file); err != nil {
		return nil, func() {}, err
	}
	wait, cancel := context.WithTimeout(x.r.Context(), largeWait)
	defer cancel()
	select {
	case x.s.large <- struct{}{}:
		done = func() { <-x.s.large }
	case <-wait.Done():
		return nil, func() {}, busy("The server takes %d manifests of more than %d bytes at a time, and no place became free. Try again in a moment.", largeManifests, smallManifest)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, done, err
	}
	content = make([]byte, size)
	_, err = file.ReadAt(content, 0)
	return content, done, err
}

// spooled is the file of a large manifest, of which begun bytes are in it at first. It has no name any more.
type spooled struct {
	*os.File
	begun    int
	giveBack func()
}

func (f *spooled) close() {
	_ = f.File.Close()
	f.giveBack()
}

// beginManifest reads a manifest that is small, or writes the first part of a large one to a file. That part is nobody's when it returns, so that who sends no more holds no memory.
func (x *exchange) beginManifest() ([]byte, *spooled, error) {
	var start []byte
	var err error
	switch n := x.r.ContentLength; {
	case n > smallManifest: // all of it goes to the file
	case n >= 0:
		start = make([]byte, n)
		_, err = io.ReadFull(x.r.Body, start)
	default:
		start, err = io.ReadAll(io.LimitReader(x.r.Body, smallManifest+1))
	}
	switch {
	case err != nil:
		return nil, nil, brokenOff(err)
	case x.r.ContentLength <= smallManifest && len(start) <= smallManifest:
		return start, nil, nil
	}
	giveBack, err := x.s.files.take(x.call.Registry.ID)
	if err != nil {
		return nil, nil, err
	}
	file, err := os.CreateTemp(x.s.o.Spool, ".manifest-*")
	if err != nil {
		giveBack()
		return nil, nil, unspooled(err)
	}
	f := &spooled{file, len(start), giveBack}
	err = os.Remove(file.Name())
	if err == nil {
		_, err = file.Write(start)
	}
	if err != nil {
		f.close()
		return nil, nil, unspooled(err)
	}
	return nil, f, nil
}

// spool takes the rest of a manifest to its file.
func (x *exchange) spool(file *spooled) error {
	n, err := io.Copy(file.File, io.LimitReader(x.r.Body, int64(manifestLimit+1-file.begun)))
	var stored *fs.PathError
	switch {
	case errors.As(err, &stored):
		return unspooled(err)
	case err != nil:
		return brokenOff(err)
	case file.begun+int(n) > manifestLimit:
		return fault.New(fault.RequestTooLarge, "A manifest has at most %d bytes.", manifestLimit)
	}
	return nil
}

func brokenOff(err error) error {
	return fault.Or(err, fault.New(fault.ManifestInvalid, "The body broke off."))
}

func unspooled(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.StorageFull, "The disk is full: nothing was stored. Make room and push again.").Because(err)
	}
	return err
}

func (x *exchange) putManifest() error {
	content, done, err := x.manifestBody()
	defer done()
	if err != nil {
		return err
	}
	media, err := mediaType(x.r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	tags, err := x.furtherTags()
	if err != nil {
		return err
	}
	p, err := x.s.o.Registry.PutManifest(x.r.Context(), x.call, x.at.reference(), tags, media, content)
	if err != nil {
		return err
	}
	for _, t := range tags {
		x.w.Header().Add("OCI-Tag", string(t))
	}
	if p.Subject != "" {
		x.w.Header().Set("OCI-Subject", string(p.Subject))
	}
	return x.stored(x.location("/manifests/"+string(p.Digest)), p.Digest)
}

// furtherTags are the tags that a push by digest sets. Source: OCI distribution, section "Pushing Manifests", end-7b.
func (x *exchange) furtherTags() ([]name.Tag, error) {
	var tags []name.Tag
	for _, text := range x.r.URL.Query()["tag"] {
		t, err := name.ParseTag(text)
		if err != nil {
			return nil, err
		}
		if x.at.digest == "" {
			return nil, fault.New(fault.TagInvalid, "The parameter tag belongs to a push by digest; this one is to the tag %q.", string(x.at.tag))
		}
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	return tags, nil
}

// mediaType is a Content-Type without its parameters; "" when there is none.
func mediaType(header string) (string, error) {
	if strings.TrimSpace(header) == "" {
		return "", nil
	}
	media, _, err := mime.ParseMediaType(header)
	if err != nil && media == "" {
		return "", fault.New(fault.ManifestInvalid, "The Content-Type %q can't be read.", clip(header))
	}
	return media, nil
}

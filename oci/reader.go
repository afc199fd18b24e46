// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// getBlob answers a blob, whole or one range of it.
func (x *exchange) getBlob() error {
	if done, err := x.unchanged(func() (Descriptor, error) {
		return x.s.o.Registry.StatBlob(x.r.Context(), x.call, x.at.repository, x.at.digest)
	}); done || err != nil {
		return err
	}
	d, content, err := x.s.o.Registry.Blob(x.r.Context(), x.call, x.at.repository, x.at.digest)
	if err != nil {
		return err
	}
	return x.stream(d, content)
}

func (x *exchange) headBlob() error {
	d, err := x.s.o.Registry.StatBlob(x.r.Context(), x.call, x.at.repository, x.at.digest)
	if err != nil {
		return err
	}
	return x.describe(d)
}

func (x *exchange) getManifest() error {
	accepts := x.accepts()
	if done, err := x.unchanged(func() (Descriptor, error) {
		return x.s.o.Registry.StatManifest(x.r.Context(), x.call, x.at.reference(), accepts)
	}); done || err != nil {
		return err
	}
	d, content, err := x.s.o.Registry.Manifest(x.r.Context(), x.call, x.at.reference(), accepts)
	if err != nil {
		return err
	}
	return x.stream(d, content)
}

func (x *exchange) headManifest() error {
	d, err := x.s.o.Registry.StatManifest(x.r.Context(), x.call, x.at.reference(), x.accepts())
	if err != nil {
		return err
	}
	return x.describe(d)
}

// contentHeaders says what the content is. What a digest names never changes; what a tag names may.
func (x *exchange) contentHeaders(d Descriptor) {
	h := x.w.Header()
	h.Set("Content-Type", d.MediaType)
	h.Set("Docker-Content-Digest", string(d.Digest))
	h.Set("Etag", etag(d.Digest))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Vary", "Accept, Authorization")
	if x.at.tag != "" {
		h.Set("Cache-Control", "private, no-cache")
	} else {
		h.Set("Cache-Control", "private, max-age=31536000, immutable")
	}
}

func etag(d name.Digest) string { return `"` + string(d) + `"` }

// describe answers a HEAD.
func (x *exchange) describe(d Descriptor) error {
	if matches(x.r.Header.Values("If-None-Match"), d.Digest) {
		x.contentHeaders(d)
		return x.empty(http.StatusNotModified)
	}
	x.contentHeaders(d)
	x.w.Header().Set("Content-Length", strconv.FormatInt(d.Size, 10))
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// unchanged answers 304 when the client has the content already: then none is released.
func (x *exchange) unchanged(stat func() (Descriptor, error)) (bool, error) {
	known := x.r.Header.Values("If-None-Match")
	if len(known) == 0 {
		return false, nil
	}
	d, err := stat()
	if err != nil || !matches(known, d.Digest) {
		return false, err
	}
	x.contentHeaders(d)
	return true, x.empty(http.StatusNotModified)
}

// matches compares entity tags weakly. Source: RFC 9110, section 13.1.2.
func matches(header []string, d name.Digest) bool {
	for _, line := range header {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == "*" || tag == etag(d) {
				return true
			}
		}
	}
	return false
}

// stream answers released content.
func (x *exchange) stream(d Descriptor, content Content) error {
	complete := false
	defer func() {
		if err := content.Close(complete); err != nil {
			x.s.o.Log.Warn("closing content", "digest", string(d.Digest), "err", err)
		}
	}()
	x.contentHeaders(d)
	part, how := span{0, content.Size()}, rangeWhole
	if header := x.r.Header.Get("Range"); header != "" && x.rangeHolds(d.Digest) {
		part, how = parseRange(header, content.Size())
	}
	h := x.w.Header()
	status := http.StatusOK
	switch how {
	case rangeUnsatisfiable:
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", content.Size()))
		return fault.New(fault.RangeNotSatisfiable, "The range %q lies outside the content's %d bytes.", clip(x.r.Header.Get("Range")), content.Size())
	case rangePart:
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.off, part.off+part.n-1, content.Size()))
	}
	h.Set("Content-Length", strconv.FormatInt(part.n, 10))
	x.w.WriteHeader(status)
	// The ResponseWriter itself is handed on: behind it the kernel can copy from file to socket. An error here can't be answered any more:
	// fewer bytes than announced make the server cut the connection.
	sent, err := content.WriteTo(x.r.Context(), x.w, part.off, part.n)
	complete = err == nil && sent == part.n
	if err != nil {
		x.s.o.Log.Info("content was not sent to its end", "id", x.call.Correlation, "digest", string(d.Digest), "sent", sent, "of", part.n, "err", err)
	}
	return nil
}

// rangeHolds: If-Range makes a range depend on the content being the same. Source: RFC 9110, section 13.1.5.
func (x *exchange) rangeHolds(d name.Digest) bool {
	cond := x.r.Header.Get("If-Range")
	return cond == "" || cond == etag(d)
}

// accepts is which media types of manifests the client takes, by its Accept headers; nil is anything.
// Source: RFC 9110, section 12.5.1; a quality of 0 refuses.
func (x *exchange) accepts() func(string) bool {
	var taken []string
	for _, line := range x.r.Header.Values("Accept") {
		for item := range strings.SplitSeq(line, ",") {
			media, params, _ := strings.Cut(item, ";")
			media = strings.ToLower(strings.TrimSpace(media))
			if media != "" && !refused(params) {
				taken = append(taken, media)
			}
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return func(mediaType string) bool {
		major, _, _ := strings.Cut(mediaType, "/")
		for _, t := range taken {
			if t == "*/*" || t == mediaType || t == major+"/*" || t == "application/json" {
				return true
			}
		}
		return false
	}
}

func refused(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(k, "q") && strings.Trim(v, "0.") == "" && v != "" {
			return true
		}
	}
	return false
}

// index is the answer of the referrers API: an image index. Source: OCI distribution 1.1, section "Listing Referrers".
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []Descriptor `json:"manifests"`
}

const mediaIndex = "application/vnd.oci.image.index.v1+json"

func (x *exchange) referrers() error {
	q := x.r.URL.Query()
	artifactType := q.Get("artifactType")
	after := name.Digest("")
	if last := q.Get("last"); last != "" {
		var err error
		if after, err = name.ParseDigest(last); err != nil {
			return err
		}
	}
	list, more, err := x.s.o.Registry.Referrers(x.r.Context(), x.call, x.at.repository, x.at.digest, artifactType, after)
	if err != nil {
		return err
	}
	if list == nil {
		list = []Descriptor{}
	}
	h := x.w.Header()
	if artifactType != "" {
		h.Set("OCI-Filters-Applied", "artifactType")
	}
	if more {
		next := url.Values{"last": {string(list[len(list)-1].Digest)}}
		if artifactType != "" {
			next.Set("artifactType", artifactType)
		}
		x.link("/v2/"+string(x.at.repository)+"/referrers/"+string(x.at.digest), next)
	}
	h.Set("Content-Type", mediaIndex)
	return x.json(http.StatusOK, index{2, mediaIndex, list})
}

// link points to the next page, relative to the origin: some clients put their own in front. Source: RFC 8288.
func (x *exchange) link(path string, query url.Values) {
	x.w.Header().Set("Link", "<"+path+"?"+query.Encode()+`>; rel="next"`)
}

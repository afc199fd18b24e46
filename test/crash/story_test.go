// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// story is one of each thing that writes, in repositories of its own. Each request can be asked again after it failed or was not answered.
type story struct {
	in         *installation
	ledger     *ledger
	repo, side string
	config     []byte
	layer      []byte
	first      []byte // the manifest that is deleted
	second     []byte // the one that stays

	// upload is where the upload of the layer is, "" before and after; whole says that the layer is there.
	upload string
	whole  bool
	// abandoned is the upload that is cancelled.
	abandoned string
}

const octets = "application/octet-stream"

func (in *installation) newStory(n int) *story {
	s := &story{in: in, ledger: newLedger(), repo: fmt.Sprintf("story%04d", n), side: fmt.Sprintf("aside%04d", n)}
	s.config = []byte(fmt.Sprintf(`{"architecture":"amd64","os":"linux","story":"%04d"}`, n))
	s.layer = bytes.Repeat([]byte(fmt.Sprintf("layer of the story %04d\n", n)), 20<<10)
	manifest := func(title string) []byte {
		return []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}],"annotations":{"title":%q}}`,
			imageType, digestOf(s.config), len(s.config), digestOf(s.layer), len(s.layer), title))
	}
	s.first, s.second = manifest("first"), manifest("second")
	return s
}

const imageType = "application/vnd.oci.image.manifest.v1+json"

// request is a part of the story. again is it once more, after it failed or was not answered.
type request struct {
	name        string
	once, again func(ctx context.Context) error
}

// requests is the story in its order.
func (s *story) requests() []request {
	both := func(name string, f func(ctx context.Context) error) request { return request{name, f, f} }
	put := func(name, repo, tag string, manifest []byte) request {
		return both(name, func(ctx context.Context) error { return s.manifest(ctx, repo, tag, manifest) })
	}
	third := len(s.layer) / 3
	return []request{
		{"begin", s.begin, s.rest},
		{"chunk1", func(ctx context.Context) error { return s.chunk(ctx, 0, third) }, s.rest},
		{"chunk2", func(ctx context.Context) error { return s.chunk(ctx, third, 2*third) }, s.rest},
		{"finish", func(ctx context.Context) error { return s.finish(ctx, 2*third) }, s.rest},
		both("single", s.single),
		both("abandon", s.abandon),
		s.deletion("cancel", func() string { return s.abandoned }, http.StatusNoContent),
		put("manifest", s.repo, "moved", s.first),
		put("tag", s.repo, "untagged", s.first),
		put("move", s.repo, "moved", s.second),
		both("mount", s.mount),
		put("aside", s.side, "kept", s.first),
		s.deletion("untag", func() string { return "/v2/" + s.repo + "/manifests/untagged" }, http.StatusAccepted),
		s.deletion("delete", func() string { return "/v2/" + s.repo + "/manifests/" + digestOf(s.first) }, http.StatusAccepted),
		both("mark", s.collect),
		both("collect", s.collect),
	}
}

func (s *story) begin(ctx context.Context) error {
	resp, _, err := s.in.do(ctx, "POST", "/v2/"+s.repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err == nil {
		s.upload = resp.Header.Get("Location")
	}
	return err
}

func (s *story) chunk(ctx context.Context, from, to int) error {
	if s.whole {
		return nil
	}
	resp, _, err := s.in.do(ctx, "PATCH", s.upload, octets, s.layer[from:to], http.StatusAccepted)
	if err == nil {
		s.upload = resp.Header.Get("Location")
	}
	return err
}

func (s *story) finish(ctx context.Context, from int) error {
	if s.whole {
		return nil
	}
	_, _, err := s.in.do(ctx, "PUT", s.upload+"?digest="+digestOf(s.layer), octets, s.layer[from:], http.StatusCreated)
	if err == nil {
		s.whole = true
		s.ledger.blob("/v2/" + s.repo + "/blobs/" + digestOf(s.layer))
	}
	return err
}

// offset asks how far the upload of the layer is; known is false when there is none.
func (s *story) offset(ctx context.Context) (n int, known bool, err error) {
	if s.upload == "" {
		return 0, false, nil
	}
	resp, _, err := s.in.do(ctx, "GET", s.upload, "", nil, http.StatusNoContent)
	if statusOf(err) == http.StatusNotFound {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	_, last, ok := strings.Cut(resp.Header.Get("Range"), "-")
	if !ok {
		return 0, true, nil
	}
	n, err = strconv.Atoi(last)
	if n > 0 {
		n++ // "0-0" is nothing, or one byte, which no chunk here has
	}
	return n, true, err
}

// rest ends the upload of the layer from where the server says that it is.
func (s *story) rest(ctx context.Context) error {
	from, known, err := s.offset(ctx)
	if err == nil && !known {
		err = s.begin(ctx)
	}
	if err != nil {
		return err
	}
	return s.finish(ctx, from)
}

func (s *story) single(ctx context.Context) error {
	_, _, err := s.in.do(ctx, "POST", "/v2/"+s.repo+"/blobs/uploads/?digest="+digestOf(s.config), octets, s.config, http.StatusCreated)
	if err == nil {
		s.ledger.blob("/v2/" + s.repo + "/blobs/" + digestOf(s.config))
	}
	return err
}

func (s *story) abandon(ctx context.Context) error {
	resp, _, err := s.in.do(ctx, "POST", "/v2/"+s.repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	s.abandoned = resp.Header.Get("Location")
	resp, _, err = s.in.do(ctx, "PATCH", s.abandoned, octets, s.layer[:1000], http.StatusAccepted)
	if err == nil {
		s.abandoned = resp.Header.Get("Location")
	}
	return err
}

// deletion deletes what is at a path. Asked again, it may be gone already.
func (s *story) deletion(name string, path func() string, want int) request {
	once := func(ctx context.Context) error {
		s.ledger.leaving(path())
		_, _, err := s.in.do(ctx, "DELETE", path(), "", nil, want)
		if err == nil {
			s.ledger.deleted(path())
		}
		return err
	}
	return request{name, once, func(ctx context.Context) error {
		err := once(ctx)
		if statusOf(err) == http.StatusNotFound {
			s.ledger.deleted(path())
			return nil
		}
		return err
	}}
}

func (s *story) manifest(ctx context.Context, repo, tag string, content []byte) error {
	path := "/v2/" + repo + "/manifests/" + tag
	s.ledger.asked(path, digestOf(content))
	_, _, err := s.in.do(ctx, "PUT", path, imageType, content, http.StatusCreated)
	if err == nil {
		s.ledger.tagged(repo, path, digestOf(content))
	}
	return err
}

func (s *story) mount(ctx context.Context) error {
	for _, content := range [][]byte{s.config, s.layer} {
		to := "/v2/" + s.side + "/blobs/"
		if _, _, err := s.in.do(ctx, "POST", to+"uploads/?from="+s.repo+"&mount="+digestOf(content), "", nil, http.StatusCreated); err != nil {
			return err
		}
		s.ledger.blob(to + digestOf(content))
	}
	return nil
}

// collect has the server collect. Its refusal is an error without a status.
func (s *story) collect(ctx context.Context) error {
	_, errs, err := s.in.Run(ctx, "gc", "--data", s.in.Data)
	if err != nil {
		return refusal{"embargo gc: " + errs, http.StatusInternalServerError, nil}
	}
	return nil
}

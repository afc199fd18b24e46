// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/name"
)

// ErrAbsent is matched when the upstream says that it does not have what was asked.
var ErrAbsent = errors.New("the upstream does not have it")

// ManifestLimit is the size of the largest manifest that is taken.
const ManifestLimit = 4 << 20

// redirectLimit is how many redirects are followed for content.
const redirectLimit = 5

// accept are the manifests that can be kept.
const accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"

// Query is a repository of an upstream and the credentials to ask it with, if any.
type Query struct {
	Host       string
	Repository name.Repository
	Credentials
}

// Manifest is a manifest as an upstream answers it.
type Manifest struct {
	MediaType string
	Content   []byte
	// Said is the digest that the upstream says it has, "" for none.
	Said name.Digest
}

// Resolve asks which digest a tag has, "" when the upstream does not say. Errors: ErrAbsent.
func (s *Service) Resolve(ctx context.Context, q Query, tag name.Tag) (name.Digest, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	resp, err := s.ask(ctx, http.MethodHead, q, "manifests/"+string(tag))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	return said(resp), nil
}

func said(resp *http.Response) name.Digest {
	d, err := name.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if err != nil {
		return ""
	}
	return d
}

// Manifest gets a manifest by tag or digest. Errors: ErrAbsent.
func (s *Service) Manifest(ctx context.Context, q Query, reference string) (Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	resp, err := s.ask(ctx, http.MethodGet, q, "manifests/"+reference)
	if err != nil {
		return Manifest{}, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, ManifestLimit+1))
	if err == nil && len(content) > ManifestLimit {
		err = fmt.Errorf("the manifest has more than %d bytes", ManifestLimit)
	}
	return Manifest{resp.Header.Get("Content-Type"), content, said(resp)}, err
}

// Blob begins to get a blob, of which at most limit bytes come. Reading fails when the upstream stands still. Errors: ErrAbsent.
func (s *Service) Blob(ctx context.Context, q Query, d name.Digest, limit int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, contentTime)
	watch := time.AfterFunc(s.o.Stall, cancel)
	resp, err := s.ask(ctx, http.MethodGet, q, "blobs/"+string(d))
	if err != nil {
		watch.Stop()
		cancel()
		return nil, err
	}
	return &content{io.LimitReader(resp.Body, limit), resp.Body, watch, cancel, s.o.Stall}, nil
}

// content is a body that ends when nothing comes for too long.
type content struct {
	io.Reader
	body   io.Closer
	watch  *time.Timer
	cancel context.CancelFunc
	stall  time.Duration
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.watch.Reset(c.stall)
	return n, err
}

func (c *content) Close() error {
	c.watch.Stop()
	defer c.cancel()
	return c.body.Close()
}

// ask makes a request of an upstream's registry: with what worked before, and once more with what its challenge asks for. The answer is 200. Errors: ErrAbsent.
func (s *Service) ask(ctx context.Context, method string, q Query, what string) (*http.Response, error) {
	u, ok := s.listed[q.Host]
	if !ok {
		return nil, fmt.Errorf("%s is not listed", q.Host)
	}
	target := "https://" + u.At + "/v2/" + string(q.Repository) + "/" + what
	resp, err := s.follow(ctx, u, method, target, s.known(q))
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		challenge := resp.Header.Get("WWW-Authenticate")
		_ = resp.Body.Close() // only the challenge matters
		var header string
		if header, err = s.authorise(ctx, u, q, challenge); err == nil {
			resp, err = s.follow(ctx, u, method, target, header)
		}
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	_ = resp.Body.Close() // nothing is read of a refusal
	if resp.StatusCode == http.StatusNotFound {
		return nil, ErrAbsent
	}
	return nil, fmt.Errorf("%s answers %s", u.Host, resp.Status)
}

// follow makes a request and follows its redirects, to hosts listed for the upstream alone. The credential goes to the upstream's registry alone.
func (s *Service) follow(ctx context.Context, u Upstream, method, target, authorization string) (*http.Response, error) {
	for range redirectLimit + 1 {
		req, err := http.NewRequestWithContext(ctx, method, target, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", accept)
		if authorization != "" && among(req.URL.Host, []string{u.At}) {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := s.do(u, req)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return resp, nil
		}
		_ = resp.Body.Close() // what a redirect says besides is not read
		next, err := resp.Location()
		if err != nil {
			return nil, fmt.Errorf("%s redirects to nowhere", u.Host)
		}
		if next.Scheme != "https" || next.User != nil || !among(next.Host, append([]string{u.At}, u.Redirects...)) {
			return nil, fmt.Errorf("%s redirects to %.200q, which is not listed for it (redirects of its entry under upstreams.registries of this server's configuration)", u.Host, next.Host)
		}
		target = next.String()
	}
	return nil, fmt.Errorf("%s redirects more than %d times", u.Host, redirectLimit)
}

// do sends a request as its upstream may be reached. The error tells no URL: a redirect's may hold a secret.
func (s *Service) do(u Upstream, req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", s.o.Agent)
	client := s.outside
	if u.Inside {
		client = s.inside
	}
	resp, err := client.Do(req)
	var at *url.Error
	switch {
	case errors.Is(err, dial.ErrRefused):
		return nil, fmt.Errorf("%s may not be reached: %w", req.URL.Host, dial.ErrRefused)
	case errors.As(err, &at):
		return nil, fmt.Errorf("%s can't be reached: %w", req.URL.Host, at.Err)
	}
	return resp, err
}

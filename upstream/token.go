// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// tokenKey is what a token was issued for.
type tokenKey struct {
	host, repository string
	credentials      [sha256.Size]byte
}

type token struct {
	header  string
	expires time.Time
}

func (q Query) key() tokenKey {
	return tokenKey{q.Host, string(q.Repository), sha256.Sum256([]byte(q.User + "\x00" + q.Password))}
}

// known is the Authorization header that worked for such a query, "" for none.
func (s *Service) known(q Query) string {
	t, ok := s.tokens.Get(q.key())
	if !ok || !s.o.Clock().Before(t.expires) {
		return ""
	}
	return t.header
}

// tokenLimit bounds the answer of a token's issuer.
const tokenLimit = 256 << 10

// authorise answers a 401 of the upstream's registry: by the credentials themselves, or by a token of its issuer. Source: distribution, "Token Authentication Specification".
func (s *Service) authorise(ctx context.Context, u Upstream, q Query, challenge string) (string, error) {
	scheme, rest, _ := strings.Cut(challenge, " ")
	params := parameters(rest)
	switch {
	case strings.EqualFold(scheme, "Basic") && q.User != "":
		header := basic(q)
		s.tokens.Add(q.key(), token{header, s.o.Clock().Add(time.Hour)})
		return header, nil
	case strings.EqualFold(scheme, "Bearer"):
		t, err := s.issue(ctx, u, q, params["realm"], params["service"])
		if err != nil {
			return "", err
		}
		s.tokens.Add(q.key(), t)
		return t.header, nil
	}
	return "", fmt.Errorf("%s asks for credentials, and the cache rule has none that it takes", u.Host)
}

// issue asks the realm for a token, if it is one of the upstream's own hosts.
func (s *Service) issue(ctx context.Context, u Upstream, q Query, realm, service string) (token, error) {
	at, err := url.Parse(realm)
	if err != nil || at.Scheme != "https" || at.User != nil || !among(at.Host, append([]string{u.At}, u.Tokens...)) {
		return token{}, fmt.Errorf("%s sends for tokens to %.200q, which is not listed for it (tokens of its entry under upstreams.registries of this server's configuration)", u.Host, realm)
	}
	query := at.Query()
	query.Set("service", service)
	query.Set("scope", "repository:"+string(q.Repository)+":pull")
	at.RawQuery = query.Encode()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return token{}, err
	}
	if q.User != "" {
		req.Header.Set("Authorization", basic(q))
	}
	resp, err := s.do(u, req)
	if err != nil {
		return token{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return token{}, fmt.Errorf("%s issues no token for %s: %s", at.Host, q.Repository, resp.Status)
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, tokenLimit)).Decode(&answer); err != nil {
		return token{}, fmt.Errorf("%s answers no token: %w", at.Host, err)
	}
	text := answer.Token
	if text == "" {
		text = answer.AccessToken
	}
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return token{}, fmt.Errorf("%s answers no token", at.Host)
	}
	life := min(max(time.Duration(answer.ExpiresIn)*time.Second, time.Minute), time.Hour)
	return token{"Bearer " + text, s.o.Clock().Add(life - life/6)}, nil
}

func basic(q Query) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(q.User, q.Password)
	return r.Header.Get("Authorization")
}

// among tells whether an authority is one of the hosts, whose default port is that of https.
func among(authority string, hosts []string) bool {
	return slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(address(h), address(authority)) })
}

var parameter = regexp.MustCompile(`([a-zA-Z]+)="([^"]*)"`)

// parameters are those of a challenge.
func parameters(text string) map[string]string {
	all := map[string]string{}
	for _, m := range parameter.FindAllStringSubmatch(text, -1) {
		all[strings.ToLower(m[1])] = m[2]
	}
	return all
}

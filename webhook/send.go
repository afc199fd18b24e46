// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/fault"
)

// Signature is the header with the HMAC-SHA256 of the body by the webhook's key: "sha256=" and hexadecimal digits.
const Signature = "X-Embargo-Signature"

const (
	// answerLimit and headerLimit bound what is kept of an answer's body and of its headers, in bytes.
	answerLimit = 4 << 10
	headerLimit = 8 << 10
)

func (s *Service) client(p dial.Purpose) *http.Client {
	c := s.o.Dial.Client(p, dial.ClientOptions{Roots: s.o.Roots, Timeout: attemptTime, MaxHeader: 64 << 10})
	// A redirect would take the event where nobody declared it to go: it is a refusal of the receiver.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// origin is a destination's scheme, host and port, and the address to connect to.
func origin(uri string) (origin, address string, err error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || len(uri) > 2048 {
		return "", "", fault.New(fault.InvalidParameter, "The serviceUri must be an http or https URL of at most 2048 characters, without a user and a password; headers are for customHeaders.").
			At("properties.serviceUri")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + u.Host, net.JoinHostPort(u.Hostname(), port), nil
}

func (s *Service) declared(address string) bool {
	return s.o.Dial.Vet(dial.DeclaredWebhook, address) == nil
}

// Check tells of a destination where it is, and whether the operator lists it. Errors: InvalidParameter when it can't be one: what is no URL, an address
// inside that is not listed, a listener of this server.
func (s *Service) Check(uri string) (where string, declared bool, err error) {
	where, address, err := origin(uri)
	if err != nil || s.declared(address) {
		return where, err == nil, err
	}
	if why := s.o.Dial.Vet(dial.Webhook, address); why != nil {
		return where, false, fault.New(fault.InvalidParameter, "The serviceUri leads to %s, where webhooks of this server may not go: it is not an address of the public Internet, or is this server itself. "+
			"An operator can list a destination inside under webhooks.destinations of the server's configuration.", address).At("properties.serviceUri").Because(why)
	}
	return where, false, nil
}

// ownHeaders are not the customer's to set.
var ownHeaders = map[string]bool{"Host": true, "Content-Length": true, "Content-Type": true, "Transfer-Encoding": true, "Connection": true, "Te": true, "Trailer": true,
	"Upgrade": true, "Proxy-Connection": true, "Keep-Alive": true, "Accept-Encoding": true, Signature: true}

// CheckHeaders tells whether headers can be sent with events. Errors: InvalidParameter.
func CheckHeaders(headers map[string]string) error {
	total := 0
	for k, v := range headers {
		total += len(k) + len(v)
		bad := strings.IndexFunc(k, func(r rune) bool {
			return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
		}) >= 0 || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
		switch {
		case k == "" || bad:
			return fault.New(fault.InvalidParameter, "The header %.100q, or its value, has characters that a header cannot have.", k).At("properties.customHeaders")
		case ownHeaders[http.CanonicalHeaderKey(k)]:
			return fault.New(fault.InvalidParameter, "The header '%s' is set by the server itself.", k).At("properties.customHeaders")
		}
	}
	if total > headerLimit || len(headers) > 50 {
		return fault.New(fault.InvalidParameter, "The headers have %d bytes in %d headers; at most %d bytes in 50 headers are sent.", total, len(headers), headerLimit).At("properties.customHeaders")
	}
	return nil
}

// Sign is the value of the header Signature.
func Sign(key string, body []byte) (string, error) {
	k, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", err
	}
	m := hmac.New(sha256.New, k)
	m.Write(body)
	return "sha256=" + hex.EncodeToString(m.Sum(nil)), nil
}

// send posts an event. The error is why no answer came, or what was wrong with it.
func (s *Service) send(ctx context.Context, p *pending, n Notice) (result, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.config.URI, bytes.NewReader(p.body))
	if err != nil {
		return refused("The serviceUri is no URL."), err
	}
	signature, err := Sign(p.config.Key, p.body)
	if err != nil {
		return refused("The webhook has no key to sign by."), err
	}
	for k, v := range p.config.Headers {
		req.Header.Set(k, v)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", s.o.Agent)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set(Signature, signature)
	sent := &RequestMessage{Headers: map[string]string{"Content-Length": strconv.Itoa(len(p.body))}, Method: req.Method, RequestURI: n.Destination, Version: "1.1"}
	for k := range req.Header {
		sent.Headers[k] = req.Header.Get(k)
	}
	for k := range p.config.Headers {
		sent.Headers[http.CanonicalHeaderKey(k)] = "***"
	}
	client := s.public
	if n.Declared {
		client = s.inside
	}
	resp, err := client.Do(req)
	if err != nil {
		why := unanswered(err)
		return result{away: true, request: sent, response: &ResponseMessage{Content: why, Headers: map[string]string{}}}, errors.New(why)
	}
	defer resp.Body.Close()
	content, _ := io.ReadAll(io.LimitReader(resp.Body, answerLimit)) // the status has come: what follows is for people to read
	if resp.ProtoMajor >= 2 {
		sent.Version = fmt.Sprintf("%d.%d", resp.ProtoMajor, resp.ProtoMinor)
	}
	r := result{request: sent, response: answered(resp, content)}
	switch code := resp.StatusCode; {
	case code >= 200 && code <= 299:
		r.delivered = true
		return r, nil
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		r.away = true
	case code >= 500:
		r.away = p.attempt+1 < troubles // more often it is this event that the receiver can't take
	}
	return r, fmt.Errorf("%s answered %s", n.Destination, resp.Status)
}

// unanswered says why no answer came, without the URL, which may hold a secret.
func unanswered(err error) string {
	for {
		u, ok := err.(*url.Error)
		if !ok {
			return clip(err.Error())
		}
		err = u.Err
	}
}

func answered(resp *http.Response, content []byte) *ResponseMessage {
	m := &ResponseMessage{Content: strings.ToValidUTF8(string(content), "?"), Headers: map[string]string{}, StatusCode: strconv.Itoa(resp.StatusCode),
		ReasonPhrase: http.StatusText(resp.StatusCode), Version: fmt.Sprintf("%d.%d", resp.ProtoMajor, resp.ProtoMinor)}
	room := headerLimit
	for k := range resp.Header {
		v := resp.Header.Get(k)
		if room -= len(k) + len(v); room < 0 || k == "Set-Cookie" {
			continue
		}
		m.Headers[k] = strings.ToValidUTF8(v, "?")
	}
	return m
}

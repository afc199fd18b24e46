// SPDX-License-Identifier: Apache-2.0

package armclient

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/shape"
)

// Client sends requests within a session.
type Client struct {
	s    *Session
	http *http.Client
}

// New makes a client of the session.
func New(s *Session) (*Client, error) {
	h, err := s.http()
	if err != nil {
		return nil, err
	}
	return &Client{s, h}, nil
}

// Subscription is the session's subscription.
func (c *Client) Subscription() string { return c.s.SubscriptionID }

// ResourceManager is the URL of the session's resource manager.
func (c *Client) ResourceManager() string { return c.s.ResourceManager }

// Error is a refusal by the server.
type Error struct {
	Status  int
	Code    string
	Message string
	Target  string
	Details []Error
}

// Error is "(Code) Message", then a line for the target and for each detail.
func (e *Error) Error() string {
	code := e.Code
	if code == "" {
		code = strings.ReplaceAll(http.StatusText(e.Status), " ", "")
	}
	text := fmt.Sprintf("(%s) %s", code, e.Message)
	if e.Target != "" {
		text += "\nTarget: " + e.Target
	}
	for _, d := range e.Details {
		text += "\n" + d.Error()
	}
	return text
}

type wireError struct {
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Target  string      `json:"target"`
	Details []wireError `json:"details"`
}

func (w wireError) made(status int) Error {
	e := Error{Status: status, Code: w.Code, Message: w.Message, Target: w.Target}
	for _, d := range w.Details {
		e.Details = append(e.Details, d.made(status))
	}
	return e
}

// Get reads a resource or a list.
func (c *Client) Get(ctx context.Context, path, apiVersion string) (map[string]any, error) {
	_, doc, err := c.send(ctx, http.MethodGet, c.url(path, apiVersion), nil)
	return doc, err
}

// Put writes a resource and waits until the operation behind it ends, unless noWait.
func (c *Client) Put(ctx context.Context, path, apiVersion string, body any, noWait bool) (map[string]any, error) {
	u := c.url(path, apiVersion)
	resp, doc, err := c.send(ctx, http.MethodPut, u, body)
	if err != nil || noWait {
		return doc, err
	}
	return c.wait(ctx, resp, doc, u)
}

// Delete removes a resource and waits until it is gone, unless noWait.
func (c *Client) Delete(ctx context.Context, path, apiVersion string, noWait bool) error {
	resp, doc, err := c.send(ctx, http.MethodDelete, c.url(path, apiVersion), nil)
	if err != nil || noWait {
		return err
	}
	_, err = c.wait(ctx, resp, doc, "")
	return err
}

// List reads all pages of a list.
func (c *Client) List(ctx context.Context, path, apiVersion string) ([]any, error) {
	all := []any{}
	for next := c.url(path, apiVersion); next != ""; {
		_, doc, err := c.send(ctx, http.MethodGet, next, nil)
		if err != nil {
			return nil, err
		}
		page, _ := doc["value"].([]any)
		all = append(all, page...)
		if next, _ = doc["nextLink"].(string); next != "" {
			if err := c.ours(next); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// wait follows a long-running operation to its end. final is the resource to read then; "" when there is none.
func (c *Client) wait(ctx context.Context, resp *http.Response, doc map[string]any, final string) (map[string]any, error) {
	status, location := resp.Header.Get("Azure-AsyncOperation"), resp.Header.Get("Location")
	pause := after(resp)
	switch {
	case status != "":
		for {
			r, op, err := c.poll(ctx, status, pause)
			if err != nil {
				return nil, err
			}
			state, _ := op["status"].(string)
			if !terminal(state) {
				pause = after(r)
				continue
			}
			if !strings.EqualFold(state, "Succeeded") {
				return nil, operationError(state, op)
			}
			if final == "" {
				return nil, nil
			}
			_, doc, err = c.send(ctx, http.MethodGet, final, nil)
			return doc, err
		}
	case resp.StatusCode == http.StatusAccepted && location != "":
		for {
			r, doc, err := c.poll(ctx, location, pause)
			if err != nil || r.StatusCode != http.StatusAccepted {
				return doc, err
			}
			pause = after(r)
		}
	}
	for final != "" {
		p, _ := doc["properties"].(map[string]any)
		state, _ := p["provisioningState"].(string)
		if state == "" || terminal(state) {
			if state != "" && !strings.EqualFold(state, "Succeeded") {
				return nil, operationError(state, doc)
			}
			return doc, nil
		}
		var err error
		if resp, doc, err = c.poll(ctx, final, pause); err != nil {
			return nil, err
		}
		pause = after(resp)
	}
	return doc, nil
}

func (c *Client) poll(ctx context.Context, u string, pause time.Duration) (*http.Response, map[string]any, error) {
	if err := c.ours(u); err != nil {
		return nil, nil, err
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-timer.C:
	}
	return c.send(ctx, http.MethodGet, u, nil)
}

// ours refuses an address of another host than the resource manager's: the token goes nowhere else.
func (c *Client) ours(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	base, err := url.Parse(c.s.ResourceManager)
	if err != nil {
		return err
	}
	if u.Scheme != base.Scheme || !strings.EqualFold(u.Host, base.Host) {
		return fmt.Errorf("the server points to %s, which is not %s", u.Host, base.Host)
	}
	return nil
}

func terminal(state string) bool {
	switch strings.ToLower(state) {
	case "succeeded", "failed", "canceled", "cancelled":
		return true
	}
	return false
}

func operationError(state string, doc map[string]any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	var w struct {
		Error wireError `json:"error"`
	}
	if err := json.Unmarshal(b, &w); err != nil || w.Error.Code == "" {
		return fmt.Errorf("the operation ended as %s", state)
	}
	e := w.Error.made(http.StatusConflict)
	return &e
}

// after is the server's Retry-After, two seconds without one.
func after(resp *http.Response) time.Duration {
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s >= 0 {
		return time.Duration(min(s, 60)) * time.Second
	}
	return 2 * time.Second
}

func (c *Client) url(path, apiVersion string) string {
	u := strings.TrimSuffix(c.s.ResourceManager, "/") + path
	if strings.Contains(path, "?") {
		return u + "&api-version=" + url.QueryEscape(apiVersion)
	}
	return u + "?api-version=" + url.QueryEscape(apiVersion)
}

func (c *Client) send(ctx context.Context, method, address string, body any) (*http.Response, map[string]any, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, nil, err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, payload)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.s.Token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "embargo")
	req.Header.Set("X-Ms-Client-Request-Id", rand.Text())
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode >= 400 {
		return nil, nil, refusal(resp, raw)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return resp, nil, nil
	}
	v, err := shape.Decode(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("the server answered %s, and no JSON: %w", resp.Status, err)
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, nil, fmt.Errorf("the server answered %s, and no JSON object", resp.Status)
	}
	return resp, doc, nil
}

func refusal(resp *http.Response, raw []byte) error {
	var w struct {
		Error wireError `json:"error"`
	}
	if err := json.Unmarshal(raw, &w); err != nil || w.Error.Code == "" {
		text := strings.TrimSpace(string(raw[:min(len(raw), 500)]))
		return &Error{Status: resp.StatusCode, Message: text}
	}
	e := w.Error.made(resp.StatusCode)
	return &e
}

// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

const deliverKind = "webhook.deliver"

// Event is what happened, as the registry tells it.
type Event struct {
	// Registry is the identity of the registry, Host its login server.
	Registry, Host string
	Action         string
	Repository     name.Repository
	// Tag is the tag that the event is about; Tags are further ones by which a webhook's scope may hold it.
	Tag  name.Tag
	Tags []name.Tag
	// Digest, MediaType and Size are the manifest's, where the event is about one.
	Digest    name.Digest
	MediaType string
	Size      int64
	// Method, Correlation and UserAgent are of the request.
	Method, Correlation, UserAgent string
}

// content is an event as the service sends it. Source: ACR, "webhook schema reference". It has names and digests, and never more.
type content struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Target    *target   `json:"target,omitempty"`
	Request   *request  `json:"request,omitempty"`
}

type target struct {
	MediaType  string `json:"mediaType,omitempty"`
	Size       int64  `json:"size,omitempty"`
	Digest     string `json:"digest,omitempty"`
	Length     int64  `json:"length,omitempty"`
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
	Name       string `json:"name,omitempty"`
	Version    string `json:"version,omitempty"`
}

type request struct {
	ID        string `json:"id"`
	Host      string `json:"host"`
	Method    string `json:"method"`
	UserAgent string `json:"useragent,omitempty"`
}

// textLimit bounds what a client's text adds to an event.
const textLimit = 256

func clip(s string) string {
	if len(s) > textLimit {
		s = s[:textLimit]
	}
	return strings.ToValidUTF8(s, "")
}

// Raise has the event sent to the webhooks of its registry that want it, when tx commits.
func Raise(tx *meta.Tx, e Event) error {
	tags := []string{}
	for _, t := range append([]name.Tag{e.Tag}, e.Tags...) {
		if t != "" {
			tags = append(tags, string(t))
		}
	}
	hooks, err := interested(tx, e.Registry, e.Action, string(e.Repository), tags)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		c := content{Action: e.Action, Request: &request{e.Correlation, e.Host, e.Method, clip(e.UserAgent)}}
		c.Target = &target{MediaType: clip(e.MediaType), Digest: string(e.Digest), Repository: string(e.Repository), Tag: string(e.Tag)}
		if e.Action != Delete {
			c.Target.Size, c.Target.Length = e.Size, e.Size
		}
		if e.Action == ChartPush || e.Action == ChartDelete {
			c.Target.Name, c.Target.Version = string(e.Repository[strings.LastIndexByte(string(e.Repository), '/')+1:]), string(e.Tag)
		}
		if _, err := enqueue(tx, h, c, e); err != nil {
			return err
		}
	}
	return nil
}

// Ping has a webhook's destination sent an event that tells of nothing, whether the webhook is enabled or not, and returns the event's id.
func Ping(tx *meta.Tx, h Hook, correlation string) (string, error) {
	return enqueue(tx, h, content{Action: ping}, Event{Correlation: correlation})
}

func enqueue(tx *meta.Tx, h Hook, c content, e Event) (string, error) {
	c.ID, c.Timestamp = newID(), tx.Now()
	body, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	_, err = tx.Exec(`INSERT INTO webhook_events (id, webhook, content, repository, digest, correlation, state, attempt, due_us, created_us, request, response)
 VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, 0, $7, '', '')`, c.ID, h.ID, string(body), string(e.Repository), string(e.Digest), e.Correlation, meta.Micros(tx.Now()))
	if err == nil {
		err = wake(tx, h, e.Correlation)
	}
	return c.ID, err
}

// wake has a webhook's events looked at once tx commits.
func wake(tx *meta.Tx, h Hook, correlation string) error {
	_, err := job.Enqueue(tx, job.Spec{Kind: deliverKind, Subject: h.Resource, Registry: h.Registry, Args: h.ID, Correlation: correlation, MaxAttempts: unbounded})
	return err
}

// unbounded: a delivery job fails for the server's own reasons alone (a database that is away), so it is never given up.
const unbounded = 1 << 30

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return name.UUID(b)
}

// Sent is an event with what was last sent of it and what came back; the messages are nil before the first attempt.
type Sent struct {
	ID       string
	Content  json.RawMessage
	Request  *RequestMessage
	Response *ResponseMessage
}

// RequestMessage is a request as it was sent, but for its secrets: RequestURI is scheme, host and port, and the values of custom headers are stars.
type RequestMessage struct {
	Headers    map[string]string `json:"headers"`
	Method     string            `json:"method"`
	RequestURI string            `json:"requestUri"`
	Version    string            `json:"version"`
}

// ResponseMessage is what the receiver answered, cut short where it is long; what kept an answer from coming stands in Content, with no status.
type ResponseMessage struct {
	Content      string            `json:"content"`
	Headers      map[string]string `json:"headers"`
	ReasonPhrase string            `json:"reasonPhrase"`
	StatusCode   string            `json:"statusCode"`
	Version      string            `json:"version"`
}

// shown is how many events Events gives.
const shown = 100

// Events are a webhook's last events, newest first.
func Events(tx *meta.Tx, hook string) (all []Sent, err error) {
	rows, err := tx.Query(`SELECT id, content, request, response FROM webhook_events WHERE webhook = $1 ORDER BY created_us DESC, id LIMIT $2`, hook, shown)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		var s Sent
		var body, sent, answer string
		err := rows.Scan(&s.ID, &body, &sent, &answer)
		s.Content = json.RawMessage(body)
		if err == nil && sent != "" {
			err = json.Unmarshal([]byte(sent), &s.Request)
		}
		if err == nil && answer != "" {
			err = json.Unmarshal([]byte(answer), &s.Response)
		}
		if err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		all = append(all, s)
	}
	return all, errors.Join(rows.Err(), rows.Close())
}

// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

const (
	// attemptTime bounds one attempt, from connecting to the end of the answer.
	attemptTime = 10 * time.Second
	// firstPause is the pause after the first failure; it doubles with each to lastPause.
	firstPause = time.Second
	lastPause  = 10 * time.Minute
	// troubles is how many attempts there were when an answer of 500 or above, other than those of a receiver that is not there, is taken for trouble with this event alone.
	troubles = 4
	// lifetime is how long an event is worth sending.
	lifetime = 72 * time.Hour
	// turn and turnTime bound what one job sends before it lets others have its worker.
	turn     = 50
	turnTime = 30 * time.Second
	// kept and keptTime bound the events that are kept after they were sent, waiting those that are not sent yet; the oldest go.
	kept     = 1000
	keptTime = 7 * 24 * time.Hour
	waiting  = 10000
	// atATime is how many webhooks are served at a time.
	atATime = 4
)

// Notice is what the gate is asked about one attempt.
type Notice struct {
	Hook   Hook
	Event  string
	Action string
	// Destination is scheme, host and port; Declared says that the operator lists it.
	Destination string
	Declared    bool
	Repository  name.Repository
	Digest      name.Digest
	Size        int64
	Correlation string
}

// Options configure a Service.
type Options struct {
	DB      *meta.DB
	Keyring *meta.Keyring
	// Dial has rules for the purposes Webhook and DeclaredWebhook.
	Dial *dial.Dialer
	// Roots are the authorities that receivers' certificates are checked by; nil: the system's.
	Roots *x509.CertPool
	// Release asks the gate (R13), which records: the context that it returns ends when a change of policy refuses the event, and done ends the sending.
	Release func(ctx context.Context, n Notice) (sending context.Context, done func(sent int64, complete bool), err error)
	// Agent is the User-Agent of the requests.
	Agent string
	// Log gets what was not delivered; nil discards.
	Log *slog.Logger
}

// Service delivers events. It is safe for concurrent use.
type Service struct {
	o      Options
	public *http.Client
	inside *http.Client

	mu sync.Mutex
	// busy are the webhooks that are being served; the value says that there is news of one meanwhile.
	busy map[string]bool
}

// New makes a service.
func New(o Options) (*Service, error) {
	if o.DB == nil || o.Keyring == nil || o.Dial == nil || o.Release == nil {
		return nil, errors.New("webhook: a database, a keyring, a dialer and the gate are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{o: o, busy: map[string]bool{}}
	s.public, s.inside = s.client(dial.Webhook), s.client(dial.DeclaredWebhook)
	return s, nil
}

// Handle gives the runner the job of this package.
func (s *Service) Handle(r *job.Runner) {
	r.Limit(deliverKind, atATime)
	r.Handle(deliverKind, s.deliver)
}

// deliver serves a webhook. One at a time does: another job for the same webhook leaves its news to the one that is at it.
func (s *Service) deliver(ctx context.Context, j *job.Job) (any, error) {
	var id string
	if err := j.Decode(&id); err != nil {
		return nil, err
	}
	if !s.enter(id) {
		return nil, nil
	}
	for {
		if err := s.serve(ctx, id); err != nil {
			s.leave(id, true)
			return nil, err
		}
		if s.leave(id, false) {
			return nil, nil
		}
	}
}

func (s *Service) enter(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, busy := s.busy[id]
	s.busy[id] = busy
	return !busy
}

// leave ends the serving of a webhook, unless there is news of it; one that failed ends all the same, and its job is run again.
func (s *Service) leave(id string, failed bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] && !failed {
		s.busy[id] = false
		return false
	}
	delete(s.busy, id)
	return true
}

// pending is the next event of a webhook, and what sending it takes.
type pending struct {
	hook     Hook
	config   Config
	lost     bool // the configuration was lost with an installation key
	failures int

	id, action, correlation string
	body                    []byte
	repository              name.Repository
	digest                  name.Digest
	attempt                 int
	created                 time.Time
	now                     time.Time
}

// serve sends what is due, then has the webhook looked at again when something will be.
func (s *Service) serve(ctx context.Context, id string) error {
	began := time.Now()
	for n := 0; ; n++ {
		p, at, err := s.next(ctx, id)
		if errors.Is(err, meta.ErrNotFound) {
			return nil // the webhook is gone
		}
		if err != nil {
			return err
		}
		if p != nil && (n == turn || time.Since(began) > turnTime) {
			p, at = nil, p.now
		}
		if p == nil {
			return s.plan(ctx, id, at)
		}
		r, err := s.attempt(ctx, p)
		if err != nil {
			return err
		}
		if err := s.note(ctx, p, r); err != nil {
			return err
		}
	}
}

// instant is the time by the clock that jobs are due by.
func instant(tx *meta.Tx) (time.Time, error) {
	var us int64
	now, value := tx.Clock(1)
	err := tx.Row(`SELECT `+now, value).Scan(&us)
	return meta.FromMicros(us), err
}

// next finds the event that is to be sent now, or when there will be one; the zero time is never.
func (s *Service) next(ctx context.Context, id string) (p *pending, at time.Time, err error) {
	err = s.o.DB.Read(ctx, func(tx *meta.Tx) error {
		p, at = nil, time.Time{}
		now, err := instant(tx)
		if err != nil {
			return err
		}
		q := &pending{now: now}
		var resume int64
		var actions string
		err = tx.Row(`SELECT `+hookColumns+`, failures, resume_us FROM webhooks WHERE id = $1`, id).
			Scan(&q.hook.ID, &q.hook.Registry, &q.hook.Resource, &q.hook.Enabled, &q.hook.Scope, &actions, &q.failures, &resume)
		if err != nil {
			return err
		}
		if until := meta.FromMicros(resume); until.After(now) && until.Sub(now) <= lastPause { // further off it is of a clock that was set back
			at = until
			return nil
		}
		var body string
		var created int64
		err = tx.Row(`SELECT id, content, repository, digest, correlation, attempt, created_us FROM webhook_events
 WHERE webhook = $1 AND state = 'pending' AND due_us <= $2 ORDER BY created_us, id LIMIT 1`, id, meta.Micros(now)).
			Scan(&q.id, &body, &q.repository, &q.digest, &q.correlation, &q.attempt, &created)
		if errors.Is(err, meta.ErrNotFound) {
			var due int64
			err := tx.Row(`SELECT COALESCE(MIN(due_us), 0) FROM webhook_events WHERE webhook = $1 AND state = 'pending'`, id).Scan(&due)
			at = meta.FromMicros(due)
			return err
		}
		if err != nil {
			return err
		}
		q.body, q.created = []byte(body), meta.FromMicros(created)
		q.config, err = ConfigOf(tx, s.o.Keyring, id)
		q.lost = errors.Is(err, meta.ErrNotFound)
		if q.lost {
			err = nil
		}
		p = q
		return err
	})
	if p != nil && err == nil {
		var c struct{ Action string }
		err = json.Unmarshal(p.body, &c)
		p.action = c.Action
	}
	return p, at, err
}

// result is how an attempt ended.
type result struct {
	delivered bool
	// final: it will not be tried again. away: the receiver is not there, so no other event would arrive either.
	final, away bool
	request     *RequestMessage
	response    *ResponseMessage
}

// refused is the result of an event that is not sent at all.
func refused(why string) result {
	return result{final: true, response: &ResponseMessage{Content: why, Headers: map[string]string{}}}
}

// attempt asks the gate and sends. An error is the server's own: the event stays as it is.
func (s *Service) attempt(ctx context.Context, p *pending) (result, error) {
	switch {
	case p.lost:
		return refused("The webhook's destination was lost with an installation key: set serviceUri and customHeaders again."), nil
	case !p.hook.Enabled && p.action != ping:
		return refused("The webhook was disabled before the event was sent."), nil
	case p.now.Sub(p.created) > lifetime:
		return result{final: true}, nil
	}
	origin, address, err := origin(p.config.URI)
	if err != nil {
		return refused(err.Error()), nil
	}
	n := Notice{Hook: p.hook, Event: p.id, Action: p.action, Destination: origin, Declared: s.declared(address), Repository: p.repository, Digest: p.digest,
		Size: int64(len(p.body)), Correlation: p.correlation}
	sending, done, err := s.o.Release(ctx, n)
	var f *fault.Fault
	switch {
	case errors.As(err, &f) && f.Kind != fault.Unavailable && f.Kind != fault.Internal:
		return refused(f.Message), nil
	case err != nil:
		return result{}, err
	}
	r, err := s.send(sending, p, n)
	done(int64(len(p.body)), r.response != nil && r.response.StatusCode != "")
	if errors.As(context.Cause(sending), &f) {
		return refused(f.Message), nil // a change of policy cut it off
	}
	if ctx.Err() != nil {
		return result{}, ctx.Err()
	}
	if err != nil {
		s.o.Log.Warn("an event was not delivered", "webhook", p.hook.Resource, "event", p.id, "attempt", p.attempt+1, "correlation", p.correlation, "err", err)
	}
	return r, nil
}

// pause is how long is waited after so many failures in a row.
func pause(failures int) time.Duration {
	return min(firstPause<<min(failures-1, 20), lastPause)
}

// note keeps how an attempt ended.
func (s *Service) note(ctx context.Context, p *pending, r result) error {
	state, due, failures, resume := "pending", int64(0), 0, int64(0)
	switch {
	case r.delivered:
		state = "delivered"
	case r.final:
		state, failures = "failed", p.failures
	case r.away:
		failures = p.failures + 1
		resume = meta.Micros(p.now.Add(pause(failures)))
	default:
		failures, due = p.failures, meta.Micros(p.now.Add(pause(p.attempt+1)))
	}
	return s.o.DB.Write(ctx, func(tx *meta.Tx) error {
		_, err := tx.Exec(`UPDATE webhook_events SET state = $1, attempt = attempt + 1, due_us = $2, request = CASE WHEN $3 = '' THEN request ELSE $3 END,
  response = CASE WHEN $4 = '' THEN response ELSE $4 END WHERE id = $5 AND state = 'pending'`, state, due, text(r.request), text(r.response), p.id)
		if err == nil {
			_, err = tx.Exec(`UPDATE webhooks SET failures = $1, resume_us = $2 WHERE id = $3`, failures, resume, p.hook.ID)
		}
		return err
	})
}

// text is a message's JSON, "" of none.
func text[M RequestMessage | ResponseMessage](m *M) string {
	if m == nil {
		return ""
	}
	b, err := json.Marshal(m)
	if err != nil {
		return "" // not reached: it is texts alone
	}
	return string(b)
}

// plan has a webhook looked at again at a time (zero: not at all), and forgets what is over.
func (s *Service) plan(ctx context.Context, id string, at time.Time) error {
	return s.o.DB.Write(ctx, func(tx *meta.Tx) error {
		var h Hook
		var planned string
		err := tx.Lock(`SELECT registry, resource_id, next_job FROM webhooks WHERE id = $1`, id).Scan(&h.Registry, &h.Resource, &planned)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := prune(tx, id); err != nil {
			return err
		}
		if err := job.Forget(tx, h.Resource, deliverKind); err != nil || at.IsZero() {
			return err
		}
		if planned != "" {
			next, err := job.Get(tx, planned)
			if err == nil && next.Status == job.Accepted && !next.RunAt.After(at) {
				return nil
			}
			if err != nil && !errors.Is(err, meta.ErrNotFound) {
				return err
			}
		}
		next, err := job.Enqueue(tx, job.Spec{Kind: deliverKind, Subject: h.Resource, Registry: h.Registry, Args: id, RunAt: at, MaxAttempts: unbounded})
		if err == nil {
			_, err = tx.Exec(`UPDATE webhooks SET next_job = $1 WHERE id = $2`, next, id)
		}
		return err
	})
}

// prune removes events that are over, and the oldest of too many that wait.
func prune(tx *meta.Tx, hook string) error {
	beyond := `created_us < (SELECT created_us FROM webhook_events WHERE webhook = $1 ORDER BY created_us DESC LIMIT 1 OFFSET $2)`
	if _, err := tx.Exec(`DELETE FROM webhook_events WHERE webhook = $1 AND `+beyond, hook, waiting); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM webhook_events WHERE webhook = $1 AND state <> 'pending' AND (created_us < $3 OR `+beyond+`)`, hook, kept, meta.Micros(tx.Now().Add(-keptTime)))
	return err
}

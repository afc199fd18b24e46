// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

const (
	// lease is how long a claim lasts unless it is renewed; renewal is tried three times within it.
	lease = 15 * time.Second
	// poll is how often a runner looks without being woken: for others' jobs, for what was due later, for leases that ran out.
	poll = time.Second
	// firstRetry is the pause before the second attempt; it doubles with each.
	firstRetry = 500 * time.Millisecond
	// lastRetry is the longest pause.
	lastRetry = firstRetry << 8
	// topic is what Enqueue and Cancel ring.
	topic = "jobs"
)

// Options configure a Runner.
type Options struct {
	DB *meta.DB
	// Node names this process among those that share the database.
	Node string
	// Workers is how many jobs run at a time; 0 is 4.
	Workers int
	// Log gets what jobs do; nil discards.
	Log *slog.Logger
	// Count hears of each attempt that ended: its kind, the job's status then (Accepted: it is tried again), how long it took. nil: nobody counts.
	Count func(kind string, s Status, took time.Duration)
}

// Handler does a job's work. A *fault.Fault fails the job for good; any other error is retried with backoff until the attempts are used
// up, and then fails the job as Internal. ctx ends when the job is cancelled, its lease is lost or the runner stops.
type Handler func(ctx context.Context, j *Job) (result any, err error)

// Runner claims and runs jobs.
type Runner struct {
	db      *meta.DB
	owner   string
	log     *slog.Logger
	workers int
	count   func(kind string, s Status, took time.Duration)
	// seen is when the loop last looked for jobs, on the monotonic clock, and how that went.
	seen atomic.Pointer[look]

	// freed wakes the loop when a job of a limited kind has ended.
	freed chan struct{}

	mu       sync.Mutex
	handlers map[string]Handler
	running  map[string]context.CancelCauseFunc
	limits   map[string]int
	busy     map[string]int // of the limited kinds
}

// New makes a runner; Handle its kinds and Run it.
func New(o Options) (*Runner, error) {
	if o.DB == nil || o.Node == "" {
		return nil, errors.New("job: a runner needs a database and a node's name")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Workers <= 0 {
		o.Workers = 4
	}
	if o.Count == nil {
		o.Count = func(string, Status, time.Duration) {}
	}
	return &Runner{db: o.DB, owner: o.Node, log: o.Log, workers: o.Workers, count: o.Count, handlers: map[string]Handler{}, running: map[string]context.CancelCauseFunc{},
		limits: map[string]int{}, busy: map[string]int{}, freed: make(chan struct{}, 1)}, nil
}

// look is one look for jobs.
type look struct {
	at  time.Time
	err error
}

// stuck is how old the last look may be: the loop looks every second, also while all workers are busy.
const stuck = 20 * time.Second

// Healthy is nil while the runner looks for jobs and can.
func (r *Runner) Healthy() error {
	switch l := r.seen.Load(); {
	case l == nil:
		return errors.New("the job runner has not begun")
	case time.Since(l.at) > stuck:
		return fmt.Errorf("the job runner has not looked for jobs for %v", time.Since(l.at).Round(time.Second))
	default:
		return l.err
	}
}

func (r *Runner) looked(err error) { r.seen.Store(&look{time.Now(), err}) }

// Handle gives a kind its handler, before Run.
func (r *Runner) Handle(kind string, fn func(ctx context.Context, j *Job) (any, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handlers[kind] = fn
}

// Limit lets at most n jobs of a kind run at a time in this runner, so that slow ones leave workers to others. Before Run.
func (r *Runner) Limit(kind string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits[kind] = n
}

// full are the limited kinds of which no further job may begin.
func (r *Runner) full() (kinds []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for kind, n := range r.limits {
		if r.busy[kind] >= n {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// occupy counts a job of a limited kind that begins (1) or has ended (-1).
func (r *Runner) occupy(kind string, by int) {
	r.mu.Lock()
	_, limited := r.limits[kind]
	if limited {
		r.busy[kind] += by
	}
	r.mu.Unlock()
	if limited && by < 0 {
		select {
		case r.freed <- struct{}{}:
		default: // the loop has not heard the last one yet
		}
	}
}

// Run claims and runs jobs until ctx ends; then it stops the handlers, gives their jobs back to be run again, and returns.
func (r *Runner) Run(ctx context.Context) error {
	if err := r.inherit(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it began
		}
		return err
	}
	woken, leave := r.db.Listen(topic)
	defer leave()
	var work sync.WaitGroup
	defer work.Wait()
	slots := make(chan struct{}, r.workers)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		case <-woken: // all workers are busy: the news may be a cancel for one of them
			r.looked(nil)
			r.cancelAsked(ctx)
			continue
		case <-tick.C:
			r.looked(nil)
			r.cancelAsked(ctx)
			continue
		}
		j, err := r.claim(ctx)
		r.looked(err)
		if err != nil && ctx.Err() == nil {
			r.log.Error("jobs could not be claimed", "err", err)
		}
		if j != nil {
			work.Add(1)
			r.occupy(j.Kind, 1)
			go func() {
				defer work.Done()
				defer func() { <-slots }()
				defer r.occupy(j.Kind, -1)
				r.run(ctx, j)
			}()
			continue
		}
		<-slots
		select {
		case <-ctx.Done():
			return nil
		case <-woken:
		case <-r.freed:
		case <-tick.C:
		}
		r.cancelAsked(ctx)
	}
}

// inherit takes over what an earlier process of this node left: its leases are nobody's, and where no other process writes, a retry is due soon whatever the clock was
// set to since.
func (r *Runner) inherit(ctx context.Context) error {
	return r.db.Write(ctx, func(tx *meta.Tx) error {
		if _, err := tx.Exec(`UPDATE jobs SET lease_until = 0 WHERE status = 'Running' AND owner = $1`, r.owner); err != nil || !r.db.SoleWriter() {
			return err
		}
		due := meta.Micros(tx.Now().Add(lastRetry))
		_, err := tx.Exec(`UPDATE jobs SET run_at_us = $1 WHERE status = 'Accepted' AND attempt > 0 AND run_at_us > $1`, due)
		return err
	})
}

// claim takes the next due job: one that waits, or one whose runner's lease ran out. A look comes first, so that idle runners write nothing.
func (r *Runner) claim(ctx context.Context) (*Job, error) {
	var id string
	full := r.full()
	but := ""
	for i := range full {
		but += fmt.Sprintf(" AND kind <> $%d", i+2)
	}
	err := r.db.Read(ctx, func(tx *meta.Tx) error {
		now, value := tx.Clock(1)
		return tx.Row(`SELECT id FROM jobs WHERE status IN ('Accepted', 'Running') AND run_at_us <= `+now+` AND lease_until <= `+now+but+
			` ORDER BY run_at_us, id LIMIT 1`, append([]any{value}, full...)...).Scan(&id)
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var j *Job
	err = r.db.Write(ctx, func(tx *meta.Tx) error {
		j = nil
		now, value := tx.Clock(5)
		n, err := tx.Exec(`UPDATE jobs SET status = 'Running', owner = $1, attempt = attempt + 1, lease_until = `+now+` + $2,
  started_us = CASE WHEN started_us = 0 THEN $3 ELSE started_us END
 WHERE id = $4 AND status IN ('Accepted', 'Running') AND lease_until <= `+now, r.owner, lease.Microseconds(), meta.Micros(tx.Now()), id, value)
		if err != nil || n == 0 {
			return err
		}
		s, err := Get(tx, id)
		j = &Job{State: s, r: r}
		return err
	})
	if err != nil {
		return nil, err // what was not committed is not ours
	}
	return j, nil
}

// run does one attempt and records how it ended.
func (r *Runner) run(ctx context.Context, j *Job) {
	attempt, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.mu.Lock()
	fn := r.handlers[j.Kind]
	r.running[j.ID] = cancel
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.running, j.ID)
		r.mu.Unlock()
	}()
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		r.renew(attempt, cancel, j)
	}()
	began := time.Now()
	r.log.Info("job begins", "job", j.ID, "kind", j.Kind, "subject", j.Subject, "attempt", j.Attempt, "correlation", j.Correlation)
	var result any
	var err error
	switch {
	case fn == nil:
		err = fault.New(fault.Internal, "This server has no handler for jobs of the kind %s.", j.Kind)
	case j.Attempt > j.MaxAttempts:
		err = fault.New(fault.Internal, "The operation was begun %d times and never ended; it is given up.", j.MaxAttempts)
	default:
		result, err = r.safely(attempt, fn, j)
	}
	cause := context.Cause(attempt)
	cancel(nil)
	<-renewed
	r.end(j, result, err, cause, began)
}

// safely turns a handler's panic into an error that is retried.
func (r *Runner) safely(ctx context.Context, fn Handler, j *Job) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("panic", "job", j.ID, "kind", j.Kind, "correlation", j.Correlation, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("job: panic in a handler of %s: %v", j.Kind, p)
		}
	}()
	return fn(ctx, j)
}

// renew prolongs the lease while the handler runs and ends the attempt when the lease is lost or a cancel is asked.
func (r *Runner) renew(ctx context.Context, cancel context.CancelCauseFunc, j *Job) {
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	until := time.Now().Add(lease)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked := time.Now()
		err := r.db.Write(ctx, func(tx *meta.Tx) error {
			if err := j.Mine(tx); err != nil {
				return err
			}
			now, value := tx.Clock(3)
			_, err := tx.Exec(`UPDATE jobs SET lease_until = `+now+` + $1 WHERE id = $2`, lease.Microseconds(), j.ID, value)
			return err
		})
		switch {
		case err == nil:
			until = asked.Add(lease)
		case errors.Is(err, errLost), errors.Is(err, errCancelled):
			cancel(err)
			return
		case time.Now().After(until):
			cancel(errLost)
			return
		}
	}
}

// cancelAsked ends the attempts in this process that somebody asked to cancel.
func (r *Runner) cancelAsked(ctx context.Context) {
	r.mu.Lock()
	idle := len(r.running) == 0
	r.mu.Unlock()
	if idle {
		return
	}
	var asked []string
	err := r.db.Read(ctx, func(tx *meta.Tx) error {
		asked = nil
		rows, err := tx.Query(`SELECT id FROM jobs WHERE status = 'Running' AND cancel AND owner = $1`, r.owner)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			asked = append(asked, id)
		}
		return rows.Err()
	})
	if err != nil {
		return // the lease's renewal finds it too
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range asked {
		if cancel := r.running[id]; cancel != nil {
			cancel(errCancelled)
		}
	}
}

// end records how an attempt ended: for good, or to be tried again.
func (r *Runner) end(j *Job, result any, err, cause error, began time.Time) {
	if errors.Is(cause, errLost) || errors.Is(err, errLost) {
		return // the job is another's now
	}
	status, text, code, retry := Succeeded, "", "", time.Duration(-1)
	var body []byte
	var f *fault.Fault
	switch {
	case err == nil:
		if body, err = json.Marshal(result); err != nil {
			status, code, text = Failed, fault.Internal.ARM(), fault.From(err).Message
		}
	case errors.Is(cause, errCancelled) || errors.Is(err, errCancelled):
		status, code, text = Canceled, fault.OperationCanceled.ARM(), "The operation was canceled."
	case errors.As(err, &f):
		status, code, text = Failed, f.Kind.ARM(), f.Message
	case cause != nil:
		retry = 0 // the runner stops: the attempt does not count
	case j.Attempt >= j.MaxAttempts:
		status, code, text = Failed, fault.Internal.ARM(), fault.From(err).Message
	default:
		retry = firstRetry << min(j.Attempt-1, 8)
	}
	if err != nil {
		r.log.Warn("a job's attempt failed", "job", j.ID, "kind", j.Kind, "attempt", j.Attempt, "retry", retry >= 0, "correlation", j.Correlation, "err", err)
	}
	back := 0
	if retry == 0 {
		back = 1
	}
	write := func(tx *meta.Tx) error {
		var err error
		if retry >= 0 {
			now, value := tx.Clock(6)
			_, err = tx.Exec(`UPDATE jobs SET status = 'Accepted', owner = '', lease_until = 0, attempt = attempt - $1, run_at_us = `+now+` + $2
 WHERE id = $3 AND status = 'Running' AND owner = $4 AND attempt = $5`, back, retry.Microseconds(), j.ID, r.owner, j.Attempt, value)
		} else {
			_, err = tx.Exec(`UPDATE jobs SET status = $1, percent = CASE WHEN $1 = 'Succeeded' THEN 100 ELSE percent END, result = $2, fault_code = $3, fault_text = $4,
  owner = '', lease_until = 0, ended_us = $5 WHERE id = $6 AND status = 'Running' AND owner = $7 AND attempt = $8`,
				string(status), string(body), code, text, meta.Micros(tx.Now()), j.ID, r.owner, j.Attempt)
		}
		return err
	}
	// The runner's own end must not leave the row behind: its context is not used here.
	if err := r.db.Write(context.Background(), write); err != nil {
		r.log.Error("how a job ended could not be recorded; it is run again when its lease is over", "job", j.ID, "err", err)
		return
	}
	if retry >= 0 {
		status = Accepted
	}
	took := time.Since(began)
	r.log.Info("job ends", "job", j.ID, "kind", j.Kind, "subject", j.Subject, "attempt", j.Attempt, "status", string(status), "ms", took.Milliseconds(), "correlation", j.Correlation)
	r.count(j.Kind, status, took)
}

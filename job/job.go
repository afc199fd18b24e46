// SPDX-License-Identifier: Apache-2.0

// Package job is durable work. A job is enqueued in the caller's transaction, so it exists exactly when what asked for it does; the
// row is the long-running operation that clients poll. Runners claim jobs by a lease counted on the database's clock: a job whose
// runner died is run again by another, so its work must be idempotent.
//
// It promises that a job ends in exactly one of Succeeded, Failed and Canceled, and that what it ends with is durable first.
package job

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// Status is where a job stands, in the words of ARM's asynchronous operations.
type Status string

// The statuses; the last three are final.
const (
	Accepted  Status = "Accepted"
	Running   Status = "Running"
	Succeeded Status = "Succeeded"
	Failed    Status = "Failed"
	Canceled  Status = "Canceled"
)

// Final reports whether the job has ended.
func (s Status) Final() bool { return s == Succeeded || s == Failed || s == Canceled }

// Spec says what is to be done.
type Spec struct {
	// ID is the operation's name, unique over the installation; "" makes one.
	ID string
	// Kind chooses the handler.
	Kind string
	// Subject is the resource id that the job works on; Registry the identity of the registry, if any.
	Subject, Registry string
	// Args are the handler's arguments, kept as JSON.
	Args any
	// Caller is who asked, kept as it is.
	Caller      json.RawMessage
	Correlation string
	// RunAt is the earliest start; zero is at once.
	RunAt time.Time
	// MaxAttempts is how often it may be begun; 0 is 5.
	MaxAttempts int
}

// State is a job as its row has it.
type State struct {
	ID, Kind, Subject, Registry, Correlation string
	Status                                   Status
	Percent                                  int
	Args, Caller, Result                     json.RawMessage
	// FaultCode and FaultMessage are the ARM code and the text of what it failed with.
	FaultCode, FaultMessage      string
	Attempt, MaxAttempts         int
	RunAt, Created, Started, End time.Time
}

const defaultAttempts = 5

const columns = `id, kind, subject, registry, correlation, status, percent, args, caller, result, fault_code, fault_text, attempt, max_attempts,
 run_at_us, created_us, started_us, ended_us`

// Enqueue adds a job to the transaction and returns its id. Runners of this process wake when it commits. Errors: Conflict when the id is taken.
func Enqueue(tx *meta.Tx, s Spec) (string, error) {
	args, err := json.Marshal(s.Args)
	if err != nil {
		return "", err
	}
	if s.ID == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails, by its contract
		s.ID = hex.EncodeToString(b[:])
	}
	if s.MaxAttempts <= 0 {
		s.MaxAttempts = defaultAttempts
	}
	if len(s.Caller) == 0 {
		s.Caller = json.RawMessage("{}")
	}
	n, err := tx.Exec(`INSERT INTO jobs (`+columns+`, lease_until, owner, cancel)
 VALUES ($1, $2, $3, $4, $5, 'Accepted', 0, $6, $7, '', '', '', 0, $8, $9, $10, 0, 0, 0, '', FALSE) ON CONFLICT (id) DO NOTHING`,
		s.ID, s.Kind, s.Subject, s.Registry, s.Correlation, string(args), string(s.Caller), s.MaxAttempts, meta.Micros(s.RunAt), meta.Micros(tx.Now()))
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", fault.New(fault.Conflict, "An operation named %q exists already. Use another client request id.", s.ID)
	}
	tx.Ring(topic)
	return s.ID, nil
}

// Get reads a job. Errors: meta.ErrNotFound.
func Get(tx *meta.Tx, id string) (State, error) {
	return scan(tx.Row(`SELECT `+columns+` FROM jobs WHERE id = $1`, id).Scan)
}

// Count is how many jobs have each status; of those that have ended, the ones that ended since.
func Count(tx *meta.Tx, since time.Time) (map[Status]int64, error) {
	rows, err := tx.Query(`SELECT status, COUNT(*) FROM jobs WHERE status IN ('Accepted', 'Running') OR ended_us >= $1 GROUP BY status`, meta.Micros(since))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[Status]int64{}
	for rows.Next() {
		var s Status
		var n int64
		if err := rows.Scan(&s, &n); err != nil {
			return nil, err
		}
		all[s] = n
	}
	return all, rows.Err()
}

// List reads the jobs of a subject, oldest first.
func List(tx *meta.Tx, subject string) ([]State, error) {
	rows, err := tx.Query(`SELECT `+columns+` FROM jobs WHERE subject = $1 ORDER BY created_us, id`, subject)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []State
	for rows.Next() {
		s, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

// Forget removes the jobs of a subject and kind that have ended.
func Forget(tx *meta.Tx, subject, kind string) error {
	_, err := tx.Exec(`DELETE FROM jobs WHERE subject = $1 AND kind = $2 AND status IN ('Succeeded', 'Failed', 'Canceled')`, subject, kind)
	return err
}

func scan(from func(...any) error) (State, error) {
	var s State
	var args, caller, result string
	var run, created, started, ended int64
	err := from(&s.ID, &s.Kind, &s.Subject, &s.Registry, &s.Correlation, &s.Status, &s.Percent, &args, &caller, &result, &s.FaultCode, &s.FaultMessage,
		&s.Attempt, &s.MaxAttempts, &run, &created, &started, &ended)
	if err != nil {
		return State{}, err
	}
	s.Args, s.Caller = json.RawMessage(args), json.RawMessage(caller)
	if result != "" {
		s.Result = json.RawMessage(result)
	}
	s.RunAt, s.Created, s.Started, s.End = meta.FromMicros(run), meta.FromMicros(created), meta.FromMicros(started), meta.FromMicros(ended)
	return s, nil
}

// Cancel asks a job to stop: one that has not begun is Canceled at once, a running one when its handler has ended. What has ended stays.
// Errors: meta.ErrNotFound.
func Cancel(tx *meta.Tx, id string) error {
	s, err := Get(tx, id)
	if err != nil || s.Status.Final() {
		return err
	}
	_, err = tx.Exec(`UPDATE jobs SET cancel = TRUE,
  ended_us = CASE WHEN status = 'Accepted' THEN $1 ELSE ended_us END,
  status = CASE WHEN status = 'Accepted' THEN 'Canceled' ELSE status END
 WHERE id = $2 AND status IN ('Accepted', 'Running')`, meta.Micros(tx.Now()), id)
	tx.Ring(topic)
	return err
}

// Job is a job as its handler sees it.
type Job struct {
	State
	r *Runner
}

// Decode reads the arguments.
func (j *Job) Decode(into any) error { return json.Unmarshal(j.Args, into) }

// Progress records how far the job is, in percent.
func (j *Job) Progress(ctx context.Context, percent int) error {
	return j.r.db.Write(ctx, func(tx *meta.Tx) error {
		n, err := tx.Exec(`UPDATE jobs SET percent = $1 WHERE id = $2 AND status = 'Running' AND owner = $3 AND attempt = $4`, percent, j.ID, j.r.owner, j.Attempt)
		if err == nil && n == 0 {
			return errLost
		}
		return err
	})
}

// Mine is nil when this attempt of the job still holds its lease and nobody asked to cancel it, read in tx: what a handler writes in the same
// transaction is written by the lease's holder alone.
func (j *Job) Mine(tx *meta.Tx) error {
	var cancel bool
	err := tx.Lock(`SELECT cancel FROM jobs WHERE id = $1 AND status = 'Running' AND owner = $2 AND attempt = $3`, j.ID, j.r.owner, j.Attempt).Scan(&cancel)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return errLost
	case err != nil:
		return err
	case cancel:
		return errCancelled
	}
	return nil
}

var (
	errLost      = errors.New("job: the lease is lost, another runner has the job")
	errCancelled = errors.New("job: cancelled")
)

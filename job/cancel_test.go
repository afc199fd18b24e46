// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

func cancelJob(t *testing.T, db *meta.DB, id string) {
	t.Helper()
	write(t, db, func(tx *meta.Tx) error { return job.Cancel(tx, id) })
}

// Cancel ends the context of a running job at once, although all workers are busy, and keeps its handler from writing.
func TestCancelOfARunningJob(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r := newRunner(t, db, "n")
		begun, mine := make(chan struct{}), make(chan error, 2)
		r.Handle("long", func(ctx context.Context, j *job.Job) (any, error) {
			write := func() { mine <- db.Write(context.Background(), j.Mine) }
			write()
			close(begun)
			<-ctx.Done()
			write()
			return nil, ctx.Err()
		})
		start(t, r)
		id := enqueue(t, db, job.Spec{Kind: "long"})
		receive(t, "the handler", begun)
		asked := time.Now()
		cancelJob(t, db, id)
		s := await(t, db, id, job.Canceled)
		if took := time.Since(asked); took > 3*time.Second {
			t.Errorf("the handler heard of it after %v", took)
		}
		if s.FaultCode != fault.OperationCanceled.ARM() || s.FaultMessage == "" || s.Attempt != 1 {
			t.Errorf("the job: %+v", s)
		}
		if before, after := <-mine, <-mine; before != nil || after == nil {
			t.Errorf("may the handler write? before the cancel: %v, after: %v", before, after)
		}
		// What has ended stays.
		cancelJob(t, db, id)
		if again := get(t, db, id); again.End != s.End || again.Status != job.Canceled {
			t.Errorf("cancelled again: %+v", again)
		}
	})
}

// A job that has not begun is Canceled at once and never begins; one that ended stays as it is; one that is not there is not found.
func TestCancelOfOtherJobs(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		waiting := enqueue(t, db, job.Spec{Kind: "never"})
		cancelJob(t, db, waiting)
		if s := get(t, db, waiting); s.Status != job.Canceled || s.End.IsZero() {
			t.Errorf("a waiting job: %+v", s)
		}
		r := newRunner(t, db, "n")
		r.Handle("never", func(context.Context, *job.Job) (any, error) { t.Error("a cancelled job was begun"); return nil, nil })
		r.Handle("k", func(context.Context, *job.Job) (any, error) { return "done", nil })
		start(t, r)
		id := enqueue(t, db, job.Spec{Kind: "k"})
		await(t, db, id, job.Succeeded)
		cancelJob(t, db, id)
		if s := get(t, db, id); s.Status != job.Succeeded || string(s.Result) != `"done"` {
			t.Errorf("a job that had ended: %+v", s)
		}
		err := db.Write(t.Context(), func(tx *meta.Tx) error { return job.Cancel(tx, "nobody's") })
		if !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("a job that is not there: %v", err)
		}
	})
}

// At its end a runner stops its handlers, returns after them, and gives their jobs back: the attempt does not count and another begins at once.
func TestRunDrains(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		first := newRunner(t, db, "first")
		begun, stopped := make(chan struct{}), false
		first.Handle("k", func(ctx context.Context, j *job.Job) (any, error) {
			close(begun)
			<-ctx.Done()
			time.Sleep(20 * time.Millisecond) // so that a Run which does not wait returns first
			stopped = true
			return nil, ctx.Err()
		})
		stop := start(t, first)
		id := enqueue(t, db, job.Spec{Kind: "k", MaxAttempts: 1})
		receive(t, "the first handler", begun)
		stop()
		if !stopped {
			t.Error("Run returned before its handler")
		}
		if s := get(t, db, id); s.Status != job.Accepted || s.Attempt != 0 {
			t.Errorf("the job that was given back: %+v", s)
		}
		second := newRunner(t, db, "second")
		second.Handle("k", func(context.Context, *job.Job) (any, error) { return "second", nil })
		start(t, second)
		if s := await(t, db, id, job.Succeeded); s.Attempt != 1 || string(s.Result) != `"second"` {
			t.Errorf("the job at its end: %+v", s)
		}
	})
}

// A handler that finishes while its runner stops has finished: its result is kept.
func TestResultOfADrainingRunner(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r := newRunner(t, db, "n")
		begun := make(chan struct{})
		r.Handle("k", func(ctx context.Context, j *job.Job) (any, error) {
			close(begun)
			<-ctx.Done()
			return "finished", nil
		})
		stop := start(t, r)
		id := enqueue(t, db, job.Spec{Kind: "k"})
		receive(t, "the handler", begun)
		stop()
		if s := get(t, db, id); s.Status != job.Succeeded || string(s.Result) != `"finished"` {
			t.Errorf("the job: %+v", s)
		}
	})
}

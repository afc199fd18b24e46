// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// ends are the ways in which a handler's job ends; the handler gets the number of its attempt.
var ends = map[string]struct {
	handler     func(ctx context.Context, j *job.Job) (any, error)
	max         int
	want        job.Status
	attempts    int
	result      string
	code, words string
}{
	"result":                   {func(context.Context, *job.Job) (any, error) { return map[string]int{"a": 1}, nil }, 3, job.Succeeded, 1, `{"a":1}`, "", ""},
	"no result":                {func(context.Context, *job.Job) (any, error) { return nil, nil }, 3, job.Succeeded, 1, `null`, "", ""},
	"a result that is no JSON": {func(context.Context, *job.Job) (any, error) { return func() {}, nil }, 3, job.Failed, 1, ``, fault.Internal.ARM(), "unexpected"},
	"a fault is final": {func(context.Context, *job.Job) (any, error) {
		return nil, fault.New(fault.Conflict, "it is there already")
	},
		3, job.Failed, 1, ``, fault.Conflict.ARM(), "it is there already"},
	"a wrapped fault too": {func(context.Context, *job.Job) (any, error) {
		return nil, fmt.Errorf("secret: %w", fault.New(fault.Conflict, "it is there already"))
	}, 3, job.Failed, 1, ``, fault.Conflict.ARM(), "it is there already"},
	"an error is tried again": {func(_ context.Context, j *job.Job) (any, error) {
		if j.Attempt == 1 {
			return nil, errors.New("secret: disk")
		}
		return j.Attempt, nil
	}, 3, job.Succeeded, 2, `2`, "", ""},
	"until the attempts are used up": {func(context.Context, *job.Job) (any, error) { return nil, errors.New("secret: disk") },
		2, job.Failed, 2, ``, fault.Internal.ARM(), "unexpected"},
	"a panic is an error": {func(_ context.Context, j *job.Job) (any, error) {
		if j.Attempt == 1 {
			panic("secret")
		}
		return "back", nil
	}, 3, job.Succeeded, 2, `"back"`, "", ""},
	"a last panic":       {func(context.Context, *job.Job) (any, error) { panic("secret") }, 1, job.Failed, 1, ``, fault.Internal.ARM(), "unexpected"},
	"a kind nobody does": {nil, 3, job.Failed, 1, ``, fault.Internal.ARM(), "no handler"},
}

// Jobs end as their handlers say; one runner does them all, whatever the others did to it. What is inside of errors stays inside.
func TestJobsEndAsTheirHandlersSay(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r := newRunner(t, db, "n")
		ids := map[string]string{}
		for kind, e := range ends {
			if e.handler != nil {
				r.Handle(kind, e.handler)
			}
			ids[kind] = enqueue(t, db, job.Spec{Kind: kind, MaxAttempts: e.max})
		}
		start(t, r)
		for kind, e := range ends {
			s := await(t, db, ids[kind], e.want)
			if s.Attempt != e.attempts || string(s.Result) != e.result || s.FaultCode != e.code || !strings.Contains(s.FaultMessage, e.words) {
				t.Errorf("%s: %+v", kind, s)
			}
			if strings.Contains(s.FaultMessage, "secret") || (s.FaultMessage == "") != (e.code == "") {
				t.Errorf("%s: the message is %q", kind, s.FaultMessage)
			}
			if (e.want == job.Succeeded) != (s.Percent == 100) || s.Started.IsZero() || s.End.Before(s.Started) {
				t.Errorf("%s: %d %%, from %v to %v", kind, s.Percent, s.Started, s.End)
			}
		}
	})
}

// A runner that is stopped before it begins was stopped, and did not fail.
func TestStoppedBeforeItBegins(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := newRunner(t, open(), "n").Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

// A handler gets its arguments, and what it says of its progress shows at once.
func TestProgress(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r := newRunner(t, db, "n")
		reported, goOn := make(chan int), make(chan struct{})
		r.Handle("k", func(ctx context.Context, j *job.Job) (any, error) {
			var args struct{ Percent int }
			if err := errors.Join(j.Decode(&args), j.Progress(ctx, args.Percent)); err != nil {
				return nil, fault.New(fault.Conflict, "%v", err)
			}
			reported <- args.Percent
			<-goOn
			return nil, nil
		})
		start(t, r)
		id := enqueue(t, db, job.Spec{Kind: "k", Args: map[string]int{"Percent": 42}})
		receive(t, "the handler", reported)
		if s := get(t, db, id); s.Status != job.Running || s.Percent != 42 || s.Attempt != 1 {
			t.Errorf("while it runs: %+v", s)
		}
		close(goOn)
		await(t, db, id, job.Succeeded)
	})
}

// A runner looks when a job is enqueued in its process, and does not begin before the job is due.
func TestRunAt(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r := newRunner(t, db, "n")
		begun := make(chan time.Time, 1)
		r.Handle("due", func(context.Context, *job.Job) (any, error) { begun <- time.Now(); return nil, nil })
		r.Handle("k", func(context.Context, *job.Job) (any, error) { return nil, nil })
		start(t, r)
		due := time.Now().Add(300 * time.Millisecond)
		enqueue(t, db, job.Spec{Kind: "due", RunAt: due})
		await(t, db, enqueue(t, db, job.Spec{Kind: "k"}), job.Succeeded)
		<-time.After(time.Until(due.Add(5 * time.Millisecond)))
		enqueue(t, db, job.Spec{Kind: "k"}) // has the runner look
		if at := receive(t, "the job that is due later", begun); at.Before(due) {
			t.Errorf("begun %v too early", due.Sub(at))
		}
	})
}

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

func TestJobsEndAsTheirHandlersSay(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		ctx, cancel := context.WithCancel(t.Context())
		r, err := job.New(job.Options{DB: db, Node: "n"})
		if err != nil {
			t.Fatal(err)
		}
		tries := 0
		r.Handle("ok", func(ctx context.Context, j *job.Job) (any, error) { return map[string]int{"a": 1}, j.Progress(ctx, 50) })
		r.Handle("flaky", func(ctx context.Context, j *job.Job) (any, error) {
			tries++
			if tries < 2 {
				return nil, errors.New("try")
			}
			return nil, nil
		})
		r.Handle("bad", func(ctx context.Context, j *job.Job) (any, error) { return nil, fault.New(fault.Conflict, "no") })
		r.Handle("long", func(ctx context.Context, j *job.Job) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		ids := map[string]string{}
		err = db.Write(ctx, func(tx *meta.Tx) error {
			for _, k := range []string{"ok", "flaky", "bad", "long"} {
				id, err := job.Enqueue(tx, job.Spec{Kind: k})
				if err != nil {
					return err
				}
				ids[k] = id
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		wait := func(kind string, want job.Status) {
			t.Helper()
			start := time.Now()
			for {
				var s job.State
				if err := db.Read(ctx, func(tx *meta.Tx) (err error) { s, err = job.Get(tx, ids[kind]); return err }); err != nil {
					t.Fatal(err)
				}
				if s.Status == want {
					t.Log(kind, s.Status, time.Since(start), string(s.Result), s.FaultCode, s.FaultMessage)
					return
				}
				if time.Since(start) > 5*time.Second {
					t.Fatal(kind, s)
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		wait("ok", job.Succeeded)
		wait("bad", job.Failed)
		wait("flaky", job.Succeeded)
		wait("long", job.Running)
		if err := db.Write(ctx, func(tx *meta.Tx) error { return job.Cancel(tx, ids["long"]) }); err != nil {
			t.Fatal(err)
		}
		wait("long", job.Canceled)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

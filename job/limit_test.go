// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"context"
	"errors"
	"testing"

	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// Of a limited kind no more jobs run at a time than the limit, the other workers go on with other kinds, and the next of the kind begins when one has ended.
func TestLimit(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		r, err := job.New(job.Options{DB: db, Node: "n", Workers: 3})
		if err != nil {
			t.Fatal(err)
		}
		slow, release, other := make(chan string), make(chan struct{}), make(chan struct{}, 1)
		r.Limit("slow", 1)
		r.Handle("slow", func(ctx context.Context, j *job.Job) (any, error) {
			slow <- j.ID
			<-release
			return nil, nil
		})
		r.Handle("other", func(context.Context, *job.Job) (any, error) {
			other <- struct{}{}
			return nil, nil
		})
		for _, id := range []string{"a", "b", "c"} {
			enqueue(t, db, job.Spec{ID: id, Kind: "slow", Subject: "/s"})
		}
		start(t, r)
		receive(t, "the first slow job", slow)
		enqueue(t, db, job.Spec{Kind: "other", Subject: "/s"})
		receive(t, "the job of another kind", other) // claimed after the slow ones were looked at
		select {
		case id := <-slow:
			t.Fatalf("%s runs beside the first", id)
		default:
		}
		close(release)
		receive(t, "the second slow job", slow)
		receive(t, "the third slow job", slow)
		for _, id := range []string{"a", "b", "c"} {
			await(t, db, id, job.Succeeded)
		}
		write(t, db, func(tx *meta.Tx) error { return job.Forget(tx, "/s", "slow") })
		err = db.Read(t.Context(), func(tx *meta.Tx) error {
			left, err := job.List(tx, "/s")
			if len(left) != 1 || left[0].Kind != "other" {
				t.Errorf("%d jobs are left: %+v", len(left), left)
			}
			if _, gone := job.Get(tx, "a"); !errors.Is(gone, meta.ErrNotFound) {
				t.Errorf("a forgotten job: %v", gone)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

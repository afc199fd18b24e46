// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// childURL makes this test binary a runner on the database named in it, whose handler never ends.
const childURL = "EMBARGO_JOB_CHILD_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		fmt.Fprintln(os.Stderr, runForever(url))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runForever(url string) error {
	db, err := meta.Open(context.Background(), meta.Options{URL: url, Dial: metatest.Dial})
	if err != nil {
		return err
	}
	r, err := job.New(job.Options{DB: db, Node: "child"})
	if err != nil {
		return err
	}
	r.Handle("k", func(context.Context, *job.Job) (any, error) { fmt.Println("begun"); select {} })
	return r.Run(context.Background())
}

// expire makes the job's lease run out now instead of in 15 s, and has the runners look now instead of within a second.
func expire(t *testing.T, db *meta.DB, id string) {
	t.Helper()
	write(t, db, func(tx *meta.Tx) error {
		n, err := tx.Exec(`UPDATE jobs SET lease_until = 1 WHERE id = $1 AND status = 'Running' AND lease_until > 1`, id)
		if err == nil && n != 1 {
			err = errors.New("the job holds no lease")
		}
		tx.Ring("jobs")
		return err
	})
}

// The job of a runner that was killed is left alone while its lease lasts and then run again by another.
func TestJobOfAKilledRunner(t *testing.T) {
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := metatest.URL(t, kind)
			db := metatest.Open(t, url)
			id := enqueue(t, db, job.Spec{Kind: "k"})
			killWhenBegun(t, url)
			r := newRunner(t, db, "heir")
			r.Handle("k", func(context.Context, *job.Job) (any, error) { return "heir", nil })
			r.Handle("other", func(context.Context, *job.Job) (any, error) { return nil, nil })
			start(t, r)
			await(t, db, enqueue(t, db, job.Spec{Kind: "other"}), job.Succeeded)
			if s := get(t, db, id); s.Status != job.Running || s.Attempt != 1 {
				t.Errorf("while the lease lasts: %+v", s)
			}
			expire(t, db, id)
			if s := await(t, db, id, job.Succeeded); s.Attempt != 2 || string(s.Result) != `"heir"` {
				t.Errorf("after the lease: %+v", s)
			}
		})
	}
}

func killWhenBegun(t *testing.T, url string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), childURL+"="+url)
	child.Stderr = os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "begun\n" {
		t.Errorf("the child says %q, %v", line, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // "killed" is what it should say
}

// A runner that slept through its lease has lost the job: nothing that it still says of it is written.
func TestLostLease(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		slow, quick := newRunner(t, open(), "slow"), newRunner(t, db, "quick")
		begun, wake, said := make(chan struct{}), make(chan struct{}), make(chan error, 2)
		slow.Handle("k", func(ctx context.Context, j *job.Job) (any, error) {
			close(begun)
			<-wake
			said <- j.Progress(context.Background(), 1)
			said <- db.Write(context.Background(), j.Mine)
			return "slow", nil
		})
		taken, finish := make(chan struct{}), make(chan struct{})
		quick.Handle("k", func(context.Context, *job.Job) (any, error) { close(taken); <-finish; return "quick", nil })
		id := enqueue(t, db, job.Spec{Kind: "k"})
		stopSlow := start(t, slow)
		receive(t, "the slow handler", begun)
		expire(t, db, id)
		start(t, quick)
		receive(t, "the quick handler", taken)
		close(wake)
		if progress, mine := <-said, <-said; progress == nil || mine == nil {
			t.Errorf("the loser of the lease may write: progress %v, mine %v", progress, mine)
		}
		stopSlow()
		if s := get(t, db, id); s.Status != job.Running || s.Percent != 0 {
			t.Errorf("after the loser's end: %+v", s)
		}
		close(finish)
		if s := await(t, db, id, job.Succeeded); string(s.Result) != `"quick"` || s.Attempt != 2 {
			t.Errorf("the job at its end: %+v", s)
		}
	})
}

// A job whose runners die of it is given up after as many attempts as it may have.
func TestJobThatKillsItsRunners(t *testing.T) {
	metatest.Each(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		id := enqueue(t, db, job.Spec{Kind: "k", MaxAttempts: 2})
		write(t, db, func(tx *meta.Tx) error { // what a second killed runner leaves
			_, err := tx.Exec(`UPDATE jobs SET status = 'Running', owner = 'dead', attempt = 2, lease_until = 1 WHERE id = $1`, id)
			return err
		})
		r := newRunner(t, db, "n")
		r.Handle("k", func(context.Context, *job.Job) (any, error) { t.Error("begun a third time"); return nil, nil })
		start(t, r)
		if s := await(t, db, id, job.Failed); s.FaultCode != fault.Internal.ARM() {
			t.Errorf("the job at its end: %+v", s)
		}
	})
}

// signal passes on the first line of a log that nobody has taken yet.
type signal chan string

func (s signal) Write(line []byte) (int, error) {
	select {
	case s <- string(line):
	default:
	}
	return len(line), nil
}

// A claim that was not committed is none: its job is not run.
func TestClaimThatDoesNotCommit(t *testing.T) {
	t.Parallel()
	db := metatest.Open(t, metatest.URL(t, "postgres"))
	write(t, db, func(tx *meta.Tx) error {
		for _, text := range []string{
			`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no claim today''; END'`,
			`CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.kind = 'k') EXECUTE FUNCTION refuse()`,
		} {
			if _, err := tx.Exec(text); err != nil {
				return err
			}
		}
		return nil
	})
	failed := make(signal, 1)
	r, err := job.New(job.Options{DB: db, Node: "n", Workers: 1, Log: slog.New(slog.NewTextHandler(failed, nil))})
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{}, 10)
	r.Handle("k", func(context.Context, *job.Job) (any, error) { begun <- struct{}{}; return nil, nil })
	id := enqueue(t, db, job.Spec{Kind: "k"})
	stop := start(t, r)
	if line := receive(t, "the failed claim", failed); !strings.Contains(line, "no claim today") {
		t.Error(line)
	}
	write(t, db, func(tx *meta.Tx) error {
		_, err := tx.Exec(`DROP TRIGGER at_commit ON jobs`)
		tx.Ring("jobs")
		return err
	})
	await(t, db, id, job.Succeeded)
	stop()
	if s := get(t, db, id); len(begun) != 1 || s.Attempt != 1 {
		t.Errorf("the handler was called %d times: %+v", len(begun), s)
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package crash

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// record is what the tracer saw of one story.
type record struct {
	steps []step
	hit   bool
}

// table makes the steps of stories fail, one a story, all on one installation.
type table struct {
	*installation
	mark    string
	stories int
	all     *ledger
}

func newTable(t *testing.T) *table {
	in := newInstallation(t)
	in.Server = instance.At(t, filepath.Join(t.TempDir(), "data"), "", fmt.Sprintf("logLevel: warn\ngcGrace: 1ms\nprivateListeners: [{address: %q, registry: %q, tls: false}]\n", in.private, registry))
	in.Start()
	in.prepare(t)
	return &table{installation: in, mark: filepath.Join(t.TempDir(), "mark"), all: newLedger()}
}

// attach holds the server until it ends. The steps come from the function that it returns, which waits for that end.
func (tb *table) attach(t *testing.T, target, fault string) func() record {
	t.Helper()
	if err := os.WriteFile(tb.mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var complaint bytes.Buffer
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), tracerPID+"="+strconv.Itoa(tb.PID()), tracerRoot+"="+tb.Data, tracerMark+"="+tb.mark, tracerTarget+"="+target, tracerFault+"="+fault)
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if first, err := lines.ReadString('\n'); first != "attached\n" {
		t.Fatalf("the server can't be traced: %v: %s%s", err, first, complaint.String())
	}
	var r record
	read := make(chan error, 1)
	go func() {
		text, err := io.ReadAll(lines)
		r = parse(string(text))
		read <- err
	}()
	return func() record {
		if err := errors.Join(<-read, cmd.Wait()); err != nil || complaint.String() != "<nil>\n" {
			t.Fatalf("the tracer: %v: %s", err, complaint.String())
		}
		return r
	}
}

func parse(text string) (r record) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		words := strings.Fields(f[0])
		if len(f) != 4 || len(words) != 4 {
			continue // the line that the kill cut, and what came before the first request
		}
		s := step{request: words[0], name: words[1], kind: words[2], path: f[1]}
		s.n, _ = strconv.Atoi(words[3])
		s.offset, _ = strconv.ParseInt(f[2], 10, 64)
		r.steps = append(r.steps, s)
		r.hit = r.hit || f[3] == "true"
	}
	return r
}

// tell names the request under way to the tracer.
func (tb *table) tell(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(tb.mark, []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
}

// outcome is a line of the table.
type outcome struct {
	step, fault, answer, after string
	hit                        bool
}

// try tells one story with one fault. After a fault that was told the server is killed at once, or goes on when stay is set; then the request is asked again and the story told to its end.
func (tb *table) try(t *testing.T, target step, fault string, stay bool) outcome {
	t.Helper()
	tb.stories++
	s := tb.newStory(tb.stories)
	steps := tb.attach(t, target.String(), fault)
	o := outcome{step: target.String(), fault: fault, answer: "success", after: "kept"}
	failed := -1
	requests := s.requests()
	for i, r := range requests {
		tb.tell(t, r.name)
		if err := r.once(t.Context()); err != nil {
			o.answer, failed = answered(t, target, fault, err), i
			break
		}
	}
	if failed >= 0 && stay && fault != "KILL" {
		tb.tell(t, "again")
		tb.goOn(t, requests[failed:])
		o.after = "went on"
	} else if failed >= 0 {
		o.after = "asked again after a restart"
	}
	if failed < 0 && target.request == stopping {
		tb.tell(t, stopping)
		_ = tb.Stop() // how it ends is the fault's; what it leaves is what counts
	} else {
		tb.Kill()
	}
	r := steps()
	o.hit = r.hit
	tb.client.CloseIdleConnections()
	if !o.hit && failed >= 0 {
		t.Errorf("%s, %s: it failed without its fault", o.step, fault)
	}
	againWritten(t, r, target, fault)
	if !stay {
		tb.dangling(t)
	}
	tb.Start()
	tb.verify(t, s.ledger)
	if failed >= 0 && o.after != "went on" {
		tb.goOn(t, requests[failed:])
		tb.verify(t, s.ledger)
	}
	tb.all.add(s.ledger)
	return o
}

const stopping = "stop"

// goOn asks a failed request again and then for what follows it.
func (tb *table) goOn(t *testing.T, rest []request) {
	t.Helper()
	for i, r := range rest {
		ask := r.once
		if i == 0 {
			ask = r.again
		}
		if err := ask(t.Context()); err != nil {
			t.Errorf("%s, asked again without a fault: %v", r.name, err)
			return
		}
	}
}

// answered checks that a fault is told as one: 5xx with the protocol's envelope, 507 where the disk was full at a write; no answer only of a killed server.
func answered(t *testing.T, target step, fault string, err error) string {
	t.Helper()
	var r refusal
	if !errors.As(err, &r) {
		if fault != "KILL" {
			t.Errorf("%s, %s: no answer: %v", target, fault, err)
		}
		return "none"
	}
	if r.body == nil {
		return "gc refused"
	}
	var told struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(r.body, &told) != nil || len(told.Errors) != 1 || told.Errors[0].Code == "" || told.Errors[0].Message == "" || r.status < 500 {
		t.Errorf("%s, %s: told as %d %s", target, fault, r.status, r.body)
	}
	if fault == "ENOSPC" && !strings.Contains(target.name, "sync") && r.status != http.StatusInsufficientStorage {
		t.Errorf("%s: a full disk is told as %d %s", target, r.status, r.body)
	}
	return strconv.Itoa(r.status)
}

// againWritten checks what a failed fsync leaves: the kernel may have dropped what was written and calls it clean, so that a later fsync of the same file says nothing about it. An object
// is given up; the log of the database is written again from where the failed commit began before anything follows it; and the log stays when what it was moved to did not reach the disk.
func againWritten(t *testing.T, r record, target step, fault string) {
	t.Helper()
	at := slices.IndexFunc(r.steps, func(s step) bool { return s.String() == target.String() })
	if fault == "KILL" || at < 0 || !strings.HasSuffix(target.name, "sync") || target.kind == "folder" {
		return
	}
	failed := r.steps[at]
	from := int64(-1) // where what the failed fsync was for begins
	for _, s := range slices.Backward(r.steps[:at]) {
		if s.path == failed.path && s.name == failed.name {
			break
		}
		if s.path == failed.path && s.name == "pwrite64" {
			from = s.offset
		}
	}
	const nothing = int64(1) << 62
	lowest := nothing
	for _, s := range r.steps[at+1:] {
		switch {
		case failed.kind == "embargo.db" && s.kind == "embargo.db-wal" && s.name == "unlink":
			t.Errorf("%s failed, and the log was removed", target)
		case s.path != failed.path:
		case s.kind == "object" && s.name != "unlink":
			t.Errorf("%s failed, and the object was used again: %s", target, s)
		case s.name == "pwrite64":
			lowest = min(lowest, s.offset)
		case strings.HasSuffix(s.name, "sync"):
			if failed.kind == "embargo.db-wal" && lowest != nothing && lowest > from {
				t.Errorf("%s failed for what is from %d on, and what followed is from %d on", target, from, lowest)
			}
			if lowest != nothing {
				return
			}
		}
	}
}

// faults are those that a step can have.
func faults(s step) []string {
	switch s.name {
	case "unlink", "fchmod", "chmod":
		return []string{"EIO", "KILL"}
	}
	return []string{"EIO", "ENOSPC", "KILL"}
}

// sample is n of the cases, evenly, the first of them by the seed.
func sample[T any](all []T, n int, seed uint64) []T {
	if n >= len(all) {
		return all
	}
	first := rand.New(rand.NewPCG(seed, seed)).Float64()
	var some []T
	for i := range n {
		some = append(some, all[int((float64(i)+first)*float64(len(all))/float64(n))])
	}
	return some
}

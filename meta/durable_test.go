// SPDX-License-Identifier: Apache-2.0

package meta_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// childURL makes this test binary a process that writes to the database named in it until it is killed.
const childURL = "EMBARGO_META_CHILD_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(url))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled prints an id after each Write that returned nil.
func writeUntilKilled(url string) error {
	db, err := meta.Open(context.Background(), meta.Options{URL: url, Dial: metatest.Dial})
	if err != nil {
		return err
	}
	var out sync.Mutex
	failed := make(chan error)
	for w := range 8 {
		go func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("%d/%d", w, n)
				if err := db.Write(context.Background(), put(id, id)); err != nil {
					failed <- err
					return
				}
				out.Lock()
				fmt.Println(id)
				out.Unlock()
			}
		}()
	}
	return <-failed
}

// What a Write acknowledged is there after the process was killed, and the database opens again.
func TestWritesSurviveAKill(t *testing.T) {
	t.Parallel()
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			url := metatest.URL(t, kind)
			acknowledged := map[string]bool{}
			for life := 1; life <= 2; life++ {
				for _, id := range killAfter(t, url, 150*life) {
					acknowledged[id] = true
				}
				got := facts(t, metatest.Open(t, url))
				for id := range acknowledged {
					if got[id] != id {
						t.Errorf("life %d: %s was acknowledged and is lost", life, id)
					}
				}
				if life == 1 && len(acknowledged) < 150 {
					t.Errorf("the child acknowledged only %d writes", len(acknowledged))
				}
			}
		})
	}
}

// killAfter runs the child until it printed count ids, kills it, and gives all whole lines that it printed.
func killAfter(t *testing.T, url string, count int) []string {
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
	var ids []string
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		ids = append(ids, strings.TrimSuffix(line, "\n"))
		if len(ids) == count {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // "killed" is what it should say
	if s, ok := child.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself: %v", child.ProcessState)
	}
	return ids
}

// A commit waits for the disk: no setting of ours turns that off.
func TestCommitsAreSynchronous(t *testing.T) {
	t.Parallel()
	for kind, setting := range map[string][2]string{
		"sqlite":   {`PRAGMA synchronous`, "2"},
		"postgres": {`SHOW synchronous_commit`, "on"},
	} {
		t.Run(kind, func(t *testing.T) {
			db := metatest.Open(t, metatest.URL(t, kind))
			var got string
			err := db.Write(t.Context(), func(tx *meta.Tx) error { return tx.Row(setting[0]).Scan(&got) })
			if err != nil || got != setting[1] {
				t.Errorf("%s is %q, %v", setting[0], got, err)
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, kind := range metatest.Kinds {
		for _, writers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", kind, writers), func(b *testing.B) {
				db := metatest.Open(b, metatest.URL(b, kind))
				next := make(chan int)
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						for n := range next {
							if err := db.Write(b.Context(), put(strconv.Itoa(w), strconv.Itoa(n))); err != nil {
								b.Error(err)
							}
						}
					})
				}
				b.ResetTimer()
				for n := range b.N {
					next <- n
				}
				close(next)
				wg.Wait()
			})
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts run this very program as the command embargo.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"embargo": main}) }

// TestScripts runs testdata/script: each file is a story told with the program itself, on free ports, on its own data.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("EMBARGO_CONFIG_DIR", filepath.Join(env.WorkDir, "session"))
			env.Setenv("PORTS", "--listen=127.0.0.1:0 --proxy-listen=127.0.0.1:0 --admin-listen=127.0.0.1:0")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ready": ready, "credential": credential, "mode": mode, "code": code, "sigterm": sigterm,
		},
	})
}

// ready waits until the server of a data directory says it is ready: ready DATA.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready DATA")
	}
	file := ts.MkAbs(filepath.Join(args[0], "listening.json"))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s: not ready after 30 s", args[0])
		}
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var a struct{ Admin string }
		if json.Unmarshal(b, &a) != nil {
			continue
		}
		resp, err := http.Get("http://" + a.Admin + "/readyz")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
}

// credential sets an environment variable to a member of credentials.json: credential DATA MEMBER VARIABLE.
func credential(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: credential DATA MEMBER VARIABLE")
	}
	var m map[string]string
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(filepath.Join(args[0], "credentials.json"))), &m))
	if m[args[1]] == "" {
		ts.Fatalf("credentials.json has no %s", args[1])
	}
	ts.Setenv(args[2], m[args[1]])
}

// mode checks a file's mode: mode 600 FILE.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode MODE FILE")
	}
	st, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", st.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, not %s", args[1], got, args[0])
	}
}

// sigterm asks the programs in the background to end.
func sigterm(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: sigterm")
	}
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(syscall.SIGTERM))
	}
}

// code runs the program and checks its exit code: code 2 ARGS…. Output is left as after exec.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: code CODE ARGS…")
	}
	err := ts.Exec("embargo", args[1:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, not %s", got, args[0])
	}
}

// SPDX-License-Identifier: Apache-2.0

// Command mutate forces the rule of each judged route open, one at a time, and takes each grace of the collection of content away, and sees the test that is named for it fail.
// It changes no file: the mutated source stands in a build overlay. It exits 1 when a route survives its mutation, when a rule's text
// is not found exactly once, when a named test does not pass without the mutation, or when a judged route has none.
//
// usage: go run ./test/mutate [ROUTE …]
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/embargo-registry/embargo/egress"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(only []string) error {
	root, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "embargo-mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := covered(); err != nil {
		return err
	}
	if err := sound(only); err != nil {
		return err
	}
	killed, survived := 0, 0
	var mu sync.Mutex // guards the counts and what is printed
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, m := range mutations {
		if len(only) > 0 && !slices.Contains(only, string(m.route)) {
			continue
		}
		g.Go(func() error {
			own := filepath.Join(dir, strconv.Itoa(i))
			if err := os.Mkdir(own, 0o700); err != nil {
				return err
			}
			why, err := m.try(root, own)
			if err != nil {
				return fmt.Errorf("%s: %w", m.route, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if why == "" {
				survived++
				fmt.Printf("SURVIVED  %-4s %s: %s passes without the rule\n", m.route, m.file, m.test)
				return nil
			}
			killed++
			fmt.Printf("killed    %-4s %s (%s)\n", m.route, m.file, m.test)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Printf("%d passed, %d failed\n", killed, survived)
	if survived > 0 {
		return errors.New("a rule has no test that fails when it is gone")
	}
	return nil
}

// atOnce is how many mutations are tried at a time: a test waits for disks and timers for much of its time.
const atOnce = 3

// covered checks that every judged route of the register has a mutation.
func covered() error {
	var missing []string
	for _, e := range egress.Register {
		has := slices.ContainsFunc(mutations, func(m mutation) bool { return m.route == e.Route })
		if e.Stance == egress.Judged && !has {
			missing = append(missing, string(e.Route))
		}
	}
	if missing != nil {
		return fmt.Errorf("judged routes without a mutation: %s", strings.Join(missing, ", "))
	}
	return nil
}

// sound runs every named test unmutated: a test that fails anyway proves nothing.
func sound(only []string) error {
	tests := map[string][]string{}
	for _, m := range mutations {
		if len(only) == 0 || slices.Contains(only, string(m.route)) {
			tests[m.pkg] = append(tests[m.pkg], "^"+m.test+"$")
		}
	}
	for pkg, names := range tests {
		slices.Sort(names)
		names = slices.Compact(names)
		cmd := exec.Command("go", "test", "-count=1", "-short", "-v", "-run", strings.Join(names, "|"), "./"+pkg)
		cmd.Env = append(os.Environ(), "EMBARGO_TEST_DATABASES=sqlite")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s fails without a mutation: %w\n%s", pkg, err, tail(out))
		}
		for _, n := range names {
			if !bytes.Contains(out, []byte("--- PASS: "+strings.Trim(n, "^$")+" ")) {
				return fmt.Errorf("%s has no test %s", pkg, n)
			}
		}
	}
	return nil
}

// grace stands for a route where what is taken away is a collection's grace.
const grace egress.Route = "grace"

// mutation opens one route.
type mutation struct {
	route egress.Route
	file  string
	// old stands exactly once in file; fresh replaces it and opens the route.
	old, fresh string
	// pkg and test are what must fail then.
	pkg, test string
}

// try returns how the test failed, "" when it passed all the same.
func (m mutation) try(root, dir string) (string, error) {
	path := filepath.Join(root, m.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return "", fmt.Errorf("the rule's text stands %d times in %s: %q", n, m.file, m.old)
	}
	mutated := filepath.Join(dir, "mutated.go")
	if err := os.WriteFile(mutated, bytes.Replace(source, []byte(m.old), []byte(m.fresh), 1), 0o600); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "./...").CombinedOutput(); err != nil {
		return "", fmt.Errorf("the mutation does not compile:\n%s", out)
	}
	cmd := exec.Command("go", "test", "-overlay", overlay, "-count=1", "-short", "-run", "^"+m.test+"$", "./"+m.pkg)
	cmd.Env = append(os.Environ(), "EMBARGO_BUILD_OVERLAY="+overlay, "EMBARGO_TEST_DATABASES=sqlite")
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case errors.As(err, &failed) && bytes.Contains(out, []byte("--- FAIL: "+m.test)):
		return string(tail(out)), nil
	}
	return "", fmt.Errorf("the test could not run: %w\n%s", err, tail(out))
}

func tail(out []byte) []byte {
	if len(out) > 3000 {
		return out[len(out)-3000:]
	}
	return out
}

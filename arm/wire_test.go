// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

var update = flag.Bool("update", false, "write the answers into the wire scripts")

// bench is an engine with the family of vaults on a real database.
type bench struct {
	engine *arm.Engine
	db     *meta.DB
	log    *audit.Log
	runner *job.Runner
	people people

	keyring *meta.Keyring
}

func newBench(t *testing.T, db *meta.DB) *bench {
	t.Helper()
	keyring, err := meta.NewKeyring(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return startBench(t, db, "n1", keyring, newPeople(t, db, keyring))
}

// another is a second node on the same database.
func (b *bench) another(t *testing.T, db *meta.DB) *bench {
	t.Helper()
	return startBench(t, db, "n2", b.keyring, b.people)
}

func startBench(t *testing.T, db *meta.DB, node string, keyring *meta.Keyring, people people) *bench {
	t.Helper()
	log, err := audit.New(context.Background(), audit.Options{DB: db, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{db: db, log: log, keyring: keyring, people: people}
	b.engine, err = arm.New(arm.Options{DB: db, Identity: b.people.service, Audit: log, Keyring: keyring, Namespaces: []arm.Namespace{groups(), bank()}, PageSize: 3})
	if err != nil {
		t.Fatal(err)
	}
	b.runner = newRunner(t, db)
	b.engine.Register(b.runner)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- b.runner.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Errorf("the runner ended with %v", err)
		}
		if err := log.Close(); err != nil {
			t.Errorf("closing the record: %v", err)
		}
	})
	return b
}

// call makes one exchange as somebody.
func (b *bench) call(who, method, path, body string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, strings.TrimPrefix(path, "http://arm.localhost"), strings.NewReader(body))
	r.Host = "arm.localhost"
	if who != "" {
		token, known := b.people.tokens[who]
		if !known {
			token = "forged"
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	b.engine.ServeHTTP(w, r)
	return w.Result()
}

// shown are the headers that the scripts show.
var shown = []string{"Allow", "Api-Supported-Versions", "Azure-Asyncoperation", "Location", "Retry-After", "Www-Authenticate", "X-Ms-Client-Request-Id", "X-Ms-Error-Code", "X-Ms-Failure-Cause"}

var masks = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}(\+00:00|Z)`), "<time$1>"},
	{regexp.MustCompile(`(doors|vaults|delete-[a-z0-9]+)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "$1-<guid>"},
}

// TestWire plays the scripts of testdata: each section is a request, "=>" and the answer to it, on both databases. The answers are
// written by -update.
func TestWire(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			metatest.Each(t, func(t *testing.T, open func() *meta.DB) { play(t, file, newBench(t, open())) })
		})
	}
}

func play(t *testing.T, file string, b *bench) {
	script, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := false
	for i, section := range script.Files {
		request, want, _ := strings.Cut(string(section.Data), "=>\n")
		got := b.exchange(t, section.Name, request)
		if got == want {
			continue
		}
		if !*update {
			t.Errorf("%s: %s\n got:\n%s\nwant:\n%s", file, section.Name, got, want)
			continue
		}
		script.Files[i].Data, changed = []byte(request+"=>\n"+got), true
	}
	if changed {
		if err := os.WriteFile(file, txtar.Format(script), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// exchange sends the request of a section: "METHOD path", header lines ("as: name" is the caller), a blank line, the body.
func (b *bench) exchange(t *testing.T, what, request string) string {
	t.Helper()
	request = strings.ReplaceAll(request, "{sub}", b.people.subscription)
	head, body, _ := strings.Cut(request, "\n\n")
	lines := bufio.NewScanner(strings.NewReader(head))
	lines.Scan()
	method, path, _ := strings.Cut(lines.Text(), " ")
	who, headers := "owner", []string{}
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "as: "); ok {
			who = strings.TrimPrefix(name, "nobody at all")
			continue
		}
		headers = append(headers, lines.Text())
	}
	return b.print(t, what, b.call(who, method, strings.ReplaceAll(path, " ", "%20"), body, headers...))
}

func (b *bench) print(t *testing.T, what string, r *http.Response) string {
	t.Helper()
	var out bytes.Buffer
	fmt.Fprintf(&out, "%d\n", r.StatusCode)
	for _, k := range shown {
		if v := r.Header.Get(k); v != "" {
			fmt.Fprintf(&out, "%s: %s\n", k, v)
		}
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(r.Body); err != nil {
		t.Fatal(err)
	}
	if body.Len() > 0 {
		if err := json.Indent(&out, body.Bytes(), "", "  "); err != nil {
			t.Errorf("%s: the answer is no JSON: %q", what, body.String())
		}
		out.WriteByte('\n')
	}
	text := out.String()
	for _, m := range masks {
		text = m.re.ReplaceAllString(text, m.with)
	}
	for _, name := range slices.Sorted(mapKeys(b.people.ids)) {
		text = strings.ReplaceAll(text, b.people.ids[name], "<id of "+name+">")
	}
	return strings.ReplaceAll(text, b.people.subscription, "{sub}")
}

func contains(s, part string) bool { return strings.Contains(s, part) }

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// people are the callers of the scripts.
type people struct {
	service      *identity.Service
	subscription string
	tokens, ids  map[string]string
}

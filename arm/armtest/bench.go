// SPDX-License-Identifier: Apache-2.0

package armtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

var update = flag.Bool("update", false, "write the answers into the wire scripts")

// Host is the host of the management endpoint that a Bench serves.
const Host = "arm.localhost"

// Bench is an engine with its callers, its jobs and its record on a real database.
type Bench struct {
	Engine  *arm.Engine
	DB      *meta.DB
	Audit   *audit.Log
	Runner  *job.Runner
	People  People
	keyring *meta.Keyring
	path    string // the keyring's file
	last    string // the link of the last operation
	next    string // the last nextLink
}

// People are the callers of a Bench: an owner and a reader of the subscription, and a stranger without rights.
type People struct {
	Service      *identity.Service
	Tenant       string
	Subscription string
	Tokens, IDs  map[string]string // by the words owner, reader, stranger
}

// Declare makes the namespaces of a Bench, once its identity service is there.
type Declare func(s *identity.Service) []arm.Namespace

// New starts a Bench on a fresh database. Pages of lists hold three resources.
func New(t testing.TB, db *meta.DB, declare Declare) *Bench {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	keyring, err := meta.NewKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, db, "n1", keyring, newPeople(t, db, keyring), declare)
	b.path = path
	return b
}

// Another starts a second node on the same database, through a handle of its own.
func (b *Bench) Another(t testing.TB, db *meta.DB, declare Declare) *Bench {
	t.Helper()
	return start(t, db, "n2", b.keyring, b.People, declare)
}

func start(t testing.TB, db *meta.DB, node string, keyring *meta.Keyring, people People, declare Declare) *Bench {
	t.Helper()
	log, err := audit.New(context.Background(), audit.Options{DB: db, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	b := &Bench{DB: db, Audit: log, keyring: keyring, People: people}
	b.Engine, err = arm.New(arm.Options{DB: db, Identity: people.Service, Audit: log, Keyring: keyring, Namespaces: declare(people.Service), PageSize: pageSize(t),
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if b.Runner, err = job.New(job.Options{DB: db, Node: node}); err != nil {
		t.Fatal(err)
	}
	b.Engine.Register(b.Runner)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- b.Runner.Run(ctx) }()
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

// Rotate gives the installation a new key, beside those it has, and returns its id.
func (b *Bench) Rotate(t testing.TB) string {
	t.Helper()
	if err := b.keyring.Rotate(b.path); err != nil {
		t.Fatal(err)
	}
	return b.keyring.KeyID()
}

// Call makes one exchange as somebody; "" is nobody, an unknown word a forger. headers are "Name: value". {sub} in the path and in the body is the subscription.
func (b *Bench) Call(who, method, path, body string, headers ...string) *http.Response {
	body = strings.ReplaceAll(body, "{sub}", b.People.Subscription)
	path = strings.ReplaceAll(strings.TrimPrefix(path, "http://"+Host), "{sub}", b.People.Subscription)
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = Host
	if who != "" {
		token, known := b.People.Tokens[who]
		if !known {
			token = "forged"
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Add(k, v)
	}
	w := httptest.NewRecorder()
	b.Engine.ServeHTTP(w, r)
	return w.Result()
}

// Must makes one exchange as the owner, expects the status, and gives the answer's object.
func (b *Bench) Must(t testing.TB, status int, method, path, body string) map[string]any {
	t.Helper()
	r := b.Call("owner", method, path, body)
	var v map[string]any
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil && r.ContentLength > 0 {
		t.Fatalf("%s %s: the answer is no JSON object: %v", method, path, err)
	}
	if r.StatusCode != status {
		t.Fatalf("%s %s: %d, want %d: %v", method, path, r.StatusCode, status, v)
	}
	return v
}

// shown are the headers that the scripts show.
var shown = []string{"Allow", "Api-Supported-Versions", "Azure-Asyncoperation", "Location", "Retry-After", "Www-Authenticate", "X-Ms-Client-Request-Id", "X-Ms-Error-Code", "X-Ms-Failure-Cause"}

var masks = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`skipToken=[A-Za-z0-9_-]+`), "skipToken=<token>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}(\+00:00|Z)`), "<time$1>"},
	{regexp.MustCompile(`(doors|vaults|delete-[a-z0-9]+)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "$1-<guid>"},
	{regexp.MustCompile(`("resourceGuid": "|\.nic\.| with resource guid )[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "$1<guid>"},
	{regexp.MustCompile(`([a-z0-9]{5,50})\.[0-9a-f]{32}\b`), "$1.<hex>"},
}

// Scripts plays the scripts of a folder on both databases: each section is a request, "=>" and the answer to it. With -update the answers are
// written instead of compared. A request is "METHOD path", header lines ("as: reader" is the caller, the owner without it; "as: nobody at
// all" sends no token; "wait for it" repeats the request while it answers 202; {last} is the
// link of the last operation, {next} the last nextLink), a blank line, and the body.
func Scripts(t *testing.T, glob string, declare Declare) {
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			metatest.Each(t, func(t *testing.T, open func() *meta.DB) { play(t, file, New(t, open(), declare)) })
		})
	}
}

func play(t *testing.T, file string, b *Bench) {
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

// exchange sends the request of a section and prints the answer.
func (b *Bench) exchange(t *testing.T, what, request string) string {
	t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	lines := bufio.NewScanner(strings.NewReader(head))
	lines.Scan()
	method, path, _ := strings.Cut(lines.Text(), " ")
	who, wait, headers := "owner", false, []string{}
	path = strings.ReplaceAll(strings.ReplaceAll(path, " ", "%20"), "{last}", b.last)
	path = strings.ReplaceAll(path, "{next}", b.next)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "as: "); ok {
			who = strings.TrimPrefix(name, "nobody at all")
			continue
		}
		if lines.Text() == "wait for it" {
			wait = true
			continue
		}
		headers = append(headers, lines.Text())
	}
	r := b.Call(who, method, path, body, headers...)
	for deadline := time.Now().Add(30 * time.Second); wait && r.StatusCode == http.StatusAccepted && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond) // as a client polls
		r = b.Call(who, method, path, body, headers...)
	}
	for _, link := range []string{"Location", "Azure-AsyncOperation"} {
		if v := r.Header.Get(link); v != "" {
			b.last = v
		}
	}
	return b.print(t, what, r)
}

func (b *Bench) print(t *testing.T, what string, r *http.Response) string {
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
	var page struct{ NextLink string }
	if json.Unmarshal(body.Bytes(), &page) == nil && page.NextLink != "" {
		b.next = page.NextLink
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
	for _, name := range slices.Sorted(maps.Keys(b.People.IDs)) {
		text = strings.ReplaceAll(text, b.People.IDs[name], "<id of "+name+">")
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, b.People.Tenant, "<tenant>"), b.People.Subscription, "{sub}")
}

// Until waits until cond holds, as a client that polls does; it fails the test after half a minute.
func Until(t testing.TB, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 30 seconds")
		}
	}
}

// pageSize is small in tests, so that a few resources make several pages, and the engine's own in benchmarks.
func pageSize(t testing.TB) int {
	if _, measured := t.(*testing.B); measured {
		return 0
	}
	return 3
}

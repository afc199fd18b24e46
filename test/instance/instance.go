// SPDX-License-Identifier: Apache-2.0

// Package instance runs the built binary for the big suites: a real process, real sockets, a real database, and nothing of its inside.
package instance

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta/metatest"
)

// Credentials are what the server writes for its first client.
type Credentials struct {
	ResourceManager, ActiveDirectory, Proxy, CAFile, TenantID, SubscriptionID, ClientID, ClientSecret, ACRLoginServerSuffix string
}

// Server is a running embargo.
type Server struct {
	Credentials
	// Data is its data directory, Config its configuration file ("" for none), Database the URL ("" for the default).
	Data, Config, Database string
	// LogFormat is json ("") or text.
	LogFormat string
	// Listen is the public listener's address; "" picks a free port.
	Listen string
	// Client trusts the server's CA and goes through its CONNECT proxy, so it reaches every name of the installation.
	Client *http.Client

	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended, with ended
	log  output        // all that it has printed since its start
	arm  string

	ended error
}

// output is where a process writes: files, so that a line that was written before an answer is there once the answer is.
type output struct{ out, err string }

func (o *output) open(t testing.TB) (out, err *os.File, fail error) {
	if o.out == "" {
		dir := t.TempDir()
		o.out, o.err = filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")
	}
	if out, fail = os.Create(o.out); fail != nil {
		return nil, nil, fail
	}
	err, fail = os.Create(o.err)
	return out, err, fail
}

func read(path string) string {
	b, _ := os.ReadFile(path) // absent before the first start
	return string(b)
}

func (o *output) String() string { return read(o.out) + read(o.err) }

// Binary builds the binary once for the test process. EMBARGO_BUILD_OVERLAY names a build overlay (the mutation tests use it).
var Binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "embargo-bin")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "embargo")
	args := []string{"build", "-o", path}
	if o := os.Getenv("EMBARGO_BUILD_OVERLAY"); o != "" {
		args = append(args, "-overlay", o)
	}
	out, err := exec.Command("go", append(args, "github.com/embargo-registry/embargo/cmd/embargo")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building embargo: %w\n%s", err, out)
	}
	return path, nil
})

// Each runs a subtest on each kind of database, with a server whose configuration file is config.
func Each(t *testing.T, config string, fn func(t *testing.T, s *Server)) {
	t.Helper()
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) { fn(t, New(t, kind, config)) })
	}
}

// New starts a server on a fresh database of the kind. It ends with the test.
func New(t testing.TB, kind, config string) *Server {
	t.Helper()
	s := &Server{t: t, Data: filepath.Join(t.TempDir(), "data")}
	if kind == "postgres" {
		s.Database = metatest.URL(t, kind)
	}
	if config != "" {
		s.Config = filepath.Join(t.TempDir(), "embargo.yaml")
		if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("the server's log ends:\n%s", tail(s.log.String(), 6000))
		}
	})
	s.Start()
	return s
}

// Copy is another server, not started, on the database of the first, with the installation key of the first and a data directory of its own.
func Copy(t testing.TB, first *Server, data string) *Server {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(first.Data, "installation.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "installation.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, Data: data, Database: first.Database}
	t.Cleanup(s.Kill)
	return s
}

// At is a server on a data directory and a database that are there already ("" is SQLite in the directory), not started. It ends with the test.
func At(t testing.TB, data, database, config string) *Server {
	t.Helper()
	s := &Server{t: t, Data: data, Database: database}
	if config != "" {
		s.Config = filepath.Join(t.TempDir(), "embargo.yaml")
		if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("the log of the server on %s ends:\n%s", data, tail(s.log.String(), 6000))
		}
	})
	return s
}

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

// Start starts the process on the data directory and waits until it serves.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.TryStart(); err != nil {
		s.t.Fatal(err)
	}
}

// TryStart is Start with its error.
func (s *Server) TryStart() error {
	// A restart rewrites the file with the new ports.
	before, _ := os.Stat(filepath.Join(s.Data, "credentials.json"))
	if err := s.launch(); err != nil {
		return err
	}
	return s.await(before)
}

// launch starts the process.
func (s *Server) launch() error {
	bin, err := Binary()
	if err != nil {
		return err
	}
	args := []string{"serve", "--data", s.Data, "--listen", cmp.Or(s.Listen, "127.0.0.1:0"), "--proxy-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", cmp.Or(s.LogFormat, "json")}
	if s.Database != "" {
		args = append(args, "--database", s.Database)
	}
	if s.Config != "" {
		args = append(args, "--config", s.Config)
	}
	out, errs, err := s.log.open(s.t)
	if err != nil {
		return err
	}
	s.cmd = exec.Command(bin, args...)
	s.cmd.Stdout, s.cmd.Stderr = out, errs
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = s.cmd.Start()
	_, _ = out.Close(), errs.Close() // the process has its own
	if err != nil {
		return err
	}
	s.done = make(chan struct{})
	cmd, done := s.cmd, s.done
	go func() {
		s.ended = cmd.Wait()
		close(done)
	}()
	return nil
}

// KillAfter starts the process and kills it (SIGKILL) after that time, wherever it is then. That it may not have come far is the point.
func (s *Server) KillAfter(d time.Duration) {
	s.t.Helper()
	if err := s.launch(); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(d):
	}
	s.Kill()
}

// await waits until the server answers on the address that it wrote.
func (s *Server) await(before os.FileInfo) error {
	deadline := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		select {
		case <-s.done:
			s.cmd = nil
			return fmt.Errorf("embargo ended at its start: %w\n%s", s.ended, tail(s.log.String(), 3000))
		case <-tick.C:
		}
		path := filepath.Join(s.Data, "credentials.json")
		st, err := os.Stat(path)
		if err != nil || before != nil && st.ModTime().Equal(before.ModTime()) {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(data, &s.Credentials) != nil {
			continue
		}
		if err := s.connect(); err != nil {
			return err
		}
		if resp, err := s.Client.Get(s.ResourceManager + "/metadata/endpoints?api-version=2015-01-01"); err == nil {
			_ = resp.Body.Close() // only its coming matters
			return nil
		}
	}
	return errors.New("embargo did not serve within 60 s\n" + tail(s.log.String(), 3000))
}

func (s *Server) connect() error {
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", s.CAFile)
	}
	proxy, err := url.Parse(s.Proxy)
	if err != nil {
		return err
	}
	s.Client = &http.Client{
		Timeout: 2 * time.Minute,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: pool},
			MaxIdleConnsPerHost: 64,
			Proxy: func(r *http.Request) (*url.URL, error) {
				// Names of registries are known to the proxy alone; addresses, a private door's too, are reached as they are.
				if strings.HasSuffix(r.URL.Hostname(), s.ACRLoginServerSuffix) {
					return proxy, nil
				}
				return nil, nil
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// Kill ends the process with SIGKILL, as a power cut would end it.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended already
	<-s.done
	s.cmd = nil
}

// PID is the process's id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Pause stops the process where it is (SIGSTOP) until Continue.
func (s *Server) Pause() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue lets a paused process go on.
func (s *Server) Continue() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Stop ends the process with SIGTERM and returns how it ended.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-s.done
	s.cmd = nil
	return s.ended
}

// Exited is closed when the process has ended.
func (s *Server) Exited() <-chan struct{} { return s.done }

// Log is the process's output so far.
func (s *Server) Log() string { return s.log.String() }

// Stderr is what the process has logged so far: its output without what it told on standard output at the start.
func (s *Server) Stderr() string { return read(s.log.err) }

// Run runs the binary's client commands with the arguments given and returns its output and error output.
func (s *Server) Run(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	bin, err := Binary()
	if err != nil {
		return "", "", err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "EMBARGO_CONFIG_DIR="+filepath.Join(filepath.Dir(s.Data), "client"))
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// Token is an ARM token of the first principal.
func (s *Server) Token() string {
	s.t.Helper()
	if s.arm != "" {
		return s.arm
	}
	token, err := s.TokenOf(s.ClientID, s.ClientSecret)
	if err != nil {
		s.t.Fatal(err)
	}
	s.arm = token
	return token
}

// Listening is where the server listens.
func (s *Server) Listening(t testing.TB) (l struct{ Public, Proxy, Admin string }) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Data, "listening.json"))
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Forget drops the token that Token keeps: the next call logs in again.
func (s *Server) Forget() { s.arm = "" }

// TokenOf is an ARM token of a principal.
func (s *Server) TokenOf(id, secret string) (string, error) {
	resp, err := s.Client.PostForm(s.ResourceManager+"/"+s.TenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {s.ResourceManager + "/.default"},
	})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		return "", fmt.Errorf("no token: %s: %s", resp.Status, body)
	}
	return answer.AccessToken, nil
}

// ARM sends an ARM request as the first principal. The path begins at the resource manager; body is marshalled unless it is nil.
func (s *Server) ARM(method, path string, body any) Answer {
	s.t.Helper()
	a, err := s.ARMAs(s.Token(), method, path, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// ARMAs is ARM with another caller's token, and its error.
func (s *Server) ARMAs(token, method, path string, body any) (Answer, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return Answer{}, err
		}
	}
	return s.Do(method, s.ResourceManager+path, data, "Authorization", "Bearer "+token, "Content-Type", "application/json")
}

// Wait follows a long-running operation's Location to its end.
func (s *Server) Wait(a Answer) Answer {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for a.Status == http.StatusAccepted {
		location := a.Header.Get("Location")
		if location == "" {
			s.t.Fatalf("202 without Location: %s", a.Body)
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the operation %s does not end", location)
		}
		time.Sleep(20 * time.Millisecond) // between two polls
		next, err := s.Do(http.MethodGet, location, nil, "Authorization", "Bearer "+s.Token())
		if err != nil {
			s.t.Fatal(err)
		}
		if next.Header.Get("Location") == "" {
			next.Header.Set("Location", location)
		}
		a = next
	}
	return a
}

// FreePort is a loopback address that nobody listens on at the moment.
func FreePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Records are the newest entries of the audit, as the program prints them.
func (s *Server) Records(ctx context.Context) []map[string]any {
	s.t.Helper()
	out, errs, err := s.Run(ctx, "audit", "--data", s.Data, "--output", "json", "--limit", "2000")
	if err != nil {
		s.t.Fatalf("embargo audit: %v: %s", err, errs)
	}
	var all []map[string]any
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		s.t.Fatalf("embargo audit printed no JSON list: %v: %.500s", err, out)
	}
	return all
}

// Recorded waits until the audit has an entry that fits and returns it; completions are recorded soon after the request, not within it.
func (s *Server) Recorded(ctx context.Context, what string, fits func(r map[string]any) bool) map[string]any {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		for _, r := range s.Records(ctx) {
			if fits(r) {
				return r
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s is not on record", what)
		}
	}
}

// Lines reads the log's JSON lines.
func (s *Server) Lines() []map[string]any {
	var all []map[string]any
	scan := bufio.NewScanner(strings.NewReader(s.Log()))
	for scan.Scan() {
		var m map[string]any
		if json.Unmarshal(scan.Bytes(), &m) == nil {
			all = append(all, m)
		}
	}
	return all
}

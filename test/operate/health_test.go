// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// probe reads a page of the administrator's listener.
func probe(t *testing.T, s *instance.Server, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + s.Listening(t).Admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// readyz is what /readyz says: the reasons of the checks, "" for those that pass.
func readyz(t *testing.T, s *instance.Server) (status int, reasons map[string]string) {
	t.Helper()
	status, body := probe(t, s, "/readyz")
	var all struct {
		Ready  bool
		Checks []struct {
			Name, Reason string
			OK           bool
		}
	}
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	reasons = map[string]string{}
	ok := true
	for _, c := range all.Checks {
		reasons[c.Name] = c.Reason
		ok = ok && c.OK
		if c.OK != (c.Reason == "") {
			t.Errorf("the check %s is %v, with the reason %q", c.Name, c.OK, c.Reason)
		}
	}
	if all.Ready != ok || ok != (status == 200) || !ok && status != 503 {
		t.Errorf("%d %s", status, body)
	}
	return status, reasons
}

// sum adds up the samples of a metric whose labels contain all of the texts.
func sum(t *testing.T, s *instance.Server, name string, labels ...string) (total float64) {
	t.Helper()
	status, text := probe(t, s, "/metrics")
	if status != 200 {
		t.Fatalf("/metrics: %d %s", status, text)
	}
	for line := range strings.Lines(text) {
		sample, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if metric, rest, _ := strings.Cut(sample, "{"); metric != name || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		total += v
	}
	return total
}

// reaching waits until the metric, counted from before, has grown by n exactly; requests are counted when they have ended.
func reaching(t *testing.T, s *instance.Server, what string, before, n float64, name string, labels ...string) {
	t.Helper()
	var got float64
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = sum(t, s, name, labels...) - before; got >= n {
			break
		}
	}
	if got != n {
		t.Errorf("%s: %s%v grew by %v, want %v", what, name, labels, got, n)
	}
}

// The metrics count what happens: decisions by route and outcome, requests and bytes by door. Nothing in them was chosen by a client.
func TestMetrics(t *testing.T) {
	config, doors := private(t)
	instance.Each(t, config, func(t *testing.T, s *instance.Server) {
		s.Fill(t.Context())
		inside := doors[instance.Closed]
		layer := []byte(instance.Closed + " layer v1" + strings.Repeat("\x00\x01", 500))
		token, a, err := s.RegistryToken(inside, s.LoginServer(instance.Closed), s.ClientID, s.ClientSecret, "repository:app:pull")
		if err != nil || token == "" {
			t.Fatalf("%v %d %s", err, a.Status, a.Body)
		}
		type counted struct {
			name   string
			labels []string
			n      float64
		}
		for what, c := range map[string]struct {
			do      func() (instance.Answer, error)
			status  int
			metrics []counted
		}{
			"a pull inside": {func() (instance.Answer, error) {
				return s.Do(http.MethodGet, inside+"/v2/app/blobs/"+instance.Digest(layer), nil, "Authorization", "Bearer "+token)
			}, 200, []counted{
				{"embargo_decisions_total", []string{`route="R1"`, `outcome="completed"`}, 1},
				{"embargo_http_requests_total", []string{`door="private/` + instance.Closed + `"`, `side="data"`, `method="GET"`, `status="200"`}, 1},
				{"embargo_http_bytes_total", []string{`door="private/` + instance.Closed + `"`, `direction="sent"`}, float64(len(layer))},
			}},
			"an import by another registry": {func() (instance.Answer, error) {
				return s.Import(instance.Open, instance.J{"resourceId": s.RegistryID(instance.Closed), "sourceImage": "app:v1"}, "stolen:v1"), nil
			}, 400, []counted{{"embargo_decisions_total", []string{`route="R4"`, `outcome="refused"`}, 1}}},
			"words of the client": {func() (instance.Answer, error) {
				return s.Do("CANARY", inside+"/v2/canary/tags/list?canary=canary", nil, "User-Agent", "canary", "X-Ms-Client-Request-Id", "canary")
			}, 405, []counted{{"embargo_http_requests_total", []string{`door="private/` + instance.Closed + `"`, `method="other"`}, 1}}},
		} {
			before := make([]float64, len(c.metrics))
			for i, m := range c.metrics {
				before[i] = sum(t, s, m.name, m.labels...)
			}
			if a, err := c.do(); err != nil || a.Status != c.status {
				t.Errorf("%s: %v %d %s", what, err, a.Status, a.Body)
			}
			for i, m := range c.metrics {
				reaching(t, s, what, before[i], m.n, m.name, m.labels...)
			}
		}
		_, text := probe(t, s, "/metrics")
		if strings.Contains(strings.ToLower(text), "canary") {
			t.Error("a client's words are in the metrics")
		}
		for metric, want := range map[string]float64{`embargo_registries{exports="disabled"}`: 1, `embargo_registries{exports="enabled"}`: 1, `embargo_ready{check="all"}`: 1, "embargo_held": 0, "embargo_panics_total": 0} {
			if !strings.Contains(text, fmt.Sprintf("\n%s %v\n", metric, want)) {
				t.Errorf("%s is not %v", metric, want)
			}
		}
		for _, metric := range []string{"embargo_disk_bytes", "embargo_database_transaction_duration_seconds_count", "embargo_job_duration_seconds_count", "embargo_audit_records_total", "embargo_connections"} {
			if sum(t, s, metric) <= 0 {
				t.Errorf("%s has counted nothing", metric)
			}
		}
	})
}

// The administrator's pages are on their own listener and on no other, and that one is on loopback unless it is said otherwise.
func TestAdminListenerIsApart(t *testing.T) {
	config, doors := private(t)
	s := instance.New(t, "sqlite", config)
	s.CreateRegistry(instance.Closed, nil)
	if status, body := probe(t, s, "/healthz"); status != 200 || !strings.Contains(body, "alive") {
		t.Errorf("/healthz: %d %s", status, body)
	}
	if status, reasons := readyz(t, s); status != 200 || len(reasons) != 8 {
		t.Errorf("/readyz: %d %v", status, reasons)
	}
	for _, base := range []string{s.ResourceManager, "https://" + s.LoginServer(instance.Closed), doors[instance.Closed], s.Proxy} {
		for _, path := range []string{"/metrics", "/readyz", "/healthz", "//metrics", "/v2/../metrics", "/v1/status"} {
			for _, host := range []string{"", s.Listening(t).Admin} {
				r, err := http.NewRequest(http.MethodGet, base+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = host
				resp, err := s.Client.Do(r)
				if err != nil {
					t.Errorf("%s%s: %v", base, path, err)
					continue
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode < 400 || strings.Contains(string(b), "embargo_") || strings.Contains(string(b), `"checks"`) || strings.Contains(string(b), "alive") {
					t.Errorf("%s%s with the host %q: %d %.200s", base, path, host, resp.StatusCode, b)
				}
			}
		}
	}
	if status, _ := probe(t, s, "/v2/"); status != 404 {
		t.Errorf("the administrator's listener serves a registry: %d", status)
	}
	data := t.TempDir()
	out, errs, err := s.Run(t.Context(), "serve", "--data", data, "--listen", "127.0.0.1:0", "--proxy-listen", "off", "--admin-listen", "0.0.0.0:0")
	if err == nil || !strings.Contains(errs, "--admin-listen") || !strings.Contains(errs, "adminAnywhere") {
		t.Errorf("an administrator's listener for everybody: %v %s%s", err, out, errs)
	}
}

// A registry may be called like one of the installation's own doors, and may have several listeners: each serves the registry, and the metrics count them together.
func TestPrivateListenersOfAnyName(t *testing.T) {
	var entries []string
	at := map[string][]string{}
	for _, registry := range []string{"admin", "proxy", "public", "admin"} {
		address := instance.FreePort(t)
		entries, at[registry] = append(entries, entry(address, registry)), append(at[registry], address)
	}
	s := instance.New(t, "sqlite", listeners(entries...))
	for registry, addresses := range at {
		s.CreateRegistry(registry, nil)
		for _, address := range addresses {
			dialIn(t, "127.0.0.1", address) // it is challenged by the registry
		}
		if n := sum(t, s, "embargo_connections", `door="private/`+registry+`"`); n != float64(len(addresses)) {
			t.Errorf("%v connections of %s are counted", n, registry)
		}
	}
	for _, address := range at["admin"] {
		if a, err := s.Do(http.MethodGet, "http://"+address+"/metrics", nil); err != nil || a.Status != 404 {
			t.Errorf("/metrics of the registry admin: %v %d", err, a.Status)
		}
	}
}

// Where one address alone is listened on, the installation is named by it: what the server prints can be reached.
func TestNamedByItsAddress(t *testing.T) {
	s := instance.At(t, t.TempDir()+"/data", "", "")
	s.Listen = "127.0.0.77:0"
	s.Start()
	if !strings.HasPrefix(s.ResourceManager, "https://127.0.0.77:") || s.Token() == "" {
		t.Errorf("the resource manager is %s", s.ResourceManager)
	}
	fails(t, s, "lies in the data directory", "backup", "--data", s.Data, "--to", s.Data+"/backups")
}

// cable is a TCP connection to a database that can be cut and mended.
type cable struct {
	to string
	ln net.Listener

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]bool
}

// lay puts a cable before the database of the URL, and gives its URL at the near end.
func lay(t *testing.T, database string) (*cable, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{to: u.Host, ln: ln, open: map[net.Conn]bool{}}
	go c.accept()
	t.Cleanup(func() {
		_ = ln.Close()
		c.set(true)
	})
	u.Host = ln.Addr().String()
	return c, u.String()
}

func (c *cable) accept() {
	for {
		near, err := c.ln.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", c.to)
		if err != nil || !c.keep(near, far) {
			_ = near.Close()
			continue
		}
		for _, p := range [][2]net.Conn{{near, far}, {far, near}} {
			go func() {
				_, _ = io.Copy(p[0], p[1])
				_, _ = near.Close(), far.Close()
			}()
		}
	}
}

func (c *cable) keep(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.open[conn] = true
	}
	return !c.cut
}

// set cuts the cable, or mends it.
func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	for conn := range c.open {
		if cut {
			_ = conn.Close()
			delete(c.open, conn)
		}
	}
}

// awaiting waits until /readyz shows what is wanted.
func awaiting(t *testing.T, s *instance.Server, what string, fits func(status int, reasons map[string]string) bool) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, reasons := readyz(t, s)
		if fits(status, reasons) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: /readyz stays at %d %v", what, status, reasons)
		}
	}
}

// Without its database the server lives and says what it lacks; it needs no restart when the database is back.
func TestReadinessWithoutDatabase(t *testing.T) {
	if !slices.Contains(metatest.Kinds, "postgres") {
		t.Skip("there is no PostgreSQL here")
	}
	c, database := lay(t, metatest.URL(t, "postgres"))
	s := instance.At(t, t.TempDir()+"/data", database, "")
	s.Start()
	s.CreateRegistry(instance.Open, nil)
	if status, reasons := readyz(t, s); status != 200 {
		t.Fatalf("before: %v", reasons)
	}
	must(t, s, "status", "--data", s.Data)
	c.set(true)
	awaiting(t, s, "cut off", func(status int, reasons map[string]string) bool {
		return status == 503 && reasons["database"] != "" && reasons["disk"] == "" && reasons["server"] == ""
	})
	if status, _ := probe(t, s, "/healthz"); status != 200 {
		t.Errorf("/healthz without a database: %d", status)
	}
	fails(t, s, "not ready", "status", "--data", s.Data)
	if sum(t, s, "embargo_ready", `check="database"`) != 0 {
		t.Error("the metrics say that the database answers")
	}
	c.set(false)
	awaiting(t, s, "mended", func(status int, _ map[string]string) bool { return status == 200 })
	s.Forget()
	if a := s.ARM(http.MethodGet, s.RegistryID(instance.Open)+instance.Version, nil); a.Status != 200 {
		t.Errorf("after it came back: %d %s", a.Status, a.Body)
	}
}

// A disk that is nearly full makes the server unready, with the figures; it goes on serving. The command says the same as the page.
func TestReadinessOfTheDisk(t *testing.T) {
	s := instance.New(t, "sqlite", "minFreeDisk: 1000000000\n")
	status, reasons := readyz(t, s)
	if status != 503 || !strings.Contains(reasons["disk"], "minFreeDisk is 1000000000 MiB") || reasons["database"] != "" {
		t.Errorf("%d %v", status, reasons)
	}
	out, errs, err := s.Run(t.Context(), "status", "--data", s.Data)
	if err == nil || !strings.Contains(out, "NOT READY") || !strings.Contains(out, "free space or enlarge the disk") {
		t.Errorf("status: %v %s%s", err, out, errs)
	}
	out, _, err = s.Run(t.Context(), "status", "--data", s.Data, "--output", "json")
	var st struct {
		Ready     bool
		PID       int
		Listeners []struct{ Door string }
	}
	if jsonErr := json.Unmarshal([]byte(out), &st); err == nil || jsonErr != nil || st.Ready || st.PID == 0 || len(st.Listeners) != 3 {
		t.Errorf("status as JSON: %v, %v: %s", err, jsonErr, out)
	}
	s.CreateRegistry(instance.Open, nil) // it serves nevertheless
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	fails(t, s, "no server runs on", "status", "--data", s.Data)
}

// While a stop waits for a request in flight, the administrator's listener says that the server is stopping.
func TestReadinessWhileStopping(t *testing.T) {
	s := instance.New(t, "sqlite", "")
	s.CreateRegistry(instance.Open, nil)
	a, err := s.OCI(instance.Open, "app", http.MethodPost, "/v2/app/blobs/uploads/", nil)
	if err != nil || a.Status != 202 {
		t.Fatalf("%v %d %s", err, a.Status, a.Body)
	}
	token, _, err := s.RegistryToken("https://"+s.LoginServer(instance.Open), s.LoginServer(instance.Open), s.ClientID, s.ClientSecret, "repository:app:pull,push")
	if err != nil {
		t.Fatal(err)
	}
	body, more := io.Pipe()
	r, err := http.NewRequest(http.MethodPatch, a.Header.Get("Location"), body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/octet-stream")
	answered := make(chan int, 1)
	go func() {
		resp, err := s.Client.Do(r)
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	if _, err := io.WriteString(more, "the first part"); err != nil {
		t.Fatal(err)
	}
	for sum(t, s, "embargo_http_requests_in_flight") < 1 {
		time.Sleep(time.Millisecond)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop() }()
	awaiting(t, s, "stopping", func(status int, reasons map[string]string) bool {
		return status == 503 && reasons["server"] == "it is stopping"
	})
	if _, err := io.WriteString(more, " and the second"); err != nil {
		t.Error(err)
	}
	_ = more.Close()
	if got := <-answered; got != 202 {
		t.Errorf("the upload in flight was answered %d", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

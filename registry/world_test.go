// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/registry"
)

// world is an installation of real parts: database, content on disk, gate, identity, and the protocol behind real listeners.
type world struct {
	t     *testing.T
	db    *meta.DB
	ids   *identity.Service
	ring  *meta.Keyring
	audit *audit.Log
	gate  *egress.Gate
	reg   *registry.Service
	doors *network.Doors
	oci   *oci.Server
	first identity.First

	options registry.Options
	content string // the folder of the objects

	public string // base URL of the public door
	client *http.Client
}

// each runs a test in a world on each kind of database, beside the other tests.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Parallel()
	metatest.EachAlone(t, func(t *testing.T, db *meta.DB) { fn(t, newWorld(t, db)) })
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newWorld makes a world on a database; change may complete the options of the registry.
func newWorld(t *testing.T, db *meta.DB, change ...func(*registry.Options)) *world {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	w := &world{t: t, db: db}
	w.ring = must[*meta.Keyring](t)(meta.NewKeyring(filepath.Join(dir, "key")))
	w.ids = must[*identity.Service](t)(identity.New(ctx, identity.Options{DB: db, Keyring: w.ring}))
	w.first = must[identity.First](t)(w.ids.Bootstrap(ctx))
	w.audit = must[*audit.Log](t)(audit.New(ctx, audit.Options{DB: db, Node: "test"}))
	t.Cleanup(func() {
		if err := w.audit.Close(); err != nil {
			t.Errorf("closing the audit: %v", err)
		}
	})
	w.gate = must[*egress.Gate](t)(egress.New(egress.Options{DB: db, Audit: w.audit}))
	w.content = filepath.Join(dir, "content")
	w.options = registry.Options{DB: db, Gate: w.gate, Audit: w.audit, Identity: w.ids, Keyring: w.ring}
	for _, fn := range change {
		fn(&w.options)
	}
	w.doors = must[*network.Doors](t)(network.NewDoors(nil))
	w.restart()
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}, Timeout: time.Minute}
	t.Cleanup(w.client.CloseIdleConnections)
	w.public = w.open(network.Zone{Kind: network.Public, Door: "public"})
	return w
}

// restart begins the registry anew on what lies on the disk and in the database.
func (w *world) restart() {
	w.t.Helper()
	w.options.Blobs = must[*blob.Store](w.t)(blob.New(context.Background(), blob.Options{DB: w.db, Storage: blob.Storage{Dir: w.content}}))
	w.reg = must[*registry.Service](w.t)(registry.New(w.options))
	w.oci = must[*oci.Server](w.t)(oci.New(oci.Options{DB: w.db, Identity: w.ids, Registry: w.reg, Audit: w.audit, Locate: w.locate}))
}

// ServeHTTP is the protocol of the registry as it runs now.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) { w.oci.ServeHTTP(rw, r) }

// locate: on a private door its registry, on the public one the first label of the host.
func (w *world) locate(r *http.Request) (string, *network.Peer) {
	p := w.doors.Peer(r)
	if p.Kind == network.Private {
		return p.Registry, p
	}
	label, _, _ := strings.Cut(r.Host, ".")
	return label, p
}

// open starts a door and returns its base URL.
func (w *world) open(z network.Zone) string {
	w.t.Helper()
	return "http://" + w.serve(network.DoorOptions{Zone: z}, w)
}

// serve starts a door and returns its address.
func (w *world) serve(o network.DoorOptions, h http.Handler) string {
	w.t.Helper()
	d := must[*network.Door](w.t)(w.doors.Listen(context.Background(), "127.0.0.1:0", o))
	done := make(chan error, 1)
	go func() { done <- d.Serve(h) }()
	w.t.Cleanup(func() {
		w.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			w.t.Errorf("closing a door: %v", err)
		}
		<-done
	})
	return d.Addr().String()
}

// host is a registry as a client reaches it: by a door, under a name, with a user's password.
type host struct {
	w              *world
	base, name     string
	user, password string
	bearer         string
	row            meta.RegistryRow
}

func (w *world) id(registry string) string {
	return "/subscriptions/" + w.first.Subscription + "/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/" + registry
}

func randomHex() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// registry makes a registry with an admin user, and a private door to it.
func (w *world) registry(name string, change ...func(*meta.RegistryRow)) *host {
	w.t.Helper()
	row := meta.RegistryRow{ID: randomHex(), ResourceID: w.id(name), Name: name, LoginServer: name + ".azurecr.localhost", Location: "westus", SKU: "Premium",
		Exports: true, PublicAccess: true, BypassAzureServices: true, AdminEnabled: true, ArmTokens: true}
	for _, c := range change {
		c(&row)
	}
	h := &host{w: w, name: name, row: row}
	err := w.db.Write(context.Background(), func(tx *meta.Tx) error {
		if _, err := tx.PutRegistry(row); err != nil {
			return err
		}
		var err error
		h.password, _, err = w.ids.AdminPasswords(tx, row.ID)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	h.user = name
	h.base = w.open(network.Zone{Kind: network.Private, Door: name, Registry: name})
	return h
}

// change rewrites the registry's row as a PATCH does: commit, then fence.
func (h *host) change(fn func(*meta.RegistryRow)) {
	h.w.t.Helper()
	var epoch int64
	err := h.w.db.Write(context.Background(), func(tx *meta.Tx) error {
		row, err := tx.LockRegistry(h.row.ID)
		if err != nil {
			return err
		}
		fn(&row)
		epoch, err = tx.PutRegistry(row)
		return err
	})
	if err == nil {
		err = h.w.gate.Fence(context.Background(), h.row.ID, epoch)
	}
	if err != nil {
		h.w.t.Fatal(err)
	}
}

// at is the same registry by the public door.
func (h *host) publicly() *host {
	p := *h
	p.base = h.w.public
	return &p
}

// as is the same door with a bearer token; "" is nobody.
func (h *host) as(token string) *host {
	p := *h
	p.bearer, p.user = token, ""
	return &p
}

// answer is a response that was read whole.
type answer struct {
	status int
	http.Header
	body []byte
}

func (a answer) code() string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(a.body, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Code
}

// request makes a request to a path, or to an absolute Location.
func (h *host) request(method, path string, body io.Reader, header ...string) *http.Request {
	h.w.t.Helper()
	at := path
	if strings.HasPrefix(path, "/") {
		at = h.base + path
	}
	r, err := http.NewRequest(method, at, body)
	if err != nil {
		h.w.t.Fatal(err)
	}
	if h.base == h.w.public {
		r.Host = h.name + ".azurecr.localhost"
		if !strings.HasPrefix(path, "/") {
			// A Location names the host that the client used; the door is reached by address here.
			r.URL.Host = strings.TrimPrefix(h.base, "http://")
		}
	}
	switch {
	case h.bearer != "":
		r.Header.Set("Authorization", "Bearer "+h.bearer)
	case h.user != "":
		r.SetBasicAuth(h.user, h.password)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func (h *host) send(r *http.Request) answer {
	h.w.t.Helper()
	resp, err := h.w.client.Do(r)
	if err != nil {
		h.w.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.w.t.Fatalf("%s %s: reading the body: %v", r.Method, r.URL, err)
	}
	return answer{resp.StatusCode, resp.Header, b}
}

// do sends and checks the status.
func (h *host) do(status int, method, path string, body []byte, header ...string) answer {
	h.w.t.Helper()
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	a := h.send(h.request(method, path, r, header...))
	if a.status != status {
		h.w.t.Fatalf("%s %s: %d, want %d: %.400s", method, path, a.status, status, a.body)
	}
	return a
}

const (
	mediaImage  = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex  = "application/vnd.oci.image.index.v1+json"
	mediaConfig = "application/vnd.oci.image.config.v1+json"
	mediaLayer  = "application/vnd.oci.image.layer.v1.tar"
)

func (h *host) blob(repo string, content []byte) name.Digest {
	h.w.t.Helper()
	d := name.DigestOf(content)
	h.do(http.StatusCreated, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), content)
	return d
}

func descriptor(media string, content []byte) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, media, name.DigestOf(content), len(content))
}

// imageOf is an image manifest; more is further members, beginning with a comma.
func imageOf(more string, config []byte, layers ...[]byte) []byte {
	var list []string
	for _, l := range layers {
		list = append(list, descriptor(mediaLayer, l))
	}
	return []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s}`, mediaImage, descriptor(mediaConfig, config), strings.Join(list, ","), more))
}

func indexOf(images ...[]byte) []byte {
	var list []string
	for _, i := range images {
		list = append(list, descriptor(mediaImage, i))
	}
	return []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, mediaIndex, strings.Join(list, ",")))
}

// image pushes an image of one layer under a reference (a tag, or "" for its digest) and returns the manifest.
func (h *host) image(repo, ref, seed string) []byte {
	h.w.t.Helper()
	config, layer := []byte(`{"seed":"`+seed+`"}`), []byte("layer of "+seed)
	h.blob(repo, config)
	h.blob(repo, layer)
	m := imageOf("", config, layer)
	h.manifest(repo, ref, mediaImage, m)
	return m
}

func (h *host) manifest(repo, ref, media string, content []byte) answer {
	h.w.t.Helper()
	if ref == "" {
		ref = string(name.DigestOf(content))
	}
	return h.do(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/"+ref, content, "Content-Type", media)
}

// records reads what the audit has of a registry, everything noted so far included.
func (w *world) records(registry string, keep func(audit.Record) bool) []audit.Record {
	w.t.Helper()
	// Decisions and notes are written in the order they came: when this one is durable, all before it are.
	if err := w.audit.Decide(context.Background(), audit.Record{Kind: audit.Security, Action: "test/flush", Outcome: audit.Allowed, Registry: "flush"}); err != nil {
		w.t.Fatal(err)
	}
	entries, err := w.audit.Read(context.Background(), audit.Query{Registry: registry, Limit: 10000})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []audit.Record
	for _, e := range entries {
		if keep == nil || keep(e.Record) {
			out = append(out, e.Record)
		}
	}
	return out
}

// runJobs runs a runner until the test ends.
func (w *world) runJobs() {
	w.t.Helper()
	r := must[*job.Runner](w.t)(job.New(job.Options{DB: w.db, Node: "test"}))
	w.reg.Handle(r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the runner: %v", err)
		}
	})
}

// ended waits until a job has ended.
func (w *world) ended(id string) job.State {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		var st job.State
		err := w.db.Read(context.Background(), func(tx *meta.Tx) (err error) {
			st, err = job.Get(tx, id)
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if st.Status.Final() {
			return st
		}
		select {
		case <-tick.C:
		case <-limit:
			w.t.Fatalf("the job %s is %s after a minute", id, st.Status)
		}
	}
}

// drop deletes a registry as its provider does.
func (w *world) drop(h *host) {
	w.t.Helper()
	err := w.db.Write(context.Background(), func(tx *meta.Tx) error {
		if err := tx.DeleteRegistry(h.row.ID); err != nil {
			return err
		}
		return registry.Drop(tx, h.row.ID)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// count is the number of rows of a table.
func (w *world) count(table string) int {
	w.t.Helper()
	var n int
	err := w.db.Read(context.Background(), func(tx *meta.Tx) error { return tx.Row(`SELECT COUNT(*) FROM ` + table).Scan(&n) })
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// tokenOf asks the registry for an access token as the host's user.
func (w *world) tokenOf(h *host, scopes ...string) string {
	w.t.Helper()
	form := url.Values{"grant_type": {"password"}, "username": {h.user}, "password": {h.password}, "service": {h.row.LoginServer}, "scope": scopes}
	return h.post(200, "/oauth2/token", form)["access_token"].(string)
}

// post sends a form and reads the JSON of the answer.
func (h *host) post(status int, path string, form url.Values) map[string]any {
	h.w.t.Helper()
	a := h.as("").do(status, "POST", path, []byte(form.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	var out map[string]any
	if err := json.Unmarshal(a.body, &out); err != nil {
		h.w.t.Fatalf("%s: %v: %s", path, err, a.body)
	}
	return out
}

// principal makes a service principal and gives it roles at a scope.
func (w *world) principal(label, scope string, roles ...string) (identity.Principal, string) {
	w.t.Helper()
	var p identity.Principal
	var secret string
	err := w.db.Write(context.Background(), func(tx *meta.Tx) error {
		var err error
		if p, secret, err = w.ids.CreatePrincipal(tx, identity.ServicePrincipal, label, ""); err != nil {
			return err
		}
		at, err := name.ParseResourceID(scope)
		if err != nil {
			return err
		}
		for _, role := range roles {
			id, err := w.ids.NewID()
			if err != nil {
				return err
			}
			if err := w.ids.PutAssignment(tx, identity.Assignment{ID: id, Scope: at, Principal: p.ID, PrincipalType: p.Type, Role: role}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p, secret
}

// caller is a principal as a job carries it.
func (w *world) caller(p identity.Principal) identity.Caller {
	return identity.Caller{ID: p.ID, Name: p.Name, Type: p.Type, AppID: p.AppID, Tenant: w.first.Tenant}
}

// eventually waits until something is so.
func (w *world) eventually(what string, so func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("it never came to this: %s", what)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bufio"
	"bytes"
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

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
)

// installation is a server process with its data directory and its database, which outlive it.
type installation struct {
	binary, data, database string
	public, private        string // addresses, the same at each start

	process *exec.Cmd
	output  *tail
	exited  chan struct{}

	client         *http.Client
	user, password string
}

const registry = "crashregistry"

func install(t *testing.T, binary, database string) *installation {
	t.Helper()
	in := &installation{binary: binary, data: t.TempDir(), database: database, public: freeAddress(t), private: freeAddress(t)}
	in.start(t)
	t.Cleanup(func() {
		if in.process != nil {
			in.kill(t)
		}
	})
	in.makeRegistry(t)
	return in
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the server and waits until it listens.
func (in *installation) start(t *testing.T) {
	t.Helper()
	in.process = exec.Command(in.binary, "serve", "--data", in.data, "--database", in.database, "--listen", in.public, "--proxy-listen", "off", "--admin-listen", "off", "--log-level", "warn")
	in.process.Env = append(os.Environ(), fmt.Sprintf(`EMBARGO_PRIVATE_LISTENERS=[{"address":%q,"registry":%q,"tls":false}]`, in.private, registry))
	in.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in.output = &tail{}
	in.process.Stderr = in.output
	out, err := in.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := in.process.Start(); err != nil {
		t.Fatal(err)
	}
	in.exited = make(chan struct{})
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "Resource manager") {
				select {
				case ready <- true:
				default:
				}
			}
		}
		_ = in.process.Wait()
		close(in.exited)
	}()
	select {
	case <-ready:
	case <-in.exited:
		t.Fatalf("the server did not start:\n%s", in.output)
	case <-time.After(time.Minute):
		t.Fatalf("the server is not there after a minute:\n%s", in.output)
	}
	in.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * writers}, Timeout: time.Minute}
}

func (in *installation) kill(t *testing.T) {
	t.Helper()
	if err := in.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	in.gone(t)
}

func (in *installation) stop(t *testing.T) {
	t.Helper()
	if err := in.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	process := in.process
	in.gone(t)
	if code := process.ProcessState.ExitCode(); code != 0 {
		t.Errorf("SIGTERM: the server ended with %d:\n%s", code, in.output)
	}
}

func (in *installation) gone(t *testing.T) {
	t.Helper()
	<-in.exited
	in.process = nil
	in.client.CloseIdleConnections()
}

// makeRegistry makes a registry with an admin user through ARM, as a client does.
func (in *installation) makeRegistry(t *testing.T) {
	t.Helper()
	var c struct{ CAFile, TenantID, SubscriptionID, ClientID, ClientSecret, ResourceManager, ActiveDirectory string }
	b, err := os.ReadFile(filepath.Join(in.data, "credentials.json"))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, in.public)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: dial}, Timeout: time.Minute}
	defer client.CloseIdleConnections()

	token := ""
	call := func(method, url, contentType, body string, into any) {
		t.Helper()
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", method, url, err, in.output)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s %v\n%s\n%s", method, url, resp.Status, err, text, in.output)
		}
		if into != nil {
			if err := json.Unmarshal(text, into); err != nil {
				t.Fatalf("%s %s: %v\n%s", method, url, err, text)
			}
		}
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.ClientID}, "client_secret": {c.ClientSecret}, "scope": {c.ResourceManager + "//.default"}}
	var answer struct {
		Token string `json:"access_token"`
	}
	call("POST", c.ActiveDirectory+"/oauth2/token", "application/x-www-form-urlencoded", form.Encode(), &answer)
	token = answer.Token
	group := c.ResourceManager + "/subscriptions/" + c.SubscriptionID + "/resourceGroups/crash"
	call("PUT", group+"?api-version=2021-04-01", "application/json", `{"location":"westus"}`, nil)
	id := group + "/providers/Microsoft.ContainerRegistry/registries/" + registry
	call("PUT", id+"?api-version=2023-07-01", "application/json", `{"location":"westus","sku":{"name":"Premium"},"properties":{"adminUserEnabled":true}}`, nil)
	var admin struct {
		Username  string
		Passwords []struct{ Value string }
	}
	call("POST", id+"/listCredentials?api-version=2023-07-01", "application/json", "", &admin)
	if len(admin.Passwords) == 0 {
		t.Fatal("the registry has no admin password")
	}
	in.user, in.password = admin.Username, admin.Passwords[0].Value
}

// dangling reads the database of the stopped server and checks that no row leads nowhere, and that every object that a row names is on disk.
func (in *installation) dangling(t *testing.T) {
	t.Helper()
	db, err := meta.Open(context.Background(), meta.Options{URL: in.database, Dial: metatest.Dial})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	missing, objects := 0, 0
	err = db.Read(context.Background(), func(tx *meta.Tx) error {
		for what, query := range map[string]string{
			"tags without a manifest":        `SELECT COUNT(*) FROM tags t LEFT JOIN manifests m ON m.repository = t.repository AND m.digest = t.digest WHERE m.digest IS NULL`,
			"manifests without content":      `SELECT COUNT(*) FROM manifests m LEFT JOIN blobs b ON b.digest = m.digest WHERE b.digest IS NULL`,
			"links without content":          `SELECT COUNT(*) FROM blob_links l LEFT JOIN blobs b ON b.digest = l.digest WHERE b.digest IS NULL`,
			"manifests of no repository":     `SELECT COUNT(*) FROM manifests m LEFT JOIN repositories r ON r.id = m.repository WHERE r.id IS NULL`,
			"references to absent blobs":     `SELECT COUNT(*) FROM manifest_refs f LEFT JOIN blob_links l ON l.repository = f.repository AND l.digest = f.child WHERE f.kind <> 'manifest' AND l.digest IS NULL`,
			"references to absent manifests": `SELECT COUNT(*) FROM manifest_refs f LEFT JOIN manifests m ON m.repository = f.repository AND m.digest = f.child WHERE f.kind = 'manifest' AND m.digest IS NULL`,
		} {
			var n int
			if err := tx.Row(query).Scan(&n); err != nil {
				return err
			}
			if n > 0 {
				t.Errorf("%d %s", n, what)
			}
		}
		rows, err := tx.Query(`SELECT object_key, size FROM blobs`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var key string
			var size int64
			if err := rows.Scan(&key, &size); err != nil {
				return err
			}
			objects++
			if st, err := os.Stat(filepath.Join(in.data, "blobs", key[:2], key)); err != nil || st.Size() != size {
				missing++
			}
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if missing > 0 || objects == 0 {
		t.Errorf("%d of %d objects are missing or of another size than their rows say", missing, objects)
	}
}

// tail keeps the end of what a process wrote.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *tail) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if extra := o.text.Len() - 16<<10; extra > 0 {
		o.text.Next(extra)
	}
	return len(p), nil
}

func (o *tail) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

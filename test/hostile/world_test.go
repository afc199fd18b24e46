// SPDX-License-Identifier: Apache-2.0

// Package hostile sends the built binary what no honest client sends, and checks that each request has the answer that docs/clients.md says, that memory stays
// bounded, and that the server serves others as before. Slow headers, slow bodies and limits of connections are tested in test/operate and server.
package hostile

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

const registryName = "hostileone"

// world is a server with a plain private door, so that each byte of a request can be chosen.
type world struct {
	*instance.Server
	t    *testing.T
	door string
	auth string
}

// each runs a subtest on each kind of database and checks at its end that the server is well.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	for _, kind := range metatest.Kinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, kind)
			fn(t, w)
			w.well()
		})
	}
}

func newWorld(t *testing.T, kind string) *world {
	t.Helper()
	door := instance.FreePort(t)
	s := instance.New(t, kind, "privateListeners:\n  - address: "+door+"\n    registry: "+registryName+"\n    tls: false\n")
	w := &world{Server: s, t: t, door: door}
	s.CreateRegistry(registryName, nil)
	w.login("repository:app:pull,push,delete", "repository:other:pull,push,delete", "registry:catalog:*")
	return w
}

// login takes a token of the first principal for the scopes.
func (w *world) login(scopes ...string) {
	w.t.Helper()
	token, a, err := w.RegistryToken("http://"+w.door, w.LoginServer(registryName), w.ClientID, w.ClientSecret, scopes...)
	if err != nil || token == "" {
		w.t.Fatalf("a token for %v: %v %d %s", scopes, err, a.Status, a.Body)
	}
	w.auth = "Bearer " + token
}

// send is a request through an HTTP client on the plain door.
func (w *world) send(method, path string, body []byte, headers ...string) instance.Answer {
	w.t.Helper()
	a, err := w.Do(method, "http://"+w.door+path, body, append([]string{"Authorization", w.auth}, headers...)...)
	if err != nil {
		w.t.Fatalf("%s %.100s: %v", method, path, err)
	}
	return a
}

// want checks the status and, of an error, the code of the distribution protocol.
func want(t *testing.T, what string, a instance.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || codeOf(a.Body) != code {
		t.Errorf("%s: %d %s, want %d %s: %.300s", what, a.Status, codeOf(a.Body), status, code, a.Body)
	}
}

// codeOf is the code of an answer's first error, "" when it has none.
func codeOf(body []byte) string {
	var e struct{ Errors []struct{ Code string } }
	if json.Unmarshal(body, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Code
}

// blob pushes content into a repository.
func (w *world) blob(repo string, content []byte) string {
	w.t.Helper()
	d := instance.Digest(content)
	if a := w.send(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+d, content, "Content-Type", "application/octet-stream"); a.Status != 201 {
		w.t.Fatalf("pushing a blob: %d %s", a.Status, a.Body)
	}
	return d
}

// image is an image manifest of a config and of layers that app holds.
func (w *world) image(repo, annotation string) []byte {
	w.t.Helper()
	w.blob(repo, []byte("{}"))
	b, err := json.Marshal(instance.J{"schemaVersion": 2, "mediaType": instance.ManifestType, "config": descriptor("application/vnd.oci.empty.v1+json", []byte("{}")),
		"layers": []instance.J{}, "annotations": instance.J{"a": annotation}})
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func descriptor(mediaType string, content []byte) instance.J {
	return instance.J{"mediaType": mediaType, "digest": instance.Digest(content), "size": len(content)}
}

func (w *world) begin() string {
	w.t.Helper()
	a := w.send(http.MethodPost, "/v2/app/blobs/uploads/", nil)
	if a.Status != 202 {
		w.t.Fatalf("beginning an upload: %d %s", a.Status, a.Body)
	}
	return strings.TrimPrefix(a.Header.Get("Location"), "http://"+w.door)
}

// well checks that the server serves others as if nothing had been: a push, a pull, no panic and no error of its own in the log.
func (w *world) well() {
	w.t.Helper()
	w.login("repository:app:pull,push,delete")
	m := w.image("app", "well")
	want(w.t, "a push afterwards", w.send(http.MethodPut, "/v2/app/manifests/well", m, "Content-Type", instance.ManifestType), 201, "")
	if a := w.send(http.MethodGet, "/v2/app/manifests/well", nil); !bytes.Equal(a.Body, m) {
		w.t.Errorf("a pull afterwards: %d %.200s", a.Status, a.Body)
	}
	for _, l := range w.Lines() {
		if status, _ := l["status"].(float64); status >= 500 || l["msg"] == "panic" {
			w.t.Errorf("in the log: %v", l)
		}
	}
}

// proc reads a figure of the process's /proc/PID/status, in bytes.
func (w *world) proc(field string) int64 {
	w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID()))
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), field+":")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	return kib << 10
}

// bounded runs fn and checks the most memory that the server's process had meanwhile.
func (w *world) bounded(most int64, fn func()) {
	w.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", w.PID()), []byte("5"), 0); err != nil {
		w.t.Fatal(err)
	}
	before := w.proc("VmRSS")
	fn()
	peak := w.proc("VmHWM")
	w.t.Logf("memory: %d MiB before, %d MiB at the most", before>>20, peak>>20)
	if peak > most {
		w.t.Errorf("the server took %d MiB of memory; at most %d MiB are expected", peak>>20, most>>20)
	}
}

// raw sends bytes as they are on a plain connection of its own and reads every answer until the server closes it.
func (w *world) raw(text string) []instance.Answer {
	w.t.Helper()
	c, err := net.Dial("tcp", w.door)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	return w.exchange(c, text)
}

// secret is raw on a TLS connection to the public door, under the registry's name.
func (w *world) secret(text string) []instance.Answer {
	w.t.Helper()
	pem, err := os.ReadFile(w.CAFile)
	if err != nil {
		w.t.Error(err)
		return nil
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c, err := tls.Dial("tcp", w.Listening(w.t).Public, &tls.Config{RootCAs: roots, ServerName: w.LoginServer(registryName)})
	if err != nil {
		w.t.Error(err)
		return nil
	}
	return w.exchange(c, text)
}

func (w *world) exchange(c net.Conn, text string) (answers []instance.Answer) {
	w.t.Helper()
	defer func() { _ = c.Close() }()
	go func() { _, _ = io.WriteString(c, text) }() // the server may close before the end
	r := bufio.NewReader(c)
	method, _, _ := strings.Cut(text, " ")
	for {
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		var late net.Error
		switch {
		case errors.As(err, &late) && late.Timeout():
			w.t.Errorf("the connection is still open after %d answers to %.200q", len(answers), text)
			return answers
		case err != nil:
			return answers
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			w.t.Errorf("an answer that breaks off: %v", err)
			return answers
		}
		_ = resp.Body.Close()
		answers = append(answers, instance.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body})
	}
}

// statuses are those of the answers.
func statuses(answers []instance.Answer) (all []int) {
	for _, a := range answers {
		all = append(all, a.Status)
	}
	return all
}

// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// bareEnv makes the test's binary the bare server of an address, on a database, with the content of the one manifest in a file.
const bareEnv = "EMBARGO_BENCH_BARE"

func TestMain(m *testing.M) {
	if address, rest, is := strings.Cut(os.Getenv(bareEnv), " "); is {
		database, content, _ := strings.Cut(rest, " ")
		panic(serveBare(address, database, content))
	}
	os.Exit(m.Run())
}

// serveBare answers a manifest by its tag as the registry does, from the same rows and with the same memory of what was read, for whoever asks: without names, networks, tokens, rights,
// locks, decisions, records, metrics and a log.
func serveBare(address, database, content string) error {
	db, err := meta.Open(context.Background(), meta.Options{URL: "sqlite:" + database, Alone: true})
	if err != nil {
		return err
	}
	body, err := os.ReadFile(content)
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		repository, tag, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
		var digest, media string
		err := db.Read(r.Context(), func(tx *meta.Tx) error {
			return tx.Row(`SELECT m.digest, m.media_type FROM repositories r JOIN tags t ON t.repository = r.id JOIN manifests m ON m.repository = r.id AND m.digest = t.digest
 WHERE r.name = $1 AND t.name = $2`, repository, tag).Scan(&digest, &media)
		})
		switch {
		case errors.Is(err, meta.ErrNotFound):
			w.WriteHeader(http.StatusNotFound)
			return
		case err != nil:
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", media)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		h.Set("Docker-Content-Digest", digest)
		h.Set("Docker-Distribution-Api-Version", "registry/2.0")
		h.Set("Etag", `"`+digest+`"`)
		_, _ = w.Write(body) // the client has gone if it fails
	}))
}

// bare starts the bare server on a copy of the database of a server, which is stopped for the copy.
func bare(b *testing.B, s *instance.Server, manifest []byte) way {
	b.Helper()
	dir, address := b.TempDir(), instance.FreePort(b)
	database, content := filepath.Join(dir, "embargo.db"), filepath.Join(dir, "manifest")
	if err := s.Stop(); err != nil {
		b.Fatal(err)
	}
	rows, err := os.ReadFile(filepath.Join(s.Data, "embargo.db"))
	if err := errors.Join(err, os.WriteFile(database, rows, 0o600), os.WriteFile(content, manifest, 0o600)); err != nil {
		b.Fatal(err)
	}
	s.Start()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), bareEnv+"="+address+" "+database+" "+content)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	w := way{pid: cmd.Process.Pid, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}, url: "http://" + address + "/v2/app/manifests/v1"}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err := w.get(); err == nil {
			return w
		} else if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

// BenchmarkBare is what names, networks, tokens, rights, decisions and records together cost: a manifest's GET by tag by 16 clients, of a handler that only reads and writes the same, and of
// the server, in pairs of rounds as in BenchmarkNetworks.
func BenchmarkBare(b *testing.B) {
	for _, mode := range []string{"strict", "available"} {
		b.Run(mode, func(b *testing.B) {
			door := instance.FreePort(b)
			s := instance.New(b, "sqlite", "auditMode: "+mode+"\nprivateListeners:\n  - address: "+door+"\n    registry: "+registryName+"\n    tls: false\n")
			s.CreateRegistry(registryName, nil)
			if _, err := s.PushImage(registryName, "app", "v1", []byte("cargo")); err != nil {
				b.Fatal(err)
			}
			a, err := s.OCI(registryName, "app", http.MethodGet, "/v2/app/manifests/v1", nil, "Accept", instance.ManifestType)
			one := bare(b, s, must(b, a, err, http.StatusOK).Body)
			paired(b, one, newWay(b, s, "http://"+door, nil))
		})
	}
}

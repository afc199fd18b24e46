// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/meta/metatest"
	"github.com/embargo-registry/embargo/test/instance"
)

// installation is a server whose data directory and database outlive it, with one registry behind a private listener.
type installation struct {
	*instance.Server
	private string // its address, the same at each start

	client         *http.Client
	user, password string
}

const registry = "crashregistry"

func install(t *testing.T, kind string) *installation {
	t.Helper()
	in := newInstallation(t)
	in.Server = instance.New(t, kind, in.config())
	in.prepare(t)
	return in
}

func newInstallation(t *testing.T) *installation {
	return &installation{private: instance.FreePort(t), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * writers}, Timeout: time.Minute}}
}

// config collects all the time, and keeps what is unused for longer than a test takes.
func (in *installation) config() string {
	return fmt.Sprintf("logLevel: warn\ngcInterval: 1s\ngcGrace: 1h\nprivateListeners: [{address: %q, registry: %q, tls: false}]\n", in.private, registry)
}

// prepare makes the registry.
func (in *installation) prepare(t *testing.T) {
	t.Helper()
	in.CreateRegistry(registry, instance.J{"adminUserEnabled": true})
	a := in.ARM(http.MethodPost, in.RegistryID(registry)+"/listCredentials"+instance.Version, nil)
	var admin struct {
		Username  string
		Passwords []struct{ Value string }
	}
	if err := json.Unmarshal(a.Body, &admin); err != nil || len(admin.Passwords) == 0 {
		t.Fatalf("the registry has no admin password: %d %s", a.Status, a.Body)
	}
	in.user, in.password = admin.Username, admin.Passwords[0].Value
}

// dangling reads the database of the stopped server and checks that no row leads nowhere, and that every object that a row names is on disk.
func (in *installation) dangling(t *testing.T) {
	t.Helper()
	url := in.Database
	if url == "" {
		url = "sqlite:" + filepath.Join(in.Data, "embargo.db")
	}
	db, err := meta.Open(context.Background(), meta.Options{URL: url, Dial: metatest.Dial})
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
			if st, err := os.Stat(filepath.Join(in.Data, "blobs", key[:2], key)); err != nil || st.Size() != size {
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

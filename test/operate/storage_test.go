// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/blob/blobtest"
	"github.com/embargo-registry/embargo/test/instance"
)

// keyFile writes the key of a storage into a file.
func keyFile(t *testing.T, place blobtest.Place) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "storage.key")
	if err := os.WriteFile(path, []byte(place.Key), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// onStorage is the configuration of a server whose content is in the storage.
func onStorage(t *testing.T, place blobtest.Place) string {
	return fmt.Sprintf("storage: %q\nstorageKeyFile: %q\n", place.URL, keyFile(t, place))
}

// eachStorage runs a test on each object storage, behind a valve.
func eachStorage(t *testing.T, fn func(t *testing.T, v *blobtest.Valve, place blobtest.Place)) {
	for _, kind := range blobtest.Kinds[1:] {
		t.Run(kind, func(t *testing.T) {
			v, place := blobtest.Behind(t, blobtest.Open(t, kind))
			fn(t, v, place)
		})
	}
}

// pulled compares a blob that is pulled with what was pushed.
func pulled(t *testing.T, s *instance.Server, repository string, content []byte) {
	t.Helper()
	a, err := s.OCI(instance.Open, repository, http.MethodGet, "/v2/"+repository+"/blobs/"+instance.Digest(content), nil)
	if err != nil || a.Status != http.StatusOK || !bytes.Equal(a.Body, content) {
		t.Errorf("pulling %d bytes: %v, %d, %d bytes", len(content), err, a.Status, len(a.Body))
	}
}

// chunk sends a part of an upload, or its end, and returns the next address.
func chunk(t *testing.T, s *instance.Server, method, at string, content []byte, want int) string {
	t.Helper()
	a, err := s.OCI(instance.Open, "app", method, at, content, "Content-Type", "application/octet-stream")
	if err != nil || a.Status != want {
		t.Fatalf("%s of %d bytes: %v, %d, want %d: %.300s", method, len(content), err, a.Status, want, a.Body)
	}
	return path(t, a)
}

// path is an answer's Location without the server, whose port a restart changes.
func path(t *testing.T, a instance.Answer) string {
	t.Helper()
	u, err := url.Parse(a.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return u.RequestURI()
}

// Content on an object storage is pushed whole and in chunks across a kill, pulled, in ranges too, collected, and there after a restart.
func TestObjectStorage(t *testing.T) {
	eachStorage(t, func(t *testing.T, _ *blobtest.Valve, place blobtest.Place) {
		s := instance.New(t, "sqlite", "gcGrace: 1ms\n"+onStorage(t, place))
		s.CreateRegistry(instance.Open, nil)
		layer, chunked := bytes.Repeat([]byte("a layer pushed whole. "), 1<<19), bytes.Repeat([]byte("a layer pushed in chunks. "), 1<<20)
		manifest, err := s.PushImage(instance.Open, "app", "v1", layer)
		if err != nil {
			t.Fatal(err)
		}
		at := chunk(t, s, http.MethodPost, "/v2/app/blobs/uploads/", nil, http.StatusAccepted)
		at = chunk(t, s, http.MethodPatch, at, chunked[:9<<20], http.StatusAccepted)
		s.Kill()
		s.Start()
		at = chunk(t, s, http.MethodPatch, at, chunked[9<<20:12<<20], http.StatusAccepted)
		chunk(t, s, http.MethodPut, at+"?digest="+instance.Digest(chunked), chunked[12<<20:], http.StatusCreated)
		pulled(t, s, "app", layer)
		pulled(t, s, "app", chunked)
		if _, err := s.PushImage(instance.Open, "app", "v2", chunked); err != nil { // pushed twice, kept once
			t.Fatal(err)
		}
		a, err := s.OCI(instance.Open, "app", http.MethodGet, "/v2/app/blobs/"+instance.Digest(chunked), nil, "Range", "bytes=8388600-8388615")
		if err != nil || a.Status != http.StatusPartialContent || !bytes.Equal(a.Body, chunked[8388600:8388616]) {
			t.Errorf("a range: %v %d %q", err, a.Status, a.Body)
		}
		if out := must(t, s, "status", "--data", s.Data); !strings.Contains(out, "Storage") {
			t.Errorf("status does not name the storage: %s", out)
		}
		if status, reasons := readyz(t, s); status != 200 || len(reasons) != 9 || reasons["storage"] != "" {
			t.Errorf("/readyz: %d %v", status, reasons)
		}
		if a, err := s.OCI(instance.Open, "app", http.MethodDelete, "/v2/app/manifests/"+instance.Digest(manifest), nil); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("%v %d %s", err, a.Status, a.Body)
		}
		before, removed := blobtest.Count(t, place.Storage), ""
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && blobtest.Count(t, place.Storage) > 3; {
			removed += must(t, s, "gc", "--data", s.Data)
		}
		if n := blobtest.Count(t, place.Storage); n != 3 {
			t.Errorf("%d of %d objects stay after manifest and layer went:\n%s", n, before, removed)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		s.Start()
		pulled(t, s, "app", chunked)
		if out := must(t, s, "scrub", "--data", s.Data); !strings.Contains(out, "none is damaged") {
			t.Error(out)
		}
		for _, secret := range strings.Fields(place.Key) {
			if len(secret) > 20 && strings.Contains(s.Log(), secret) {
				t.Error("the key of the storage is in the log")
			}
		}
	})
}

// While the storage is away the server says so and loses nothing.
func TestObjectStorageAway(t *testing.T) {
	eachStorage(t, func(t *testing.T, v *blobtest.Valve, place blobtest.Place) {
		s := instance.New(t, "sqlite", onStorage(t, place))
		s.CreateRegistry(instance.Open, nil)
		layer := bytes.Repeat([]byte("a layer. "), 1<<17)
		if err := s.PushBlob(instance.Open, "app", layer); err != nil {
			t.Fatal(err)
		}
		v.Shut()
		if err := s.PushBlob(instance.Open, "app", []byte("another")); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("a push while the storage is away: %v", err)
		}
		if a, err := s.OCI(instance.Open, "app", http.MethodGet, "/v2/app/blobs/"+instance.Digest(layer), nil); err != nil || a.Status != http.StatusServiceUnavailable {
			t.Errorf("a pull while the storage is away: %v %d", err, a.Status)
		}
		if status, reasons := readyz(t, s); status != 503 || !strings.Contains(reasons["storage"], "does not answer") {
			t.Errorf("/readyz while the storage is away: %d %v", status, reasons)
		}
		v.Open(0)
		pulled(t, s, "app", layer)
	})
}

// A server does not start with a storage that it can't use, or that its content is not in; it says what to do.
func TestStorageRefused(t *testing.T) {
	eachStorage(t, func(t *testing.T, _ *blobtest.Valve, place blobtest.Place) {
		s := instance.New(t, "sqlite", onStorage(t, place))
		s.CreateRegistry(instance.Open, nil)
		if err := s.PushBlob(instance.Open, "app", []byte("content")); err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		wrong, missing := place, place
		wrong.Key = strings.Replace(place.Key, place.Key[len(place.Key)-9:], "AAAAAAA=\n", 1)
		if strings.Contains(place.Key, "embargo") {
			wrong.Key = "embargo wrong"
		}
		scheme, rest, _ := strings.Cut(place.URL, "://")
		_, rest, _ = strings.Cut(rest, "/")
		missing.URL = scheme + "://nosuchplace/" + rest
		open := onStorage(t, place)
		readable := keyFile(t, place)
		if err := os.Chmod(readable, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ data, config, says string }{
			{s.Data, "", "the content of this installation is in the "},
			{"", open, "belongs to another installation"},
			{"", onStorage(t, wrong), "no object could be written in the "},
			{"", onStorage(t, missing), "no object could be written in the "},
			{"", fmt.Sprintf("storage: %q\nstorageKeyFile: %q\n", place.URL, readable), "run chmod 600 on it"},
			{"", fmt.Sprintf("storage: %q\n", place.URL), "name the file that holds it"},
			{"", "storage: s3://b?endpoint=http://storage.example\n", "in the clear to storage.example"},
		} {
			if c.data == "" {
				c.data = filepath.Join(t.TempDir(), "data")
			}
			refused := instance.At(t, c.data, "", c.config)
			if err := refused.TryStart(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.says, err)
			}
		}
	})
}

// A backup of content on one storage is restored to another one, and to a folder.
func TestBackupOfObjectStorage(t *testing.T) {
	eachStorage(t, func(t *testing.T, _ *blobtest.Valve, place blobtest.Place) {
		s := instance.New(t, "sqlite", onStorage(t, place))
		s.CreateRegistry(instance.Open, nil)
		layer := bytes.Repeat([]byte("a layer that is kept. "), 1<<19)
		if _, err := s.PushImage(instance.Open, "app", "v1", layer); err != nil {
			t.Fatal(err)
		}
		folder, key := filepath.Join(t.TempDir(), "backups"), filepath.Join(s.Data, "installation.key")
		must(t, s, "backup", "--data", s.Data, "--to", folder)
		fails(t, s, "belongs to an installation already", "restore", "--from", folder, "--data", filepath.Join(t.TempDir(), "data"), "--key-file", key,
			"--storage", place.URL, "--storage-key-file", keyFile(t, place))
		kind := blobtest.S3
		if place.Azure != nil {
			kind = blobtest.Azure
		}
		other := blobtest.Open(t, kind)
		for config, flags := range map[string][]string{"": nil, onStorage(t, other): {"--storage", other.URL, "--storage-key-file", keyFile(t, other)}} {
			data := filepath.Join(t.TempDir(), "data")
			again := filepath.Join(t.TempDir(), "data")
			for _, data := range []string{again, data} { // what a first attempt has placed is taken up
				must(t, s, append([]string{"restore", "--from", folder, "--data", data, "--key-file", key}, flags...)...)
			}
			restored := instance.At(t, data, "", config)
			restored.Start()
			if out := must(t, restored, "scrub", "--data", data); !strings.Contains(out, "none is damaged") || !strings.Contains(out, "3 ") {
				t.Errorf("scrub of what was restored: %s", out)
			}
			if flags != nil {
				fails(t, s, "belongs to an installation already", append([]string{"restore", "--from", folder, "--data", filepath.Join(t.TempDir(), "data"), "--key-file", key}, flags...)...)
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, f CertificateFile, c *tls.Certificate, at time.Time) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	put(t, f.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), at)
	put(t, f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), at)
}

func put(t *testing.T, path string, content []byte, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// Certificates from files are followed at most once a second; a broken file leaves the one before in service.
func TestFilesAreFollowed(t *testing.T) {
	h := newHouse(t)
	now := time.Unix(1_700_000_000, 0)
	issue := func() *tls.Certificate {
		c, err := h.authority.issue([]string{"registry.example.com"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	dir := t.TempDir()
	file := CertificateFile{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	one, two := issue(), issue()
	write(t, file, one, now)
	var log bytes.Buffer
	files, err := OpenFiles([]CertificateFile{file}, func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	serves := func(want *tls.Certificate, when string) {
		t.Helper()
		got := files.Certificate("registry.example.com")
		if got == nil || !bytes.Equal(got.Certificate[0], want.Certificate[0]) {
			t.Errorf("%s: another certificate is served", when)
		}
	}
	serves(one, "at the start")
	if files.Certificate("other.example.com") != nil || files.Certificate("") != nil {
		t.Error("the certificate is served for names that it does not carry")
	}
	write(t, file, two, now.Add(time.Minute))
	serves(one, "within the second")
	now = now.Add(time.Second)
	serves(two, "after a second")

	put(t, file.Cert, []byte("broken"), now.Add(2*time.Minute))
	now = now.Add(time.Second)
	serves(two, "with a broken file")
	now = now.Add(time.Second)
	serves(two, "with a broken file, later")
	if n := strings.Count(log.String(), "not renewed"); n != 1 {
		t.Errorf("the broken file was logged %d times:\n%s", n, log.String())
	}
	if err := os.Remove(file.Key); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	serves(two, "without a key file")
	write(t, file, one, now.Add(3*time.Minute))
	now = now.Add(time.Second)
	serves(one, "when the file is whole again")

	if _, err := OpenFiles([]CertificateFile{{Cert: file.Cert, Key: file.Cert}}, time.Now, nil); err == nil {
		t.Error("a bad file at the start was accepted")
	}
}

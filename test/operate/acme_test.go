// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/test/instance"
)

// selfSigned writes a certificate for names and 127.0.0.1, and its key, and returns their paths.
func selfSigned(t *testing.T, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// daemon runs a program until the test ends, or until stop.
func daemon(t *testing.T, env []string, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &out, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s is needed (scripts/install-test-tools installs it): %v", name, err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%.6000s", name, out.String())
		}
	}
	t.Cleanup(stop)
	return stop
}

// acmeServer is a Pebble that checks names at a port of this machine.
func acmeServer(t *testing.T, tlsPort string) (directory, roots string, issuer *x509.CertPool, stop func()) {
	t.Helper()
	cert, key := selfSigned(t)
	listen, management, dns, control := instance.FreePort(t), instance.FreePort(t), instance.FreePort(t), instance.FreePort(t)
	config := filepath.Join(t.TempDir(), "pebble.json")
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{"listenAddress": listen, "managementListenAddress": management, "certificate": cert, "privateKey": key,
		"httpPort": 1, "tlsPort": json.Number(tlsPort), "ocspResponderURL": "", "externalAccountBindingRequired": false}})
	if err = errors.Join(err, os.WriteFile(config, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	stopDNS := daemon(t, nil, "pebble-challtestsrv", "-dns01", dns, "-http01", "", "-https01", "", "-tlsalpn01", "", "-management", control, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "")
	stopACME := daemon(t, []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"}, "pebble", "-config", config, "-dnsserver", dns)
	trust := x509.NewCertPool()
	own, err := os.ReadFile(cert)
	if err != nil || !trust.AppendCertsFromPEM(own) {
		t.Fatal("no certificate", err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}}}
	issuer = x509.NewCertPool()
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := client.Get("https://" + management + "/roots/0")
		if err == nil {
			root, readErr := io.ReadAll(resp.Body)
			if err := errors.Join(readErr, resp.Body.Close()); err != nil || !issuer.AppendCertsFromPEM(root) {
				t.Fatalf("the ACME server's root: %v %s", err, root)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	return "https://" + listen + "/dir", cert, issuer, func() { stopACME(); stopDNS() }
}

// greets makes a TLS connection for a name and says whether the certificate is of the issuer's.
func greets(t *testing.T, address, name string, issuer *x509.CertPool) error {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", address, &tls.Config{ServerName: name, RootCAs: issuer})
	if err != nil {
		return err
	}
	return conn.Close()
}

// With an ACME server configured, the installation's own names get its certificates, each once; they are kept, and other names ask for none.
func TestACME(t *testing.T) {
	public := instance.FreePort(t)
	_, port, err := net.SplitHostPort(public)
	if err != nil {
		t.Fatal(err)
	}
	directory, roots, issuer, stop := acmeServer(t, port)
	door := instance.FreePort(t)
	s := instance.At(t, filepath.Join(t.TempDir(), "data"), "", fmt.Sprintf(
		"host: [localhost, embargo.test]\nregistrySuffix: registry.test\nacme: {directory: %q, email: ops@embargo.test, roots: %q}\nprivateListeners: [{address: %q, registry: %q}]\n", directory, roots, door, instance.Open))
	s.Listen = public
	s.Start()
	s.CreateRegistry(instance.Open, nil)
	await := func(name string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; {
			err := greets(t, public, name, issuer)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no certificate for %s: %v", name, err)
			}
		}
	}
	a := s.ARM(http.MethodPut, s.RegistryID("factory")+"?api-version=2024-11-01-preview", instance.J{"location": "centralus", "sku": instance.J{"name": "Premium"},
		"properties": instance.J{"autoGeneratedDomainNameLabelScope": "ResourceGroupReuse"}})
	var scoped struct{ Properties struct{ LoginServer string } }
	if err := json.Unmarshal(a.Body, &scoped); err != nil || a.Status != http.StatusCreated || !strings.HasPrefix(scoped.Properties.LoginServer, "factory-") {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	names := []string{instance.Open + ".registry.test", scoped.Properties.LoginServer, "embargo.test"}
	for _, n := range names {
		await(n)
	}
	for _, other := range []string{"absent.registry.test", "factory.registry.test", "localhost"} {
		if err := greets(t, public, other, issuer); err == nil {
			t.Errorf("a certificate was got for %s", other)
		}
	}
	if err := greets(t, door, names[0], issuer); err == nil {
		t.Error("a private door shows the ACME server's certificate")
	}
	if n := strings.Count(s.Log(), "no certificate was got"); n > 0 {
		t.Errorf("%d handshakes asked in vain", n)
	}
	stop()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Start()
	for _, n := range names {
		if err := greets(t, public, n, issuer); err != nil {
			t.Errorf("the certificate for %s was not kept: %v", n, err)
		}
	}
	// What can't be got now is served by the installation's own authority.
	s.CreateRegistry(instance.Closed, nil)
	pool := x509.NewCertPool()
	own, err := os.ReadFile(s.CAFile)
	if err != nil || !pool.AppendCertsFromPEM(own) {
		t.Fatal("no authority", err)
	}
	if err := greets(t, public, instance.Closed+".registry.test", pool); err != nil {
		t.Errorf("without the ACME server a new registry has no certificate at all: %v", err)
	}
}

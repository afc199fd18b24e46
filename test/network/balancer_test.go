// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/test/instance"
)

// traced counts the bytes that the server hands over by sendfile until the function that it returns is called.
func traced(t *testing.T, pid int) (stop func() int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-e", "trace=sendfile", "-o", path, "-p", strconv.Itoa(pid))
	says, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("strace, which scripts/install-test-tools installs: %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // when the test ended before it did
	if line, err := bufio.NewReader(says).ReadString('\n'); err != nil || !strings.Contains(line, "attached") {
		t.Fatalf("strace says %q, %v", line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, says) }()
	return func() (sum int64) {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it ends with the signal
		trace, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`sendfile.* = ([0-9]+)\n`).FindAllStringSubmatch(string(trace), -1) {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		return sum
	}
}

// A large blob comes whole by a private link and by an endpoint's address, copied by the kernel; when the endpoint is rejected, a download under way is cut, and on record with its bytes.
func TestLargeBlobs(t *testing.T) {
	_, port, _ := net.SplitHostPort(instance.FreePort(t))
	balancer := instance.FreePort(t)
	h := newHouse(t, fmt.Sprintf("virtualNetworks:\n- {id: %s, door: address, port: %s, tls: false}\n- {id: %s, door: proxy, listen: %q, tls: false, from: [127.0.0.2], links: {vpce-1: %s}}\n",
		vnet, port, vnet2, balancer, resource("balanced")))
	h.CreateRegistry("factory", nil)
	blob := large()
	if err := h.PushBlob("factory", "app", blob); err != nil {
		t.Fatal(err)
	}
	digest, bearer := instance.Digest(blob), "Authorization: Bearer "+h.bearer("factory")
	h.put("factory", "pe1", vnet, meta.EndpointApproved, "127.20.3.4")
	h.put("factory", "balanced", vnet2, meta.EndpointApproved, "127.21.3.4")
	h.Lock("factory")
	for _, w := range []struct{ endpoint, network, address, at, from, first, client string }{
		{"pe1", vnet, "127.20.3.4", "127.20.3.4:" + port, "127.0.0.1", "", "127.0.0.1:"},
		{"balanced", vnet2, "127.21.3.4", balancer, "127.0.0.2", head(0xEA, []byte("\x01vpce-1")...), "192.0.2.7:1234"},
	} {
		stop := traced(t, h.PID())
		f, err := h.fly(w.from, w.at, w.first, "", digest, bearer)
		if err != nil {
			t.Fatalf("%s: %v", w.endpoint, err)
		}
		if err := f.whole(digest); err != nil {
			t.Errorf("%s: %v", w.endpoint, err)
		}
		if sent := stop(); sent < int64(len(blob))-512 { // net/http looks at the first bytes itself
			t.Errorf("%s: %d of %d bytes left by sendfile", w.endpoint, sent, len(blob))
		}
		if f, err = h.fly(w.from, w.at, w.first, "", digest, bearer); err != nil {
			t.Fatalf("%s: %v", w.endpoint, err)
		}
		h.put("factory", w.endpoint, w.network, meta.EndpointRejected, w.address)
		if err := f.cut(); err != nil {
			t.Errorf("%s: %v", w.endpoint, err)
		}
		got := int64(len(blob)) - f.left
		h.Recorded(t.Context(), "the download by "+w.endpoint+" that was cut", func(r map[string]any) bool {
			n, _ := r["bytes"].(float64)
			source := fmt.Sprint(r["source"])
			return r["outcome"] == "aborted" && strings.Contains(source, "private/"+w.endpoint) && strings.Contains(source, w.client) && int64(n) >= got && int64(n) < int64(len(blob))
		})
	}
}

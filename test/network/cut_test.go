// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/test/instance"
)

// A connection that is kept alive and was served before is not served after the public side is closed, and a download under way is cut, with its bytes on record.
func TestCloseCutsPublic(t *testing.T) {
	h := newHouse(t, "")
	h.CreateRegistry("factory", instance.J{"anonymousPullEnabled": true})
	big := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	if _, err := h.PushImage("factory", "app", "v1", big); err != nil {
		t.Fatal(err)
	}
	token := h.bearer("factory")
	pusher, _, err := h.RegistryToken("https://"+h.LoginServer("factory"), h.LoginServer("factory"), h.ClientID, h.ClientSecret, "repository:app:pull,push")
	if err != nil {
		t.Fatal(err)
	}
	open := func() (net.Conn, *bufio.Reader) {
		c, err := dial("127.0.0.1", h.Listening(t).Public)
		if err != nil {
			t.Fatal(err)
		}
		s := tls.Client(c, &tls.Config{ServerName: "factory.azurecr.localhost", InsecureSkipVerify: true})
		return s, bufio.NewReader(s)
	}
	request := func(path string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: factory.azurecr.localhost\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	}
	idle, in := open()
	_, _ = io.WriteString(idle, request("/v2/app/manifests/v1"))
	if got := answer(in); got != http.StatusOK {
		t.Fatal(got)
	}
	flight, from := open()
	_, _ = io.WriteString(flight, request("/v2/app/blobs/"+instance.Digest(big)))
	if _, err := io.ReadFull(from, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	stranger, hears := open()
	_, _ = io.WriteString(stranger, ping("factory.azurecr.localhost"))
	if got := answer(hears); got != http.StatusUnauthorized {
		t.Fatal(got)
	}
	const small = "what is pushed meanwhile"
	begun, err := h.OCI("factory", "app", http.MethodPost, "/v2/app/blobs/uploads/", nil)
	if err != nil || begun.Status != http.StatusAccepted {
		t.Fatal(begun, err)
	}
	_, location, _ := strings.Cut(begun.Header.Get("Location"), "/v2/")
	push, pushed := open()
	_, _ = fmt.Fprintf(push, "PUT /v2/%s?digest=%s HTTP/1.1\r\nHost: factory.azurecr.localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		location, instance.Digest([]byte(small)), pusher, len(small))
	if line, err := pushed.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") { // it is being read
		t.Fatal(line, err)
	}
	_, _ = io.WriteString(push, small[:5])
	h.Lock("factory")
	_, _ = io.WriteString(push, small[5:])
	_, _ = pushed.ReadString('\n') // the rest of the interim answer
	if got := answer(pushed); got != 0 {
		t.Errorf("an upload that was under way is answered %d", got)
	}
	for what, c := range map[string]*bufio.Reader{"without a login": hears, "that was served": in} {
		if b, err := c.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection %s stands after the public side was closed: %q, %v", what, b, err)
		}
	}
	_, _ = io.WriteString(idle, request("/v2/app/manifests/v1"))
	if got := answer(in); got == http.StatusOK {
		t.Error("an idle connection was served after the public side was closed")
	}
	// The end may be a reset or the end of the TLS stream, whichever side of the server was first; content stops short of its Content-Length in either case.
	if n, _ := io.Copy(io.Discard, from); n+1<<20 >= int64(len(big)) {
		t.Errorf("the download went on: %d bytes more", n)
	}
	if a := h.Patch("factory", instance.J{"publicNetworkAccess": "Enabled", "policies": instance.J{"exportPolicy": instance.J{"status": "enabled"}}}); a.Status != http.StatusOK {
		t.Fatal(a)
	}
	if a, err := h.OCI("factory", "app", http.MethodHead, "/v2/app/blobs/"+instance.Digest([]byte(small)), nil); err != nil || a.Status != http.StatusNotFound {
		t.Errorf("what was pushed meanwhile is there: %d, %v", a.Status, err)
	}
	h.Recorded(t.Context(), "a download that was cut", func(r map[string]any) bool {
		n, _ := r["bytes"].(float64)
		return r["outcome"] == "aborted" && n >= 1<<20 && n < float64(len(big))
	})
}

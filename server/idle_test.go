// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/network"
)

// A connection that was idle for longer than a stall's time is as good as new: also for the answer that net/http itself gives to Expect: 100-continue.
func TestIdleLongerThanAStall(t *testing.T) {
	const stall = 100 * time.Millisecond
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(b) // the client sees it or not
	})
	hosts, err := network.NewHosts([]string{"localhost"}, "azurecr.localhost")
	if err != nil {
		t.Fatal(err)
	}
	doors, err := network.NewDoors(nil)
	if err != nil {
		t.Fatal(err)
	}
	door, err := doors.Listen(t.Context(), "127.0.0.1:0", network.DoorOptions{Zone: network.Zone{Kind: network.Private, Door: "p", Registry: "p"}})
	if err != nil {
		t.Fatal(err)
	}
	f := &front{hosts: hosts, door: door, log: slog.New(slog.DiscardHandler), management: echo, data: echo, metrics: newMetrics("test"), limits: &limits{}}
	f.limits.set(Options{MaxRequests: 10, StallTimeout: stall})
	done := make(chan error, 1)
	go func() { done <- door.Serve(f) }()
	defer func() {
		_ = door.Shutdown(t.Context())
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	conn, err := net.Dial("tcp", door.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 2 {
		if _, err := io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		line, err := in.ReadString('\n')
		if err != nil || !strings.Contains(line, "100 Continue") {
			t.Fatalf("%q, %v", line, err)
		}
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || string(b) != "hello" {
			t.Fatalf("%d %q, %v", resp.StatusCode, b, err)
		}
		idle := time.NewTimer(3 * stall) // the idling is what is tested
		<-idle.C
	}
}

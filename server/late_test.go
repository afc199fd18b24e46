// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/embargo-registry/embargo/network"
)

// An answer whose handler takes longer than a stall's time between its last write and its end is sent whole: its end has time of its own.
func TestLateEnd(t *testing.T) {
	const stall = 100 * time.Millisecond
	late := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello")) // the client sees it or not
		taking := time.NewTimer(3 * stall)
		<-taking.C // its taking so long is what is tested
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
	f := &front{hosts: hosts, door: door, log: slog.New(slog.DiscardHandler), management: late, data: late, metrics: newMetrics("test"), limits: &limits{}}
	f.limits.set(Options{MaxRequests: 10, StallTimeout: stall})
	done := make(chan error, 1)
	go func() { done <- door.Serve(f) }()
	defer func() {
		_ = door.Shutdown(t.Context())
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range 2 {
		resp, err := client.Get("http://" + door.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
}

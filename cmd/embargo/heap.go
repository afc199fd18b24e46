// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// heapRoom is what the heap of a server may grow to before its garbage is collected, in bytes, where less than half of it is in use.
const heapRoom = 48 << 20

// roomyHeap has garbage collected less often while little is in use: a server that has 10 MiB in use would be collected at 20 MiB, hundreds of times a minute. GOGC in the environment has the last word.
func roomyHeap() {
	if os.Getenv("GOGC") != "" {
		return
	}
	now := 100
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	var collected func(*[16]byte)
	collected = func(sentinel *[16]byte) {
		metrics.Read(live)
		percent := 100
		if used := live[0].Value.Uint64(); used > 0 {
			percent = min(max(100, int(heapRoom*100/used)-100), 800)
		}
		if percent*10 < now*9 || percent*10 > now*11 { // setting it stops the world for a moment
			now = percent
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(sentinel, collected) // it is called once for each collection
	}
	runtime.SetFinalizer(new([16]byte), collected)
}

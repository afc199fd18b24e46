// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"os"
	"syscall"
)

// startStoring tells the kernel to begin storing what was written, and waits for nothing. It is a hint: Sync is what counts.
func startStoring(f *os.File) {
	const write = 2 // SYNC_FILE_RANGE_WRITE; a length of 0 is the whole file
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { _ = syscall.SyncFileRange(int(fd), 0, 0, write) })
}

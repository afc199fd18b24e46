// SPDX-License-Identifier: Apache-2.0

package server

import "golang.org/x/sys/unix"

// diskSpace is what is free for an unprivileged process, and the size, of the file system that holds path, in bytes.
func diskSpace(path string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

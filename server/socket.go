// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"os"
	"path/filepath"
)

// socketPathMax is what fits into a socket's address on every system Embargo runs on.
const socketPathMax = 100

// AdminSocket is a path by which the administration socket of a data directory can be bound or connected to. It is valid
// until done is called: a path too long for a socket's address is reached through the open directory.
func AdminSocket(data string) (path string, done func(), err error) {
	path, err = filepath.Abs(filepath.Join(data, "admin.sock"))
	if err != nil || len(path) <= socketPathMax {
		return path, func() {}, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/admin.sock", dir.Fd()), func() { _ = dir.Close() }, nil
}

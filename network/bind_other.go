// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package network

import (
	"errors"
	"syscall"
)

// control refuses what only Linux has.
func (o DoorOptions) control(string, string, syscall.RawConn) error {
	if o.Free || o.Shared || o.Interface != "" {
		return errors.New("doors of private endpoints need Linux")
	}
	return nil
}

// StillOn has nothing to look at: no socket is bound to a network interface.
func StillOn(syscall.Conn, string) error { return nil }

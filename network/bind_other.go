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

// InterfaceIndex knows no interface.
func InterfaceIndex(string) (uint32, error) { return 0, errors.ErrUnsupported }

// StillOn has nothing to look at: no socket is bound to a network interface.
func StillOn(syscall.Conn, string) error { return nil }

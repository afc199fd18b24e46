// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// control sets a listening socket's options before it is bound.
func (o DoorOptions) control(network, _ string, raw syscall.RawConn) error {
	var errs []error
	err := raw.Control(func(fd uintptr) {
		if o.Free {
			if network == "tcp6" {
				errs = append(errs, unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
			} else {
				errs = append(errs, unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
			}
		}
		if o.Shared {
			errs = append(errs, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		}
		if o.Interface != "" {
			errs = append(errs, unix.BindToDevice(int(fd), o.Interface))
		}
	})
	return errors.Join(append(errs, err)...)
}

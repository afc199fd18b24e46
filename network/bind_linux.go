// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
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

// StillOn is why a socket that was bound to the network interface of that name is so no longer: the kernel keeps the interface's number, which ends with the interface and may become another's.
func StillOn(socket syscall.Conn, name string) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	now := ""
	if failed := raw.Control(func(fd uintptr) { now, err = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE) }); failed != nil {
		return failed
	}
	if err == nil && now != name {
		err = fmt.Errorf("it is called %s now", now)
	}
	if err != nil {
		return fmt.Errorf("the network interface %s that it was bound to is not there: %w", name, err)
	}
	return nil
}

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
	var is, bound uint32
	failed := raw.Control(func(fd uintptr) {
		var now string
		if now, err = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err == nil {
			bound, err = index(int(fd), now)
		}
		if err == nil {
			is, err = index(int(fd), name)
		}
	})
	if err = errors.Join(failed, err); err == nil && is != bound {
		err = errors.New("another one has its name")
	}
	if err != nil {
		return fmt.Errorf("the network interface %s that it was bound to is not there: %w", name, err)
	}
	return nil
}

// InterfaceIndex is the number of a network interface, by any of its names. Errors: there is none.
func InterfaceIndex(name string) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	return index(fd, name)
}

// index is the number of a network interface, by any of its names.
func index(fd int, name string) (uint32, error) {
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	}
	if err != nil {
		return 0, err
	}
	return r.Uint32(), nil
}

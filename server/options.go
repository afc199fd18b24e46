// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/network"
)

// Options of New. Only Data, Listen and RegistrySuffix have no usable zero value.
type Options struct {
	// Data is the directory that everything is kept in; it is made with mode 0700.
	Data string
	// Database is sqlite:PATH or a postgres:// URL; "" is sqlite in Data.
	Database string
	// Listen is the public TLS listener, ProxyListen the CONNECT proxy's and AdminListen that of /healthz and /readyz:
	// host:port, port 0 for a free one. "" or "off" starts none (but Listen must be given).
	Listen, ProxyListen, AdminListen string
	// AdminAnywhere allows AdminListen to be another address than loopback.
	AdminAnywhere bool
	// Hosts are the names of the resource manager besides localhost, 127.0.0.1 and ::1.
	Hosts []string
	// RegistrySuffix is the domain of login servers.
	RegistrySuffix string
	// Certificates are the operator's own; none: those of the installation's authority.
	Certificates []network.CertificateFile
	// PrivateListeners are the doors inside the perimeter.
	PrivateListeners []PrivateListener
	// Locations that resources may have; none: Azure's public regions.
	Locations []string
	// InstallationKey is the file of the key that seals secrets; "": installation.key in Data.
	InstallationKey string
	// DrainTimeout bounds the wait for requests in flight at a stop (0: 30 s).
	DrainTimeout time.Duration
	// Log gets everything that happens; nil discards it.
	Log *slog.Logger
	// Clock is the time; nil: the machine's.
	Clock func() time.Time
	// Version is what the program calls itself.
	Version string
}

// PrivateListener is a door to one registry. Without TLS the address must be on loopback, or TLSTerminated must say that a
// TLS terminator stands before it.
type PrivateListener struct {
	Address       string
	Registry      string
	TLS           bool
	TLSTerminated bool
}

// complete checks the options and fills in what is left out.
func (o *Options) complete() error {
	if o.Data == "" {
		return fmt.Errorf("no data directory is configured")
	}
	dir, err := filepath.Abs(o.Data)
	if err != nil {
		return err
	}
	o.Data = dir
	if off(o.Listen) {
		return fmt.Errorf("the public listener cannot be switched off: set listen")
	}
	if o.Database == "" {
		o.Database = "sqlite:" + filepath.Join(o.Data, "embargo.db")
	}
	if o.InstallationKey == "" {
		o.InstallationKey = filepath.Join(o.Data, "installation.key")
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 30 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if !off(o.AdminListen) && !o.AdminAnywhere && !loopback(o.AdminListen) {
		return fmt.Errorf("adminListen %s is not on loopback: set adminAnywhere if that is meant", o.AdminListen)
	}
	for i, l := range o.PrivateListeners {
		switch {
		case l.Address == "" || l.Registry == "":
			return fmt.Errorf("privateListeners[%d]: address and registry are needed", i)
		case l.TLS && l.TLSTerminated:
			return fmt.Errorf("privateListeners[%d]: tlsTerminated is for a listener with tls: false", i)
		case !l.TLS && !l.TLSTerminated && !loopback(l.Address):
			return fmt.Errorf("privateListeners[%d]: %s would serve plain HTTP beyond loopback: set tls: true, or tlsTerminated: true if a TLS terminator stands before it", i, l.Address)
		}
		o.PrivateListeners[i].Registry = strings.ToLower(l.Registry)
	}
	return nil
}

func off(address string) bool { return address == "" || address == "off" }

// loopback says whether an address to listen on is reachable from this machine alone. The empty host is every address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

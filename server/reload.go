// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/embargo-registry/embargo/network"
)

// limits are what bounds requests, and may change meanwhile.
type limits struct {
	stall    atomic.Int64 // nanoseconds
	most     atomic.Int64 // requests at a time
	answered atomic.Int64 // requests being answered
	every    atomic.Int64 // nanoseconds between two collections
	keep     atomic.Int64 // nanoseconds that unused content stays
}

func (l *limits) set(o Options) {
	l.stall.Store(int64(o.StallTimeout))
	l.most.Store(int64(o.MaxRequests))
	l.every.Store(int64(o.GCInterval))
	l.keep.Store(int64(o.GCGrace))
}

// enter reports whether one more request may be answered; leave ends it either way.
func (l *limits) enter() bool { return l.answered.Add(1) <= l.most.Load() }
func (l *limits) leave()      { l.answered.Add(-1) }

func (l *limits) collecting() time.Duration { return time.Duration(l.every.Load()) }
func (l *limits) grace() time.Duration      { return time.Duration(l.keep.Load()) }
func (l *limits) pace() time.Duration       { return time.Duration(l.stall.Load()) }

// certificates are the TLS configurations of public and of private doors.
type certificates struct{ public, private *tls.Config }

func (s *Server) openCertificates(o Options) (*certificates, error) {
	files, err := network.OpenFiles(o.Certificates, o.Clock, o.Log)
	if err != nil {
		return nil, &OptionError{"certificates", err}
	}
	return &certificates{network.TLS(s.hosts, s.ca, files, s.acme), network.PrivateTLS(s.hosts, s.ca, files)}, nil
}

// Reload takes options over while the server runs: certificates, listeners and who may connect to them, limits and the drain timeout. What is the same stays
// untouched, its connections too. A listener that is gone closes: a private one resets its connections at once, because nobody is inside by that door any more;
// the others answer what is in flight. An error means that nothing was changed. Errors: *OptionError for what is wrong or needs a restart.
func (s *Server) Reload(ctx context.Context, o Options) error {
	o.Log, o.Clock, o.Version = s.log, s.o.Clock, s.o.Version
	if err := Check(o); err != nil {
		return err
	}
	if err := o.complete(); err != nil {
		return err
	}
	if err := s.unchangeable(o); err != nil {
		return err
	}
	certs, err := s.openCertificates(o)
	if err != nil {
		return err
	}
	opened, closed, err := s.reload(ctx, o, certs)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.reloaded = &rearranged{opened, closed}
	s.mu.Unlock()
	if err := s.Reconcile(ctx); err != nil {
		s.log.Error("the configuration is in force, but private endpoints that it lets in have no door yet; it is tried again until they have", "error", err)
	}
	return nil
}

// rearranged is how many listeners a reload has opened and closed.
type rearranged struct{ opened, closed int }

func (s *Server) reload(ctx context.Context, o Options, certs *certificates) (opened, closed int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start == nil {
		return 0, 0, errors.New("the server is not running")
	}
	next, gone, fresh, err := s.rearrange(ctx, o)
	if err != nil {
		return 0, 0, err
	}
	// From here on nothing can be refused.
	s.certificates.Store(certs)
	s.limits.set(o)
	s.doors.Trust(o.TrustedProxies)
	s.o, s.listeners = o, next
	for _, l := range gone {
		if l.want.registry != "" || l.want.network != "" {
			l.door.Stop()
			continue
		}
		go func() {
			drain, cancel := context.WithTimeout(context.Background(), o.DrainTimeout)
			defer cancel()
			if err := l.door.Shutdown(drain); err != nil {
				s.log.Warn("a listener that the configuration does not have any more was closed on requests in flight", "door", l.want.door, "error", err)
			}
		}()
	}
	for _, l := range fresh {
		s.equip(l)
		s.start(func() error { return l.door.Serve(l.handler) })
	}
	_, limits := o.wanted()
	for i, l := range next {
		l.door.Limit(limits[i])
	}
	if err := s.announce(); err != nil {
		s.log.Error("the configuration is in force, but what is written for clients of this machine (credentials.json, listening.json) could not be brought up to date", "error", err)
	}
	return len(fresh), len(gone), nil
}

// rearrange finds the listeners of the options: those that stay, and new ones, opened. An address that only changes what it serves is taken over, so that there is
// no moment at which it can't be had. The caller holds the lock.
func (s *Server) rearrange(ctx context.Context, o Options) (next, gone, fresh []*listener, err error) {
	all, limits := o.wanted()
	stays := map[*listener]bool{}
	for i, w := range all {
		if at := slices.IndexFunc(s.listeners, func(l *listener) bool { return l.want == w }); at >= 0 {
			stays[s.listeners[at]] = true
			next = append(next, s.listeners[at])
			continue
		}
		var l *listener
		if at := slices.IndexFunc(s.listeners, func(l *listener) bool { return l.want.address == w.address && !slices.Contains(all, l.want) }); at >= 0 {
			l, err = s.takeOver(s.listeners[at], w, limits[i])
		} else {
			l, err = s.listen(ctx, w, limits[i])
		}
		if err != nil {
			for _, l := range fresh {
				err = errors.Join(err, l.door.Shutdown(ctx))
			}
			return nil, nil, nil, &OptionError{key(w), err}
		}
		next, fresh = append(next, l), append(fresh, l)
	}
	for _, l := range s.listeners {
		if !stays[l] {
			gone = append(gone, l)
		}
	}
	return next, gone, fresh, nil
}

// key is a listener's key in the configuration.
func key(w wanted) string {
	switch {
	case w.network != "":
		return networksKey
	case w.registry != "":
		return "privateListeners"
	case w.is(doorPublic):
		return "listen"
	}
	return w.door + "Listen"
}

// unchangeable refuses what only a restart can change.
func (s *Server) unchangeable(o Options) error {
	for _, v := range []struct {
		key      string
		was, now any
	}{
		{"data", s.o.Data, o.Data}, {"database", s.o.Database, o.Database}, {"host", s.o.named(), o.named()}, {"registrySuffix", s.o.RegistrySuffix, o.RegistrySuffix},
		{"locations", s.o.Locations, o.Locations}, {"installationKey", s.o.InstallationKey, o.InstallationKey}, {"policyEpochs", s.o.PolicyEpochs, o.PolicyEpochs}, {"acme", s.o.ACME, o.ACME}, {"webhooks", s.o.Webhooks, o.Webhooks},
		{"upstreams", s.o.Upstreams, o.Upstreams}, {"storage", s.o.Storage.URL, o.Storage.URL}, {"storageKeyFile", s.o.Storage.KeyFile, o.Storage.KeyFile}, {"storageRoots", s.o.Storage.Roots, o.Storage.Roots},
		{"dns", s.o.DNS, o.DNS}, {"minFreeDisk", s.o.MinFreeDisk, o.MinFreeDisk}, {"auditMode", s.o.AuditSoon, o.AuditSoon}, {"registryQuota", s.o.RegistryQuota, o.RegistryQuota}, {"throttle", s.o.Throttle, o.Throttle},
	} {
		a, b := reflect.ValueOf(v.was), reflect.ValueOf(v.now)
		if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(v.was, v.now) {
			return &OptionError{v.key, fmt.Errorf("it can't change while the server runs: restart it, or put the value back")}
		}
	}
	return nil
}

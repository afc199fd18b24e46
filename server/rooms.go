// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/durable"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/identity/authority"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/providers/authorization"
	"github.com/embargo-registry/embargo/providers/containerregistry"
	"github.com/embargo-registry/embargo/providers/containment"
	vnets "github.com/embargo-registry/embargo/providers/network"
	"github.com/embargo-registry/embargo/providers/resources"
	"github.com/embargo-registry/embargo/registry"
)

// A node's lease, and how often it is renewed: a node that misses three renewals is not ready any more.
const (
	leaseTerm  = 15 * time.Second
	leaseRenew = 5 * time.Second
)

// jobWorkers is how many jobs run at a time. Deliveries of webhooks, which wait for others, take half of them at the most.
const jobWorkers = 8

// rooms are the parts above network: who is calling, what is recorded, what answers.
type rooms struct {
	audit    *audit.Log
	identity *identity.Service
	jobs     *job.Runner
	lease    *meta.Lease
	gate     *egress.Gate
	registry *registry.Service
	engine   *arm.Engine
	ready    *readiness
	first    identity.First

	management http.Handler
	data       http.Handler
}

// run does the background work until ctx ends: jobs, and the renewal of the lease.
func (r *rooms) run(ctx context.Context) error {
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		tick := time.NewTicker(leaseRenew)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = r.lease.Renew(ctx) // a lease that is not renewed ends, and readiness says so
			}
		}
	}()
	err := r.jobs.Run(ctx)
	<-renewed
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) openRooms(ctx context.Context) error {
	node, err := s.node()
	if err != nil {
		return err
	}
	r := &rooms{ready: &readiness{log: s.log}}
	s.rooms = r
	if r.lease, err = s.db.Register(ctx, node, leaseTerm); err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { return r.lease.Release(context.Background()) })
	if r.identity, err = identity.New(ctx, identity.Options{DB: s.db, Keyring: s.ring, Hosts: s.hosts.Management(), Clock: s.o.Clock}); err != nil {
		return err
	}
	if r.audit, err = audit.New(ctx, audit.Options{DB: s.db, Node: node, Log: s.log, Count: s.metrics.record}); err != nil {
		return err
	}
	s.closers = append(s.closers, r.audit.Close)
	counting, stop := context.WithCancel(context.Background())
	var counted sync.WaitGroup
	for at, most := range map[*atomic.Pointer[audit.Tally]]int{&s.tally: 0, &s.questions: questionsApart} {
		t := audit.NewTally(r.audit.Note, s.o.Clock, most)
		at.Store(t)
		counted.Go(func() { t.Run(counting) })
	}
	s.closers = append(s.closers, func() error { stop(); counted.Wait(); return nil })
	if r.jobs, err = job.New(job.Options{DB: s.db, Node: node, Workers: jobWorkers, Log: s.log, Count: s.metrics.job}); err != nil {
		return err
	}
	r.ready.checks = s.checks()
	r.ready.metrics = s.metrics.handler()
	if err := s.openProtocols(ctx); err != nil {
		return err
	}
	for _, l := range s.listeners {
		s.equip(l)
	}
	s.metrics.registry.MustRegister(gauges{s})
	return nil
}

// openProtocols makes what answers: the registry behind its protocol, the resource manager and the authority.
func (s *Server) openProtocols(ctx context.Context) error {
	r := s.rooms
	gate, err := egress.New(egress.Options{DB: s.db, Audit: r.audit, Clock: s.o.Clock, Log: s.log, Soon: s.o.AuditSoon, Live: r.lease.Valid, Marks: s.o.PolicyEpochs})
	if err != nil {
		return err
	}
	r.gate = gate
	s.closers = append(s.closers, gate.Close)
	blobs, err := s.openBlobs(ctx)
	if err != nil {
		return err
	}
	outside, err := s.openUpstreams()
	if err != nil {
		return err
	}
	registries, err := registry.New(registry.Options{DB: s.db, Blobs: blobs, Gate: gate, Audit: r.audit, Identity: r.identity, Upstream: outside, Keyring: s.ring, Log: s.log, Quota: s.o.RegistryQuota})
	if err != nil {
		return err
	}
	r.registry = registries
	registries.Handle(r.jobs)
	hooks, err := s.openWebhooks()
	if err != nil {
		return err
	}
	hooks.Handle(r.jobs)
	if r.data, err = oci.New(oci.Options{DB: s.db, Identity: r.identity, Registry: registries, Audit: r.audit, Locate: s.locate(), Refused: s.refusedRequest, Failed: s.failedLogin, Entered: r.gate.Entered, Log: s.log, Throttle: s.o.Throttle, Spool: s.o.Data, Clock: s.o.Clock}); err != nil {
		return err
	}
	source := func(req *http.Request) (address, zone string) {
		peer := s.doors.Peer(req)
		return peer.Addr.String(), peer.Zone.String()
	}
	engine, err := arm.New(arm.Options{Source: source, DB: s.db, Identity: r.identity, Audit: r.audit, Keyring: s.ring, Log: s.log, Locations: locations(s.o.Locations),
		Namespaces: []arm.Namespace{
			resources.Namespace(resources.Options{Identity: r.identity}),
			authorization.Namespace(authorization.Options{Identity: r.identity}),
			containerregistry.Namespace(s.namespace(hooks, outside)),
			vnets.Namespace(vnets.Options{Suffix: s.hosts.Suffix(), Fence: s.fence}),
			containment.Namespace(),
		}})
	if err != nil {
		return err
	}
	r.engine = engine
	engine.Register(r.jobs)
	auth, err := authority.New(authority.Options{Source: source, Failed: s.failedLogin, Identity: r.identity, DB: s.db, Audit: r.audit, Log: s.log, Suffix: s.hosts.Suffix()})
	if err != nil {
		return err
	}
	r.management = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if auth.Serves(req) {
			auth.ServeHTTP(w, req)
			return
		}
		engine.ServeHTTP(w, req)
	})
	return nil
}

// locate tells which registry a request is for, and on which connection it came: a private door serves its own, whatever
// the Host says; elsewhere the front has found that the Host is a registry's.
func (s *Server) locate() func(*http.Request) (string, *network.Peer) {
	return func(req *http.Request) (string, *network.Peer) {
		peer := s.doors.Peer(req)
		if peer.Kind == network.Private {
			return peer.Registry, peer
		}
		return s.hosts.Lookup(req.Host).Registry, peer
	}
}

// ours says whether a host, with or without a port, is a name or an address of this installation.
func (s *Server) ours(host string) bool {
	if s.hosts.Lookup(host).Role != network.Foreign {
		return true
	}
	addr, err := netip.ParseAddr(network.Normal(host))
	if err != nil {
		return false
	}
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	local, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(local, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		mine, ok := netip.AddrFromSlice(n.IP)
		return ok && mine.Unmap() == addr
	})
}

// locations are the configured regions as ARM shows them; none configured is nil, which stands for Azure's public ones.
func locations(names []string) []arm.Location {
	var out []arm.Location
	known := arm.PublicLocations()
	for _, n := range names {
		plain := strings.ToLower(strings.ReplaceAll(n, " ", ""))
		if i := slices.IndexFunc(known, func(l arm.Location) bool { return l.Name == plain }); i >= 0 {
			out = append(out, known[i])
			continue
		}
		out = append(out, arm.Location{Name: plain, Display: n, Regional: n, Group: "Other"})
	}
	return out
}

// node is the name under which this data directory takes part: kept in it, so that a restart is the same node.
func (s *Server) node() (string, error) {
	path := s.dir.file("node")
	b, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := make([]byte, 6)
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	name := hex.EncodeToString(id)
	return name, durable.WriteFile(path, []byte(name+"\n"), 0o600)
}

// SPDX-License-Identifier: Apache-2.0

// Package server makes one running installation of the rooms: it is what main and every big test start.
//
// It hides the order in which things are made and ended. It promises that when New returns, every listener is bound and
// credentials.json tells where; that Run serves until its context ends, then stops accepting, answers what is in flight, ends
// the jobs, flushes the audit and closes the database, in this order. It refuses a data directory that another process holds.
package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/durable"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/network"
	"github.com/embargo-registry/embargo/upstream"
)

// Server is an installation on one node.
type Server struct {
	o     Options
	log   *slog.Logger
	dir   *dataDir
	hosts network.Hosts
	db    *meta.DB
	ring  *meta.Keyring
	ca    *network.Authority
	// certificates are what late looks up at each handshake: they exist only after the doors.
	certificates atomic.Pointer[certificates]
	acme         *network.Certifier
	metrics      *metrics
	tally        atomic.Pointer[audit.Tally]
	questions    atomic.Pointer[audit.Tally] // of names: whoever sends them may give any address, so that they hide nothing else
	limits       limits
	doors        *network.Doors
	started      time.Time
	rooms        *rooms

	// mu guards what Reload changes: o, listeners, welcome, and start, which is nil while nothing is served.
	turning   sync.Mutex // held while the installation key is rotated
	mu        sync.Mutex
	listeners []*listener
	// endpointDoors are the doors of private endpoints, resolvers answer for names: mu guards them too, and only who holds endpointsMu changes them.
	endpointsMu   sync.Mutex
	endpointDoors []*endpointDoor
	entrances     atomic.Pointer[entrances]
	unread        error       // why the last look at the endpoints failed
	reloaded      *rearranged // a reload that is in force once they have been read; nil: none is under way
	resolvers     []*resolver
	welcome       Welcome
	start         func(serve func() error)

	// closers undo what New made, last first.
	closers []func() error
}

// Welcome is what there is to say when an installation starts. First says that this start made it; only then, and when
// credentials.json keeps it, Credentials hold the secret.
type Welcome struct {
	First             bool
	Data              string
	CredentialsFile   string
	InstallationKey   string
	Credentials       Credentials
	RegistryAuthority string // what follows a registry's name: suffix and, unless the proxy leads there, port
	Listening         Listening
}

// Bound is a private listener and the address it got.
type Bound struct {
	Address  string `json:"address"`
	Registry string `json:"registry"`
}

// Listening is where everything listens, as it stands in listening.json: with port 0 nobody knows it before.
type Listening struct {
	Public  string  `json:"public"`
	Proxy   string  `json:"proxy"`
	Admin   string  `json:"admin"`
	Private []Bound `json:"private"`
}

// Welcome tells what this start made, and where everything listens.
func (s *Server) Welcome() Welcome { return s.welcome }

// New makes an installation in o.Data, or opens the one there, and binds its listeners. Nothing is served before Run.
func New(ctx context.Context, o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	o.wall = o.Clock
	o.Clock = newSteady(o.wall, sinceBoot, o.Log).now
	s := &Server{o: o, log: o.Log, started: time.Now(), metrics: newMetrics(o.Version)}
	s.limits.set(o)
	s.entrances.Store(&entrances{})
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	var err error
	if s.hosts, err = s.o.hosts(); err != nil {
		return err
	}
	if s.dir, err = openDataDir(s.o.Data); err != nil {
		return err
	}
	s.closers = append(s.closers, s.dir.close)
	s.closers = append(s.closers, s.closeDoors)
	if err := s.bind(ctx); err != nil {
		return err
	}
	if err := s.openDatabase(ctx); err != nil {
		return err
	}
	if err := s.known(ctx); err != nil {
		return err
	}
	if err := s.openKeyring(ctx); err != nil {
		return err
	}
	made := false
	if s.ca, made, err = network.LoadAuthority(ctx, s.db, s.ring, s.hosts, s.o.Clock); err != nil {
		return err
	}
	if made {
		s.log.Info("a certificate authority was made for this installation")
	}
	if err := durable.WriteFile(s.dir.file("ca.pem"), s.ca.PEM(), 0o644); err != nil {
		return err
	}
	if err := s.openACME(); err != nil {
		return err
	}
	certs, err := s.openCertificates(s.o)
	if err != nil {
		return err
	}
	s.certificates.Store(certs)
	if err := s.openRooms(ctx); err != nil {
		return err
	}
	if err := s.reconcile(ctx); err != nil {
		return err
	}
	if err := s.Reconcile(ctx); err != nil {
		return err
	}
	if err := s.openDNS(ctx); err != nil {
		return err
	}
	// The secret made here is told once, so nothing that may fail stands between its making and its writing down.
	if s.rooms.first, err = s.rooms.identity.Bootstrap(ctx); err != nil {
		return err
	}
	if err := s.announce(); err != nil {
		return err
	}
	return s.rooms.gate.Own(ctx)
}

// reconcile finds out, before anything is served, whether the database is an older copy.
func (s *Server) reconcile(ctx context.Context) error {
	hold, err := s.rooms.gate.Reconcile(ctx)
	if err == nil && hold.Why != "" {
		s.log.Warn("every registry is held: nothing is exported, and the public side and the private endpoints are shut, until an owner runs 'embargo restore confirm'", "why", hold.Why, "since", hold.Since)
	}
	return err
}

// databaseThere refuses a SQLite database that does not exist.
func (s *Server) databaseThere() error {
	path, file := strings.CutPrefix(s.o.Database, "sqlite:")
	if _, err := os.Stat(path); file && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no database %s: name the data directory with --data, or the database with --database", path)
	}
	return nil
}

// known refuses to begin an installation where there was one: its database is missing, or another one is configured. What an installation leaves here is written after
// its database has begun.
func (s *Server) known(ctx context.Context) error {
	var tenant string
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		var err error
		tenant, err = tx.Installation("tenant")
		return err
	})
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	c, err := s.dir.readCredentials()
	if err != nil || c.TenantID == "" || c.TenantID == tenant {
		return err
	}
	holds := "is empty"
	if tenant != "" {
		holds = "is of the tenant " + tenant
	}
	return fmt.Errorf("the data directory %s belongs to the installation of the tenant %s, and the database %s %s: nothing was begun. Put that installation's database back, restore a backup "+
		"('embargo restore'), name its database (--database), or begin another installation in another directory", s.o.Data, c.TenantID, meta.ShownURL(s.o.Database), holds)
}

// stray refuses to begin a SQLite database beside the log of another one: SQLite would take the one for the other's.
func stray(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, end := range []string{"-wal", "-shm", "-journal"} {
		if _, err := os.Stat(path + end); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s is there without its database %s: it belongs to one that was moved without it. Move it to that one's side", path+end, path), err)
		}
	}
	return nil
}

func (s *Server) openDatabase(ctx context.Context) error {
	d, err := s.dialer()
	if err != nil {
		return err
	}
	alone := false
	if path, file := strings.CutPrefix(s.o.Database, "sqlite:"); file {
		if err := stray(path); err != nil {
			return err
		}
		alone = filepath.Dir(path) == filepath.Clean(s.o.Data) // where nobody else has a reason to write
	}
	s.db, err = meta.Open(ctx, meta.Options{URL: s.o.Database, Clock: s.o.Clock, Log: s.log, Dial: d.Func(dial.PostgreSQL), Watch: s.metrics.transaction,
		Sole: true, Alone: alone})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.db.Close)
	return nil
}

// dialer knows the outbound connections of the server: to exactly the configured database, storage, ACME server and upstreams, and to the destinations of webhooks, which are
// on the public Internet or configured.
func (s *Server) dialer() (*dial.Dialer, error) {
	rule := dial.Rule{Inside: true}
	if strings.HasPrefix(s.o.Database, "postgres://") || strings.HasPrefix(s.o.Database, "postgresql://") {
		cfg, err := pgconn.ParseConfig(s.o.Database)
		if err != nil {
			return nil, errors.New("the database URL cannot be read: it is postgres://USER:PASSWORD@HOST:PORT/NAME") // the cause quotes the URL
		}
		add := func(host string, port uint16) {
			_, address := pgconn.NetworkAddress(host, port)
			rule.To = append(rule.To, address)
		}
		add(cfg.Host, cfg.Port)
		for _, f := range cfg.Fallbacks {
			add(f.Host, f.Port)
		}
	}
	rules := map[dial.Purpose]dial.Rule{dial.PostgreSQL: rule, dial.Webhook: {Anywhere: true}, dial.DeclaredWebhook: {To: s.o.Webhooks.Destinations, Inside: true}}
	if host, err := s.storageHost(); err != nil {
		return nil, err
	} else if host != "" {
		rules[dial.Storage] = dial.Rule{To: []string{host}, Inside: true}
	}
	for purpose, rule := range upstream.Rules(s.o.Upstreams.Registries) {
		rules[purpose] = rule
	}
	if s.o.ACME.Directory != "" {
		// A private ACME server is as usual as a public one; who configures it says where it is.
		rules[dial.ACME] = dial.Rule{To: []string{s.o.ACME.Host()}, Inside: true}
	}
	return dial.New(dial.Options{Rules: rules, Own: s.own, Log: s.log})
}

// openACME makes the certifier when one is configured.
func (s *Server) openACME() error {
	o := s.o.ACME
	if o.Directory == "" {
		return nil
	}
	d, err := s.dialer()
	if err != nil {
		return err
	}
	var roots *x509.CertPool
	if roots, err = acmeRoots(o); err != nil {
		return err
	}
	exists := func(ctx context.Context, label string) (bool, error) {
		err := s.db.Read(ctx, func(tx *meta.Tx) error {
			_, err := tx.RegistryByLabel(label)
			return err
		})
		if errors.Is(err, meta.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	s.acme = network.NewCertifier(o, d.Client(dial.ACME, dial.ClientOptions{Roots: roots, Timeout: time.Minute}), s.hosts, s.db, s.ring, exists, s.log)
	return nil
}

// own are this process's listeners, which it never connects to.
func (s *Server) own() []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range s.doorsNow() {
		out = append(out, l.door.Addr())
	}
	return out
}

// close undoes what was made, last first.
func (s *Server) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// Run serves until ctx ends or a listener fails, then stops in order. It returns nil after a clean stop. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	socket, err := s.openAdminSocket(ctx)
	if err != nil {
		return errors.Join(err, s.close())
	}
	failed := make(chan error, 1) // the first failure ends the server
	var serving sync.WaitGroup
	start := func(fn func() error) {
		serving.Go(func() {
			if err := fn(); err != nil {
				select {
				case failed <- err:
				default:
					s.log.Error("another part failed", "error", err)
				}
			}
		})
	}
	start(socket.run)
	s.startable(start)
	jobs, stopJobs := context.WithCancel(context.WithoutCancel(ctx))
	defer stopJobs()
	jobsDone := make(chan struct{})
	go func() {
		defer close(jobsDone)
		var collecting sync.WaitGroup
		collecting.Go(func() { s.collector(jobs) })
		collecting.Go(func() { s.purger(jobs) })
		collecting.Go(func() { s.retryDoors(jobs) })
		defer collecting.Wait()
		if err := s.rooms.run(jobs); err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	}()
	s.rooms.ready.started()

	var cause error
	select {
	case <-ctx.Done():
		s.log.Info("stopping: requests in flight are answered, new connections are not accepted")
	case cause = <-failed:
		s.log.Error("stopping because a part failed", "error", cause)
	}
	errs := []error{cause}
	s.rooms.ready.stopping()
	s.startable(nil)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.DrainTimeout)
	defer cancel()
	s.stopDNS(drain)
	s.drain(drain)
	errs = append(errs, socket.close(drain))
	serving.Wait()
	stopJobs()
	select {
	case <-jobsDone:
	case <-time.After(s.o.DrainTimeout):
		errs = append(errs, errors.New("background jobs did not stop in time; they go on at the next start"))
	}
	errs = append(errs, s.close())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.log.Info("stopped")
	return nil
}

// drain closes all doors together; the administrator's last, which says meanwhile that the server is stopping. Requests that are cut off at its end are no failure of the stop.
func (s *Server) drain(ctx context.Context) {
	var wg sync.WaitGroup
	shut := func(l *listener) {
		if err := l.door.Shutdown(ctx); err != nil {
			s.log.Warn("requests that were still in flight at the end of drainTimeout were cut off", "door", l.want.door, "error", err)
		}
	}
	doors := s.doorsNow()
	for _, l := range doors {
		if !l.want.is(doorAdmin) {
			wg.Go(func() { shut(l) })
		}
	}
	wg.Wait()
	for _, l := range doors {
		if l.want.is(doorAdmin) {
			shut(l)
		}
	}
}

// announce writes credentials.json and gathers what the welcome says.
func (s *Server) announce() error {
	first := s.rooms.first
	c, err := s.dir.readCredentials()
	if err != nil {
		return err
	}
	public := s.listeners[0].door.Addr()
	host := s.hosts.Management()[0]
	c.ResourceManager = fmt.Sprintf("https://%s", hostPort(host, public.Port()))
	c.ActiveDirectory = c.ResourceManager + "/adfs"
	c.CAFile = s.dir.file("ca.pem")
	c.ACRLoginServerSuffix = "." + s.hosts.Suffix()
	c.Proxy = ""
	w := Welcome{First: first.Secret != "", Data: s.o.Data, CredentialsFile: s.dir.file("credentials.json"), InstallationKey: s.o.InstallationKey}
	w.RegistryAuthority = hostPort(c.ACRLoginServerSuffix, public.Port())
	w.Listening = Listening{Public: public.String(), Private: []Bound{}}
	for _, l := range s.listeners {
		address := l.door.Addr().String()
		switch z := l.door.Zone(); {
		case z.Kind == network.Private:
			w.Listening.Private = append(w.Listening.Private, Bound{address, z.Registry})
		case z.Door == doorProxy:
			c.Proxy = "http://" + address
			w.Listening.Proxy, w.RegistryAuthority = address, c.ACRLoginServerSuffix
		case z.Door == doorAdmin:
			w.Listening.Admin = address
		}
	}
	if c.TenantID != first.Tenant || c.ClientID == "" || first.Secret != "" {
		c.ClientID, c.ClientSecret = first.ClientID, string(first.Secret)
	}
	c.TenantID, c.SubscriptionID = first.Tenant, first.Subscription
	if c.ClientSecret == "" {
		s.log.Warn("credentials.json holds no secret: 'embargo principal rotate "+c.ClientID+"' makes a new one", "principal", c.ClientID)
	}
	w.Credentials = c
	s.welcome = w
	b, err := json.MarshalIndent(w.Listening, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(s.dir.file("listening.json"), append(b, '\n'), 0o600); err != nil {
		return err
	}
	s.rooms.first.Secret = "" // it is told once
	return s.dir.writeCredentials(c)
}

func hostPort(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, port)
}

// SPDX-License-Identifier: Apache-2.0

// Package metatest gives tests real databases: SQLite in a temporary folder, and a fresh database of a real PostgreSQL server.
// The server is EMBARGO_TEST_POSTGRES (a superuser's URL) or one that the test binary starts for itself. A missing PostgreSQL fails
// the test; nothing is skipped.
package metatest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/embargo-registry/embargo/meta"
)

// Kinds are the databases that everything runs on. EMBARGO_TEST_DATABASES ("sqlite") names fewer, for work that runs a test many times.
var Kinds = func() []string {
	if only := os.Getenv("EMBARGO_TEST_DATABASES"); only != "" {
		return strings.Split(only, ",")
	}
	return []string{"sqlite", "postgres"}
}()

// Each runs a subtest on each kind of database, at the same time. open gives a new handle on the subtest's one database; handles are closed at its end.
func Each(t *testing.T, fn func(t *testing.T, open func() *meta.DB)) {
	t.Helper()
	for _, kind := range Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			url := current(t, kind)
			fn(t, func() *meta.DB { return Open(t, url) })
		})
	}
}

// EachAlone runs a subtest on each kind of database with its one handle, which has the memory of a process that is alone.
func EachAlone(t *testing.T, fn func(t *testing.T, db *meta.DB)) {
	t.Helper()
	for _, kind := range Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			fn(t, open(t, meta.Options{URL: current(t, kind), Alone: true}))
		})
	}
}

// Open opens the database at url and closes it when the test ends.
func Open(t testing.TB, url string) *meta.DB {
	t.Helper()
	return open(t, meta.Options{URL: url})
}

func open(t testing.TB, o meta.Options) *meta.DB {
	t.Helper()
	url := o.URL
	o.Dial = Dial
	db, err := meta.Open(context.Background(), o)
	if err != nil {
		t.Fatalf("opening %s: %v", url, err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing the database: %v", err)
		}
	})
	return db
}

// Hold keeps everybody from committing an audit record until release is called: it holds SQLite's one writer, or PostgreSQL's table.
func Hold(t *testing.T, db *meta.DB) (release func()) {
	t.Helper()
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- db.Write(context.Background(), func(tx *meta.Tx) error {
			if tx.Postgres() {
				if _, err := tx.Exec(`LOCK TABLE audit IN EXCLUSIVE MODE`); err != nil {
					return err
				}
			}
			close(begun)
			<-end
			return nil
		})
	}()
	select {
	case <-begun:
	case err := <-ended:
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		close(end)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Passing opens a SQLite database by whose clock more time passes than does: what is added to passed, in nanoseconds.
func Passing(t *testing.T) (db *meta.DB, passed *atomic.Int64) {
	t.Helper()
	passed = new(atomic.Int64)
	db, err := meta.Open(context.Background(), meta.Options{URL: URL(t, "sqlite"), Clock: func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db, passed
}

// Dial connects tests to their PostgreSQL server.
func Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// URL makes a fresh, empty database of the kind ("sqlite" or "postgres") that goes when the test ends.
func URL(t testing.TB, kind string) string {
	t.Helper()
	if kind == "sqlite" {
		return "sqlite:" + filepath.Join(t.TempDir(), "embargo.db")
	}
	return create(t, "")
}

// current is URL with the newest schema in it already, where making that takes longer than copying it.
func current(t testing.TB, kind string) string {
	t.Helper()
	if kind == "sqlite" {
		return URL(t, kind)
	}
	name, err := migrated()
	if err != nil {
		t.Fatalf("a migrated database: %v", err)
	}
	return create(t, " TEMPLATE "+name)
}

// migrated is the name of a database with the newest schema. It goes with its server.
var migrated = sync.OnceValues(func() (string, error) {
	admin, err := server()
	if err != nil {
		return "", err
	}
	name := newName()
	if err := command(admin, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	db, err := meta.Open(context.Background(), meta.Options{URL: at(admin, name), Dial: Dial})
	if err != nil {
		return "", err
	}
	return name, db.Close()
})

// create makes a database that goes when the test ends.
func create(t testing.TB, of string) string {
	t.Helper()
	admin, err := server()
	if err != nil {
		t.Fatalf("PostgreSQL is needed for the tests (scripts/install-test-tools installs it): %v", err)
	}
	name := newName()
	if err := command(admin, "CREATE DATABASE "+name+of); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := command(admin, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return at(admin, name)
}

func newName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return "t" + hex.EncodeToString(b[:])
}

// at is the URL of another database of a server.
func at(admin, name string) string {
	u, err := url.Parse(admin)
	if err != nil {
		return admin // connecting says what is wrong with it
	}
	u.Path = "/" + name
	return u.String()
}

func command(url, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// server is the PostgreSQL server of this test binary.
var server = sync.OnceValues(func() (string, error) {
	if u := os.Getenv("EMBARGO_TEST_POSTGRES"); u != "" {
		return u, nil
	}
	return start()
})

// start runs a private cluster that ends with this process.
func start() (string, error) {
	bin, err := binaries()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "embargo-pg")
	if err != nil {
		return "", err
	}
	attr, err := unprivileged(dir)
	if err != nil {
		return "", err
	}
	run := func(name string, args ...string) error {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = "/", attr
		return cmd.Run()
	}
	data := filepath.Join(dir, "data")
	if err := run("initdb", "-D", data, "-U", "embargo", "-A", "trust", "-E", "UTF8", "--no-sync"); err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		return "", err
	}
	// A postmaster whose parent death it is told of ends with this process, however that ends.
	postmaster := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", port, "-k", "", "-c", "max_connections=300")
	postmaster.Dir = "/"
	own := *attr
	own.Pdeathsig = syscall.SIGQUIT
	postmaster.SysProcAttr = &own
	if err := postmaster.Start(); err != nil {
		return "", err
	}
	if err := run("pg_isready", "-h", "127.0.0.1", "-p", port, "-t", "20"); err != nil {
		// Not ready at once is the rule: the connection below waits for it.
		_ = err
	}
	admin := "postgres://embargo@127.0.0.1:" + port + "/postgres?sslmode=disable"
	return admin, ready(admin)
}

// ready waits until the server takes connections.
func ready(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := pgx.Connect(ctx, url)
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// binaries finds the folder of initdb.
func binaries() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Dir(real), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", exec.ErrNotFound
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// unprivileged makes commands run as another user where this one is root, which PostgreSQL refuses; dir becomes that user's.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

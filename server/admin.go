// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// adminSocket is the HTTP service on <data>/admin.sock, mode 0600, by which the commands of the same machine reach the
// running server. It has no authentication of its own: the file's mode is the authentication.
type adminSocket struct {
	server *http.Server
	ln     net.Listener
	path   string
	rooms  *rooms
	db     *meta.DB
	dir    *dataDir
	log    *slog.Logger
	of     *Server
	ending context.CancelFunc
}

func (s *Server) openAdminSocket(ctx context.Context) (*adminSocket, error) {
	path, done, err := AdminSocket(s.o.Data)
	if err != nil {
		return nil, err
	}
	defer done()
	// A socket left by a process that was killed; the directory's lock says that it is nobody's.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("the administration socket: %w", err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path may be one through a directory that is closed by then
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	base, cancel := context.WithCancel(context.Background())
	a := &adminSocket{ln: ln, path: s.dir.file("admin.sock"), rooms: s.rooms, db: s.db, dir: s.dir, log: s.log, of: s, ending: cancel}
	a.server = &http.Server{Handler: http.HandlerFunc(a.serve), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	return a, nil
}

func (a *adminSocket) run() error {
	if err := a.server.Serve(a.ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// close ends the followers of the audit, answers what is in flight and takes the socket away.
func (a *adminSocket) close(ctx context.Context) error {
	a.ending()
	err := a.server.Shutdown(ctx)
	_ = a.ln.Close()
	if e := os.Remove(a.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

func (a *adminSocket) serve(w http.ResponseWriter, r *http.Request) {
	defer net500(w, r, a.log)
	if err := a.route(w, r); err != nil {
		f := fault.From(err)
		reply(w, f.Status(), map[string]any{"error": map[string]string{"code": f.Kind.ARM(), "message": a.told(r, f, err)}})
	}
}

// told is what a fault tells; of one that is the server's own, the id under which the log has the cause.
func (a *adminSocket) told(r *http.Request, f *fault.Fault, err error) string {
	if f.Status() < 500 {
		return f.Message
	}
	id := newID()
	a.log.Error("administration request failed", "id", id, "path", r.URL.Path, "error", err)
	return f.Message + " (id " + id + ")"
}

func (a *adminSocket) route(w http.ResponseWriter, r *http.Request) error {
	parts := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
	for i := range parts {
		text, err := url.PathUnescape(parts[i])
		if err != nil {
			return fault.New(fault.BadRequest, "The path cannot be read.")
		}
		parts[i] = text
	}
	if len(parts) < 2 || parts[0] != "v1" {
		return fault.New(fault.NotFound, "There is no %s here.", r.URL.Path)
	}
	switch what := r.Method + " " + parts[1]; {
	case what == "GET audit" && len(parts) == 2:
		return a.audit(w, r)
	case what == "POST keys" && len(parts) == 3 && parts[2] == "rotate":
		return a.rotateKeys(w, r)
	case what == "GET status" && len(parts) == 2:
		return a.status(w, r)
	case what == "POST backups" && len(parts) == 2:
		return a.backup(w, r)
	case what == "POST gc" && len(parts) == 2:
		return a.collect(w, r)
	case what == "POST scrub" && len(parts) == 2:
		return a.scrub(w, r)
	case what == "POST restore" && len(parts) == 3 && parts[2] == "confirm":
		return a.confirm(w, r)
	case parts[1] == "principals":
		return a.principals(w, r, parts[2:])
	}
	return fault.New(fault.NotFound, "There is no %s %s here.", r.Method, r.URL.Path)
}

// audit writes records, one JSON object a line: the newest, oldest first, and with follow=true those that come.
func (a *adminSocket) audit(w http.ResponseWriter, r *http.Request) error {
	q, err := a.query(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	line := func(e audit.Entry) error {
		_, err := w.Write(append(e.Leaf, '\n'))
		return err
	}
	if r.FormValue("follow") != "true" {
		entries, err := a.rooms.audit.Read(r.Context(), q)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if line(e) != nil {
				break // the reader has gone
			}
		}
		return nil
	}
	out := http.NewResponseController(w)
	_ = out.Flush()
	// What ends a follower is its reader or the server's stop; neither is an error that could still be answered.
	_ = a.rooms.audit.Follow(r.Context(), q, func(e audit.Entry) error {
		return errors.Join(line(e), out.Flush())
	})
	return nil
}

func (a *adminSocket) query(r *http.Request) (audit.Query, error) {
	v := r.URL.Query()
	q := audit.Query{Kind: audit.Kind(v.Get("kind")), Outcome: audit.Outcome(v.Get("outcome")), Route: v.Get("route"), Resource: v.Get("resource")}
	for name, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if text := v.Get(name); text != "" {
			t, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return q, fault.New(fault.InvalidParameter, "%s is not a time: %q.", name, clip(text))
			}
			*at = t
		}
	}
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return q, fault.New(fault.InvalidParameter, "limit is not a positive number: %q.", clip(text))
		}
		q.Limit = n
	}
	if registry := strings.ToLower(v.Get("registry")); registry != "" {
		err := a.db.Read(r.Context(), func(tx *meta.Tx) error {
			row, err := tx.RegistryByName(registry)
			q.Registry = row.ID
			return err
		})
		if errors.Is(err, meta.ErrNotFound) {
			return q, fault.New(fault.NotFound, "There is no registry named %q. The records of one that was deleted are found by --resource.", clip(registry))
		}
		if err != nil {
			return q, err
		}
	}
	return q, nil
}

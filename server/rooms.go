// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/network"
)

// rooms are the parts above network: who is calling, what is recorded, what answers.
type rooms struct {
	audit *audit.Log
	ready *readiness
	first firstStart
}

// firstStart is what identity has made, or found: secret is set only when this start made it.
type firstStart struct{ tenant, subscription, client, secret string }

// run does the background work until ctx ends.
func (r *rooms) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (s *Server) openRooms(ctx context.Context, doors *network.Doors) error {
	node, err := s.node()
	if err != nil {
		return err
	}
	r := &rooms{ready: &readiness{}}
	s.rooms = r
	if r.audit, err = audit.New(ctx, audit.Options{DB: s.db, Node: node, Log: s.log}); err != nil {
		return err
	}
	s.closers = append(s.closers, r.audit.Close)
	r.ready.checks = []check{
		{"database", s.db.Ping},
		{"audit", func(context.Context) error { return r.audit.Healthy() }},
	}
	waiting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, s.hosts.Lookup(r.Host).Role, fault.New(fault.Unavailable, "This part of the installation is not there yet."))
	})
	for _, l := range s.listeners {
		if z := l.door.Zone(); z.Kind == network.Public && z.Door == doorAdmin {
			l.handler = r.ready
			continue
		}
		l.handler = &front{hosts: s.hosts, door: l.door, log: s.log, management: waiting, data: waiting}
	}
	return nil
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
	return name, writeFile(path, []byte(name+"\n"), 0o600)
}

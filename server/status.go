// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/egress"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
)

// Status is how a running server is, for people and scripts of its machine.
type Status struct {
	Ready           bool                 `json:"ready"`
	Checks          []Finding            `json:"checks"`
	Version         string               `json:"version"`
	Started         time.Time            `json:"started"`
	PID             int                  `json:"pid"`
	Data            string               `json:"data"`
	Storage         string               `json:"storage"`
	DiskFree        uint64               `json:"diskFreeBytes"`
	DiskTotal       uint64               `json:"diskTotalBytes"`
	Database        string               `json:"database"`
	Schema          int64                `json:"schema"`
	Registries      *int                 `json:"registries"`      // null when the database does not answer
	ExportsDisabled *int                 `json:"exportsDisabled"` // the same
	Content         *blob.Space          `json:"content"`         // the same
	Hold            *egress.Hold         `json:"hold,omitempty"`
	Jobs            map[job.Status]int64 `json:"jobs"`
	AuthorityUntil  time.Time            `json:"authorityUntil"`
	Listeners       []ListenerStatus     `json:"listeners"`
}

// ListenerStatus is a listener that is open.
type ListenerStatus struct {
	Door        string `json:"door"`
	Address     string `json:"address"`
	Registry    string `json:"registry,omitempty"`
	Connections int64  `json:"connections"`
}

func (a *adminSocket) status(w http.ResponseWriter, r *http.Request) error {
	s := a.of
	st := Status{Version: s.o.Version, Started: s.started, PID: os.Getpid(), Data: s.o.Data, Storage: s.o.Storage.shown(), Database: "SQLite", Schema: meta.Schema(), AuthorityUntil: s.ca.Until()}
	if s.db.Postgres() {
		st.Database = "PostgreSQL"
	}
	st.Checks, st.Ready = a.rooms.ready.look(r.Context())
	var err error
	if st.DiskFree, st.DiskTotal, err = diskSpace(s.o.Data); err != nil {
		return err
	}
	if held, err := s.stock(r.Context()); err == nil { // else the checks say that the database does not answer
		all := held.enabled + held.disabled
		st.Registries, st.ExportsDisabled, st.Jobs, st.Content = &all, &held.disabled, held.jobs, &held.space
		if held.hold.Why != "" {
			st.Hold = &held.hold
		}
	}
	for _, l := range s.doorsNow() {
		st.Listeners = append(st.Listeners, ListenerStatus{strings.ToLower(l.want.door), l.door.Addr().String(), l.want.registry, l.door.Open()})
	}
	reply(w, http.StatusOK, st)
	return nil
}

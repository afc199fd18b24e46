// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/backup"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// BackupEvent is a line of the answer to a request for a backup: how far it is, and at the end what was made or why not.
type BackupEvent struct {
	Progress *backup.Progress `json:"progress,omitempty"`
	Snapshot *backup.Snapshot `json:"snapshot,omitempty"`
	Error    *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// localSource is where requests on the socket come from.
func localSource() audit.Source { return audit.Source{Address: "admin.sock", Zone: "local"} }

// backup makes a copy of the running installation. Its answer is a stream of events, because a copy takes its time.
func (a *adminSocket) backup(w http.ResponseWriter, r *http.Request) error {
	var asked struct {
		To         string
		Recipients []string
	}
	if err := body(r, &asked); err != nil {
		return err
	}
	if !filepath.IsAbs(asked.To) {
		return fault.New(fault.InvalidParameter, "The folder for backups must be an absolute path: %q.", clip(asked.To))
	}
	if rel, err := filepath.Rel(a.of.o.Data, asked.To); err == nil && !strings.HasPrefix(rel, "..") {
		return fault.New(fault.InvalidParameter, "The folder for backups %q lies in the data directory: what is lost with the one would be lost with the other. Name another folder, on another disk.", clip(asked.To))
	}
	from, err := a.source(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines, out := json.NewEncoder(w), http.NewResponseController(w)
	tell := func(e BackupEvent) {
		// Who asked may be gone; then the request's context ends the backup.
		_ = errors.Join(lines.Encode(e), out.Flush())
	}
	c := socketCaller()
	snapshot, err := backup.Take(r.Context(), from, backup.Wish{To: asked.To, Recipients: asked.Recipients, Caller: identity.Caller{ID: c.ID, Name: c.Name, Type: "Local"}},
		func(p backup.Progress) { tell(BackupEvent{Progress: &p}) })
	record := audit.Record{Kind: audit.Security, Action: "Embargo.Containment/backup/action", Outcome: audit.Succeeded, Reference: asked.To, Caller: c, Source: localSource(), Resource: "backups/" + snapshot.ID}
	if err != nil {
		f := fault.From(err)
		record.Outcome, record.Reason = audit.Failed, f.Message
		a.rooms.audit.Note(record)
		e := BackupEvent{}
		e.Error = &struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}{f.Kind.ARM(), a.told(r, f, err)}
		tell(e)
		return nil
	}
	a.rooms.audit.Note(record)
	a.log.Info("backup made", "id", snapshot.ID, "to", asked.To, "objects", snapshot.Objects, "bytes", snapshot.Bytes)
	tell(BackupEvent{Snapshot: &snapshot})
	return nil
}

func (a *adminSocket) source(ctx context.Context) (backup.Source, error) {
	key, err := backup.LoadKey(ctx, a.db, a.of.ring)
	from := backup.Source{DB: a.db, Registry: a.rooms.registry, Key: key, Version: a.of.o.Version, Clock: a.of.o.Clock}
	if err != nil {
		return from, err
	}
	return from, a.db.Read(ctx, func(tx *meta.Tx) error {
		var err error
		from.Tenant, err = a.rooms.identity.Tenant(tx)
		return err
	})
}

// The rights that together only an owner has: to confirm, and to give rights to others.
const (
	actionConfirm = "Embargo.Containment/restore/confirm/action"
	actionGive    = "Microsoft.Authorization/roleAssignments/write"
)

// confirm ends a hold. The socket is not enough: an owner's token must come with the request.
func (a *adminSocket) confirm(w http.ResponseWriter, r *http.Request) error {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return fault.New(fault.AuthenticationFailed, "Confirming a restored copy needs the token of an owner: run 'embargo login' first.")
	}
	c, err := a.rooms.identity.Authenticate(r.Context(), token)
	if err != nil {
		return err
	}
	allowed := false
	err = a.db.Read(r.Context(), func(tx *meta.Tx) error {
		subscriptions, err := a.rooms.identity.Subscriptions(tx)
		if err != nil {
			return err
		}
		allowed = len(subscriptions) > 0
		for _, s := range subscriptions {
			for _, action := range []string{actionConfirm, actionGive} {
				may, err := a.rooms.identity.Can(tx, c, action, name.Subscription(s.ID))
				if err != nil {
					return err
				}
				allowed = allowed && may
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !allowed {
		a.rooms.audit.Note(audit.Record{Kind: audit.Security, Action: actionConfirm, Outcome: audit.Refused, Route: "R27", Reason: "The caller is not an owner.",
			Caller: audit.Caller{ID: c.ID, Name: c.Name, Type: string(c.Type), Credential: c.Credential, Tenant: c.Tenant}, Source: localSource()})
		return fault.New(fault.AuthorizationFailed, "The client '%s' may not confirm a restored copy: that takes an owner of the subscription (%s and %s).", c.Name, actionConfirm, actionGive)
	}
	hold, err := a.rooms.gate.Confirm(r.Context(), c, localSource())
	if err != nil {
		return err
	}
	if err := a.of.Reconcile(r.Context()); err != nil { // the hold has ended all the same
		a.log.Error("private endpoints", "error", err)
	}
	a.log.Warn("a restored copy was confirmed: the registries' own policies are in force again", "by", c.Name)
	reply(w, http.StatusOK, map[string]any{"confirmed": hold})
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/blob"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// Collected is what a collection removed, or would remove.
type Collected = blob.Collected

// purging is how often the registries' policies are asked what they delete.
const purging = time.Minute

// purger deletes what the registries' retention and soft delete policies say, until ctx ends.
func (s *Server) purger(ctx context.Context) {
	for tick := time.NewTicker(purging); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		gone, err := s.rooms.registry.Purge(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.log.Error("the policies' deletions did not end; they are tried again", "error", err)
		case gone > 0:
			s.log.Info("manifests were deleted by the registries' policies", "manifests", gone)
		}
	}
}

// collector removes what nothing needs any more, now and then, until ctx ends.
func (s *Server) collector(ctx context.Context) {
	for {
		pause := time.NewTimer(s.limits.collecting())
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		done, err := s.rooms.registry.Collect(ctx, s.limits.grace(), false)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Error("unused content could not be collected; it is tried again", "error", err)
		case done.Content+done.Files+done.Uploads > 0:
			s.log.Info("unused content was collected", "content", done.Content, "bytes", done.ContentBytes, "files", done.Files, "uploads", done.Uploads)
		}
	}
}

// collect runs a collection for the command, and answers what it removed or would remove.
func (a *adminSocket) collect(w http.ResponseWriter, r *http.Request) error {
	var asked struct{ DryRun bool }
	if err := body(r, &asked); err != nil {
		return err
	}
	done, err := a.rooms.registry.Collect(r.Context(), a.of.limits.grace(), asked.DryRun)
	if err != nil {
		return err
	}
	if !asked.DryRun {
		a.rooms.audit.Note(audit.Record{Kind: audit.Security, Action: "Embargo.Containment/collect/action", Outcome: audit.Succeeded, Caller: socketCaller(), Source: localSource(), Resource: "content"})
	}
	reply(w, http.StatusOK, done)
	return nil
}

// ScrubEvent is a line of a scrub's answer: its progress, and at the end what it found or why it failed.
type ScrubEvent struct {
	Found blob.Scrubbed `json:"found"`
	// Held says, at the end, where damaged content belongs: a few repositories of each digest.
	Held  map[name.Digest][]string `json:"held,omitempty"`
	Done  bool                     `json:"done"`
	Error string                   `json:"error,omitempty"`
}

// scrub compares all content with its digests. Its answer is a stream of events, because that takes its time.
func (a *adminSocket) scrub(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines, out := json.NewEncoder(w), http.NewResponseController(w)
	tell := func(e ScrubEvent) {
		// Who asked may be gone; then the request's context ends the scrub.
		_ = errors.Join(lines.Encode(e), out.Flush())
	}
	found, err := a.rooms.registry.Scrub(r.Context(), func(s blob.Scrubbed) { tell(ScrubEvent{Found: s}) })
	e := ScrubEvent{Found: found, Done: true}
	if err != nil {
		e.Error = a.told(r, fault.From(err), err)
	}
	record := audit.Record{Kind: audit.Security, Action: "Embargo.Containment/scrub/action", Outcome: audit.Succeeded, Caller: socketCaller(), Source: localSource(), Resource: "content"}
	e.Held = map[name.Digest][]string{}
	for _, d := range found.Damaged {
		held, unknown := a.rooms.registry.Holders(r.Context(), d)
		if unknown != nil {
			a.log.Warn("who holds damaged content could not be found out", "digest", string(d), "err", unknown)
		}
		e.Held[d] = held
		bad := record
		bad.Outcome, bad.Digest, bad.Reason = audit.Failed, string(d), "The content is damaged on the disk. It is not served until it is pushed again; held by: "+strings.Join(held, ", ")
		a.rooms.audit.Note(bad)
	}
	if err != nil {
		record.Outcome, record.Reason = audit.Failed, e.Error
	}
	if counts, fails := json.Marshal(map[string]any{"content": found.Content, "bytes": found.Bytes, "damaged": len(found.Damaged)}); fails == nil {
		record.After = counts
	}
	a.rooms.audit.Note(record)
	tell(e)
	return nil
}

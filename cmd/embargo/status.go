// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/shape"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/server"
)

func statusCommand() *cobra.Command {
	var a admin
	var p printed
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how the running server is",
		Long:  "Say how the running server of this machine is. The exit code is 0 when it is ready, and 1 when it is not or does not run.",
		Args:  noArgs,
	}
	a.flags(c.Flags())
	c.Flags().StringVarP(&p.format, "output", "o", "text", "Output format: text, "+strings.Join(shape.Formats(), ", "))
	c.Flags().StringVar(&p.query, "query", "", "JMESPath query of the output")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if p.format != "text" {
			if err := p.check(); err != nil {
				return err
			}
		}
		var st server.Status
		if err := a.decode(cmd.Context(), http.MethodGet, "/v1/status", &st); err != nil {
			return err
		}
		var err error
		if p.format == "text" && p.query == "" {
			err = tell(cmd.OutOrStdout(), st)
		} else {
			b, marshalErr := json.Marshal(st)
			if marshalErr != nil {
				return marshalErr
			}
			v, decodeErr := shape.Decode(b)
			if decodeErr != nil {
				return decodeErr
			}
			if p.format == "text" {
				p.format = "json"
			}
			err = p.write(cmd, v)
		}
		if err == nil && !st.Ready {
			err = fmt.Errorf("the server is not ready")
		}
		return err
	}
	return c
}

// tell writes a status for people.
func tell(w io.Writer, st server.Status) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s "+format+"\n", append([]any{name}, args...)...)
	}
	state := "ready"
	if !st.Ready {
		state = "NOT READY"
	}
	line("Server", "%s, version %s, up %s, pid %d", state, st.Version, time.Since(st.Started).Round(time.Second), st.PID)
	for _, c := range st.Checks {
		if !c.OK {
			line("  "+c.Name, "FAILS: %s", c.Reason)
		}
	}
	line("Data", "%s, %s free of %s", st.Data, size(int64(st.DiskFree)), size(int64(st.DiskTotal)))
	if st.Storage != "fs" {
		line("Storage", "%s", st.Storage)
	}
	line("Database", "%s, schema %d", st.Database, st.Schema)
	if st.Registries == nil {
		line("Registries", "not known: the database does not answer")
	} else {
		line("Registries", "%d, of which %d have exports disabled", *st.Registries, *st.ExportsDisabled)
	}
	if c := st.Content; c != nil {
		line("Content", "%d objects, %s, of which %s wait to be collected; %s, %s", c.Objects, size(c.Bytes), size(c.Unused), some(c.Uploads, "unfinished upload"), size(c.UploadBytes))
	}
	if st.Content != nil && st.Content.Damaged > 0 {
		line("DAMAGED", "%s of content: 'embargo scrub' names them. They are not served until they are pushed again.", some(st.Content.Damaged, "piece"))
	}
	if st.Hold != nil {
		line("HELD", "since %s: %s.", st.Hold.Since.Format(time.RFC3339), st.Hold.Why)
		line("", "Nothing is exported, and the public side and the private endpoints are shut, until an owner runs 'embargo restore confirm'. That puts in force:")
		for _, p := range st.Hold.Own {
			line("", "  %s", own(p))
		}
	}
	line("Jobs", "%d running, %d waiting, %d failed in the last 24 hours", st.Jobs["Running"], st.Jobs["Accepted"], st.Jobs["Failed"])
	line("Authority", "until %s", st.AuthorityUntil.Format("2006-01-02"))
	for _, l := range st.Listeners {
		what := l.Door
		if l.Registry != "" {
			what = "private"
		}
		text := fmt.Sprintf("%s, %d connections", l.Address, l.Connections)
		if l.Registry != "" {
			text += ", for the registry " + l.Registry
		}
		line("Listener", "%-8s %s", what, text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// own says in a line what a held registry's own policy is.
func own(p meta.OwnPolicy) string {
	state := map[bool]string{true: "enabled", false: "disabled"}
	what := "stays closed"
	if p.Exports || p.PublicAccess || len(p.Endpoints) > 0 {
		what = "OPENS"
	}
	text := fmt.Sprintf("%s %s: exports %s, public network access %s", p.Registry, what, state[p.Exports], state[p.PublicAccess])
	if len(p.Endpoints) > 0 {
		text += ", private endpoints " + strings.Join(p.Endpoints, ", ")
	}
	return text
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/embargo-registry/embargo/server"
)

func gcCommand() *cobra.Command {
	var a admin
	var dry bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove content that nothing needs any more",
		Long: "Have the running server remove content that nothing needs any more: what no repository holds, files that a crash left, uploads nobody went on with. The server does so by itself\n" +
			"now and then (gcInterval); pushes and pulls go on meanwhile. Content is marked when it is first found unused, and removed when it still is after gcGrace.",
		Args: noArgs,
	}
	a.flags(c.Flags())
	c.Flags().BoolVar(&dry, "dry-run", false, "Say what would be removed now, and remove nothing")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var done server.Collected
		if err := a.send(cmd.Context(), http.MethodPost, "/v1/gc", map[string]any{"dryRun": dry}, &done); err != nil {
			return err
		}
		what := "Removed"
		if dry {
			what = "Would remove"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s %s of content (%s), %s (%s) and %s.\n", what, some(int64(done.Content), "piece"), size(done.ContentBytes), some(int64(done.Files), "file")+" that no row names", size(done.FileBytes),
			some(int64(done.Uploads), "upload")+" that nobody went on with")
		if done.Waiting > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "Unused too, and kept for the rest of gcGrace: %s of content (%s).\n", some(int64(done.Waiting), "piece"), size(done.WaitingBytes))
		}
		return nil
	}
	return c
}

func scrubCommand() *cobra.Command {
	var a admin
	c := &cobra.Command{
		Use:   "scrub",
		Short: "Compare all content with its digests",
		Long: "Have the running server read all content and compare it with its digests. What is damaged or gone is named, is not served any more, and is healed by a push of the same content.\n" +
			"The exit code is 1 when something is damaged.",
		Args: noArgs,
	}
	a.flags(c.Flags())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		answer, err := a.do(cmd.Context(), http.MethodPost, "/v1/scrub", nil)
		if err != nil {
			return err
		}
		lines := json.NewDecoder(answer)
		var e server.ScrubEvent
		for !e.Done {
			e = server.ScrubEvent{}
			if err := lines.Decode(&e); err != nil {
				return errors.Join(errors.New("the server ended before the scrub did"), answer.Close())
			}
		}
		if err := answer.Close(); err != nil {
			return err
		}
		if e.Error != "" {
			return errors.New(e.Error)
		}
		for _, d := range e.Found.Damaged {
			held := "held by no repository any more"
			if list := e.Held[d]; len(list) > 0 {
				held = "held by " + strings.Join(list, ", ")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "damaged: %s, %s\n", d, held)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Read %s of content, %s: %s damaged.\n", some(int64(e.Found.Content), "piece"), size(e.Found.Bytes), are(len(e.Found.Damaged)))
		if len(e.Found.Damaged) > 0 {
			return errors.New("push the damaged content again: it is not served until then")
		}
		return nil
	}
	return c
}

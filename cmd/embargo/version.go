// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and commit are set by the build (-ldflags "-X main.version=…"). Without commit it is the one that the go command
// stamped, which it does in a clone but not in a work tree or an archive.
var version, commit = "dev", ""

func versionCommand() *cobra.Command {
	var p printed
	c := &cobra.Command{Use: "version", Short: "Print the version, the commit, and what built it",
		Long: "Print the version, the commit, and what built it: plain lines without --output.", Args: noArgs}
	p.flags(c.Flags(), "")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		commit := commit
		if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
			commit = commitOf(info)
		}
		platform := runtime.GOOS + "/" + runtime.GOARCH
		if p.format == "" && p.query == "" {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "embargo %s\ncommit %s\ngo %s\nplatform %s\n", version, commit, runtime.Version(), platform)
			return err
		}
		if p.format == "" {
			p.format = "json"
		}
		return p.write(cmd, map[string]any{"version": version, "commit": commit, "go": runtime.Version(), "platform": platform})
	}
	return c
}

// commitOf is the commit that the go command stamped, with a mark when the tree held changes besides.
func commitOf(info *debug.BuildInfo) string {
	commit, modified := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "-dirty"
		}
	}
	return commit + modified
}

// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// serverCommands are those that say why there is no server here.
func serverCommands() []*cobra.Command {
	return []*cobra.Command{{
		Use: "serve", Short: "Start an installation (on Linux only)", DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("the server runs on Linux; on this system embargo has the client commands only")
		},
	}}
}

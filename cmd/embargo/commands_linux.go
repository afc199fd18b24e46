// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

// serverCommands start the server or speak to the one of the same machine, so they are where it runs: on Linux.
func serverCommands() []*cobra.Command {
	return []*cobra.Command{networkCommand(), serveCommand(), principalCommand(), keysCommand(), auditCommand(), backupCommand(), restoreCommand(), configCommand(), statusCommand(), gcCommand(), scrubCommand()}
}

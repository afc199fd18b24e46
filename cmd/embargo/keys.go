// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/embargo-registry/embargo/server"
)

func keysCommand() *cobra.Command {
	var what string
	var finish, revoke bool
	rotate := ask("rotate [signing|authority|installation]", "Replace keys while clients are connected", "json", "", func(_ *cobra.Command, args []string) error {
		what = "signing"
		if len(args) > 1 {
			return usage("one of signing, authority and installation is rotated at a time")
		}
		if len(args) == 1 {
			what = args[0]
		}
		if what != "signing" && what != "authority" && what != "installation" {
			return usage("%q is none of signing, authority and installation", what)
		}
		if finish && what != "authority" {
			return usage("--finish belongs to the rotation of the authority")
		}
		if revoke && what != "signing" {
			return usage("--revoke belongs to the rotation of the signing key")
		}
		return nil
	}, func([]string) (string, string, any) {
		return http.MethodPost, "/v1/keys/rotate", map[string]any{"what": what, "finish": finish, "revoke": revoke}
	}, func(f *pflag.FlagSet) {
		f.BoolVar(&revoke, "revoke", false, "signing: void every token that was signed before, at once")
		f.BoolVar(&finish, "finish", false, "authority: issue certificates by the new authority from now on, and stop publishing the old one")
	})
	rotate.Long = `Replace keys while clients are connected.

signing       a new key signs tokens; those signed before stay valid until they expire (the default), or are void at once with --revoke
authority     the first call makes the next certificate authority and publishes it in ca.pem beside the one in use; when clients have the
              new ca.pem, --finish issues certificates by the next authority and retires the old one
installation  a new installation key seals every secret anew, and a new backup key is made; older installation keys stay in the file, because they
              open the backups made so far. Copy the file to where you keep it`
	return group("keys", "Manage the installation's keys", rotate, resetCommand())
}

func resetCommand() *cobra.Command {
	accept := false
	c := &cobra.Command{
		Use:   "reset",
		Short: "Go on without a lost installation key",
		Long:  "Remove the secrets that the installation key does not open and go on with a new key. No server may run. Content, policies, rights and principals stay. 'embargo serve' says what is lost.",
		Args:  noArgs,
	}
	declareSome(c.Flags(), "data", "database", "installationKey", "logLevel", "logFormat")
	c.Flags().BoolVar(&accept, "accept-loss", false, "Yes, remove them")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if !accept {
			return usage("--accept-loss is needed: what the lost key sealed is removed for good")
		}
		s, err := load(cmd.Flags(), os.LookupEnv)
		if err != nil {
			return usageError{err}
		}
		s.server.Log = logger(s, s.logLevel, cmd.ErrOrStderr())
		lost, err := server.ResetKeys(cmd.Context(), s.server)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Removed:\n  - %s\n", strings.Join(lost, "\n  - "))
		return nil
	}
	return c
}

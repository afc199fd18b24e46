// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/embargo-registry/embargo/server"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Start an installation",
		Long: "Start an installation: resource manager, authority and registries on one TLS port, and a CONNECT proxy by which clients reach them without DNS.\n" +
			"The first start makes everything it needs in the data directory. Each flag can also be set in the environment or in a YAML file (--config);\n" +
			"certificates and privateListeners can be set only there. docs/configuration.md lists every key.",
		Args: noArgs,
	}
	c.Flags().SortFlags = false
	declare(c.Flags())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(cmd.Flags(), os.LookupEnv)
		if err != nil {
			return usageError{err}
		}
		o := s.server
		o.Version = version
		o.Log = logger(s, cmd.ErrOrStderr())
		srv, err := server.New(cmd.Context(), o)
		if err != nil {
			return err
		}
		welcome(cmd.OutOrStdout(), srv.Welcome())
		return srv.Run(cmd.Context())
	}
	return c
}

func logger(s settings, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// welcome says plainly what was made and what to do next.
func welcome(w io.Writer, v server.Welcome) {
	if v.First {
		fmt.Fprintf(w, `Embargo has made a new installation in %s:

  certificate authority  %s (clients must trust it)
  tenant                 %s
  subscription           %s
  service principal      %s
  its secret             %s
                         (shown only now; kept in %s, readable by you alone)
  installation key       %s (seals secrets in the database: back it up, keep it apart from the database)

`, v.Data, v.Credentials.CAFile, v.Credentials.TenantID, v.Credentials.SubscriptionID, v.Credentials.ClientID, v.Credentials.ClientSecret, v.CredentialsFile, v.InstallationKey)
	}
	fmt.Fprintf(w, "Resource manager  %s\n", v.Credentials.ResourceManager)
	fmt.Fprintf(w, "Registries        https://NAME%s\n", v.RegistryAuthority)
	if v.Credentials.Proxy != "" {
		fmt.Fprintf(w, "Proxy             %s (the way to these names without DNS)\n", v.Credentials.Proxy)
	}
	if v.Listening.Admin != "" {
		fmt.Fprintf(w, "Health            http://%s/healthz and /readyz\n", v.Listening.Admin)
	}
	for _, p := range v.Listening.Private {
		fmt.Fprintf(w, "Private listener  %s for the registry %s\n", p.Address, p.Registry)
	}
	if v.First {
		fmt.Fprintf(w, `
What to do next, in another terminal:

  eval "$(%[1]s connect az --data %[2]s)"       # points the Azure CLI here and logs in
  az group create --name myResourceGroup --location centralus
  az acr create --resource-group myResourceGroup --name myregistry --sku Premium

or without the Azure CLI:

  %[1]s login --credentials %[3]s
  %[1]s resource list

`, program(), quote(v.Data), quote(v.CredentialsFile))
	}
}

// program is how the user called this program.
func program() string {
	if len(os.Args) > 0 && os.Args[0] != "" {
		return quote(os.Args[0])
	}
	return "embargo"
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/embargo-registry/embargo/redact"
	"github.com/embargo-registry/embargo/server"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Start an installation",
		Long: "Start an installation: resource manager, authority and registries on one TLS port, and a CONNECT proxy by which clients reach them without DNS.\n" +
			"The first start makes everything it needs in the data directory. Each flag can also be set in the environment or in a YAML file (--config);\n" +
			"certificates, acme, webhooks, upstreams, privateListeners, virtualNetworks and dns can be set only there. docs/configuration.md lists every key.",
		Args: noArgs,
	}
	c.Flags().SortFlags = false
	declare(c.Flags())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(cmd.Flags(), os.LookupEnv)
		if err != nil {
			return usageError{err}
		}
		roomyHeap()
		o := s.server
		o.Version = version
		level := new(slog.LevelVar)
		level.Set(s.logLevel)
		o.Log = logger(s, level, cmd.ErrOrStderr())
		srv, err := server.New(cmd.Context(), o)
		if err != nil {
			return s.named(err)
		}
		welcome(cmd.OutOrStdout(), srv.Welcome())
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		reloading, stop := context.WithCancel(cmd.Context())
		defer stop()
		go func() {
			for {
				select {
				case <-reloading.Done():
					return
				case <-hangups:
					reload(reloading, cmd.Flags(), srv, s.logFormat, level, o.Log)
				}
			}
		}()
		debug.FreeOSMemory() // what the start has used is not needed any more
		return srv.Run(cmd.Context())
	}
	return c
}

// reload reads the configuration again. What is wrong changes nothing, and is logged with its place.
func reload(ctx context.Context, flags *pflag.FlagSet, srv *server.Server, format string, level *slog.LevelVar, log *slog.Logger) {
	s, err := load(flags, os.LookupEnv)
	if err == nil && s.logFormat != format {
		err = s.named(&server.OptionError{Key: "logFormat", Err: errors.New("it can't change while the server runs: restart it, or put the value back")})
	}
	if err == nil {
		err = s.named(srv.Reload(ctx, s.server))
	}
	if err != nil {
		log.Error("the configuration was not reloaded: nothing was changed", "error", err)
		return
	}
	level.Set(s.logLevel)
}

func configCommand() *cobra.Command {
	check := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration that 'embargo serve' would have with the same flags, environment and file",
		Args:  noArgs,
	}
	check.Flags().SortFlags = false
	declare(check.Flags())
	check.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(cmd.Flags(), os.LookupEnv)
		if err == nil {
			err = s.named(server.Check(s.server))
		}
		if err != nil {
			return err
		}
		for _, w := range server.Warnings(s.server) {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", s.named(w))
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "The configuration is good.")
		return err
	}
	return group("config", "Look at the configuration", check)
}

// logger makes the one log of the program: no record reaches it but through redact.
func logger(s settings, level slog.Leveler, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	var form slog.Handler = slog.NewTextHandler(w, o)
	if s.logFormat == "json" {
		form = slog.NewJSONHandler(w, o)
	}
	return slog.New(redact.Handler(form))
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
		fmt.Fprintf(w, "Health            http://%s/healthz, /readyz and /metrics\n", v.Listening.Admin)
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

// SPDX-License-Identifier: Apache-2.0

// Command embargo is the registry and its clients in one binary: `embargo serve` starts an installation, the other commands
// speak to one. What needs the server's packages is built for Linux only. Only this package knows flags, the environment and
// the configuration file; everything else takes Options.
//
// Errors go to standard error. The exit code is 0, 1 when something failed, 2 when the command was not understood, and 3
// when the resource does not exist.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/armclient"
	"github.com/embargo-registry/embargo/dial"
)

func main() {
	dial.RefuseDefaults()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// streams are a command's input, output and errors.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// usageError is a command line that was not understood.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run executes a command line and gives its exit code.
func run(ctx context.Context, args []string, s streams) int {
	root := &cobra.Command{
		Use:           "embargo",
		Short:         "A container registry that lets artifacts leave only as its policies say",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          func(_ *cobra.Command, args []string) error { return unknown(args) },
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd == root && len(args) > 0 && !strings.HasPrefix(args[0], "-") { // its flags are unknown because the command is
			return unknown(args)
		}
		return usageError{err}
	})
	root.AddCommand(serverCommands()...)
	root.AddCommand(connectCommand(), loginCommand(), logoutCommand(), resourceCommand(), versionCommand())
	root.SetArgs(gather(args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(s.err, "ERROR: "+err.Error())
	var u usageError
	var refused *armclient.Error
	switch {
	case errors.As(err, &u):
		fmt.Fprintln(s.err, "See 'embargo --help' and 'embargo COMMAND --help'.")
		return 2
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return 3
	}
	return 1
}

func unknown(args []string) error {
	if len(args) > 0 {
		return usage("there is no command %q", args[0])
	}
	return nil
}

// noArgs refuses arguments that belong to no flag.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("unrecognized arguments: %s", strings.Join(args, " "))
	}
	return nil
}

// group is a command that only holds others.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short,
		Args: func(_ *cobra.Command, args []string) error { return unknown(args) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(below...)
	return c
}

// separator stands between the words that follow one flag.
const separator = "\x00"

// gather joins the words that follow a flag which takes several ("--set a=1 b=2"), in the manner of Azure's command line,
// into one value, because flags here take one.
func gather(args []string) []string {
	if len(args) == 0 || args[0] != "resource" {
		return args
	}
	many := map[string]bool{"--set": true, "--add": true, "--remove": true, "--ids": true}
	var out []string
	for i := 0; i < len(args); i++ {
		flag, value, has := strings.Cut(args[i], "=")
		if !many[flag] {
			out = append(out, args[i])
			continue
		}
		var words []string
		if has {
			words = append(words, value)
		}
		for i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			i++
			words = append(words, args[i])
		}
		if len(words) == 0 {
			out = append(out, flag)
			continue
		}
		out = append(out, flag+"="+strings.Join(words, separator))
	}
	return out
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/armclient"
	"github.com/embargo-registry/embargo/cmd/embargo/internal/shape"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/server"
)

// admin speaks to the running server of a data directory over its socket, which only the server's user may open.
type admin struct{ data, token string }

// as is the same with a principal's token, for what the socket alone does not permit.
func (a *admin) as(token string) *admin { return &admin{a.data, token} }

func (a *admin) flags(f *pflag.FlagSet) {
	fallback := os.Getenv("EMBARGO_DATA")
	if fallback == "" {
		fallback = "./embargo-data"
	}
	f.StringVar(&a.data, "data", fallback, "Data directory of the running server. Environment: EMBARGO_DATA")
}

// do sends a request and gives the body of the answer, which the caller closes.
func (a *admin) do(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	socket, done, err := server.AdminSocket(a.data)
	if err != nil {
		return nil, err
	}
	defer done()
	d, err := dial.New(dial.Options{Rules: map[dial.Purpose]dial.Rule{dial.AdminSocket: {To: []string{socket}}}})
	if err != nil {
		return nil, err
	}
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://embargo"+path, payload)
	if err != nil {
		return nil, err
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := d.Client(dial.AdminSocket, dial.ClientOptions{Socket: socket}).Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("no server runs on %s: start it with 'embargo serve --data %s', or name another directory with --data", a.data, a.data)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%s belongs to another user: only the user who runs the server may do this", a.data)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 400 {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var w struct {
		Error struct{ Code, Message string } `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&w); err != nil {
		return nil, fmt.Errorf("the server answered %s", resp.Status)
	}
	return nil, &armclient.Error{Status: resp.StatusCode, Code: w.Error.Code, Message: w.Error.Message}
}

// value sends a request and decodes the answer.
func (a *admin) value(ctx context.Context, method, path string, body any) (any, error) {
	r, err := a.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return nil, err
	}
	return shape.Decode(b)
}

// decode sends a request and decodes the answer into v.
func (a *admin) decode(ctx context.Context, method, path string, v any) error {
	return a.send(ctx, method, path, nil, v)
}

// send is decode with a body.
func (a *admin) send(ctx context.Context, method, path string, body, v any) error {
	r, err := a.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	return errors.Join(json.NewDecoder(r).Decode(v), r.Close())
}

// ask is a command that sends one request and prints the answer. columns is the query that a table shows, "" for all.
func ask(use, short, fallback, columns string, args cobra.PositionalArgs, request func(args []string) (method, path string, body any), more ...func(*pflag.FlagSet)) *cobra.Command {
	var a admin
	var p printed
	c := &cobra.Command{Use: use, Short: short, Args: args}
	a.flags(c.Flags())
	p.flags(c.Flags(), fallback)
	for _, m := range more {
		m(c.Flags())
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := p.check(); err != nil {
			return err
		}
		method, path, body := request(args)
		v, err := a.value(cmd.Context(), method, path, body)
		if err != nil || v == nil {
			return err
		}
		if p.format == "table" && p.query == "" {
			p.query = columns
		}
		return p.write(cmd, v)
	}
	return c
}

// oneID takes the id of a principal as the only argument.
func oneID(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usage("the id, client id or name of one principal is needed")
	}
	return nil
}

func principalCommand() *cobra.Command {
	var name, kind, password string
	of := func(method, verb string) func([]string) (string, string, any) {
		return func(args []string) (string, string, any) {
			path := "/v1/principals/" + url.PathEscape(args[0])
			if verb != "" {
				path += "/" + verb
			}
			return method, path, nil
		}
	}
	create := ask("create", "Create a principal; its secret is printed once", "json", "", noArgs,
		func([]string) (string, string, any) {
			return http.MethodPost, "/v1/principals", map[string]string{"name": name, "kind": kind, "password": password}
		},
		func(f *pflag.FlagSet) {
			f.StringVarP(&name, "name", "n", "", "Name (required)")
			f.StringVar(&kind, "kind", "servicePrincipal", "servicePrincipal, user or managedIdentity")
			f.StringVarP(&password, "password", "p", "", "user: the password, at least 12 characters; '-' reads a line from standard input (default: one is generated)")
		})
	created := create.RunE
	create.RunE = func(cmd *cobra.Command, args []string) error {
		if name == "" {
			return usage("the following arguments are required: --name/-n")
		}
		if password == "-" {
			var err error
			if password, err = line(cmd.InOrStdin()); err != nil {
				return err
			}
		}
		return created(cmd, args)
	}
	return group("principal", "Manage who may log in (speaks to the server of the same machine)",
		create,
		ask("list", "List principals", "table", "[].{name:name,kind:type,clientId:appId,objectId:id,enabled:enabled,secrets:length(secrets || `[]`)}", noArgs, func([]string) (string, string, any) { return http.MethodGet, "/v1/principals", nil }),
		ask("rotate PRINCIPAL", "Give a principal a new secret, printed once; the one before stays valid until the next rotation", "json", "", oneID, of(http.MethodPost, "rotate")),
		ask("disable PRINCIPAL", "Refuse a principal from now on, with the tokens it holds", "json", "", oneID, of(http.MethodPost, "disable")),
		ask("enable PRINCIPAL", "Admit a disabled principal again", "json", "", oneID, of(http.MethodPost, "enable")),
		ask("delete PRINCIPAL", "Delete a principal", "json", "", oneID, of(http.MethodDelete, "")))
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
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
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/armclient"
	"github.com/embargo-registry/embargo/cmd/embargo/internal/shape"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/server"
)

// admin speaks to the running server of a data directory over its socket, which only the server's user may open.
type admin struct{ data string }

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

func keysCommand() *cobra.Command {
	return group("keys", "Manage the keys that sign tokens",
		ask("rotate", "Sign with a new key; the one before stays valid for the tokens it signed", "json", "", noArgs,
			func([]string) (string, string, any) { return http.MethodPost, "/v1/keys/rotate", nil }))
}

func auditCommand() *cobra.Command {
	var (
		a                                             admin
		p                                             printed
		follow                                        bool
		registry, resource, since, until, kind, route string
		outcome                                       string
		limit                                         int
	)
	c := &cobra.Command{Use: "audit", Short: "Print the record of decisions and changes", Args: noArgs}
	f := c.Flags()
	a.flags(f)
	p.flags(f, "table")
	f.BoolVarP(&follow, "follow", "f", false, "Go on printing as records are made")
	f.StringVar(&registry, "registry", "", "Only those of this registry (name)")
	f.StringVar(&resource, "resource", "", "Only those about this resource id")
	f.StringVar(&kind, "kind", "", "Only change, decision, login or security")
	f.StringVar(&outcome, "outcome", "", "Only allowed, refused, completed, aborted, succeeded or failed")
	f.StringVar(&route, "route", "", "Only decisions about this route, e.g. R1")
	f.StringVar(&since, "since", "", "Only those since a time (RFC 3339) or a duration ago (90m)")
	f.StringVar(&until, "until", "", "Only those before a time (RFC 3339) or a duration ago")
	f.IntVar(&limit, "limit", 100, "At most so many, the newest")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.check(); err != nil {
			return err
		}
		q := url.Values{"limit": {fmt.Sprint(limit)}}
		for name, v := range map[string]string{"registry": registry, "resource": resource, "kind": kind, "outcome": outcome, "route": route} {
			if v != "" {
				q.Set(name, v)
			}
		}
		for name, v := range map[string]string{"since": since, "until": until} {
			at, err := moment(v)
			if err != nil {
				return usage("argument --%s: %v", name, err)
			}
			if at != "" {
				q.Set(name, at)
			}
		}
		if follow {
			q.Set("follow", "true")
		}
		r, err := a.do(cmd.Context(), http.MethodGet, "/v1/audit?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		return printAudit(cmd, p, r, follow)
	}
	return c
}

func moment(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d).UTC().Format(time.RFC3339Nano), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return "", fmt.Errorf("%q is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 90m", s)
	}
	return t.Format(time.RFC3339Nano), nil
}

// printAudit prints records, one JSON object a line in r: line by line when they are followed, else all together.
func printAudit(cmd *cobra.Command, p printed, r io.Reader, follow bool) error {
	lines := bufio.NewReader(r)
	all := []any{}
	out := cmd.OutOrStdout()
	if follow && p.format == "table" {
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf(auditRow, "Time", "Outcome", "Route", "Action", "What", "Caller", "From", "Reason"), " "))
	}
	for {
		text, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(text)) > 0 {
			v, err := shape.Decode(text)
			if err != nil {
				return err
			}
			switch {
			case !follow:
				all = append(all, v)
			case p.format == "table":
				row, _ := v.(map[string]any)
				a := auditLine(row)
				fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf(auditRow, a...), " "))
			default:
				if err := compact(out, v, p); err != nil {
					return err
				}
			}
		}
		if err == io.EOF || cmd.Context().Err() != nil {
			break
		}
		if err != nil {
			return err
		}
	}
	if follow {
		return nil
	}
	if p.format == "table" && p.query == "" {
		rows := make([]any, 0, len(all))
		for _, v := range all {
			row, _ := v.(map[string]any)
			a := auditLine(row)
			rows = append(rows, []any{a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]})
		}
		return shape.Table(out, []string{"Time", "Outcome", "Route", "Action", "What", "Caller", "From", "Reason"}, rows)
	}
	return p.write(cmd, all)
}

const auditRow = "%-24s  %-9s  %-5s  %-60s  %-50s  %-20s  %-22s  %s"

// compact writes one record on one line when the format is json, else as the format is.
func compact(w io.Writer, v any, p printed) error {
	if p.format != "json" || p.query != "" {
		return shape.Write(w, v, p.format, p.query)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// auditLine is a record's row of a table.
func auditLine(row map[string]any) []any {
	get := func(names ...string) string {
		var v any = row
		for _, n := range names {
			m, ok := v.(map[string]any)
			if !ok {
				return ""
			}
			v = m[n]
		}
		if v == nil {
			return ""
		}
		return fmt.Sprint(v)
	}
	what := get("loginServer")
	if repository := get("repository"); repository != "" {
		what += "/" + repository
		if reference := get("reference"); strings.Contains(reference, ":") {
			what += "@" + reference
		} else if reference != "" {
			what += ":" + reference
		}
	}
	if what == "" {
		what = get("resource")
	}
	from := get("source", "zone")
	if address := get("source", "address"); address != "" {
		from = address + " " + from
	}
	caller := get("caller", "name")
	if caller == "" {
		caller = get("caller", "id")
	}
	return []any{get("time"), get("outcome"), get("route"), get("action"), what, caller, from, get("reason")}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/shape"
)

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

// printAudit prints records, one JSON object a line in r, each as it comes; what isn't a line of its own (YAML, a query's answer)
// is printed when all are there, unless they are followed.
func printAudit(cmd *cobra.Command, p printed, r io.Reader, follow bool) error {
	lines := bufio.NewReader(r)
	all := []any{}
	out := cmd.OutOrStdout()
	table := p.format == "table" && p.query == ""
	if table {
		writeAuditRow(out, "Time", "Outcome", "Route", "Action", "What", "Caller", "From", "Reason")
	}
	for {
		text, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(text)) > 0 {
			v, err := shape.Decode(text)
			if err != nil {
				return err
			}
			row, _ := v.(map[string]any)
			switch {
			case table:
				writeAuditRow(out, auditLine(row)...)
			case !follow:
				all = append(all, v)
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
	if follow || table {
		return nil
	}
	return p.write(cmd, all)
}

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

// writeAuditRow writes a line of the table. Control characters are shown, not sent: a record holds what clients wrote.
func writeAuditRow(w io.Writer, cells ...string) {
	for i, c := range cells {
		cells[i] = strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return unicode.ReplacementChar
		}, c)
	}
	widths := []int{24, 9, 5, 37, 62, 16, 30, 0}
	var b strings.Builder
	for i, c := range cells {
		fmt.Fprintf(&b, "%-*s  ", widths[i], c)
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
}

// auditLine is a record's row of the table. Ids, digests and actions are shortened; -o json has them whole.
func auditLine(row map[string]any) []string {
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
	if _, path, request := strings.Cut(get("reference"), " /"); request {
		what += "/" + path
	} else if repository := get("repository"); repository != "" {
		what += "/" + repository
		digest := get("digest")
		if reference := get("reference"); strings.HasPrefix(reference, "sha") && strings.Contains(reference, ":") {
			digest = reference
		} else if reference != "" {
			what += ":" + reference
		}
		if digest != "" {
			what += "@" + digest[:min(len(digest), len("sha256:")+12)]
		}
	}
	if what == "" {
		what = shortID(get("resource"))
	}
	from := get("source", "zone")
	if address := get("source", "address"); address != "" {
		from = address + " " + from
	}
	caller := get("caller", "name")
	if caller == "" {
		caller = get("caller", "id")
	}
	at := get("time")
	if t, err := time.Parse(time.RFC3339Nano, at); err == nil {
		at = t.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	action := get("action")
	if provider, rest, ok := strings.Cut(action, "/"); ok && strings.Contains(provider, ".") {
		action = rest
	}
	reason := get("reason")
	if n := get("count"); n != "" && n != "1" {
		reason = strings.TrimSpace(n + " times " + reason)
	}
	return []string{at, get("outcome"), get("route"), action, what, caller, from, reason}
}

// shortID is an ARM id without its subscription and without this provider's name: myGroup/registries/myregistry.
func shortID(id string) string {
	parts := strings.SplitN(id, "/", 6)
	if len(parts) < 5 || !strings.EqualFold(parts[3], "resourceGroups") {
		return id
	}
	if len(parts) == 5 {
		return parts[4]
	}
	return parts[4] + "/" + strings.TrimPrefix(parts[5], "providers/Microsoft.ContainerRegistry/")
}

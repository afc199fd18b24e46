// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/armclient"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/server"
)

// way is how `embargo network check` reaches a registry.
type way struct {
	data, at, proxy, ca string
	plain               bool
}

func networkCommand() *cobra.Command {
	var w way
	c := &cobra.Command{
		Use:   "check REGISTRY",
		Short: "Say how this client is seen by a registry: zone, address, and the rule that admits or refuses",
		Long: "Say how this client is seen by a registry: zone, address, and the rule that admits or refuses.\n\nREGISTRY is a name or a login server. The question goes the way that a client's would: by the CONNECT proxy of " +
			"the data directory's installation, by --proxy, or straight to --at (an endpoint's address, say).",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("the name of one registry is needed")
			}
			return nil
		},
	}
	fallback := os.Getenv("EMBARGO_DATA")
	if fallback == "" {
		fallback = "./embargo-data"
	}
	c.Flags().StringVar(&w.data, "data", fallback, "Data directory of the installation. Environment: EMBARGO_DATA")
	c.Flags().StringVar(&w.at, "at", "", "Connect to this host:port, and not by a proxy")
	c.Flags().StringVar(&w.proxy, "proxy", "", "Connect by the CONNECT proxy at this host:port")
	c.Flags().StringVar(&w.ca, "ca", "", "PEM file of the authorities to trust (default: the installation's)")
	c.Flags().BoolVar(&w.plain, "plain", false, "Without TLS, for a door that has none")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		seen, err := w.ask(cmd.Context(), strings.ToLower(args[0]))
		if err != nil {
			return err
		}
		state := "refused"
		if seen.Admitted {
			state = "admitted"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%-9s %s\n%-9s %s\n%-9s %s\n%-9s %s\n%s\n", "zone", seen.Zone, "address", seen.Address, "access", state, "rule", seen.Rule, seen.Why)
		if err == nil && !seen.Admitted {
			err = errors.New("the registry does not admit this client")
		}
		return err
	}
	return group("network", "Networks", c)
}

// ask makes the connection and asks.
func (w way) ask(ctx context.Context, registry string) (seen server.Seen, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	known, err := armclient.ReadCredentials(filepath.Join(w.data, "credentials.json"))
	if err != nil && (w.at == "" && w.proxy == "" || !strings.Contains(registry, ".")) {
		return seen, err
	}
	registry, assumed := loginServer(ctx, known, registry)
	defer func() {
		if err == nil && !seen.Admitted {
			tellApart(ctx, known, registry, &seen)
		}
		if err == nil && !seen.Admitted && assumed != nil {
			seen.Why += fmt.Sprintf("\nThe login server could not be looked up (%v), so %s was asked: a registry with a scope in its login server is to be named by that.", assumed, registry)
		}
	}()
	if w.ca == "" {
		w.ca = known.CAFile
	}
	if u, err := url.Parse(known.Proxy); err == nil && w.proxy == "" && w.at == "" {
		w.proxy = u.Host
	}
	to := w.at
	if to == "" {
		to = net.JoinHostPort(registry, "443")
	}
	first := to
	if w.proxy != "" {
		first = w.proxy
	}
	d, err := dial.New(dial.Options{Rules: map[dial.Purpose]dial.Rule{dial.ResourceManager: {To: []string{first}, Inside: true}}})
	if err != nil {
		return seen, err
	}
	conn, err := d.Func(dial.ResourceManager)(ctx, "tcp", first)
	if err != nil {
		return seen, err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	return w.over(conn, to, registry)
}

// tellApart says which rule refuses a client on the public side, to one who is logged in and may read the registry. The server tells nobody else.
func tellApart(ctx context.Context, known armclient.Credentials, registry string, seen *server.Seen) {
	if !strings.HasPrefix(seen.Zone, "public/") {
		return
	}
	properties, err := propertiesOf(ctx, known, registry)
	if err != nil {
		seen.Why += "\nWho is logged in ('embargo login') and may read the registry is told which of these it is."
		return
	}
	rules, _ := properties["networkRuleSet"].(map[string]any)
	action, _ := rules["defaultAction"].(string)
	switch access, _ := properties["publicNetworkAccess"].(string); {
	case access == "Disabled":
		seen.Why = "The registry's publicNetworkAccess is Disabled: it is reached by its private endpoints and private listeners alone."
	case action == "Deny":
		seen.Rule, seen.Why = "networkRuleSet.ipRules", "The registry's networkRuleSet.defaultAction is Deny, and no rule of it allows the address."
	}
}

// over asks on a connection.
func (w way) over(conn net.Conn, to, registry string) (seen server.Seen, err error) {
	if w.proxy != "" {
		if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to); err != nil {
			return seen, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return seen, fmt.Errorf("the connection was closed: this client may not use the proxy %s: %w", w.proxy, err)
		}
		if resp.StatusCode != http.StatusOK {
			return seen, fmt.Errorf("the proxy %s answered %s", w.proxy, resp.Status)
		}
	}
	if !w.plain {
		var roots *x509.CertPool
		if w.ca != "" {
			pem, err := os.ReadFile(w.ca)
			if err != nil {
				return seen, err
			}
			roots = x509.NewCertPool()
			roots.AppendCertsFromPEM(pem)
		}
		conn = tls.Client(conn, &tls.Config{ServerName: registry, RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	}
	if _, err := fmt.Fprintf(conn, "GET /embargo/network/check HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", registry); err != nil {
		return seen, fmt.Errorf("the connection was closed: this client may not connect by this door: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return seen, fmt.Errorf("the connection was closed: this client may not connect by this door: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the server answered %s: %s", resp.Status, b)
	}
	if err != nil {
		return seen, err
	}
	return seen, json.Unmarshal(b, &seen)
}

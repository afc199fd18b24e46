// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/embargo-registry/embargo/cmd/embargo/internal/armclient"
	"github.com/embargo-registry/embargo/cmd/embargo/internal/shape"
)

// printed are the flags of commands that print a value.
type printed struct{ format, query string }

func (p *printed) flags(f *pflag.FlagSet, fallback string) {
	f.StringVarP(&p.format, "output", "o", fallback, "Output format: "+strings.Join(shape.Formats(), ", "))
	f.StringVar(&p.query, "query", "", "JMESPath query of the output")
}

func (p printed) write(cmd *cobra.Command, v any) error {
	if err := p.check(); err != nil {
		return err
	}
	return shape.Write(cmd.OutOrStdout(), v, p.format, p.query)
}

// check refuses a format before anything is done.
func (p printed) check() error {
	for _, f := range shape.Formats() {
		if p.format == f {
			return nil
		}
	}
	return usage("argument --output/-o: %q is not one of %s", p.format, strings.Join(shape.Formats(), ", "))
}

// login is what the flags of `embargo login` say.
type login struct {
	servicePrincipal                                    bool
	user, password, tenant, file, url, ca, subscription string
}

func loginCommand() *cobra.Command {
	var p printed
	var l login
	c := &cobra.Command{
		Use:   "login",
		Short: "Log in to an installation",
		Long: "Log in to an installation.\n\nWithout a user it logs in as the principal of the credentials file (default: embargo-data/credentials.json, which 'embargo serve' writes).\n" +
			"With --username the file, if there is one, still says where the installation is. The token is kept in ~/.embargo (or $EMBARGO_CONFIG_DIR), mode 0600; the secret is not kept.",
		Args: noArgs,
	}
	f := c.Flags()
	f.BoolVar(&l.servicePrincipal, "service-principal", false, "The credential is a service principal's")
	f.StringVarP(&l.user, "username", "u", "", "User name, or a service principal's client id")
	f.StringVarP(&l.password, "password", "p", "", "Password or client secret; '-' reads a line from standard input")
	f.StringVarP(&l.tenant, "tenant", "t", "", "Tenant id")
	f.StringVar(&l.file, "credentials", "", "Credentials file (default embargo-data/credentials.json)")
	f.StringVar(&l.url, "resource-manager", "", "URL of the resource manager, e.g. https://localhost:8443")
	f.StringVar(&l.ca, "ca-file", "", "Certificate authority to trust (PEM)")
	f.StringVar(&l.subscription, "subscription", "", "Subscription id (default: the first one the login may see)")
	p.flags(f, "json")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.check(); err != nil {
			return err
		}
		s, secret, err := l.session(cmd.InOrStdin())
		if err != nil {
			return err
		}
		if err := s.Login(cmd.Context(), secret); err != nil {
			return err
		}
		if l.subscription != "" {
			s.SubscriptionID = l.subscription
		}
		if s.SubscriptionID == "" {
			if err := first(cmd, s); err != nil {
				return err
			}
		}
		dir, err := armclient.Dir()
		if err != nil {
			return err
		}
		if err := s.Save(dir); err != nil {
			return err
		}
		return p.write(cmd, map[string]any{"resourceManager": s.ResourceManager, "tenantId": s.TenantID, "subscriptionId": s.SubscriptionID,
			"user": map[string]any{"name": s.User, "type": s.Kind}})
	}
	return c
}

// session is where to log in, as the flags and the credentials file say, and the secret to do it with.
func (l *login) session(in io.Reader) (*armclient.Session, string, error) {
	if l.servicePrincipal && l.user == "" {
		return nil, "", usage("the following argument is required with --service-principal: --username/-u")
	}
	file := l.file
	if file == "" {
		file = filepath.Join("embargo-data", "credentials.json")
	}
	known, err := armclient.ReadCredentials(file)
	if err != nil && (l.file != "" || l.url == "" || l.user == "") {
		return nil, "", fmt.Errorf("no installation is known: give --credentials, or --resource-manager with --username and --password (%w)", err)
	}
	s := &armclient.Session{ResourceManager: known.ResourceManager, ActiveDirectory: known.ActiveDirectory, TenantID: known.TenantID, SubscriptionID: known.SubscriptionID}
	if l.url != "" {
		s.ResourceManager, s.ActiveDirectory = strings.TrimSuffix(l.url, "/"), strings.TrimSuffix(l.url, "/")+"/adfs"
		if s.ResourceManager != known.ResourceManager {
			s.SubscriptionID = ""
		}
	}
	if l.tenant != "" {
		s.TenantID = l.tenant
	}
	ca := l.ca
	if ca == "" {
		ca = known.CAFile
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, "", err
		}
		s.CA = string(pem)
	}
	secret, err := l.who(s, known, file, in)
	return s, secret, err
}

// who fills in as whom: the user of the flags, else the principal of the file.
func (l *login) who(s *armclient.Session, known armclient.Credentials, file string, in io.Reader) (string, error) {
	if l.user == "" {
		if known.ClientSecret == "" {
			return "", fmt.Errorf("%s holds no secret: give --service-principal --username --password, or make a new secret with 'embargo principal rotate %s'", file, known.ClientID)
		}
		path, err := filepath.Abs(file)
		s.User, s.Kind, s.CredentialsFile = known.ClientID, "servicePrincipal", path
		return known.ClientSecret, err
	}
	s.User, s.Kind = l.user, "user"
	if l.servicePrincipal {
		s.Kind = "servicePrincipal"
	}
	switch l.password {
	case "-":
		return line(in)
	case "":
		return "", usage("the following argument is required: --password/-p ('-' reads it from standard input)")
	}
	return l.password, nil
}

// first picks the first subscription that the login may see.
func first(cmd *cobra.Command, s *armclient.Session) error {
	client, err := armclient.New(s)
	if err != nil {
		return err
	}
	list, err := client.List(cmd.Context(), "/subscriptions", subscriptionsVersion)
	if err != nil {
		return err
	}
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			if id, ok := m["subscriptionId"].(string); ok {
				s.SubscriptionID = id
				return nil
			}
		}
	}
	return errors.New("the login sees no subscription")
}

func line(r io.Reader) (string, error) {
	text, err := bufio.NewReader(r).ReadString('\n')
	if err != nil && text == "" {
		return "", fmt.Errorf("no secret on standard input: %w", err)
	}
	return strings.TrimRight(text, "\r\n"), nil
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{Use: "logout", Short: "Forget the login", Args: noArgs, RunE: func(*cobra.Command, []string) error {
		dir, err := armclient.Dir()
		if err != nil {
			return err
		}
		return armclient.Forget(dir)
	}}
}

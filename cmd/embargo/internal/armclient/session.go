// SPDX-License-Identifier: Apache-2.0

// Package armclient is the client commands' side of the resource manager's protocol: a session with its token, requests,
// long-running operations and errors.
//
// It keeps the token, never the secret, in a file that only its user may read. It talks to the resource manager that the
// user named and follows it to no other host.
package armclient

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/dial"
)

// Credentials are what a server writes for its clients at the first start (credentials.json).
type Credentials struct {
	ResourceManager      string `json:"resourceManager"`
	ActiveDirectory      string `json:"activeDirectory"`
	Proxy                string `json:"proxy"`
	CAFile               string `json:"caFile"`
	TenantID             string `json:"tenantId"`
	SubscriptionID       string `json:"subscriptionId"`
	ClientID             string `json:"clientId"`
	ClientSecret         string `json:"clientSecret"`
	ACRLoginServerSuffix string `json:"acrLoginServerSuffix"`
}

// ReadCredentials reads such a file.
func ReadCredentials(path string) (Credentials, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Credentials{}, err
	}
	var c Credentials
	if err := json.Unmarshal(b, &c); err != nil {
		return Credentials{}, fmt.Errorf("%s: %w", path, err)
	}
	if c.ResourceManager == "" {
		return Credentials{}, fmt.Errorf("%s has no resourceManager", path)
	}
	return c, nil
}

// Session is a login: where, as whom, and the token. CredentialsFile, when set, is where the secret is read again when the
// token has expired.
type Session struct {
	ResourceManager string    `json:"resourceManager"`
	ActiveDirectory string    `json:"activeDirectory"`
	CA              string    `json:"ca,omitempty"`
	TenantID        string    `json:"tenantId"`
	SubscriptionID  string    `json:"subscriptionId"`
	User            string    `json:"user"`
	Kind            string    `json:"kind"`
	CredentialsFile string    `json:"credentialsFile,omitempty"`
	Token           string    `json:"token"`
	Expires         time.Time `json:"expires"`
}

// Login asks the authority for a token. kind is "servicePrincipal" or "user".
func (s *Session) Login(ctx context.Context, secret string) error {
	form := url.Values{"scope": {s.ResourceManager + "//.default"}, "client_info": {"1"}}
	if s.Kind == "user" {
		form.Set("grant_type", "password")
		form.Set("username", s.User)
		form.Set("password", secret)
		form.Set("client_id", "04b07795-8ddb-461a-bbee-02f9e1bf7b46") // the public client id of Azure's command line
	} else {
		form.Set("grant_type", "client_credentials")
		form.Set("client_id", s.User)
		form.Set("client_secret", secret)
	}
	client, err := s.http()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.tokenEndpoint(), strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	var answer struct {
		Token     string      `json:"access_token"`
		ExpiresIn json.Number `json:"expires_in"`
		Error     string      `json:"error"`
		Text      string      `json:"error_description"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the authority at %s answered %s, and no JSON", s.ActiveDirectory, resp.Status)
	}
	if resp.StatusCode != http.StatusOK || answer.Token == "" {
		return &Error{Status: resp.StatusCode, Code: answer.Error, Message: answer.Text}
	}
	seconds, err := answer.ExpiresIn.Int64()
	if err != nil || seconds <= 0 {
		seconds = 300
	}
	s.Token, s.Expires = answer.Token, time.Now().Add(time.Duration(seconds)*time.Second).UTC()
	return nil
}

// tokenEndpoint is below /adfs when the authority is, else below the tenant.
func (s *Session) tokenEndpoint() string {
	base := strings.TrimSuffix(s.ActiveDirectory, "/")
	if strings.HasSuffix(base, "/adfs") {
		return base + "/oauth2/token"
	}
	return base + "/" + url.PathEscape(s.TenantID) + "/oauth2/v2.0/token"
}

// http is a client that trusts the session's authority and reaches the session's hosts only.
func (s *Session) http() (*http.Client, error) {
	rule := dial.Rule{Inside: true}
	for _, base := range []string{s.ResourceManager, s.ActiveDirectory} {
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("%q is not an https URL", base)
		}
		to := u.Host
		if u.Port() == "" {
			to += ":443"
		}
		rule.To = append(rule.To, to)
	}
	d, err := dial.New(dial.Options{Rules: map[dial.Purpose]dial.Rule{dial.ResourceManager: rule}})
	if err != nil {
		return nil, err
	}
	o := dial.ClientOptions{Timeout: 5 * time.Minute}
	if s.CA != "" {
		o.Roots = x509.NewCertPool()
		if !o.Roots.AppendCertsFromPEM([]byte(s.CA)) {
			return nil, errors.New("the session's certificate authority is not PEM text")
		}
	}
	return d.Client(dial.ResourceManager, o), nil
}

// Dir is where sessions are kept: $EMBARGO_CONFIG_DIR, else ~/.embargo.
func Dir() (string, error) {
	if d := os.Getenv("EMBARGO_CONFIG_DIR"); d != "" {
		return d, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".embargo"), nil
}

// ErrLoggedOut says that there is no session.
var ErrLoggedOut = errors.New("please run 'embargo login' first")

// Load reads the session kept in dir and renews its token when it has expired and the secret is at hand.
func Load(ctx context.Context, dir string) (*Session, error) {
	b, err := os.ReadFile(filepath.Join(dir, "session.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrLoggedOut
	}
	if err != nil {
		return nil, err
	}
	var s Session
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s: %w (run 'embargo login' again)", filepath.Join(dir, "session.json"), err)
	}
	if time.Until(s.Expires) > time.Minute {
		return &s, nil
	}
	if s.CredentialsFile == "" {
		return nil, fmt.Errorf("the session ended at %s: %w", s.Expires.Format(time.RFC3339), ErrLoggedOut)
	}
	c, err := ReadCredentials(s.CredentialsFile)
	if err != nil {
		return nil, err
	}
	if err := s.Login(ctx, c.ClientSecret); err != nil {
		return nil, err
	}
	return &s, s.Save(dir)
}

// Save keeps the session in dir, readable by its user alone.
func (s *Session) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".session-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if _, err := tmp.Write(append(b, '\n')); err != nil {
		_ = tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(dir, "session.json"))
}

// Forget ends the session kept in dir. Without one it does nothing.
func Forget(dir string) error {
	err := os.Remove(filepath.Join(dir, "session.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/embargo-registry/embargo/durable"
)

// Credentials are what a client needs to reach the installation, as they stand in credentials.json.
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

// dataDir is a data directory that this process alone holds.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the directory when it is absent and locks it. A directory that another process holds is an error that
// names the process.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(lock.Name())
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data directory %s is in use by another instance (pid %s): stop it, or give this one another --data", path, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("the data directory %s could not be locked: %w", path, err)
	}
	if err = lock.Truncate(0); err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	return &dataDir{path, lock}, nil
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// close gives the directory free. The lock file stays: removing it would let two processes hold two files of one name.
func (d *dataDir) close() error { return d.lock.Close() }

func (d *dataDir) readCredentials() (Credentials, error) {
	var c Credentials
	b, err := os.ReadFile(d.file("credentials.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%s: %w", d.file("credentials.json"), err)
	}
	return c, nil
}

func (d *dataDir) writeCredentials(c Credentials) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(d.file("credentials.json"), append(b, '\n'), 0o600)
}

// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"
	"time"

	"github.com/embargo-registry/embargo/blob/internal/azure"
	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/blob/internal/fs"
	"github.com/embargo-registry/embargo/blob/internal/parts"
	"github.com/embargo-registry/embargo/blob/internal/s3"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
)

// S3 says which bucket of which service, and Azure which container of which account; Storage gives them what makes connections.
type (
	S3    = s3.Options
	Azure = azure.Options
)

// Storage is where objects are kept: exactly one of Dir, S3 and Azure is set.
type Storage struct {
	// Dir is a folder. It is made if absent.
	Dir   string
	S3    *S3
	Azure *Azure
	// Dial makes the connections to a storage that is not a folder, for the purpose dial.Storage.
	Dial *dial.Dialer
	// Roots are the authorities that its certificate is checked by; nil: the system's.
	Roots *x509.CertPool
}

// String names the storage in messages, without secrets.
func (s Storage) String() string {
	disk, err := s.open()
	if err != nil {
		return "no storage"
	}
	return disk.String()
}

// Destination is the host and port that the storage is reached at, "" for a folder.
func (s Storage) Destination() (string, error) {
	endpoint, bucket := "", ""
	switch {
	case s.S3 != nil:
		endpoint = s.S3.Endpoint
		if !s.S3.PathStyle {
			bucket = s.S3.Bucket + "."
		}
	case s.Azure != nil:
		endpoint = s.Azure.Endpoint
	default:
		return "", nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("%q is not the URL of a storage", endpoint)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return net.JoinHostPort(bucket+u.Hostname(), port), nil
}

// connections are how many unused ones to the storage are kept, and patience bounds the wait for an answer.
const (
	connections = 64
	patience    = time.Minute
)

// open makes the driver.
func (s Storage) open() (driver.Driver, error) {
	if s.Dir != "" {
		return fs.Open(s.Dir)
	}
	if s.Dial == nil || s.S3 == nil && s.Azure == nil {
		return nil, errors.New("blob: no storage is configured")
	}
	client := s.Dial.Client(dial.Storage, dial.ClientOptions{Roots: s.Roots, Idle: connections, HeaderTimeout: patience})
	var backend parts.Backend
	var err error
	if s.S3 != nil {
		o := *s.S3
		o.Transport = client.Transport
		backend, err = s3.New(o)
	} else {
		o := *s.Azure
		o.Client = client
		backend, err = azure.New(o)
	}
	if err != nil {
		return nil, err
	}
	return parts.New(backend), nil
}

// The facts of an installation that say which storage its objects are in: the storage's mark, and what it was called then.
const (
	factMark  = "storage"
	factPlace = "storage-place"
	// folderMark stands for the data directory's own folder, which has no mark.
	folderMark    = "folder"
	dataDirectory = "the data directory"
)

// The marks in a storage: whose it is, and that an installation which was restored has begun.
const (
	markName  = "installation"
	markBegun = "begun"
)

// mark is what lies in a storage to tell it from others.
type mark struct {
	ID string `json:"installation"`
	// Restored names the copy whose restore began with this storage.
	Restored string `json:"restored,omitempty"`
}

// settle finds out that the storage is the one that the installation's objects are in. An installation without content takes it.
func settle(ctx context.Context, db *meta.DB, disk driver.Driver) error {
	if err := disk.Check(ctx); err != nil {
		return err
	}
	was, place, holds, err := remembered(ctx, db)
	if err != nil {
		return err
	}
	is, err := marked(ctx, disk, nil)
	switch {
	case err != nil:
		return err
	case is.ID == was && was != "":
		if is.Restored != "" {
			_, err = disk.Mark(ctx, markBegun, []byte(is.ID))
		}
		return err
	case holds:
		return fmt.Errorf("the content of this installation is in %s, and %s, which is configured, is not that storage: nothing was begun. Configure the one it is in, or move the installation by a backup and a restore", place, disk)
	case is.ID != "" && is.ID != folderMark:
		return taken(disk)
	}
	take := mark{ID: driver.NewKey()}
	if folder(disk) {
		take.ID = folderMark
	}
	// The row first: a start that ends here takes the storage again.
	if err := db.Write(ctx, func(tx *meta.Tx) error { return remember(tx, disk, take.ID) }); err != nil || folder(disk) {
		return err
	}
	fresh, err := json.Marshal(take)
	if err != nil {
		return err
	}
	if is, err = marked(ctx, disk, fresh); err == nil && is.ID != take.ID {
		err = taken(disk)
	}
	return err
}

func taken(disk driver.Driver) error {
	return fmt.Errorf("%s belongs to another installation, whose content would be taken for garbage: configure another bucket, container or prefix", disk)
}

// folder says whether the storage is the data directory's own.
func folder(disk driver.Driver) bool {
	_, ok := disk.(*fs.Dir)
	return ok
}

// settleRestore takes a storage for a restore: one that has no mark yet, or whose mark an earlier attempt made and that no installation has begun with.
func settleRestore(ctx context.Context, disk driver.Driver, snapshot string) (string, error) {
	if err := disk.Check(ctx); err != nil {
		return "", err
	}
	fresh, err := json.Marshal(mark{ID: driver.NewKey(), Restored: snapshot})
	if err != nil {
		return "", err
	}
	is, err := marked(ctx, disk, fresh)
	if err != nil || is.ID == folderMark {
		return is.ID, err
	}
	begun, err := disk.Mark(ctx, markBegun, nil)
	if err == nil && (is.Restored != snapshot || begun != nil) {
		err = fmt.Errorf("%s belongs to an installation already: restore to another bucket, container or prefix", disk)
	}
	return is.ID, err
}

// marked reads the storage's mark, or makes it.
func marked(ctx context.Context, disk driver.Driver, fresh []byte) (m mark, err error) {
	text, err := disk.Mark(ctx, markName, fresh)
	if err != nil {
		return m, err
	}
	if text == nil {
		if folder(disk) {
			m.ID = folderMark
		}
		return m, nil
	}
	if err := json.Unmarshal(text, &m); err != nil || m.ID == "" {
		return m, errors.Join(fmt.Errorf("the mark in %s cannot be read: something else writes there", disk), err)
	}
	return m, nil
}

// remembered tells which storage the installation has taken, "" for none, and whether it has content.
func remembered(ctx context.Context, db *meta.DB) (id, place string, holds bool, err error) {
	err = db.Read(ctx, func(tx *meta.Tx) error {
		err := tx.Row(`SELECT 1 FROM blobs LIMIT 1`).Scan(new(int))
		holds = err == nil
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		id, err = tx.Installation(factMark)
		if errors.Is(err, meta.ErrNotFound) {
			if holds { // it is older than object storages
				id, place = folderMark, dataDirectory
			}
			return nil
		}
		if err == nil {
			place, err = tx.Installation(factPlace)
		}
		return err
	})
	return id, place, holds, err
}

func remember(tx *meta.Tx, disk driver.Driver, id string) error {
	place := disk.String()
	if id == folderMark {
		place = dataDirectory // which may be moved
	}
	return errors.Join(tx.SetInstallation(factMark, id), tx.SetInstallation(factPlace, place))
}

// named makes of what a driver says what a client may hear; any other error stays what it is.
func named(disk driver.Driver, err error) error {
	switch {
	case errors.Is(err, driver.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.New(fault.StorageFull, "The registry's storage is full: this upload was not stored, nothing else is lost. Free space or enlarge the storage, then push again.").
			Because(fmt.Errorf("%s: %w", disk, err))
	case errors.Is(err, driver.ErrAway):
		return fault.New(fault.Unavailable, "The registry's storage did not do what was asked; nothing that was acknowledged is lost. Try again; the server's log names the storage and says why.").
			Because(fmt.Errorf("%s: %w", disk, err))
	}
	return err
}

// Healthy asks whether the storage answers, and is the one that it was.
func (s *Store) Healthy(ctx context.Context) error {
	m, err := marked(ctx, s.disk, nil)
	if err == nil && m.ID == "" {
		err = fmt.Errorf("%w for its mark, which is gone", driver.ErrAway)
	}
	return err
}

// Place names the storage, without secrets.
func (s *Store) Place() string { return s.disk.String() }

// discardSoon removes an object that belongs to nothing, without waiting where a storage is far.
func (s *Store) discardSoon(key string) {
	if folder(s.disk) {
		s.discard(key)
		return
	}
	select {
	case s.removals <- struct{}{}:
		s.removing.Go(func() {
			s.discard(key)
			<-s.removals
		})
	default: // the collection finds it
	}
}

// Settle waits until what was begun has its row, and no object is being removed any more.
func (s *Store) Settle() {
	s.begins.wait.Wait()
	s.removing.Wait()
}

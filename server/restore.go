// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/embargo-registry/embargo/backup"
	"github.com/embargo-registry/embargo/dial"
	"github.com/embargo-registry/embargo/durable"
	"github.com/embargo-registry/embargo/meta"
)

// RestoreWish says which copy is put where.
type RestoreWish struct {
	// From is the folder of backups, Snapshot the copy's id ("" is the newest).
	From, Snapshot string
	// Key is the installation key to bring along, when the data directory has none. Identities is a file of age identities that open the backup.
	Key, Identities string
}

// Restored is what a restore did. Lost names what no key here opens.
type Restored struct {
	Snapshot backup.Snapshot
	Lost     []string
	// Next is the command that starts it, without the password of a database.
	Next string
}

// Restore puts a copy into an empty data directory and an empty database; a policy-epochs.json that is there is kept, and decides at the next start whether the copy is
// held. It is run while no server runs on either.
func Restore(ctx context.Context, o Options, w RestoreWish, tell func(backup.Progress)) (r Restored, err error) {
	if err := o.complete(); err != nil {
		return r, err
	}
	s := &Server{o: o, log: o.Log, metrics: newMetrics(o.Version)}
	if s.dir, err = openDataDir(o.Data); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.dir.close()) }()
	ring, place, err := s.bringKey(w)
	if err != nil {
		return r, err
	}
	var identities []age.Identity
	if w.Identities != "" {
		if identities, err = backup.Identities(w.Identities); err != nil {
			return r, err
		}
	}
	if from, err := filepath.Abs(w.From); err == nil && (from == o.Data || strings.HasPrefix(from, o.Data+string(filepath.Separator))) {
		return r, fmt.Errorf("the folder of backups %s lies in the data directory %s: name another --data", w.From, o.Data)
	}
	folder, err := backup.Open(w.From, ring, identities)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	if r.Snapshot, err = folder.Snapshot(w.Snapshot); err != nil {
		return r, err
	}
	if err := place(); err != nil { // it has opened the backup
		return r, err
	}
	if err := s.restoreDatabase(ctx, folder, r.Snapshot, tell); err != nil {
		return r, err
	}
	// The records that a lost stretch of time had are not numbered again: the installation goes on as another node.
	r.Next = "embargo serve --data " + s.o.Data
	if !strings.HasPrefix(s.o.Database, "sqlite:") {
		r.Next += " --database " + meta.ShownURL(s.o.Database)
	}
	if !s.o.Storage.folder() {
		r.Next += " --storage '" + s.o.Storage.URL + "' --storage-key-file " + s.o.Storage.KeyFile
	}
	if err := os.Remove(s.dir.file("node")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if err := s.openDatabase(ctx); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.db.Close()) }()
	r.Lost, err = s.lost(ctx, ring)
	return r, err
}

// bringKey finds the installation key: the one in place, else the one that the wish names, which place copies into place. Without either it gives nil. Two that differ are
// refused: nobody could tell which one was tried.
func (s *Server) bringKey(w RestoreWish) (ring *meta.Keyring, place func() error, err error) {
	place = func() error { return nil }
	there, err := os.ReadFile(s.o.InstallationKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if w.Key == "" {
		if err != nil {
			return nil, place, nil
		}
		ring, err = meta.LoadKeyring(s.o.InstallationKey)
		return ring, place, err
	}
	text, readErr := os.ReadFile(w.Key)
	if readErr != nil {
		return nil, nil, fmt.Errorf("the installation key: %w", readErr)
	}
	if err == nil && !bytes.Equal(there, text) {
		return nil, nil, fmt.Errorf("%s is there already and is another key than %s: move it away, or leave out --key-file", s.o.InstallationKey, w.Key)
	}
	if ring, err = meta.ParseKeyring(string(text)); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", w.Key, err)
	}
	return ring, func() error { return durable.WriteFile(s.o.InstallationKey, text, 0o600) }, nil
}

// restoreDatabase fills the database. One of SQLite is filled beside its place and takes it when it is whole.
func (s *Server) restoreDatabase(ctx context.Context, folder *backup.Folder, snapshot backup.Snapshot, tell func(backup.Progress)) error {
	d, err := s.dialer()
	if err != nil {
		return err
	}
	at, err := s.storage()
	if err != nil {
		return err
	}
	to := backup.Target{Storage: at, DB: meta.Options{URL: s.o.Database, Log: s.log, Dial: d.Func(dial.PostgreSQL)}}
	path, file := strings.CutPrefix(s.o.Database, "sqlite:")
	if !file {
		return folder.Restore(ctx, snapshot, to, tell)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s exists already, and nothing is restored over something: name another --data, or move it away", path), err)
	}
	if err := stray(path); err != nil {
		return err
	}
	filling := path + ".restoring"
	for _, old := range []string{filling, filling + "-wal", filling + "-shm"} {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	to.DB.URL = "sqlite:" + filling
	if err := folder.Restore(ctx, snapshot, to, tell); err != nil {
		return err
	}
	if err := os.Rename(filling, path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

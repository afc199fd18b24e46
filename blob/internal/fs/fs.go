// SPDX-License-Identifier: Apache-2.0

// Package fs keeps objects as files of one directory tree. It promises durability: when Sync has returned, the bytes written
// so far and the file's name survive a power cut. It knows nothing of digests, grants or the database.
package fs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/embargo-registry/embargo/durable"
)

// Dir is a tree of objects: <root>/<first two digits of the key>/<key>.
type Dir struct{ root string }

// File is an object being written.
type File struct {
	*os.File
	dir string
	// written counts the bytes of this opening, started those of them whose way to the disk has begun.
	written, started int64
}

// ahead is how much is written before the kernel is told to begin storing it: a long upload's Sync then finds little left to do.
const ahead = 8 << 20

var keyForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Open makes the tree if it is not there. All 256 folders are made at once, so that an object needs one directory's fsync.
func Open(root string) (*Dir, error) {
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(root, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, err
		}
	}
	return &Dir{root: root}, errors.Join(durable.SyncDir(root), durable.SyncDir(filepath.Dir(root)))
}

// NewKey is a random object key; it is never used again.
func NewKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return hex.EncodeToString(b[:])
}

func (d *Dir) path(key string) (string, error) {
	if !keyForm.MatchString(key) {
		return "", fmt.Errorf("fs: %q is no object key", key)
	}
	return filepath.Join(d.root, key[:2], key), nil
}

// Create makes a new object. It fails if the key exists.
func (d *Dir) Create(key string) (*File, error) {
	return d.open(key, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// Resume opens an object for further writing, cut to size bytes: what lies behind was never acknowledged.
func (d *Dir) Resume(key string, size int64) (*File, error) {
	f, err := d.open(key, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.Size() < size:
		err = fmt.Errorf("fs: object %s has %d bytes, %d were recorded", key, st.Size(), size)
	default:
		err = f.Truncate(size)
	}
	if err == nil {
		_, err = f.Seek(size, 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *Dir) open(key string, flag int) (*File, error) {
	p, err := d.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &File{File: f, dir: filepath.Dir(p)}, nil
}

// Write writes at the file's place.
func (f *File) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	f.written += int64(n)
	if f.written-f.started >= ahead {
		f.started = f.written
		startStoring(f.File)
	}
	return n, err
}

// Sync makes the file's bytes and its name durable.
func (f *File) Sync() error { return errors.Join(f.File.Sync(), durable.SyncDir(f.dir)) }

// Read opens an object for reading.
func (d *Dir) Read(key string) (*os.File, error) {
	p, err := d.path(key)
	if err != nil {
		return nil, err
	}
	return os.Open(p)
}

// Walk visits all objects with their size and the time of their last change. What comes or goes meanwhile may be visited or not.
func (d *Dir) Walk(visit func(key string, size int64, changed time.Time) error) error {
	for i := range 256 {
		entries, err := os.ReadDir(filepath.Join(d.root, fmt.Sprintf("%02x", i)))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !keyForm.MatchString(e.Name()) || !e.Type().IsRegular() {
				continue // not ours
			}
			st, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = visit(e.Name(), st.Size(), st.ModTime())
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove deletes an object; one that is not there is no error.
func (d *Dir) Remove(key string) error {
	p, err := d.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

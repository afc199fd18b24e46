// SPDX-License-Identifier: Apache-2.0

// Package durable writes files so that a power cut leaves the old content or the new, under the name or not at all.
package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces a file as a whole. When it returns nil, content and name are on the disk.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	return Write(path, mode, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// CreateFile is WriteFile for a name that must be new: it answers fs.ErrExist, and changes nothing, when the name is taken.
func CreateFile(path string, content []byte, mode os.FileMode) error {
	return write(path, mode, os.Link, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Write replaces a file with what fill writes. When fill or the disk fails, the file stays as it was.
func Write(path string, mode os.FileMode, fill func(w io.Writer) error) error {
	return write(path, mode, os.Rename, fill)
}

// write fills a file beside path and has place give it the name.
func write(path string, mode os.FileMode, place func(from, to string) error, fill func(w io.Writer) error) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".writing-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // renamed already, unless it was linked or something failed
	if err = fill(tmp); err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := place(tmp.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// MkdirAll makes a directory and those above it that are missing. When it returns nil, their names are on the disk.
func MkdirAll(path string, mode os.FileMode) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil
	}
	above := filepath.Dir(path)
	if above != path {
		if err := MkdirAll(above, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(above)
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

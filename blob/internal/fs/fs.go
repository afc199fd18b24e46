// SPDX-License-Identifier: Apache-2.0

// Package fs keeps objects as files of one directory tree: when Sync has returned, the bytes written so far and the file's name survive
// a power cut.
package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/embargo-registry/embargo/blob/internal/driver"
	"github.com/embargo-registry/embargo/durable"
)

// Dir is a tree of objects: <root>/<first two digits of the key>/<key>.
type Dir struct {
	root string

	mu sync.Mutex
	// made has the folders whose names are on the disk.
	made map[string]bool
}

// File is an object being written.
type File struct {
	*os.File
	dir string
	// begun is where this opening began to write.
	begun int64
	// written counts the bytes of this opening, started those of them whose way to the disk has begun.
	written, started int64
	// lost: a Sync has failed. The kernel may then have dropped pages and calls them clean, so that the next fsync succeeds without them.
	lost bool
}

// object is a file being read. Its ranges are the bare file, so that the kernel can copy from it.
type object struct{ f *os.File }

// ahead is how much is written before the kernel is told to begin storing it: a long upload's Sync then finds little left to do.
const ahead = 8 << 20

// Open makes the root if it is not there. A folder in it is made when its first object is.
func Open(root string) (*Dir, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	d := &Dir{root: root, made: map[string]bool{}}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			d.made[e.Name()] = true
		}
	}
	return d, errors.Join(durable.SyncDir(root), durable.SyncDir(filepath.Dir(root)))
}

// folder makes a folder of the root and its name durable, if it is not yet.
func (d *Dir) folder(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made[name] {
		return nil
	}
	if err := os.Mkdir(filepath.Join(d.root, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := durable.SyncDir(d.root); err != nil {
		// Another fsync would prove nothing about this name: it is made anew.
		return errors.Join(full(err), os.Remove(filepath.Join(d.root, name)))
	}
	d.made[name] = true
	return nil
}

func (d *Dir) String() string { return "the folder " + d.root }

func (d *Dir) path(key string) (string, error) {
	if err := driver.CheckKey(key); err != nil {
		return "", err
	}
	return filepath.Join(d.root, key[:2], key), nil
}

// Write opens a file cut to size bytes. A File needs no state.
func (d *Dir) Write(_ context.Context, key string, size int64, _ []byte) (driver.Writer, error) {
	if size == 0 {
		f, err := d.open(key, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return nil, full(err)
		}
		return f, nil
	}
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
		_, err = f.Seek(size, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	f.begun = size
	return f, nil
}

// Put writes a file of its own.
func (d *Dir) Put(_ context.Context, key string, content []byte) error {
	f, err := d.open(key, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return full(err)
	}
	if _, err = f.Write(content); err == nil {
		err = f.Finish()
	}
	if err != nil {
		return errors.Join(err, f.Abort())
	}
	return nil
}

func (d *Dir) open(key string, flag int) (*File, error) {
	p, err := d.path(key)
	if err == nil && flag&os.O_CREATE != 0 {
		err = d.folder(key[:2])
	}
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
	return n, full(err)
}

// Sync makes the file's bytes and its name durable. Errors: ErrLost.
func (f *File) Sync() ([]byte, error) {
	err := f.File.Sync()
	if err == nil {
		err = durable.SyncDir(f.dir)
	}
	if err == nil {
		return nil, nil
	}
	f.lost = true
	return nil, errors.Join(driver.ErrLost, full(err))
}

// Finish is Sync and Close.
func (f *File) Finish() error {
	_, err := f.Sync()
	return errors.Join(err, f.Close())
}

// Abort cuts the file back to where this opening began, and removes it if that is nothing, or if what was before can't be relied on either.
func (f *File) Abort() error {
	_ = f.Close() // it may be closed already, and what it holds is given up
	if f.begun == 0 || f.lost {
		return gone(os.Remove(f.Name()))
	}
	return gone(os.Truncate(f.Name(), f.begun))
}

// gone is err, unless it says that there was no file.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// full names a full disk as every driver does.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errors.Join(driver.ErrFull, err)
	}
	return err
}

// Open opens a file for reading.
func (d *Dir) Open(_ context.Context, key string) (driver.Object, error) {
	p, err := d.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	return object{f}, nil
}

// Range is the file itself at off; the caller stops after n bytes.
func (o object) Range(_ context.Context, off, _ int64) (io.Reader, error) {
	_, err := o.f.Seek(off, io.SeekStart)
	return o.f, err
}

// Size is the file's.
func (o object) Size(context.Context) (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (o object) Close() error { return o.f.Close() }

// Walk visits all files.
func (d *Dir) Walk(ctx context.Context, visit func(driver.Item) error) error {
	if _, err := os.Stat(d.root); err != nil {
		return err
	}
	for i := range 256 {
		entries, err := os.ReadDir(filepath.Join(d.root, fmt.Sprintf("%02x", i)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if !driver.IsKey(e.Name()) || !e.Type().IsRegular() {
				continue // not ours
			}
			st, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err = errors.Join(err, ctx.Err()); err == nil {
				err = visit(driver.Item{Key: e.Name(), Size: st.Size(), Changed: st.ModTime()})
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove deletes a file.
func (d *Dir) Remove(_ context.Context, key string) error {
	p, err := d.path(key)
	if err != nil {
		return err
	}
	return gone(os.Remove(p))
}

// RemoveParts does nothing: what is written lies in the object itself.
func (d *Dir) RemoveParts(context.Context, string) error { return nil }

// Check does nothing: Open has made the tree.
func (d *Dir) Check(context.Context) error { return nil }

// Mark is nil: the folder goes with its data directory.
func (d *Dir) Mark(context.Context, string, []byte) ([]byte, error) { return nil, nil }

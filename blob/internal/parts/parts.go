// SPDX-License-Identifier: Apache-2.0

// Package parts makes a driver of an object storage: objects are put whole, or in parts that become one object when they are completed.
// What does not fill a part yet is kept as a small object of its own, a tail. It promises that an object, once finished, never changes.
//
// Names, behind the storage's prefix: objects/KEY, tails/KEY/RANDOM, probes/RANDOM and marks/NAME.
package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/blob/internal/driver"
)

// Backend is an object storage. Its errors are the driver's: fs.ErrNotExist, driver.ErrTaken, driver.ErrFull, and driver.ErrAway for all else.
type Backend interface {
	// Begin begins an object in parts.
	Begin(ctx context.Context, name string) (session string, err error)
	// PutPart writes a part; number counts from 1. The tag says which content the part has.
	PutPart(ctx context.Context, name, session string, number int, content []byte) (tag string, err error)
	// Complete makes the object of exactly these parts. Errors: driver.ErrTaken; fs.ErrNotExist when the session or a part of it is not there.
	Complete(ctx context.Context, name, session string, tags []string) error
	// Abandon ends all sessions of an object that are under way.
	Abandon(ctx context.Context, name string) error
	// Unfinished visits the objects that are in parts.
	Unfinished(ctx context.Context, prefix string, visit func(Entry) error) error
	// Put makes an object. Errors: driver.ErrTaken.
	Put(ctx context.Context, name string, content []byte) error
	// Get reads n > 0 bytes from off.
	Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error)
	// Size is that of a finished object.
	Size(ctx context.Context, name string) (int64, error)
	// Delete removes a finished object; one that is not there is no error.
	Delete(ctx context.Context, name string) error
	// List visits the finished objects.
	List(ctx context.Context, prefix string, visit func(Entry) error) error
	String() string
}

// Entry is something in a listing.
type Entry struct {
	Name    string
	Size    int64
	Changed time.Time
}

const (
	objects = "objects/"
	tails   = "tails/"
	probes  = "probes/"
	marks   = "marks/"
	// markLimit bounds what is read as a mark.
	markLimit = 4096
	// slowest is the pace, in bytes a second, below which the storage counts as not answering.
	slowest = 256 << 10
	// attempts is how often the reading of one range is begun.
	attempts = 4
)

// Driver is the driver of one backend. Safe for concurrent use.
type Driver struct{ b Backend }

// New makes the driver.
func New(b Backend) *Driver { return &Driver{b} }

func (d *Driver) String() string { return d.b.String() }

// within bounds an exchange of n bytes.
func within(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Minute+time.Duration(n/slowest)*time.Second)
}

// put makes an object. A put whose answer got lost and that was sent again finds itself.
func (d *Driver) put(ctx context.Context, name string, content []byte) error {
	ctx, cancel := within(ctx, len(content))
	defer cancel()
	err := d.b.Put(ctx, name, content)
	if !errors.Is(err, driver.ErrTaken) {
		return err
	}
	there, readErr := d.get(ctx, name, len(content))
	if readErr != nil {
		return readErr
	}
	if bytes.Equal(there, content) {
		return nil
	}
	return err
}

// get reads an object that is no longer than limit, or its first bytes.
func (d *Driver) get(ctx context.Context, name string, limit int) ([]byte, error) {
	ctx, cancel := within(ctx, limit)
	defer cancel()
	o := &object{d: d, name: name}
	defer o.Close()
	size, err := o.Size(ctx)
	if err != nil {
		return nil, err
	}
	r, err := o.Range(ctx, 0, min(size, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// Put makes an object whole.
func (d *Driver) Put(ctx context.Context, key string, content []byte) error {
	if err := driver.CheckKey(key); err != nil {
		return err
	}
	return d.put(ctx, objects+key, content)
}

// Open asks for nothing.
func (d *Driver) Open(_ context.Context, key string) (driver.Object, error) {
	if err := driver.CheckKey(key); err != nil {
		return nil, err
	}
	return &object{d: d, name: objects + key}, nil
}

// Remove ends what is under way and deletes the object.
func (d *Driver) Remove(ctx context.Context, key string) error {
	if err := d.RemoveParts(ctx, key); err != nil {
		return err
	}
	ctx, cancel := within(ctx, 0)
	defer cancel()
	return d.b.Delete(ctx, objects+key)
}

// RemoveParts deletes the tails and ends what is under way.
func (d *Driver) RemoveParts(ctx context.Context, key string) error {
	if err := driver.CheckKey(key); err != nil {
		return err
	}
	ctx, cancel := within(ctx, 0)
	defer cancel()
	err := d.b.List(ctx, tails+key+"/", func(e Entry) error { return d.b.Delete(ctx, e.Name) })
	return errors.Join(err, d.b.Abandon(ctx, objects+key))
}

// Walk visits what is unfinished first.
func (d *Driver) Walk(ctx context.Context, visit func(driver.Item) error) error {
	left := map[string]driver.Item{}
	leave := func(key string, e Entry) error {
		if driver.IsKey(key) {
			i := left[key]
			i.Key, i.Part, i.Size = key, true, i.Size+e.Size
			if e.Changed.After(i.Changed) {
				i.Changed = e.Changed
			}
			left[key] = i
		}
		return nil
	}
	err := d.b.List(ctx, tails, func(e Entry) error {
		key, _, _ := strings.Cut(strings.TrimPrefix(e.Name, tails), "/")
		return leave(key, e)
	})
	if err == nil {
		err = d.b.Unfinished(ctx, objects, func(e Entry) error { return leave(strings.TrimPrefix(e.Name, objects), e) })
	}
	if err != nil {
		return err
	}
	for _, i := range left {
		if err := visit(i); err != nil {
			return err
		}
	}
	return d.b.List(ctx, objects, func(e Entry) error {
		if key := strings.TrimPrefix(e.Name, objects); driver.IsKey(key) {
			return visit(driver.Item{Key: key, Size: e.Size, Changed: e.Changed})
		}
		return nil
	})
}

// Check writes, reads and removes a small object, and lists. Its error says what to do.
func (d *Driver) Check(ctx context.Context) error {
	name, content := probes+driver.NewKey(), []byte("embargo writes, reads and removes this at its start")
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"written", func() error { return d.put(ctx, name, content) }},
		{"read", func() error {
			got, err := d.get(ctx, name, len(content))
			if err == nil && !bytes.Equal(got, content) {
				err = errors.New("it came back changed")
			}
			return err
		}},
		{"removed", func() error {
			ctx, cancel := within(ctx, 0)
			defer cancel()
			return d.b.Delete(ctx, name)
		}},
		{"listed", func() error {
			ctx, cancel := within(ctx, 0)
			defer cancel()
			ignore := func(Entry) error { return nil }
			return errors.Join(d.b.List(ctx, probes, ignore), d.b.Unfinished(ctx, probes, ignore))
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("no object could be %s in %s: check that it exists, that its endpoint is reachable, and that the key of storageKeyFile may list, read, write and delete there: %w", step.what, d, err)
		}
	}
	return nil
}

// Mark reads a mark, or makes it.
func (d *Driver) Mark(ctx context.Context, name string, content []byte) ([]byte, error) {
	if content != nil {
		if err := d.put(ctx, marks+name, content); err != nil && !errors.Is(err, driver.ErrTaken) {
			return nil, err
		}
	}
	there, err := d.get(ctx, marks+name, markLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return there, err
}

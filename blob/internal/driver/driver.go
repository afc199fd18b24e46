// SPDX-License-Identifier: Apache-2.0

// Package driver says what blob needs of a storage. A driver keeps objects by key and promises durability: what Sync, Finish or Put has
// acknowledged survives a power cut of this machine. It knows nothing of digests, grants or the database.
package driver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"
)

// The errors that every driver names alike. An object that is not there matches fs.ErrNotExist.
var (
	// ErrFull is a storage without room for what was written.
	ErrFull = errors.New("the storage is full")
	// ErrAway is a storage that did not answer, or refused to: it says nothing about the object.
	ErrAway = errors.New("the storage did not answer")
	// ErrTaken is a key whose object is finished already and is another one.
	ErrTaken = errors.New("the object is there already")
	// ErrUnsure is a key whose object is finished already and as long as this one: most likely it is this one, and who wants to be sure reads it.
	ErrUnsure = errors.New("the object was finished before")
	// ErrLost is a storage that failed while it made an object durable: nothing of it can be relied on, what was durable before included, and no later attempt says otherwise.
	ErrLost = errors.New("the storage failed to keep the object")
)

// Driver is a storage.
type Driver interface {
	// Write opens an object for writing at size bytes; what lies behind was never acknowledged and is given up. state is what the Sync that
	// reached size gave. At size 0 the object begins anew. Errors: fs.ErrNotExist, when there is nothing to go on from.
	Write(ctx context.Context, key string, size int64, state []byte) (Writer, error)
	// Put writes a whole object under a new key.
	Put(ctx context.Context, key string, content []byte) error
	// Open opens a finished object. Where asking costs a journey, it is not asked for yet. Errors: fs.ErrNotExist.
	Open(ctx context.Context, key string) (Object, error)
	// Remove deletes the object, finished or not, and all that belongs to it. One that is not there is no error.
	Remove(ctx context.Context, key string) error
	// RemoveParts deletes what an unfinished writing left beside the object; a finished object stays.
	RemoveParts(ctx context.Context, key string) error
	// Walk visits everything there is. What comes or goes meanwhile may be visited or not.
	Walk(ctx context.Context, visit func(Item) error) error
	// Check finds out whether objects can be written, read and removed.
	Check(ctx context.Context) error
	// Mark gives the content of a mark, which says whose the storage is; if there is none yet and make is not nil, make becomes it.
	// Nil without an error: there is no mark. A storage that goes with its data directory has none ever.
	Mark(ctx context.Context, name string, make []byte) ([]byte, error)
	// String names the storage in messages, without secrets.
	String() string
}

// Writer is an object being written, by one goroutine. After an error only Abort and Close may follow.
type Writer interface {
	io.Writer
	// Sync makes what was written durable. A Write with the state it gives goes on there, also through another driver of the same storage.
	Sync() (state []byte, err error)
	// Finish makes the object durable and readable, and ends the writing. Errors: ErrTaken, ErrUnsure, fs.ErrNotExist when it can't be gone on with.
	Finish() error
	// Abort gives up what was written since the opening, and ends the writing. After ErrLost it removes the object.
	Abort() error
	// Close ends the writing. What was not synced may be gone.
	Close() error
}

// Rereader is a Writer whose content can be read before it is finished.
type Rereader interface {
	Writer
	io.ReaderAt
}

// Object is an object opened for reading, by one goroutine.
type Object interface {
	// Size asks for the object's size. Errors: fs.ErrNotExist.
	Size(ctx context.Context) (int64, error)
	// Range gives n bytes from off; n < 0 is to the end. An earlier range ends with it. Errors: fs.ErrNotExist.
	Range(ctx context.Context, off, n int64) (io.Reader, error)
	Close() error
}

// Item is something found in the storage.
type Item struct {
	Key     string
	Size    int64
	Changed time.Time
	// Part: it belongs to an object that is, or was, being written, and is not needed once the writing has ended.
	Part bool
}

var keyForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// NewKey is a random object key; it is never used again.
func NewKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return hex.EncodeToString(b[:])
}

// IsKey says whether NewKey could have made it.
func IsKey(key string) bool { return keyForm.MatchString(key) }

// CheckKey refuses what is no key.
func CheckKey(key string) error {
	if !IsKey(key) {
		return fmt.Errorf("driver: %q is no object key", key)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package backup keeps copies of an installation in a folder: its database at one instant, and all content that the registries held then. It hides the folder's
// layout and its encryption (age, to the installation's backup key and to the recipients that an operator names besides).
//
// It promises that a copy is consistent although the installation serves meanwhile, that a copy which is listed is whole, that what an earlier copy
// holds already is not written again, and that nothing is readable in the folder but names at random and times. It reads content by the gate's leave alone (R18).
//
//	embargo-backup.json       the backup keys, sealed by the installation key
//	snapshots/TIME-ID.age     a copy: the lists of its chunks, encrypted
//	objects/ab/abcd….age      a chunk of a table, or content; named by a keyed hash of what it is
package backup

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// format is the version of the folder's layout.
const format = 1

// Snapshot describes a copy. It is what the file below snapshots holds.
type Snapshot struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Taken   time.Time `json:"taken"`
	Version string    `json:"version"`
	Tenant  string    `json:"tenant"`
	Schema  int64     `json:"schema"`
	// Sealed says that the installation's own key alone opens it.
	Sealed  bool      `json:"sealed"`
	Tables  []table   `json:"tables"`
	Content []chunk   `json:"content"`
	Objects int64     `json:"objects"`
	Bytes   int64     `json:"bytes"`
	Epochs  []epochOf `json:"epochs"`
}

type epochOf struct {
	Registry string `json:"registry"`
	Name     string `json:"name"`
	Epoch    int64  `json:"epoch"`
	Exports  bool   `json:"exports"`
}

// table is a table of the database in chunks of rows.
type table struct {
	meta.Table
	Rows   int64   `json:"rows"`
	Chunks []chunk `json:"chunks"`
}

// chunk is an object of lines of JSON, compressed.
type chunk struct {
	Object string `json:"object"`
	SHA256 string `json:"sha256"`
	Lines  int64  `json:"lines"`
}

// holding is a line of a content chunk.
type holding struct {
	Digest   name.Digest `json:"digest"`
	Size     int64       `json:"size"`
	Key      string      `json:"key"`
	Registry string      `json:"registry"`
	Object   string      `json:"object"`
}

// Progress is how far a backup, a verification or a restore is.
type Progress struct {
	Phase   string `json:"phase"`
	Objects int64  `json:"objects"`
	Of      int64  `json:"of"`
	Bytes   int64  `json:"bytes"`
	OfBytes int64  `json:"ofBytes"`
	// New counts what was not in the folder before.
	New      int64 `json:"new"`
	NewBytes int64 `json:"newBytes"`
}

// Key is an installation's backup key: everything in a folder is encrypted to it.
type Key struct {
	identity *age.X25519Identity
	sealed   []byte
}

// purpose of the seal, and the name of the secret.
const secret = "backup/identity"

// LoadKey reads the installation's backup key, and makes it the first time. In a folder it lies sealed by the installation key, so that whoever has that file, and
// nobody else, opens the backups.
func LoadKey(ctx context.Context, db *meta.DB, ring *meta.Keyring) (*Key, error) {
	fresh, err := freshKey(ring)
	if err != nil {
		return nil, err
	}
	var sealed []byte
	err = db.Write(ctx, func(tx *meta.Tx) error {
		var err error
		if sealed, err = tx.Secret(secret); errors.Is(err, meta.ErrNotFound) {
			sealed = fresh
			return tx.PutSecret(secret, fresh)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return openKey(ring, sealed)
}

// RenewKey makes another backup key, in tx: copies made from now on are encrypted to it, and earlier objects are not taken over.
func RenewKey(tx *meta.Tx, ring *meta.Keyring) error {
	fresh, err := freshKey(ring)
	if err != nil {
		return err
	}
	return tx.PutSecret(secret, fresh)
}

func freshKey(ring *meta.Keyring) ([]byte, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	return ring.Seal(secret, []byte(identity.String()))
}

func openKey(ring *meta.Keyring, sealed []byte) (*Key, error) {
	text, err := ring.Open(secret, sealed)
	if err != nil {
		return nil, err
	}
	identity, err := age.ParseX25519Identity(string(text))
	if err != nil {
		return nil, errors.New("the sealed backup key is damaged")
	}
	return &Key{identity, sealed}, nil
}

// namer names objects: without the key nobody can tell what a folder holds, and objects for other recipients are other objects.
type namer struct{ key []byte }

func newNamer(k *Key, further []string) namer {
	sum := sha256.Sum256([]byte("embargo backup object names\x00" + k.identity.String() + "\x00" + strings.Join(further, "\x00")))
	return namer{sum[:]}
}

func (n namer) of(kind, hash string) string {
	m := hmac.New(sha256.New, n.key)
	_, _ = io.WriteString(m, kind+"\x00"+hash) // a hash takes everything
	return hex.EncodeToString(m.Sum(nil)[:20])
}

func newID(now time.Time) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return now.UTC().Format("20060102T150405.000000Z") + "-" + hex.EncodeToString(b[:])
}

// Recipients reads age recipients as an operator writes them.
func Recipients(texts []string) ([]age.Recipient, error) {
	var out []age.Recipient
	for _, t := range texts {
		r, err := age.ParseRecipients(strings.NewReader(t))
		if err != nil || len(r) != 1 {
			return nil, fmt.Errorf("%q is not an age recipient (age1…); age-keygen makes one", t)
		}
		out = append(out, r...)
	}
	return out, nil
}

// Identities reads a file of age identities (AGE-SECRET-KEY-1…).
func Identities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	found, err := age.ParseIdentities(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("the age identities in %s: %w", path, err)
	}
	return found, nil
}

// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"filippo.io/age"

	"github.com/embargo-registry/embargo/durable"
	"github.com/embargo-registry/embargo/meta"
)

// Folder is a folder of copies, held by this process alone until it is closed.
type Folder struct {
	path       string
	lock       *os.File
	header     header
	identities []age.Identity
}

// header is embargo-backup.json.
type header struct {
	About  string `json:"about"`
	Format int    `json:"format"`
	Tenant string `json:"tenant"`
	// Keys are the backup keys that were in use, each sealed by the installation key.
	Keys [][]byte `json:"keys"`
}

const about = "Backups of an Embargo installation. Everything is encrypted; the installation key opens it: embargo backup verify, embargo restore."

var (
	objectForm   = regexp.MustCompile(`^[0-9a-f]{40}$`)
	snapshotForm = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{8}$`)
)

// Open opens a folder of copies for reading. The keyring opens what was made by its installation, the further identities what was encrypted to them; either may be nil.
func Open(path string, ring *meta.Keyring, further []age.Identity) (*Folder, error) {
	f := &Folder{path: path, identities: further}
	if err := f.readHeader(); err != nil {
		return nil, err
	}
	var lost error
	for _, sealed := range f.header.Keys {
		if ring == nil {
			break
		}
		k, err := openKey(ring, sealed)
		if err != nil {
			lost = err
			continue
		}
		f.identities = append(f.identities, k.identity)
	}
	if len(f.identities) == 0 {
		if lost == nil {
			lost = errors.New("no key was given")
		}
		return nil, fmt.Errorf("the backups in %s can't be opened: %w. They open with the installation key that was in use when they were made, and with the age identities they were encrypted to", path, lost)
	}
	return f, f.hold(syscall.LOCK_SH)
}

func (f *Folder) readHeader() error {
	b, err := os.ReadFile(filepath.Join(f.path, "embargo-backup.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not a folder of backups: it has no embargo-backup.json", f.path)
	}
	if err == nil {
		err = json.Unmarshal(b, &f.header)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(f.path, "embargo-backup.json"), err)
	}
	if f.header.Format != format {
		return fmt.Errorf("the backups in %s have the format %d, and this embargo knows %d: they were made by a newer embargo", f.path, f.header.Format, format)
	}
	return nil
}

// openForWriting opens a folder, or makes it, and enters the key.
func openForWriting(path, tenant string, k *Key) (*Folder, error) {
	for _, dir := range []string{path, filepath.Join(path, "snapshots"), filepath.Join(path, "objects")} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("the folder for backups: %w", err)
		}
	}
	f := &Folder{path: path, identities: []age.Identity{k.identity}}
	if err := f.hold(syscall.LOCK_EX); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(path, "embargo-backup.json")); errors.Is(err, fs.ErrNotExist) {
		f.header = header{About: about, Format: format, Tenant: tenant}
	} else if err := f.readHeader(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if f.header.Tenant != tenant {
		return nil, errors.Join(fmt.Errorf("the folder %s holds the backups of another installation (tenant %s): name another folder", path, f.header.Tenant), f.Close())
	}
	if slices.ContainsFunc(f.header.Keys, func(b []byte) bool { return bytes.Equal(b, k.sealed) }) {
		return f, nil
	}
	f.header.Keys = append(f.header.Keys, k.sealed)
	b, err := json.MarshalIndent(f.header, "", "  ")
	if err == nil {
		err = f.write("embargo-backup.json", func(w io.Writer) error { _, err := w.Write(append(b, '\n')); return err })
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hold takes the folder's lock: readers share it, a writer is alone. A lock that is held already is given free first.
func (f *Folder) hold(how int) error {
	if err := f.Close(); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(f.path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil // a folder that can't be written has no writer
	}
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), how|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("the folder %s is in use by another backup, verification or restore: wait for it to end", f.path), lock.Close())
	}
	f.lock = lock
	return nil
}

// Close gives the folder free.
func (f *Folder) Close() error {
	if f.lock == nil {
		return nil
	}
	lock := f.lock
	f.lock = nil
	return lock.Close()
}

// write makes a file below the folder: durable, and under its name only when it is whole.
func (f *Folder) write(rel string, fill func(w io.Writer) error) error {
	path := filepath.Join(f.path, rel)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.Write(path, 0o600, fill)
}

func object(name string) string { return filepath.Join("objects", name[:2], name+".age") }

// has reports whether an object is there.
func (f *Folder) has(name string) bool {
	st, err := os.Stat(filepath.Join(f.path, object(name)))
	return err == nil && st.Mode().IsRegular()
}

// encrypt writes a file of which only the recipients can read what fill writes.
func (f *Folder) encrypt(rel string, to []age.Recipient, fill func(w io.Writer) error) error {
	return f.write(rel, func(w io.Writer) error {
		sealed, err := age.Encrypt(w, to...)
		if err != nil {
			return err
		}
		return errors.Join(fill(sealed), sealed.Close())
	})
}

// ErrForeign: the keys that the folder was opened with do not open a file of it.
var ErrForeign = errors.New("it can't be opened with the keys given: it was encrypted to others, or by an installation key that was rotated since this one was copied. " +
	"'embargo backup list' shows the backups that these keys open")

// read opens an encrypted file. What is cut short or changed is an error of the reading.
func (f *Folder) read(rel string, use func(r io.Reader) error) error {
	file, err := os.Open(filepath.Join(f.path, rel))
	if err != nil {
		return err
	}
	r, err := age.Decrypt(file, f.identities...)
	if err == nil {
		err = use(r)
	}
	var foreign *age.NoIdentityMatchError
	if errors.As(err, &foreign) {
		err = fmt.Errorf("%s: %w", rel, ErrForeign)
	} else if err != nil {
		err = fmt.Errorf("%s: %w", rel, err)
	}
	return errors.Join(err, file.Close())
}

// damaged is an object that can't be read. One that is read while another is (a list, and what it names) is told alone: only it may be removed.
type damaged struct{ error }

func (d damaged) Unwrap() error { return d.error }

// elsewhere is an error of what an object's content is put into, so that nobody takes the object for damaged.
type elsewhere struct{ error }

func (e elsewhere) Unwrap() error { return e.error }

func (f *Folder) readObject(name string, use func(r io.Reader) error) error {
	if !objectForm.MatchString(name) {
		return fmt.Errorf("%q is no object's name", name)
	}
	err := f.read(object(name), use)
	var inner damaged
	var other elsewhere
	switch {
	case err == nil || errors.Is(err, ErrForeign) || errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &inner):
		return inner
	case errors.As(err, &other):
		return other
	}
	return damaged{fmt.Errorf("%w. If the file is damaged, remove %s and back up again: what the folder lacks is copied anew", err, filepath.Join(f.path, object(name)))}
}

// Snapshots are the ids of the copies, oldest first.
func (f *Folder) Snapshots() ([]string, error) {
	files, err := os.ReadDir(filepath.Join(f.path, "snapshots"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, file := range files {
		if id, ok := strings.CutSuffix(file.Name(), ".age"); ok && snapshotForm.MatchString(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, err
}

// Snapshot reads the description of a copy; id "" is the newest.
func (f *Folder) Snapshot(id string) (Snapshot, error) {
	var s Snapshot
	ids, err := f.Snapshots()
	if err != nil {
		return s, err
	}
	if id == "" && len(ids) > 0 {
		id = ids[len(ids)-1]
	}
	if !slices.Contains(ids, id) {
		return s, fmt.Errorf("there is no backup %q in %s: 'embargo backup list' shows those there are", id, f.path)
	}
	err = f.read(filepath.Join("snapshots", id+".age"), func(r io.Reader) error { return json.NewDecoder(r).Decode(&s) })
	if err == nil && (s.Format != format || s.ID != id) {
		err = fmt.Errorf("the backup %s is of another format, or under a wrong name", id)
	}
	return s, err
}

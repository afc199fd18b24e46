// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"encoding"
	"errors"
	"hash"
	"io"
	"os"

	"github.com/embargo-registry/embargo/blob/internal/fs"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// Upload is content being written in parts. Its place (bytes taken so far) is in the database, so another request, and the
// process after a restart, go on where it stopped. One request writes an upload at a time.
type Upload struct {
	// ID names the upload to its client. It cannot be guessed.
	ID string
	// Offset is the number of bytes that are durable.
	Offset int64

	s     *Store
	owner string
	key   string
	state []byte
}

// resumable is a hash whose state can be kept and taken up again.
type resumable interface {
	hash.Hash
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// Begin starts an upload. owner is the repository that it belongs to; only it finds the upload again.
func (s *Store) Begin(ctx context.Context, owner string) (*Upload, error) {
	u := &Upload{ID: fs.NewKey(), s: s, owner: owner, key: fs.NewKey()}
	err := s.db.Write(ctx, func(tx *meta.Tx) error {
		now := meta.Micros(tx.Now())
		_, err := tx.Exec(`INSERT INTO uploads (id, owner, object_key, size, hash_state, created_us, touched_us) VALUES ($1, $2, $3, 0, $4, $5, $6)`,
			u.ID, owner, u.key, []byte{}, now, now)
		return err
	})
	if err != nil {
		return nil, full(err)
	}
	return u, nil
}

// Upload finds an upload of owner. Errors: BlobUploadUnknown.
func (s *Store) Upload(ctx context.Context, owner, id string) (*Upload, error) {
	u := &Upload{ID: id, s: s, owner: owner}
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		return tx.Row(`SELECT object_key, size, hash_state FROM uploads WHERE id = $1 AND owner = $2`, id, owner).Scan(&u.key, &u.Offset, &u.state)
	})
	if errors.Is(err, meta.ErrNotFound) {
		return nil, unknown(id)
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

func unknown(id string) error {
	return fault.New(fault.BlobUploadUnknown, "The upload %q is not known here: it was finished, cancelled or has expired. Begin a new one.", id)
}

// Append takes r to its end. What was taken is durable when it returns, also when r breaks off: Offset says how much. Errors:
// Conflict while another request writes the upload, BlobUploadUnknown, StorageFull (the upload then stays where it was).
func (u *Upload) Append(ctx context.Context, r io.Reader) (int64, error) {
	release, err := u.claim()
	if err != nil {
		return 0, err
	}
	defer release()
	f, h, err := u.open()
	if err != nil {
		return 0, err
	}
	n, broken := u.s.take(f, h, r)
	if f := full(broken); fault.Is(f, fault.StorageFull) {
		return 0, f1(u.abandon(), f)
	}
	err = f.File.Sync()
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, full(err)
	}
	if err := u.keep(context.WithoutCancel(ctx), u.Offset+n, h); err != nil {
		return 0, err
	}
	u.Offset += n
	return n, broken
}

// f1 gives the second error, with the first as company in the log.
func f1(first, second error) error {
	if first == nil {
		return second
	}
	return fault.From(second).Because(errors.Join(first, errors.Unwrap(second)))
}

// keep records the place that the upload has reached.
func (u *Upload) keep(ctx context.Context, size int64, h resumable) error {
	state, err := h.MarshalBinary()
	if err != nil {
		return err
	}
	err = u.s.db.Write(ctx, func(tx *meta.Tx) error {
		n, err := tx.Exec(`UPDATE uploads SET size = $1, hash_state = $2, touched_us = $3 WHERE id = $4 AND owner = $5`,
			size, state, meta.Micros(tx.Now()), u.ID, u.owner)
		if err == nil && n == 0 {
			return unknown(u.ID)
		}
		return err
	})
	if err == nil {
		u.state = state
	}
	return err
}

// Seal takes the rest of the content, if any, verifies the whole against want and makes it durable. The content then waits for Commit;
// the upload ends with it. When the digest is not want's nothing is stored and the upload stays where it was. Errors: DigestInvalid,
// Conflict, BlobUploadUnknown, StorageFull, and whatever rest breaks off with.
func (u *Upload) Seal(_ context.Context, want name.Digest, rest io.Reader) (Sealed, error) {
	release, err := u.claim()
	if err != nil {
		return Sealed{}, err
	}
	defer release()
	f, h, err := u.open()
	if err != nil {
		return Sealed{}, err
	}
	var n int64
	if rest != nil {
		n, err = u.s.take(f, h, rest)
	}
	size := u.Offset + n
	if err == nil {
		err = verify(f.File, h, want, size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Sealed{}, f1(u.abandon(), full(err))
	}
	return Sealed{Digest: want, Size: size, key: u.key, upload: u.ID}, nil
}

// verify compares the content with want. The running hash is sha256; another algorithm reads the file again.
func verify(f *os.File, h hash.Hash, want name.Digest, size int64) error {
	alg := want.Algorithm()
	if alg != "sha256" {
		h = want.NewHash()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
			return err
		}
	}
	if got := name.DigestFrom(alg, h); got != want {
		return mismatch(got, want)
	}
	return nil
}

// Cancel ends the upload and removes what it had written. Errors: Conflict, BlobUploadUnknown.
func (u *Upload) Cancel(ctx context.Context) error {
	release, err := u.claim()
	if err != nil {
		return err
	}
	defer release()
	err = u.s.db.Write(ctx, func(tx *meta.Tx) error {
		n, err := tx.Exec(`DELETE FROM uploads WHERE id = $1 AND owner = $2`, u.ID, u.owner)
		if err == nil && n == 0 {
			return unknown(u.ID)
		}
		return err
	})
	if err == nil {
		u.s.discard(u.key)
	}
	return err
}

// finish removes the upload whose content is being committed.
func finish(tx *meta.Tx, id string) error {
	n, err := tx.Exec(`DELETE FROM uploads WHERE id = $1`, id)
	if err == nil && n == 0 {
		return unknown(id)
	}
	return err
}

// claim keeps other requests from writing the upload meanwhile.
func (u *Upload) claim() (release func(), err error) {
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	if _, taken := u.s.writing[u.ID]; taken {
		return nil, fault.New(fault.Conflict, "Another request is writing the upload %q. Wait for it, ask for the upload's status, and go on from there.", u.ID)
	}
	u.s.writing[u.ID] = struct{}{}
	return func() {
		u.s.mu.Lock()
		delete(u.s.writing, u.ID)
		u.s.mu.Unlock()
	}, nil
}

// open gives the object's file at the upload's offset, and the hash in the state that belongs to it. The row is read again, because
// another request may have written between the caller's look and its claim.
func (u *Upload) open() (*fs.File, resumable, error) {
	now, err := u.s.Upload(context.Background(), u.owner, u.ID)
	if err != nil {
		return nil, nil, err
	}
	if now.Offset != u.Offset {
		return nil, nil, fault.New(fault.RangeInvalid, "The upload %q has moved on to %d bytes meanwhile. Ask for its status and go on from there.", u.ID, now.Offset)
	}
	h := emptyHash()
	if u.Offset == 0 {
		u.s.discard(u.key) // what a broken first attempt may have left
		f, err := u.s.dir.Create(u.key)
		return f, h, full(err)
	}
	if err := h.UnmarshalBinary(now.state); err != nil {
		return nil, nil, err
	}
	f, err := u.s.dir.Resume(u.key, u.Offset)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fault.From(unknown(u.ID)).Because(err)
	}
	return f, h, err
}

// abandon gives back the disk space of what could not be kept; the durable part of the upload stays.
func (u *Upload) abandon() error {
	if u.Offset == 0 {
		return u.s.dir.Remove(u.key)
	}
	f, err := u.s.dir.Resume(u.key, u.Offset)
	if err != nil {
		return err
	}
	return f.Close()
}

// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"encoding"
	"errors"
	"hash"
	"io"
	"io/fs"
	"syscall"

	"github.com/embargo-registry/embargo/blob/internal/driver"
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
	// parts is what the storage needs to go on.
	parts []byte
	// begun is the upload's row on its way into the database; nil when it is there.
	begun *begun
}

// resumable is a hash whose state can be kept and taken up again.
type resumable interface {
	hash.Hash
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// Upload finds an upload of owner. Errors: BlobUploadUnknown.
func (s *Store) Upload(ctx context.Context, owner, id string) (*Upload, error) {
	u := &Upload{ID: id, s: s, owner: owner}
	if b := s.begins.find(id, owner); b != nil {
		u.key, u.begun = b.key, b
		return u, nil
	}
	err := s.db.Read(ctx, func(tx *meta.Tx) error {
		return tx.Row(`SELECT object_key, size, hash_state, storage_state FROM uploads WHERE id = $1 AND owner = $2`, id, owner).Scan(&u.key, &u.Offset, &u.state, &u.parts)
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

func moved(id string, size int64) error {
	return fault.New(fault.RangeInvalid, "The upload %q has moved on to %d bytes meanwhile. Ask for its status and go on from there.", id, size)
}

// Append takes r to its end. What was taken is durable when it returns, also when r breaks off: Offset says how much. Errors:
// Conflict while another request writes the upload, BlobUploadUnknown, StorageFull, Unavailable (the upload then stays where it was). A disk that failed
// to keep what was taken ends the upload: the client begins anew.
func (u *Upload) Append(ctx context.Context, r io.Reader) (int64, error) {
	release, err := u.claim()
	if err != nil {
		return 0, err
	}
	defer release()
	w, h, err := u.open(ctx)
	if err != nil {
		return 0, err
	}
	n, broken := u.s.take(w, h, r)
	if theirs(broken) {
		return 0, fault.Beside(u.lost(broken), w.Abort())
	}
	parts, err := w.Sync()
	if err != nil {
		return 0, u.giveUp(ctx, w, err)
	}
	if err := w.Close(); err != nil {
		return 0, named(u.s.disk, err)
	}
	if err := u.keep(context.WithoutCancel(ctx), u.Offset+n, h, parts); err != nil {
		return 0, err
	}
	u.Offset += n
	return n, broken
}

// keep records the place that the upload has reached, unless another node has written meanwhile.
func (u *Upload) keep(ctx context.Context, size int64, h resumable, parts []byte) error {
	state, err := h.MarshalBinary()
	if err != nil {
		return err
	}
	err = u.first(func(rowless bool) error {
		return u.s.db.Write(ctx, func(tx *meta.Tx) error {
			if rowless {
				return u.insert(tx, size, state, nonNil(parts))
			}
			n, err := tx.Exec(`UPDATE uploads SET size = $1, hash_state = $2, storage_state = $3, touched_us = $4 WHERE id = $5 AND owner = $6 AND size = $7`,
				size, state, nonNil(parts), meta.Micros(tx.Now()), u.ID, u.owner, u.Offset)
			if err != nil || n > 0 {
				return err
			}
			var now int64
			err = tx.Row(`SELECT size FROM uploads WHERE id = $1 AND owner = $2`, u.ID, u.owner).Scan(&now)
			if errors.Is(err, meta.ErrNotFound) {
				return unknown(u.ID)
			}
			if err != nil {
				return err
			}
			return moved(u.ID, now)
		})
	})
	if err == nil {
		u.state, u.parts = state, parts
	}
	return err
}

// nonNil is b for a column that is never NULL.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Seal takes the rest of the content, if any, verifies the whole against want, makes it durable, and has it committed: commit is to call Commit in a transaction, and nobody else
// writes the upload until it returns. The upload ends with the commit. When the digest is not want's nothing is stored and the upload stays where it was; where the storage shows
// content only once it is finished, and the digest is not sha256, the upload has then ended. Errors: DigestInvalid, Conflict,
// BlobUploadUnknown, StorageFull, Unavailable, and whatever rest breaks off with or commit returns.
func (u *Upload) Seal(ctx context.Context, want name.Digest, rest io.Reader, commit func(Sealed) error) error {
	release, err := u.claim()
	if err != nil {
		return err
	}
	defer release()
	w, h, err := u.open(ctx)
	if err != nil {
		return err
	}
	var n int64
	if rest != nil {
		n, err = u.s.take(w, h, rest)
	}
	size := u.Offset + n
	late := false
	if err == nil {
		late, err = verify(w, h, want, size)
	}
	if err == nil {
		err = w.Finish()
	}
	if errors.Is(err, driver.ErrUnsure) {
		late, err = true, w.Close()
	}
	if err != nil {
		return u.giveUp(ctx, w, err)
	}
	if late {
		if err := u.reread(ctx, want); err != nil {
			return err
		}
	}
	return u.first(func(rowless bool) error {
		c := Sealed{Digest: want, Size: size, key: u.key, upload: u.ID}
		if rowless {
			c.upload = ""
		}
		return commit(c)
	})
}

// verify compares the content with want. The running hash is sha256; for another algorithm the content is read again, and late says
// that this can't be done before it is finished.
func verify(w driver.Writer, h hash.Hash, want name.Digest, size int64) (late bool, err error) {
	alg := want.Algorithm()
	if alg != "sha256" {
		f, ok := w.(driver.Rereader)
		if !ok {
			return true, nil
		}
		h = want.NewHash()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
			return false, err
		}
	}
	if got := name.DigestFrom(alg, h); got != want {
		return false, mismatch(got, want)
	}
	return false, nil
}

// reread compares finished content with want. Where it is something else the upload ends.
func (u *Upload) reread(ctx context.Context, want name.Digest) error {
	h := want.NewHash()
	o, err := u.s.disk.Open(ctx, u.key)
	if err != nil {
		return u.lost(err)
	}
	r, err := o.Range(ctx, 0, -1)
	if err == nil {
		_, err = io.Copy(h, r)
	}
	if err = errors.Join(err, o.Close()); err != nil {
		return named(u.s.disk, err)
	}
	got := name.DigestFrom(want.Algorithm(), h)
	if got == want {
		return nil
	}
	return fault.Beside(mismatch(got, want), u.end(context.WithoutCancel(ctx)))
}

// theirs says whether an error of taking content is the storage's, after which nothing more can be written, and not the reader's.
func theirs(err error) bool {
	for _, e := range []error{driver.ErrFull, driver.ErrAway, driver.ErrTaken, fs.ErrNotExist, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lost tells of an upload whose object can't be gone on with, or what else err is.
func (u *Upload) lost(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, driver.ErrTaken) {
		return fault.From(unknown(u.ID)).Because(err)
	}
	return named(u.s.disk, err)
}

// giveUp gives up what a request has written after err, and the whole upload where the storage may have lost what was durable before.
func (u *Upload) giveUp(ctx context.Context, w driver.Writer, err error) error {
	told := fault.Beside(u.lost(err), w.Abort())
	if !errors.Is(err, driver.ErrLost) {
		return told
	}
	return fault.Beside(told, u.end(context.WithoutCancel(ctx)))
}

// Cancel ends the upload and removes what it had written. Errors: Conflict, BlobUploadUnknown.
func (u *Upload) Cancel(ctx context.Context) error {
	release, err := u.claim()
	if err != nil {
		return err
	}
	defer release()
	return u.end(ctx)
}

// end forgets the upload and removes what it had written.
func (u *Upload) end(ctx context.Context) error {
	err := u.first(func(rowless bool) error {
		if rowless {
			return nil
		}
		return u.s.db.Write(ctx, func(tx *meta.Tx) error {
			n, err := tx.Exec(`DELETE FROM uploads WHERE id = $1 AND owner = $2`, u.ID, u.owner)
			if err == nil && n == 0 {
				return unknown(u.ID)
			}
			return err
		})
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

// open gives the object at the upload's offset, and the hash in the state that belongs to it. The row is read again, because
// another request may have written between the caller's look and its claim.
func (u *Upload) open(ctx context.Context) (driver.Writer, resumable, error) {
	ctx = context.WithoutCancel(ctx) // what a client that goes away has sent is kept
	now, err := u.s.Upload(ctx, u.owner, u.ID)
	if err != nil {
		return nil, nil, err
	}
	if now.Offset != u.Offset {
		return nil, nil, moved(u.ID, now.Offset)
	}
	h := emptyHash()
	if u.Offset > 0 {
		if err := h.UnmarshalBinary(now.state); err != nil {
			return nil, nil, err
		}
	}
	w, err := u.s.disk.Write(ctx, u.key, u.Offset, now.parts)
	if err != nil {
		return nil, nil, u.lost(err)
	}
	return w, h, nil
}

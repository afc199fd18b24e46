// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/registry"
)

// after calls fn when the first bytes were written.
type after struct {
	fn func()
	n  int64
}

func (a *after) Write(b []byte) (int, error) {
	if a.n == 0 {
		a.fn()
	}
	a.n += int64(len(b))
	return len(b), nil
}

// Disabling exports stops a backup to somebody else's key where it is: nothing more is opened, and what is open ends. A backup to the installation's own key goes on.
func TestR18BackupMeetsTheFlip(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		h := w.registry("harbour")
		content := make([]byte, 32<<20)
		_, _ = rand.Read(content)
		d, small := h.blob("app", content), h.blob("app", []byte("small"))
		away, own := registry.BackupRun{ID: "1", Where: "/away"}, registry.BackupRun{ID: "2", Where: "/own", Sealed: true}
		for _, run := range []registry.BackupRun{away, own} {
			if err := w.reg.BeginBackup(ctx, run); err != nil {
				t.Fatal(err)
			}
		}
		leaving, err := w.reg.OpenBackup(ctx, away, h.row.ID, d)
		if err != nil {
			t.Fatal(err)
		}
		staying, err := w.reg.OpenBackup(ctx, own, h.row.ID, d)
		if err != nil {
			t.Fatal(err)
		}
		flipped := make(chan struct{})
		to := &after{fn: func() {
			go func() {
				defer close(flipped)
				h.change(func(r *meta.RegistryRow) { r.Exports, r.PublicAccess = false, false })
			}()
			for { // the change has been committed; its fence waits for this write
				row := h.row
				if err := w.db.Read(ctx, func(tx *meta.Tx) (err error) { row, err = tx.RegistryByID(h.row.ID); return err }); err != nil || !row.Exports {
					return
				}
			}
		}}
		n, err := leaving.WriteTo(ctx, to, 0, int64(len(content)))
		<-flipped
		if err == nil || n == int64(len(content)) || !strings.Contains(err.Error(), "export") {
			t.Errorf("the copy went on for %d bytes and ended with %v", n, err)
		}
		if err := leaving.Close(false); err != nil {
			t.Error(err)
		}
		if n, err := staying.WriteTo(ctx, io.Discard, 0, int64(len(content))); err != nil || n != int64(len(content)) {
			t.Errorf("to the installation's own key %d bytes were copied: %v", n, err)
		}
		if err := staying.Close(true); err != nil {
			t.Error(err)
		}
		if c, err := w.reg.OpenBackup(ctx, away, h.row.ID, small); err == nil {
			t.Error(errors.Join(errors.New("content was opened after the flip"), c.Close(false)))
		}
		if err := w.reg.BeginBackup(ctx, away); err == nil {
			t.Error("another backup began")
		}
		c, err := w.reg.OpenBackup(ctx, own, h.row.ID, small)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(true); err != nil {
			t.Error(err)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/embargo-registry/embargo/backup"
	"github.com/embargo-registry/embargo/cmd/embargo/internal/armclient"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/server"
)

func backupCommand() *cobra.Command {
	var a admin
	var to string
	var recipients []string
	c := &cobra.Command{
		Use:   "backup --to FOLDER",
		Short: "Back up the running installation into a folder",
		Long: "Back up the running installation into a folder: its database at one instant, then the content that it names. What the folder has already is not written again.\n" +
			"Everything is encrypted to the installation's backup key, which the installation key opens: keep a copy of that file elsewhere. With --recipient others can open the backup too,\n" +
			"which is refused while a registry has exports disabled. The server writes the folder, so its user must be able to.",
		Args: func(_ *cobra.Command, args []string) error { return unknown(args) },
	}
	a.flags(c.Flags())
	c.Flags().StringVar(&to, "to", "", "Folder for backups (required); made if it is not there")
	c.Flags().StringArrayVar(&recipients, "recipient", nil, "age recipient (age1…) that shall be able to open the backup besides the installation; may be repeated")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" {
			return usage("the following arguments are required: --to")
		}
		path, err := filepath.Abs(to)
		if err != nil {
			return err
		}
		answer, err := a.do(cmd.Context(), http.MethodPost, "/v1/backups", map[string]any{"to": path, "recipients": recipients})
		if err != nil {
			return err
		}
		err = follow(cmd, answer, path)
		return errors.Join(err, answer.Close())
	}
	c.AddCommand(backupListCommand(), backupVerifyCommand(), backupPruneCommand())
	return c
}

// follow prints a backup's progress and its end.
func follow(cmd *cobra.Command, events io.Reader, path string) error {
	m := newMeter(cmd.ErrOrStderr())
	lines := json.NewDecoder(events)
	for {
		var e server.BackupEvent
		if err := lines.Decode(&e); err != nil {
			m.end()
			return errors.New("the server ended before the backup did: the folder has no new backup. Run it again; what was written is used")
		}
		switch {
		case e.Progress != nil:
			m.show(*e.Progress)
		case e.Error != nil:
			m.end()
			return &armclient.Error{Code: e.Error.Code, Message: e.Error.Message}
		case e.Snapshot != nil:
			m.end()
			fmt.Fprintf(cmd.OutOrStdout(), "Backup %s is in %s: %d objects of content, %s; new in the folder: %d objects, %s.\n", e.Snapshot.ID, path, e.Snapshot.Objects, size(e.Snapshot.Bytes), m.last.New, size(m.last.NewBytes))
			return nil
		}
	}
}

// folderFlags are how a folder of backups is opened.
type folderFlags struct{ from, data, key, identity string }

func (f *folderFlags) flags(set *pflag.FlagSet) {
	fallback := os.Getenv("EMBARGO_DATA")
	if fallback == "" {
		fallback = "./embargo-data"
	}
	set.StringVar(&f.from, "from", "", "Folder of backups (required)")
	set.StringVar(&f.data, "data", fallback, "Data directory in which the installation key is looked for. Environment: EMBARGO_DATA")
	set.StringVar(&f.key, "installation-key", "", "The installation key that opens the backups (default: installation.key in the data directory)")
	set.StringVar(&f.identity, "identity", "", "File of age identities that open the backups instead")
}

func (f *folderFlags) open() (*backup.Folder, error) {
	if f.from == "" {
		return nil, usage("the following arguments are required: --from")
	}
	key := f.key
	if key == "" && f.identity == "" {
		key = filepath.Join(f.data, "installation.key")
	}
	var ring *meta.Keyring
	var identities []age.Identity
	var err error
	if key != "" {
		if ring, err = meta.LoadKeyring(key); errors.Is(err, fs.ErrNotExist) && f.key == "" {
			return nil, fmt.Errorf("there is no installation key in the data directory %s: name the directory with --data, the key's file with --installation-key, or a further recipient's key with --identity", f.data)
		}
		if err != nil {
			return nil, err
		}
	}
	if f.identity != "" {
		if identities, err = backup.Identities(f.identity); err != nil {
			return nil, err
		}
	}
	return backup.Open(f.from, ring, identities)
}

func backupListCommand() *cobra.Command {
	var f folderFlags
	var p printed
	c := &cobra.Command{Use: "list --from FOLDER", Short: "List the backups in a folder", Args: noArgs}
	f.flags(c.Flags())
	p.flags(c.Flags(), "table")
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := p.check(); err != nil {
			return err
		}
		folder, err := f.open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, folder.Close()) }()
		ids, err := folder.Snapshots()
		if err != nil {
			return err
		}
		all := []any{}
		var foreign []string
		for _, id := range ids {
			s, err := folder.Snapshot(id)
			if errors.Is(err, backup.ErrForeign) {
				foreign = append(foreign, id)
				continue
			}
			if err != nil {
				return err
			}
			all = append(all, map[string]any{"id": s.ID, "taken": s.Taken.Format(time.RFC3339), "version": s.Version, "schema": s.Schema, "objects": s.Objects, "bytes": s.Bytes, "sealed": s.Sealed})
		}
		if p.format == "table" && p.query == "" {
			p.query = "[].{backup:id,taken:taken,version:version,objects:objects,bytes:bytes,sealed:sealed}"
		}
		if len(foreign) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "Not listed, because the keys given do not open them (was the installation key rotated since it was copied?): %s\n", strings.Join(foreign, ", "))
		}
		return p.write(cmd, all)
	}
	return c
}

func backupVerifyCommand() *cobra.Command {
	var f folderFlags
	var id string
	var every bool
	c := &cobra.Command{
		Use:   "verify --from FOLDER",
		Short: "Read a backup whole: every row is decoded, every content hashed",
		Long:  "Read a backup whole, as a restore would: every row is decoded and every content is hashed. It needs the key and the folder, and no server.",
		Args:  noArgs,
	}
	f.flags(c.Flags())
	c.Flags().StringVar(&id, "backup", "", "Id of the backup (default: the newest)")
	c.Flags().BoolVar(&every, "all", false, "Verify every backup in the folder")
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		folder, err := f.open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, folder.Close()) }()
		ids := []string{id}
		if every {
			if ids, err = folder.Snapshots(); err != nil {
				return err
			}
		}
		checked := map[string]bool{}
		for _, id := range ids {
			s, err := folder.Snapshot(id)
			if err != nil {
				return err
			}
			m := newMeter(cmd.ErrOrStderr())
			err = folder.Verify(cmd.Context(), s, checked, m.show)
			m.end()
			if err != nil {
				return fmt.Errorf("the backup %s is not whole: %w", s.ID, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Backup %s is whole: %d tables, %d objects of content, %s.\n", s.ID, len(s.Tables), s.Objects, size(s.Bytes))
		}
		return nil
	}
	return c
}

func backupPruneCommand() *cobra.Command {
	var f folderFlags
	var keep int
	c := &cobra.Command{Use: "prune --from FOLDER --keep N", Short: "Remove all backups but the newest, and what only they used", Args: noArgs}
	f.flags(c.Flags())
	c.Flags().IntVar(&keep, "keep", 0, "How many backups are kept (required)")
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if keep < 1 {
			return usage("--keep is needed, and at least 1")
		}
		folder, err := f.open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, folder.Close()) }()
		gone, objects, err := folder.Prune(keep)
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "Removed %d backups and %d objects.\n", len(gone), objects)
		}
		return err
	}
	return c
}

func restoreCommand() *cobra.Command {
	var w server.RestoreWish
	c := &cobra.Command{
		Use:   "restore --from FOLDER",
		Short: "Put a backup into an empty data directory and an empty database",
		Long: "Put a backup into an empty data directory and an empty database; a backup from SQLite may go to PostgreSQL, and the other way. No server may run on either.\n" +
			"A policy-epochs.json in the data directory is kept: bring along the newest one there is. Unless it shows that no policy was tightened since the backup, the installation comes up held: nothing is exported,\n" +
			"and the public side and the private endpoints are shut, until an owner runs 'embargo restore confirm'.",
		Args: func(_ *cobra.Command, args []string) error { return unknown(args) },
	}
	declareSome(c.Flags(), "data", "database", "storage", "storageKeyFile", "storageRoots", "installationKey", "logLevel", "logFormat")
	c.Flags().StringVar(&w.From, "from", "", "Folder of backups (required)")
	c.Flags().StringVar(&w.Snapshot, "backup", "", "Id of the backup (default: the newest)")
	c.Flags().StringVar(&w.Key, "key-file", "", "The installation key that opens the backup; it is copied to its place when none is there")
	c.Flags().StringVar(&w.Identities, "identity", "", "File of age identities that open the backup instead")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if w.From == "" {
			return usage("the following arguments are required: --from")
		}
		s, err := load(cmd.Flags(), os.LookupEnv)
		if err != nil {
			return usageError{err}
		}
		s.server.Log = logger(s, s.logLevel, cmd.ErrOrStderr())
		m := newMeter(cmd.ErrOrStderr())
		done, err := server.Restore(cmd.Context(), s.server, w, m.show)
		m.end()
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Restored the backup %s of %s: %d objects of content, %s.\n", done.Snapshot.ID, done.Snapshot.Taken.Format(time.RFC3339), done.Snapshot.Objects, size(done.Snapshot.Bytes))
		if len(done.Lost) > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "\nThe installation key that sealed these is not here:\n  - %s\nPut it in place before 'embargo serve', or give them up with 'embargo keys reset --accept-loss'.\n", strings.Join(done.Lost, "\n  - "))
		}
		fmt.Fprintln(cmd.OutOrStdout(), "\nStart it with '"+done.Next+"'. It comes up held: nothing is exported until an owner logs in and runs 'embargo restore confirm'.")
		return nil
	}
	c.AddCommand(confirmCommand())
	return c
}

func confirmCommand() *cobra.Command {
	var a admin
	var yes bool
	c := &cobra.Command{
		Use:   "confirm",
		Short: "Put a held installation's own policies in force again (as an owner who is logged in)",
		Long:  "Put the policies that a restored copy states in force again. It is run on the server's machine by an owner of the subscription who is logged in ('embargo login'), and it is recorded.",
		Args:  noArgs,
	}
	a.flags(c.Flags())
	c.Flags().BoolVarP(&yes, "yes", "y", false, "Don't ask")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := armclient.Dir()
		if err != nil {
			return err
		}
		session, err := armclient.Load(cmd.Context(), dir)
		if err != nil {
			return err
		}
		if !yes {
			var st server.Status
			if err := a.decode(cmd.Context(), http.MethodGet, "/v1/status", &st); err != nil {
				return err
			}
			if st.Hold != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "It is held because %s.\nTo confirm puts in force:\n", st.Hold.Why)
				for _, p := range st.Hold.Own {
					fmt.Fprintf(cmd.ErrOrStderr(), "  %s\n", own(p))
				}
			}
			fmt.Fprint(cmd.ErrOrStderr(), "The restored copy may be older than what was in force: policies tightened since are not in it. Put its policies in force? (y/N): ")
			if answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n'); !strings.EqualFold(strings.TrimSpace(answer), "y") {
				return errors.New("nothing was changed")
			}
		}
		v, err := a.as(session.Token).value(cmd.Context(), http.MethodPost, "/v1/restore/confirm", nil)
		if err != nil {
			return err
		}
		return printed{format: "json"}.write(cmd, v)
	}
	return c
}

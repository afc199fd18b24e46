// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/embargo-registry/embargo/audit"
	"github.com/embargo-registry/embargo/backup"
	"github.com/embargo-registry/embargo/durable"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/upstream"
	"github.com/embargo-registry/embargo/webhook"
)

// openKeyring reads the installation key. It makes one only for a database that has sealed nothing yet: beside one that has, a new key would hide that the right
// one is missing. A key that is missing, or that opens nothing here, is an error that says what is lost with it.
func (s *Server) openKeyring(ctx context.Context) error {
	_, err := os.Stat(s.o.InstallationKey)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	var cause error
	if missing {
		cause = fmt.Errorf("the installation key %s is missing", s.o.InstallationKey)
	} else if s.ring, err = meta.LoadKeyring(s.o.InstallationKey); err != nil {
		return err
	}
	lost, err := s.lost(ctx, s.ring)
	if err != nil {
		return err
	}
	switch {
	case len(lost) > 0 && cause == nil:
		cause = fmt.Errorf("the installation key %s is not the one that sealed this database's secrets", s.o.InstallationKey)
		fallthrough
	case len(lost) > 0:
		return &lostKeyError{s.o.Data, cause, lost}
	case missing:
		if s.ring, err = meta.NewKeyring(s.o.InstallationKey); err != nil {
			return option("installationKey", "the new key %s can't be written: %w", s.o.InstallationKey, err)
		}
	}
	return nil
}

// lostKeyError says what a missing key costs.
type lostKeyError struct {
	data  string
	cause error
	lost  []string
}

func (e *lostKeyError) Error() string {
	text := e.cause.Error() + ". Put it back from where it is kept. Without it these can't be opened, and nothing else is lost:"
	for _, l := range e.lost {
		text += "\n  - " + l
	}
	return text + "\nIf the key is gone for good, 'embargo keys reset --accept-loss --data " + e.data + "' (with the same --config or --database as 'serve') removes them and makes a new key; " +
		"content, policies, rights and principals stay."
}

// lost names what is sealed in the database and does not open with the ring; a nil ring opens nothing.
func (s *Server) lost(ctx context.Context, ring *meta.Keyring) (lost []string, err error) {
	err = s.db.Read(ctx, func(tx *meta.Tx) error {
		lost = nil
		names, err := tx.SealedSecrets(ring)
		if err != nil {
			return err
		}
		for _, n := range names {
			lost = append(lost, meaning(n))
		}
		more, err := identity.Sealed(tx, ring)
		lost = append(lost, more...)
		return err
	})
	return lost, err
}

// meaning says what the loss of a secret comes to.
func meaning(secret string) string {
	switch secret {
	case "network/authority":
		return "the certificate authority's key: a new authority is made, and clients must trust its ca.pem"
	case "network/authority-next":
		return "the key of the next certificate authority, which is not in use yet"
	case "backup/identity":
		return "the backup key: backups made so far open only with the age identities they were encrypted to besides"
	}
	if strings.HasPrefix(secret, "network/acme/") {
		return "what was got from the ACME server (" + strings.TrimPrefix(secret, "network/acme/") + "): it is got anew"
	}
	if strings.HasPrefix(secret, webhook.SecretPrefix) {
		return "the destination, headers and signing key of a webhook (" + strings.TrimPrefix(secret, webhook.SecretPrefix) + "): serviceUri and customHeaders must be set again"
	}
	if strings.HasPrefix(secret, upstream.SecretPrefix) {
		return "the user name and password of a credential set (" + strings.TrimPrefix(secret, upstream.SecretPrefix) + "): authCredentials must be set again"
	}
	return "the secret " + secret
}

// rotateKeys replaces keys of the running installation.
func (a *adminSocket) rotateKeys(w http.ResponseWriter, r *http.Request) error {
	var asked struct {
		What   string
		Finish bool
		Revoke bool
	}
	if err := body(r, &asked); err != nil {
		return err
	}
	record := func(tx *meta.Tx, what, key string) error {
		return a.rooms.audit.Append(tx, audit.Record{Kind: audit.Security, Action: "Embargo.Identity/keys/" + what + "/action", Outcome: audit.Succeeded,
			Resource: "keys/" + key, Caller: socketCaller(), Source: localSource()})
	}
	switch asked.What {
	case "", "signing":
		kid, err := a.rooms.identity.RotateKeys(r.Context(), asked.Revoke, func(tx *meta.Tx, kid string) error { return record(tx, "rotate", kid) })
		if err == nil {
			reply(w, http.StatusOK, map[string]string{"kid": kid})
		}
		return err
	case "installation":
		return a.rotateInstallation(w, r, record)
	case "authority":
		return a.rotateAuthority(w, r, asked.Finish, record)
	}
	return fault.New(fault.InvalidParameter, "There are no %s keys: signing, authority and installation can be rotated.", clip(asked.What))
}

// rotateInstallation adds a key to the file, durably, before anything is sealed by it; then it seals everything anew in one transaction.
func (a *adminSocket) rotateInstallation(w http.ResponseWriter, r *http.Request, record func(tx *meta.Tx, what, key string) error) error {
	// One rotation at a time: what a later one seals must not be sealed again by the key of an earlier one.
	a.of.turning.Lock()
	defer a.of.turning.Unlock()
	ring := a.of.ring
	if err := ring.Rotate(a.of.o.InstallationKey); err != nil {
		return fault.New(fault.Internal, "The installation key's file could not be written: nothing was changed.").Because(err)
	}
	err := a.db.Write(r.Context(), func(tx *meta.Tx) error {
		return errors.Join(tx.ResealSecrets(ring), identity.Reseal(tx, ring), a.rooms.engine.Reseal(tx), backup.RenewKey(tx, ring), record(tx, "rotateInstallation", ring.KeyID()))
	})
	if err == nil {
		reply(w, http.StatusOK, map[string]string{"keyId": ring.KeyID(), "file": a.of.o.InstallationKey, "next": "copy the file to where you keep it: backups and secrets made from now on open with its newest key"})
	}
	return err
}

// rotateAuthority makes the next certificate authority, or puts it in use.
func (a *adminSocket) rotateAuthority(w http.ResponseWriter, r *http.Request, finish bool, record func(tx *meta.Tx, what, key string) error) error {
	turn, what, next := a.of.ca.Prepare, "prepareAuthority", "give ca.pem, which now has both authorities, to all clients (on each machine, log in again: 'embargo login', 'embargo connect'); then run 'embargo keys rotate authority --finish'"
	if finish {
		turn, what, next = a.of.ca.Finish, "finishAuthority", "certificates are issued by the new authority; ca.pem has it alone"
	}
	fingerprint, err := turn(r.Context(), a.db, a.of.ring, func(tx *meta.Tx, fingerprint string) error { return record(tx, what, fingerprint) })
	if err != nil {
		return err
	}
	path := a.dir.file("ca.pem")
	if err := durable.WriteFile(path, a.of.ca.PEM(), 0o644); err != nil {
		return err
	}
	reply(w, http.StatusOK, map[string]string{"authority": fingerprint, "file": path, "next": next})
	return nil
}

// ResetKeys removes, from an installation that does not run, what the installation key does not open, and makes a new key. What was removed is returned and recorded.
func ResetKeys(ctx context.Context, o Options) (lost []string, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{o: o, log: o.Log, metrics: newMetrics(o.Version)}
	if s.dir, err = openDataDir(o.Data); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.dir.close()) }()
	if err := s.databaseThere(); err != nil {
		return nil, err
	}
	if err := s.openDatabase(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.db.Close()) }()
	var gone *lostKeyError
	if err := s.openKeyring(ctx); err == nil {
		return nil, errors.New("the installation key opens everything in this database: nothing is lost, and nothing was changed")
	} else if !errors.As(err, &gone) {
		return nil, err
	}
	if s.ring == nil { // one that is there, and is another's, may stay: it opens nothing here and seals from now on
		s.ring, err = meta.NewKeyring(s.o.InstallationKey)
	}
	if err != nil {
		return nil, err
	}
	node, err := s.node()
	if err != nil {
		return nil, err
	}
	log, err := audit.New(ctx, audit.Options{DB: s.db, Node: node, Log: s.log})
	if err != nil {
		return nil, err
	}
	err = s.db.Write(ctx, func(tx *meta.Tx) error {
		return errors.Join(tx.ForgetSealed(s.ring), identity.ForgetSealed(tx, s.ring), log.Append(tx, audit.Record{Kind: audit.Security, Action: "Embargo.Identity/keys/reset/action",
			Outcome: audit.Succeeded, Resource: "keys/installation", Caller: socketCaller(), Reason: fmt.Sprintf("The installation key was lost; removed: %q", gone.lost)}))
	})
	return gone.lost, errors.Join(err, log.Close())
}

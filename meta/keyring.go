// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/embargo-registry/embargo/durable"
)

// Keyring holds the installation keys: AES-256 keys that seal what must be readable again. The newest seals; all of them open.
// Its file has a line a key, oldest first: <key id> <base64 of 32 bytes>. It is mode 0600 and lies outside the database.
// It is safe for concurrent use.
type Keyring struct {
	turning sync.Mutex // held while a key is added

	mu   sync.RWMutex
	keys map[string]cipher.AEAD
	last string
}

// sealVersion is the first byte of every sealed text.
const sealVersion = 1

// keyIDBytes is the length of a key id before hex.
const keyIDBytes = 4

// NewKeyring makes a file with one fresh key. It fails if the file exists.
func NewKeyring(path string) (*Keyring, error) {
	line, err := freshKey()
	if err != nil {
		return nil, err
	}
	if err := durable.CreateFile(path, []byte(line), 0o600); err != nil {
		return nil, err
	}
	return LoadKeyring(path)
}

// LoadKeyring reads the file. It refuses a file that others may read.
func LoadKeyring(path string) (*Keyring, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the installation key %s is missing: without it the sealed secrets (CA key, signing keys, admin passwords) can't be read. Put the file back from where it is kept: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the installation key %s can be read by others (mode %#o): run chmod 600 on it", path, st.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseKeyring(string(data))
}

// ParseKeyring reads the text of a keyring file, for keys that come from a secret store.
func ParseKeyring(text string) (*Keyring, error) {
	k := &Keyring{keys: map[string]cipher.AEAD{}}
	for i, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("line %d of the installation key is not «id key»", i+1)
		}
		raw, err := base64.StdEncoding.DecodeString(fields[1])
		if id, idErr := hex.DecodeString(fields[0]); err != nil || idErr != nil || len(raw) != 32 || len(id) != keyIDBytes {
			return nil, fmt.Errorf("line %d of the installation key is damaged: it needs an id of %d hexadecimal digits and 32 bytes in base64", i+1, 2*keyIDBytes)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		id := strings.ToLower(fields[0])
		if k.keys[id] != nil {
			return nil, fmt.Errorf("line %d of the installation key repeats the id %s: what the key above it sealed could not be read", i+1, id)
		}
		k.keys[id], k.last = aead, id
	}
	if k.last == "" {
		return nil, errors.New("the installation key holds no key")
	}
	return k, nil
}

// Rotate adds a fresh key to the file, and then to the ring: it seals from then on. What older keys sealed stays readable.
func (k *Keyring) Rotate(path string) error {
	k.turning.Lock() // the next one begins with what this one has written
	defer k.turning.Unlock()
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	line, err := freshKey()
	if err != nil {
		return err
	}
	text := strings.TrimRight(string(old), "\n") + "\n" + line
	next, err := ParseKeyring(text)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, key := range k.keys {
		if _, there := next.keys[id]; !there {
			next.keys[id] = key // whatever became of the file, what this key sealed stays readable as long as the process lives
		}
	}
	k.keys, k.last = next.keys, next.last
	return nil
}

func freshKey() (string, error) {
	var b [keyIDBytes + 32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:keyIDBytes]) + " " + base64.StdEncoding.EncodeToString(b[keyIDBytes:]) + "\n", nil
}

// KeyID is the id of the key that seals.
func (k *Keyring) KeyID() string {
	id, _ := k.sealer()
	return id
}

func (k *Keyring) sealer() (string, cipher.AEAD) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.last, k.keys[k.last]
}

// Seal encrypts plaintext for a purpose; it opens for the same purpose only. The result carries its version and key id.
func (k *Keyring) Seal(purpose string, plaintext []byte) ([]byte, error) {
	last, aead := k.sealer()
	id, err := hex.DecodeString(last)
	if err != nil {
		return nil, err
	}
	out := append([]byte{sealVersion}, id...)
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	out = append(out, nonce...)
	return aead.Seal(out, nonce, plaintext, []byte(purpose)), nil
}

// Open decrypts what Seal made. A missing key's error names its id.
func (k *Keyring) Open(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+keyIDBytes || sealed[0] != sealVersion {
		return nil, fmt.Errorf("the sealed secret %q has an unknown form", purpose)
	}
	id := hex.EncodeToString(sealed[1 : 1+keyIDBytes])
	k.mu.RLock()
	aead, ok := k.keys[id]
	last := k.last
	k.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("the secret %q is sealed by the installation key %s, which is not here (the keys here end with %s): put back the installation key that belongs to this database", purpose, id, last)
	}
	body := sealed[1+keyIDBytes:]
	if len(body) < aead.NonceSize() {
		return nil, fmt.Errorf("the sealed secret %q is cut short", purpose)
	}
	plain, err := aead.Open(nil, body[:aead.NonceSize()], body[aead.NonceSize():], []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("the sealed secret %q does not open with the installation key %s: it is damaged, or was sealed for another purpose", purpose, id)
	}
	return plain, nil
}

// PutSecret stores a sealed secret under a name, in place of an older one.
func (tx *Tx) PutSecret(name string, sealed []byte) error {
	id := ""
	if len(sealed) > keyIDBytes {
		id = hex.EncodeToString(sealed[1 : 1+keyIDBytes])
	}
	_, err := tx.Exec(`INSERT INTO secrets (name, key_id, sealed) VALUES ($1, $2, $3)
 ON CONFLICT (name) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed`, name, id, sealed)
	return err
}

// Secret reads a sealed secret. Errors: ErrNotFound.
func (tx *Tx) Secret(name string) ([]byte, error) {
	var sealed []byte
	err := tx.Row(`SELECT sealed FROM secrets WHERE name = $1`, name).Scan(&sealed)
	return sealed, err
}

// DeleteSecret removes a secret; one that is not there is no error.
func (tx *Tx) DeleteSecret(name string) error {
	_, err := tx.Exec(`DELETE FROM secrets WHERE name = $1`, name)
	return err
}

// eachSecret visits the stored secrets. The purpose of a stored secret is its name.
func (tx *Tx) eachSecret(visit func(name string, sealed []byte) error) error {
	rows, err := tx.Query(`SELECT name, sealed FROM secrets ORDER BY name`)
	if err != nil {
		return err
	}
	all := map[string][]byte{}
	var names []string
	for rows.Next() {
		var name string
		var sealed []byte
		if err := rows.Scan(&name, &sealed); err != nil {
			return errors.Join(err, rows.Close())
		}
		names, all[name] = append(names, name), sealed
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, n := range names {
		if err := visit(n, all[n]); err != nil {
			return err
		}
	}
	return nil
}

// SealedSecrets are the names of the stored secrets that ring does not open; a nil ring opens none.
func (tx *Tx) SealedSecrets(ring *Keyring) (names []string, err error) {
	err = tx.eachSecret(func(name string, sealed []byte) error {
		if ring.Opens(name, sealed) {
			return nil
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

// Opens reports whether ring opens what was sealed for a purpose; a nil ring opens nothing.
func (k *Keyring) Opens(purpose string, sealed []byte) bool {
	if k == nil {
		return false
	}
	_, err := k.Open(purpose, sealed)
	return err == nil
}

// ResealSecrets seals every stored secret by the ring's newest key.
func (tx *Tx) ResealSecrets(ring *Keyring) error {
	return tx.eachSecret(func(name string, sealed []byte) error {
		again, err := ring.Reseal(name, sealed)
		if err != nil {
			return err
		}
		return tx.PutSecret(name, again)
	})
}

// Reseal opens what was sealed and seals it by the newest key.
func (k *Keyring) Reseal(purpose string, sealed []byte) ([]byte, error) {
	plain, err := k.Open(purpose, sealed)
	if err != nil {
		return nil, err
	}
	return k.Seal(purpose, plain)
}

// ForgetSealed removes the stored secrets that ring does not open.
func (tx *Tx) ForgetSealed(ring *Keyring) error {
	return tx.eachSecret(func(name string, sealed []byte) error {
		if ring.Opens(name, sealed) {
			return nil
		}
		return tx.DeleteSecret(name)
	})
}

// SetInstallation keeps a fact of the installation under a key, in place of an older one.
func (tx *Tx) SetInstallation(key, value string) error {
	_, err := tx.Exec(`INSERT INTO installation (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
	return err
}

// Installation reads a fact of the installation. Errors: ErrNotFound.
func (tx *Tx) Installation(key string) (string, error) {
	var v string
	err := tx.Row(`SELECT value FROM installation WHERE key = $1`, key).Scan(&v)
	return v, err
}

// ForgetInstallation removes a fact of the installation; one that is not there is no error.
func (tx *Tx) ForgetInstallation(key string) error {
	_, err := tx.Exec(`DELETE FROM installation WHERE key = $1`, key)
	return err
}

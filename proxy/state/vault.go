package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"filippo.io/age"
	"github.com/moby/sys/atomicwriter"

	"otrproxy/otrlayer/keyring"
)

// MinPassphrase is the least length of a passphrase, in bytes.
const MinPassphrase = 8

// LockedError is what stands in the way while the private keys are encrypted and nobody has
// given the passphrase.
func LockedError() error {
	return fmt.Errorf("%w with a passphrase that has to be given after each start of otrproxy; the administrator does so with: otrproxy key unlock", keyring.ErrLocked)
}

// A Vault keeps private keys encrypted at rest, in the format of age. An identity of
// age's is made once and kept in the state directory, encrypted with the passphrase
// (scrypt); key files are encrypted to it. So the passphrase is asked for once, and
// without otrproxy the files are read with age alone: age -d identity.age, then
// age -d -i.
type Vault struct {
	path string

	mu       sync.Mutex
	sealed   []byte              // the encrypted identity; nil where keys are in clear
	ending   bool                // keys are to be kept in clear again
	identity *age.X25519Identity // nil while locked
}

const identityFile = "identity.age"

// maxSealed bounds what is decrypted, in bytes.
const maxSealed = 1 << 20

var errPassphrase = errors.New("this is not the passphrase")

// OpenVault reads the identity of a state directory; without one, keys are kept in clear.
func OpenVault(dir string) (*Vault, error) {
	v := &Vault{path: filepath.Join(dir, identityFile)}
	var err error
	v.sealed, err = ReadPrivate(v.path)
	return v, err
}

// Sealing reports whether files are to be encrypted.
func (v *Vault) Sealing() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sealed != nil && !v.ending
}

// StopSealing has no more files encrypted; those that are can still be read.
func (v *Vault) StopSealing() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ending = true
}

// There reports whether there is a passphrase.
func (v *Vault) There() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sealed != nil
}

// Locked reports whether nobody has given the passphrase yet.
func (v *Vault) Locked() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sealed != nil && v.identity == nil
}

// Seal encrypts a file; keyring.ErrLocked where nobody has given the passphrase.
func (v *Vault) Seal(plain []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.identity == nil {
		return nil, keyring.ErrLocked
	}
	return encrypt(plain, v.identity.Recipient())
}

// Open decrypts one.
func (v *Vault) Open(sealed []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.identity == nil {
		return nil, keyring.ErrLocked
	}
	return decrypt(sealed, v.identity)
}

// WorkFactor is what guessing a passphrase costs, as a power of two of scrypt's; 0 for
// age's own choice. Tests lower it.
var WorkFactor int

// byPassphrase encrypts to whoever knows a passphrase.
func byPassphrase(passphrase string) (*age.ScryptRecipient, error) {
	r, err := age.NewScryptRecipient(passphrase)
	if err == nil && WorkFactor > 0 {
		r.SetWorkFactor(WorkFactor)
	}
	return r, err
}

func encrypt(plain []byte, to age.Recipient) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil { // the last of it is written now
		return nil, err
	}
	return b.Bytes(), nil
}

func decrypt(sealed []byte, id age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxSealed))
}

// Unlock opens the vault.
func (v *Vault) Unlock(passphrase string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sealed == nil {
		return errors.New("the private keys are not encrypted")
	}
	id, err := v.opened(passphrase)
	if err == nil {
		v.identity = id
	}
	return err
}

func (v *Vault) opened(passphrase string) (*age.X25519Identity, error) {
	s, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, errPassphrase
	}
	plain, err := decrypt(v.sealed, s)
	var wrong *age.NoIdentityMatchError
	if errors.As(err, &wrong) {
		return nil, errPassphrase
	}
	if err == nil {
		var id *age.X25519Identity
		if id, err = age.ParseX25519Identity(string(bytes.TrimSpace(plain))); err == nil {
			return id, nil
		}
	}
	return nil, fmt.Errorf("%s is damaged: %w; restore it from a backup", v.path, err)
}

// Protect sets the passphrase: the first one, or another. Key files are the caller's
// to encrypt.
func (v *Vault) Protect(passphrase string) (err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := v.identity
	if id == nil && v.sealed != nil {
		return keyring.ErrLocked
	}
	if id == nil {
		if id, err = age.GenerateX25519Identity(); err != nil {
			return err
		}
	}
	r, err := byPassphrase(passphrase)
	if err != nil {
		return err
	}
	sealed, err := encrypt([]byte(id.String()+"\n"), r)
	if err != nil {
		return err
	}
	if err := atomicwriter.WriteFile(v.path, sealed, 0o600); err != nil {
		return fmt.Errorf("the passphrase could not be set: %w", err)
	}
	v.sealed, v.identity, v.ending = sealed, id, false
	return nil
}

// Release forgets the passphrase, once no file is encrypted any more.
func (v *Vault) Release() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.ending {
		return errors.New("a passphrase was set meanwhile")
	}
	if err := os.Remove(v.path); err != nil {
		return err
	}
	v.sealed, v.identity, v.ending = nil, nil, false
	return nil
}

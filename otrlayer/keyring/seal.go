package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Vault keeps private keys encrypted on disk. It is safe for use by several
// goroutines.
type Vault interface {
	// Sealing reports whether keys are to be kept encrypted.
	Sealing() bool
	// Seal encrypts, and Open decrypts; Open fails with ErrLocked as long as nobody has
	// given the passphrase.
	Seal(plain []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// ErrLocked tells that the private keys are encrypted, and nobody has given the
// passphrase since the start.
var ErrLocked = errors.New("the private keys are locked")

// SealedSuffix ends the name of a key file that is encrypted.
const SealedSuffix = ".age"

// SealKeys encrypts the key files in the directory of an account that is not open, or
// decrypts them: the present one, and those that were set aside.
func SealKeys(dir string, v Vault, seal bool) error {
	there, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range there {
		name := e.Name()
		plain, sealed := strings.CutSuffix(name, SealedSuffix)
		switch {
		case strings.HasPrefix(name, ".") && strings.Contains(name, KeyFile):
			os.Remove(filepath.Join(dir, name)) // of a run that was ended while it wrote
		case !strings.HasPrefix(name, KeyFile):
		case seal && !sealed:
			err = errors.Join(err, sealFile(dir, name, name+SealedSuffix, v, true))
		case !seal && sealed:
			err = errors.Join(err, sealFile(dir, name, plain, v, false))
		}
	}
	return err
}

func sealFile(dir, from, to string, v Vault, seal bool) error {
	change := v.Open
	if seal {
		change = v.Seal
	}
	b, err := Read(dir, from)
	if err != nil || b == nil {
		return err
	}
	there, err := Read(dir, to)
	if err != nil {
		return err
	}
	plain := b
	if there != nil { // left by a run that was ended between the two steps, or another key
		first, second := b, there
		if seal {
			second, err = v.Open(there)
		} else {
			first, err = v.Open(b)
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(first, second) {
			return twoKeys(dir, from, to)
		}
		return os.Remove(filepath.Join(dir, from))
	}
	if b, err = change(b); err != nil {
		return err
	}
	if seal { // a key that cannot be read back is lost
		if back, err := v.Open(b); err != nil || !bytes.Equal(back, plain) {
			return fmt.Errorf("what was encrypted cannot be read back, so the key was left as it is: %w", errors.Join(err, ErrLocked))
		}
	}
	if err := Write(dir, to, b); err != nil {
		return err
	}
	return os.Remove(filepath.Join(dir, from))
}

func twoKeys(dir, one, two string) error {
	return fmt.Errorf("there are two files with a key in %s, %s and %s, and it cannot be known which one is meant: move one of them away", dir, one, two)
}

// ReadKeys reads the account's key file, encrypted or not; nil when there is none.
func ReadKeys(dir string, v Vault) (path string, file []byte, err error) {
	sealed, err := Read(dir, KeyFile+SealedSuffix)
	if err != nil {
		return "", nil, err
	}
	plain, err := Read(dir, KeyFile)
	switch {
	case err != nil:
		return "", nil, err
	case sealed == nil:
		return filepath.Join(dir, KeyFile), plain, nil
	case plain != nil:
		return "", nil, twoKeys(dir, KeyFile, KeyFile+SealedSuffix)
	case v == nil:
		return "", nil, ErrLocked
	}
	plain, err = v.Open(sealed)
	return filepath.Join(dir, KeyFile+SealedSuffix), plain, err
}

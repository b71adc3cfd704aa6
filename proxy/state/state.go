package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"
)

// lockName is the file in the state directory that the process which has it locks.
const lockName = "lock"

// A State is the state directory, held by this process alone.
type State struct {
	Dir  string
	lock *flock.Flock
}

// OpenState opens the state directory, making it (0700) if need be. It refuses a
// directory others can look into and one another process holds.
func OpenState(dir string) (*State, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the state directory cannot be made: %w; set \"state\" in the configuration to a place this user may write to", err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("the state directory cannot be read: %w", err)
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("the state directory %s is open to other users (mode %04o) and holds private keys; close it with: chmod 700 %s", dir, perm, dir)
	}
	lock := flock.New(filepath.Join(dir, lockName), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("the state directory %s cannot be written to: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("another otrproxy already runs on the state directory %s; stop it, or give this one a \"state\" of its own", dir)
	}
	probe := filepath.Join(dir, ".probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		lock.Unlock()
		return nil, fmt.Errorf("the state directory %s cannot be written to: %w", dir, err)
	}
	os.Remove(probe)
	return &State{Dir: dir, lock: lock}, nil
}

// Close lets go of the directory.
func (s *State) Close() error { return s.lock.Unlock() }

// ReadPrivate reads a file that nobody else may read; nil when there is none.
func ReadPrivate(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s can be read by others; make it private with: chmod 600 %s", path, path)
	}
	return os.ReadFile(path)
}

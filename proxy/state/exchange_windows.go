package state

import (
	"errors"
	"os"
	"path/filepath"
)

// exchange swaps what is in two directories, one entry after the other: Windows renames no
// directory in which a file is open, and the lock of the state directory is. The lock stays.
func exchange(a, b string) error {
	third := a + ".exchanged"
	if err := os.Mkdir(third, 0o700); err != nil {
		return err
	}
	if err := moveEntries(b, third); err != nil {
		return errors.Join(err, moveEntries(third, b), os.Remove(third))
	}
	if err := moveEntries(a, b); err != nil {
		return errors.Join(err, moveEntries(b, a), moveEntries(third, b), os.Remove(third))
	}
	return errors.Join(os.Remove(a), os.Rename(third, a))
}

func moveEntries(from, to string) error {
	entries, err := os.ReadDir(from)
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return err
}

//go:build !linux && !windows

package state

import (
	"errors"
	"os"
)

// exchange swaps two directories, one after the other.
func exchange(a, b string) error {
	third := a + ".exchanged"
	if err := os.Rename(b, third); err != nil {
		return err
	}
	if err := os.Rename(a, b); err != nil {
		return errors.Join(err, os.Rename(third, b))
	}
	return os.Rename(third, a)
}

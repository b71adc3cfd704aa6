package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/atomicwriter"

	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/control"
)

// The state directory has a format, whose number stands in a file of it. Directories from
// before there was that file are of format 1. An older format is brought to the present
// one, with a copy of what was there kept in the directory itself: beside it there may be
// no right to write. Whenever that is interrupted, the next start begins again with the
// copy, so that steps need not mind it. A newer format is left alone.

// Steps lead from format n+1 to n+2 each, in the directory. Tests have some.
var Steps []func(dir string) error

// stateFormat is the present format.
func stateFormat() int { return len(Steps) + 1 }

const (
	formatFile = "version"
	partCopy   = "upgrading.partial" // a copy that is being made, worth nothing
	wholeCopy  = "upgrading"         // a whole copy, of a directory that is being changed
	keptCopy   = "before-format-"    // and a number: a whole copy, of what was there once
)

// BetweenSteps is called before whatever changes the disk. Tests interrupt there.
var BetweenSteps = func() {}

// Upgrade brings the directory to the present format.
func (s *State) Upgrade(log *slog.Logger) error {
	os.RemoveAll(filepath.Join(s.Dir, partCopy))
	have, err := formatOf(s.Dir)
	if err != nil {
		return err
	}
	saved := filepath.Join(s.Dir, wholeCopy)
	_, err = os.Stat(saved)
	interrupted := err == nil
	if have == stateFormat() || !interrupted && fresh(s.Dir) {
		return errors.Join(writeFormat(s.Dir), keepCopy(s.Dir))
	}
	if interrupted {
		log.Warn("bringing the state directory to another format was interrupted; it begins again with the copy of what was there", "copy", saved)
		if err := putBack(saved, s.Dir); err != nil {
			return fmt.Errorf("what was in the state directory cannot be put back; it is in %s: %w", saved, err)
		}
		if have, err = formatOf(s.Dir); err != nil {
			return err
		}
	} else {
		log.Warn("the state directory is brought to the format of this version; a copy of what is there is kept in it", "from", have, "to", stateFormat(), "copy", keptName(s.Dir))
		if err := errors.Join(copyState(s.Dir, filepath.Join(s.Dir, partCopy)), rename(filepath.Join(s.Dir, partCopy), saved)); err != nil {
			os.RemoveAll(filepath.Join(s.Dir, partCopy))
			return fmt.Errorf("the state directory is of an older format, and cannot be copied before it is changed, so nothing was: %w", err)
		}
	}
	for _, step := range Steps[have-1:] {
		BetweenSteps()
		if err := step(s.Dir); err != nil {
			return fmt.Errorf("the state directory cannot be brought to the format of this version, and is what it was: %w", errors.Join(err, putBack(saved, s.Dir)))
		}
	}
	return errors.Join(writeFormat(s.Dir), keepCopy(s.Dir))
}

// formatOf reads the format of a state directory, and refuses one that is not known.
func formatOf(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("the state directory cannot be read: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || n < 1:
		return 0, fmt.Errorf("%s is damaged; it should have the number of the state directory's format in it: restore it from a backup", filepath.Join(dir, formatFile))
	case n > stateFormat():
		return 0, fmt.Errorf("the state directory %s is of format %d, which a newer otrproxy has written, and this one knows formats up to %d; nothing was changed: run the newer one, or give this one a \"state\" of its own", dir, n, stateFormat())
	}
	return n, nil
}

func writeFormat(dir string) error {
	if have, err := os.ReadFile(filepath.Join(dir, formatFile)); err == nil && string(have) == fmt.Sprintln(stateFormat()) {
		return nil
	}
	BetweenSteps()
	return atomicwriter.WriteFile(filepath.Join(dir, formatFile), []byte(fmt.Sprintln(stateFormat())), 0o600)
}

// keptName is where the copy comes to lie in the end: a name that is free.
func keptName(dir string) string {
	path := filepath.Join(dir, fmt.Sprint(keptCopy, stateFormat()))
	for n := 2; ; n++ {
		if _, err := os.Lstat(path); err != nil {
			return path
		}
		path = filepath.Join(dir, fmt.Sprint(keptCopy, stateFormat(), "-", n))
	}
}

// keepCopy gives the copy its name, where there is one and all is done.
func keepCopy(dir string) error {
	err := rename(filepath.Join(dir, wholeCopy), keptName(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func rename(from, to string) error {
	BetweenSteps()
	return os.Rename(from, to)
}

// notState reports whether a name in the directory is part of no format. Spare keys are
// none: one that has been used does not come back with a copy.
func notState(name string) bool {
	return strings.HasPrefix(name, keyring.SpareFile) || name == "lock" || name == control.SocketName || name == partCopy || name == wholeCopy || strings.HasPrefix(name, keptCopy)
}

// fresh reports whether there is nothing in a directory yet.
func fresh(dir string) bool {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !notState(e.Name()) {
			return false
		}
	}
	return err == nil
}

// copyState copies a state directory, onto the disk.
func copyState(from, to string) error {
	return filepath.WalkDir(from, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		BetweenSteps()
		switch {
		case name != "." && filepath.Dir(name) == "." && notState(name):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		case d.Type().IsRegular():
			return copyFile(at, filepath.Join(to, name))
		}
		return nil
	})
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Sync(), w.Close())
}

// putBack makes a state directory what its copy is.
func putBack(saved, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !notState(e.Name()) {
			BetweenSteps()
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return copyState(saved, dir)
}

package state

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"otrproxy/proxy/control"
)

// A backup is the state directory in one file: a tar archive, compressed, encrypted with
// a passphrase in the format of age. Every file in the directory is written atomically
// or by whole lines, and a line that is not whole is not read, so a backup may be made while
// otrproxy runs. Without otrproxy it is read by:
// age -d FILE | tar -tz

// backedUp are the names of what belongs into a backup.
var backedUp = regexp.MustCompile(`^(?:accounts/[^/]+/[^/.][^/]*|certs/[a-z0-9.-]+\.pem|pins\.yaml|ca\.pem|ca\.key|identity\.age|version)$`)

const (
	maxBackupFile  = 64 << 20
	maxBackupFiles = 100_000
)

// MaxBackup bounds a backup that is restored, in bytes. Tests lower it.
var MaxBackup int64 = 1 << 30

// Backup writes the state directory, and returns how many files it has.
func Backup(state string, to io.Writer, passphrase string) (n int, err error) {
	if len(passphrase) < MinPassphrase {
		return 0, fmt.Errorf("a passphrase has at least %d characters; several words are best", MinPassphrase)
	}
	r, err := byPassphrase(passphrase)
	if err != nil {
		return 0, err
	}
	if state, err = filepath.EvalSymlinks(state); err != nil {
		return 0, err
	}
	keys, identity := false, false
	sealed, err := age.Encrypt(to, r)
	if err != nil {
		return 0, err
	}
	zipped := gzip.NewWriter(sealed)
	archive := tar.NewWriter(zipped)
	err = filepath.WalkDir(state, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(state, at)
		if err != nil || !d.Type().IsRegular() || !backedUp.MatchString(filepath.ToSlash(name)) {
			return err
		}
		b, err := os.ReadFile(at)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s was replaced by another file just now; try again", name)
		}
		if err != nil {
			return err
		}
		n++
		keys, identity = keys || strings.HasSuffix(name, "otr.private_key.age"), identity || name == identityFile
		if err := archive.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: int64(len(b)), ModTime: time.Now()}); err != nil {
			return err
		}
		_, err = archive.Write(b)
		return err
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("the state directory %s cannot be read: %w", state, err)
	case n == 0:
		return 0, fmt.Errorf("there is nothing to back up in %s", state)
	case keys && !identity:
		return 0, errors.New("the passphrase of the private keys was changed just now; try again")
	}
	return n, errors.Join(archive.Close(), zipped.Close(), sealed.Close())
}

// Restore reads a backup into the state directory, which no otrproxy may be using. A
// directory that has anything in it is set aside when replace says so, and refused
// otherwise. Nothing is changed before the whole backup has been read.
func Restore(state string, from io.Reader, passphrase string, replace bool) (n int, aside string, err error) {
	s, err := OpenState(state)
	if err != nil {
		return 0, "", err
	}
	defer s.Close()
	if state, err = filepath.EvalSymlinks(state); err != nil {
		return 0, "", err
	}
	there, err := os.ReadDir(state)
	if err != nil {
		return 0, "", err
	}
	old := slices.ContainsFunc(there, func(e fs.DirEntry) bool { return e.Name() != lockName && e.Name() != control.SocketName })
	if old && !replace {
		return 0, "", fmt.Errorf("there is something in the state directory %s already; --replace sets it aside", state)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(filepath.Clean(state)), filepath.Base(state)+".restoring-")
	if err != nil {
		return 0, "", fmt.Errorf("there is no room beside the state directory: %w", err)
	}
	swapped := false
	defer func() {
		if !swapped { // else what was there is in it
			os.RemoveAll(fresh)
		}
	}()
	if n, err = unpack(fresh, from, passphrase); err != nil {
		return 0, "", err
	}
	if _, err := formatOf(fresh); err != nil {
		return 0, "", fmt.Errorf("the backup is not for this version: %w", err)
	}
	aside = fmt.Sprintf("%s.before-restore-%s", filepath.Clean(state), time.Now().UTC().Format("20060102T150405.000"))
	if err := exchange(fresh, state); err != nil {
		return 0, "", fmt.Errorf("the backup cannot be put in place: %w", err)
	}
	swapped = true
	if err := os.Rename(fresh, aside); err != nil {
		return n, fresh, nil // under this name, then
	}
	if !old {
		os.RemoveAll(aside)
		aside = ""
	}
	return n, aside, nil
}

func unpack(dir string, from io.Reader, passphrase string) (n int, err error) {
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return 0, errPassphrase
	}
	plain, err := age.Decrypt(from, id)
	var wrong *age.NoIdentityMatchError
	if errors.As(err, &wrong) {
		return 0, errPassphrase
	}
	damaged := func(err error) (int, error) {
		return 0, fmt.Errorf("this is no backup of otrproxy's, or a damaged one; nothing was changed: %w", err)
	}
	if err != nil {
		return damaged(err)
	}
	zipped, err := gzip.NewReader(plain)
	if err != nil {
		return damaged(err)
	}
	archive := tar.NewReader(zipped)
	total := int64(0)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if h.Typeflag != tar.TypeReg || !backedUp.MatchString(h.Name) || path.Clean(h.Name) != h.Name || strings.Contains(h.Name, `\`) || h.Size > maxBackupFile || n >= maxBackupFiles || total+h.Size > MaxBackup {
			return damaged(fmt.Errorf("it has %q in it", h.Name))
		}
		total += h.Size
		b, err := io.ReadAll(archive)
		if err != nil {
			return damaged(err)
		}
		at := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			return 0, err
		}
		if err := os.WriteFile(at, b, 0o600); err != nil {
			return 0, err
		}
		n++
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // the end is authenticated, too
		return damaged(err)
	}
	if n == 0 {
		return damaged(errors.New("it is empty"))
	}
	return n, nil
}

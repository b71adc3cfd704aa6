package commands

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"otrproxy/proxy/control"
)

// Files of other programs, read and written by the command line.

// Bounds of an import.
const (
	maxProfileFile  = 1 << 20
	maxProfileFiles = 2000
)

// ReadProfiles reads the files below paths that may be libotr's, for "key import". It is
// for the process that has been asked, which may read them: the running proxy may not.
func ReadProfiles(paths []string) (files []control.File, err error) {
	found, err := profileFiles(paths)
	for _, path := range found {
		f, e := readProfile(path)
		if e != nil {
			return nil, fmt.Errorf("%s cannot be read: %w", path, e)
		}
		files = append(files, f)
	}
	return files, err
}

func readProfile(path string) (control.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return control.File{}, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxProfileFile { // what is no file may never end
		return control.File{Name: path, Unread: "too large to be one of libotr's, or no file at all"}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return control.File{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProfileFile))
	return control.File{Name: path, Text: b}, err
}

// WriteFiles writes what a command has answered into a directory, new or empty. Files
// that are there are not touched.
func WriteFiles(dir string, files []control.File) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the directory cannot be made: %w", err)
	}
	for _, f := range files {
		if f.Name != filepath.Base(f.Name) || f.Name == ".." || f.Name == "." {
			return fmt.Errorf("%q is no name of a file in a directory", f.Name)
		}
		if _, err := os.Lstat(filepath.Join(dir, f.Name)); err == nil {
			return fmt.Errorf("%s is there already; name an empty directory", filepath.Join(dir, f.Name))
		}
	}
	for _, f := range files {
		w, err := os.OpenFile(filepath.Join(dir, f.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_, err = w.Write(f.Text)
			err = errors.Join(err, w.Close())
		}
		if err != nil {
			return fmt.Errorf("%s could not be written: %w", filepath.Join(dir, f.Name), err)
		}
	}
	return nil
}

// profileFiles finds the files below paths that may be libotr's: all that are named,
// and in directories those with names that programs give them.
func profileFiles(paths []string) (files []string, err error) {
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be read: %w", path, err)
		}
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		if !st.IsDir() {
			files = append(files, path)
			continue
		}
		err = filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
			if err != nil {
				return fs.SkipDir
			}
			if d.Type().IsRegular() && profileName(d.Name()) {
				files = append(files, at)
			}
			if strings.Count(strings.TrimPrefix(at, path), string(filepath.Separator)) > 4 || len(files) > maxProfileFiles {
				return fs.SkipDir
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// profileName reports whether a file may be one of libotr's by its name: Pidgin, Adium,
// Psi+ and Profanity write otr.private_key, otr.fingerprints, otr.instance_tags, some
// with other words before or behind; mcabber JID.key, JID.fpr; bitlbee and irssi
// nick.otr_keys, nick.otr_fprints, nick.otr_instags; weechat and Profanity keys.txt,
// fingerprints.txt, instags.
func profileName(name string) bool {
	for _, end := range []string{"private_key", "fingerprints", "instance_tags", ".key", ".fpr", ".otr_keys", ".otr_fprints", ".otr_instags", ".otr_instance_tags", "otr.key", "otr.fp", "otr.instag", "keys.txt", "fingerprints.txt", "instags.txt"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

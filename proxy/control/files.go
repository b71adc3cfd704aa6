package control

import (
	"encoding/json"
	"fmt"
)

// A running proxy reaches no files but its own, and may be another user's. What a command
// reads or writes elsewhere is carried over the control socket instead.

// A File is a file's name, or path, and what is in it.
type File struct {
	Name string `json:"name"`
	Text []byte `json:"text"`

	Unread string `json:"unread,omitempty"` // why it was not read
}

// maxFiles bounds the files of one call, in bytes; packed they are a third larger.
const maxFiles = maxRequest / 3 * 2

// Pack makes an argument of files.
func Pack(files []File) (string, error) {
	total := 0
	for _, f := range files {
		total += len(f.Name) + len(f.Text)
	}
	if total > maxFiles {
		return "", fmt.Errorf("%w: these are %d MiB of files; name fewer at once", ErrUsage, total>>20)
	}
	b, err := json.Marshal(files)
	return string(b), err
}

// Unpack is the reverse.
func Unpack(packed string) (files []File, err error) {
	if err := json.Unmarshal([]byte(packed), &files); err != nil {
		return nil, fmt.Errorf("%w: the files are not as the command line packs them", ErrUsage)
	}
	return files, nil
}

package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/atomicwriter"

	"otrproxy/otrlayer/keyring"
)

// What an account remembers of the service contact: words, each on a line of its file.
const (
	Greeted    = "greeted"    // it has said who it is
	Listed     = "listed"     // it is on the list of contacts
	Recognised = "recognised" // it has said that it recognises the password
)

// Remembers reports whether a word stands in the account's file of the service contact.
func (c *Contact) Remembers(word string) bool {
	b, _ := os.ReadFile(c.file())
	return slices.Contains(strings.Fields(string(b)), word)
}

// Remember writes a word there, or removes it.
func (c *Contact) Remember(word string, yes bool) {
	path := c.file()
	c.service.recalling.Lock()
	defer c.service.recalling.Unlock()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // what could not be read is not to be overwritten
		c.service.log.Warn("what the service contact has said could not be remembered", "account", c.service.log.Name(c.account))
		return
	}
	words := slices.DeleteFunc(strings.Fields(string(b)), func(w string) bool { return w == word })
	if yes {
		words = append(words, word)
	}
	text := strings.Join(words, "\n") + "\n"
	if err := atomicwriter.WriteFile(path, []byte(text), 0o600); err != nil {
		c.service.log.Warn("what the service contact has said could not be remembered", "account", c.service.log.Name(c.account))
	}
}

// file is where the account remembers it.
func (c *Contact) file() string {
	return filepath.Join(keyring.Dir(c.service.dir, c.account), "service")
}

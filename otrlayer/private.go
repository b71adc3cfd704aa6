package otrlayer

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// privateFile lists the contacts with whom a private conversation was begun and not
// given up by the person, a JID a line: what was private once does not go back to clear
// because this program was started anew.
const privateFile = "private"

func loadPrivate(dir string) (map[string]bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, privateFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	m := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if jid := strings.TrimSpace(lines.Text()); jid != "" {
			m[jid] = true
		}
	}
	return m, nil
}

// keepPrivate notes whether a contact's conversation was private and is not given up.
func (a *Account) keepPrivate(contact string, private bool) {
	if a.private[contact] == private && !a.unkept {
		return
	}
	if private {
		a.private[contact] = true
	} else {
		delete(a.private, contact)
	}
	var list []string
	for jid := range a.private {
		list = append(list, jid+"\n")
	}
	slices.Sort(list)
	err := write(a.dir, privateFile, []byte(strings.Join(list, "")))
	if a.unkept = err != nil; a.unkept {
		a.events.Log(8, "the list of private conversations was not saved", cause(err))
	}
}

package keyring

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// AccountsDir is where the accounts' directories are.
func AccountsDir(state string) string { return filepath.Join(state, "accounts") }

// Dir is an account's directory below state.
func Dir(state, jid string) string { return filepath.Join(AccountsDir(state), fileName(jid)) }

// fileName is a JID as the name of a directory.
func fileName(jid string) string {
	var b strings.Builder
	for _, r := range jid {
		if r < 0x20 || strings.ContainsRune(`/\:*?"<>|%`, r) {
			fmt.Fprintf(&b, "%%%02X", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Accounts lists the accounts that have a directory below state.
func Accounts(state string) (jids []string) {
	list, _ := os.ReadDir(AccountsDir(state))
	for _, e := range list {
		if jid, err := url.PathUnescape(e.Name()); err == nil && e.IsDir() && fileName(jid) == e.Name() {
			jids = append(jids, jid)
		}
	}
	return jids
}

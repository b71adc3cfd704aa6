//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/argon2"

	"otrproxy/otrlayer/keyring"
)

// keyFile has the keys of some accounts. Making one takes a while, so all share the first two.
const keyFile = "otrlayer/otr/testdata/otr.private_key"

// keyOwners are whose they are, in the order of the file.
var keyOwners = []string{"alice@example.org", "bob@example.org"}

// verifier is how the proxy knows everybody's password, made to cost next to nothing:
// thousands of first logins would take minutes of hashing, whose memory would be measured too.
var verifier = func() []byte {
	salt := []byte("everybody's salt")
	b64 := base64.RawStdEncoding.EncodeToString
	sum := argon2.IDKey([]byte(password), salt, 1, 8, 1, 32)
	return fmt.Appendf(nil, "password: $argon2id$v=%d$m=8,t=1,p=1$%s$%s\n", argon2.Version, b64(salt), b64(sum))
}()

// giveKeys gives accounts keys, by turns, so that two neighbours have different ones: who
// meets their own key refuses. They have been greeted as well, and their password is known.
func giveKeys(state string, jids ...string) error {
	file, err := os.ReadFile(keyFile)
	if err != nil {
		return errors.Join(errors.New("it is to be run from the project's root"), err)
	}
	const begin = "(account"
	parts := bytes.Split(bytes.TrimSuffix(bytes.TrimSpace(file), []byte(")")), []byte(begin))
	if len(parts) < 1+len(keyOwners) {
		return fmt.Errorf("%s has %d keys", keyFile, len(parts)-1)
	}
	for i, jid := range jids {
		k := i % len(keyOwners)
		key := bytes.Join([][]byte{parts[0], []byte(begin), bytes.ReplaceAll(parts[1+k], []byte(keyOwners[k]), []byte(jid)), []byte(")\n")}, nil)
		dir := keyring.Dir(state, jid)
		err := errors.Join(os.MkdirAll(dir, 0o700),
			os.WriteFile(filepath.Join(dir, "otr.private_key"), key, 0o600),
			os.WriteFile(filepath.Join(dir, "service"), []byte("greeted\n"), 0o600),
			os.WriteFile(filepath.Join(dir, "login.verifier"), verifier, 0o600))
		if err != nil {
			return err
		}
	}
	return nil
}

package proxy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/control"
	"otrproxy/proxy/state"
)

const secretOfBackup = "correct horse battery"

// A backup made while the proxy runs, restored elsewhere, is the same household: keys,
// trust, pins, CA; and nothing is overwritten or half done.
func TestBackup(t *testing.T) {
	c := onStage(t, "", (*stage).talk)
	if _, err := admin(t, c.home.p, "contact verify", "account", "alice@"+domain, "contact", "bob@"+domain, "fingerprint", c.bobsKey()); err != nil {
		t.Fatal(err)
	}
	if _, err := admin(t, c.home.p, "pin add", "domain", domain, "pin", "sha256:"+strings.Repeat("AB", 32), "next", "yes"); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := state.Backup(c.home.state, &b, "short"); err == nil {
		t.Error("a short passphrase")
	}
	b.Reset()
	n, err := state.Backup(c.home.state, &b, secretOfBackup)
	if err != nil || n < 8 {
		t.Fatalf("%d files, %v", n, err)
	}
	if bytes.Contains(b.Bytes(), []byte("private-key")) || bytes.Contains(b.Bytes(), []byte(domain)) {
		t.Error("in clear")
	}
	// Where something is, it is not touched unless it is to be replaced, and then set aside.
	if _, _, err := state.Restore(c.home.state, bytes.NewReader(b.Bytes()), secretOfBackup, true); err == nil || !strings.Contains(err.Error(), "another otrproxy already runs") {
		t.Errorf("over a running one: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	restore := func(data []byte, passphrase string, replace bool) (string, error) {
		_, aside, err := state.Restore(dir, bytes.NewReader(data), passphrase, replace)
		return aside, err
	}
	if _, err := restore(b.Bytes(), "wrong horse", false); err == nil || err.Error() != "this is not the passphrase" {
		t.Errorf("%v", err)
	}
	for i, damaged := range [][]byte{nil, b.Bytes()[:b.Len()/2], b.Bytes()[:b.Len()-1], append(bytes.Clone(b.Bytes()), 'x'), []byte("(privkeys)")} {
		if _, err := restore(damaged, secretOfBackup, false); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("damaged %d: %v", i, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Dir(dir) + "/*restoring*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := restore(b.Bytes(), secretOfBackup, false); err != nil {
		t.Fatal(err)
	}
	if _, err := restore(b.Bytes(), secretOfBackup, false); err == nil || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("%v", err)
	}
	if aside, err := restore(b.Bytes(), secretOfBackup, true); err != nil || aside == "" {
		t.Errorf("%q %v", aside, err)
	}
	c.home.stop()
	restored := startConfigured(t, dir, configFor(c.s, dir))
	for _, cmd := range []string{"key show", "contact list", "pin list", "ca export"} {
		r, err := admin(t, restored.p, cmd)
		if err != nil {
			t.Fatal(err)
		}
		switch d := r.Data.(type) {
		case []control.ContactLine:
			if len(d) != 1 || d[0].Trust != "verified" {
				t.Errorf("%+v", d)
			}
		case []control.PinLine:
			if !strings.Contains(r.Text, "AB:AB") || !strings.Contains(r.Text, "(next, command)") {
				t.Error(r.Text)
			}
		}
	}
	ca1, _ := os.ReadFile(filepath.Join(c.home.state, "ca.pem"))
	ca2, _ := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if !bytes.Equal(ca1, ca2) {
		t.Error("another CA")
	}
	restored.login("alice", client.Plain)
}

// Keys that are made to spare are nobody's yet: two households that are restored from one
// backup must not give the same ones away.
func TestBackupLeavesSpareKeysOut(t *testing.T) {
	dir := stateDir(t)
	account := filepath.Join(dir, "accounts", "alice@"+domain)
	for _, name := range []string{keyring.SpareFile, keyring.SpareFile + ".age", filepath.Join("accounts", keyring.SpareFile)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("SPARE"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	n, err := state.Backup(dir, &b, secretOfBackup)
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
	restored := filepath.Join(t.TempDir(), "state")
	if _, _, err := state.Restore(restored, &b, secretOfBackup, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(restored, strings.TrimPrefix(account, dir), "otr.private_key")); err != nil {
		t.Errorf("the accounts' own keys: %v", err)
	}
	filepath.WalkDir(restored, func(at string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), "spare") {
			t.Errorf("%s was restored", at)
		}
		return err
	})
}

// A backup of somebody who means harm writes nothing outside the state directory.
func TestHostileBackup(t *testing.T) {
	for name, header := range map[string]tar.Header{
		"outside":      {Name: "../evil", Typeflag: tar.TypeReg},
		"absolute":     {Name: "/tmp/evil", Typeflag: tar.TypeReg},
		"deep outside": {Name: "accounts/../../evil", Typeflag: tar.TypeReg},
		"dots":         {Name: "accounts/../pins.yaml", Typeflag: tar.TypeReg},
		"a link":       {Name: "accounts/a@b/x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		"a hard link":  {Name: "pins.yaml", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
		"a socket":     {Name: "control.sock", Typeflag: tar.TypeReg},
		"hidden":       {Name: "accounts/a@b/.x", Typeflag: tar.TypeReg},
		"a backslash":  {Name: `accounts/a@b/..\x`, Typeflag: tar.TypeReg},
		"too deep":     {Name: "accounts/a@b/c/d", Typeflag: tar.TypeReg},
	} {
		var b bytes.Buffer
		r, _ := age.NewScryptRecipient(secretOfBackup)
		r.SetWorkFactor(10)
		sealed, _ := age.Encrypt(&b, r)
		zipped := gzip.NewWriter(sealed)
		archive := tar.NewWriter(zipped)
		header.Mode = 0o600
		archive.WriteHeader(&header)
		archive.Close()
		zipped.Close()
		sealed.Close()
		parent := t.TempDir()
		_, _, err := state.Restore(filepath.Join(parent, "state"), &b, secretOfBackup, true)
		if err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("%s: %v", name, err)
		}
		if list, _ := os.ReadDir(parent); len(list) != 1 {
			t.Errorf("%s: %v", name, list)
		}
	}
}

// With keys encrypted at rest, the backup has them so, too, and both passphrases are
// needed.
func TestBackupOfLockedKeys(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "key passphrase", "passphrase", "of the keys, that is"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := state.Backup(b.state, &out, secretOfBackup); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	if _, _, err := state.Restore(dir, &out, secretOfBackup, false); err != nil {
		t.Fatal(err)
	}
	other := startConfigured(t, dir, configFor(s, dir))
	if _, err := admin(t, other.p, "key unlock", "passphrase", "of the keys, that is"); err != nil {
		t.Fatal(err)
	}
	other.login("alice", client.Plain)
}

package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy/control"
)

// profile writes files of another program's.
func profile(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	print1 = "0123456789abcdef0123456789abcdef01234567"
	print2 = "89abcdef0123456789abcdef0123456789abcdef"
)

// results counts what became of entries.
func results(r control.Reply) map[string]int {
	m := map[string]int{}
	for _, l := range r.Data.([]control.ImportLine) {
		m[l.Kind+" "+l.Result]++
	}
	return m
}

// Profiles of several programs, with several accounts and protocols in one file: what is
// ours is taken, trust is kept, and what contradicts is asked about.
func TestImport(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	keys := testKeys(t)
	named := func(user, name, proto string) string {
		return strings.NewReplacer(user+"@"+domain, name, "prpl-jabber", proto).Replace(string(keys[user+"@"+domain]))
	}
	inner := func(file string) string {
		return strings.TrimSuffix(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(file), "(privkeys")), ")")
	}
	dir := profile(t, map[string]string{
		"otr.private_key":   "(privkeys\n" + inner(named("carol", "dora@x.example/Pidgin", "prpl-jabber")) + inner(named("bob", "12345", "prpl-icq")) + inner(named("alice", "3", "libpurple-Jabber")) + ")\n",
		"otr.fingerprints":  "friend@x.example\tdora@x.example/Pidgin\tprpl-jabber\t" + print1 + "\tverified\nfriend@x.example\tdora@x.example/Pidgin\tprpl-jabber\t" + print2 + "\t\nsomebody\t12345\tprpl-icq\t" + print1 + "\tsmp\nmate@x.example/r\tdora@x.example/Pidgin\tprpl-jabber\t" + print2 + "\taffirmed\n",
		"otr.instance_tags": "# comment\ndora@x.example/Pidgin\tprpl-jabber\t0badcafe\n",
		"logs/unrelated":    "nothing",
		"broken.key":        "(privkeys (account",
	})
	r, err := admin(t, b.p, "key import", "path", dir)
	if err != nil {
		t.Fatal(err)
	}
	got := results(r)
	for what, n := range map[string]int{"key imported": 1, "key skipped": 2, "fingerprint imported": 2, "fingerprint conflict": 1, "fingerprint skipped": 1, "instance-tag imported": 1, "file skipped": 1} {
		if got[what] != n {
			t.Errorf("%s: %d, want %d\n%s", what, got[what], n, r.Text)
		}
	}
	acc := filepath.Join(b.state, "accounts", "dora@x.example")
	if tags, _ := os.ReadFile(filepath.Join(acc, "otr.instance_tags")); !strings.Contains(string(tags), "0badcafe") {
		t.Errorf("%s", tags)
	}
	trust := func(contact string) string {
		t.Helper()
		r, err := admin(t, b.p, "contact show", "account", "dora@x.example", "contact", contact)
		if err != nil {
			t.Fatal(err)
		}
		return r.Data.([]control.ContactLine)[0].Trust
	}
	if trust("mate@x.example") != "verified" {
		t.Errorf("affirmed is %s", trust("mate@x.example"))
	}
	if known, _ := os.ReadFile(filepath.Join(acc, "otr.fingerprints")); !strings.Contains(string(known), "affirmed") {
		t.Errorf("not kept as it was: %s", known)
	}
	if r, err = admin(t, b.p, "key import", "path", dir); err != nil || results(r)["key same"] != 1 || results(r)["fingerprint same"] != 2 {
		t.Errorf("again: %v %s", err, r.Text)
	}
	// A name that is no address.
	if r, err = admin(t, b.p, "key import", "path", dir, "account", "eve@x.example", "from", "3"); err != nil || results(r)["key imported"] != 1 {
		t.Errorf("%v %s", err, r.Text)
	}
	// What contradicts.
	other := profile(t, map[string]string{
		"dora.key": named("bob", "dora@x.example", "jabber"),
		"dora.fpr": "friend@x.example\tdora@x.example\tjabber\tffffffffffffffffffffffffffffffffffffffff\t\nmate@x.example\tdora@x.example\tjabber\teeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\tsmp\n",
	})
	if r, err = admin(t, b.p, "key import", "path", other); err != nil || results(r)["key conflict"] != 1 || results(r)["fingerprint conflict"] != 1 || results(r)["fingerprint imported"] != 1 || !strings.Contains(r.Text, "--replace") {
		t.Errorf("%v %s", err, r.Text)
	}
	before, _ := os.ReadFile(filepath.Join(acc, "otr.private_key"))
	if r, err = admin(t, b.p, "key import", "path", other, "replace", "yes"); err != nil || results(r)["key imported"] != 1 {
		t.Errorf("%v %s", err, r.Text)
	}
	kept, _ := filepath.Glob(filepath.Join(acc, "otr.private_key.replaced-*"))
	if len(kept) != 1 {
		t.Fatalf("the old key is gone: %v", kept)
	}
	if old, _ := os.ReadFile(kept[0]); !bytes.Equal(old, before) {
		t.Error("the old key is not what it was")
	}
	for _, wrong := range [][]string{{"path", dir + "/nowhere"}, {"path", dir, "from", "x"}, {"path", profile(t, nil)}} {
		if _, err := admin(t, b.p, "key import", wrong...); err == nil {
			t.Errorf("%v: no error", wrong)
		}
	}
}

// What is exported is imported elsewhere with the same fingerprints and trust, and
// nothing that is there is overwritten.
func TestExport(t *testing.T) {
	c := onStage(t, "", (*stage).talk)
	if _, err := admin(t, c.home.p, "contact verify", "account", "alice@"+domain, "contact", "bob@"+domain, "fingerprint", c.bobsKey()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := admin(t, c.home.p, "key export", "account", "alice@"+domain, "directory", dir, "as", "alice@"+domain+"/Pidgin"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin(t, c.home.p, "key export", "account", "alice@"+domain, "directory", dir); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"otr.private_key", "otr.fingerprints", "otr.instance_tags"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, err)
		}
	}
	fresh := t.TempDir() + "/state"
	os.Mkdir(fresh, 0o700)
	b := startConfigured(t, fresh, configFor(c.s, fresh))
	if _, err := admin(t, b.p, "key import", "path", dir); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []string{"key show", "contact list"} {
		was, err1 := admin(t, c.home.p, cmd, "account", "alice@"+domain)
		is, err2 := admin(t, b.p, cmd, "account", "alice@"+domain)
		if cmd == "contact list" {
			w, i := was.Data.([]control.ContactLine)[0], is.Data.([]control.ContactLine)[0]
			if w.Trust != "verified" || i.Trust != w.Trust || i.Fingerprint != w.Fingerprint {
				t.Errorf("%+v, then %+v", w, i)
			}
			continue
		}
		if err1 != nil || err2 != nil || was.Text != is.Text {
			t.Errorf("%v %v: %s\nand\n%s", err1, err2, was.Text, is.Text)
		}
	}
	if _, err := admin(t, c.home.p, "key export", "account", "alice@"+domain, "directory", filepath.Join(t.TempDir(), "x"), "as", "a (name"); err == nil {
		t.Error("a name that breaks the file")
	}
}

// With a passphrase no private key is on the disk in clear, and nobody logs in after a
// start before it was given; the files are age's.
func TestPassphrase(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	const passphrase = "correct horse battery"
	alice := b.login("alice", client.Plain)
	if _, err := admin(t, b.p, "key passphrase", "passphrase", "short"); !errors.Is(err, control.ErrUsage) {
		t.Errorf("%v", err)
	}
	was, _ := admin(t, b.p, "key show", "account", "alice@"+domain)
	if _, err := admin(t, b.p, "key passphrase", "passphrase", passphrase); err != nil {
		t.Fatal(err)
	}
	plain := func() (found []string) {
		filepath.Walk(b.state, func(path string, st os.FileInfo, err error) error {
			if err == nil && st.Mode().IsRegular() {
				if text, _ := os.ReadFile(path); bytes.Contains(text, []byte("private-key")) {
					found = append(found, path)
				}
			}
			return nil
		})
		return found
	}
	if found := plain(); len(found) > 0 {
		t.Errorf("in clear: %v", found)
	}
	if _, err := admin(t, b.p, "key generate", "account", "new@"+domain); err != nil {
		t.Fatal(err)
	}
	if found := plain(); len(found) > 0 {
		t.Errorf("a new one in clear: %v", found)
	}
	alice.Close()
	b.stop()
	b = startConfigured(t, b.state, configFor(s, b.state))
	var le *client.LoginError
	if _, err := client.Dial(t.Context(), b.config("alice", client.Plain)); !errors.As(err, &le) || le.Condition != "temporary-auth-failure" || !strings.Contains(le.Text, "otrproxy key unlock") {
		t.Errorf("%v", err)
	}
	if r, err := admin(t, b.p, "status"); err != nil || !strings.Contains(r.Text, "To decide: The private keys are locked") {
		t.Errorf("%v %s", err, r.Text)
	}
	if _, err := admin(t, b.p, "key unlock", "passphrase", "wrong horse"); err == nil || err.Error() != "this is not the passphrase" {
		t.Errorf("%v", err)
	}
	if _, err := admin(t, b.p, "key passphrase", "passphrase", "another passphrase"); err == nil {
		t.Error("changed while locked")
	}
	if _, err := admin(t, b.p, "key unlock", "passphrase", passphrase); err != nil {
		t.Fatal(err)
	}
	b.login("alice", client.Plain)
	if is, _ := admin(t, b.p, "key show", "account", "alice@"+domain); is.Text != was.Text {
		t.Errorf("%s, then %s", was.Text, is.Text)
	}
	if strings.Contains(b.log.String(), passphrase) {
		t.Error("the passphrase is in the log")
	}
	// Another passphrase; and age alone reads the files.
	if _, err := admin(t, b.p, "key passphrase", "passphrase", "another passphrase"); err != nil {
		t.Fatal(err)
	}
	open := func(path string, id age.Identity) string {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := age.Decrypt(f, id)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r)
		return string(text)
	}
	pass, _ := age.NewScryptIdentity("another passphrase")
	id, err := age.ParseX25519Identity(strings.TrimSpace(open(filepath.Join(b.state, "identity.age"), pass)))
	if err != nil {
		t.Fatal(err)
	}
	if text := open(filepath.Join(b.state, "accounts", "alice@"+domain, "otr.private_key.age"), id); text != string(testKeys(t)["alice@"+domain]) {
		t.Errorf("%.60s", text)
	}
	// And back.
	if _, err := admin(t, b.p, "key passphrase", "remove", "yes"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(b.state, "accounts", "alice@"+domain, "otr.private_key")); !bytes.Equal(got, testKeys(t)["alice@"+domain]) {
		t.Error("the key is not what it was")
	}
	if left, _ := filepath.Glob(b.state + "/accounts/*/*.age"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A key file that was copied into place while keys are encrypted is encrypted when it is
// used, and two of them are not chosen from.
func TestPassphraseAndCopiedKeys(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	acc := filepath.Join(b.state, "accounts", "alice@"+domain)
	key, _ := os.ReadFile(filepath.Join(acc, "otr.private_key"))
	if _, err := admin(t, b.p, "key passphrase", "passphrase", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(b.state, "accounts", "moved@"+domain)
	os.MkdirAll(moved, 0o700)
	os.WriteFile(filepath.Join(moved, "otr.private_key"), bytes.ReplaceAll(key, []byte("alice@"), []byte("moved@")), 0o600)
	if _, err := admin(t, b.p, "key show", "account", "moved@"+domain); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(moved, "otr.private_key")); err == nil {
		t.Error("left in clear")
	}
	os.WriteFile(filepath.Join(acc, "otr.private_key"), bytes.ReplaceAll(testKeys(t)["bob@"+domain], []byte("bob@"), []byte("alice@")), 0o600)
	if _, err := admin(t, b.p, "key show", "account", "alice@"+domain); err == nil || !strings.Contains(err.Error(), "two files with a key") {
		t.Errorf("%v", err)
	}
}

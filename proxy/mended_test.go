package proxy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/proxy/state"
	"otrproxy/stanza"
)

const pass1, pass2 = "correct horse battery", "another horse battery"

// clearKeys are the files below a directory in which a private key stands in clear.
func clearKeys(dir string) (found []string) {
	filepath.Walk(dir, func(path string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() {
			if text, _ := os.ReadFile(path); bytes.Contains(text, []byte("private-key")) {
				found = append(found, path)
			}
		}
		return nil
	})
	return found
}

// "key passphrase --remove" that failed for one file cannot be tried again.
func TestRemoveAgain(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "key passphrase", "passphrase", pass1); err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(b.state, "accounts", "alice@"+domain, "otr.private_key.replaced-x.age")
	os.WriteFile(odd, []byte("damaged"), 0o600)
	if _, err := admin(t, b.p, "key passphrase", "remove", "yes"); err == nil {
		t.Fatal("no error")
	}
	os.Remove(odd)
	if _, err := admin(t, b.p, "key passphrase", "remove", "yes"); err != nil {
		t.Errorf("again: %v", err)
	}
}

// kill -9 before all accounts were encrypted, then a start and key unlock: the other
// accounts' keys stay in clear until somebody logs in to them.
func TestUnlockLeavesInClear(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "key passphrase", "passphrase", pass1); err != nil {
		t.Fatal(err)
	}
	b.stop()
	carol := filepath.Join(b.state, "accounts", "carol@"+domain, "otr.private_key")
	os.Remove(carol + ".age")
	os.WriteFile(carol, testKeys(t)["carol@"+domain], 0o600)
	b = startConfigured(t, b.state, configFor(s, b.state))
	if _, err := admin(t, b.p, "key unlock", "passphrase", pass1); err != nil {
		t.Fatal(err)
	}
	if found := clearKeys(b.state); found != nil {
		t.Errorf("encrypted, it is said, but: %v", found)
	}
}

// While keys are locked nobody can log in, it is said.
func TestLockedLogin(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "key passphrase", "passphrase", pass1); err != nil {
		t.Fatal(err)
	}
	b.stop()
	os.RemoveAll(filepath.Join(b.state, "accounts", "carol@"+domain)) // her first login
	b = startConfigured(t, b.state, configFor(s, b.state))
	c, err := client.Dial(t.Context(), b.config("carol", client.Plain))
	if err != nil {
		return
	}
	defer c.Drop()
	t.Error("logged in while the keys are locked")
	if _, err := admin(t, b.p, "key unlock", "passphrase", pass1); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c = b.login("carol", client.Plain)
	c.Say("bob@"+domain, "m", "hello")
	st, err := c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("type") == "error" || client.Notice(st) })
	if err != nil {
		t.Fatal(err)
	}
	if st.Root().Attr("type") == "error" {
		t.Errorf("unlocked, and still: %s", st.Raw)
	}
}

// Requests that are about somebody else, in which the service contact's address stands.
func TestRequestLost(t *testing.T) {
	for name, c := range map[string]struct{ raw, want string }{
		"a contact's name":            {"<query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='otrproxy.localhost'/></query>", "bob@example.org"},
		"a contact's group":           {"<query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='B'><group>otrproxy.localhost</group></item></query>", "bob@example.org"},
		"the last note but ours":      {"<query xmlns='jabber:iq:private'><storage xmlns='storage:rosternotes'><note jid='otrproxy.localhost'>x</note></storage></query>", "storage:rosternotes"},
		"bookmarks of another kind":   {"<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'><conference jid='otrproxy.localhost'/><url name='n' url='http://example.org/'/></storage></query>", "http://example.org/"},
		"a list of whom one talks to": {"<query xmlns='jabber:iq:privacy'><list name='public'><item type='jid' value='otrproxy.localhost' action='allow' order='1'/></list></query>", "jabber:iq:privacy"},
	} {
		for _, policy := range []string{"manual", "never"} {
			t.Run(name+", "+policy, func(t *testing.T) {
				s := startServer(t, server.Config{})
				alice := startProxy(t, s, "otr:\n  - {account: \"*\", contact: \"*\", policy: "+policy+"}\n").login("alice", client.Plain)
				alice.Send("<iq type='set' id='i1'>" + c.raw + "</iq>")
				alice.Send("<iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
				alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "end" })
				if !strings.Contains(string(s.Received()), c.want) {
					t.Errorf("never reached the server")
				}
			})
		}
	}
}

// A line in the conversation with a contact that has no local part (a bot, a gateway).
func TestDomainContact(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "otr:\n  - {account: \"*\", contact: \"*\", policy: manual}\n").login("alice", client.Plain)
	alice.Say("bot.example.org", "1", "!otr start")
	st, err := alice.Wait(client.Notice)
	if err != nil {
		t.Fatal(err)
	}
	if got := client.Body(st); !strings.Contains(got, "Asked bot.example.org") {
		t.Errorf("%s", got)
	}
}

// The service contact's address as IDNA reads it, too.
func TestServerHearsOfServiceWide(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "").login("alice", client.Plain)
	for _, jid := range []string{"otrproxy.\uff4cocalhost", "xmpp:otrproxy.localhost?message", "otrproxy.localhost/x", "otrproxy.localhost."} {
		alice.Send("<iq type='set' id='i1'><query xmlns='jabber:iq:roster'><item jid='" + jid + "'/></query></iq>")
		alice.Send("<iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
		alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "end" })
		if strings.Contains(string(s.Received()), jid) {
			t.Errorf("the server has heard of %q", jid)
		}
	}
}

// A request that names the service contact thousands of times holds its client's session,
// and writes a file as many times.
func TestAboutUsQuadratic(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "").login("alice", client.Plain)
	alice.Send("<iq type='set' id='i1'><block xmlns='urn:xmpp:blocking'>" + strings.Repeat("<item jid='otrproxy.localhost'/>", 3000) + strings.Repeat("<item jid='x@localhost'/>", 3000) + "</block></iq>")
	alice.Send("<iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
	if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "end" }); err != nil {
		t.Error(err)
	}
}

// A state directory that is a symbolic link.
func TestSymlinkedState(t *testing.T) {
	dir := stateDir(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := state.Backup(link, &b, pass1); err != nil {
		t.Errorf("backup: %v", err)
		b.Reset()
		if _, err := state.Backup(dir, &b, pass1); err != nil {
			t.Fatal(err)
		}
	}
	_, aside, err := state.Restore(link, &b, pass1, true)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("restore: the link is a directory now, beside it and not where it led to: keys have left that file system")
	}
	if st, err := os.Lstat(aside); err != nil || st.Mode()&os.ModeSymlink != 0 {
		t.Errorf("restore: what is set aside is a link")
	}
}

// What is in the state directory besides is not otrproxy's to delete.
func TestRestoreDeletes(t *testing.T) {
	var b bytes.Buffer
	if _, err := state.Backup(stateDir(t), &b, pass1); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(t.TempDir(), "home")
	os.Mkdir(home, 0o700)
	os.WriteFile(filepath.Join(home, "otrproxy.yaml"), []byte("mine"), 0o600)
	_, aside, err := state.Restore(home, &b, pass1, false)
	if err != nil {
		return // refused
	}
	for _, dir := range []string{home, aside} {
		if _, err := os.Stat(filepath.Join(dir, "otrproxy.yaml")); dir != "" && err == nil {
			return
		}
	}
	t.Error("a file that was in the directory is gone")
}

// onWrite calls f before the first write that is not the header's.
type onWrite struct {
	bytes.Buffer
	f func()
}

func (w *onWrite) Write(b []byte) (int, error) {
	if len(b) > 4096 && w.f != nil {
		w.f()
		w.f = nil
	}
	return w.Buffer.Write(b)
}

// "key passphrase" while a backup is made: it has no private key at all, and says that all
// went well.
func TestBackupMissesKey(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	acc := filepath.Join(b.state, "accounts", "alice@"+domain)
	big := make([]byte, 1<<20)
	rand.Read(big)
	os.WriteFile(filepath.Join(acc, "a-large-one"), big, 0o600) // stands for many files: fingerprints of a large household
	w := &onWrite{f: func() {
		if _, err := admin(t, b.p, "key passphrase", "passphrase", pass1); err != nil {
			t.Error(err)
		}
	}}
	if _, err := state.Backup(b.state, w, pass1); err != nil {
		return // says so
	}
	dir := filepath.Join(t.TempDir(), "state")
	if _, _, err := state.Restore(dir, &w.Buffer, pass1, false); err != nil {
		t.Fatal(err)
	}
	if keys, _ := filepath.Glob(filepath.Join(dir, "accounts", "alice@"+domain, "otr.private_key*")); len(keys) == 0 {
		t.Error("the backup has no key of alice's")
	}
}

// The same with --remove: keys that are encrypted, without what decrypts them.
func TestBackupMissesIdentity(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "key passphrase", "passphrase", pass1); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 1<<20)
	rand.Read(big)
	os.WriteFile(filepath.Join(b.state, "accounts", "carol@"+domain, "zz"), big, 0o600)
	w := &onWrite{f: func() {
		if _, err := admin(t, b.p, "key passphrase", "remove", "yes"); err != nil {
			t.Error(err)
		}
	}}
	if _, err := state.Backup(b.state, w, pass1); err != nil {
		return
	}
	dir := filepath.Join(t.TempDir(), "state")
	if _, _, err := state.Restore(dir, &w.Buffer, pass1, false); err != nil {
		t.Fatal(err)
	}
	keys, _ := filepath.Glob(filepath.Join(dir, "accounts", "*", "otr.private_key.age"))
	if _, err := os.Stat(filepath.Join(dir, "identity.age")); err != nil && len(keys) > 0 {
		t.Errorf("%d keys in the backup that nobody can ever decrypt", len(keys))
	}
}

// A small archive that fills the disk: each file may have 64 MiB, and there is no bound on
// all of them.
func TestRestoreBomb(t *testing.T) {
	var b bytes.Buffer
	r, _ := age.NewScryptRecipient(pass1)
	r.SetWorkFactor(10)
	sealed, _ := age.Encrypt(&b, r)
	zipped, _ := gzip.NewWriterLevel(sealed, gzip.BestSpeed)
	archive := tar.NewWriter(zipped)
	const files, size = 8, 8 << 20
	zeros := make([]byte, size)
	for i := range files {
		archive.WriteHeader(&tar.Header{Name: fmt.Sprintf("accounts/a@x/f%d", i), Mode: 0o600, Size: size})
		archive.Write(zeros)
	}
	archive.Close()
	zipped.Close()
	sealed.Close()
	dir := filepath.Join(t.TempDir(), "state")
	n, _, err := state.Restore(dir, &b, pass1, false)
	if err == nil {
		t.Errorf("%d files, %d MiB from a small archive; 100000 such would be 6 TiB", n, n*8)
	}
}

// What stands in a hostile file is not said as lines of ours.
func TestImportSpeaks(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	key := string(testKeys(t)["bob@"+domain])
	dir := profile(t, map[string]string{
		"otr.private_key": strings.Replace(key, "\"bob@example.org\"", "\"x\\nkey alice@example.org: key taken over, fingerprint FORGED\"", 1),
		"x\nFORGED.fpr":   "bob@example.org\talice@example.org\tprpl-jabber\t" + print1 + "\tverified\n",
	})
	r, err := admin(t, b.p, "key import", "path", dir)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(r.Text) {
		if strings.HasPrefix(line, "key alice@example.org: key taken over") || strings.HasPrefix(line, "FORGED") {
			t.Errorf("a line of the file's:\n%s", r.Text)
		}
	}
}

// An account that is no account leads out of the directory of accounts.
func TestImportOutside(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	dir := profile(t, map[string]string{"otr.private_key": strings.Replace(string(testKeys(t)["bob@"+domain]), "\"bob@example.org\"", "\"3\"", 1)})
	for _, account := range []string{"...", "..", "example.org"} {
		if _, err := admin(t, b.p, "key import", "path", dir, "account", account, "from", "3"); err == nil {
			t.Errorf("--account %s is taken", account)
		}
		for _, at := range []string{"otr.private_key", "accounts/otr.private_key", "accounts/example.org/otr.private_key"} {
			if _, err := os.Stat(filepath.Join(b.state, at)); err == nil {
				t.Errorf("--account %s: written to %s", account, at)
			}
		}
	}
}

// A profile directory behind a symbolic link (~/.purple of people who keep it elsewhere).
func TestImportLinked(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	dir := profile(t, map[string]string{"otr.fingerprints": "bob@example.org\talice@example.org\tprpl-jabber\t" + print1 + "\tverified\n"})
	link := filepath.Join(t.TempDir(), "purple")
	os.Symlink(dir, link)
	if _, err := admin(t, b.p, "key import", "path", link); err != nil {
		t.Error(err)
	}
}

// One account whose name is too long for a directory hides what was taken over of the
// others.
func TestImportStops(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	dir := profile(t, map[string]string{"otr.fingerprints": "bob@example.org\talice@example.org\tprpl-jabber\t" + print1 + "\tverified\n" +
		"bob@example.org\t" + strings.Repeat("l", 300) + "@example.org\tprpl-jabber\t" + print1 + "\tverified\n" +
		"bob@example.org\tzoe@example.org\tprpl-jabber\t" + print1 + "\tverified\n"})
	r, err := admin(t, b.p, "key import", "path", dir)
	if err != nil || results(r)["fingerprint imported"] != 2 {
		t.Errorf("%v %s", err, r.Text)
	}
}

// A file of 1 MiB, as large as one may be, is taken over before the caller goes (60 s).
func TestImportLarge(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	var f strings.Builder
	for i := 0; f.Len() < 200_000; i++ {
		fmt.Fprintf(&f, "c%d@example.org\talice@example.org\tprpl-jabber\t%040x\t\n", i, i+1)
	}
	dir := profile(t, map[string]string{"otr.fingerprints": f.String()})
	r, err := admin(t, b.p, "key import", "path", dir)
	if err != nil || results(r)["fingerprint imported"] < 1000 {
		t.Fatal(err, len(r.Data.([]control.ImportLine)))
	}
	saved, _ := os.ReadFile(filepath.Join(b.state, "accounts", "alice@"+domain, "otr.fingerprints"))
	if n := strings.Count(string(saved), "\n"); n != results(r)["fingerprint imported"] {
		t.Errorf("%d are on disk", n)
	}
}

// Pins written by hand, in lower case as openssl prints them.
func TestPinByHand(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	pin := strings.ToLower("sha256:" + strings.TrimPrefix(strings.TrimSuffix(strings.Repeat("AB:", 32), ":"), ""))
	os.WriteFile(filepath.Join(dir, "pins.yaml"), []byte(domain+":\n  - {pin: \""+pin+"\", slot: current, source: command, untold: false}\n"), 0o600)
	b := startConfigured(t, dir, configFor(s, dir))
	r, err := admin(t, b.p, "pin list")
	if err != nil || !strings.Contains(r.Text, pin) {
		t.Fatal(err, r.Text)
	}
	if _, err := admin(t, b.p, "pin remove", "domain", domain, "pin", pin); err != nil {
		t.Errorf("listed, and cannot be removed: %v", err)
	}
}

// The command of "notify" starts another program; both end with the proxy.
func TestHookOrphan(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	makeFIFO(t, fifo)
	script := filepath.Join(t.TempDir(), "tell")
	os.WriteFile(script, []byte("#!/bin/sh\nexec >"+fifo+"\nsleep 120 &\necho $!\nwait\n"), 0o700)
	c := onStage(t, fmt.Sprintf("notify: {command: [%q], events: [private]}\n", script), (*stage).talk)
	pipe, err := os.Open(fifo) // waits for the command to run
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	var pid int
	if _, err := fmt.Fscanln(pipe, &pid); err != nil {
		t.Fatal(err)
	}
	c.home.stop()
	// A killed process takes a moment to go: the pipe ends when the last that holds it has.
	pipe.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := pipe.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("it still runs: %v", err)
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
	}
}

// The doctor without a running proxy, with odd names: an answer, no panic, nothing written.
func TestDoctorNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	cfg, err := config.Parse("x", fmt.Appendf(nil, "state: %q\n", dir))
	if err != nil {
		t.Fatal(err)
	}
	opt := proxy.Options{
		Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("none") }},
		Dial:     func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("none") },
	}
	for _, name := range []string{"", " ", "bücher.example", "xn--bcher-kva.example", "127.0.0.1", "[::1]", "::1", "example.org:5222", "a@example.org:5222", "example.org/x", "a@b/c", "@", "a@", "@b", ".", "..", "...", "a..b", "-", "xmpp:a@b", "a b", "a\nb", "\x00", "\x1b[2J", strings.Repeat("x", 300), strings.Repeat("x", 70000), strings.Repeat("a.", 600) + "b", "_xmpp._tcp.example", "*.example.org", "\u202eexample.org", "localhost", "otrproxy.localhost", "a@otrproxy.localhost"} {
		r, err := proxy.Doctor(t.Context(), cfg, opt, name)
		if err == nil && r.Text == "" {
			t.Errorf("%q: nothing", name)
		}
		if err != nil && (len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x1b\x00\u202e")) {
			t.Errorf("%.40q: %.200q", name, err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a state directory was made")
	}
}

// Many events: the command runs one at a time, and the end of the proxy waits for nothing.
func TestHookFlood(t *testing.T) {
	script := filepath.Join(t.TempDir(), "tell")
	os.WriteFile(script, []byte("#!/bin/sh\ntrap '' TERM INT HUP\nexec cat /dev/zero\n"), 0o700)
	c := onStage(t, fmt.Sprintf("notify: {command: [%q], events: [private, held, returned]}\n", script), (*stage).talk)
	for i := range 200 {
		c.alice.Say(fmt.Sprintf("x%d@%s", i, domain), fmt.Sprint(i), "x")
	}
	asks(t, c.alice, "end", "get", domain, "<ping xmlns='urn:xmpp:ping'/>")
	c.home.stop()
}

// The same in a list of contacts: each is a file written and a push to all clients.
func TestRosterOfUs(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	alice := b.login("alice", client.Plain)
	alice.Send("<iq type='set' id='i1'><query xmlns='jabber:iq:roster'>" + strings.Repeat("<item jid='otrproxy.localhost'/>", 3000) + "</query></iq>")
	alice.Send("<iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
	pushes := map[string]bool{}
	alice.Wait(func(st *stanza.Stanza) bool {
		if st.Root().Attr("type") == "set" {
			pushes[st.Root().Attr("id")] = true
		}
		return st.Root().Attr("id") == "end"
	})
	if len(pushes) > 1 {
		t.Errorf("%d pushes, and as many times a file was written, for one request", len(pushes))
	}
}

//go:build linux

package real

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"otrproxy/proxy/control"
	"otrproxy/test/need"
)

// word runs a word of the command line, and reads what it answers programs.
func (h *household) word(t *testing.T, into any, words ...string) {
	t.Helper()
	cmd := exec.Command(binary, append(words, "--json", "--config", h.conf)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v %s", words, err, out)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%q: %v in %s", words, err, out)
	}
}

// trust is how far alice's proxy trusts a contact.
func (h *household) trust(t *testing.T, account, contact string) control.ContactLine {
	t.Helper()
	var lines []control.ContactLine
	h.word(t, &lines, "contact", "show", account, contact)
	return lines[0]
}

// alice, whose client knows nothing of OTR, and bob verify each other in three ways,
// started from either side, in the chat alone. Both programs show it, a wrong secret is
// told to both, and trust outlives restarts, in files that libotr reads.
func TestVerifyThreeWays(t *testing.T) {
	for name, startContact := range everyContact {
		t.Run(name, func(t *testing.T) {
			s, h, alice, bob := stage(t, startProsody, startContact)
			jid := "alice@" + s.domain
			say := func(words string) { alice.say(bob.jid(), "c", "!otr "+words) }
			alice.say(bob.jid(), "m1", typed)
			bob.reads(typed)
			bob.say(typed)
			alice.reads(bob.jid(), typed)

			// Fingerprints: what each reads out to the other.
			say("verify")
			told := alice.noticed(bob.jid(), "Read this to them")
			both := regexp.MustCompile(fingerprints).FindAllString(told, -1)
			read := bob.fingerprint()
			if len(both) != 2 || !strings.EqualFold(both[1], read) {
				t.Fatalf("shown %q, and bob reads out %s", both, read)
			}
			say("verify " + both[0]) // her own is not his
			alice.noticed(bob.jid(), "is NOT the fingerprint in use")
			say("verify " + strings.ToLower(read))
			alice.noticed(bob.jid(), "is verified")
			bob.verifies(both[0])
			eventually(t, name+" to trust alice", bob.trusts)
			if trust := h.trust(t, jid, bob.jid()).Trust; trust != "verified" {
				t.Errorf("trust %s", trust)
			}
			say("distrust")
			alice.noticed(bob.jid(), "not verified any more")

			// A secret, wrong and right, from either side.
			say("smp start s3cret")
			bob.asked("")
			bob.answer("another")
			bob.told(false)
			alice.noticed(bob.jid(), "NOT the same")
			bob.ask("", "s3cret word")
			alice.noticed(bob.jid(), "wants to compare a secret")
			say("smp answer s3cret word")
			bob.told(true)
			alice.noticed(bob.jid(), "The secrets are the same")

			// A question, wrong and right, from either side; the answer proves who gives it.
			say("distrust")
			alice.noticed(bob.jid(), "not verified any more")
			say("smp ask what colour? | blue")
			bob.asked("what colour?")
			bob.answer("red")
			bob.told(false)
			alice.noticed(bob.jid(), "NOT the same")
			say("smp ask what colour? | blue")
			bob.asked("what colour?")
			bob.answer("blue")
			bob.told(true)
			alice.noticed(bob.jid(), "The secrets are the same")
			if trust := h.trust(t, jid, bob.jid()).Trust; trust != "smp" {
				t.Errorf("trust %s", trust)
			}
			say("distrust")
			alice.noticed(bob.jid(), "not verified any more")
			if name != "mcabber" { // which asks no questions of its own
				bob.ask("which tree?", "oak")
				alice.noticed(bob.jid(), regexp.QuoteMeta("which tree?"))
				say("smp answer elm")
				bob.told(false)
				alice.noticed(bob.jid(), "NOT the same")
				bob.ask("which tree?", "oak")
				alice.noticed(bob.jid(), regexp.QuoteMeta("which tree?"))
				say("smp answer oak")
				bob.told(true)
				alice.noticed(bob.jid(), "Your answer was right")
				if trust := h.trust(t, jid, bob.jid()).Trust; trust != "unverified" {
					t.Errorf("having answered made bob %s", trust)
				}
			}
			say("verify " + read)
			alice.noticed(bob.jid(), "is verified")

			// Both restart, and still know each other.
			h.kill(syscall.SIGTERM)
			h.start(t)
			again := startSlixmpp(t, jid, h.addr, "starttls")
			again.online()
			if x := h.trust(t, jid, bob.jid()); x.Trust != "verified" || !strings.EqualFold(x.Fingerprint, strings.ReplaceAll(read, " ", "")) {
				t.Errorf("after the restart: %+v", x)
			}
			bob.restart()
			again.befriend(bob)
			again.say(bob.jid(), "m9", "still you")
			bob.reads("still you")
			again.noticed(bob.jid(), "their key is verified")
			if !bob.trusts() {
				t.Error("bob's program has forgotten")
			}
			readByLibotr(t, filepath.Join(h.state, "accounts", jid), jid, both[0], bob.jid(), read)
			unseen(t, s)
		})
	}
}

// libotrFiles is libotr's own reading of its files, built once for each test.
func libotrFiles(t *testing.T) func(args ...string) string {
	t.Helper()
	need.Program(t, "cc", "/usr/include/libotr/proto.h")
	program := filepath.Join(t.TempDir(), "libotr_files")
	if out, err := exec.Command("cc", "-O2", "-o", program, "../interop/peers/libotr_files.c", "-lotr", "-lgcrypt").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("libotr_files %q: %v %s", args, err, out)
		}
		return string(out)
	}
}

// readByLibotr sees to it that libotr reads the files in a directory, and finds the key
// and the trust in them.
func readByLibotr(t *testing.T, dir, account, own, contact, theirs string) {
	t.Helper()
	libotr := libotrFiles(t)
	if keys := libotr("keys", filepath.Join(dir, "otr.private_key")); !strings.Contains(keys, account+" prpl-jabber "+own) {
		t.Errorf("libotr reads %q, and not %s", keys, own)
	}
	again := filepath.Join(t.TempDir(), "again")
	libotr("fingerprints", filepath.Join(dir, "otr.fingerprints"), again)
	b, _ := os.ReadFile(again)
	// Any word behind the fingerprint means that it was verified, to libotr and us.
	if want := regexp.QuoteMeta(contact+"\t"+account+"\tprpl-jabber\t"+strings.ToLower(strings.ReplaceAll(theirs, " ", ""))+"\t") + `\w+\n`; !regexp.MustCompile(want).Match(b) {
		t.Errorf("libotr reads %q, and not %q", b, want)
	}
}

// A profile that another program has made is taken over: the same key, which alice's
// proxy knows and has verified, and the same trust in hers; and what is exported again is
// read by libotr.
func TestProfiles(t *testing.T) {
	for name, startContact := range map[string]func(*testing.T, *xmppServer, string, string) contact{"bitlbee": startBitlbee, "pidgin": startFreshPidgin, "mcabber": startMcabber, "profanity": startProfanity} {
		t.Run(name, func(t *testing.T) {
			s, h, alice, bob := stage(t, startProsody, startContact)
			jid := "alice@" + s.domain
			alice.say(bob.jid(), "m1", typed)
			bob.reads(typed)
			read, own := "", ""
			alice.say(bob.jid(), "c", "!otr verify")
			both := regexp.MustCompile(fingerprints).FindAllString(alice.noticed(bob.jid(), "Read this to them"), -1)
			own, read = both[0], both[1]
			alice.say(bob.jid(), "c", "!otr verify "+read)
			alice.noticed(bob.jid(), "is verified")
			bob.say("so that it is all settled")
			alice.reads(bob.jid(), "so that it is all settled")
			bob.verifies(own)
			eventually(t, name+" to trust alice", bob.trusts)
			profile := bob.profile()
			bob.(interface{ kill(syscall.Signal) }).kill(syscall.SIGTERM)

			away := startOTRProxy(t, s, "")
			var lines []control.ImportLine
			away.word(t, &lines, "key", "import", profile)
			for _, l := range lines {
				if l.Result == "conflict" {
					t.Errorf("%+v", l)
				}
			}
			var keys []control.KeyLine
			away.word(t, &keys, "key", "show", bob.jid())
			if hex := strings.ToLower(strings.ReplaceAll(read, " ", "")); len(keys) != 1 || keys[0].Fingerprint != hex {
				t.Fatalf("%+v, and it was %s: %+v", keys, hex, lines)
			}
			if x := away.trust(t, bob.jid(), jid); x.Trust != "verified" || !strings.EqualFold(x.Fingerprint, strings.ReplaceAll(own, " ", "")) {
				t.Errorf("trust in alice: %+v", x)
			}
			proxied := startSlixmpp(t, bob.jid(), away.addr, "starttls")
			proxied.online()
			alice.says(t, `(?m)^present `+regexp.QuoteMeta(bob.jid())+`/slixmpp`)
			proxied.say(jid, "m2", "the same bob")
			alice.reads(bob.jid(), "the same bob")
			alice.noticed(bob.jid(), "their key is verified")
			proxied.noticed(jid, "their key is verified")
			if x := h.trust(t, jid, bob.jid()); x.Trust != "verified" {
				t.Errorf("%+v", x)
			}
			out := filepath.Join(t.TempDir(), "out")
			var done []control.Done
			away.word(t, &done, "key", "export", bob.jid(), out)
			readByLibotr(t, out, bob.jid(), read, jid, own)
			if out, err := exec.Command(binary, "key", "export", bob.jid(), out, "--config", away.conf).CombinedOutput(); err == nil || !strings.Contains(string(out), "is there already") {
				t.Errorf("%v %s", err, out)
			}
		})
	}
}

// At a terminal: a secret is asked for and not shown, a new passphrase twice, and a
// fingerprint is a QR code as well.
func TestAtATerminal(t *testing.T) {
	s, h, alice, bob := stage(t, startProsody, startBitlbee)
	jid := "alice@" + s.domain
	alice.say(bob.jid(), "m1", typed)
	bob.reads(typed)
	word := func(words ...string) *process {
		return startOnTerminal(t, strings.Join(words, " "), []string{"TERM=xterm", "LANG=C.UTF-8"}, append(append([]string{binary}, words...), "--config", h.conf)...)
	}
	p := word("smp", "ask", jid, bob.jid(), "what", "colour?")
	p.says(t, "The answer you expect: ")
	p.in.Write([]byte("blue sky\r"))
	p.says(t, "Asked "+regexp.QuoteMeta(bob.jid()))
	if strings.Contains(p.output(), "blue") {
		t.Errorf("the secret was shown: %q", p.output())
	}
	bob.asked("what colour?")
	bob.answer("blue sky")
	bob.told(true)
	alice.noticed(bob.jid(), "The secrets are the same")

	p = word("key", "show", jid)
	p.says(t, "otr-fingerprint=[0-9a-f]{40}")
	<-p.read
	rows := regexp.MustCompile(`(?m)^[█▀▄ ]{30,}\r?$`).FindAllString(p.output(), -1)
	if len(rows) < 15 {
		t.Errorf("no QR code in %s", p.output())
	}

	p = word("key", "passphrase")
	p.says(t, "New passphrase: ")
	p.in.Write([]byte("correct horse\r"))
	p.says(t, "Once more: ")
	p.in.Write([]byte("correct house\r"))
	p.says(t, "the two are not the same; nothing was changed")
	<-p.read
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(filepath.Join(h.state, "identity.age")); err == nil {
		t.Error("something was changed")
	}
}

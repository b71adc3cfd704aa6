package otrlayer

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
)

// Programs that are known by their presence are read and written to in their own way.
func TestKnownPrograms(t *testing.T) {
	const html = `a &lt; b &amp;&amp; c <b>x</b>`
	for _, c := range []struct {
		program string
		version otr.Version
		reads   string // of typed text, what is sent
		writes  string // of html, what is read
	}{
		{"http://profanity-im.github.io", otr.V2, `1 < 2 & 3`, html},
		{"http://profanity-im.github.io", otr.V3, `1 &lt; 2 &amp; 3`, `a < b && c x`}, // a proxy like this one stands before it
		{"http://mcabber.com/caps", otr.V3, `1 &lt; 2 &amp; 3`, html},
		{"http://pidgin.im/", otr.V3, `1 &lt; 2 &amp; 3`, `a < b && c x`},
		{"https://gajim.org", otr.V3, `1 &lt; 2 &amp; 3`, `a < b && c x`},
		{"", otr.V3, `1 &lt; 2 &amp; 3`, `a < b && c x`},
	} {
		alice := newPerson(t, keyedState(t, "alice@x"), "alice@x")
		alice.a.Presence(alice, "bob@y/r", "bob@y", true, c.program, 0)
		h := alice.a.conv("bob@y").formatOf(&session{jid: "bob@y/r", Session: otr.Session{Version: c.version}})
		if got := text.ToPayload("1 < 2 & 3", h.Reads); got != c.reads {
			t.Errorf("%s version %d is sent %q", c.program, c.version, got)
		}
		if got := text.FromPayload(html, h.Writes); got != c.writes {
			t.Errorf("%s version %d is read %q", c.program, c.version, got)
		}
		alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
		if len(alice.a.there) != 0 {
			t.Error("a program is remembered that has gone")
		}
	}
}

// A program that has sent what cannot be HTML sends plain text, from then on: what looks
// like an entity in it is what was typed.
func TestLearnsPlainText(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	c := alice.a.conv("bob@y")
	s := c.current()
	said := func(payload string) string {
		t.Helper()
		alice.a.mu.Lock()
		defer alice.a.mu.Unlock()
		r := c.opened(time.Now(), alice, Incoming{From: "bob@y/r", Contact: "bob@y"}, s, [32]byte{byte(len(c.read))}, otr.Result{Session: s.ID, Text: []byte(payload)})
		return r.Text
	}
	if got := text.ToPayload("<3", c.formatOf(s).Reads); got != "&lt;3" {
		t.Errorf("before anything is known of it, %q is sent", got)
	}
	for _, step := range [][2]string{{"&lt;3 is a heart", "<3 is a heart"}, {"1 < 2 && 3", "1 < 2 && 3"}, {"write &lt;3 for a heart", "write &lt;3 for a heart"}} {
		if got := said(step[0]); got != step[1] {
			t.Errorf("%q is read %q", step[0], got)
		}
	}
	// What writes plain text reads it, too.
	if got := text.ToPayload("<3", c.formatOf(s).Reads); got != "<3" {
		t.Errorf("then %q is sent", got)
	}
	// It is known by its key in the next session, over a restart, too, whatever its address.
	alice.a.Saved()
	again := newPerson(t, filepath.Dir(filepath.Dir(alice.a.dir)), "alice@x")
	next := &session{jid: "bob@y/other", Session: s.Session}
	next.program = again.a.begun("bob@y").programBefore(next)
	if got := text.ToPayload("<3", again.a.begun("bob@y").formatOf(next).Reads); got != "<3" {
		t.Errorf("after a restart %q is sent", got)
	}
	stranger := &session{jid: "bob@y/r", Session: otr.Session{Version: otr.V3, Fingerprint: keyring.Fingerprint{1}}}
	if name := again.a.begun("bob@y").programBefore(stranger); name != "" {
		t.Errorf("another key is known as %q", name)
	}
	// A proxy like this one marks what it sends, and escapes what has to be.
	alice.a.mu.Lock()
	defer alice.a.mu.Unlock()
	r := c.opened(time.Now(), alice, Incoming{From: "bob@y/r", Contact: "bob@y", Marked: true}, s, [32]byte{99}, otr.Result{Session: s.ID, Text: []byte("&lt;3")})
	if r.Text != "<3" {
		t.Errorf("read %q", r.Text)
	}
	if got := text.ToPayload("<3", c.formatOf(s).Reads); got != "&lt;3" {
		t.Errorf("it is sent %q", got)
	}
	c.settle(time.Now())
}

// Text that is kept for another client's copy is forgotten after a minute.
func TestCopiesAreForgotten(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	bob.say("2", "a secret")
	m := Incoming{From: "bob@y/r", Contact: "bob@y", Text: bob.take()[0].Body(), Welcome: true}
	other := newPerson(t, keyedState(t, "carol@z"), "carol@z") // stands for another client
	if r := alice.a.Receive(alice, m); r.Text != "a secret" {
		t.Fatalf("%+v", r)
	}
	if r := alice.a.Receive(other, m); r.Text != "a secret" {
		t.Errorf("%+v", r)
	}
	if r := alice.a.Receive(other, m); r.Deliver {
		t.Errorf("a replay is shown: %+v", r)
	}
	alice.later(copyWindow)
	alice.a.expire()
	for _, r := range alice.a.conv("bob@y").read {
		if r.said.Text != "" {
			t.Errorf("%q is kept", r.said.Text)
		}
	}
	m.Copy = true
	if r := alice.a.Receive(other, m); !r.Unreadable || strings.Contains(r.Text, "secret") {
		t.Errorf("%+v", r)
	}
}

// What the contact said it could not read, and what cannot be sent again, comes back.
func TestComplaintsAreSettled(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	alice.say("2", "lost")
	alice.say("3", "lost too")
	alice.say("4", "not sent twice")
	alice.take()
	complaint := Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: what?", Welcome: true}
	alice.a.Receive(alice, complaint)
	alice.a.Receive(alice, complaint)
	alice.a.GiveBack(CauseUpstream, &Message{Contact: "bob@y", ID: "4", outlet: alice}) // it had not left: no complaint is about it
	alice.later(resendWindow + time.Second)
	alice.a.expire()
	if got := strings.Join(alice.returned, ","); got != "4 upstream,2 unread,3 unread" {
		t.Errorf("returned %s", got)
	}
}

// As long as what came before may be on its way, nothing leaves over another connection.
func TestNothingOvertakes(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	other := newPerson(t, keyedState(t, "carol@z"), "carol@z")
	alice.a.Attach(other)
	alice.say("2", "slowly")
	alice.pending = true
	alice.later(time.Minute)
	send := func(id string) Verdict {
		return alice.a.Send(other, Message{Contact: "bob@y", To: "bob@y", ID: id, Type: "chat", Text: id}, Rule{Policy: alice.policy})
	}
	if v := send("3"); v.Action() != Encrypted || len(other.take()) != 0 || len(alice.take()) != 2 {
		t.Errorf("3 took another connection: %v", v.Action())
	}
	alice.dead = true // it takes no more
	if v := send("4"); v.Action() != Held || len(other.take()) != 0 {
		t.Errorf("4 took another connection: %v", v.Action())
	}
	alice.pending = false
	alice.a.Acknowledged(alice)
	if n := len(other.take()); n != 1 {
		t.Errorf("%d messages left after that", n)
	}
}

// A key that moves from a program that writes HTML to another one does not take what looks like a
// tag out of its text.
func TestKeyMovesToAnotherProgram(t *testing.T) {
	alice, bob := couple(t)
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "http://pidgin.im/", 0)
	alice.say("1", "hello")
	carry(alice, bob)
	bob.say("2", "hi")
	carry(alice, bob)
	alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
	alice.read = nil
	bob.restart() // the same key, another program, which names itself, and is not known
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	raw := "a List<String> of <names>"
	c := bob.a.conv("alice@x")
	sealed, err := c.otr.AppendEncrypt(nil, bob.a.now(), c.active, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	r := alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: string(sealed), Welcome: true})
	if r.Text != raw {
		t.Errorf("%q is shown as %q", raw, r.Text)
	}
}

// One mark of the server's does not make a program that of a proxy for ever.
func TestOneMarkIsNotForEver(t *testing.T) {
	alice, bob := couple(t)
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "http://profanity-im.github.io", 0)
	bob.allowed, alice.allowed = []int{2}, []int{2}
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	c := bob.a.conv("alice@x")
	say := func(raw string, marked bool) string {
		sealed, err := c.otr.AppendEncrypt(nil, bob.a.now(), c.active, []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		return alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: string(sealed), Welcome: true, Marked: marked}).Text
	}
	const raw = "write &lt;b&gt; for <b>"
	if got := say(raw, false); got != raw {
		t.Fatalf("%q", got)
	}
	say("any", true) // the server has put the id "otrproxy-1" on it
	if got := say("write &lt;b&gt;", false); got != "write &lt;b&gt;" {
		t.Errorf("read ever after as %q", got)
	}
	alice.take()
	alice.say("x", "a < b")
	cc := alice.a.conv("bob@y")
	if f := cc.formatOf(cc.current()); f.Reads != text.PlainText {
		t.Errorf("written to ever after as %v: a < b arrives as %q", f.Reads, text.ToPayload("a < b", f.Reads))
	}
}

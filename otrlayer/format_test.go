package otrlayer

import (
	"strings"
	"testing"
)

// CVE-2012-2369 (pidgin-otr: a peer's text used as a format): what a contact or a
// server chooses is shown as it is, and means nothing to whatever shows it.
func TestCVE2012x2369Formats(t *testing.T) {
	const evil = "%s%n%08x%!d(%%)"
	alice := newPerson(t, keyedState(t, "alice@x"), "alice@x")
	bob := newPerson(t, keyedState(t, "bob@y"), "bob@y")
	bob.a.jid = "bob" + evil + "@y" // as the server presents him
	alice.peer, bob.peer = bob, alice
	alice.say("1", evil)
	carry(alice, bob)
	bob.wantRead(evil)
	bob.say("2", evil)
	carry(alice, bob)
	alice.wantRead(evil)
	q := evil
	bob.done(t, bob.a.Compare(bob, "alice@x", &q, evil))
	carry(alice, bob)
	alice.done(t, alice.a.Answer(alice, bob.a.jid, evil))
	carry(alice, bob)
	for _, text := range []string{"?OTR Error: " + evil, "?OTR:" + evil + ".", "?OTR|" + evil + "|", "?OTRv" + evil + "?"} {
		alice.a.Receive(alice, Incoming{From: bob.a.jid + "/" + evil, Contact: bob.a.jid, Text: text, Welcome: true})
	}
	alice.a.End(alice, bob.a.jid)
	if !alice.noticed(`asks: "` + evil + `"`) {
		t.Errorf("notices %q", alice.notices)
	}
	for _, n := range alice.notices {
		if rest := strings.ReplaceAll(n, evil, ""); strings.Contains(rest, "%") {
			t.Errorf("notice %q", n)
		}
	}
	for _, v := range append(alice.take(), bob.take()...) {
		if strings.Contains(v.Body(), "%!") {
			t.Errorf("sent %q", v.Body())
		}
	}
}

package otrlayer

import (
	"strings"
	"testing"
	"time"
)

// drive carries between alice and x, x being presented to alice as bob@y/from.
func drive(alice, x *person, from string) {
	for range 8 {
		for _, v := range alice.take() {
			x.get(v, false)
		}
		for _, v := range x.take() {
			if r := alice.a.Receive(alice, Incoming{From: "bob@y/" + from, Contact: "bob@y", Text: v.Body(), Welcome: true}); r.Deliver {
				alice.read = append(alice.read, r.Text)
			}
		}
	}
}

func TestAttackResendToChangedKey(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	bob.wantRead("hello")
	mallory := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	mallory.peer = alice
	// mallory's device joins: CHANGED, nobody accepts it.
	mallory.a.Start(mallory, "alice@x")
	drive(alice, mallory, "evil")
	if !alice.noticed("has CHANGED") {
		t.Fatal("no change noticed")
	}
	// bob's own device comes back.
	bob.a.Start(bob, "alice@x")
	carry(alice, bob)
	if d := alice.a.Conversation("bob@y"); d.Trust != Unverified {
		t.Fatalf("%+v", d)
	}
	alice.say("2", "for bob only")
	// held back: bob gets it or not, no matter; the server does not deliver a reply.
	for _, v := range alice.take() {
		bob.get(v, false)
	}
	mallory.read = nil
	alice.a.Receive(alice, Incoming{From: "bob@y/evil", Contact: "bob@y", Text: "?OTR Error: sorry", Welcome: true})
	alice.take()
	mallory.a.Start(mallory, "alice@x")
	drive(alice, mallory, "evil")
	if len(mallory.read) > 0 {
		t.Errorf("LEAK: mallory, whose key nobody accepted, read %q; trust %+v", mallory.read, alice.a.Conversation("bob@y"))
	}
}

func TestAttackSendAfterClose(t *testing.T) {
	early, _ := couple(t)
	early.a.Close()
	if v := early.say("late", "x"); v.Action() != Block || v.Cause() != CauseShutdown {
		t.Errorf("%v %v", v.Action(), v.Cause())
	}
	alice, bob := couple(t)
	alice.policy = Opportunistic
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	if alice.a.Conversation("bob@y").State != StateEncrypted {
		t.Fatal("not private")
	}
	alice.a.Close()
	alice.take()
	if v := alice.say("late", "secret in private conversation"); v.Action() == Plain {
		t.Errorf("LEAK: after Close a private (opportunistic) conversation went on in clear")
	}
}

func TestAttackSecondHeldAnnounced(t *testing.T) {
	alice, _ := couple(t)
	alice.hold.For = 5 * time.Millisecond
	alice.say("1", "x")
	<-alice.event
	if !alice.noticed("Your message waits") {
		t.Fatal()
	}
	alice.mu.Lock()
	alice.notices = nil
	alice.mu.Unlock()
	alice.a.mu.Lock() // the timer may still be at work
	alice.hold.For = time.Minute
	alice.a.mu.Unlock()
	if v := alice.say("2", "y"); v.Action() == Held && !alice.noticed("waits") {
		t.Error("the second message is held and not announced")
	}
}

func TestAttackTypedText(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	bob.read = nil
	for _, text := range []string{"?OTR?what-is-that?", "?OTRv2?meet-me-at-noon?", "?OTR?!really?"} {
		v := alice.say("1", text)
		carry(alice, bob)
		if v.Action() == Protocol && strings.Join(bob.read, "") != text {
			t.Errorf("%q swallowed as a wish", text)
		}
		bob.read = nil
	}
}

func TestAttackOvertaken(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	bob.read = nil
	alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: x", Welcome: true})
	alice.take()
	if v := alice.say("1", "first"); v.Action() != Held {
		t.Fatal(v.Action())
	}
	alice.a.Detach(alice)
	alice.a.mu.Lock()
	alice.a.convs["bob@y"].stale = time.Now().Add(-time.Second)
	alice.a.mu.Unlock()
	alice.a.expire()
	alice.a.Attach(alice)
	alice.say("2", "second")
	carry(alice, bob)
	if got := strings.Join(bob.read, "|"); got != "first|second" {
		t.Errorf("bob read %q; held %d", got, alice.a.Conversation("bob@y").Held)
	}
}

func TestAttackStuckExchange(t *testing.T) {
	alice, bob := couple(t)
	bob.a.Start(bob, "alice@x")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	alice.take() // our commit is lost on the way, bob never answers
	alice.a.mu.Lock()
	alice.a.clock = func() time.Time { return time.Now().Add(time.Hour) }
	alice.a.mu.Unlock()
	alice.say("1", "x")
	if w := alice.take(); len(w) == 0 {
		t.Error("an hour after a lost commit the proxy still asks nobody for a private conversation")
	}
}

func TestAttackLargeText(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	bob.read = nil
	if v := alice.say("1", strings.Repeat(">", 200<<10)); v.Action() != Block || v.Cause() != CauseTooLarge {
		t.Errorf("%v %v", v.Action(), v.Cause())
	}
	text := strings.Repeat(">", 40<<10)
	alice.say("2", text)
	carry(alice, bob)
	bob.wantRead(text)
}

func TestAttackStrangers(t *testing.T) {
	alice, _ := couple(t)
	piece := strings.Repeat("A", 1<<20)
	for i := range 50 {
		jid := "s" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "@evil"
		for k := range 8 {
			alice.a.Receive(alice, Incoming{From: jid + "/r", Contact: jid, Text: "?OTR|0000010" + string(rune('0'+k)) + "|00000000,1,2," + piece + ","})
		}
	}
	if n := len(alice.a.convs); n > 0 {
		t.Errorf("strangers, who never complete anything, hold %d conversations for ever", n)
	}
}

// Two sessions of one account both get a message that was sent to the bare JID.
func TestAttackTwoSessions(t *testing.T) {
	alice, bob := couple(t)
	bob.say("0", "x")
	carry(alice, bob)
	alice.read = nil
	bob.say("1", "hello both")
	for _, v := range bob.take() {
		alice.get(v, false)
		alice.get(v, false) // the other session's copy
	}
	for _, v := range alice.take() {
		if strings.HasPrefix(v.Body(), "?OTR Error") {
			t.Errorf("a second copy of a readable message made an error; alice read %q", alice.read)
		}
	}
}

func TestAttackChangedKeyShownUnmarked(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	fp, _ := bob.a.Fingerprint()
	alice.a.Verify("bob@y", fp)
	mallory := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	mallory.peer = alice
	mallory.a.Start(mallory, "alice@x")
	drive(alice, mallory, "evil")
	alice.read = nil
	mallory.say("9", "pay to account 42")
	for _, v := range mallory.take() {
		r := alice.a.Receive(alice, Incoming{From: "bob@y/evil", Contact: "bob@y", Text: v.Body(), Welcome: true})
		if r.Deliver && r.Text == "pay to account 42" {
			t.Errorf("text under a CHANGED key is shown unmarked in a conversation described as %+v", alice.a.Conversation("bob@y"))
		}
	}
}

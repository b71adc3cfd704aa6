package otrlayer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// closes stops a person's proxy as SIGTERM does, and starts it again: their client is not back
// yet.
func (p *person) closes() {
	p.t.Helper()
	p.a.Close()
	p.restart()
}

// A restart is no end: the contact's program is told of none, is asked anew once the person's
// client is back, and meanwhile neither side writes in clear.
func TestRestartIsNoEnd(t *testing.T) {
	for _, policy := range []Policy{Require, Opportunistic, Manual} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			alice, bob := couple(t)
			alice.policy = policy
			alice.a.Start(alice, "bob@y")
			carry(alice, bob)
			alice.say("1", "before")
			carry(alice, bob)
			alice.a.Saved()
			alice.closes()
			if sent := alice.take(); len(sent) > 0 {
				t.Fatalf("at the end leaves %q", sent[0].Body())
			}
			if d := bob.a.Conversation("alice@x"); d.State != StateEncrypted {
				t.Errorf("bob's is %s", d.State)
			}
			if v := alice.say("2", "too early"); v.Action() != Held { // their client writes at once
				t.Errorf("%v: %v", v.Action(), v.Cause())
			}
			for _, v := range alice.wire {
				if strings.Contains(v.Body(), "too early") {
					t.Error("it leaves in clear")
				}
			}
			alice.a.Arrived(alice)
			carry(alice, bob)
			bob.wantRead("before", "too early")
			bob.say("3", "and back")
			carry(alice, bob)
			alice.wantRead("and back")
			if alice.told("could not be read") != 0 {
				t.Errorf("%q", alice.notices)
			}
			if _, err := os.Lstat(filepath.Join(alice.a.dir, openFile)); !os.IsNotExist(err) {
				t.Errorf("the list is kept: %v", err)
			}
		})
	}
}

// What is written to a proxy that is away is encrypted, and cannot be read afterwards: it is
// counted in one true line, and the contact's program is told.
func TestUnreadableIsCountedAndTold(t *testing.T) {
	for _, stored := range []bool{true, false} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			alice, bob := couple(t)
			alice.say("1", "before")
			carry(alice, bob)
			alice.restart() // killed
			for i := range 28 {
				bob.say(fmt.Sprint("b", i), "unread")
			}
			late := bob.take()
			if len(late) != 28 {
				t.Fatalf("%d messages", len(late))
			}
			for i, v := range late {
				alice.welcome = i > 1 || !stored // the first come before the list of contacts
				alice.get(v, stored)
			}
			if alice.told("could not be read") != 0 {
				t.Errorf("told before it is known how many there are: %q", alice.notices)
			}
			alice.later(quietFor)
			alice.a.expire()
			if n := alice.told("28 messages of bob@y could not be read: their keys are gone here. Their program was told"); n != 1 || alice.told("could not be read") != 1 {
				t.Errorf("told %d times: %q", n, alice.notices)
			}
			// A copy of one that was counted is not told of once more.
			again := Incoming{From: "bob@y/r", Contact: "bob@y", Text: late[3].Body(), Welcome: true, Copy: true, Delayed: true}
			if r := alice.a.Receive(alice, again); r.Deliver {
				t.Errorf("a copy is shown as %q", r.Text)
			}
			errors := 0
			for _, v := range alice.wire {
				if strings.HasPrefix(v.Body(), "?OTR Error:") {
					errors++
				}
			}
			if want := map[bool]int{true: 1, false: 28}[stored]; errors != want {
				t.Errorf("bob's program is told %d times, want %d", errors, want)
			}
			alice.follows()
			carry(alice, bob)
			if d := alice.a.Conversation("bob@y"); d.State != StateEncrypted {
				t.Errorf("afterwards %s", d.State)
			}
		})
	}
}

// One of two questions is enough: a contact's program that begins an exchange by itself, once it
// was told that a message could not be read, is not asked besides.
func TestOneQuestionIsEnough(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "before")
	carry(alice, bob)
	alice.restart()
	bob.say("2", "unread")
	carry(alice, bob) // the error has bob's program ask
	if d := alice.a.Conversation("bob@y"); d.State != StateEncrypted {
		t.Fatal(d.State)
	}
	alice.later(followAfter)
	alice.a.expire()
	if n := alice.queries(); n != 0 {
		t.Errorf("asked besides, %d times", n)
	}
}

// An exchange that is left over stalls nothing: a tag of the contact's begins a new one once the
// old one is not to be expected any more, or its resource has gone.
func TestLeftOversStallNothing(t *testing.T) {
	for name, passes := range map[string]func(alice *person){
		"time":     func(alice *person) { alice.later(16 * time.Second) },
		"resource": func(alice *person) { alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0) },
	} {
		t.Run(name, func(t *testing.T) {
			alice, bob := couple(t)
			alice.policy, bob.policy = Opportunistic, Opportunistic
			bob.a.Start(bob, "alice@x")
			for range 2 { // the query, our commit; bob's key, our signature, which is lost
				for _, v := range bob.take() {
					alice.get(v, false)
				}
				for _, v := range alice.take() {
					if !strings.HasPrefix(v.Body(), "?OTR:AAMR") {
						bob.get(v, false)
					}
				}
			}
			bob.take()
			passes(alice)
			bob.restart()
			bob.say("1", "with a tag")
			carry(alice, bob)
			if d := alice.a.Conversation("bob@y"); d.State != StateEncrypted {
				t.Errorf("%s", d.State)
			}
		})
	}
}

// What the person ends is not private again a moment later, because the contact's program answers
// what it was asked before.
func TestEndHoldsAgainstAnOldQuery(t *testing.T) {
	alice, bob := couple(t)
	alice.policy = Opportunistic
	alice.a.Start(alice, "bob@y")
	query := alice.take()
	alice.a.End(alice, "bob@y")
	for _, v := range query {
		bob.get(v, false)
	}
	carry(alice, bob)
	if d := alice.a.Conversation("bob@y"); d.State == StateEncrypted {
		t.Error("it is private again")
	}
	alice.later(askedFor)
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	if d := alice.a.Conversation("bob@y"); d.State != StateEncrypted {
		t.Errorf("when asked anew: %s", d.State)
	}
}

// What cannot be read is told of even where the proxy stops just then.
func TestUnreadableIsToldOfAtTheEnd(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "before")
	carry(alice, bob)
	alice.restart()
	bob.say("2", "unread")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	alice.a.Close()
	if alice.told("could not be read") == 0 {
		t.Errorf("the message is gone without a word: %q", alice.notices)
	}
}

// What the person ends before their client is there, after a restart, is not asked for again.
func TestEndAfterARestartHolds(t *testing.T) {
	alice, bob := couple(t)
	alice.policy = Manual
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	alice.a.Saved()
	alice.closes()
	alice.a.End(alice, "bob@y")
	alice.take()
	alice.say("2", "clear now")
	alice.take()
	alice.a.Arrived(alice)
	if n := alice.queries(); n > 0 {
		t.Errorf("asked again though ended")
	}
	if v := alice.say("3", "clear now"); v.Action() != Plain {
		t.Errorf("after End, %v %v", v.Action(), v.Cause())
	}
}

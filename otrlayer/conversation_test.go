package otrlayer

import (
	"strings"
	"testing"
	"time"

	"otrproxy/otrlayer/keyring"
)

// later moves an account's clock.
func (p *person) later(d time.Duration) {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	now := p.a.clock().Add(d)
	p.a.clock = func() time.Time { return now }
}

// join brings x into a private conversation with alice, as a program of bob's with a
// resource of its own.
func join(t *testing.T, alice, x *person, resource string) {
	t.Helper()
	x.peer = alice
	x.a.Start(x, "alice@x")
	drive(alice, x, resource)
	if d := x.a.Conversation("alice@x"); d.State != StateEncrypted {
		t.Fatalf("%s is not private: %+v", resource, d)
	}
}

// follows lets the time pass in which the contact's program may begin an exchange by itself.
func (p *person) follows() {
	p.later(followAfter)
	p.a.expire()
}

func (p *person) verify(t *testing.T, of *person) {
	t.Helper()
	fp, _ := of.a.Fingerprint()
	if ok, err := p.a.Verify("bob@y", fp); !ok || err != nil {
		t.Fatalf("verify: %v %v", ok, err)
	}
}

// A contact's other program, whose key nobody verified, does not take over from a
// verified one; in version 2 its resource is all that tells the two apart (O14).
func TestOtherProgramDoesNotTakeOver(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(string(rune('0'+version)), func(t *testing.T) {
			alice, bob := couple(t)
			alice.allowed = []int{version}
			join(t, alice, bob, "desk")
			other := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
			join(t, alice, other, "phone")
			if _, err := alice.a.Accept("bob@y", alice.a.Conversation("bob@y").Fingerprint); err != nil { // both keys are known now
				t.Fatal(err)
			}
			bob.a.Start(bob, "alice@x")
			drive(alice, bob, "desk")
			alice.verify(t, bob)

			other.a.Start(other, "alice@x")
			drive(alice, other, "phone")
			if d := alice.a.Conversation("bob@y"); d.Trust != keyring.Verified || d.Version != version {
				t.Fatalf("%+v", d)
			}
			if !alice.noticed("Nothing is sent any more to the other keys known of bob@y") {
				t.Errorf("notices %q", alice.notices)
			}
			bob.read, other.read = nil, nil
			alice.say("1", "for the verified one")
			drive(alice, bob, "desk")
			bob.wantRead("for the verified one")

			// The same key claims to be the very program that was verified.
			other.a.Start(other, "alice@x")
			drive(alice, other, "desk")
			alice.take()
			alice.say("2", "still")
			drive(alice, bob, "desk")
			bob.wantRead("still")
			third := newPerson(t, keyedState(t, "carol@y"), "carol@y")
			join(t, alice, third, "laptop")
			if d := alice.a.Conversation("bob@y"); d.Trust != keyring.Verified || !alice.noticed("Your messages stay with the verified device") {
				t.Errorf("%+v %q", d, alice.notices)
			}
			// The person decides for the new one.
			alice.verify(t, third)
			third.read = nil
			alice.say("3", "for the new one")
			drive(alice, third, "laptop")
			third.wantRead("for the new one")
		})
	}
}

// Whoever carries the messages can claim the verified program's instance tag as well.
func TestSameInstanceAnotherKey(t *testing.T) {
	alice, bob := couple(t)
	other := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	other.a.tag = bob.a.tag
	join(t, alice, other, "r")
	join(t, alice, bob, "r")
	if ok, err := alice.a.Accept("bob@y", alice.a.Conversation("bob@y").Fingerprint); !ok || err != nil { // both keys are known now
		t.Fatal(ok, err)
	}
	alice.verify(t, bob)
	other.a.Start(other, "alice@x")
	drive(alice, other, "r")
	for range 2 {
		other.a.Start(other, "alice@x")
		drive(alice, other, "r")
	}
	other.read = nil
	alice.say("1", "for bob alone")
	for _, v := range alice.take() {
		other.get(v, false)
		bob.get(v, false)
	}
	bob.wantRead("for bob alone")
	if strings.Contains(strings.Join(other.read, " "), "for bob alone") {
		t.Errorf("a key nobody verified read %q in the place of a verified one", other.read)
	}
	// What the verified program says can still be read.
	alice.read = nil
	bob.say("2", "from bob")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	alice.wantRead("from bob")
}

// A version 2 session goes with its contact to another resource.
func TestVersion2OtherResource(t *testing.T) {
	alice, bob := couple(t)
	alice.allowed = []int{2}
	join(t, alice, bob, "old")
	bob.say("1", "from the new place")
	drive(alice, bob, "new")
	alice.wantRead("from the new place")
	alice.say("2", "there")
	w := alice.take()
	if len(w) != 1 || w[0].Action() != Encrypted || w[0].To() != "bob@y/new" {
		t.Fatalf("%+v", w)
	}
	bob.get(w[0], false)
	bob.wantRead("there")
}

// Many resources, none of which completes anything, take bounded room.
func TestManyResources(t *testing.T) {
	alice, bob := couple(t)
	alice.allowed = []int{2}
	join(t, alice, bob, "r")
	for i := range 200 {
		alice.a.Receive(alice, Incoming{From: "bob@y/" + strings.Repeat("x", i), Contact: "bob@y", Text: "?OTR:AAICAAAAxA==.", Welcome: true})
	}
	alice.say("1", "still there")
	drive(alice, bob, "r")
	bob.wantRead("still there")
}

// A rule that forbids version 2 keeps it out, whoever begins.
func TestVersionsByRule(t *testing.T) {
	alice, bob := couple(t)
	alice.allowed, bob.allowed = []int{3}, []int{2}
	bob.a.Start(bob, "alice@x")
	carry(alice, bob)
	if !alice.noticed("speaks OTR version 2 only, and the rules here allow version 3") {
		t.Errorf("notices %q", alice.notices)
	}
	if v := alice.say("1", "held"); v.Action() != Held {
		t.Errorf("%v", v.Action())
	}
	carry(alice, bob)
	for _, p := range []*person{alice, bob} {
		if d := p.a.Conversations(); len(d) > 0 && d[0].State == StateEncrypted {
			t.Errorf("%+v", d)
		}
	}
	bob.allowed = nil
	bob.a.Start(bob, "alice@x")
	carry(alice, bob)
	bob.wantRead("held")
	if d := alice.a.Conversation("bob@y"); d.Version != 3 {
		t.Errorf("%+v", d)
	}
}

// A contact that has spoken version 3 and comes with version 2 is announced, also
// after a restart of ours; one that never had better is not.
func TestDowngradeAnnounced(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "x")
	carry(alice, bob)
	if d := alice.a.Conversation("bob@y"); d.Version != 3 {
		t.Fatalf("%+v", d)
	}
	dir := strings.TrimSuffix(alice.a.dir, "/accounts/alice@x")
	alice.a.Close()
	carry(alice, bob)
	alice.open(dir, "alice@x")
	bob.allowed = []int{2}
	alice.say("2", "y")
	carry(alice, bob)
	if d := alice.a.Conversation("bob@y"); d.Version != 2 || d.State != StateEncrypted {
		t.Fatalf("%+v", d)
	}
	if !alice.noticed("uses OTR version 2, although version 3 was spoken with them before") {
		t.Errorf("notices %q", alice.notices)
	}

	carol, dave := newPerson(t, keyedState(t, "carol@x"), "carol@x"), newPerson(t, keyedState(t, "dave@y"), "dave@y")
	carol.peer, dave.peer = dave, carol
	dave.allowed = []int{2}
	carol.say("1", "x")
	carry(carol, dave)
	dave.wantRead("x")
	if !carol.noticed("started (OTR version 2, the older one") || carol.noticed("Attention") {
		t.Errorf("notices %q", carol.notices)
	}
}

// A private conversation nobody uses ends, and the next message begins a new one.
func TestIdleEnds(t *testing.T) {
	alice, bob := couple(t)
	alice.idle = time.Hour
	alice.say("1", "x")
	carry(alice, bob)
	bob.wantRead("x")
	alice.later(59 * time.Minute)
	alice.a.expire()
	if d := alice.a.Conversation("bob@y"); d.State != StateEncrypted {
		t.Fatalf("too early: %+v", d)
	}
	alice.later(2 * time.Minute)
	alice.a.expire()
	if d := alice.a.Conversation("bob@y"); d.State != StateFinished || !alice.noticed("because nobody used it for long") {
		t.Errorf("%+v %q", d, alice.notices)
	}
	carry(alice, bob)
	if d := bob.a.Conversation("alice@x"); d.State != StateFinished {
		t.Errorf("bob: %+v", d)
	}
	alice.say("2", "again")
	carry(alice, bob)
	bob.wantRead("again")
}

// The timer is set for secrets of exchanges that nobody went on with.
func TestExchangeIsForgotten(t *testing.T) {
	alice, bob := couple(t)
	bob.a.Start(bob, "alice@x")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	if w := alice.take(); len(w) != 1 {
		t.Fatalf("no commit: %+v", w)
	}
	alice.a.mu.Lock()
	wakes, set := alice.a.wakes, alice.a.timer != nil
	alice.a.mu.Unlock()
	if !set || wakes.After(time.Now().Add(time.Minute)) {
		t.Errorf("timer %v at %v", set, wakes)
	}
	alice.later(61 * time.Second)
	alice.a.expire()
	alice.a.mu.Lock()
	defer alice.a.mu.Unlock()
	if c := alice.a.convs["bob@y"]; c != nil {
		t.Errorf("a conversation is kept that has nothing in it: %+v", c)
	}
}

// A contact's program may forget its session when it sees us go (Profanity does,
// without a word): what is written after we have come back waits for a new exchange,
// or for a sign that the old session is still there.
func TestWeWereAway(t *testing.T) {
	for _, forgets := range []bool{true, false} {
		t.Run(map[bool]string{true: "forgotten", false: "still there"}[forgets], func(t *testing.T) {
			alice, bob := couple(t)
			alice.say("0", "x")
			carry(alice, bob)
			bob.wantRead("x")
			alice.a.Detach(alice)
			if forgets {
				bob.a.End(bob, "alice@x")
				bob.take() // nobody is there to be told
			}
			alice.a.Attach(alice)
			if !forgets {
				bob.say("1", "still there?")
				carry(alice, bob)
				if v := alice.say("2", "yes"); v.Action() != Encrypted {
					t.Errorf("%v", v.Action())
				}
				carry(alice, bob)
				bob.wantRead("yes")
				return
			}
			if v := alice.say("2", "back"); v.Action() != Held {
				t.Errorf("%v", v.Action())
			}
			carry(alice, bob)
			bob.wantRead("back")
		})
	}
}

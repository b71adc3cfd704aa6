package otrlayer

import (
	"testing"
	"time"
)

// twice is alice with two clients, in a private conversation with bob.
func twice(t *testing.T) (alice, second, bob *person) {
	alice, bob = couple(t)
	second = &person{t: t, events: alice.events, event: make(chan struct{}, 100), a: alice.a, peer: bob}
	alice.a.Attach(second)
	alice.say("0", "x")
	carry(alice, bob)
	bob.say("b", "y") // message 0 was read
	carry(alice, bob)
	return alice, second, bob
}

// Two clients may use the same id: what bounces goes to the one that wrote it.
func TestSameID(t *testing.T) {
	alice, second, bob := twice(t)
	alice.say("1", "from the first")
	second.say("1", "from the second")
	for _, v := range alice.take() {
		bob.get(v, false) // the first's arrives; the second's comes back to the session that sent it
	}
	if _, elsewhere := alice.a.Returned(second, "bob@y", "1"); elsewhere {
		t.Errorf("the second's bounce is swallowed; the first, whose message arrived, gets back %q", alice.returned)
	}
}

// Complaints count, whichever client has heard them.
func TestComplaintsToTwo(t *testing.T) {
	alice, second, _ := twice(t)
	sorry := Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: You sent encrypted data, who wasn't expecting it", Welcome: true}
	alice.say("1", "one")
	alice.a.Receive(alice, sorry) // asks for a new conversation, and gets no answer
	alice.later(16 * time.Second)
	alice.a.expire()
	second.say("2", "two")
	alice.a.Receive(second, sorry)
	alice.later(61 * time.Second)
	alice.a.expire()
	if n := len(alice.returned) + len(second.returned); n != 2 {
		t.Errorf("of two messages that bob says he could not read, %d came back: %q %q; told %q", n, alice.returned, second.returned, alice.notices[len(alice.notices)-2:])
	}
}

package otrlayer

import (
	"strings"
	"testing"
	"time"
)

// promisesEnd has each line that promised that a message will be sent be followed by one that ends it.
func (p *person) promisesEnd() {
	p.t.Helper()
	open := ""
	for _, n := range p.notices {
		switch {
		case strings.HasPrefix(n, "Your message waits"), strings.Contains(n, "Your message still waits"):
			open = n
		case strings.HasPrefix(n, "Sent:"), strings.HasPrefix(n, "Not sent:"):
			open = ""
		}
	}
	if open != "" {
		p.t.Errorf("promise never ended: %q; all: %q", open, p.notices)
	}
}

// A promise is ended where all that waits is sent again.
func TestPromiseOfWhatIsResentIsEnded(t *testing.T) {
	alice, bob := couple(t)
	alice.hold.For, alice.hold.Offline = time.Hour, time.Hour
	alice.say("1", "hello")
	carry(alice, bob)
	alice.notices = nil
	alice.say("2", "lost")
	alice.take()
	bob.restart()
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", -1) // negative priority
	alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: what?", Welcome: true})
	carry(alice, bob)
	other := newPerson(t, keyedState(t, "carol@z"), "carol@z") // another client of alice's
	alice.a.Attach(other)
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
	carry(alice, bob)
	alice.promisesEnd()
	alice.a.Detach(other)
}

// Of two that wait one is sent and the other comes back: both are told of.
func TestPromiseIsEndedForEach(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "hello")
	carry(alice, bob)
	alice.notices = nil
	// gone: what is said waits
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
	alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
	alice.a.Send(alice, Message{Contact: "bob@y", To: "bob@y/r", ID: "1", Type: "chat", Text: "first"}, Rule{Policy: alice.policy})
	alice.a.Send(alice, Message{Contact: "bob@y", To: "bob@y", ID: "2", Type: "chat", Text: "second"}, Rule{Policy: alice.policy})
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", -1)
	carry(alice, bob)
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	alice.later(2 * time.Hour)
	alice.a.expire()
	if alice.told("Sent:") == 0 {
		t.Errorf("first was sent (%q), and no line says so: %q", bob.read, alice.notices)
	}
}

// That a message still waits is a promise, too.
func TestWhatStillWaitsIsEnded(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	alice.notices = nil
	bob.restart()
	alice.say("2", "lost")
	alice.take()
	alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: what?", Welcome: true})
	alice.take() // the query
	alice.say("3", "waits")
	alice.a.Bounced("bob@y", false)
	alice.later(16 * time.Second)
	alice.a.expire()
	carry(alice, bob)
	alice.promisesEnd()
}

// What was lost with the connection comes back, and is not sent as well.
func TestWhatComesBackIsNotSentAsWell(t *testing.T) {
	alice, bob := couple(t)
	alice.hold.For, alice.hold.Offline = 1e12, 1e12
	alice.say("1", "hello")
	carry(alice, bob)
	alice.say("2", "lost")
	alice.take()
	bob.restart()
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", -1)
	alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: what?", Welcome: true})
	carry(alice, bob)
	alice.a.GiveBack(CauseUncertain, &Message{Contact: "bob@y", ID: "2", outlet: alice}) // its mark was still open
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
	carry(alice, bob)
	if len(alice.returned) > 0 && len(bob.read) > 1 {
		t.Errorf("returned %q, and bob read %q", alice.returned, bob.read)
	}
}

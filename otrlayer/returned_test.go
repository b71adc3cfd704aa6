package otrlayer

import (
	"fmt"
	"math/rand/v2"
	"slices"
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

// What was sent again and could not be read that time either comes back, in the person's own
// words: at the next private conversation, or once its minute is over.
func TestUnreadTwiceComesBack(t *testing.T) {
	for name, next := range map[string]func(alice, bob *person){
		"private anew": func(alice, bob *person) { bob.follows(); carry(alice, bob) },
		"minute over":  func(alice, bob *person) { alice.later(61 * time.Second); alice.a.expire() },
	} {
		t.Run(name, func(t *testing.T) {
			alice, bob := couple(t)
			alice.say("0", "zero")
			carry(alice, bob)
			bob.restart()
			alice.say("1", "one")
			sent := 0
			for range 20 {
				for _, v := range alice.take() {
					if v.Action() == Encrypted && v.Message().ID == "1" {
						if sent++; sent == 2 {
							bob.restart() // before it is read
						}
					}
					bob.get(v, false)
				}
				if sent == 2 {
					break
				}
				bob.follows()
				for _, v := range bob.take() {
					alice.get(v, false)
				}
			}
			if sent != 2 || len(alice.returned) > 0 {
				t.Fatalf("nothing was sent again: %q, %q", alice.notices, alice.returned)
			}
			for _, v := range bob.take() { // that it could not be read
				alice.get(v, false)
			}
			next(alice, bob)
			if got := strings.Join(alice.returned, ","); got != "1 unread" {
				t.Errorf("returned %q; bob read %q; alice was told %q", got, bob.read, alice.notices)
			}
		})
	}
}

// An exchange after a crash may take longer than what is said waits for it: that leaves on the
// old keys, and the complaint of it comes once the exchange is complete. Each message ends once.
func TestSlowExchangeLosesNothing(t *testing.T) {
	onOldKeys := 0
	for range 20 { // whose of two D-H Commits wins is chance
		alice, bob := couple(t)
		alice.hold.For, alice.hold.Offline = time.Hour, time.Hour
		alice.say("0", "zero")
		carry(alice, bob)
		bob.restart()
		alice.say("1", "one")
		give := func(from, to *person) {
			for _, v := range from.take() {
				to.get(v, false)
			}
		}
		give(alice, bob)
		bob.follows()
		for range 3 {
			give(bob, alice)
			if alice.waiting("?OTR:AAMK") || alice.waiting("?OTR:AAMR") { // which takes its time
				break
			}
			give(alice, bob)
		}
		alice.later(staleFor + time.Second)
		alice.a.expire()
		if v := alice.say("2", "two"); v.Action() == Encrypted {
			onOldKeys++
		}
		for range 20 {
			carry(alice, bob)
			bob.follows()
			alice.later(10 * time.Second)
			alice.a.expire()
		}
		alice.endsOnce(bob, "one", "two")
	}
	if onOldKeys == 0 {
		t.Error("nothing left on the old keys")
	}
}

// waiting reports whether a message of the protocol is on its way.
func (p *person) waiting(kind string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.wire, func(v Verdict) bool { return strings.HasPrefix(v.Body(), kind) })
}

// endsOnce looks that each message, whose ids count from 1, was read or came back.
func (p *person) endsOnce(contact *person, texts ...string) {
	p.t.Helper()
	for i, text := range texts {
		var ends []string
		for _, r := range contact.read {
			if strings.TrimPrefix(r, "[resent] ") == text {
				ends = append(ends, "read: "+r)
			}
		}
		for _, r := range p.returned {
			if strings.HasPrefix(r, fmt.Sprint(i+1, " ")) {
				ends = append(ends, "returned: "+r)
			}
		}
		if len(ends) != 1 {
			p.t.Errorf("%s ended as %q; %s read %q, returned %q", text, ends, contact.a.jid, contact.read, p.returned)
		}
	}
}

// Whatever the order in which two people write, their messages are carried, time passes and the
// contact's program crashes: each message ends once.
func TestEachEndsOnce(t *testing.T) {
	sent, restarts := 0, 0
	for seed := range 150 {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		alice, bob := couple(t)
		alice.hold.For, alice.hold.Offline = time.Hour, time.Hour
		alice.say("0", "zero")
		carry(alice, bob)
		var texts []string
		for range 120 {
			switch k := rng.IntN(30); {
			case k < 9:
				texts = append(texts, fmt.Sprintf("%d.", len(texts)+1))
				alice.say(fmt.Sprint(len(texts)), texts[len(texts)-1])
			case k < 18:
				for _, v := range alice.take() {
					bob.get(v, false)
				}
			case k < 24:
				for _, v := range bob.take() {
					alice.get(v, false)
				}
			case k < 29:
				bob.follows()
				alice.later(time.Duration(rng.IntN(4000)) * time.Millisecond)
				alice.a.expire()
			default:
				bob.restart()
				restarts++
			}
		}
		for range 10 {
			carry(alice, bob)
			bob.follows()
			carry(alice, bob)
			alice.later(20 * time.Second)
			alice.a.expire()
		}
		alice.endsOnce(bob, texts...)
		if sent += len(texts); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if sent == 0 || restarts == 0 {
		t.Error("nothing happened")
	}
}

package otr

import (
	"slices"
	"testing"
	"time"
)

// warm counts the directions of a session that are set up, and derived the pairs of keys
// whose secret was computed.
func (s *side) warm() (warm, derived int) {
	for _, row := range s.c.sessions[0].keys {
		for _, k := range row {
			if k == nil {
				continue
			}
			derived++
			for _, d := range []*direction{&k.send, &k.receive} {
				if d.ciphers != nil {
					warm++
				}
			}
		}
	}
	return warm, derived
}

// A silent session keeps its keys and nothing that is made of them, and nobody notices:
// it reads and writes on, refuses what it has read, and reveals the MAC keys.
func TestSilentSessionGoesOn(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		alice, bob := private(t, v)
		talk := func() (lastFromAlice string) {
			for range 2 {
				alice.say("question")
				lastFromAlice = alice.out[len(alice.out)-1]
				pump(alice, bob)
				bob.read("question")
				bob.say("answer")
				pump(alice, bob)
				alice.read("answer")
			}
			return lastFromAlice
		}
		old := talk()
		*alice.clock = alice.clock.Add(restAfter - time.Second)
		for _, s := range []*side{alice, bob} {
			s.c.Expire(*s.clock)
			if warm, _ := s.warm(); warm == 0 {
				t.Errorf("%s has given its ciphers up in the middle of a conversation", s.name)
			}
		}
		*alice.clock = alice.clock.Add(time.Second)
		for _, s := range []*side{alice, bob} {
			s.c.Expire(*s.clock)
			if warm, derived := s.warm(); warm != 0 || derived == 0 {
				t.Errorf("%s keeps %d ciphers and %d pairs of keys", s.name, warm, derived)
			}
		}
		if _, err := bob.c.Receive(*bob.clock, Parse([]byte(old))); err != ErrReplayed && err != ErrUnreadable {
			t.Errorf("a message read before the silence: %v", err)
		}
		used := bob.c.sessions[0].keys[1][1].receive.mac
		bob.say("still there?") // with the keys it has answered with before
		m := bob.out[0]
		pump(alice, bob) // alice answers with a heartbeat, which moves the keys on
		alice.read("still there?")
		if _, err := alice.c.Receive(*alice.clock, Parse([]byte(m))); err != ErrReplayed {
			t.Errorf("a message read after the silence: %v", err)
		}
		bob.say("good")
		if !slices.Contains(revealed(t, bob.out[0]), used) {
			t.Error("the MAC key of what was read before the silence is not revealed")
		}
		pump(alice, bob)
		alice.read("good")
		talk()
		if len(alice.errors)+len(bob.errors) > 0 {
			t.Errorf("errors: %v %v", alice.errors, bob.errors)
		}
	})
}

// Of the four pairs of keys, only those that a message uses cost a shared secret.
func TestSecretsAreMadeAtFirstUse(t *testing.T) {
	alice, bob := private(t, V3)
	for range 3 {
		alice.say("one")
		pump(alice, bob)
	}
	for _, s := range []*side{alice, bob} {
		if _, derived := s.warm(); derived != 1 {
			t.Errorf("after messages one way %s has computed %d secrets; all were made with the exchange's", s.name, derived)
		}
	}
	if bob.c.sessions[0].our[0] != nil {
		t.Error("bob has made a key that only what he sends would need")
	}
}

//go:build linux

package real

import (
	"testing"
)

// stage starts a server, otrproxy, alice behind it and bob, her friend, with a program
// of his own.
func stage(t *testing.T, startServer func(*testing.T, string) *xmppServer, startContact func(*testing.T, *xmppServer, string, string) contact) (*xmppServer, *household, *slixmpp, contact) {
	t.Helper()
	s := startServer(t, "starttls")
	h := startOTRProxy(t, s, "")
	s.register(t, "alice", "bob")
	jid := "alice@" + s.domain
	alice := startSlixmpp(t, jid, h.addr, "starttls")
	alice.online()
	befriended(t, s, "bob", jid)
	bob := startContact(t, s, "bob", jid)
	alice.befriend(bob)
	return s, h, alice, bob
}

// Each program of a contact talks with an unmodified client through otrproxy, both
// ways, and the two compare secrets.
func TestEveryContact(t *testing.T) {
	for server, startServer := range serverKinds {
		for contact, startContact := range everyContact {
			t.Run(server+"/"+contact, func(t *testing.T) {
				s, h, alice, bob := stage(t, startServer, startContact)
				alice.say(bob.jid(), "m1", typed)
				bob.reads(typed)
				bob.say(typed)
				alice.reads(bob.jid(), typed)
				if server == "prosody" {
					exchangeTexts(t, contact, alice, bob)
				}
				want := 3
				if contact == "profanity" {
					want = 2
				}
				if v := h.status(t).Sessions[0].Conversations[0].OTRVersion; v != want {
					t.Errorf("version %d", v)
				}

				say := func(words string) { alice.say(bob.jid(), "c", "!otr "+words) }
				say("smp start s3cret word")
				bob.asked("")
				bob.answer("s3cret word")
				bob.told(true)
				alice.noticed(bob.jid(), "The secrets are the same")
				if trust := h.status(t).Sessions[0].Conversations[0].Trust; trust != "smp" {
					t.Errorf("trust %s", trust)
				}
				bob.ask("", "s3cret")
				alice.noticed(bob.jid(), "wants to compare a secret")
				say("smp answer another")
				bob.told(false)
				alice.noticed(bob.jid(), "NOT the same")
				say("smp ask what colour? | blue sky")
				bob.asked("what colour?")
				bob.answer("blue sky")
				bob.told(true)
				alice.noticed(bob.jid(), "The secrets are the same")
				bob.ask("", "again")
				alice.noticed(bob.jid(), "wants to compare a secret")
				say("smp answer again")
				bob.told(true)
				alice.noticed(bob.jid(), "The secrets are the same")
				eventually(t, contact+" to trust alice", bob.trusts)
				unseen(t, s)
			})
		}
	}
}

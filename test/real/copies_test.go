//go:build linux

package real

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A client with archive and carbons, after a day of OTR: nothing of OTR is shown
// anywhere, and what came while it was away is text.
func TestArchiveAndCarbons(t *testing.T) {
	for server, startServer := range serverKinds {
		for contact, startContact := range contacts {
			t.Run(server+"/"+contact, func(t *testing.T) {
				s, h, alice, bob := stage(t, startServer, startContact)
				jid := "alice@" + s.domain
				second := startSlixmpp(t, jid, h.addr, "direct", "second", "carbons")
				second.online()
				alice.say(bob.jid(), "m1", typed)
				bob.reads(typed)
				for _, n := range []string{"-one", "-two", "-three"} {
					bob.say(typed + n)
					alice.reads(bob.jid(), typed+n)
					alice.say(bob.jid(), "m"+n, typed+" answer"+n)
					bob.reads(typed + " answer" + n)
				}
				second.quit()
				alice.quit()
				away := "while you were away " + typed
				bob.say(away)
				eventually(t, "the server to have got it", func() bool { return strings.Count(s.received(), "?OTR:AAMD") >= 8 })
				later := startSlixmpp(t, jid, h.addr, "starttls", "third", "carbons")
				later.online()
				later.reads(bob.jid(), away)
				shown := later.archive()
				if contact == "mcabber" && !strings.Contains(shown, "archived ") { // bitlbee asks not to store
					t.Errorf("the archive holds nothing: %s", shown)
				}
				later.say(bob.jid(), "back", typed+" back again")
				bob.reads(typed + " back again")
				if n := strings.Count(later.archive(), "[otrproxy] An encrypted message"); n > 2 {
					t.Errorf("%d lines stand for what cannot be read", n)
				}
				for _, c := range []*slixmpp{alice, second, later} {
					if strings.Contains(c.output(), "?OTR") {
						t.Errorf("OTR is shown: %s", c.output())
					}
				}
				unseen(t, s)
			})
		}
	}
}

// A contact with two programs, one with OTR and one without: the talk is private with
// the one, and what the other says is marked.
func TestTwoPrograms(t *testing.T) {
	for server, startServer := range serverKinds {
		t.Run(server, func(t *testing.T) {
			s, _, alice, bob := stage(t, startServer, startMcabber)
			other := startSlixmpp(t, bob.jid(), s.ip+":5222", "starttls", "web")
			other.online()
			alice.says(t, `(?m)^present `+bob.jid()+`/web`)
			alice.say(bob.jid(), "m1", typed)
			bob.reads(typed)
			other.say("alice@"+s.domain, "w1", "from the web")
			alice.reads(bob.jid(), "[otrproxy] Not encrypted: from the web")
			alice.say(bob.jid(), "m2", typed+" still")
			bob.reads(typed + " still")
			bob.say(typed + " indeed")
			alice.reads(bob.jid(), typed+" indeed")
			other.say("alice@"+s.domain, "w2", "and more from the web")
			alice.reads(bob.jid(), "[otrproxy] Not encrypted: and more from the web")
			alice.say(bob.jid()+"/web", "m3", typed+" to the web?")
			bob.reads(typed + " to the web?")
			if strings.Contains(other.output(), "quoted") {
				t.Errorf("the program without OTR was shown %s", other.output())
			}
			unseen(t, s)
		})
	}
}

// A contact whose program comes back as another instance.
func TestNewInstance(t *testing.T) {
	for server, startServer := range serverKinds {
		t.Run(server, func(t *testing.T) {
			s, h, alice, bob := stage(t, startServer, startMcabber)
			alice.say(bob.jid(), "m1", typed)
			bob.reads(typed)
			before := h.status(t).Sessions[0].Conversations[0].Instance
			m := bob.(*mcabber)
			m.kill(syscall.SIGKILL)
			if err := os.Remove(filepath.Join(m.dir, "otr", bob.jid()+".tag")); err != nil {
				t.Fatal(err)
			}
			m.run()
			alice.say(bob.jid(), "m2", typed+" who is it now?")
			bob.reads(typed + " who is it now?")
			bob.say(typed + " me")
			alice.reads(bob.jid(), typed+" me")
			if after := h.status(t).Sessions[0].Conversations[0].Instance; after == before {
				t.Errorf("instance %v again", after)
			}
			unseen(t, s)
		})
	}
}

// Two contacts, both asked at once.
func TestTwoContactsAtOnce(t *testing.T) {
	for server, startServer := range serverKinds {
		t.Run(server, func(t *testing.T) {
			s, _, alice, bob := stage(t, startServer, startMcabber)
			s.register(t, "carol")
			befriended(t, s, "carol", "alice@"+s.domain)
			carol := startBitlbee(t, s, "carol", "alice@"+s.domain)
			alice.befriend(carol)
			alice.say(bob.jid(), "b1", typed+" bob")
			alice.say(carol.jid(), "c1", typed+" carol")
			bob.say(typed + " from bob")
			carol.say(typed + " from carol")
			bob.reads(typed + " bob")
			carol.reads(typed + " carol")
			alice.says(t, `(?m)^text `+bob.jid()+`.* from bob"`)
			alice.says(t, `(?m)^text `+carol.jid()+`.* from carol"`)
			bob.say(typed + " still bob")
			carol.say(typed + " still carol")
			alice.reads(bob.jid(), typed+" still bob")
			alice.reads(carol.jid(), typed+" still carol")
		})
	}
}

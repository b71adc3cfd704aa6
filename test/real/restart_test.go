//go:build linux

package real

import (
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A planned restart of otrproxy in the middle of a talk, with each program of a contact: what the
// contact writes meanwhile is not in clear, they are private again by themselves once the client
// is back, and nothing is lost without a word.
func TestPlannedRestart(t *testing.T) {
	startServer := serverKinds["prosody"]
	all := maps.Clone(everyContact)
	all["mcabber, always"] = func(t *testing.T, s *xmppServer, user, peer string) contact {
		m := startMcabber(t, s, user, peer)
		m.(*mcabber).command("/otrpolicy default always")
		return m
	}
	for contact, startContact := range all {
		t.Run(contact, func(t *testing.T) {
			s, h, alice, bob := stage(t, startServer, startContact)
			alice.say(bob.jid(), "m1", typed+" before")
			bob.reads(typed + " before")
			bob.say(typed + " and back")
			alice.reads(bob.jid(), typed+" and back")

			h.kill(syscall.SIGTERM)
			alice.says(t, `(?m)^(closed|failed)`)
			meanwhile := typed + " meanwhile"
			if contact == "profanity" { // it forgets a conversation by itself when the contact goes offline, and goes on in clear
				meanwhile = "meanwhile"
			}
			bob.say(meanwhile)
			h.start(t)
			back := time.Now()
			alice = startSlixmpp(t, "alice@"+s.domain, h.addr, "starttls")
			alice.online()
			eventually(t, "private again by itself", func() bool {
				st := h.status(t)
				return len(st.Sessions) == 1 && len(st.Sessions[0].Conversations) == 1 && st.Sessions[0].Conversations[0].State == "encrypted"
			})
			took := time.Since(back)
			alice.say(bob.jid(), "m2", typed+" after")
			bob.reads(typed + " after")
			bob.say(typed + " indeed")
			alice.reads(bob.jid(), typed+" indeed")
			fate := ""
			eventually(t, "a word about what was written meanwhile", func() bool {
				for line, what := range map[string]string{" meanwhile\"": "read", "Not encrypted: meanwhile": "read, in clear by bob's program", "could not be read": "counted, and bob was told"} {
					if strings.Contains(alice.output(), line) {
						fate = what
					}
				}
				return fate != ""
			})
			t.Logf("restart: %s private again after %.1f s; what was written meanwhile was %s", contact, took.Seconds(), fate)
			unseen(t, s)
		})
	}
}

//go:build linux

package real

import (
	"strings"
	"syscall"
	"testing"
)

const typed = `a < b && c > d <3 "quoted" 'single' &amp; <b>bold</b> ü 👍`

// unseen fails when the server has recorded a word of what was typed, and when it
// has recorded nothing at all.
func unseen(t *testing.T, s *xmppServer) {
	t.Helper()
	eventually(t, "the server to have recorded OTR", func() bool { return strings.Count(s.received(), "?OTR:") >= 4 })
	seen := s.legible()
	for _, word := range []string{"quoted", "single", "bold", "ü", "👍", "\\303\\274"} {
		if strings.Contains(seen, word) {
			t.Errorf("the server saw %q", word)
		}
	}
}

// An unmodified client behind the proxy and a libotr contact at the server, for
// every server, contact and way to connect; alice types first, under require.
func TestConversation(t *testing.T) {
	for server, startServer := range serverKinds {
		for contact, startContact := range contacts {
			for _, entry := range []string{"starttls", "direct", "plain"} {
				t.Run(server+"/"+contact+"/"+entry, func(t *testing.T) {
					mode := map[string]string{"starttls": "starttls", "direct": "direct", "plain": "starttls"}[entry]
					s := startServer(t, mode)
					h := startOTRProxy(t, s, "")
					registerAt(t, h.addr, "alice@"+s.domain) // through the proxy
					s.register(t, "bob")
					alice := startSlixmpp(t, "alice@"+s.domain, h.addr, entry)
					alice.online()
					bob := startContact(t, s, "bob", "alice@"+s.domain)
					alice.befriend(bob)
					alice.say(bob.jid(), "m1", typed)
					bob.reads(typed)
					bob.say(typed)
					alice.reads(bob.jid(), typed)
					alice.say(bob.jid(), "m2", typed+" again")
					bob.reads(typed + " again")
					st := h.status(t)
					if len(st.Sessions) != 1 || len(st.Sessions[0].Conversations) != 1 || st.Sessions[0].Conversations[0].State != "encrypted" || st.Sessions[0].Pin != s.pin {
						t.Errorf("status %+v", st)
					}
					t.Logf("%s: login %s over %s", s.name, st.Sessions[0].SASL, st.Sessions[0].UpstreamTLS)
					unseen(t, s)
				})
			}
		}
	}
}

// Every program restarts once, politely or not, and the talk goes on.
func TestRestarts(t *testing.T) {
	for server, startServer := range serverKinds {
		for contact, startContact := range everyContact {
			t.Run(server+"/"+contact, func(t *testing.T) {
				s, h, alice, bob := stage(t, startServer, startContact)
				jid := "alice@" + s.domain
				talk := func(when string) {
					t.Helper()
					alice.say(bob.jid(), "id-"+strings.ReplaceAll(when, " ", "-"), typed+" out "+when)
					bob.reads(typed + " out " + when)
					bob.say(typed + " in " + when)
					alice.reads(bob.jid(), typed+" in "+when)
				}
				talk("first")
				alice.quit()
				alice = startSlixmpp(t, jid, h.addr, "direct")
				alice.online()
				talk("after the client's restart")
				bob.restart()
				talk("after the contact's restart")
				h.kill(syscall.SIGTERM)
				alice.says(t, `(?m)^(closed|failed)`)
				h.start(t)
				alice = startSlixmpp(t, jid, h.addr, "plain")
				alice.online()
				talk("after the proxy's restart")
				h.kill(syscall.SIGKILL)
				h.start(t)
				alice = startSlixmpp(t, jid, h.addr, "starttls")
				alice.online()
				talk("after the proxy was killed")
				unseen(t, s)
			})
		}
	}
}

// A second client of the account, which sends one line and goes, takes part in
// the account's conversation.
func TestGoSendxmpp(t *testing.T) {
	for server, startServer := range serverKinds {
		t.Run(server, func(t *testing.T) {
			s := startServer(t, "direct")
			h := startOTRProxy(t, s, "")
			s.register(t, "alice", "bob")
			jid := "alice@" + s.domain
			alice := startSlixmpp(t, jid, h.addr, "starttls")
			alice.online()
			bob := startMcabber(t, s, "bob", jid)
			alice.befriend(bob)
			alice.say(bob.jid(), "m1", typed)
			bob.reads(typed)
			goSendxmpp(t, jid, h.addr, bob.jid(), typed)
			bob.reads(typed)
			unseen(t, s)
		})
	}
}

// A contact without OTR: nothing readable reaches the server, and the message
// comes back under its own id when its time is over.
func TestContactWithoutOTR(t *testing.T) {
	for server, startServer := range serverKinds {
		t.Run(server, func(t *testing.T) {
			s := startServer(t, "starttls")
			h := startOTRProxy(t, s, "hold: {for: 2s}\n")
			s.register(t, "alice", "bob")
			alice := startSlixmpp(t, "alice@"+s.domain, h.addr, "starttls")
			alice.online()
			bob := startSlixmpp(t, "bob@"+s.domain, s.ip+":5222", "starttls")
			bob.online()
			alice.say("bob@"+s.domain, "my-own-id", typed)
			alice.says(t, `(?m)^error my-own-id .*did not answer with OTR`)
			seen := s.legible()
			if !strings.Contains(seen, "?OTRv23?") {
				t.Error("nobody asked the contact")
			}
			for _, word := range []string{"quoted", "bold", "👍"} {
				if strings.Contains(seen, word) {
					t.Errorf("the server saw %q", word)
				}
			}
		})
	}
}

// A pin that does not fit: the client is told, the server is told nothing.
func TestWrongPin(t *testing.T) {
	for server, startServer := range serverKinds {
		t.Run(server, func(t *testing.T) {
			s := startServer(t, "starttls")
			s.pin = "sha256:" + strings.Repeat("00", 32)
			h := startOTRProxy(t, s, "")
			alice := startSlixmpp(t, "alice@"+s.domain, h.addr, "starttls")
			alice.says(t, `(?m)^failed policy-violation .*not the one you pinned`)
			h.says(t, "cause=pin_mismatch")
			if got := s.received(); strings.Contains(got, "<auth") || strings.Contains(got, "alice") {
				t.Errorf("the server was told %s", got)
			}
		})
	}
}

// Over TLS 1.2 both servers bind the login to the channel.
func TestChannelBinding(t *testing.T) {
	for server, startServer := range map[string]func(*testing.T, string) *xmppServer{
		"prosody": func(t *testing.T, mode string) *xmppServer {
			return startProsodyWith(t, mode, `protocol = "tlsv1_2", `)
		},
		"ejabberd": func(t *testing.T, mode string) *xmppServer {
			return startEjabberdWith(t, mode, `, protocol_options: [ "no_tlsv1_3" ]`)
		},
	} {
		t.Run(server, func(t *testing.T) {
			s := startServer(t, "starttls")
			h := startOTRProxy(t, s, "")
			s.register(t, "alice")
			alice := startSlixmpp(t, "alice@"+s.domain, h.addr, "direct")
			alice.online()
			x := h.status(t).Sessions[0]
			if x.SASL != "SCRAM-SHA-1-PLUS tls-unique" || x.UpstreamTLS != "TLS 1.2" || x.ClientTLS != "TLS 1.3" {
				t.Errorf("%+v", x)
			}
		})
	}
}

package real

import (
	"strings"
	"testing"
)

const typed = `hello <b> & "quotes" <3 ü 👍`

// unseen fails when the server has recorded a word of what was typed, and when it
// has recorded nothing at all.
func unseen(t *testing.T, s *xmppServer) {
	t.Helper()
	seen := s.received()
	if !strings.Contains(seen, "?OTR:") {
		t.Errorf("the server's record holds no OTR: %d bytes", len(seen))
	}
	for _, word := range []string{"hello", "quotes", "ü", "👍", "\\303\\274"} {
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
					t.Cleanup(func() {
						if t.Failed() {
							t.Log(s.received())
						}
					})
					bob := startContact(t, s, "bob", "alice@"+s.domain)
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

package relay

import (
	"strings"
	"testing"
	"time"

	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// What the server repeats to a session that goes on is shown where it did not reach the client.
// An error gives a message back once, and a complaint is counted once: both had their effect
// when they first came. Errors that are new have theirs.
func TestWhatIsRepeatedHasItsEffectOnce(t *testing.T) {
	const (
		from   = "<message xmlns='jabber:client' from='bob@path.example/x' "
		back   = from + "id='m1' type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
		back2  = from + "id='m2' type='error'/>"
		back3  = from + "id='m3' type='error'/>"
		unread = from + "type='chat'><body>?OTR Error: what?</body></message>"
		said   = from + "id='m3' type='chat'><body>said</body></message>" // bob counts his messages as alice does
	)
	gets := func(s *Session, raw string) {
		st, err := stanza.Parse([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		s.incoming(st)
	}
	s := lone(t, requires)
	s.client, s.server = leg.NewOutbox(broken{}, nil), leg.NewOutbox(nowhere{}, nil)
	s.client.Passed, s.client.Arrives = &s.handled, s.server.Handed
	s.counts.Store(true)
	s.server.Count(askCounting, 0)
	s.over, s.ended = make(chan struct{}), make(chan struct{})
	wanted := "desk"
	s.wanted.Store(&wanted)
	s.id, s.within = "ID", time.Minute
	s.server.Message(leg.Mark{}, func(b []byte) []byte { return append(b, "<message/>"...) })
	for _, raw := range []string{back, unread} {
		gets(s, raw)
	}
	s.sealed.Store(true) // the server is told no more
	for _, raw := range []string{back2, unread, said, back3} {
		gets(s, raw)
	}
	s.client.Flush() // in vain
	s.settle()
	old := s.r.takeSuspended(s.jid, wanted)
	if old == nil || len(old.acted) != 5 {
		t.Fatalf("it goes on with %+v", old)
	}
	s.part()

	var program heard
	on := &Session{r: s.r, identity: identity{jid: s.jid}}
	on.of.Store(s.Account())
	on.speaks()
	on.client, on.server = leg.NewOutbox(&program, nil), leg.NewOutbox(nowhere{}, nil)
	on.resume(&resumption{old: old, bind: "bind", done: make(chan struct{})}, 1)
	for _, raw := range []string{back, unread, back2, unread, said, back3} {
		gets(on, raw)
	}
	if len(on.acted) != 5 || len(on.before) > 0 {
		t.Errorf("of what is repeated %+v is still expected, after %+v", on.before, on.acted)
	}
	gets(on, back) // of another message with the same id
	on.client.Flush()
	on.client.Wait()
	got := program.got.String()
	if said, errors := strings.Index(got, "said</body>"), strings.Count(got, "type='error'"); said < 0 || errors != 1 || strings.Index(got, "id='m1'") < said {
		t.Errorf("the client gets %s", got)
	}
}

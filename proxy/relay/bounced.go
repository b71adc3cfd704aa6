package relay

import (
	"strings"

	"otrproxy/otrlayer"
	"otrproxy/proxy/address"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/metrics"
	"otrproxy/stanza"
)

// bounce handles a message that came back. Those of the protocol are swallowed;
// a person's goes back under its own id, without the ciphertext.
func (s *Session) bounce(st *stanza.Stanza, from address.JID) {
	root := st.Root()
	s.hasActed(root)
	if strings.HasPrefix(root.Attr("id"), leg.OwnID) {
		gone := false
		if el, ok := root.Child(stanza.NSClient, "error"); ok {
			for c := range el.Children() {
				switch string(c.Local()) {
				case "item-not-found", "remote-server-not-found", "gone", "jid-malformed":
					gone = true
				}
			}
		}
		s.Account().Bounced(from.Bare, gone)
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Swallowed)
		return
	}
	known, elsewhere := s.Account().Returned(s, from.Bare, root.Attr("id"))
	if elsewhere {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Swallowed)
		return
	}
	shown := s.failure(st, from, known)
	m := &otrlayer.Message{Contact: from.Bare, To: from.Full, ID: root.Attr("id")}
	if known != nil {
		m = known
		if s.sign(m) == otrlayer.Unseen {
			defer s.Notice(from.Bare, otrlayer.NotSent(otrlayer.Why{Cause: otrlayer.CauseBounced}, m))
		}
	}
	write := func(b []byte) []byte { return append(b, shown...) }
	if m.ID != "" && !s.client.Message(leg.Mark{Slip: m.Slip(), Cause: otrlayer.CauseBounced}, write) {
		s.Account().GiveBack(otrlayer.CauseBounced, m) // the client has gone
		return
	} else if m.ID == "" {
		s.client.Build(write)
	}
	s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Passed)
}

// failure is how an error is shown: where encryption is expected without anything beside
// the error, which is ciphertext of ours, or what somebody else says was. Of a message that is
// known the person's own words stand there.
func (s *Session) failure(st *stanza.Stanza, from address.JID, known *otrlayer.Message) []byte {
	root := st.Root()
	switch voice := s.voiceUnder(s.ruleFor(from)); {
	case known != nil:
		return voice.AppendError(nil, root, appendSent(nil, known))
	case s.expects(from):
		return voice.AppendError(nil, root, nil)
	}
	o := s.asItCame(nil, "")
	o.Other = func(text string) (string, bool) {
		r := otrlayer.Scrub(text)
		return r.Text, r.Deliver && !r.Unreadable
	}
	return o.AppendTo(nil, root)
}

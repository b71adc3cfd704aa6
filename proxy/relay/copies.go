package relay

import (
	"otrproxy/otrlayer"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/metrics"
	"otrproxy/stanza"
)

// A copy of a message comes as a carbon of what another client of the account sent or
// got (XEP-0280), or out of an archive (XEP-0313). It never is live traffic: nothing in
// it is answered.

// inCopy is the way of a copy in.
func (s *Session) inCopy(st *stanza.Stanza, from address.JID, c *filter.Copy) {
	root, inner := st.Root(), c.Inner
	carbon := c.Carbon()
	sender, to := s.r.addresses.Of(inner, "from"), s.r.addresses.Of(inner, "to")
	sent := sender.Bare == s.jid && to.Bare != s.jid || c.Sent()
	switch {
	case s.unspeakable(inner, sender), address.Ours(to), carbon && from.OK && from.Full != s.jid, // CVE-2017-5589 and its kin
		!carbon && !s.requests.asksFor(s, from, c.Wrapper.Attr("queryid")), // nobody has asked for it
		sent && sender.Bare != s.jid:                                       // in somebody else's name
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Blocked)
		return
	}
	contact := sender
	if sent {
		contact = to
	}
	if s.leftAlone(contact) {
		o := &filter.Open{Voice: filter.Voice{Fits: func([]byte) bool { return true }, Quote: same, Mark: same}, Other: func(text string) (string, bool) { return text, true }, Bare: func([]byte) bool { return true }}
		s.anew(func(b []byte) []byte { return o.AppendCopy(b, st, c) })
		s.delivered(otrlayer.Reading{})
		return
	}
	body := picked(inner)
	typ := inner.Attr("type")
	voice := s.voiceUnder(s.ruleFor(contact))
	if typ == "error" && contact.OK && s.expects(contact) {
		s.anew(func(b []byte) []byte { return voice.AppendFailedCopy(b, root, c) })
		s.delivered(otrlayer.Reading{})
		return
	}
	// The person's own words, and those of a room, are shown as they came; with nothing
	// beside one's own that programs might take for somebody else's.
	asItCame := sent || typ == "error" || s.isRoom(contact.Bare) || typ == "groupchat" && !carbon && from.Bare == contact.Bare && s.ofRooms(contact.Bare)
	r := otrlayer.Reading{Deliver: true}
	switch {
	case body == nil && !asItCame:
		r = s.outside(inner, contact, !carbon)
	case body == nil:
	case asItCame:
		r = otrlayer.Scrub(body.Text())
	case !contact.OK:
		r = s.outsideOTR(contact, body.Text())
	default:
		r = s.Account().Receive(s, otrlayer.Incoming{From: contact.Full, Contact: contact.Bare, To: inner.Attr("to"), ID: inner.Attr("id"), Type: typ, Text: body.Text(), Delayed: !carbon, Copy: true,
			Welcome: s.isWelcome(contact.Bare), Marked: marked(inner)})
	}
	r = s.alsoMarked(contact, r)
	if r.Unreadable && (s.quietened(contact.Bare) || c.Sent() && s.ownCopy(sender)) {
		r.Deliver = false
	} else if r.Deliver && !r.Unreadable && body != nil {
		delete(s.quiet, contact.Bare)
	}
	switch {
	case !r.Deliver && carbon:
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Swallowed)
		return
	case !r.Deliver: // clients count what an archive gives: an empty message stays
		s.anew(func(b []byte) []byte { return voice.AppendEmptyCopy(b, root, c) })
	case asItCame && !(sent && s.expects(contact)) || !s.guarded(contact, r):
		o := s.asItCame(body, r.Text)
		s.anew(func(b []byte) []byte { return o.AppendCopy(b, st, c) })
	default:
		show := s.showing(contact, body, r)
		s.anew(func(b []byte) []byte { return show.AppendCopy(b, root, c) })
	}
	s.delivered(r)
}

func same(text string) string { return text }

package relay

import (
	"fmt"
	"sync"
	"time"

	"otrproxy/config"
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

// leftAlone reports whether the rules leave what comes from an address alone, however
// programs read it.
func (s *Session) leftAlone(from address.JID) bool {
	return s.handsOff(from.Bare) && (from.Also == "" || s.handsOff(from.Also))
}

// handsOff reports whether the rules leave a contact alone; without one, the account.
func (s *Session) handsOff(contact string) bool {
	cfg := s.r.config()
	if contact == "" || contact == s.jid {
		return cfg.HandsOff(s.jid)
	}
	return s.ruledIn.by(cfg, s.jid, contact).Policy == config.Never
}

// pass hands a message to the client as it came.
func (s *Session) pass(st *stanza.Stanza) {
	s.client.Queue(st.Raw)
	s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Passed)
}

// delivered counts a message that was handed to the client, for what was read.
func (s *Session) delivered(r otrlayer.Reading) {
	if r.Encrypted {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Decrypted)
	} else {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Passed)
	}
}

// unread counts the messages of contacts that came late and cannot be read. They may be
// many: the first is told where it stands, the others together once no more come.
type unread struct {
	mu sync.Mutex
	of map[string]*unreadOf
}

type unreadOf struct {
	more  int
	timer *time.Timer
}

// quietFor is how long no more must come.
const quietFor = 2 * time.Second

// another reports whether a message is one of several, which are told together.
func (u *unread) another(s *Session, contact string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.of[contact]; c != nil {
		c.more++
		c.timer.Reset(quietFor)
		return true
	}
	if u.of == nil {
		u.of = map[string]*unreadOf{}
	}
	if len(u.of) >= maxTold {
		return false
	}
	c := &unreadOf{}
	c.timer = time.AfterFunc(quietFor, func() {
		u.mu.Lock()
		delete(u.of, contact)
		more := c.more
		u.mu.Unlock()
		if more > 0 {
			s.Notice(contact, fmt.Sprintf("And %d more of their messages cannot be read any more. Ask them to send them again.", more))
		}
	})
	u.of[contact] = c
	return false
}

// quietened reports whether a contact's copies have just been said to be unreadable: one
// line is enough for all that follow each other.
func (s *Session) quietened(contact string) bool {
	if s.quiet[contact] {
		return true
	}
	if len(s.quiet) >= maxTold {
		clear(s.quiet)
	}
	if s.quiet == nil {
		s.quiet = map[string]bool{}
	}
	s.quiet[contact] = true
	return false
}

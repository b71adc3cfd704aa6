package proxy

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// A copy of a message comes as a carbon of what another client of the account sent or
// got (XEP-0280), or out of an archive (XEP-0313). It never is live traffic: nothing in
// it is answered.

// wrapped reports whether a message is a wrapper of another one: a carbon or something
// from an archive. Servers also put <archived/> of its namespace beside live text.
func wrapped(root stanza.Element) bool {
	for el := range root.Children() {
		if wraps(el) {
			return true
		}
	}
	return false
}

// wraps reports whether an element is such a wrapper.
func wraps(el stanza.Element) bool {
	ns, local := string(el.NS()), string(el.Local())
	return ns == nsCarbons && local != "private" || strings.HasPrefix(ns, "urn:xmpp:mam:") && local == "result"
}

// copied finds the one wrapper in a message, and the one message in it (XEP-0297).
func copied(root stanza.Element) (wrapper, inner stanza.Element, ok bool) {
	wrappers, messages := 0, 0
	for el := range root.Children() {
		if !wraps(el) {
			continue
		}
		wrapper = el
		wrappers++
		for f := range wrapper.Children() {
			if !f.Is(nsForward, "forwarded") {
				continue
			}
			for m := range f.Children() {
				if m.Is(stanza.NSClient, "message") {
					inner = m
					messages++
				}
			}
		}
	}
	return wrapper, inner, wrappers == 1 && messages == 1
}

// inCopy is the way of a copy in.
func (s *session) inCopy(st *stanza.Stanza, from address) {
	root := st.Root()
	wrapper, inner, ok := copied(root)
	if !ok {
		s.p.metrics.count(in, message, blocked)
		return
	}
	carbon := string(wrapper.NS()) == nsCarbons
	sender, to := s.p.addresses.of(inner, "from"), s.p.addresses.of(inner, "to")
	sent := sender.bare == s.jid && to.bare != s.jid || carbon && string(wrapper.Local()) == "sent"
	switch {
	case ours(sender), ours(to), carbon && from.ok && from.full != s.jid, // CVE-2017-5589 and its kin
		!carbon && !s.requests.asksFor(s, from, wrapper.Attr("queryid")), // nobody has asked for it
		!sender.ok && len(inner.RawAttr("from")) > 0,                     // of nobody, or of whom another reading makes of it
		sent && sender.ok && sender.bare != s.jid:
		s.p.metrics.count(in, message, blocked)
		return
	}
	contact := sender
	if sent {
		contact = to
	}
	if s.handsOff(contact.bare) {
		s.pass(st)
		return
	}
	e := st.Edit()
	body, others := bodies(inner)
	typ := inner.Attr("type")
	scrub := sent || typ == "groupchat" && !carbon && from.bare == contact.bare || typ == "error" || !contact.ok || s.isRoom(contact.bare)
	var r otrlayer.Reading
	switch {
	case body == nil && scrub:
		s.defuse(e, root, nil)
		s.deliver(e, r)
		return
	case body == nil:
		if !s.bare(e, inner, contact, !carbon) {
			e = st.Edit()
			break // dropped
		}
		s.deliver(e, r)
		return
	case scrub:
		r = otrlayer.Scrub(body.Text())
	default:
		r = s.account.Receive(s, otrlayer.Incoming{From: contact.full, Contact: contact.bare, To: inner.Attr("to"), ID: inner.Attr("id"), Type: typ, Text: body.Text(), Delayed: !carbon, Copy: true,
			Welcome: s.isWelcome(contact.bare), Marked: marked(inner)})
	}
	if r.Unreadable && (s.quietened(contact.bare) || carbon && sent && s.ownCopy(sender)) {
		r.Deliver = false
	} else if r.Deliver && !r.Unreadable {
		delete(s.quiet, contact.bare)
	}
	switch {
	case !r.Deliver && carbon:
		s.p.metrics.count(in, message, swallowed)
		return
	case !r.Deliver: // clients count what an archive gives: an empty message stays
		for el := range inner.Children() {
			if ns := string(el.NS()); !besides[ns] || ns == nsReceipts {
				e.Remove(el)
			}
		}
	default:
		s.rewrite(e, inner, *body, others, r)
	}
	s.deliver(e, r)
}

// handsOff reports whether the rules leave a contact alone; without one, the account.
func (s *session) handsOff(contact string) bool {
	cfg := s.p.Config()
	if contact == "" || contact == s.jid {
		return cfg.HandsOff(s.jid)
	}
	return cfg.RuleFor(s.jid, contact).Policy == config.Never
}

// pass hands a message to the client as it came.
func (s *session) pass(st *stanza.Stanza) {
	s.client.queue(st.Raw)
	s.p.metrics.count(in, message, passed)
}

// deliver hands a message to the client as it was rewritten, if it was, for what was read.
func (s *session) deliver(e *stanza.Edit, r otrlayer.Reading) {
	s.client.build(e.AppendTo)
	if r.Encrypted {
		s.p.metrics.count(in, message, decrypted)
	} else {
		s.p.metrics.count(in, message, passed)
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
func (u *unread) another(s *session, contact string) bool {
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
func (s *session) quietened(contact string) bool {
	if s.quiet[contact] {
		return true
	}
	if len(s.quiet) >= maxTold {
		clear(s.quiet)
	}
	s.quiet[contact] = true
	return false
}

// scrubbed passes a message that the engine must not see: OTR in it becomes a
// placeholder, whitespace tags go.
func (s *session) scrubbed(st *stanza.Stanza) {
	e := st.Edit()
	s.defuse(e, st.Root(), nil)
	s.deliver(e, otrlayer.Reading{})
}

// defuse takes OTR and imitations of our voice out of everything that programs show, but
// for a body that is seen to.
func (s *session) defuse(e *stanza.Edit, root stanza.Element, seen *stanza.Element) {
	for el := range root.Descendants() {
		if seen != nil && el == *seen {
			continue
		}
		switch ns := string(el.NS()); {
		case el.Is(stanza.NSClient, "body"):
			switch r := otrlayer.Scrub(el.Text()); {
			case !r.Deliver:
				e.Remove(el)
			case r.Changed:
				e.SetText(el, r.Text)
			}
		case el.Is(stanza.NSClient, "subject"), ns == nsNick, ns == stanza.NSStanzas && string(el.Local()) == "text":
			if text := el.Text(); otrlayer.Defused(text) != text {
				e.SetText(el, otrlayer.Defused(text))
			}
		case ns == nsXHTML && otrlayer.Mentions(el.AllText()):
			e.Remove(el) // it is shown in place of the body
		}
	}
}

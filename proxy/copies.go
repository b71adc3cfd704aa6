package proxy

import (
	"strings"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// A copy of a message comes as a carbon of what another client of the account sent or
// got (XEP-0280), or out of an archive (XEP-0313). It never is live traffic: nothing in
// it is answered.

// wrapped tells what a message is a wrapper of: a carbon or something from an
// archive, by its namespace; "" for live text.
func wrapped(root stanza.Element) string {
	for el := range root.Children() {
		switch ns, local := string(el.NS()), string(el.Local()); {
		case ns == nsCarbons && local != "private":
			return nsCarbons
		case strings.HasPrefix(ns, "urn:xmpp:mam:") && (local == "result" || local == "fin"):
			return ns // servers also put <archived/> of that namespace beside live text
		}
	}
	return ""
}

// inCopy is the way of a copy in.
func (s *session) inCopy(st *stanza.Stanza, from address, kind string) {
	root := st.Root()
	if kind == nsCarbons && from.ok && from.full != s.jid || fromService(root) {
		return // a forged carbon (CVE-2017-5589 and its kin)
	}
	var wrapper stanza.Element
	for el := range root.Children() {
		if string(el.NS()) == kind {
			wrapper = el
		}
	}
	if kind != nsCarbons && string(wrapper.Local()) == "result" && !s.requests.asksFor(s, from, wrapper.Attr("queryid")) {
		s.p.metrics.count(in, message, swallowed)
		return // nobody has asked for it
	}
	inner, ok := copied(wrapper)
	if !ok {
		s.scrubbed(st)
		return
	}
	sender, to := s.from.parse(inner, "from"), s.from.parse(inner, "to")
	sent := sender.bare == s.jid && to.bare != s.jid || kind == nsCarbons && string(wrapper.Local()) == "sent"
	contact := sender
	if sent {
		contact = to
	}
	if s.p.Config().RuleFor(s.jid, contact.bare).Policy == config.Never {
		s.client.queue(st.Raw)
		s.p.metrics.count(in, message, passed)
		return
	}
	body, others := bodies(inner)
	if body == nil || !contact.ok {
		s.scrubbed(st)
		return
	}
	var r otrlayer.Reading
	if typ := inner.Attr("type"); sent || typ == "groupchat" || typ == "error" || s.isRoom(contact.bare) {
		r = otrlayer.Scrub(body.Text())
	} else {
		r = s.account.Receive(s, otrlayer.Incoming{From: contact.full, Contact: contact.bare, Text: body.Text(), Delayed: kind != nsCarbons, Copy: true, Marked: marked(inner)})
	}
	e := st.Edit()
	if r.Unreadable && s.quietened(contact.bare) {
		r.Deliver = false
	} else if r.Deliver && !r.Unreadable {
		delete(s.quiet, contact.bare)
	}
	switch {
	case !r.Deliver && kind == nsCarbons:
		s.p.metrics.count(in, message, swallowed)
		return
	case !r.Deliver: // clients count what an archive gives: an empty message stays
		e.Remove(*body)
		for _, o := range others {
			e.Remove(o)
		}
		for el := range inner.Children() {
			if ns := string(el.NS()); ns == nsXHTML || ns == nsEME || ns == nsReceipts {
				e.Remove(el)
			}
		}
	default:
		s.rewrite(e, inner, r)
	}
	if e.Changed() {
		s.client.build(e.AppendTo)
	} else {
		s.client.queue(st.Raw)
	}
	if r.Encrypted {
		s.p.metrics.count(in, message, decrypted)
	} else {
		s.p.metrics.count(in, message, passed)
	}
}

// copied finds the one message in a wrapper (XEP-0297).
func copied(wrapper stanza.Element) (inner stanza.Element, ok bool) {
	n := 0
	for f := range wrapper.Children() {
		if !f.Is("urn:xmpp:forward:0", "forwarded") {
			continue
		}
		for m := range f.Children() {
			if m.Is(stanza.NSClient, "message") {
				inner = m
				n++
			}
		}
	}
	return inner, n == 1
}

// fromService reports whether anything inside a wrapper claims to come from us.
func fromService(root stanza.Element) bool {
	for d := range root.Descendants() {
		if bare, _, _ := strings.Cut(d.Attr("from"), "/"); strings.EqualFold(strings.TrimSuffix(bare, "."), serviceJID) {
			return true
		}
	}
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
	for el := range st.Root().Descendants() {
		if !el.Is(stanza.NSClient, "body") {
			continue
		}
		switch r := otrlayer.Scrub(el.Text()); {
		case !r.Deliver:
			e.Remove(el)
		case r.Changed:
			e.SetText(el, r.Text)
		}
	}
	if e.Changed() {
		s.client.build(e.AppendTo)
	} else {
		s.client.queue(st.Raw)
	}
	s.p.metrics.count(in, message, passed)
}

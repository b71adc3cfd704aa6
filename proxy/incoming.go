package proxy

import (
	"strings"

	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// incoming decides about one stanza of the server.
func (s *session) incoming(st *stanza.Stanza) {
	if st.Kind == stanza.KindSpace {
		s.client.queue(st.Raw)
		return
	}
	root := st.Root()
	if string(root.NS()) != stanza.NSClient {
		s.inNonza(st)
		return
	}
	from := s.from.parse(root, "from")
	if from.bare == serviceJID || !from.ok && len(root.RawAttr("from")) > 0 {
		return // nobody else speaks for the proxy, or from an address that is none
	}
	switch string(root.Local()) {
	case "message":
		s.inMessage(st, from)
	case "presence":
		s.inPresence(root, from)
		s.client.queue(st.Raw)
		s.p.metrics.count(in, presence, passed)
	case "iq":
		s.inIQ(st, from)
	default:
		s.client.queue(st.Raw)
	}
}

// inNonza passes stream errors, as far as they are the client's business.
func (s *session) inNonza(st *stanza.Stanza) {
	if !st.Is(stanza.NSStream, "error") {
		return // nothing else was offered
	}
	cond, text := streamError(st)
	s.p.log.Warn("a server ended a session", "account", s.p.name(s.jid), "condition", cond)
	for c := range st.Root().Children() {
		if string(c.Local()) == "see-other-host" { // following it, the client would leave us out
			cond, text = "remote-connection-failed", " (the server asked to connect elsewhere)"
		}
	}
	s.client.build(func(b []byte) []byte {
		return stanza.AppendStreamError(b, cond, "The server ended the session: "+cond+text+".")
	})
	go s.end()
}

func (s *session) inPresence(root stanza.Element, from address) {
	if !from.ok || from.bare == s.jid {
		return
	}
	switch root.Attr("type") {
	case "":
		s.account.Presence(s, from.full, from.bare, true)
	case "unavailable":
		s.account.Presence(s, from.full, from.bare, false)
	}
}

func (s *session) inIQ(st *stanza.Stanza, from address) {
	root := st.Root()
	typ := root.Attr("type")
	fromServer := !from.ok || from.bare == s.jid || from.bare == bareDomain(s.jid)
	for el := range root.Children() {
		switch string(el.NS()) {
		case nsRoster:
			if from.full != s.jid && len(root.RawAttr("from")) > 0 {
				if typ == "set" { // CVE-2015-8688 and its kin: somebody else's roster push
					return
				}
				continue
			}
			s.roster(el)
		case stanza.NSBind:
			if j, ok := el.Child(stanza.NSBind, "jid"); ok && typ == "result" && fromServer && s.resource.Load() == nil {
				full := j.Text()
				s.resource.Store(&full)
				defer s.account.Attach(s) // behind the answer: what is owed to the client comes now
			}
		}
	}
	s.client.queue(st.Raw)
	s.p.metrics.count(in, iq, passed)
}

// roster learns who may see our presence.
func (s *session) roster(query stanza.Element) {
	for item := range query.Children() {
		a := s.from.parse(item, "jid")
		if !a.ok {
			continue
		}
		sub := string(item.RawAttr("subscription"))
		s.setWelcome(a.bare, sub == "from" || sub == "both")
	}
}

// inMessage is the way of a message in.
func (s *session) inMessage(st *stanza.Stanza, from address) {
	root := st.Root()
	typ := root.Attr("type")
	if kind := wrapped(root); kind != "" {
		own := !from.ok || from.full == s.jid
		if !own && (kind == nsCarbons || !s.isRoom(from.full)) || fromService(root) {
			return // a forged carbon (CVE-2017-5589 and its kin), or an archive's result nobody asked for
		}
		s.scrubbed(st)
		return
	}
	if !from.ok || from.bare == s.jid && !from.resource || s.isRoom(from.bare) {
		s.scrubbed(st)
		return
	}
	if typ == "error" {
		s.bounce(st, from)
		return
	}
	body, others := bodies(root)
	if body == nil {
		s.scrubbed(st)
		return
	}
	r := s.account.Receive(s, otrlayer.Incoming{From: from.full, Contact: from.bare, Text: body.Text(), Delayed: delayed(root), Welcome: s.isWelcome(from.bare)})
	switch {
	case !r.Deliver:
		s.p.metrics.count(in, message, swallowed)
	case !r.Changed:
		s.client.queue(st.Raw)
		s.p.metrics.count(in, message, passed)
	default:
		e := st.Edit()
		e.SetText(*body, r.Text)
		for _, o := range others {
			e.Remove(o)
		}
		for el := range root.Children() {
			switch ns := string(el.NS()); {
			case ns == "http://jabber.org/protocol/xhtml-im", ns == nsEME && r.Encrypted:
				e.Remove(el)
			case ns == nsReceipts && !r.Encrypted && r.Unreadable && string(el.Local()) == "request":
				e.Remove(el) // no receipt for what nobody could read
			}
		}
		s.client.build(e.AppendTo)
		if r.Encrypted {
			s.p.metrics.count(in, message, decrypted)
		} else {
			s.p.metrics.count(in, message, passed)
		}
	}
}

// bodies are the body to read, the one without a language first, and the others.
func bodies(root stanza.Element) (body *stanza.Element, others []stanza.Element) {
	for el := range root.Children() {
		if !el.Is(stanza.NSClient, "body") {
			continue
		}
		switch {
		case body == nil:
			body = &el
		case body.RawAttr("xml:lang") != nil && el.RawAttr("xml:lang") == nil:
			others = append(others, *body)
			body = &el
		default:
			others = append(others, el)
		}
	}
	return body, others
}

// delayed reports whether a message was stored on its way (XEP-0203, XEP-0091).
func delayed(root stanza.Element) bool {
	if _, ok := root.Child("urn:xmpp:delay", "delay"); ok {
		return true
	}
	_, ok := root.Child("jabber:x:delay", "x")
	return ok
}

// wrapped tells what a message is a wrapper of: a carbon or something from an
// archive, by its namespace; "" for live text.
func wrapped(root stanza.Element) string {
	for el := range root.Children() {
		switch ns, local := string(el.NS()), string(el.Local()); {
		case ns == nsCarbons && local != "private":
			return nsCarbons
		case strings.HasPrefix(ns, "urn:xmpp:mam:") && local == "result":
			return ns // servers also put <archived/> of that namespace beside live text
		}
	}
	return ""
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

// scrubbed passes a message that the engine must not see: OTR in it becomes a
// placeholder, whitespace tags go.
func (s *session) scrubbed(st *stanza.Stanza) {
	e := st.Edit()
	for el := range st.Root().Descendants() {
		if !el.Is(stanza.NSClient, "body") {
			continue
		}
		if text, changed := otrlayer.Scrub(el.Text()); changed {
			e.SetText(el, text)
		}
	}
	if e.Changed() {
		s.client.build(e.AppendTo)
	} else {
		s.client.queue(st.Raw)
	}
	s.p.metrics.count(in, message, passed)
}

// bounce handles a message that came back. Those of the protocol are swallowed;
// a person's goes back under its own id, without the ciphertext.
func (s *session) bounce(st *stanza.Stanza, from address) {
	root := st.Root()
	if strings.HasPrefix(root.Attr("id"), ownID) {
		gone := false
		if el, ok := root.Child(stanza.NSClient, "error"); ok {
			for c := range el.Children() {
				switch string(c.Local()) {
				case "item-not-found", "remote-server-not-found", "gone", "jid-malformed":
					gone = true
				}
			}
		}
		s.account.Bounced(from.bare, gone)
		s.p.metrics.count(in, message, swallowed)
		return
	}
	if s.account.Returned(s, from.bare, root.Attr("id")) {
		s.p.metrics.count(in, message, swallowed)
		return
	}
	e := st.Edit()
	for el := range root.Children() {
		if el.Is(stanza.NSClient, "body") {
			e.Remove(el) // ciphertext of ours, or what somebody else says was
		} else if string(el.NS()) == nsEME {
			e.Remove(el)
		}
	}
	s.client.build(e.AppendTo)
	s.p.metrics.count(in, message, passed)
}

// Notice queues a line of ours in the conversation with a contact.
func (s *session) Notice(contact, text string) {
	if contact == s.jid {
		contact = serviceJID
	}
	s.client.build(func(b []byte) []byte {
		return stanza.Message{From: contact, To: s.full(), ID: ownID + streamID(), Type: "chat", Body: "[otrproxy] " + text,
			Extra: []byte("<no-store xmlns='" + nsHints + "'/><no-copy xmlns='" + nsHints + "'/>")}.AppendTo(b)
	})
	s.client.kick()
}

// Return hands a message back to the client as an error with its own id.
func (s *session) Return(m *otrlayer.Message, c otrlayer.Cause, sentence string) bool {
	ok := s.client.build(func(b []byte) []byte {
		return stanza.AppendError(b, "message", m.To, s.full(), m.ID, blockError(c, sentence))
	})
	if ok {
		s.p.metrics.blocked(c)
		s.p.metrics.count(out, message, blocked)
	}
	s.client.kick()
	return ok
}

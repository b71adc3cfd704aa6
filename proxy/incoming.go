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
	if from.bare == serviceJID {
		return // nobody else speaks for the proxy
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
	if cond == "see-other-host" { // not to be followed by the client, which would leave us out
		s.client.build(func(b []byte) []byte {
			return stanza.AppendStreamError(b, "remote-connection-failed", "The server asked to connect elsewhere.")
		})
		s.end()
		return
	}
	s.p.log.Warn("a server ended a session", "account", s.p.name(s.jid), "condition", cond)
	_ = text
	s.client.queue(st.Raw)
}

func (s *session) inPresence(root stanza.Element, from address) {
	if !from.ok || from.bare == s.jid {
		return
	}
	switch string(root.RawAttr("type")) {
	case "":
		s.account.Presence(s, from.full, from.bare, true)
	case "unavailable":
		s.account.Presence(s, from.full, from.bare, false)
	}
}

func (s *session) inIQ(st *stanza.Stanza, from address) {
	root := st.Root()
	typ := string(root.RawAttr("type"))
	fromServer := !from.ok && len(root.RawAttr("from")) == 0 || from.full == s.jid || from.bare == bareDomain(s.jid)
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
			s.mu.Lock()
			mine := s.bindID != "" && root.Attr("id") == s.bindID
			s.mu.Unlock()
			if j, ok := el.Child(stanza.NSBind, "jid"); ok && mine && typ == "result" && fromServer && s.resource.Load() == nil {
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
	typ := string(root.RawAttr("type"))
	if copied, ok := wrapped(root); ok {
		if copied && from.full != s.jid {
			return // a forged carbon (CVE-2017-5589 and its kin)
		}
		s.scrubbed(st)
		return
	}
	if !from.ok || from.bare == s.jid && !from.resource || typ == "groupchat" || s.isRoom(from.bare) {
		s.scrubbed(st)
		return
	}
	if typ == "error" {
		s.bounce(st, from)
		return
	}
	body, others := bodies(root)
	if body == nil {
		s.client.queue(st.Raw)
		s.p.metrics.count(in, message, passed)
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

// wrapped reports whether a message is a wrapper around another one: a carbon
// (copied) or something from an archive.
func wrapped(root stanza.Element) (copied, ok bool) {
	for el := range root.Children() {
		switch ns, local := string(el.NS()), string(el.Local()); {
		case ns == nsCarbons && local != "private":
			return true, true
		case strings.HasPrefix(ns, "urn:xmpp:mam:") && local == "result", ns == "urn:xmpp:forward:0":
			ok = true // servers also put <archived/> of that namespace beside live text
		}
	}
	return false, ok
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
	e := st.Edit()
	for el := range root.Children() {
		if el.Is(stanza.NSClient, "body") {
			if _, changed := otrlayer.Scrub(el.Text()); changed {
				e.Remove(el)
			}
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
func (s *session) Return(m *otrlayer.Message, c otrlayer.Cause, sentence string) {
	s.p.metrics.blocked(c)
	s.p.metrics.count(out, message, blocked)
	s.client.build(func(b []byte) []byte {
		return stanza.AppendError(b, "message", m.To, s.full(), m.ID, blockError(c, sentence))
	})
	s.client.kick()
}

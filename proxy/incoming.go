package proxy

import (
	"bytes"
	"strings"

	"mellium.im/xmpp/jid"

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
	switch string(root.NS()) {
	case stanza.NSClient:
		s.handle()
	case nsSM:
		s.inAck(root)
		return
	default:
		s.inNonza(st)
		return
	}
	from := s.p.addresses.of(root, "from")
	if ours(from) || !from.ok && len(root.RawAttr("from")) > 0 {
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
	if _, sent := st.Root().Child(stanza.NSStreams, "see-other-host"); sent { // following it, the client would leave us out
		s.p.move(s.up.domain, s.jid, sentTo(st))
		cond, text = "remote-connection-failed", " (the server asked to connect elsewhere)"
	}
	s.endBeside(func() {
		s.client.build(func(b []byte) []byte {
			return stanza.AppendStreamError(b, cond, "The server ended the session: "+cond+text+".")
		})
	})
}

func (s *session) inPresence(root stanza.Element, from address) {
	if !from.ok || from.bare == s.jid {
		return
	}
	switch root.Attr("type") {
	case "":
		program := ""
		if c, ok := root.Child(nsCaps, "c"); ok {
			program = c.Attr("node")
		}
		s.account.Presence(s, from.full, from.bare, true, program)
		s.joined(root, from)
	case "unavailable":
		s.account.Presence(s, from.full, from.bare, false, "")
	}
}

// joined tells of a room once it has let us in (XEP-0045 section 7.2.2).
func (s *session) joined(root stanza.Element, from address) {
	x, ok := root.Child(nsMUC+"#user", "x")
	if !ok || !s.isRoom(from.bare) {
		return
	}
	for c := range x.Children() {
		if string(c.Local()) == "status" && string(c.RawAttr("code")) == "110" {
			s.tellOfRoom(from.bare)
		}
	}
}

func (s *session) inIQ(st *stanza.Stanza, from address) {
	root := st.Root()
	typ := root.Attr("type")
	if (typ == "result" || typ == "error") && !s.requests.answered(s, root, from) {
		s.p.metrics.count(in, iq, blocked)
		return // nobody has asked: CVE-2014-2744's kin would have an id guessed
	}
	if (typ == "result" || typ == "error") && s.home(from) == "" {
		s.carbonsSettled(root)
		s.changed(root)
	}
	var e *stanza.Edit // of what is said about the service contact
	rosters, impostors, services := 0, 0, false
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
			rosters++
			impostors += s.withoutUs(&e, st, el)
		case nsDiscoItems:
			impostors += s.withoutUs(&e, st, el)
			if typ == "result" && (from.full == bareDomain(s.jid) || !from.ok) && el.Attr("node") == "" && !s.p.Config().HandsOff(s.jid) && !services {
				services = true
				s.found(&e, st, el)
			}
		case stanza.NSBind:
			if j, ok := el.Child(stanza.NSBind, "jid"); ok && typ == "result" && fromServer && s.resource.Load() == nil {
				full, err := jid.Parse(j.Text())
				if err != nil || full.Bare().String() != s.jid || full.Resourcepart() == "" {
					s.p.log.Warn("a server bound another address than the one that was logged in", "account", s.p.name(s.jid))
					s.endBeside(func() {
						s.client.build(func(b []byte) []byte {
							return stanza.AppendStreamError(b, "undefined-condition", "The server bound another address than the one that was logged in.")
						})
					})
					return
				}
				bound := full.String()
				s.resource.Store(&bound)
				s.counting()
				defer s.account.Attach(s) // behind the answer: what is owed to the client comes now
			}
		}
	}
	switch {
	case e == nil:
		s.client.queue(st.Raw)
	case typ == "set" && rosters > 0 && impostors > 0: // a push has one item (RFC 6121 section 2.1.6)
		s.p.metrics.count(in, iq, blocked)
		return
	default:
		s.client.build(e.AppendTo)
	}
	s.p.metrics.count(in, iq, passed)
	if rosters > 0 && typ == "result" && fromServer && s.remembered(listed) {
		s.rosterPush(true)
	}
}

// roster learns who may see our presence.
func (s *session) roster(query stanza.Element) {
	for item := range query.Children() {
		a := s.p.addresses.of(item, "jid")
		if !a.ok {
			continue
		}
		sub := string(item.RawAttr("subscription"))
		s.setWelcome(a.bare, sub == "from" || sub == "both")
	}
}

// ours reports whether an address is the proxy's own, or below it.
func ours(a address) bool {
	return a.bare == serviceJID || strings.HasSuffix(a.bare, "@"+serviceJID)
}

// inMessage is the way of a message in.
func (s *session) inMessage(st *stanza.Stanza, from address) {
	root := st.Root()
	if wrapped(root) {
		s.inCopy(st, from)
		return
	}
	failed := root.Attr("type") == "error"
	switch {
	case failed && strings.HasPrefix(root.Attr("id"), ownID):
		s.bounce(st, from)
		return
	case s.handsOff(from.bare):
		s.pass(st)
		return
	case !from.ok, from.bare == s.jid && !from.resource, s.isRoom(from.bare):
		s.scrubbed(st)
		return
	case failed:
		s.bounce(st, from)
		return
	}
	body, others := bodies(root)
	e := st.Edit()
	if body == nil {
		if s.bare(e, root, from, false) {
			s.deliver(e, otrlayer.Reading{})
		} else {
			s.p.metrics.count(in, message, swallowed)
		}
		return
	}
	late := delayed(root)
	r := s.account.Receive(s, otrlayer.Incoming{From: from.full, Contact: from.bare, To: root.Attr("to"), ID: root.Attr("id"), Type: root.Attr("type"), Text: body.Text(), Delayed: late,
		Welcome: s.isWelcome(from.bare), Shared: !bytes.Contains(root.RawAttr("to"), []byte{'/'}), Marked: marked(root)})
	if r.Unreadable && late && s.unread.another(s, from.bare) {
		r.Deliver = false
	}
	if !r.Deliver {
		s.p.metrics.count(in, message, swallowed)
		return
	}
	s.rewrite(e, root, *body, others, r)
	s.deliver(e, r)
}

// besides is what may stand beside a text that was decrypted, or came in clear where it
// should not have: the rest was not in the encryption, and whoever put it there would
// speak with the contact's voice, or have the client change what it shows.
var besides = map[string]bool{
	nsChatStates:             true,
	nsReceipts:               true,
	nsMarkers:                true,
	nsStanzaID:               true,
	nsHints:                  true,
	nsCarbons:                true, // <private/>
	"urn:xmpp:delay":         true,
	"jabber:x:delay":         true,
	"jabber:x:event":         true,
	"urn:xmpp:mam:tmp":       true, // <archived/> of ejabberd
	"urn:xmpp:occupant-id:0": true,
}

// rewrite puts what was read in the place of a message's text.
func (s *session) rewrite(e *stanza.Edit, root, body stanza.Element, others []stanza.Element, r otrlayer.Reading) {
	if !r.Encrypted && !r.Clear {
		s.defuse(e, root, &body)
	}
	if !r.Changed {
		return
	}
	e.SetText(body, r.Text)
	for _, o := range others {
		e.Remove(o)
	}
	for el := range root.Children() {
		ns := string(el.NS())
		switch {
		case el.Is(stanza.NSClient, "body"), el.Is(stanza.NSClient, "thread"):
		case r.Clear && (ns == nsEME || sealedBy(ns, string(el.Local())) != ""): // the client reads it itself
		case r.Clear && invites[ns]:
			uninvited(e, el)
		case ns == nsXHTML, (r.Encrypted || r.Clear || r.Unreadable) && !besides[ns]:
			e.Remove(el)
		case (ns == nsReceipts && string(el.Local()) == "request" || ns == nsMarkers && string(el.Local()) == "markable") &&
			(r.Unreadable || (r.Encrypted || r.Clear) && !r.Answerable):
			e.Remove(el) // no receipt for what nobody could read, and none to strangers
		}
	}
}

// spoken is what says something to people without a body, or changes what was said.
var spoken = map[string]bool{
	nsXHTML:                      true,
	"jabber:x:oob":               true,
	"jabber:x:data":              true,
	nsForward:                    true,
	"urn:xmpp:message-correct:0": true,
	"urn:xmpp:message-retract:0": true,
	"urn:xmpp:message-retract:1": true,
	"urn:xmpp:fasten:0":          true,
	"urn:xmpp:reactions:0":       true,
	"urn:xmpp:sfs:0":             true,
	"urn:xmpp:sims:1":            true,
	"urn:xmpp:bob":               true,
	"urn:xmpp:stickers:0":        true,
	nsNick:                       true,
}

// invites are the namespaces of invitations to rooms (XEP-0045, XEP-0249).
var invites = map[string]bool{"jabber:x:conference": true, nsMUC + "#user": true}

// uninvited takes what a person wrote out of an invitation, which stays usable.
func uninvited(e *stanza.Edit, el stanza.Element) (says string) {
	if reason := el.Attr("reason"); reason != "" {
		e.RemoveAttr(el, "reason")
		says = reason
	}
	if text := strings.TrimSpace(el.Text()); text != "" {
		e.RemoveText(el)
		says = text
	}
	for d := range el.Descendants() {
		if string(d.Local()) == "reason" && d.Inner().Len() > 0 {
			e.Remove(d)
			says = d.AllText()
		}
	}
	return says
}

// bare is a message without a body. What it says otherwise is clear text: where
// encryption is expected, it is told in a line that says so. It reports false when the
// rules do not let it be shown.
func (s *session) bare(e *stanza.Edit, root stanza.Element, from address, archived bool) bool {
	if !s.account.Expects(from.bare) || !strings.Contains(from.bare, "@") { // services send forms
		s.defuse(e, root, nil)
		return true
	}
	var says []string
	for el := range root.Children() {
		ns := string(el.NS())
		switch {
		case invites[ns]:
			if reason := uninvited(e, el); reason != "" {
				says = append(says, reason)
			}
			continue
		case !spoken[ns] && !(el.Is(stanza.NSClient, "subject") && el.Inner().Len() > 0):
			continue
		}
		e.Remove(el)
		if text := strings.TrimSpace(el.AllText()); text != "" {
			says = append(says, text)
		} else if ns != nsNick {
			what := content[ns]
			if what == "" {
				what = "nothing"
			}
			says = append(says, "("+what+")")
		}
	}
	if says == nil {
		return true
	}
	r := s.account.Receive(s, otrlayer.Incoming{From: from.full, Contact: from.bare, Text: strings.Join(says, " "),
		Welcome: s.isWelcome(from.bare), Copy: true, Delayed: archived})
	if r.Deliver {
		e.Append(root, append(stanza.AppendEscaped([]byte("<body>"), r.Text), "</body>"...))
	}
	return r.Deliver
}

// marked reports whether a message names OTR as its encryption (XEP-0380).
func marked(root stanza.Element) bool {
	el, ok := root.Child(nsEME, "encryption")
	return ok && string(el.RawAttr("namespace")) == nsOTR
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
	ours := s.account.Expects(from.bare)
	for el := range root.Children() {
		switch {
		case ours && !el.Is(stanza.NSClient, "error"), string(el.NS()) == nsEME:
			e.Remove(el) // ciphertext of ours, or what somebody else says was
		case el.Is(stanza.NSClient, "body") && otrlayer.Scrub(el.Text()).Unreadable:
			e.Remove(el)
		}
	}
	s.defuse(e, root, nil)
	m := &otrlayer.Message{Contact: from.bare, To: from.full, ID: root.Attr("id")}
	if m.ID != "" && !s.client.message(mark{m: m, cause: otrlayer.CauseBounced}, e.AppendTo) {
		s.account.GiveBack(m, otrlayer.CauseBounced) // the client has gone
		return
	} else if m.ID == "" {
		s.client.build(e.AppendTo)
	}
	s.p.metrics.count(in, message, passed)
}

// Notice queues a line of ours in the conversation with a contact.
func (s *session) Notice(contact, text string) {
	if contact == s.jid {
		contact = serviceJID
	}
	s.notice(contact, "chat", text)
}

func (s *session) notice(from, typ, text string) {
	s.client.build(func(b []byte) []byte {
		return stanza.Message{From: from, To: s.full(), ID: ownID + streamID(), Type: typ, Body: "[otrproxy] " + otrlayer.Defused(text),
			Extra: []byte("<no-store xmlns='" + nsHints + "'/><no-copy xmlns='" + nsHints + "'/>")}.AppendTo(b)
	})
	s.client.kick()
}

// Return hands a message back to the client as an error with its own id.
func (s *session) Return(m *otrlayer.Message, c otrlayer.Cause, sentence string) bool {
	ok := s.client.message(mark{m: m.Lean(), cause: c}, func(b []byte) []byte {
		return stanza.AppendError(b, "message", m.To, s.full(), m.ID, blockError(c, sentence))
	})
	if ok {
		s.p.metrics.blocked(c)
		s.p.metrics.count(out, message, blocked)
	}
	s.client.kick()
	return ok
}

package relay

import (
	"bytes"
	"cmp"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/metrics"
	"otrproxy/stanza"
)

// Namespaces.
const (
	nsHints   = filter.NSHints
	nsEME     = filter.NSEME
	nsCarbons = filter.NSCarbons
	nsForward = filter.NSForward
	nsOTR     = filter.NSOTR
	nsRoster  = filter.NSRoster
	nsCaps    = filter.NSCaps

	nsDiscoInfo  = filter.NSDiscoInfo
	nsDiscoItems = filter.NSDiscoItems
	nsData       = filter.NSData
)

// The way of a stanza out:
//
//	outgoing     takes it from the client's reader
//	outMessage   a message: whose it is, and what holds for it, by one look at the rules
//	outRoom      what has to do with a room
//	outText      what is for one contact; outWithoutText, where OTR has nothing to carry
//	send         hands a text to the account, which decides (otrlayer.decide), and encrypts
//	Emit         writes <message> to the server, by the account's verdict; nothing else does
//
// Presence and requests go by guard.go. What does not leave comes back by returned.go.

// outgoing decides about one stanza of the client. The stanza errors it answers
// with carry the client's own id.
func (s *Session) outgoing(st *stanza.Stanza) error {
	if st.Kind == stanza.KindSpace {
		s.server.Queue(st.Raw)
		return nil
	}
	root := st.Root()
	ns, local := string(root.NS()), string(root.Local())
	if ns != stanza.NSClient {
		return s.nonza(st, ns, local)
	}
	to := s.r.addresses.Again(&s.metOut, root, "to")
	if len(root.RawAttr("to")) > 0 && !to.OK && !s.r.config().HandsOff(s.jid) {
		s.refuse(root, stanza.Error{Type: "modify", Condition: "jid-malformed", Text: "This address is not a JID."})
		return nil
	}
	if local != "iq" || address.Ours(to) {
		if err := s.comes(); err != nil {
			return err
		}
	}
	if address.Ours(to) {
		s.contact.Take(st, local)
		return nil
	}
	switch local {
	case "message":
		s.outMessage(st, to)
	case "presence":
		s.outPresence(st, to)
	case "iq":
		s.outIQ(st, to)
	default:
		return &streamFault{"unsupported-stanza-type", "otrproxy: <" + local + "> is no stanza."}
	}
	return nil
}

// nonza handles top-level elements that are no stanzas.
func (s *Session) nonza(st *stanza.Stanza, ns, local string) error {
	switch {
	case ns == "urn:xmpp:csi:0" && (local == "active" || local == "inactive"):
		plain := st.Root().Inner().Len() == 0
		for name := range st.Root().AttrNames() {
			plain = plain && name == "xmlns"
		}
		if plain {
			s.server.Queue(st.Raw)
		}
		return nil
	case ns == "urn:xmpp:sm:3" || ns == "urn:xmpp:sm:2":
		if local == "enable" || local == "resume" { // not offered, and not ours to pass on
			s.client.Queue([]byte("<failed xmlns='" + ns + "'><unexpected-request xmlns='" + stanza.NSStanzas + "'/></failed>"))
			s.client.Kick()
		}
		return nil
	}
	return &streamFault{"unsupported-stanza-type", "otrproxy: the client sent <" + local + ">, which was not offered."}
}

// refuse answers a client's stanza with an error.
func (s *Session) refuse(root stanza.Element, e stanza.Error) {
	s.client.Build(func(b []byte) []byte {
		return stanza.AppendError(b, string(root.Local()), root.Attr("to"), s.full(), root.Attr("id"), e)
	})
	s.client.Kick()
}

// An outbound is a client's message on its way out, with what holds for it. It is valid as long
// as its stanza.
type outbound struct {
	otrlayer.Message
	st     *stanza.Stanza
	root   stanza.Element
	to     address.JID
	rule   *config.Rule  // taken once, at the beginning
	by     otrlayer.Rule // the same, as the account has it
	strict bool          // nothing a person wrote may leave in clear: the rule says so, or the conversation is or was private
}

// outMessage is the way of a message out.
func (s *Session) outMessage(st *stanza.Stanza, to address.JID) {
	root := st.Root()
	contact := cmp.Or(to.Bare, s.jid) // RFC 6120 section 8.1.1.1: to the own account
	if s.closing.Load() {
		if !filter.Slight(root) {
			s.block(root, otrlayer.CauseUpstream, to.Bare)
		}
		return
	}
	s.writesIn(root, to, contact)
	if cmd, ok := command(root); ok && root.Attr("type") != "error" {
		s.command(cmd, contact)
		return
	}
	m := &s.passing
	*m = outbound{st: st, root: root, to: to, Message: otrlayer.Message{Contact: contact, To: to.Written, Type: root.Attr("type"), Raw: st.Raw, Slight: filter.Slight(root)}}
	m.rule, m.by = s.ruledOut.both(s.r.config, s.jid, contact)
	// What was private once does not go back to clear by another door.
	m.strict = s.strict(m.rule, contact)
	switch {
	case m.rule.Policy == config.Never:
		s.goes(m, otrlayer.Other)
	case s.outRoom(m):
	case contact == s.jid && m.strict:
		s.unprotected(root, "notes to yourself, for nobody is there to hold the other end,", contact)
	case m.Type == "headline" && m.strict:
		s.unprotected(root, "a headline, which programs show without decrypting it", contact)
	case m.Type == "error" && m.strict:
		m.Raw = filter.AppendBareError(nil, root)
		s.goes(m, otrlayer.Filtered)
	case m.Type == "error":
		s.goes(m, otrlayer.Other)
	default:
		s.outText(m)
	}
}

// writesIn notes where the person writes.
func (s *Session) writesIn(root stanza.Element, to address.JID, contact string) {
	if s.talksIn = contact; to.Resource && s.rooms.has(contact) && root.Attr("type") != "groupchat" {
		s.talksIn = to.Written
	}
	if display(s.shows.Load())&byAddress != 0 {
		s.windows.isOpen(contact, to.Written)
	}
}

// goes has a message leave as it is, if what it carries may. Where it may not, the person is
// told.
func (s *Session) goes(m *outbound, what otrlayer.Content) {
	m.RawID = m.root.AttrBytes("id")
	if cause := s.Account().Pass(s, &m.Message, m.by, what); cause != otrlayer.CauseNone && !m.Slight {
		s.block(m.root, cause, m.Contact)
	}
}

// outRoom is the way of a message that has to do with a room; false for any other.
func (s *Session) outRoom(m *outbound) bool {
	room, invites := m.Type == "groupchat" || s.isRoom(m.Contact) || s.unsure(m.Contact), filter.Invites(m.root)
	near := !room && m.strict && s.ofRooms(m.Contact)
	if !room && !invites && !near {
		return false
	}
	alone := !filter.AsksForVoice(m.root) // a request for voice is for the room itself
	switch {
	case !m.strict:
	case m.Slight && !m.by.Rooms: // nobody misses it
		s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Blocked)
		return true
	case m.Type == "groupchat" && s.isContact(m.Contact):
		s.unprotected(m.root, "what is said in a room, and this address is a contact's", m.Contact)
		return true
	case !m.by.Rooms:
		what := "an invitation (a rule with allow: [groupchat] lets it pass)"
		if room || near {
			what = "what is said in rooms (a rule with allow: [groupchat] lets it pass as it is)"
		}
		s.unprotected(m.root, what, m.Contact)
		return true
	case (room || near) && m.Type != "groupchat" && !invites && alone:
		s.outOccupant(m, room)
		return true
	case invites && m.Type != "groupchat":
		var ok bool
		if m.Raw, ok = filter.InvitationAlone(m.root); !ok {
			s.unprotected(m.root, "what stands beside an invitation", m.Contact)
			return true
		}
	}
	if m.Type == "groupchat" {
		s.tellOfRoom(m.Contact)
	}
	s.goes(m, otrlayer.InRoom)
	return true
}

// outOccupant is the way of what is said in a room to one person (XEP-0045 section 7.5).
func (s *Session) outOccupant(m *outbound, room bool) {
	switch {
	case m.to.Resource && s.isRoom(m.Contact):
		m.Occupant, m.Where = true, m.To
		m.Text = textOf(m.root)
		s.goes(m, otrlayer.InRoom)
	case m.Slight: // nobody misses it
		s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Blocked)
	case !room:
		s.block(m.root, otrlayer.CauseNotInRoom, m.Contact)
	default:
		s.unprotected(m.root, "what is said in a room to one person", m.Contact)
	}
}

// outText is the way of a message for one contact.
func (s *Session) outText(m *outbound) {
	scratch := written.Get().(*[]byte)
	defer written.Put(scratch)
	c := filter.Compose(m.root, m.rule, *scratch)
	m.Extra = c.Extra
	switch {
	case c.Body != nil:
		m.Text = c.Body.Text()
	case c.Reacts != nil:
		m.Text = s.reacted(m.Contact, c.Reacts)
	}
	requires := m.rule.Policy.Requires()
	carries := c.Opaque == nil && !c.Sealed && m.Text != "" // a text that OTR can carry
	if carries || !requires {
		m.ID, m.Thread = m.root.Attr("id"), c.Thread // what only passes bears its own
	}
	if (c.Reacts != nil || !carries) && !requires && s.passes(m) {
		return
	}
	switch {
	case !carries:
		s.outWithoutText(m, &c, scratch)
	case c.Body != nil && c.Body.HasChildren() && m.strict:
		s.unprotected(m.root, "markup inside a text", m.Contact)
	default:
		s.send(m, &c)
	}
}

// passes has a message leave in clear as it is, where it may; false where it was or is private. Where
// nothing leaves any more, the person is told.
func (s *Session) passes(m *outbound) bool {
	cause := s.Account().Pass(s, &m.Message, m.by, otrlayer.Other)
	if cause != otrlayer.CauseNone && cause != otrlayer.CauseUnprotected && !m.Slight {
		s.block(m.root, cause, m.Contact)
	}
	return cause != otrlayer.CauseUnprotected
}

// outWithoutText is the way of what carries no text for OTR, where nothing may leave in clear:
// what the rule lets stand beside one, or what is encrypted already.
func (s *Session) outWithoutText(m *outbound, c *filter.Composed, scratch *[]byte) {
	switch {
	case c.Unsound:
		s.unprotected(m.root, "what your program has encrypted in another way, for it is no whole message of that kind", m.Contact)
	case c.Sealed:
		s.unprotected(m.root, "what your program has encrypted in another way (a rule with allow: [omemo, openpgp] lets it pass)", m.Contact)
	case c.Lost != "" && c.Opaque == nil:
		s.unprotected(m.root, c.Lost, m.Contact)
	case c.Body != nil && c.Body.HasChildren():
		s.unprotected(m.root, "markup inside a text", m.Contact)
	case c.Opaque != nil:
		m.Raw = c.EndToEnd(m.root)
		s.goes(m, otrlayer.Filtered)
	case len(c.Extra)+len(c.Files) > 0:
		from := len(c.Extra)
		*scratch = c.AppendAlone(c.Extra, m.root)
		m.Raw = (*scratch)[from:]
		s.goes(m, otrlayer.Filtered)
	default: // hints and markers alone: nothing a person wrote
		s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Blocked)
	}
}

// send hands a text to the account.
func (s *Session) send(m *outbound, c *filter.Composed) {
	st, body := m.st, c.Body
	m.Rewrite = func(text string) []byte {
		e := st.Edit()
		if body != nil {
			e.SetText(*body, text)
		} // what has no text stays as it is
		return e.AppendTo(nil)
	}
	s.sending.Store(true)
	v := s.Account().Send(s, m.Message, m.by)
	s.sending.Store(false)
	switch v.Action() {
	case otrlayer.Block:
		s.block(m.root, v.Cause(), m.Contact)
	case otrlayer.Held:
		s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Held)
	}
	if v.Action() == otrlayer.Held || v.Action() == otrlayer.Encrypted {
		s.tellOfDropped(m.Contact, c)
	}
}

// Emit queues a message to the server. It is the only place that writes
// <message> upstream, and it does so only for a verdict that permits it.
func (s *Session) Emit(v otrlayer.Verdict) (ok bool) {
	m := v.Message()
	switch v.Action() {
	case otrlayer.Plain:
		switch {
		case m.Raw != nil && v.Body() == "":
			whole := func(b []byte) []byte { return append(b, m.Raw...) }
			if m.Slight { // nobody is told if it is lost
				ok = s.server.Stanza(whole)
			} else {
				ok = s.server.Message(leg.Mark{Slip: m.Slip(), ID: m.RawID}, whole)
			}
		case m.Rewrite != nil:
			ok = s.server.Message(leg.Mark{Slip: m.Slip()}, func(b []byte) []byte { return append(b, m.Rewrite(v.Body())...) })
		}
		m.Raw, m.RawID, m.Rewrite = nil, nil, nil // valid until now only
		if ok {
			s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Passed)
		}
		return ok // the reader of the client is at work and flushes
	case otrlayer.Encrypted:
		const beside = "<encryption xmlns='" + nsEME + "' namespace='" + nsOTR + "' name='OTR'/><no-copy xmlns='" + nsHints + "'/><no-permanent-store xmlns='" + nsHints + "'/><private xmlns='" + nsCarbons + "'/></message>"
		ok = s.server.Message(leg.Mark{Slip: m.Slip()}, func(b []byte) []byte {
			b = stanza.Message{To: v.To(), ID: m.ID, Type: orChat(filter.SafeType(m.Type)), Bytes: v.Sealed(), Extra: m.Extra}.AppendTo(b)
			return append(bytes.TrimSuffix(b, []byte("</message>")), beside...)
		})
		if ok {
			s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Encrypted)
		}
	case otrlayer.Protocol:
		hints := "<no-copy xmlns='" + nsHints + "'/><no-permanent-store xmlns='" + nsHints + "'/><private xmlns='" + nsCarbons + "'/>"
		if !v.Store() {
			hints = "<no-copy xmlns='" + nsHints + "'/><no-store xmlns='" + nsHints + "'/><private xmlns='" + nsCarbons + "'/>"
		}
		ok = s.server.Stanza(func(b []byte) []byte {
			return stanza.Message{To: v.To(), ID: leg.OwnID + leg.NewID(), Type: "chat", Body: v.Body(), Extra: []byte(hints)}.AppendTo(b)
		})
	}
	if !s.sending.Load() { // else the reader of the client is at work, and flushes after it
		s.server.Kick()
	}
	return ok
}

func orChat(t string) string {
	if t == "" {
		return "chat"
	}
	return t
}

package relay

import (
	"bytes"
	"slices"
	"strings"

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
		s.service(st, local)
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

// outMessage is the way of a message out.
func (s *Session) outMessage(st *stanza.Stanza, to address.JID) {
	root := st.Root()
	contact := to.Bare
	if s.closing.Load() {
		if !filter.Slight(root) {
			s.block(root, otrlayer.CauseUpstream, contact)
		}
		return
	}
	if contact == "" {
		contact = s.jid // RFC 6120 section 8.1.1.1: to the own account
	}
	if s.talksIn = contact; to.Resource && s.rooms.has(contact) && root.Attr("type") != "groupchat" {
		s.talksIn = to.Written
	}
	if display(s.shows.Load())&byAddress != 0 {
		s.windows.isOpen(contact, to.Written)
	}
	if cmd, ok := command(root); ok && root.Attr("type") != "error" {
		s.command(cmd, contact)
		return
	}
	cfg := s.r.config()
	rule := s.ruledOut.by(cfg, s.jid, contact)
	m := &s.passing
	*m = otrlayer.Message{Contact: contact, To: to.Written, Type: root.Attr("type"), Raw: st.Raw, Slight: filter.Slight(root)}
	pass := func() {
		m.RawID = root.AttrBytes("id")
		if cause := s.Account().Pass(s, m); cause != otrlayer.CauseNone && !m.Slight {
			s.block(root, cause, contact)
		}
	}
	if rule.Policy == config.Never {
		pass()
		return
	}
	requires := rule.Policy.Requires()
	// What was private once does not go back to clear by another door.
	strict := s.strict(rule, contact)
	room, invites := m.Type == "groupchat" || s.isRoom(contact) || s.unsure(contact), filter.Invites(root)
	if near := !room && strict && s.ofRooms(contact); room || invites || near {
		alone := !filter.AsksForVoice(root) // a request for voice is for the room itself
		switch {
		case !strict:
		case m.Slight && !rule.Allows(config.Groupchat): // nobody misses it
			s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Blocked)
			return
		case m.Type == "groupchat" && s.isContact(contact):
			s.unprotected(root, "what is said in a room, and this address is a contact's", contact)
			return
		case !rule.Allows(config.Groupchat):
			what := "an invitation (a rule with allow: [groupchat] lets it pass)"
			if room || near {
				what = "what is said in rooms (a rule with allow: [groupchat] lets it pass as it is)"
			}
			s.unprotected(root, what, contact)
			return
		case (room || near) && m.Type != "groupchat" && !invites && alone:
			switch {
			case to.Resource && s.isRoom(contact): // to one occupant (XEP-0045 section 7.5)
				m.Occupant, m.Where = true, m.To
				if body := picked(root); body != nil {
					m.Text = body.Text()
				}
				pass()
			case m.Slight: // nobody misses it
				s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Blocked)
			case !room:
				s.block(root, otrlayer.CauseNotInRoom, contact)
			default:
				s.unprotected(root, "what is said in a room to one person", contact)
			}
			return
		case invites && m.Type != "groupchat":
			var ok bool
			if m.Raw, ok = filter.InvitationAlone(root); !ok {
				s.unprotected(root, "what stands beside an invitation", contact)
				return
			}
		}
		if m.Type == "groupchat" {
			s.tellOfRoom(contact)
		}
		pass()
		return
	}
	if contact == s.jid && strict {
		s.unprotected(root, "notes to yourself, for nobody is there to hold the other end,", contact)
		return
	}
	if m.Type == "headline" && strict {
		s.unprotected(root, "a headline, which programs show without decrypting it", contact)
		return
	}
	if m.Type == "error" {
		if strict {
			m.Raw = filter.AppendBareError(nil, root)
		}
		pass()
		return
	}
	scratch := written.Get().(*[]byte)
	defer written.Put(scratch)
	c := filter.Compose(root, rule, *scratch)
	body := c.Body
	m.Extra = c.Extra
	switch {
	case body != nil:
		m.Text = body.Text()
	case c.Reacts != nil:
		m.Text = s.reacted(contact, c.Reacts)
	}
	carries := c.Opaque == nil && !c.Sealed && m.Text != "" // a text that OTR can carry
	if carries || !requires {
		m.ID, m.Thread = root.Attr("id"), c.Thread // what only passes bears its own
	}
	if c.Reacts != nil && !requires && s.Account().PassInClear(s, m) {
		return
	}
	if !carries {
		if !requires && s.Account().PassInClear(s, m) {
			return
		}
		switch {
		case c.Unsound:
			s.unprotected(root, "what your program has encrypted in another way, for it is no whole message of that kind", contact)
		case c.Sealed:
			s.unprotected(root, "what your program has encrypted in another way (a rule with allow: [omemo, openpgp] lets it pass)", contact)
		case c.Lost != "" && c.Opaque == nil:
			s.unprotected(root, c.Lost, contact)
		case body != nil && body.HasChildren():
			s.unprotected(root, "markup inside a text", contact)
		case c.Opaque != nil:
			m.Raw = c.EndToEnd(root)
			pass()
		case len(c.Extra)+len(c.Files) > 0:
			from := len(c.Extra)
			*scratch = c.AppendAlone(c.Extra, root)
			m.Raw = (*scratch)[from:]
			pass()
		default: // hints and markers alone: nothing a person wrote
			s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Blocked)
		}
		return
	}
	if body != nil && body.HasChildren() && strict {
		s.unprotected(root, "markup inside a text", contact)
		return
	}
	m.Rewrite = func(text string) []byte {
		e := st.Edit()
		if body != nil {
			e.SetText(*body, text)
		} // what has no text stays as it is
		return e.AppendTo(nil)
	}
	s.sending.Store(true)
	v := s.Account().Send(s, *m)
	s.sending.Store(false)
	switch v.Action() {
	case otrlayer.Block:
		s.block(root, v.Cause(), contact)
	case otrlayer.Held:
		s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Held)
	}
	if v.Action() == otrlayer.Held || v.Action() == otrlayer.Encrypted {
		s.tellOfDropped(contact, &c)
	}
}

// reacted is a reaction in words, for OTR carries nothing else.
func (s *Session) reacted(contact string, r *filter.Reaction) string {
	what := "reacted with " + r.Emoji + " to "
	if r.Emoji == "" {
		what = "took back a reaction to "
	}
	if text := s.Account().TextOf(contact, r.To); text != "" {
		return what + otrlayer.Quoted(text)
	}
	return what + "an earlier message"
}

// tellOfDropped says what was left out of a message: content each time, what only the
// person's program understands once.
func (s *Session) tellOfDropped(contact string, c *filter.Composed) {
	dropped := c.Dropped
	for _, name := range c.Strange {
		if key := contact + " " + name; !s.strange[key] && len(s.strange) < maxTold {
			if s.strange == nil {
				s.strange = map[string]bool{}
			}
			s.strange[key] = true
			dropped = append(dropped, "an extension of your program ("+name+"; not mentioned again)")
		}
	}
	if len(dropped) > 0 {
		s.Notice(contact, "Your text is sent encrypted; what OTR cannot protect was left out: "+strings.Join(slices.Compact(dropped), ", ")+".")
	}
}

// maxTold bounds what is remembered in order not to be said again.
const maxTold = 1000

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
			return stanza.Message{To: v.To(), ID: ownID + leg.NewID(), Type: "chat", Body: v.Body(), Extra: []byte(hints)}.AppendTo(b)
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

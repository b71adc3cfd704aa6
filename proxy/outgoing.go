package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// Namespaces of what may stand beside a body.
const (
	nsChatStates = "http://jabber.org/protocol/chatstates"
	nsReceipts   = "urn:xmpp:receipts"
	nsStanzaID   = "urn:xmpp:sid:0"
	nsHints      = "urn:xmpp:hints"
	nsEME        = "urn:xmpp:eme:0"
	nsCarbons    = "urn:xmpp:carbons:2"
	nsOTR        = "urn:xmpp:otr:0"
	nsMUC        = "http://jabber.org/protocol/muc"
	nsRoster     = "jabber:iq:roster"
	nsXHTML      = "http://jabber.org/protocol/xhtml-im"
	nsNick       = "http://jabber.org/protocol/nick"
	nsCaps       = "http://jabber.org/protocol/caps"
	nsMarkers    = "urn:xmpp:chat-markers:0"
)

// outgoing decides about one stanza of the client. The stanza errors it answers
// with carry the client's own id.
func (s *session) outgoing(st *stanza.Stanza) error {
	if st.Kind == stanza.KindSpace {
		s.server.queue(st.Raw)
		return nil
	}
	root := st.Root()
	ns, local := string(root.NS()), string(root.Local())
	if ns != stanza.NSClient {
		return s.nonza(st, ns, local)
	}
	to := s.p.addresses.of(root, "to")
	if len(root.RawAttr("to")) > 0 && !to.ok {
		s.refuse(root, stanza.Error{Type: "modify", Condition: "jid-malformed", Text: "This address is not a JID."})
		return nil
	}
	if ours(to) {
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
func (s *session) nonza(st *stanza.Stanza, ns, local string) error {
	switch {
	case ns == "urn:xmpp:csi:0" && (local == "active" || local == "inactive"):
		plain := st.Root().Inner().Len() == 0
		for name := range st.Root().AttrNames() {
			plain = plain && name == "xmlns"
		}
		if plain {
			s.server.queue(st.Raw)
		}
		return nil
	case ns == "urn:xmpp:sm:3" || ns == "urn:xmpp:sm:2":
		if local == "enable" || local == "resume" { // not offered, and not ours to pass on
			s.client.queue([]byte("<failed xmlns='" + ns + "'><unexpected-request xmlns='" + stanza.NSStanzas + "'/></failed>"))
			s.client.kick()
		}
		return nil
	}
	return &streamFault{"unsupported-stanza-type", "otrproxy: the client sent <" + local + ">, which was not offered."}
}

// refuse answers a client's stanza with an error.
func (s *session) refuse(root stanza.Element, e stanza.Error) {
	s.client.build(func(b []byte) []byte {
		return stanza.AppendError(b, string(root.Local()), root.Attr("to"), s.full(), root.Attr("id"), e)
	})
	s.client.kick()
}

// block refuses a message for a cause of the closed set.
func (s *session) block(root stanza.Element, c otrlayer.Cause, contact string) {
	s.account.Refuse(s, &otrlayer.Message{Contact: contact, To: root.Attr("to"), ID: root.Attr("id")}, c, s.account.Why(c, contact))
}

func blockError(c otrlayer.Cause, sentence string) stanza.Error {
	e := stanza.Error{Type: "cancel", Condition: "policy-violation", Text: sentence}
	switch c {
	case otrlayer.CauseQueueFull, otrlayer.CauseMemory:
		e = stanza.Error{Type: "wait", Condition: "resource-constraint", Text: sentence}
	case otrlayer.CauseShutdown, otrlayer.CauseUpstream, otrlayer.CauseUncertain:
		e = stanza.Error{Type: "wait", Condition: "remote-server-timeout", Text: sentence}
	case otrlayer.CauseBounced:
		e = stanza.Error{Type: "cancel", Condition: "item-not-found", Text: sentence}
	}
	return e
}

// outMessage is the way of a message out.
func (s *session) outMessage(st *stanza.Stanza, to address) {
	root := st.Root()
	contact := to.bare
	if s.closing.Load() {
		if !slight(root) {
			s.block(root, otrlayer.CauseUpstream, contact)
		}
		return
	}
	if contact == "" {
		contact = s.jid // RFC 6120 section 8.1.1.1: to the own account
	}
	if cmd, ok := command(root); ok && root.Attr("type") != "error" {
		s.command(cmd, contact)
		return
	}
	cfg := s.p.Config()
	rule := cfg.RuleFor(s.jid, contact)
	m := otrlayer.Message{Contact: contact, To: root.Attr("to"), ID: root.Attr("id"), Type: root.Attr("type"), Raw: st.Raw, Slight: slight(root)}
	if rule.Policy == config.Never {
		if v := s.account.Send(s, m); v.Action() == otrlayer.Block && !m.Slight {
			s.block(root, v.Cause(), contact)
		}
		return
	}
	pass := func() {
		if !s.account.Pass(s, m) && !m.Slight {
			s.block(root, otrlayer.CauseUpstream, contact)
		}
	}
	requires := rule.Policy.Requires()
	// What was private once does not go back to clear by another door.
	strict := s.strict(rule, contact)
	if room := m.Type == "groupchat" || s.isRoom(contact); room || invitation(root) {
		switch {
		case !strict:
		case !rule.Allows(config.Groupchat):
			what := "an invitation"
			if room {
				what = "what is said in rooms (a rule with allow: [groupchat] lets it pass as it is)"
			}
			s.unprotected(root, what, contact)
			return
		case room && m.Type != "groupchat" && !invitation(root):
			s.unprotected(root, "what is said in a room to one person", contact)
			return
		case !room:
			var ok bool
			if m.Raw, ok = invitationAlone(st); !ok {
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
			m.Raw = appendBareError(nil, root)
		}
		pass()
		return
	}
	body, carried := compose(root, rule)
	m.Extra = carried.extra
	if body != nil {
		m.Text = body.Text()
	}
	if body == nil || carried.opaque != nil || carried.sealed || m.Text == "" {
		// No text that OTR could carry.
		if !requires && s.account.PassInClear(s, m) {
			return
		}
		switch {
		case carried.sealed:
			s.unprotected(root, "what your program has encrypted in another way (a rule with allow: [omemo, openpgp] lets it pass)", contact)
		case carried.lost != "" && carried.opaque == nil:
			s.unprotected(root, carried.lost, contact)
		case body != nil && body.HasChildren():
			s.unprotected(root, "markup inside a text", contact)
		case carried.opaque != nil:
			m.Raw = s.endToEnd(root, carried)
			pass()
		case len(carried.extra) > 0:
			m.Raw = stanza.Message{To: m.To, ID: m.ID, Type: safeType(m.Type), Extra: carried.extra}.AppendTo(nil)
			pass()
		default: // hints and markers alone: nothing a person wrote
			s.p.metrics.count(out, message, blocked)
		}
		return
	}
	if body.HasChildren() && strict {
		s.unprotected(root, "markup inside a text", contact)
		return
	}
	m.Rewrite = func(text string) []byte {
		e := st.Edit()
		e.SetText(*body, text)
		return e.AppendTo(nil)
	}
	v := s.account.Send(s, m)
	switch v.Action() {
	case otrlayer.Block:
		s.block(root, v.Cause(), contact)
	case otrlayer.Held:
		s.p.metrics.count(out, message, held)
	}
	if v.Action() == otrlayer.Held || v.Action() == otrlayer.Encrypted {
		s.tellOfDropped(contact, carried)
	}
}

// unprotected refuses what OTR cannot protect, by name.
func (s *session) unprotected(root stanza.Element, what, contact string) {
	sentence := otrlayer.Because("Not sent: OTR can encrypt text only, so it cannot protect "+what+", and the rules demand encryption for "+contact+".", s.p.Config().RuleFor(s.jid, contact).Reason)
	if string(root.Local()) == "message" {
		s.account.Refuse(s, &otrlayer.Message{Contact: contact, To: root.Attr("to"), ID: root.Attr("id")}, otrlayer.CauseUnprotected, sentence)
		return
	}
	s.p.metrics.blocked(otrlayer.CauseUnprotected)
	s.p.metrics.count(out, iq, blocked)
	s.refuse(root, blockError(otrlayer.CauseUnprotected, sentence))
}

// tellOfDropped says what was left out of a message: content each time, what only the
// person's program understands once.
func (s *session) tellOfDropped(contact string, c carried) {
	dropped := c.dropped
	for _, name := range c.strange {
		if key := contact + " " + name; !s.strange[key] && len(s.strange) < maxTold {
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

// slight reports whether a message says nothing that a person wrote: that somebody is
// typing, or has read something.
func slight(root stanza.Element) bool {
	for el := range root.Children() {
		switch string(el.NS()) {
		case nsChatStates, nsReceipts, nsMarkers, nsHints, nsStanzaID:
		case stanza.NSClient:
			if string(el.Local()) != "thread" {
				return false
			}
		default:
			return false
		}
	}
	return root.HasChildren()
}

// carried is what stands in a message besides its body.
type carried struct {
	extra   []byte          // rebuilt: may stand beside ciphertext
	opaque  *stanza.Element // end-to-end encrypted by the client itself
	sealed  bool            // the same, but it may not pass, and the body is no substitute
	dropped []string        // content that is left out when there is a body
	strange []string        // names of extensions that are left out
	lost    string          // content that cannot be kept, without which the message says nothing
}

// content names what OTR cannot protect, by namespace.
var content = map[string]string{
	"jabber:x:oob":                            "a link to a file",
	"jabber:x:data":                           "a form",
	"urn:xmpp:message-correct:0":              "the mark that it corrects an earlier message (it arrives as a new one)",
	"urn:xmpp:message-retract:0":              "a retraction",
	"urn:xmpp:message-retract:1":              "a retraction",
	"urn:xmpp:fasten:0":                       "what is attached to an earlier message",
	"urn:xmpp:reactions:0":                    "a reaction",
	"urn:xmpp:sfs:0":                          "a file",
	"urn:xmpp:sims:1":                         "a file",
	"urn:xmpp:bob":                            "a picture",
	"urn:xmpp:stickers:0":                     "a sticker",
	"urn:xmpp:attention:0":                    "a nudge",
	"urn:xmpp:jingle-message:0":               "a call",
	"urn:xmpp:call-invites:0":                 "a call",
	nsForward:                                 "a forwarded message",
	"http://jabber.org/protocol/ibb":          "a file",
	"http://jabber.org/protocol/geoloc":       "a place",
	"http://jabber.org/protocol/rosterx":      "contacts",
	"http://jabber.org/protocol/httpauth":     "a login request",
	"http://jabber.org/protocol/pubsub#event": "an event",
}

// compose picks the one body to encrypt and rebuilds what may stand beside it,
// without text and with known attributes only.
// Everything that is not listed here stays behind.
func compose(root stanza.Element, rule *config.Rule) (body *stanza.Element, c carried) {
	for el := range root.Children() {
		ns, local := string(el.NS()), string(el.Local())
		switch {
		case ns == stanza.NSClient && local == "body":
			switch {
			case el.Inner().Len() == 0:
				continue // says nothing
			case body == nil:
				body = &el
				continue
			case body.RawAttr("xml:lang") != nil && el.RawAttr("xml:lang") == nil:
				body = &el
			}
			c.dropped = append(c.dropped, "the same in another language")
		case ns == stanza.NSClient && local == "thread":
			c.extra = append(stanza.AppendEscaped(append(c.extra, "<thread>"...), threadID(el.Text())), "</thread>"...)
		case ns == stanza.NSClient && local == "subject":
			if el.Inner().Len() > 0 {
				c.dropped, c.lost = append(c.dropped, "the subject"), "a subject"
			}
		case ns == nsChatStates:
			switch local {
			case "active", "composing", "paused", "inactive", "gone":
				if rule.Allows(config.Chatstates) {
					c.extra = append(c.extra, "<"+local+" xmlns='"+nsChatStates+"'/>"...)
				}
			}
		case ns == nsReceipts:
			if rule.Allows(config.Receipts) {
				switch local {
				case "request":
					c.extra = append(c.extra, "<request xmlns='"+nsReceipts+"'/>"...)
				case "received":
					c.extra = append(stanza.AppendAttr(append(c.extra, "<received xmlns='"+nsReceipts+"'"...), "id", token(el.Attr("id"))), "/>"...)
				}
			}
		case ns == nsStanzaID && local == "origin-id":
			c.extra = append(stanza.AppendAttr(append(c.extra, "<origin-id xmlns='"+nsStanzaID+"'"...), "id", token(el.Attr("id"))), "/>"...)
		case ns == nsHints, ns == nsEME, ns == nsCarbons && local == "private", ns == nsMarkers, ns == nsCaps, ns == "jabber:x:event":
			// ours are put in their place, or nobody misses them
		case sealedBy(ns, local) != "":
			if rule.Allows(sealedBy(ns, local)) && opaque(el) {
				c.opaque = &el
			} else {
				c.sealed = true
			}
		case ns == nsXHTML, ns == nsNick, ns == "urn:xmpp:fallback:0", ns == "urn:xmpp:styling:0", ns == "urn:xmpp:message-attaching:1":
			c.lost = "formatted text" // without a body; beside one it says the same again
		case content[ns] != "":
			c.lost = content[ns]
			c.dropped = append(c.dropped, content[ns])
		default:
			c.lost = "an extension of your program (" + clip(local) + ")"
			c.strange = append(c.strange, clip(local))
		}
	}
	if strings.TrimSpace(root.Text()) != "" {
		c.lost, c.dropped = "text outside the body", append(c.dropped, "text outside the body")
	}
	return body, c
}

func clip(s string) string { return s[:min(len(s), 40)] }

var (
	opaqueName = regexp.MustCompile(`^[0-9A-Fa-f-]{8,64}$`)
	idToken    = regexp.MustCompile(`^[!-~]{1,128}$`)
	base64Only = regexp.MustCompile(`^[A-Za-z0-9+/=\s]*$`)
	jidAttr    = regexp.MustCompile(`^[^\s<>"'&/]{1,256}$`)
	plainAttr  = regexp.MustCompile(`^[A-Za-z0-9+/=:._#-]*$`)
)

// threadID passes a thread's name when it is a short opaque token, as a UUID is, and
// else stands a hash in its place: a person could have written it.
func threadID(s string) string {
	if opaqueName.MatchString(s) {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// token passes an id without blanks; anything else is hashed like a thread.
func token(s string) string {
	if idToken.MatchString(s) {
		return s
	}
	return threadID(s)
}

// sealedBy names the end-to-end encryption of the client's own that an element holds; ""
// for none.
func sealedBy(ns, local string) config.Allow {
	switch ns {
	case "eu.siacs.conversations.axolotl", "urn:xmpp:omemo:1", "urn:xmpp:omemo:2":
		if local == "encrypted" {
			return config.OMEMO
		}
	case "jabber:x:encrypted":
		if local == "x" {
			return config.OpenPGP
		}
	case "urn:xmpp:openpgp:0":
		if local == "openpgp" {
			return config.OpenPGP
		}
	}
	return ""
}

// opaque reports whether an element holds nothing but base64 and short tokens, and
// can be moved into another message: it declares its own namespace and needs no
// prefix of the old one.
func opaque(el stanza.Element) bool {
	if el.RawAttr("xmlns") == nil {
		return false
	}
	ok := func(e stanza.Element) bool {
		if bytes.IndexByte(e.Name(), ':') >= 0 {
			return false
		}
		for name, v := range e.AttrNames() {
			if strings.Contains(name, ":") || !plainAttr.Match(v) && (name != "jid" || !jidAttr.Match(v)) {
				return false
			}
		}
		return base64Only.MatchString(e.Text())
	}
	if !ok(el) {
		return false
	}
	for d := range el.Descendants() {
		if !ok(d) {
			return false
		}
	}
	return true
}

// endToEnd rebuilds a message that the client has encrypted itself, with a fixed
// text for programs that cannot read it.
func (s *session) endToEnd(root stanza.Element, c carried) []byte {
	ns := string(c.opaque.NS())
	extra := append([]byte{}, c.opaque.Raw()...)
	extra = append(extra, "<encryption xmlns='"+nsEME+"' namespace='"+ns+"'/><store xmlns='"+nsHints+"'/>"...)
	extra = append(extra, c.extra...)
	return stanza.Message{To: root.Attr("to"), ID: root.Attr("id"), Type: safeType(root.Attr("type")),
		Body: "This message is end-to-end encrypted; your program cannot read it.", Extra: extra}.AppendTo(nil)
}

// safeType is the message's type when it is one of RFC 6121 section 5.2.2.
func safeType(t string) string {
	switch t {
	case "chat", "normal", "headline":
		return t
	}
	return ""
}

// invitation reports whether a message invites to a room (XEP-0045, XEP-0249).
func invitation(root stanza.Element) bool {
	for el := range root.Children() {
		switch string(el.NS()) {
		case "jabber:x:conference":
			return true
		case nsMUC + "#user":
			for c := range el.Children() {
				if l := string(c.Local()); l == "invite" || l == "decline" {
					return true
				}
			}
		}
	}
	return false
}

// invitationAlone is an invitation without anything beside it.
func invitationAlone(st *stanza.Stanza) (raw []byte, ok bool) {
	root := st.Root()
	if strings.TrimSpace(root.Text()) != "" {
		return nil, false
	}
	m := stanza.Message{To: root.Attr("to"), ID: root.Attr("id"), Type: safeType(root.Attr("type"))}
	for el := range root.Children() {
		if ns := string(el.NS()); (ns == "jabber:x:conference" || ns == nsMUC+"#user") && el.RawAttr("xmlns") != nil {
			m.Extra = append(m.Extra, el.Raw()...)
		}
	}
	return m.AppendTo(nil), m.Extra != nil
}

// conditions are the stanza error conditions of RFC 6120 section 8.3.3.
var conditions = strings.Fields(`
	bad-request conflict feature-not-implemented forbidden gone internal-server-error
	item-not-found jid-malformed not-acceptable not-allowed not-authorized
	policy-violation recipient-unavailable redirect registration-required remote-server-not-found remote-server-timeout
	resource-constraint service-unavailable subscription-required undefined-condition unexpected-request`)

// appendBareError rebuilds a client's error without the text and the stanza it may
// quote.
func appendBareError(dst []byte, root stanza.Element) []byte {
	e := stanza.Error{Type: "cancel", Condition: "undefined-condition"}
	if el, ok := root.Child(stanza.NSClient, "error"); ok {
		if t := el.Attr("type"); slices.Contains([]string{"auth", "cancel", "continue", "modify", "wait"}, t) {
			e.Type = t
		}
		for c := range el.Children() {
			if l := string(c.Local()); string(c.NS()) == stanza.NSStanzas && slices.Contains(conditions, l) {
				e.Condition = l
			}
		}
	}
	return stanza.AppendError(dst, string(root.Local()), "", root.Attr("to"), root.Attr("id"), e)
}

// Emit queues a message to the server. It is the only place that writes
// <message> upstream, and it does so only for a verdict that permits it.
func (s *session) Emit(v otrlayer.Verdict) (ok bool) {
	m := v.Message()
	switch v.Action() {
	case otrlayer.Plain:
		switch {
		case m.Raw != nil && v.Body() == "":
			whole := func(b []byte) []byte { return append(b, m.Raw...) }
			if m.Slight { // nobody is told if it is lost
				ok = s.server.stanza(whole)
			} else {
				ok = s.server.message(mark{m: m.Lean()}, whole)
			}
		case m.Rewrite != nil:
			ok = s.server.message(mark{m: m.Lean()}, func(b []byte) []byte { return append(b, m.Rewrite(v.Body())...) })
		}
		m.Raw, m.Rewrite = nil, nil // valid until now only
		if ok {
			s.p.metrics.count(out, message, passed)
		}
		return ok // the reader of the client is at work and flushes
	case otrlayer.Encrypted:
		extra := append([]byte{}, m.Extra...)
		extra = append(extra, "<encryption xmlns='"+nsEME+"' namespace='"+nsOTR+"' name='OTR'/><no-copy xmlns='"+nsHints+"'/><no-permanent-store xmlns='"+nsHints+"'/><private xmlns='"+nsCarbons+"'/>"...)
		ok = s.server.message(mark{m: m.Lean()}, func(b []byte) []byte {
			return stanza.Message{To: v.To(), ID: m.ID, Type: orChat(safeType(m.Type)), Body: v.Body(), Extra: extra}.AppendTo(b)
		})
		if ok {
			s.p.metrics.count(out, message, encrypted)
		}
	case otrlayer.Protocol:
		hints := "<no-copy xmlns='" + nsHints + "'/><no-permanent-store xmlns='" + nsHints + "'/><private xmlns='" + nsCarbons + "'/>"
		if !v.Store() {
			hints = "<no-copy xmlns='" + nsHints + "'/><no-store xmlns='" + nsHints + "'/><private xmlns='" + nsCarbons + "'/>"
		}
		ok = s.server.stanza(func(b []byte) []byte {
			return stanza.Message{To: v.To(), ID: ownID + streamID(), Type: "chat", Body: v.Body(), Extra: []byte(hints)}.AppendTo(b)
		})
	}
	s.server.kick()
	return ok
}

func orChat(t string) string {
	if t == "" {
		return "chat"
	}
	return t
}
